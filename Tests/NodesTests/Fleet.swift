import Membership
import Nodes
import RankingCore
import Routing
import Testing

// A coordinator and real worker nodes in virtual time, with a network that delays, loses, repeats and reorders. One
// queue of events, ordered by time and then by when they were posted; one seed, one run.
//
//     coordinator ──effects──► deliveries ──► worker nodes ──effects──► deliveries ──► coordinator

struct FleetSettings {
  var coordinator = CoordinatorSettings()
  /// One way, uniform in 0…this.
  var delayMax: Duration = .microseconds(200)
  var scoreMax: Duration = .milliseconds(4)
  var loadTime: Duration = .milliseconds(300)
  /// Of a hundred deliveries of legs and replies: how many never come, how many come twice, how many come very late.
  var lost = 0
  var twice = 0
  var late = 0
  var capacityBytes: UInt64 = 0
  var shards = 8
}

final class Fleet {
  enum Delivery {
    case coordinator(CoordinatorEvent)
    case worker(Int, incarnation: UInt64, WorkerEvent)
    case wake(UInt64)
    case connect(WorkerID, attempt: UInt64)
  }
  final class Process {
    var node: WorkerNode
    let address: String
    var isUp = true
    var incarnation: UInt64
    var wakeups = 0
    init(_ node: WorkerNode, address: String, incarnation: UInt64) {
      (self.node, self.address, self.incarnation) = (node, address, incarnation)
    }
  }
  struct Call {
    var leg: LegID?
    var probe: UInt64?
    var isLookup = false
    var isOrder = false
    var worker: WorkerID
    var process: Int
    var incarnation: UInt64
  }

  static let itemsPerShard = 10
  let settings: FleetSettings
  let release: Release
  var node: CoordinatorNode
  var now = Instant(nanoseconds: 1_000_000_000)
  var generator: SeededGenerator
  var processes: [Process] = []
  var answers: [RequestToken: Result<Answer, RankingError>] = [:]
  var answeredAt: [RequestToken: Instant] = [:]
  var sentLegs: [UInt64: Int] = [:]
  var orders = 0
  /// Shards without a ready replica, seen at some instant after all were ready.
  var dips: [String] = []
  var watchesCoverage = false
  var departed: [Int] = []
  private var queue: [(at: Instant, delivery: Delivery)] = []
  private var wish: UInt64 = 0
  private var calls: [CallToken: Call] = [:]
  private var callOf: [LegID: CallToken] = [:]
  private var lastCall: CallToken = 0
  private var linked: [WorkerID: Int] = [:]
  private var attempts: [WorkerID: UInt64] = [:]

  init(_ settings: FleetSettings, seed: UInt64, version: String = "v1") {
    self.settings = settings
    generator = SeededGenerator(seed: seed)
    node = CoordinatorNode(settings: settings.coordinator, seed: seed, now: now)
    release = Self.release(version, shards: settings.shards)
    handle(.loaded(release))
  }
  static func release(_ version: String, shards: Int) -> Release {
    var release = Release(
      id: ModelVersion(model: "home", version: version), dimension: 2,
      itemsPerShard: [UInt64](repeating: UInt64(itemsPerShard), count: shards), userColumns: [], contextColumns: [],
      coldStart: [0.5, 0.5], users: NoUsers())
    release.bytesPerShard = [UInt64](repeating: 10, count: shards)
    return release
  }

  // MARK: Workers

