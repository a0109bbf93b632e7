import Membership
import Nodes
import RankingCore
import Routing
import Wire

// The nodes of a run and everything between them. Effects of a node become messages (bytes, through Wire) that arrive
// after a while; what arrives is decoded and handed to the other node. Faults (Fate.swift) bend the links and the
// nodes.

/// What will happen.
enum Happening {
  case request
  /// The client does not want its answer any more.
  case takeBack(coordinator: Int, life: UInt32, token: Int)
  case atWorker(Int)
  case atCoordinator(Int)
  case cancelAtWorker(Int)
  case scored(worker: Int, life: UInt32, call: Int)
  case duplicate(Int)
  case wakeCoordinator(Int, life: UInt32, number: Int)
  case wakeWorker(Int, life: UInt32, number: Int)
  case connect(coordinator: Int, worker: Int, life: UInt32)
  case linkUp(coordinator: Int, worker: Int, connection: UInt32)
  case linkDown(coordinator: Int, worker: Int, connection: UInt32)
  indirect case loaded(worker: Int, life: UInt32, ModelVersion, ShardID)
  indirect case join(worker: Int, coordinator: Int, JoinRequest)
  indirect case joined(worker: Int, life: UInt32, coordinator: Int, Result<JoinReply, CallFailure>)
  case startWorker(Int)
  case startCoordinator(Int)
  case fault
  case lose
  case heal
  case strike
  /// From now on this worker answers late (in an experiment).
  case delayWorker(Int)
  indirect case store(StoreHappening)
}

struct Link {
  var isUp = false
  /// Counts connections: news of an old one is recognised.
  var connection: UInt32 = 0
  /// Whether the node wants one at all.
  var isWanted = true
  var isConnecting = false
  /// Nothing arrives before this.
  var cutToWorkerUntil = Instant(nanoseconds: 0)
  var cutToCoordinatorUntil = Instant(nanoseconds: 0)
  var clogUntil = Instant(nanoseconds: 0)
  var calls: [Int] = []
  /// One connection brings what it carries in order: nothing arrives before what was sent earlier.
  var lastAtWorker = Instant(nanoseconds: 0)
  var lastAtCoordinator = Instant(nanoseconds: 0)
}

struct Call {
  enum Kind { case probe(UInt64), score(LegID), lookup(LegID), load, unload }
  var coordinator: Int
  var coordinatorLife: UInt32
  var worker: Int
  var workerLife: UInt32
  var connection: UInt32
  var kind: Kind
  var bytes: [UInt8]
  var timeout: Duration
  var isOpen = true
  /// The request it is for, and the shards it asks.
  var token = -1
  var shards: UInt64 = 0
  /// What the compute thread found, until it is told.
  var scored: ScoreReply?
  var reply: Result<[UInt8], CallFailure> = .failure(.connectionLost)
}

struct CoordinatorHost {
  var node: CoordinatorNode
  var isAlive = true
  var life: UInt32 = 0
  var frozenUntil = Instant(nanoseconds: 0)
  var frozeFor: Duration = .zero
  var wakes = 0
  /// By a leg's request: its number; below zero = one of the coordinator's own.
  var tokens: [UInt64: Int] = [:]
  var checker: Checker
  var store = StoreSide()
}

struct WorkerHost {
  var node: WorkerNode
  var isAlive = true
  var life: UInt32 = 0
  var frozenUntil = Instant(nanoseconds: 0)
  var slowUntil = Instant(nanoseconds: 0)
  var slowness = 1
  var resetsUntil = Instant(nanoseconds: 0)
  var wakes = 0
  var isDelayed = false
  /// Nothing starts it again before the faults stop.
  var isLost = false
  var diedAt = Instant(nanoseconds: 0)
  /// Shards of the static placement; what a dynamic one has loaded is in the node.
  var shards: [ShardID] = []
}

