import Bundles
import ClusterHarness
import ClusterLoad
import Foundation
import Synchronization
import Terminal

// The cluster that is hurt, and everything that was put around it so that it can be: relays in its links, a page of
// orders in its processes, a store of its own for each worker.
//
//     load ──► c1 ──relay──► w1 ── stores/w1          c1's agreed document ── on a disk that can be made odd
//                  ──relay──► w2 ── stores/w2
//                               …

final class Stage: Sendable {
  let scenario: Scenario
  let cluster: any ClusterHandle
  /// The same, if the engine started it.
  let own: LocalCluster?
  let model: String
  /// The version that serves before anything is rolled out.
  let version: String
  let store: String
  /// What is asked.
  let requests: [[UInt8]]
  let etcd: EtcdProcess?
  let relays: RelayBoard
  /// By member; empty unless the scenario needs them.
  let orders: [String: ShimOrders]
  let namespaces: NamespaceNetwork?
  /// What the bundle's directory is replaced by, for workers that come back with another one.
  let otherContents: String?
  /// Where everything of the run lies.
  let directory: String

  /// Versions that rollouts go to and fro between, and the one that must be stopped.
  static let other = SyntheticBundle.other
  static let poison = "poison"

  /// - Parameters:
  ///   - directory: empty, of this run alone.
  ///   - shimSource: of the preloaded library.
  init(
    _ scenario: Scenario, seed: UInt64, executable: String, directory: String, shimSource: String,
    cancelled: @escaping @Sendable () -> Bool
  ) throws {
    self.scenario = scenario
    self.directory = directory
    let kinds = Set(scenario.faults.map(\.kind))
    let shape = scenario.cluster
    let bundle = try SyntheticBundle(in: directory, .checked)
    (store, model, version) = (bundle.store, bundle.release.model, bundle.release.version)
    requests = bundle.requests(Self.requestsCount, mixed: true)
    if shape.rollouts { try bundle.addVersion(Self.other) }
    if kinds.contains(.poison) { try bundle.addVersion(Self.poison, .permuted) }
    otherContents = kinds.contains(.swap) ? try Self.otherContents(bundle, directory) : nil

    let names = (1...shape.workers).map { "w\($0)" } + (1...shape.coordinators).map { "c\($0)" }
    let network = shape.namespaces ? try NamespaceNetwork(nodes: names + ["etcd"], directory: directory) : nil
    namespaces = network
    var options = LocalCluster.Options(
      executable: executable, store: bundle.store, model: bundle.release.model, version: bundle.release.version,
      shards: SyntheticBundle.shards)
    options.workers = shape.workers
    options.replicas = shape.replicas
    options.coordinators = shape.coordinators
    options.rollouts = shape.rollouts
    options.tls = shape.tls
    options.routing = Self.routing(shape.without)
    options.checksums = !shape.without.contains(.checksums)
    options.directory = StateDirectory(path: directory + "/state")
    options.keepsLogs = true

    if shape.etcd {
      let place = directory + "/etcd"
      try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
      let process = try EtcdProcess(
        directory: place, host: network?.address(of: "etcd") ?? "127.0.0.1",
        prefix: network?.prefix(for: "etcd") ?? [])
      etcd = process
      options.etcd = [process.address]
    } else {
      etcd = nil
    }

    var orders: [String: ShimOrders] = [:]
    let odd: Set<FaultKind> = [.clock, .diskFull, .syncFails, .syncSlow]
    if !kinds.isDisjoint(with: odd) || shape.without.contains(.honestDisk) {
      let library = try ShimLibrary(source: shimSource, in: directory)
      for name in names {
        orders[name] = try ShimOrders(
          library, page: "\(directory)/shim-\(name)", disk: options.directory?.agreed ?? directory)
        if shape.without.contains(.monotonic) { orders[name]?.countsByWallClock(true) }
      }
    }
    self.orders = orders

    var stores: [String: String] = [:]
    if !kinds.isDisjoint(with: [.flip, .truncate, .swap]) {
      for name in names where name.hasPrefix("w") {
        let store = "\(directory)/stores/\(name)"
        try FileManager.default.createDirectory(
          atPath: directory + "/stores", withIntermediateDirectories: true)
        try FileManager.default.copyItem(atPath: bundle.store, toPath: store)
        stores[name] = store
      }
    }
    let (environments, ownStores) = (orders.mapValues(\.environment), stores)
    let isGrouped = kinds.contains(.memory)
    options.ground = { name in
      var ground = MemberGround()
      if isGrouped { ground.prefix = Self.groupPrefix(name, directory) }
      ground.environment = environments[name] ?? [:]
      ground.store = ownStores[name]
      if let network {
        ground.host = network.address(of: name)
        ground.prefix = network.prefix(for: name)
      }
      return ground
    }
    let board = RelayBoard(seed: seed)
    relays = board
    if shape.relays {
      options.route = { board.route(from: $0, to: $1, $2) }
      for name in names where name.hasPrefix("c") && shape.etcd {
        options.etcdOf[name] = options.etcd.map { board.route(from: name, to: "etcd", $0) }
      }
    }
    options.readyLimit = .seconds(90)
    let local = try LocalCluster(options, cancelled: cancelled)
    own = local
    cluster = OwnCluster(cluster: local)
  }