  /// Starts a worker that joins; `holding` is what it loads by itself.
  @discardableResult
  func start(_ name: String, holding: [Int] = [], zone: String = "") -> Int {
    var settings = WorkerSettings(name: name, incarnation: generator.next() >> 1)
    settings.address = "\(name):1"
    settings.zone = zone
    settings.capacityBytes = self.settings.capacityBytes
    let process = Process(
      WorkerNode(settings: settings, policy: WorkerPolicy(running: 2)), address: settings.address,
      incarnation: settings.incarnation)
    let index = processes.firstIndex { $0.address == settings.address } ?? processes.count
    if index == processes.count { processes.append(process) } else { processes[index] = process }
    for shard in holding {
      tell(index, .loaded(release.id, shardCount: release.shardCount, ShardID(shard), bytes: 10))
    }
    tell(index, .join(coordinators: ["c:1"]))
    return index
  }
  /// Ends a process at once: the link breaks, and what was on it fails.
  func kill(_ index: Int) {
    processes[index].isUp = false
    for (worker, process) in linked.sorted(by: { $0.key < $1.key }) where process == index { unlink(worker) }
  }
  /// A worker is told to end (SIGTERM): it asks whether it may go, and ends when it may.
  func drain(_ index: Int) { tell(index, .draining) }
  /// Breaks the link of a process that lives on.
  func cut(_ index: Int) {
    for (worker, process) in linked.sorted(by: { $0.key < $1.key }) where process == index { unlink(worker) }
  }
  private func unlink(_ worker: WorkerID) {
    guard linked.removeValue(forKey: worker) != nil else { return }
    handle(.unlinked(worker))
    for (token, call) in calls.sorted(by: { $0.key < $1.key }) where call.worker == worker {
      calls[token] = nil
      fail(call)
    }
    retry(worker)
  }
  private func fail(_ call: Call) {
    if let leg = call.leg {
      handle(
        call.isLookup ? .lookedUp(leg, .failure(.connectionLost)) : .scored(leg, .failure(.connectionLost)))
    } else if let probe = call.probe {
      handle(.probed(call.worker, token: probe, .failure(.connectionLost)))
    } else if call.isOrder {
      handle(.ordered(call.worker, .connectionLost))
    }
  }
  private func retry(_ worker: WorkerID) {
    attempts[worker, default: 0] += 1
    post(.connect(worker, attempt: attempts[worker]!), after: .milliseconds(50))
  }

  // MARK: Time

  private func post(_ delivery: Delivery, after delay: Duration) {
    let at = now + delay
    // Latest first; of one instant, the one that was posted first is delivered first.
    var (low, high) = (0, queue.count)
    while low < high {
      let middle = (low + high) / 2
      if queue[middle].at > at { low = middle + 1 } else { high = middle }
    }
    queue.insert((at, delivery), at: low)
  }
  private func network() -> Duration {
    .nanoseconds(Int64(generator.below(Int(settings.delayMax.nanoseconds) + 1)))
  }
  /// Delivers once, never, twice or late, as chance has it.
  private func send(_ delivery: Delivery) {
    let chance = generator.below(100)
    if chance < settings.lost { return }
    post(delivery, after: chance < settings.lost + settings.late ? .milliseconds(700) : network())
    if chance >= 100 - settings.twice { post(delivery, after: network() + .milliseconds(3)) }
  }
  func pass(_ duration: Duration) {
    let end = now + duration
    while let next = queue.last, next.at <= end {
      queue.removeLast()
      now = max(now, next.at)
      deliver(next.delivery)
    }
    now = end
  }
  private func deliver(_ delivery: Delivery) {
    switch delivery {
    case .coordinator(let event): handle(event)
    case .worker(let index, let incarnation, let event):
      guard processes[index].isUp, processes[index].incarnation == incarnation else { return }
      tell(index, event)
    case .wake(let wish): if wish == self.wish { handle(.woke) }
    case .connect(let worker, let attempt):
      guard attempts[worker] == attempt, linked[worker] == nil else { return }
      let address = node.membership.members[worker.index].address
      if let index = processes.firstIndex(where: { $0.address == address && $0.isUp }) {
        linked[worker] = index
        handle(.linked(worker))
      } else {
        retry(worker)
        handle(.unlinked(worker))
      }
    }
  }

  // MARK: The coordinator