final class World {
  let options: SimulationOptions
  let trace: ((String) -> Void)?
  var report: SimulationReport
  var generator: SeededGenerator
  var now = Instant(nanoseconds: 1_000_000_000)
  let start = Instant(nanoseconds: 1_000_000_000)
  var queue = EventQueue<Happening>()
  let catalogue: Catalogue
  let workload: Workload
  var scorer = SliceScorer()
  var coordinators: [CoordinatorHost] = []
  var workers: [WorkerHost] = []
  var links: [[Link]] = []
  var calls: [Call] = []
  var fate: Fate
  var settings = CoordinatorSettings()
  var violation: String?
  var hash: UInt64
  var recent: [[(at: Instant, what: StaticString, a: Int, b: Int)]]
  let joins: Bool
  /// Versions come and go by rollouts.
  let rolls: Bool
  var store = AgreedStore()
  var hooks = ExperimentHooks()
  /// Milliseconds, of the answers of the liveness phase.
  var quietLatencies: [Double] = []
  private var coordinatorEffects: [CoordinatorEffect] = []
  private var workerEffects: [WorkerEffect] = []

  /// - Parameter isExperiment: no faults, one coordinator, workers that hold their shards from the start.
  init(_ options: SimulationOptions, trace: ((String) -> Void)?, isExperiment: Bool = false) {
    self.options = options
    self.trace = trace
    report = SimulationReport(seed: options.seed)
    hash = StableHash.mix(options.seed)
    generator = SeededGenerator(seed: StableHash.mix(options.seed &+ 0x5eed))
    let shards = 16 + 8 * generator.below(2)
    let wantsJoins = generator.below(3) == 0
    let wantsRollouts = generator.below(8) > 0
    let joins = wantsJoins && !isExperiment
    let rolls = joins && wantsRollouts
    let versions = rolls ? 3 : 1 + generator.below(2)
    catalogue = Catalogue(shards: shards, versions: versions, generator: &generator)
    workload = Workload(catalogue, isPlain: isExperiment, generator: &generator)
    let oracle = PlainOracle(catalogue)
    hooks.isExperiment = isExperiment
    self.joins = joins
    self.rolls = rolls
    let end = start + .seconds(options.seconds)
    fate = Fate(options, start: start + (joins ? .seconds(5) : .seconds(1)), end: end, generator: &generator)
    settings.routing.planted = options.planted
    // The traffic is a hundredth of a real cluster's: what is saved up must be small too, to run out at times.
    settings.routing.retryTokensMax = 10
    settings.routing.retryTokensPerSecond = 1
    recent = []
    calls.reserveCapacity(16 * options.seconds * options.requestsPerSecond)
    let count = isExperiment ? 1 : 1 + generator.below(3)
    if joins { settings.placement = PlacementPolicy() }
    if rolls {
      settings.hasDocument = true
      settings.initial = [ModelVersion(model: "home", version: "v1")]
    }
    settings.coordinators = (0..<count).map { "c\($0)" }
    recent = Array(repeating: [], count: count + options.workers)
    for index in 0..<options.workers {
      workers.append(WorkerHost(node: WorkerNode(name: "w\(index)", incarnation: 0, policy: WorkerPolicy(running: 2))))
      workers[index].isAlive = false
    }
    if !joins {
      for shard in 0..<shards {
        let first = shard % options.workers
        let second = (first + 1 + (shard / options.workers) % (options.workers - 1)) % options.workers
        workers[first].shards.append(ShardID(shard))
        workers[second].shards.append(ShardID(shard))
      }
    }
    for _ in 0..<count {
      let node = CoordinatorNode(seed: 0, now: now)
      coordinators.append(CoordinatorHost(node: node, checker: Checker(catalogue, oracle)))
      links.append(Array(repeating: Link(), count: options.workers))
    }
  }

  func run() {
    for index in workers.indices { startWorker(index) }
    for index in coordinators.indices { startCoordinator(index) }
    queue.schedule(.request, at: fate.trafficFrom)
    if !hooks.isExperiment { fate.scheduleAll(in: &queue) }
    if rolls { scheduleRollouts() }
    let end = start + .seconds(options.seconds)
    let last = end + .seconds(2)
    while violation == nil, let next = queue.next(), next.at <= last {
      now = next.at
      do throws(Violation) {
        try happen(next.payload)
      } catch {
        violation = error.text
      }
    }
    if violation == nil { checkEnd() }
    checkAgreement()
    finishReport()
  }

