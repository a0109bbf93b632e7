import Membership
import RankingCore

// One request's way through the cluster, for all requests of one coordinator.
//
//     requested ─► pin a version ─► resolve the query ──────────────► legs ─► merge ─► answer
//                                        │  (recent_items, similar)    ▲ │
//                                        └─► look vectors up ──────────┘ └─ connection lost: once more, elsewhere
//
// A request is answered exactly once: when every shard is settled (answered, or known to be missing) or when its time
// to merge has come, whichever is first. Worked example, four shards on two workers, one of which dies:
//
//     requested            → score leg 0 to w1 (shards 0 1), leg 1 to w2 (shards 2 3)
//     leg 0 scored         → nothing yet, two shards are owed
//     leg 1 connectionLost → score leg 2 to w1 (shards 2 3): scoring is read-only, so asking twice is harmless
//     leg 2 scored         → answer, coverage 4 of 4
//
// Late news (of a leg that was given up, or of a request that was answered) is dropped and counted.

public struct Router: Sendable {
  public enum Effect: Sendable {
    case score(LegID, WorkerID, ScoreRequest, timeout: Duration)
    case lookup(LegID, WorkerID, LookupRequest, timeout: Duration)
    case cancel(LegID, WorkerID)
    case answer(RequestToken, Result<Answer, RankingError>)
    /// The worker answered a request that was sent at this instant: a sign of life.
    case heartbeat(WorkerID, sentAt: Instant)
    /// The worker said that it lacks this version.
    case lacks(WorkerID, ModelVersion)
  }

  /// What happened so far, for metrics.
  public struct Counters: Sendable, Equatable {
    public var primaryLegs: UInt64 = 0
    public var retryLegs: UInt64 = 0
    public var retriesRefused: UInt64 = 0
    public var lateReplies: UInt64 = 0
    public var invalidReplies: UInt64 = 0
    public var droppedNaN: UInt64 = 0
  }

  public let policy: RoutingPolicy
  public var catalog = ReleaseCatalog()
  public private(set) var counters = Counters()
  private var slots: [Flight?] = []
  private var uses: [UInt32] = []
  private var freeSlots: [UInt32] = []
  private var byToken: [RequestToken: FlightID] = [:]
  private var deadlines = DeadlineHeap()
  private var chooser: ReplicaChooser
  private var budget: RetryBudget

  public init(policy: RoutingPolicy = RoutingPolicy(), seed: UInt64, now: Instant) {
    self.policy = policy
    chooser = ReplicaChooser(policy: policy, seed: seed)
    budget = RetryBudget(policy: policy, now: now)
  }

  public var inFlight: Int { byToken.count }

  /// The earliest instant at which `tick` has something to do.
  public var due: Instant? { deadlines.earliest }

  // MARK: Facts

  /// - Parameter deadline: when the answer must have left; the request's own `timeout` is already in it.
  public mutating func requested(
    _ token: RequestToken, _ request: RankingRequest, deadline: Deadline, now: Instant, into effects: inout [Effect]
  ) {
    guard inFlight < policy.requestsInFlightMax else {
      let error = RankingError(
        .overloaded, "\(inFlight) requests are in flight, the most this coordinator takes; try again shortly")
      effects.append(.answer(token, .failure(error)))
      return
    }
    do throws(RankingError) {
      var flight = try open(token, request, deadline: deadline, now: now)
      switch flight.phase {
      case .lookingUp: sendLookups(&flight, now: now, into: &effects)
      case .scoring:
        flight.planTasks()
        sendLegs(&flight, shards: waiting(flight), tried: nil, now: now, into: &effects)
      }
      store(flight)
      proceed(flight.id, now: now, into: &effects)
    } catch {
      effects.append(.answer(token, .failure(error)))
    }
  }

  /// The client went away: its legs are cancelled, nobody is answered.
  public mutating func cancelled(_ token: RequestToken, now: Instant, into effects: inout [Effect]) {
    guard let id = byToken[token], var flight = slots[Int(id.slot)] else { return }
    cancelOpenLegs(&flight, into: &effects)
    close(flight)
  }

  public mutating func scored(
    _ id: LegID, _ result: Result<ScoreReply, CallFailure>, now: Instant, into effects: inout [Effect]
  ) {
    guard var flight = take(id) else { return }
    let leg = end(id, of: &flight, succeeded: result.isSuccess, now: now, into: &effects)
    switch result {
    case .success(let reply):
      if isValid(reply, for: leg, of: flight) {
        counters.droppedNaN += UInt64(reply.droppedNaN)
        flight.merged.join(reply.items)
        for shard in reply.shards { flight.shards[shard.index] = .answered }
        let unfinished = owed(leg, of: flight).filter { !reply.shards.contains($0) }
        for shard in unfinished { flight.shards[shard.index] = .missing(.workerError) }
      } else {
        counters.invalidReplies += 1
        tryElsewhere(&flight, leg, reason: .workerError, now: now, into: &effects)
      }
    case .failure(let failure):
      failed(&flight, leg, failure, now: now, into: &effects)
    }
    store(flight)
    proceed(flight.id, now: now, into: &effects)
  }

