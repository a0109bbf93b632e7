import Foundation
import Synchronization

// A whole cluster of real processes on loopback, for `shortlist cluster up` and for tests.
//
//   start:  w1 … wN on port 0 ──ready lines──► their real ports are written into their configurations (a worker that is
//           restarted keeps its address) ──► the coordinator, told those addresses ──► until /readyz says 200
//   stop:   SIGTERM to all, the coordinator first, SIGKILL after a bound, the state directory removed
//
// It reports a death and does not repair it: whoever runs a cluster to watch it survive wants the hole to stay.

/// One coordinator and some workers as child processes.
public final class LocalCluster: Sendable {
  public struct Options: Sendable {
    /// The `shortlist` program.
    public var executable: String
    public var store: String
    public var model: String
    public var version: String
    /// S of the bundle.
    public var shards: Int
    public var workers = 4
    public var replicas = 2
    /// The coordinator's port; 0 = a free one.
    public var port: UInt16 = 0
    public var scoringThreads = 1
    /// Where its files lie; `nil` = a new temporary directory.
    public var directory: StateDirectory?
    public var keepsLogs = false
    /// How long one process may take until it is ready.
    public var readyLimit: Duration = .seconds(60)
    /// How long a process may take to end after SIGTERM.
    public var stopLimit: Duration = .seconds(12)
    /// What must answer 200 before the cluster counts as ready; `nil` = the coordinator's ready line is enough.
    public var readinessPath: String? = "/readyz"

    public init(executable: String, store: String, model: String, version: String, shards: Int) {
      self.executable = executable
      self.store = store
      self.model = model
      self.version = version
      self.shards = shards
    }
  }

  public let options: Options
  public let directory: StateDirectory
  public let coordinator: ClusterMember
  public let workers: [ClusterMember]
  public var members: [ClusterMember] { workers + [coordinator] }
  public var url: String { coordinator.url }

  private let lock: StateLock
  private let writing = Mutex(())
  private let stopped = Mutex(false)

  /// Starts everything and returns when it serves; on any failure nothing is left behind, and the error carries the
  /// tail of the log of the process that failed.
  /// - Parameter cancelled: asked every few milliseconds while starting; true gives up.
  public convenience init(_ options: Options, cancelled: @Sendable () -> Bool = { false }) throws(HarnessError) {
    try self.init(laidOut: options)
    do {
      try launch(cancelled)
    } catch {
      stop()
      throw error
    }
  }

  private init(laidOut options: Options) throws(HarnessError) {
    guard options.workers >= 1 else { throw HarnessError("a cluster needs at least 1 worker") }
    guard (1...options.workers).contains(options.replicas) else {
      throw HarnessError("--replicas must be in 1...\(options.workers), the number of workers")
    }
    self.options = options
    if let given = options.directory { directory = given } else { directory = try .temporary() }
    lock = try directory.acquire()
    let holdings = BalancedPlacement.holdings(
      shards: options.shards, workers: options.workers, replicas: options.replicas)
    let directory = self.directory
    func member(_ name: String, _ role: ClusterState.Role, _ shards: [Int]) -> ClusterMember {
      ClusterMember(
        name: name, role: role, shards: shards, executable: options.executable, config: directory.config(of: name),
        log: directory.log(of: name))
    }
    workers = holdings.enumerated().map { member("w\($0.offset + 1)", .worker, $0.element) }
    coordinator = member("c1", .coordinator, [])
  }

  deinit { stop() }

  // MARK: starting

  private func launch(_ cancelled: () -> Bool) throws(HarnessError) {
    for worker in workers {
      try configure(worker, listen: "127.0.0.1:0")
      try worker.start()
    }
    for worker in workers {
      try worker.waitUntilReady(limit: options.readyLimit, cancelled: cancelled)
      try configure(worker, listen: worker.address)
    }
    try configureCoordinator(listen: "127.0.0.1:\(options.port)")
    try coordinator.start()
    try coordinator.waitUntilReady(limit: options.readyLimit, cancelled: cancelled)
    try configureCoordinator(listen: coordinator.address)
    try waitUntilComplete(limit: options.readyLimit, cancelled: cancelled)
    try writeState()
  }

  private func configure(_ worker: ClusterMember, listen: String) throws(HarnessError) {
    try writeJSON(
      WorkerFile(
        name: worker.name, listen: listen, store: options.store,
        holdings: [.init(model: options.model, version: options.version, shards: worker.shards)],
        scoringThreads: options.scoringThreads), to: worker.config)
  }