  // MARK: Bookkeeping

  /// Notes an event: in the hash, for the history of a failure, and for who watches.
  func note(_ node: Int, _ what: StaticString, _ a: Int = 0, _ b: Int = 0) {
    hash = StableHash.mix(hash ^ now.nanoseconds &+ UInt64(bitPattern: Int64(a &* 31 &+ b &* 17 &+ node)))
    hash = StableHash.mix(hash &+ UInt64(what.utf8CodeUnitCount))
    if recent[node].count >= 60 { recent[node].removeFirst(30) }
    recent[node].append((now, what, a, b))
    if let trace { trace("\(milliseconds(now)) ms  \(name(node))  \(what) \(a) \(b)") }
  }
  func name(_ node: Int) -> String {
    node < coordinators.count ? "c\(node)" : "w\(node - coordinators.count)"
  }
  private func milliseconds(_ at: Instant) -> String {
    let micros = (at - start).nanoseconds / 1000
    let rest = String(micros % 1000)
    return "\(micros / 1000).\(String(repeating: "0", count: 3 - rest.count))\(rest)"
  }
  func workerNode(_ worker: Int) -> Int { coordinators.count + worker }

  private func checkEnd() {
    for (index, host) in coordinators.enumerated() where host.isAlive {
      for (token, asked) in host.checker.asked.enumerated() where !asked.isAnswered && !asked.isGone {
        violation = "request \(token) of c\(index) was never answered"
        return
      }
      if host.node.router.inFlight != 0 { violation = "c\(index) ends with \(host.node.router.inFlight) in flight" }
    }
    for (index, host) in workers.enumerated() where host.isAlive {
      let status = host.node.status(now: now)
      if status.queued + status.running != 0 { violation = "w\(index) ends with work that nobody waits for: \(status)" }
    }
    checkLatency()
  }

  /// Milliseconds: two and five times what two hundred seeds showed at worst.
  private static let quietP99Max = 25.0
  private static let quietMax = 60.0

  /// After everything has healed, answers come as quickly as they should with one crash in a while.
  private func checkLatency() {
    guard !hooks.isExperiment, violation == nil, quietLatencies.count >= 50 else { return }
    quietLatencies.sort()
    report.quietP50 = quietLatencies[quietLatencies.count / 2]
    report.quietP99 = quietLatencies[quietLatencies.count * 99 / 100]
    report.quietMax = quietLatencies[quietLatencies.count - 1]
    if report.quietP99 > Self.quietP99Max || report.quietMax > Self.quietMax {
      violation = "slow after everything has healed: p99 \(report.quietP99) ms, max \(report.quietMax) ms"
    }
  }

  private func finishReport() {
    report.traceHash = hash
    for host in coordinators { collect(host.node) }
    guard let violation else { return }
    report.violation = violation
    for (node, events) in recent.enumerated() {
      report.history.append("\(name(node)), its last events:")
      for event in events.suffix(30) {
        report.history.append("  \(milliseconds(event.at)) ms  \(event.what) \(event.a) \(event.b)")
      }
    }
  }
  private func collect(_ node: CoordinatorNode) {
    report.primaryLegs += node.router.counters.primaryLegs
    report.hedges += node.router.counters.hedgeLegs
    report.retries += node.router.counters.retryLegs
    report.ejections += node.router.ejections.detected
    report.loads += node.driver?.loadsOrdered ?? 0
    for (index, count) in node.membership.transitions.enumerated() { report.transitions[index] += count }
  }

  // MARK: Life