  /// A cluster that is there.
  /// - Throws: when the scenario needs something that only a cluster of its own has.
  init(_ scenario: Scenario, attachedTo place: ClusterHarness.StateDirectory, directory: String) throws {
    for line in scenario.faults where !AttachedCluster.kinds.contains(line.kind) || line.on == .pair {
      throw CommandError(
        "--attach: \(line.kind.rawValue) on \(line.on.rawValue) cannot be done to a cluster that is there")
    }
    let attached = try AttachedCluster(place)
    self.scenario = scenario
    self.directory = directory
    (store, model, version) = (attached.state.store, attached.state.model, attached.state.version)
    requests = try Self.ownRequests(of: "\(store)/\(model)/\(version)")
    (cluster, own, etcd, namespaces, otherContents) = (attached, nil, nil, nil, nil)
    (orders, relays) = ([:], RelayBoard(seed: 0))
  }

  /// The requests that a bundle brings along.
  private static func ownRequests(of bundle: String) throws -> [[UInt8]] {
    let lines = try Bundles.Bundle.open(bundle).warmup().split(separator: UInt8(ascii: "\n"))
    let requests = lines.compactMap { line -> [UInt8]? in
      guard var object = try? JSONSerialization.jsonObject(with: Data(line)) as? [String: Any] else { return nil }
      object["expect"] = nil
      return (try? JSONSerialization.data(withJSONObject: object)).map { [UInt8]($0) }
    }
    guard !requests.isEmpty else { throw CommandError("\(bundle) brings no requests along (warmup.jsonl)") }
    return requests
  }

  private static let requestsCount = 400

  /// Words before a command line that put the process into the control group whose file of processes is named in a
  /// file, if there is one, before it takes any memory.
  private static func groupPrefix(_ name: String, _ directory: String) -> [String] {
    let script = "[ ! -s \"$1\" ] || echo $$ > \"$(cat \"$1\")\"; shift; exec \"$@\""
    return ["/bin/sh", "-c", script, "sh", groupFile(name, directory)]
  }
  private static func groupFile(_ name: String, _ directory: String) -> String { "\(directory)/group-\(name)" }
  /// From its next start on a member runs in a control group; nil = in none.
  func sendToGroup(_ name: String, _ group: ControlGroup?) throws {
    let text = group.map { $0.path + "/cgroup.procs" } ?? ""
    try Data(text.utf8).write(to: URL(fileURLWithPath: Self.groupFile(name, directory)))
  }

  /// The ends of the links that a fault is about: coordinator and worker, or coordinator and etcd.
  func links(of fault: PlannedFault) -> [(from: String, to: String)] {
    let coordinators = cluster.coordinators.map(\.name)
    switch fault.kind {
    case .etcdCut: return fault.victims.map { ($0, "etcd") }
    case .split:
      return coordinators.indices.flatMap { index in
        Judge.halfLost(by: index, workers: cluster.workers.count).map { (coordinators[index], "w\($0 + 1)") }
      }
    default:
      return (fault.from.isEmpty ? coordinators : [fault.from]).flatMap { from in fault.victims.map { (from, $0) } }
    }
  }

  /// Where a worker's own copy of the serving bundle lies.
  func ownBundle(of worker: String) -> String? {
    (try? own?.member(worker))?.ground.store.map { "\($0)/\(model)/\(version)" }
  }

  /// The shards of each worker.
  var holdings: [[Int]] { cluster.workers.map(\.shards) }

  func stop() {
    own?.stop()
    etcd?.kill()
    relays.close()
    namespaces?.remove()
  }

  private static func routing(_ without: [Scenario.Defence]) -> CoordinatorFile.Routing? {
    let off = Set(without)
    guard !off.isDisjoint(with: [.hedging, .retries, .fingerprints, .slowEjection, .choice]) else { return nil }
    return .init(
      hedging: !off.contains(.hedging), retries: !off.contains(.retries), fingerprints: !off.contains(.fingerprints),
      slowEjection: !off.contains(.slowEjection), choice: off.contains(.choice) ? "random" : "power_of_two")
  }

  /// A bundle of the same name and version with every item's vector belonging to another one.
  private static func otherContents(_ bundle: SyntheticBundle, _ directory: String) throws -> String {
    let place = directory + "/other"
    try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
    let other = try SyntheticBundle(in: place, .checked, kind: .permuted)
    return other.path
  }
}

/// The relays of a cluster: one for each coordinator and worker.
final class RelayBoard: Sendable {
  private let seed: UInt64
  private let relays = Mutex<[String: Relay]>([:])
  init(seed: UInt64) { self.seed = seed }

  /// Makes the relay when it is first asked for.
  /// - Returns: its address.
  func route(from coordinator: String, to worker: String, _ address: String) -> String {
    relays.withLock { relays in
      let key = "\(coordinator) \(worker)"
      if relays[key] == nil, let port = address.split(separator: ":").last.flatMap({ UInt16($0) }) {
        relays[key] = try? Relay(to: port, seed: seed &+ UInt64(relays.count))
      }
      return relays[key].map { "127.0.0.1:\($0.port)" } ?? address
    }
  }
  func relay(from coordinator: String, to end: String) -> Relay? {
    relays.withLock { $0["\(coordinator) \(end)"] }
  }
  func close() { relays.withLock { relays in relays.values.forEach { $0.close() } } }
}