  func handle(_ event: CoordinatorEvent) {
    var effects: [CoordinatorEffect] = []
    node.handle(event, now: now, into: &effects)
    for effect in effects { carryOut(effect) }
    guard watchesCoverage else { return }
    for entry in node.router.catalog.entries where entry.isPublished && !entry.replicas.isComplete {
      dips.append("\(entry.release.id) at \(now)")
    }
  }
  private func call(_ worker: WorkerID, _ make: (inout Call) -> Void, _ event: (CallToken) -> WorkerEvent) {
    lastCall += 1
    guard let process = linked[worker] else {
      var call = Call(worker: worker, process: 0, incarnation: 0)
      make(&call)
      if let leg = call.leg {
        post(
          .coordinator(
            call.isLookup ? .lookedUp(leg, .failure(.connectionLost)) : .scored(leg, .failure(.connectionLost))),
          after: .zero)
      } else if let probe = call.probe {
        post(.coordinator(.probed(worker, token: probe, .failure(.connectionLost))), after: .zero)
      }
      return
    }
    var call = Call(worker: worker, process: process, incarnation: processes[process].incarnation)
    make(&call)
    calls[lastCall] = call
    if let leg = call.leg { callOf[leg] = lastCall }
    let delivery = Delivery.worker(process, incarnation: call.incarnation, event(lastCall))
    // A request that comes twice would be two calls: only replies are repeated.
    if generator.below(100) >= settings.lost { post(delivery, after: network()) }
  }
  private func carryOut(_ effect: CoordinatorEffect) {
    switch effect {
    case .probe(let worker, let token, _): call(worker, { $0.probe = token }, { .statusRequested($0) })
    case .score(let leg, let worker, let request, let timeout):
      #expect(timeout > .zero, "a leg was sent that had no time left")
      sentLegs[leg.requestKey, default: 0] += 1
      let deadline = now + timeout
      call(worker, { $0.leg = leg }, { .scoreRequested($0, request, deadline: deadline) })
    case .lookup(let leg, let worker, let request, let timeout):
      #expect(timeout > .zero, "a lookup was sent that had no time left")
      call(worker, { ($0.leg, $0.isLookup) = (leg, true) }, { .lookupRequested($0, request) })
    case .cancel(let leg, _):
      guard let token = callOf[leg], let call = calls[token] else { return }
      // Sometimes the reply is on its way already.
      if generator.below(4) > 0 { calls[token] = nil }
      post(.worker(call.process, incarnation: call.incarnation, .cancelled(token)), after: network())
    case .answer(let token, let outcome):
      #expect(answers[token] == nil, "request \(token) was answered twice")
      answers[token] = outcome
      answeredAt[token] = now
    case .connect(let worker, _):
      if linked[worker] != nil { carryOut(.disconnect(worker)) }
      retry(worker)
    case .disconnect(let worker):
      attempts[worker, default: 0] += 1
      if linked[worker] != nil {
        unlink(worker)
        attempts[worker, default: 0] += 1
      }
    case .replyJoin(let call, let result):
      guard let process = calls.removeValue(forKey: call)?.process else { return }
      post(
        .worker(process, incarnation: processes[process].incarnation, .joined(coordinator: "c:1", result)),
        after: network())
    case .replyLeave(let call, let reply):
      guard let process = calls.removeValue(forKey: call)?.process else { return }
      post(
        .worker(process, incarnation: processes[process].incarnation, .mayLeave(coordinator: "c:1", .success(reply))),
        after: network())
    case .load(let worker, let order):
      orders += 1
      call(worker, { $0.isOrder = true }, { .loadRequested($0, order) })
    case .unload(let worker, let order):
      orders += 1
      call(worker, { $0.isOrder = true }, { .unloadRequested($0, order) })
    case .wake(let at):
      wish += 1
      post(.wake(wish), after: max(.zero, at - now))
    case .memberChanged, .rollout, .trace: break
    }
  }

