import Foundation
import Synchronization

// A real etcd of one member on this machine, at an address that it keeps: it can be killed, frozen, and started again
// on the same data.

public final class EtcdProcess: Sendable {
  /// The program; nil when there is none on the PATH (Debian: the package `etcd-server`).
  public static var executable: String? {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
    return path.split(separator: ":").map { "\($0)/etcd" }.first { FileManager.default.isExecutableFile(atPath: $0) }
  }

  /// Where clients connect.
  public var address: String { "\(host):\(client.port)" }
  public var port: UInt16 { client.port }
  public var process: ChildProcess { current.withLock { $0 } }
  private let current: Mutex<ChildProcess>
  private let executable: String
  private let directory: String
  private let host: String
  private let prefix: [String]
  private let client: PortReservation
  private let peer: PortReservation

  /// Starts it and waits until it serves.
  /// - Parameters:
  ///   - directory: for its data and its log; it must be there.
  ///   - host: its address, when it runs elsewhere than on loopback: behind the words of `prefix`.
  public init(
    directory: String, host: String = "127.0.0.1", prefix: [String] = []
  ) throws(HarnessError) {
    guard let executable = Self.executable else {
      throw HarnessError("etcd is not on the PATH; on Debian: apt-get install etcd-server")
    }
    self.executable = executable
    self.directory = directory
    self.host = host
    self.prefix = prefix
    client = try PortReservation()
    peer = try PortReservation()
    current = Mutex(try Self.start(executable, directory, host, prefix, client, peer))
    try waitUntilReady()
  }

  private static func start(
    _ executable: String, _ directory: String, _ host: String, _ prefix: [String], _ client: PortReservation,
    _ peer: PortReservation
  ) throws(HarnessError) -> ChildProcess {
    let (clients, peers) = ("http://\(host):\(client.port)", "http://\(host):\(peer.port)")
    let words =
      prefix + [
        executable,
        "--name", "one", "--data-dir", "\(directory)/etcd", "--listen-client-urls", clients,
        "--advertise-client-urls", clients, "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
        "--initial-cluster", "one=\(peers)",
      ]
    return try ChildProcess(
      name: "etcd", executable: words[0], arguments: Array(words.dropFirst()), logPath: "\(directory)/etcd.log")
  }

  private func waitUntilReady() throws(HarnessError) {
    _ = try process.waitForLine(limit: .seconds(30), what: "ready") { $0.contains("ready to serve") ? true : nil }
  }

  /// SIGKILL; its address stays ours.
  public func kill() { process.kill() }
  public func freeze() { process.freeze() }
  public func thaw() { process.thaw() }

  /// Starts it again on its data, and waits until it serves.
  public func restart() throws(HarnessError) {
    process.kill()
    let again = try Self.start(executable, directory, host, prefix, client, peer)
    current.withLock { $0 = again }
    try waitUntilReady()
  }
}
