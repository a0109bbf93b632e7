import Membership
import RankingCore

// One request's way through the cluster, for all requests of one coordinator.
//
//     requested ─► pin a version ─► resolve the query ─► room for all legs? ─► legs ─► merge ─► answer
//                                        │  (recent_items, similar)    │ no     ▲ │
//                                        └─► look vectors up ──────────│────────┘ ├─ slow: a hedge
//                                                                      ▼          └─ lost: once more, elsewhere
//                                                                  overloaded
//
// A request is answered exactly once: when every shard is settled (answered, or known to be missing), when what it
// asks for cannot be had any more, or when its time to merge has come, whichever is first.
//
// Worked example, four shards on two workers, one of which dies:
//
//     requested            → score leg 0 to w1 (shards 0 1), leg 1 to w2 (shards 2 3)
//     leg 0 scored         → nothing yet, two shards are owed
//     leg 1 connectionLost → score leg 2 to w1 (shards 2 3): scoring is read-only, so asking twice is harmless
//     leg 2 scored         → answer, coverage 4 of 4
//
// Late news (of a leg that was given up, or of a request that was answered) is dropped and counted.
// The legs themselves, retries and hedges are in RouterLegs.swift, how a request ends in RouterOutcome.swift.

public struct Router {
  public enum Effect: Sendable {
    case score(LegID, WorkerID, ScoreRequest, timeout: Duration)
    case lookup(LegID, WorkerID, LookupRequest, timeout: Duration)
    case cancel(LegID, WorkerID)
    /// - Parameter origin: nil = it was refused before it got a version.
    case answer(RequestToken, Result<Answer, RankingError>, origin: Origin?)
    /// The worker answered a request that was sent at this instant: a sign of life.
    case heartbeat(WorkerID, sentAt: Instant)
    /// The worker said that it has none of these shards of this version.
    case lacks(WorkerID, ModelVersion, [ShardID])
    /// Where the time of the request went whose answer follows.
    case trace(RequestTrace)
  }

  /// Requests that take so long are traced, and those that fail or miss shards; nil = none is.
  public var tracesFrom: Duration?

  /// Which version a request had, and what its answer does not say: for counts by version.
  public struct Origin: Sendable, Equatable {
    public var release: ModelVersion
    /// How many items it wanted.
    public var wanted: Int
    /// A ranker gave NaN for some item.
    public var hasNaN: Bool
    public var startedAt: Instant
  }

  /// What happened so far, for metrics.
  public struct Counters: Sendable, Equatable {
    public var primaryLegs: UInt64 = 0
    public var retryLegs: UInt64 = 0
    public var hedgeLegs: UInt64 = 0
    /// Legs that were taken back because others had answered what they owed.
    public var outrunLegs: UInt64 = 0
    public var retriesRefused: UInt64 = 0
    /// Slow legs that found no token when their time came, and those that never got one.
    public var hedgesDelayed: UInt64 = 0
    public var hedgesDropped: UInt64 = 0
    public var lateReplies: UInt64 = 0
    public var invalidReplies: UInt64 = 0
    public var droppedNaN: UInt64 = 0
    /// Requests refused at admission, and those admitted with a lower R.
    public var refused: UInt64 = 0
    public var lowered: UInt64 = 0
  }

  public let policy: RoutingPolicy
  public internal(set) var catalog = ReleaseCatalog()
  public internal(set) var counters = Counters()
  var slots: [Flight] = []
  var freeSlots: [UInt32] = []
  private var byToken: [RequestToken: FlightID] = [:]
  var deadlines = DeadlineHeap()
  var book: WorkerBook
  var retryBudget: RetryBudget
  var hedgeBudget = HedgeBudget()
  var overdue = OverdueLegs()
  var plan = LegPlan()

  public init(policy: RoutingPolicy = RoutingPolicy(), seed: UInt64, now: Instant) {
    self.policy = policy
    book = WorkerBook(policy: policy, seed: seed, now: now)
    retryBudget = RetryBudget(policy: policy, now: now)
  }

  public var inFlight: Int { byToken.count }
  public var ejections: EjectionCounters { book.counters }
  public var retryTokens: Double { retryBudget.tokens }
  public var hedgeTokens: Double { hedgeBudget.tokens }

  /// The earliest instant at which `tick` has something to do.
  public var due: Instant? {
    guard !book.records.isEmpty else { return deadlines.earliest }
    guard let earliest = deadlines.earliest else { return book.nextLook }
    return min(earliest, book.nextLook)
  }

