import Foundation
import Synchronization

// A whole cluster of real processes on loopback, for `shortlist cluster up` and for tests. Every member's ports are
// reserved before anything starts, so that addresses are known and a member that is restarted keeps its own.
//
//   placed:  w1 … wN with their shards ──ready lines──► the coordinators, told the workers' addresses ──► /readyz 200
//   joins:   the coordinators ──► w1 … wN, told the coordinators' admin addresses: they join, and the first
//            coordinator places the shards ──► /readyz 200
//   stop:    SIGTERM to all, the coordinators first, SIGKILL after a bound, the state directory removed
//
// It reports a death and does not repair it: whoever runs a cluster to watch it survive wants the hole to stay.

/// Coordinators and workers as child processes.
public final class LocalCluster: Sendable {
  public struct Options: Sendable {
    /// The `shortlist` program.
    public var executable: String
    public var store: String
    /// Where the members fetch bundles instead, and how much each keeps; `nil` = they see `store`.
    public var bundles: (url: String, cacheMiB: Int)?
    public var model: String
    public var version: String
    /// S of the bundle.
    public var shards: Int
    public var workers = 4
    public var replicas = 2
    public var coordinators = 1
    /// Workers join by themselves and the first coordinator gives them shards; else each is started with its own.
    public var joins = false
    /// Whom a joining worker is told of; the first tells it of the others.
    public var joinsFirstOnly = false
    /// The workers' zones in turn; empty = none.
    public var zones: [String] = []
    /// Workers obey `POST /faults`.
    public var allowFaults = false
    /// Workers check the sums of bundles.
    public var checksums = true
    /// After how long a dead worker's shards are placed on others; `nil` = the usual time.
    public var replacedAfter: Duration?
    /// Everything speaks TLS, with certificates made for this cluster.
    public var tls = false
    /// The coordinators' file of tokens; `nil` = everything is open.
    public var tokens: String?
    /// From how many milliseconds on requests and legs are logged; `nil` = as usual.
    public var slowMilliseconds: Int?
    /// "json" or "text"; `nil` = as usual.
    public var log: String?
    /// What the coordinators do not do; `nil` = they do everything.
    public var routing: CoordinatorFile.Routing?
    /// Versions come and go by rollouts; with several coordinators that needs `etcd`.
    public var rollouts = false
    /// host:port of etcd, which keeps what several coordinators agree on.
    public var etcd: [String] = []
    /// Coordinators that reach etcd elsewhere, by their names.
    public var etcdOf: [String: [String]] = [:]
    /// The first coordinator's port; 0 = a free one.
    public var port: UInt16 = 0
    public var scoringThreads = 1
    /// Memory of each worker for slices; `nil` = most of the machine's.
    public var memoryMiB: Int?
    /// How much of a core reading slices takes while something is served; `nil` = the usual share.
    public var loadShare: Double?
    /// From which size on slices are scanned by several legs together; `nil` = the usual one.
    public var togetherKiB: Int?
    /// Where and how a member runs, by its name.
    public var ground: @Sendable (String) -> MemberGround = { _ in MemberGround() }
    /// Where a coordinator reaches a worker (their names, and the worker's own address), for clusters with a relay
    /// between the two.
    public var route: @Sendable (_ coordinator: String, _ worker: String, _ address: String) -> String = { $2 }
    /// Where its files lie; `nil` = a new temporary directory.
    public var directory: StateDirectory?
    public var keepsLogs = false
    /// How long one process may take until it is ready.
    public var readyLimit: Duration = .seconds(60)
    /// How long a process may take to end after SIGTERM.
    public var stopLimit: Duration = .seconds(12)
    /// What must answer 200 before the cluster counts as ready; `nil` = the coordinators' ready lines are enough.
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
  public let coordinators: [ClusterMember]
  public var coordinator: ClusterMember { coordinators[0] }
  public var workers: [ClusterMember] { team.withLock { $0 } }
  public var members: [ClusterMember] { workers + coordinators }
  public var url: String { coordinator.url }
  /// Where the first coordinator can be asked about the cluster.
  public var admin: String { coordinator.admin ?? "" }