  func startWorker(_ index: Int) {
    guard !workers[index].isAlive, !workers[index].isLost else { return }
    workers[index].life += 1
    workers[index].isAlive = true
    workers[index].frozenUntil = now
    var settings = WorkerSettings(name: "w\(index)", incarnation: UInt64(workers[index].life))
    settings.address = "w\(index)"
    settings.zone = "z\(index % 3)"
    workers[index].node = WorkerNode(settings: settings, policy: WorkerPolicy(running: 2))
    note(workerNode(index), "starts", Int(workers[index].life))
    for version in catalogue.versions {
      for shard in workers[index].shards {
        tell(index, .loaded(version.release.id, shardCount: catalogue.shards, shard, bytes: 1000))
      }
    }
    if joins { tell(index, .join(coordinators: ["c0"])) }
  }

  func startCoordinator(_ index: Int) {
    if coordinators[index].life > 0 { collect(coordinators[index].node) }
    coordinators[index].life += 1
    coordinators[index].isAlive = true
    coordinators[index].frozenUntil = now
    coordinators[index].tokens = [:]
    for token in coordinators[index].checker.asked.indices where !coordinators[index].checker.asked[token].isAnswered {
      coordinators[index].checker.asked[token].isGone = true
    }
    coordinators[index].checker.coordinatorStarted(at: now)
    var settings = settings
    if index > 0, !rolls { settings.placement = nil }
    settings.epoch = UInt64(coordinators[index].life)
    coordinators[index].node = CoordinatorNode(
      workers: joins ? [] : workers.indices.map { "w\($0)" }, settings: settings, seed: generator.next(), now: now)
    note(index, "starts", Int(coordinators[index].life))
    for worker in workers.indices {
      links[index][worker] = Link(connection: links[index][worker].connection &+ 1, isWanted: !joins)
      if !joins {
        queue.schedule(.connect(coordinator: index, worker: worker, life: coordinators[index].life), at: now)
      }
    }
    if rolls {
      coordinators[index].store = StoreSide(cutUntil: coordinators[index].store.cutUntil, lastSeen: now)
      announce(to: index)
    } else {
      for version in catalogue.versions { tell(index, CoordinatorEvent.loaded(version.release)) }
    }
  }

  func crashWorker(_ index: Int) {
    guard workers[index].isAlive else { return }
    note(workerNode(index), "dies")
    fate.lastCrash = now
    workers[index].isAlive = false
    workers[index].diedAt = now
    workers[index].life += 1
    for coordinator in coordinators.indices where links[coordinator][index].isUp {
      queue.schedule(
        .linkDown(coordinator: coordinator, worker: index, connection: links[coordinator][index].connection),
        at: now + .microseconds(500))
    }
  }

  func crashCoordinator(_ index: Int) {
    guard coordinators[index].isAlive else { return }
    note(index, "dies")
    coordinators[index].isAlive = false
    for worker in workers.indices {
      for call in links[index][worker].calls where calls[call].isOpen {
        calls[call].isOpen = false
        queue.schedule(.cancelAtWorker(call), at: now + .microseconds(500))
      }
      links[index][worker].isUp = false
      links[index][worker].calls = []
    }
  }

  // MARK: Telling nodes

  func tell(_ coordinator: Int, _ event: CoordinatorEvent) {
    guard coordinators[coordinator].isAlive else { return }
    var pending = [event]
    var next = 0
    while next < pending.count {
      coordinatorEffects.removeAll(keepingCapacity: true)
      coordinators[coordinator].node.handle(pending[next], now: now, into: &coordinatorEffects)
      next += 1
      let effects = coordinatorEffects
      for effect in effects {
        if violation != nil { return }
        do throws(Violation) {
          if let more = try carryOut(effect, of: coordinator) { pending.append(more) }
        } catch {
          violation = error.text
        }
      }
    }
  }

  func tell(_ worker: Int, _ event: WorkerEvent) {
    guard workers[worker].isAlive else { return }
    workerEffects.removeAll(keepingCapacity: true)
    workers[worker].node.handle(event, now: now, into: &workerEffects)
    let effects = workerEffects
    for effect in effects { carryOut(effect, of: worker) }
  }

  // MARK: Requests

