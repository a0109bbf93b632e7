import ClusterHarness
import ClusterLoad
import Foundation
import Synchronization
import Terminal

#if canImport(Glibc)
  import Glibc
#endif

// A network of its own for every node, on one machine: each node's processes live in a network namespace with one
// address, and all of them hang on one bridge. What is dropped is dropped by the node's own kernel, SYNs and all, and
// nothing of it touches the machine's network.
//
//     the engine, in a namespace of its own too      bridge 10.77.0.254
//          │             │                │
//       w1 10.77.0.1   w2 10.77.0.2 …   c1 10.77.0.101 …   etcd 10.77.0.200
//
// A namespace lives as long as a process that holds it, and the holders die with the engine, however that ends: nothing
// is left to be cleaned up.

final class NamespaceNetwork: Sendable {
  private static let bridge = "chaos0"
  private let holders: [String: ChildProcess]
  private let nsenter: String
  private let iptables: String

  /// Whether this process already is in a network namespace of its own.
  static var isInside: Bool { getenv("CHAOS_INSIDE") != nil }

  /// Starts this program again, with the same words, in a network namespace of its own; returns only when it cannot.
  static func enter(_ words: [String]) throws {
    guard !isInside else { return }
    guard geteuid() == 0 else { throw CommandError("network namespaces need root") }
    let unshare = try Tool.find(["unshare"])
    let program = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    setenv("CHAOS_INSIDE", "1", 1)
    var arguments: [UnsafeMutablePointer<CChar>?] = ([unshare, "--net", "--", program] + words).map { strdup($0) }
    arguments.append(nil)
    // The mask of blocked signals would be inherited: the program blocks them itself again.
    execv(unshare, &arguments)
    throw CommandError("cannot run \(unshare): \(String(cString: strerror(errno)))")
  }

  /// Switches loopback on in this process's own namespace.
  static func prepare() throws { try Tool.run(["ip", "link", "set", "lo", "up"]) }

  /// - Parameter directory: for the holders' logs.
  init(nodes: [String], directory: String) throws {
    guard Self.isInside else { throw CommandError("not in a network namespace of its own") }
    nsenter = try Tool.find(["nsenter"])
    iptables = try Tool.find(["iptables"])
    let (ip, unshare, sleep) = (try Tool.find(["ip"]), try Tool.find(["unshare"]), try Tool.find(["sleep"]))
    if (try? Tool.run([ip, "link", "show", Self.bridge])) == nil {
      try Tool.run([ip, "link", "add", "name", Self.bridge, "type", "bridge"])
      try Tool.run([ip, "addr", "add", "10.77.0.254/24", "dev", Self.bridge])
      try Tool.run([ip, "link", "set", Self.bridge, "up"])
    }
    let mine = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/net")
    var holders: [String: ChildProcess] = [:]
    for node in nodes {
      let holder = try ChildProcess(
        name: "net-\(node)", executable: unshare, arguments: ["--net", "--", sleep, "86400"],
        logPath: "\(directory)/net.log")
      let deadline = Monotonic.now + .seconds(5)
      while (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(holder.pid)/ns/net")) ?? mine == mine {
        guard holder.isRunning, Monotonic.now < deadline else {
          throw CommandError("no namespace for \(node): \(holder.logTail())")
        }
        Monotonic.wait(until: Monotonic.now + .milliseconds(2))
      }
      let pid = "\(holder.pid)"
      try Tool.run([
        ip, "link", "add", "v-\(node)", "type", "veth", "peer", "name", "eth0", "netns", pid,
      ])
      try Tool.run([ip, "link", "set", "v-\(node)", "master", Self.bridge, "up"])
      let inside = [nsenter, "-t", pid, "-n", "--", ip]
      try Tool.run(inside + ["addr", "add", "\(Self.address(of: node))/24", "dev", "eth0"])
      for link in ["eth0", "lo"] { try Tool.run(inside + ["link", "set", link, "up"]) }
      holders[node] = holder
    }
    self.holders = holders
  }

  /// w1 is .1, c1 is .101, etcd is .200.
  static func address(of node: String) -> String {
    let number = Int(node.dropFirst()) ?? 0
    return "10.77.0.\(node == "etcd" ? 200 : number + (node.hasPrefix("c") ? 100 : 0))"
  }
  func address(of node: String) -> String { Self.address(of: node) }

  /// The words before a command line that is to run in a node's namespace.
  func prefix(for node: String) -> [String] {
    holders[node].map { [nsenter, "-t", "\($0.pid)", "-n", "--"] } ?? []
  }

  /// What a node's kernel does with the packets of another.
  enum Rule {
    case dropFrom, dropTo
    /// A share of them, both ways.
    case lose(Double)
  }

  /// Adds rules, in the namespace of `node`, about `peer`.
  /// - Returns: what takes them away again.
  func apply(_ rules: [Rule], at node: String, about peer: String) throws -> @Sendable () throws -> Void {
    let address = address(of: peer)
    let lines = rules.flatMap { rule -> [[String]] in
      switch rule {
      case .dropFrom: return [["INPUT", "-s", address, "-j", "DROP"]]
      case .dropTo: return [["OUTPUT", "-d", address, "-j", "DROP"]]
      case .lose(let share):
        let some = ["-m", "statistic", "--mode", "random", "--probability", "\(share)", "-j", "DROP"]
        return [["INPUT", "-s", address] + some, ["OUTPUT", "-d", address] + some]
      }
    }
    let command = prefix(for: node) + [iptables, "-w"]
    for line in lines { try Tool.run(command + ["-A"] + line) }
    return { for line in lines { try Tool.run(command + ["-D"] + line) } }
  }

  func remove() { for holder in holders.values { holder.kill() } }
}