  private let team: Mutex<[ClusterMember]>
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
    guard options.coordinators >= 1 else { throw HarnessError("a cluster needs at least 1 coordinator") }
    guard (1...options.workers).contains(options.replicas) else {
      throw HarnessError("--replicas must be in 1...\(options.workers), the number of workers")
    }
    self.options = options
    if let given = options.directory { directory = given } else { directory = try .temporary() }
    lock = try directory.acquire()
    let holdings =
      options.joins
      ? [[Int]](repeating: [], count: options.workers)
      : BalancedPlacement.holdings(shards: options.shards, workers: options.workers, replicas: options.replicas)
    var team: [ClusterMember] = []
    for (index, shards) in holdings.enumerated() {
      team.append(try Self.worker(index + 1, shards, options, directory))
    }
    self.team = Mutex(team)
    var coordinators: [ClusterMember] = []
    for index in 0..<options.coordinators {
      let name = "c\(index + 1)"
      coordinators.append(
        ClusterMember(
          name: name, role: .coordinator, shards: [], port: try PortReservation(index == 0 ? options.port : 0),
          adminPort: try PortReservation(), isSecure: options.tls, executable: options.executable,
          ground: options.ground(name), config: directory.config(of: name), log: directory.log(of: name)))
    }
    self.coordinators = coordinators
    if options.tls {
      let hosts = CertificateDirectory.Request.localHosts + coordinators.map(\.ground.host)
      try directory.certificates.issue(
        [.init(StateDirectory.operatorName, .operator), .init(StateDirectory.publicName, [], hosts: hosts)])
      for coordinator in coordinators {
        for address in [coordinator.address, coordinator.adminAddress ?? ""] {
          directory.trust("https://" + address)
        }
      }
    }
  }

  /// A member's own certificate, made now; `nil` = the cluster speaks plaintext.
  private func tls(of member: ClusterMember) throws(HarnessError) -> TLSFile? {
    guard options.tls else { return nil }
    try directory.certificates.issue([
      .init(
        member.name, member.role == .coordinator ? .coordinator : .worker,
        hosts: CertificateDirectory.Request.localHosts + [member.ground.host])
    ])
    let own = directory.certificates.files(of: member.name)
    let shop = directory.certificates.files(of: StateDirectory.publicName)
    return TLSFile(
      ca: own.authority, certificate: own.certificate, key: own.key,
      public: member.role == .coordinator ? .init(certificate: shop.certificate, key: shop.key) : nil)
  }

  private static func worker(
    _ number: Int, _ shards: [Int], _ options: Options, _ directory: StateDirectory
  ) throws(HarnessError) -> ClusterMember {
    let name = "w\(number)"
    return ClusterMember(
      name: name, role: .worker, shards: shards, port: try PortReservation(), executable: options.executable,
      ground: options.ground(name), config: directory.config(of: name), log: directory.log(of: name))
  }

  deinit { stop() }

  // MARK: starting

  private func launch(_ cancelled: () -> Bool) throws(HarnessError) {
    for worker in workers { try configure(worker) }
    for coordinator in coordinators { try configureCoordinator(coordinator) }
    if options.joins { for coordinator in coordinators { try coordinator.start() } }
    for worker in workers { try worker.start() }
    for worker in workers { try worker.waitUntilReady(limit: options.readyLimit, cancelled: cancelled) }
    if !options.joins { for coordinator in coordinators { try coordinator.start() } }
    for coordinator in coordinators {
      try coordinator.waitUntilReady(limit: options.readyLimit, cancelled: cancelled)
    }
    try waitUntilComplete(limit: options.readyLimit, cancelled: cancelled)
    try writeState()
  }

  private func bundles(of member: ClusterMember) -> BundlesFile? {
    options.bundles.map { BundlesFile(url: $0.url, cache: directory.cache(of: member.name), cacheMiB: $0.cacheMiB) }
  }

  private func configure(_ worker: ClusterMember) throws(HarnessError) {
    let number = Int(worker.name.dropFirst()) ?? 1
    let joins = coordinators.compactMap(\.adminAddress).prefix(options.joinsFirstOnly ? 1 : .max)
    try writeJSON(
      WorkerFile(
        name: worker.name, listen: worker.address,
        store: options.bundles == nil ? worker.ground.store ?? options.store : nil,
        bundles: bundles(of: worker),
        holdings: worker.shards.isEmpty
          ? [] : [.init(model: options.model, version: options.version, shards: worker.shards)],
        join: options.joins ? Array(joins) : [],
        zone: options.zones.isEmpty ? nil : options.zones[(number - 1) % options.zones.count],
        scoringThreads: options.scoringThreads, togetherKiB: options.togetherKiB,
        memoryMiB: options.memoryMiB, loadShare: options.loadShare, allowFaults: options.allowFaults,
        checksums: options.checksums ? nil : false,
        tls: try tls(of: worker), slowMilliseconds: options.slowMilliseconds, log: options.log),
      to: worker.config)
  }