  public mutating func lookedUp(
    _ id: LegID, _ result: Result<LookupReply, CallFailure>, now: Instant, into effects: inout [Effect]
  ) {
    guard var flight = take(id) else { return }
    let leg = end(id, of: &flight, succeeded: result.isSuccess, now: now, into: &effects)
    switch result {
    case .success(let reply):
      let dimension = catalog.entries[flight.entry].release.dimension
      let isValid =
        reply.release == flight.query.release && reply.shards.allSatisfy(leg.shards.contains)
        && reply.found.allSatisfy { $0.vector.count == dimension }
      if isValid {
        flight.found += reply.found
        for shard in owed(leg, of: flight) {
          flight.shards[shard.index] = reply.shards.contains(shard) ? .answered : .missing(.workerError)
        }
      } else {
        counters.invalidReplies += 1
        tryElsewhere(&flight, leg, reason: .workerError, now: now, into: &effects)
      }
    case .failure(let failure):
      failed(&flight, leg, failure, now: now, into: &effects)
    }
    store(flight)
    proceed(flight.id, now: now, into: &effects)
  }

  /// A connection ended with this many legs on it; each of them fails by itself, this only makes sure that the budget
  /// lets every one be tried again.
  public mutating func connectionLost(_ worker: WorkerID) {
    guard worker.index < chooser.loads.count else { return }
    budget.cover(chooser.loads[worker.index].inFlight)
    chooser.forget(worker)
  }

  // MARK: Time

  /// Answers every request whose time to merge has come.
  public mutating func tick(now: Instant, into effects: inout [Effect]) {
    while let entry = deadlines.popDue(now) {
      guard isOpen(entry.flight), var flight = slots[Int(entry.flight.slot)] else { continue }
      for (index, state) in flight.shards.enumerated() where !state.isSettled {
        flight.shards[index] = .missing(.timeout)
      }
      store(flight)
      proceed(flight.id, now: now, into: &effects)
    }
  }

  // MARK: Flights

  private mutating func open(
    _ token: RequestToken, _ request: RankingRequest, deadline: Deadline, now: Instant
  ) throws(RankingError) -> Flight {
    let entry = try catalog.pin(model: request.model, version: request.version)
    let release = catalog.entries[entry].release
    var mode = ScoreMode.retrieve
    var limit = request.k
    if case .rank(let items) = request.kind {
      mode = .rank
      limit = items.count
    }
    let slot = freeSlots.last ?? UInt32(slots.count)
    let use = Int(slot) < uses.count ? uses[Int(slot)] &+ 1 : 1
    var flight = Flight(
      id: FlightID(slot: slot, use: use), token: token, request: request, entry: entry, start: now,
      mergeBy: policy.mergeBy(start: now, deadline: deadline), phase: .scoring,
      query: ScoreQuery(
        release: release.id, mode: mode, vector: [], k: limit, candidates: request.candidatesAsked,
        minScore: request.minScore),
      shards: [ShardState](repeating: .notNeeded, count: release.shardCount), merged: MergedList(limit: limit))
    try flight.resolveSubject(release)
    if freeSlots.popLast() == nil {
      slots.append(nil)
      uses.append(0)
    }
    uses[Int(slot)] = use
    byToken[token] = flight.id
    let (slots, uses) = (slots, uses)
    deadlines.prune { slots[Int($0.slot)] == nil || uses[Int($0.slot)] != $0.use }
    deadlines.insert(DeadlineHeap.Entry(at: flight.mergeBy, flight: flight.id))
    return flight
  }

  private func isOpen(_ id: FlightID) -> Bool { uses[Int(id.slot)] == id.use && slots[Int(id.slot)] != nil }

  /// The flight of a leg that is still wanted, moved out of its slot.
  private mutating func take(_ id: LegID) -> Flight? {
    guard isOpen(id.flight), let flight = slots[Int(id.flight.slot)], flight.legs[Int(id.leg)].isOpen else {
      counters.lateReplies += 1
      return nil
    }
    slots[Int(id.flight.slot)] = nil
    return flight
  }
  private mutating func store(_ flight: Flight) { slots[Int(flight.id.slot)] = flight }