  func request() {
    let gap = 1_000_000_000 / Int64(options.requestsPerSecond)
    if now + .nanoseconds(gap) < start + .seconds(options.seconds) {
      queue.schedule(.request, at: now + .nanoseconds(gap / 2 + Int64(generator.below(Int(gap)))))
    }
    let coordinator = generator.below(coordinators.count)
    let number = generator.below(workload.templates.count)
    let template = workload.templates[number]
    let timeout = template.request.timeout ?? .milliseconds(500)
    guard coordinators[coordinator].isAlive, now >= coordinators[coordinator].frozenUntil else { return }
    let request = workload.parse(number)
    let isLive = now >= fate.liveFrom
    let node = coordinators[coordinator].node
    var ready: UInt64 = 0
    let pinned = node.router.catalog.entries.last { request.version == nil || $0.id.version == request.version }
    if let pinned, !rolls, request.version != nil || catalogue.versions.count == 1 {
      for shard in 0..<catalogue.shards where !pinned.replicas.replicas[shard].isEmpty { ready |= 1 << UInt64(shard) }
    }
    var must = timeout >= .milliseconds(300) && (isLive || fate.isGentle(now)) && !hooks.isExperiment
    // A version that is named may not be there; and a coordinator that has just come does not know any.
    if rolls { must = must && request.version == nil && node.isReady }
    coordinators[coordinator].checker.asked.append(
      Asked(
        request: template.request, template: number, needed: template.needed, coordinator: coordinator,
        life: coordinators[coordinator].life, at: now,
        deadline: now + timeout, hadReplica: template.isLookup ? 0 : ready,
        isLookingUp: template.isLookup, mustSucceed: must,
        allowed: rolls ? store.published[Int(coordinators[coordinator].store.revision)] : nil))
    let token = coordinators[coordinator].checker.asked.count - 1
    report.requests += 1
    note(coordinator, "is asked", token)
    asking = token
    lastBound = -1
    tell(coordinator, .requested(RequestToken(token), request, deadline: now + timeout))
    asking = -1
    if !hooks.isExperiment, generator.below(50) == 0 {
      queue.schedule(
        .takeBack(coordinator: coordinator, life: coordinators[coordinator].life, token: token),
        at: now + .microseconds(generator.below(4000)))
    }
  }
  /// The request whose first legs are being sent.
  var asking = -1
  /// The one whose legs have been told from those of its copy.
  var lastBound = -1
  /// Legs of coordinators' own requests.
  var ownLegs: [(leg: LegID, call: Int)] = []

  // MARK: The network

  /// When a message that is sent now arrives: after a fifth of a millisecond, now and then much later, and in some runs
  /// out of order, as if there were several connections.
  func arrival(_ c: Int, _ w: Int, toWorker: Bool, after wait: Duration = .zero) -> Instant {
    var nanoseconds = 50_000 + generator.below(150_000)
    let draw = generator.below(1000)
    if draw < 10, !hooks.isExperiment { nanoseconds += generator.below(5_000_000) }
    if draw == 999, !hooks.isExperiment, fate.mayLosePackets(now) {
      report.faults[FaultKind.lostPackets.rawValue] += 1
      nanoseconds += 200_000_000
    }
    var at = now + wait + .nanoseconds(Int64(nanoseconds))
    if now < links[c][w].clogUntil { at = at + .milliseconds(20 + generator.below(60)) }
    let cut = toWorker ? links[c][w].cutToWorkerUntil : links[c][w].cutToCoordinatorUntil
    // What was sent into a cut is sent again after it.
    if at < cut { at = cut + .milliseconds(generator.below(200)) }
    let last = toWorker ? links[c][w].lastAtWorker : links[c][w].lastAtCoordinator
    if fate.mayReorder(now), !hooks.isExperiment {
      if at < last { report.faults[FaultKind.reordered.rawValue] += 1 }
    } else if wait == .zero {
      // A lost packet holds up those behind it.
      at = max(at, last)
    }
    if wait == .zero {
      if toWorker { links[c][w].lastAtWorker = max(at, last) } else { links[c][w].lastAtCoordinator = max(at, last) }
    }
    return at
  }
}