  // MARK: Facts about workers

  /// A version's user table and shape are loaded.
  public mutating func add(_ release: Release, members: [Member], now: Instant) {
    book.admit(members.count, now: now)
    catalog.add(release, members: members)
  }

  /// No further request gets this version.
  public mutating func forget(_ release: ModelVersion) { catalog.forget(release) }
  /// Which versions requests may get from now on.
  public mutating func offer(_ offers: [VersionOffer]) { catalog.offer(offers) }

  /// Members came, went, or hold something else.
  public mutating func refresh(members: [Member], now: Instant) {
    book.admit(members.count, now: now)
    book.workers = members.count { $0.state != .gone && !$0.isDuplicate }
    catalog.refresh(members: members)
  }

  /// What a worker's status says it would take at once.
  public mutating func reported(_ worker: WorkerID, admits: Int) {
    if worker.index < book.records.count { book.reported(worker, admits: admits) }
  }
  public mutating func renewed(_ worker: WorkerID, now: Instant) {
    book.admit(worker.index + 1, now: now)
    book.renewed(worker, now: now)
  }

  /// A connection ended with this many shards owed on it; its legs fail one by one after this, and the budget lets each
  /// of them be tried again.
  public mutating func connectionLost(_ worker: WorkerID, now: Instant) {
    guard worker.index < book.records.count else { return }
    retryBudget.cover(book.records[worker.index].shardsInFlight)
    book.connectionLost(worker, now: now)
  }

  /// What a person would want to see of a worker.
  public struct WorkerView: Sendable, Equatable {
    public var legsInFlight: Int
    public var latency: Duration
    public var hedgeDelay: Duration?
    public var room: Double
    public var isEjected: Bool
    public var ejections: Int
  }
  public func view(of worker: WorkerID, now: Instant) -> WorkerView? {
    guard worker.index < book.records.count else { return nil }
    let record = book.records[worker.index]
    return WorkerView(
      legsInFlight: record.legsInFlight, latency: .nanoseconds(Int64(record.latency)), hedgeDelay: record.hedgeDelay,
      room: record.room, isEjected: book.isEjected(worker, now), ejections: record.outlier.ejections)
  }

  // MARK: Facts about requests

  /// - Parameter deadline: when the answer must have left; the request's own `timeout` is already in it.
  public mutating func requested(
    _ token: RequestToken, _ request: RankingRequest, deadline: Deadline, wish: VersionWish = .serving, now: Instant,
    into effects: inout [Effect]
  ) {
    guard inFlight < policy.requestsInFlightMax else {
      counters.refused += 1
      let error = RankingError(
        .overloaded, "\(inFlight) requests are in flight, the most this coordinator takes; try again shortly")
      effects.append(.answer(token, .failure(error), origin: nil))
      return
    }
    do throws(RankingError) {
      let flight = try open(token, request, deadline: deadline, wish, now: now)
      if flight.phase == .scoring { flight.planTasks() }
      launch(flight, now: now, into: &effects)
      proceed(flight, now: now, into: &effects)
    } catch {
      effects.append(.answer(token, .failure(error), origin: nil))
    }
  }

  /// The client went away: its legs are cancelled, nobody is answered.
  public mutating func cancelled(_ token: RequestToken, now: Instant, into effects: inout [Effect]) {
    guard let id = byToken[token] else { return }
    let flight = slots[Int(id.slot)]
    cancelOpenLegs(flight, now: now, isTimeout: false, into: &effects)
    close(flight)
  }

  public mutating func scored(
    _ id: LegID, _ result: Result<ScoreReply, CallFailure>, now: Instant, into effects: inout [Effect]
  ) {
    guard let flight = flight(of: id) else {
      if result.isSuccess { counters.lateReplies += 1 }
      if policy.planted.contains(.lateReplyMerged) { mergeLate(id, result, now: now, into: &effects) }
      return
    }
    let leg = end(id, of: flight, LegEnd(result), now: now)
    switch result {
    case .success(let reply):
      if isValid(reply, for: leg, of: flight) {
        replied(leg, now: now, into: &effects)
        counters.droppedNaN += UInt64(reply.droppedNaN)
        if reply.droppedNaN > 0 { flight.hasNaN = true }
        flight.merged.join(reply.items)
        settle(leg, of: flight, answered: reply.shards, now: now, into: &effects)
      } else {
        flight.legs[Int(id.leg)].end = .invalid
        invalid(flight, leg, now: now, into: &effects)
      }
    case .failure(let failure):
      failed(flight, leg, failure, now: now, into: &effects)
    }
    takeBackOutrun(flight, now: now, into: &effects)
    proceed(flight, now: now, into: &effects)
  }