  private func configureCoordinator(_ coordinator: ClusterMember) throws(HarnessError) {
    let others = coordinators.filter { $0.name != coordinator.name }
    let milliseconds = options.replacedAfter.map { Int($0 / .milliseconds(1)) }
    try writeJSON(
      CoordinatorFile(
        name: coordinator.name, listen: coordinator.address, admin: coordinator.adminAddress ?? "",
        peers: others.compactMap(\.adminAddress), store: options.bundles == nil ? options.store : nil,
        bundles: bundles(of: coordinator),
        models: [.init(model: options.model, version: options.version)],
        workers: options.joins
          ? []
          : workers.map {
            .init(name: $0.name, address: options.route(coordinator.name, $0.name, $0.address))
          },
        placement: placement(of: coordinator), state: agreedState(of: coordinator),
        health: milliseconds.map { .init(replacedAfterMilliseconds: $0) }, routing: options.routing,
        tls: try tls(of: coordinator), tokens: options.tokens, slowMilliseconds: options.slowMilliseconds,
        log: options.log),
      to: coordinator.config)
  }

  /// One drives; with etcd any may, and one does.
  private func placement(of coordinator: ClusterMember) -> CoordinatorFile.Placement? {
    let hasDocument = agreedState(of: coordinator) != nil
    guard hasDocument || options.joins && coordinator.name == "c1" else { return nil }
    var table: [[String]]?
    if !options.joins {
      table = (0..<options.shards).map { shard in
        workers.filter { $0.shards.contains(shard) }.map(\.name)
      }
    }
    return .init(replicas: options.replicas, table: table)
  }

  private func agreedState(of coordinator: ClusterMember) -> CoordinatorFile.State? {
    guard options.rollouts else { return nil }
    let etcd = options.etcdOf[coordinator.name] ?? options.etcd
    if !etcd.isEmpty { return .init(etcd: etcd, prefix: "/shortlist/\(options.model)") }
    return options.coordinators == 1 ? .init(directory: directory.agreed) : nil
  }

  /// Starts one more worker, which joins and is given its share.
  /// - Returns: when it is ready to be given shards.
  @discardableResult
  public func add(cancelled: () -> Bool = { false }) throws(HarnessError) -> ClusterMember {
    guard options.joins else {
      throw HarnessError("workers of this cluster do not join; start it with `shortlist cluster up --join`")
    }
    let number = team.withLock { $0.count } + 1
    let worker = try Self.worker(number, [], options, directory)
    try configure(worker)
    try worker.start()
    team.withLock { $0.append(worker) }
    try worker.waitUntilReady(limit: options.readyLimit, cancelled: cancelled)
    try writeState()
    return worker
  }

  /// What a coordinator says of the cluster; the first, unless another is named.
  public func report(by coordinator: String = "c1") throws(HarnessError) -> ClusterReport {
    try ClusterReport.fetch(try member(coordinator).admin ?? "")
  }

  /// Asks until `condition` holds.
  /// - Returns: the report for which it did.
  @discardableResult
  public func waitFor(
    _ what: String, by coordinator: String = "c1", limit: Duration = .seconds(30),
    cancelled: () -> Bool = { false }, _ condition: (ClusterReport) -> Bool
  ) throws(HarnessError) -> ClusterReport {
    let deadline = ContinuousClock.now + limit
    while true {
      let report = try report(by: coordinator)
      if condition(report) { return report }
      if cancelled() { throw HarnessError("interrupted") }
      if ContinuousClock.now >= deadline {
        throw HarnessError("after \(limit) still not: \(what)", logTail: logTails())
      }
      // The state of another process has no event to wait for.
      Thread.sleep(forTimeInterval: 0.005)
    }
  }

  /// Waits until every coordinator answers its readiness probe with 200, which is when every shard is served.
  public func waitUntilComplete(
    limit: Duration, cancelled: () -> Bool = { false }
  ) throws(HarnessError) {
    for coordinator in coordinators {
      try waitUntilComplete(coordinator, limit: limit, cancelled: cancelled)
    }
  }

  private func waitUntilComplete(
    _ coordinator: ClusterMember, limit: Duration, cancelled: () -> Bool
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

  /// SIGTERM.
  /// - Returns: how it ended; `nil` = not within `limit`.
  public func drain(_ name: String, limit: Duration = .seconds(15)) throws(HarnessError) -> ChildProcess.Exit? {
    let exit = try running(name).drain(limit: limit)
    try writeState()
    return exit
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
    for coordinator in coordinators { coordinator.terminate() }
    for coordinator in coordinators { coordinator.stop(grace: options.stopLimit) }
    for worker in workers { worker.terminate() }
    for worker in workers { worker.stop(grace: options.stopLimit) }
    directory.removeFiles(keepingLogs: options.keepsLogs)
    lock.remove(from: directory)
  }
}
