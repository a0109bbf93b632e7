import ClusterHarness
import Foundation
import Synchronization
import Terminal

/// `cluster up`: starts the cluster, does what other processes ask for over the control socket, reports deaths, and
/// stops everything when it is told to end.
struct Supervisor {
  private let invocation: Invocation
  private let options: LocalCluster.Options

  init(_ invocation: Invocation) throws {
    self.invocation = invocation
    let (workers, replicas) = (invocation.integer("workers"), invocation.integer("replicas"))
    guard replicas <= workers else {
      throw UsageError("--replicas \(replicas) needs at least \(replicas) workers, and --workers is \(workers)")
    }
    let found = try StoredModel.find(
      store: invocation.text("store"), model: invocation.text("model"), version: invocation.optional("version"))
    var options = LocalCluster.Options(
      executable: try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"), store: found.store,
      model: found.model, version: found.version, shards: found.shards)
    options.workers = workers
    options.replicas = replicas
    options.joins = invocation.flag("join")
    options.tls = invocation.flag("tls")
    options.coordinators = invocation.integer("coordinators")
    if let zones = invocation.optional("zones") {
      guard options.joins else { throw UsageError("--zones needs --join: shards are placed by zone only then") }
      options.zones = zones.split(separator: ",").map(String.init)
    }
    options.rollouts = true
    options.etcd = invocation.optional("etcd")?.split(separator: ",").map(String.init) ?? []
    options.port = UInt16(invocation.integer("port"))
    options.scoringThreads = invocation.integer("scoring-threads")
    options.directory = ClusterHarness.StateDirectory(path: Command.stateDirectory(invocation).path)
    options.keepsLogs = invocation.flag("keep-logs")
    self.options = options
  }

  func run() throws -> Int32 {
    let ending = Ending()
    let cluster: LocalCluster
    do {
      Console.live("starting \(options.workers) workers …")
      defer { Console.live("") }
      cluster = try LocalCluster(options, cancelled: { ending.hasBegun })
    } catch {
      if let signal = ending.signal { return 128 + signal }
      throw error
    }
    defer { cluster.stop() }
    let control = try ControlServer(cluster.directory) { answer($0, cluster, ending) }
    defer { control.stop() }
    if invocation.json {
      try Console.printJSON(cluster.state)
    } else {
      Console.print("ready \(cluster.url)")
    }
    if options.etcd.isEmpty, options.coordinators > 1 {
      Console.warn("no rollouts: several coordinators agree on the versions by --etcd HOST:PORT only")
    } else {
      Console.warn("rollouts and status at \(cluster.admin)")
    }
    let others = cluster.coordinators.dropFirst().map(\.url)
    Console.warn(
      "\(options.model)/\(options.version): \(options.shards) shards on \(options.workers) workers, "
        + "\(options.replicas) replicas each\(others.isEmpty ? "" : ", also at " + others.joined(separator: " "))"
        + "; Ctrl-C stops it")
    while !ending.wait(.milliseconds(200)) {
      for end in cluster.unexpectedEnds() { Console.warn("\(end)") }
    }
    return 0
  }

  private func answer(_ request: ControlRequest, _ cluster: LocalCluster, _ ending: Ending) -> ControlReply {
    do {
      let name = request.member
      switch request.verb {
      case .add:
        let worker = try cluster.add(cancelled: { ending.hasBegun })
        return ControlReply(ok: true, message: "\(worker.name) runs at \(worker.url) and joins")
      case .kill:
        try cluster.kill(name)
        return ControlReply(ok: true, message: "\(name) is dead")
      case .freeze:
        try cluster.freeze(name)
        return ControlReply(ok: true, message: "\(name) is frozen")
      case .thaw:
        try cluster.thaw(name)
        return ControlReply(ok: true, message: "\(name) runs on")
      case .restart:
        try cluster.restart(name, cancelled: { ending.hasBegun })
        return ControlReply(ok: true, message: "\(name) is ready at \(try cluster.member(name).url)")
      case .down:
        ending.begin()
        return ControlReply(ok: true, message: "stopped")
      }
    } catch {
      return ControlReply(ok: false, message: "\(error)")
    }
  }
}

/// Whether, and why, the cluster must come down: a signal, or the wish of `cluster down`.
private final class Ending: Sendable {
  private let state = Mutex<(begun: Bool, signal: Int32?)>((false, nil))

  func begin() { state.withLock { $0.begun = true } }
  /// Looks for a signal as well.
  var hasBegun: Bool { wait(.zero) }
  var signal: Int32? { state.withLock { $0.signal } }

  /// Waits for it, at most for `limit`.
  func wait(_ limit: Duration) -> Bool {
    if state.withLock({ $0.begun }) { return true }
    if let signal = Signals.next(within: limit) {
      state.withLock { $0 = (true, signal) }
    }
    return state.withLock { $0.begun }
  }
}