  private mutating func close(_ flight: Flight) {
    slots[Int(flight.id.slot)] = nil
    freeSlots.append(flight.id.slot)
    byToken[flight.token] = nil
  }

  private func waiting(_ flight: Flight) -> [ShardID] {
    flight.shards.indices.filter { flight.shards[$0] == .waiting }.map { ShardID($0) }
  }

  /// Moves a settled flight to its next phase or to its end.
  private mutating func proceed(_ id: FlightID, now: Instant, into effects: inout [Effect]) {
    guard var flight = slots[Int(id.slot)], flight.isSettled else { return }
    let release = catalog.entries[flight.entry].release
    if case .lookingUp = flight.phase {
      do throws(RankingError) {
        let missing = flight.coverage(release).missing
        guard missing.isEmpty else {
          throw RankingError(
            .unavailable, "the vectors that the request names cannot be had: \(Self.listed(missing))", missing: missing)
        }
        try flight.resolveLookups(release)
        flight.planTasks()
        sendLegs(&flight, shards: waiting(flight), tried: nil, now: now, into: &effects)
        store(flight)
        proceed(id, now: now, into: &effects)
      } catch {
        finish(&flight, .failure(error), into: &effects)
      }
    } else {
      finish(&flight, outcome(flight, release, now: now), into: &effects)
    }
  }

  private func outcome(_ flight: Flight, _ release: Release, now: Instant) -> Result<Answer, RankingError> {
    let coverage = flight.coverage(release)
    guard coverage.answered > 0 else {
      return .failure(
        RankingError(.unavailable, "no shard answered: \(Self.listed(coverage.missing))", missing: coverage.missing))
    }
    guard coverage.items >= flight.request.minCoverage else {
      return .failure(
        RankingError(
          .unavailable,
          "coverage \(coverage.items) is below min_coverage \(flight.request.minCoverage): "
            + Self.listed(coverage.missing), missing: coverage.missing))
    }
    var unknown = flight.unknown
    if case .rank(let items) = flight.request.kind { unknown += unranked(items, flight, coverage) }
    return .success(
      Answer(
        release: release.id, entries: flight.merged.entries, lists: flight.merged.lists, coldStart: flight.coldStart,
        coverage: coverage, candidates: flight.query.candidates,
        quality: Double(flight.query.candidates) / Double(flight.request.candidatesAsked), unknown: unknown,
        requestID: flight.request.requestID, took: now - flight.start))
  }

  /// The items to rank that no worker knew, of the shards that answered. Items that were left out for another reason
  /// (`exclude`, `min_score`) are not unknown, so workers are asked for no such thing: the difference is made here.
  private func unranked(_ items: [String], _ flight: Flight, _ coverage: Coverage) -> [String] {
    guard flight.request.minScore == nil else { return [] }
    var ranked = Set(flight.merged.entries.map { flight.merged.lists[Int($0.list)].ids[Int($0.position)] })
    ranked.formUnion(flight.request.exclude)
    let missing = Set(coverage.missing.map(\.shard))
    return items.filter {
      !ranked.contains($0) && !missing.contains(ShardID.owner(of: $0, shards: flight.shards.count))
    }
  }

  private mutating func finish(
    _ flight: inout Flight, _ outcome: Result<Answer, RankingError>, into effects: inout [Effect]
  ) {
    cancelOpenLegs(&flight, into: &effects)
    close(flight)
    effects.append(.answer(flight.token, outcome))
  }

  static func listed(_ missing: [Coverage.Missing]) -> String {
    missing.map { "shard \($0.shard) (\($0.reason.rawValue))" }.joined(separator: ", ")
  }

  // MARK: Legs

  /// Sends the shards to replicas, one leg per worker; a shard without one is missing for `otherwise`.
  private mutating func sendLegs(
    _ flight: inout Flight, shards: [ShardID], tried: WorkerID?, otherwise: MissingReason = .noReadyReplica,
    now: Instant, into effects: inout [Effect]
  ) {
    let replicas = catalog.entries[flight.entry].replicas
    var groups: [(worker: WorkerID, shards: [ShardID])] = []
    for shard in shards {
      guard let worker = chooser.choose(replicas[shard], tried: tried) else {
        flight.shards[shard.index] = .missing(otherwise)
        continue
      }
      chooser.sent(worker, shards: 1)
      flight.shards[shard.index] = .inFlight(worker, attempt: tried == nil ? 1 : 2)
      if let index = groups.firstIndex(where: { $0.worker == worker }) {
        groups[index].shards.append(shard)
      } else {
        groups.append((worker, [shard]))
      }
    }
    if tried == nil {
      counters.primaryLegs += UInt64(groups.count)
      budget.primaryLegs(groups.count, policy: policy, now: now)
    } else {
      counters.retryLegs += UInt64(groups.count)
    }
    let timeout = flight.mergeBy - now
    for group in groups {
      let id = LegID(flight: flight.id, leg: UInt16(flight.legs.count))
      flight.legs.append(Leg(worker: group.worker, shards: group.shards, sentAt: now, isOpen: true))
      switch flight.phase {
      case .scoring:
        let tasks = group.shards.map { flight.tasks[$0.index] }
        effects.append(.score(id, group.worker, ScoreRequest(query: flight.query, tasks: tasks), timeout: timeout))
      case .lookingUp:
        let wanted = flight.lookupIDs.filter {
          group.shards.contains(ShardID.owner(of: $0, shards: flight.shards.count))
        }
        let request = LookupRequest(release: flight.query.release, shards: group.shards, ids: Self.unique(wanted))
        effects.append(.lookup(id, group.worker, request, timeout: timeout))
      }
    }
  }