  public mutating func lookedUp(
    _ id: LegID, _ result: Result<LookupReply, CallFailure>, now: Instant, into effects: inout [Effect]
  ) {
    guard let flight = flight(of: id) else {
      if result.isSuccess { counters.lateReplies += 1 }
      return
    }
    let leg = end(id, of: flight, LegEnd(result), now: now)
    switch result {
    case .success(let reply):
      let dimension = catalog[flight.entry].release.dimension
      let isValid =
        reply.release == flight.release && reply.shards.allSatisfy(flight.legShards[leg.shards].contains)
        && reply.found.allSatisfy { $0.vector.count == dimension }
      if isValid {
        replied(leg, now: now, into: &effects)
        flight.found += reply.found
        settle(leg, of: flight, answered: reply.shards, now: now, into: &effects)
      } else {
        flight.legs[Int(id.leg)].end = .invalid
        invalid(flight, leg, now: now, into: &effects)
      }
    case .failure(let failure):
      failed(flight, leg, failure, now: now, into: &effects)
    }
    takeBackOutrun(flight, now: now, into: &effects)
    proceed(flight, now: now, into: &effects)
  }

  // MARK: Time

  /// Answers every request whose time to merge has come, hedges every leg whose time has, and looks at the workers.
  public mutating func tick(now: Instant, into effects: inout [Effect]) {
    if now >= book.nextLook { book.look(now: now) }
    while let entry = deadlines.popDue(now) {
      let flight = slots[Int(entry.flight.slot)]
      guard flight.isOpen, flight.id == entry.flight else { continue }
      switch entry.purpose {
      case .hedge(let leg): hedgeWhenPaid(LegID(flight: entry.flight, leg: leg), of: flight, now: now, into: &effects)
      case .merge:
        flight.giveUpRest()
        proceed(flight, now: now, into: &effects)
      }
    }
    hedgeOverdue(now: now, into: &effects)
    pruneDeadlines()
  }

  mutating func pruneDeadlines() {
    let slots = slots
    deadlines.prune { entry in
      let flight = slots[Int(entry.flight.slot)]
      guard flight.isOpen, flight.id == entry.flight else { return true }
      if case .hedge(let leg) = entry.purpose { return !flight.legs[Int(leg)].isOpen }
      return false
    }
  }

  // MARK: Flights

  private mutating func open(
    _ token: RequestToken, _ request: RankingRequest, deadline: Deadline, _ wish: VersionWish, now: Instant
  ) throws(RankingError) -> Flight {
    let entry = try catalog.pin(model: request.model, version: request.version, wish: wish)
    let release = catalog[entry].release
    let slot: UInt32
    if let free = freeSlots.popLast() {
      slot = free
    } else {
      slot = UInt32(slots.count)
      slots.append(Flight())
    }
    let flight = slots[Int(slot)]
    flight.begin(
      id: FlightID(slot: slot, use: flight.id.use &+ 1), token: token, request: request, entry: entry,
      release: release, start: now, mergeBy: policy.mergeBy(start: now, deadline: deadline))
    if case .exactly(_, let replica) = wish {
      flight.replica = replica
      flight.mayHedge = false
    }
    do throws(RankingError) {
      try flight.resolveSubject(release)
    } catch {
      flight.isOpen = false
      freeSlots.append(slot)
      throw error
    }
    byToken[token] = flight.id
    catalog.began(entry)
    pruneDeadlines()
    deadlines.insert(DeadlineHeap.Entry(at: flight.mergeBy, flight: flight.id, purpose: .merge))
    return flight
  }

  /// The flight of a leg that is still wanted.
  private func flight(of id: LegID) -> Flight? {
    let flight = slots[Int(id.flight.slot)]
    return flight.isOpen && flight.id == id.flight && flight.legs[Int(id.leg)].isOpen ? flight : nil
  }

  mutating func close(_ flight: Flight) {
    flight.isOpen = false
    flight.shared = nil
    freeSlots.append(flight.id.slot)
    byToken[flight.token] = nil
    catalog.ended(flight.entry)
  }
}

extension LegEnd {
  init<Reply>(_ result: Result<Reply, CallFailure>) {
    switch result {
    case .success: self = .answered
    case .failure(let failure): self.init(failure)
    }
  }
}

extension Result {
  var isSuccess: Bool {
    if case .success = self { true } else { false }
  }
}