  private func configureCoordinator(listen: String) throws(HarnessError) {
    try writeJSON(
      CoordinatorFile(
        name: coordinator.name, listen: listen, store: options.store,
        models: [.init(model: options.model, version: options.version)],
        workers: workers.map { .init(name: $0.name, address: $0.address) }), to: coordinator.config)
  }

  /// Waits until the coordinator answers its readiness probe with 200, which is when every shard is served.
  public func waitUntilComplete(
    limit: Duration, cancelled: () -> Bool = { false }
  ) throws(HarnessError) {
    guard let path = options.readinessPath else { return }
    let deadline = ContinuousClock.now + limit
    var http = PlainHTTP(try ServerURL(coordinator.url), limit: .seconds(2))
    var last = ""
    while true {
      do {
        let response = try http.get(path)
        if response.status == 200 { return }
        last = "\(response.status) \(response.text.prefix(200))"
      } catch { last = error.message }
      for member in members {
        if let exit = member.process?.exit {
          throw HarnessError(
            "\(member.name) ended (\(exit)) before the cluster was complete", logTail: member.process?.logTail() ?? "")
        }
      }
      if cancelled() { throw HarnessError("interrupted") }
      if ContinuousClock.now >= deadline {
        throw HarnessError(
          "the cluster was not complete after \(limit): \(path) answers \(last)",
          logTail: coordinator.process?.logTail() ?? "")
      }
      // A probe of another process has no event to wait for.
      Thread.sleep(forTimeInterval: 0.01)
    }
  }

  // MARK: faults

  public func member(_ name: String) throws(HarnessError) -> ClusterMember {
    if let member = members.first(where: { $0.name == name }) { return member }
    throw HarnessError("there is no \"\(name)\"; there are \(members.map(\.name).joined(separator: ", "))")
  }

  /// SIGKILL; returns when it is gone.
  public func kill(_ name: String) throws(HarnessError) {
    try running(name).kill()
    try writeState()
  }
  public func freeze(_ name: String) throws(HarnessError) { try running(name).process?.freeze() }
  public func thaw(_ name: String) throws(HarnessError) { try running(name).process?.thaw() }

  /// Stops it if it runs, starts it again at the same address, and returns when it is ready.
  public func restart(_ name: String, cancelled: () -> Bool = { false }) throws(HarnessError) {
    let member = try member(name)
    member.stop(grace: options.stopLimit)
    try member.start()
    try member.waitUntilReady(limit: options.readyLimit, cancelled: cancelled)
    try writeState()
  }

  private func running(_ name: String) throws(HarnessError) -> ClusterMember {
    let member = try member(name)
    guard member.isRunning else {
      throw HarnessError("\(name) is dead already; `shortlist cluster restart \(name)` starts it again")
    }
    return member
  }

  /// The members that ended since this was last asked without being told to, each with how, and the tail of its log.
  public func unexpectedEnds() -> [HarnessError] {
    let ends = members.compactMap { member -> HarnessError? in
      guard let exit = member.unexpectedEnd() else { return nil }
      return HarnessError("\(member.name) ended: \(exit)", logTail: member.process?.logTail(lines: 8) ?? "")
    }
    if !ends.isEmpty { try? writeState() }
    return ends
  }

  // MARK: state

  public var state: ClusterState {
    ClusterState(
      supervisor: .current, url: url, store: options.store, model: options.model, version: options.version,
      shardCount: options.shards, replicas: options.replicas, members: members.map(\.snapshot))
  }

  private func writeState() throws(HarnessError) {
    let result = writing.withLock { _ in
      Result { () throws(HarnessError) in try writeJSON(state, to: directory.stateFile) }
    }
    try result.get()
  }

  /// Every process's log, for the report of a failed test.
  public func logTails(lines: Int = 20) -> String {
    members.compactMap { $0.process?.logTail(lines: lines) }.joined(separator: "\n")
  }

  /// Ends every process and removes the cluster's files. May be called twice.
  public func stop() {
    let already = stopped.withLock { stopped in
      defer { stopped = true }
      return stopped
    }
    guard !already else { return }
    coordinator.stop(grace: options.stopLimit)
    for worker in workers { worker.terminate() }
    for worker in workers { worker.stop(grace: options.stopLimit) }
    directory.removeFiles(keepingLogs: options.keepsLogs)
    lock.remove(from: directory)
  }
}