  // MARK: Worker effects

  private func tell(_ index: Int, _ event: WorkerEvent) {
    let process = processes[index]
    var effects: [WorkerEffect] = []
    process.node.handle(event, now: now, into: &effects)
    for effect in effects { carryOut(effect, of: index, process) }
  }
  private func reply(_ token: CallToken, _ event: (Call) -> CoordinatorEvent?) {
    guard let call = calls[token] else { return }
    if call.leg == nil || settings.twice == 0 { calls[token] = nil }
    if let event = event(call) { send(.coordinator(event)) }
  }
  private func carryOut(_ effect: WorkerEffect, of index: Int, _ process: Process) {
    func soon(_ event: WorkerEvent, _ delay: Duration) {
      post(.worker(index, incarnation: process.incarnation, event), after: delay)
    }
    switch effect {
    case .run(let runs, _, _):
      let cost = Int64(generator.below(Int(settings.scoreMax.nanoseconds)))
      for run in runs { soon(.scored(run.call, .success(Self.score(run.request))), .nanoseconds(cost)) }
    case .abort: break
    case .lookUp(let token, let request):
      let found = request.ids.map { LookupReply.Found(id: $0, ordinal: ItemOrdinal(1), vector: [1, 0]) }
      let answer = LookupReply(release: request.release, shards: request.shards, found: found)
      reply(token) { call in call.leg.map { .lookedUp($0, .success(answer)) } }
    case .replyScore(let token, let result): reply(token) { call in call.leg.map { .scored($0, result) } }
    case .refuseLookup(let token, let failure):
      reply(token) { call in call.leg.map { .lookedUp($0, .failure(failure)) } }
    case .replyStatus(let token, let status):
      reply(token) { call in call.probe.map { .probed(call.worker, token: $0, .success(status)) } }
    case .replyOrder(let token, let failure): reply(token) { .ordered($0.worker, failure) }
    case .load(let release, let shard):
      soon(.loaded(release, shardCount: settings.shards, shard, bytes: 10), settings.loadTime)
    case .unload: break
    case .join(_, let request):
      lastCall += 1
      calls[lastCall] = Call(worker: WorkerID(100_000), process: index, incarnation: process.incarnation)
      post(.coordinator(.joinRequested(lastCall, request)), after: network())
    case .leave(_, let request):
      lastCall += 1
      calls[lastCall] = Call(worker: WorkerID(100_000), process: index, incarnation: process.incarnation)
      post(.coordinator(.leaveRequested(lastCall, request)), after: network())
    case .depart:
      departed.append(index)
      kill(index)
    case .wake(let at): soon(.woke, max(.zero, at - now))
    }
  }

  // MARK: The oracle

  /// The items of a shard, best first: scores depend on the version and the item alone.
  static func items(_ release: ModelVersion, _ shard: Int) -> [ScoredItem] {
    (0..<itemsPerShard).map { number in
      let ordinal = shard * itemsPerShard + number
      let score = Float(StableHash.mix(UInt64(ordinal) ^ StableHash.xxh64(release.version)) % 1000)
      return ScoredItem(score: score, ordinal: ItemOrdinal(ordinal))
    }.sorted { $0.precedes($1) }
  }
  static func best(_ release: ModelVersion, _ shards: [Int], k: Int) -> [ScoredItem] {
    Array(shards.flatMap { items(release, $0) }.sorted { $0.precedes($1) }.prefix(k))
  }
  static func score(_ request: ScoreRequest) -> ScoreReply {
    var list = ScoredList()
    for item in best(request.query.release, request.tasks.map(\.shard.index), k: request.query.k) {
      Array("item\(item.ordinal.rawValue)".utf8).withUnsafeBytes { list.append(item, id: $0) }
    }
    return ScoreReply(release: request.query.release, shards: request.tasks.map(\.shard), items: list)
  }
}