  private static func unique(_ ids: [String]) -> [String] {
    var seen = Set<String>()
    return ids.filter { seen.insert($0).inserted }
  }

  private mutating func sendLookups(_ flight: inout Flight, now: Instant, into effects: inout [Effect]) {
    sendLegs(&flight, shards: waiting(flight), tried: nil, now: now, into: &effects)
  }

  /// The leg is over, whatever it brought.
  private mutating func end(
    _ id: LegID, of flight: inout Flight, succeeded: Bool, now: Instant, into effects: inout [Effect]
  ) -> Leg {
    let leg = flight.legs[Int(id.leg)]
    flight.legs[Int(id.leg)].isOpen = false
    chooser.ended(leg.worker, shards: leg.shards.count, latency: succeeded ? now - leg.sentAt : nil)
    if succeeded { effects.append(.heartbeat(leg.worker, sentAt: leg.sentAt)) }
    return leg
  }

  /// The shards of a leg that nobody has settled yet.
  private func owed(_ leg: Leg, of flight: Flight) -> [ShardID] {
    leg.shards.filter { !flight.shards[$0.index].isSettled }
  }

  private func isValid(_ reply: ScoreReply, for leg: Leg, of flight: Flight) -> Bool {
    reply.release == flight.query.release && reply.shards.allSatisfy(leg.shards.contains)
      && reply.items.count <= flight.query.k && reply.items.isWellFormed
  }

  private mutating func failed(
    _ flight: inout Flight, _ leg: Leg, _ failure: CallFailure, now: Instant, into effects: inout [Effect]
  ) {
    switch failure {
    case .connectionLost: tryElsewhere(&flight, leg, reason: .connectionLost, now: now, into: &effects)
    case .wrongVersion:
      effects.append(.lacks(leg.worker, flight.query.release))
      tryElsewhere(&flight, leg, reason: .wrongVersion, now: now, into: &effects)
    // Trying elsewhere would add load to a cluster that has too much, or time that is not there, or the same error.
    case .overloaded: settle(&flight, leg, .overloaded)
    case .deadlineExceeded: settle(&flight, leg, .timeout)
    case .workerError: settle(&flight, leg, .workerError)
    }
  }

  private func settle(_ flight: inout Flight, _ leg: Leg, _ reason: MissingReason) {
    for shard in owed(leg, of: flight) { flight.shards[shard.index] = .missing(reason) }
  }

  private mutating func tryElsewhere(
    _ flight: inout Flight, _ leg: Leg, reason: MissingReason, now: Instant, into effects: inout [Effect]
  ) {
    var again: [ShardID] = []
    for shard in owed(leg, of: flight) {
      if case .inFlight(_, let attempt) = flight.shards[shard.index], attempt < policy.attemptsPerShard {
        again.append(shard)
      } else {
        flight.shards[shard.index] = .missing(reason)
      }
    }
    guard !again.isEmpty else { return }
    guard budget.take() else {
      counters.retriesRefused += 1
      for shard in again { flight.shards[shard.index] = .missing(reason) }
      return
    }
    sendLegs(&flight, shards: again, tried: leg.worker, otherwise: reason, now: now, into: &effects)
  }

  private mutating func cancelOpenLegs(_ flight: inout Flight, into effects: inout [Effect]) {
    for index in flight.legs.indices where flight.legs[index].isOpen {
      flight.legs[index].isOpen = false
      let leg = flight.legs[index]
      chooser.ended(leg.worker, shards: leg.shards.count, latency: nil)
      effects.append(.cancel(LegID(flight: flight.id, leg: UInt16(index)), leg.worker))
    }
  }
}

extension Result {
  var isSuccess: Bool {
    if case .success = self { true } else { false }
  }
}
