import RankingCore

// The legs of a request: admission and primaries, retries, hedges.
//
// A hedge is sent when a leg has taken longer than 95 % of its worker's legs. Its tokens come only from primary legs, 5
// for 100, so on a bad day most slow legs find none. They then wait in line, oldest first, until there is one; most are
// answered meanwhile and leave the line, so that the tokens go to the legs that are really stuck (Dean and Barroso,
// "The Tail at Scale", 2013).

/// Slow legs in the order in which their time came.
struct OverdueLegs: Sendable {
  private var legs: [LegID] = []
  private var head = 0

  var isEmpty: Bool { head == legs.count }
  var count: Int { legs.count - head }
  var first: LegID? { isEmpty ? nil : legs[head] }

  mutating func append(_ leg: LegID) { legs.append(leg) }
  mutating func removeFirst() {
    head += 1
    if head == legs.count {
      legs.removeAll(keepingCapacity: true)
      head = 0
    } else if head > 256, head * 2 > legs.count {
      legs.removeFirst(head)
      head = 0
    }
  }
}

/// Which worker is asked for which shards: one leg per worker. Room that is used again and again.
struct LegPlan: Sendable {
  struct Group: Sendable {
    var worker: WorkerID
    var count: Int
  }
  private(set) var groups: [Group] = []
  /// One per shard that is asked, in the order of asking: the shard and its group.
  private(set) var picks: [(shard: ShardID, group: Int)] = []

  mutating func removeAll() {
    groups.removeAll(keepingCapacity: true)
    picks.removeAll(keepingCapacity: true)
  }
  /// - Returns: whether the worker had none before.
  @discardableResult
  mutating func add(_ shard: ShardID, _ worker: WorkerID) -> Bool {
    for index in groups.indices where groups[index].worker == worker {
      groups[index].count += 1
      picks.append((shard, index))
      return false
    }
    picks.append((shard, groups.count))
    groups.append(Group(worker: worker, count: 1))
    return true
  }
}

extension Router {
  // MARK: Primaries

  /// Chooses a replica for every shard that is owed; when all have room, sends; else refuses the request before any leg
  /// is sent.
  mutating func launch(_ flight: Flight, now: Instant, into effects: inout [Effect]) {
    guard now < flight.mergeBy else { return flight.giveUpRest() }
    plan.removeAll()
    book.beginPlan()
    var rules = ChoiceRules(priority: flight.request.priority)
    if flight.request.sticky { rules.stickiness = Self.stickiness(flight.request) }
    for index in flight.shards.indices where flight.shards[index].state == .waiting {
      let shard = ShardID(index)
      switch choose(catalog[flight.entry].replicas[shard], flight, rules, now: now) {
      case .none: flight.miss(shard, .noReadyReplica)
      case .worker(let worker):
        if plan.add(shard, worker) { book.records[worker.index].plan = book.plan }
        book.records[worker.index].shardsInFlight += 1
      case .full:
        unplan()
        return refuse(flight, shard, into: &effects)
      }
    }
    unplan()
    guard !flight.isHopeless else { return }
    let pressure = plan.groups.reduce(0) { max($0, book.pressure($1.worker)) }
    if pressure > policy.pressureFrom { flight.mayHedge = false }
    if flight.phase == .scoring, flight.query.mode == .retrieve {
      let asked = flight.request.candidatesAsked
      flight.query.candidates = policy.candidates(asked: asked, k: flight.request.k, pressure: pressure)
      if flight.query.candidates < asked { counters.lowered += 1 }
    }
    counters.primaryLegs += UInt64(plan.groups.count)
    retryBudget.primaryLegs(plan.groups.count, policy: policy, now: now)
    hedgeBudget.primaryLegs(plan.groups.count, policy: policy)
    sendPlan(flight, as: .primary, now: now, into: &effects)
    hedgeOverdue(now: now, into: &effects)
  }

  private mutating func choose(
    _ replicas: [WorkerID], _ flight: Flight, _ rules: ChoiceRules, now: Instant
  ) -> ReplicaChoice {
    guard let place = flight.replica else { return book.choose(replicas, rules, now: now) }
    return replicas.isEmpty ? .none : .worker(replicas[place % replicas.count])
  }

  /// The counts that grew while shards were assigned; `sendPlan` counts what is really sent.
  private mutating func unplan() {
    for group in plan.groups { book.records[group.worker.index].shardsInFlight -= group.count }
  }

  private mutating func refuse(_ flight: Flight, _ shard: ShardID, into effects: inout [Effect]) {
    counters.refused += 1
    let error = RankingError(
      .overloaded, "no replica of shard \(shard) has room for another request; try again shortly")
    let origin = flight.origin
    close(flight)
    effects.append(.answer(flight.token, .failure(error), origin: origin))
  }

  private static func stickiness(_ request: RankingRequest) -> UInt64 {
    let key: String
    if case .user(let user) = request.subject { key = user } else { key = request.session ?? request.requestID }
    return StableHash.xxh64(key) | 1
  }

  private mutating func sendPlan(
    _ flight: Flight, as kind: Leg.Kind, now: Instant, into effects: inout [Effect]
  ) {
    let timeout = flight.mergeBy - now
    for index in plan.groups.indices {
      let worker = plan.groups[index].worker
      let id = LegID(flight: flight.id, leg: UInt16(flight.legs.count))
      let start = flight.legShards.count
      for pick in plan.picks where pick.group == index {
        flight.legShards.append(pick.shard)
        flight.send(pick.shard, to: worker, as: kind)
      }
      let range = start..<flight.legShards.count
      flight.legs.append(Leg(worker: worker, kind: kind, shards: range, sentAt: now, isOpen: true))
      book.sent(worker, shards: range.count)
      if policy.hedging, flight.mayHedge, kind == .primary {
        let delay = book.hedgeDelay(worker, remaining: timeout)
        deadlines.insert(DeadlineHeap.Entry(at: now + delay, flight: flight.id, purpose: .hedge(id.leg)))
      }
      switch flight.phase {
      case .scoring: effects.append(.score(id, worker, scoreRequest(flight, range, kind), timeout: timeout))
      case .lookingUp: effects.append(.lookup(id, worker, lookupRequest(flight, range), timeout: timeout))
      }
    }
  }

  private mutating func scoreRequest(_ flight: Flight, _ range: Range<Int>, _ kind: Leg.Kind) -> ScoreRequest {
    let shared: SharedQuery
    if let made = flight.shared {
      shared = made
    } else {
      shared = SharedQuery(flight.query)
      flight.shared = shared
    }
    var request = ScoreRequest(shared: shared, tasks: [])
    request.tasks.reserveCapacity(range.count)
    for shard in flight.legShards[range] { request.tasks.append(flight.tasks[shard.index]) }
    if kind == .retry, policy.planted.contains(.versionNotPinnedOnRetry),
      let other = catalog.entries.last(where: { $0.isPublished && $0.id.model == flight.release.model })
    {
      var query = flight.query
      query.release = other.release.id
      return ScoreRequest(query: query, tasks: request.tasks)
    }
    return request
  }

  private func lookupRequest(_ flight: Flight, _ range: Range<Int>) -> LookupRequest {
    let shards = Array(flight.legShards[range])
    var ids: [String] = []
    var seen = Set<String>()
    for id in flight.lookupIDs where shards.contains(ShardID.owner(of: id, shards: flight.shards.count)) {
      if seen.insert(id).inserted { ids.append(id) }
    }
    return LookupRequest(release: flight.release, shards: shards, ids: ids)
  }

  // MARK: Ends of legs

  /// The leg is over, whatever it brought.
  mutating func end(_ id: LegID, of flight: Flight, _ end: LegEnd, now: Instant) -> Leg {
    let leg = flight.legs[Int(id.leg)]
    flight.legs[Int(id.leg)].isOpen = false
    flight.legs[Int(id.leg)].end = end
    flight.legs[Int(id.leg)].endedAt = now
    book.ended(leg.worker, shards: leg.shards.count)
    for shard in flight.legShards[leg.shards] { flight.legEnded(shard) }
    return leg
  }

  mutating func replied(_ leg: Leg, now: Instant, into effects: inout [Effect]) {
    book.answered(leg.worker, after: now - leg.sentAt, now: now)
    effects.append(.heartbeat(leg.worker, sentAt: leg.sentAt))
  }

  func isValid(_ reply: ScoreReply, for leg: Leg, of flight: Flight) -> Bool {
    (reply.release == flight.release || policy.planted.contains(.versionNotPinnedOnRetry))
      && reply.shards.allSatisfy(flight.legShards[leg.shards].contains)
      && reply.items.count <= flight.query.k && reply.items.isWellFormed
      && reply.items.groups.count == (flight.query.cap == nil ? 0 : reply.items.count)
      && reply.items.vectors.count
        == (flight.query.wantsVectors ? reply.items.count * catalog[flight.entry].release.dimension : 0)
      && reply.items.values.count == reply.items.count * flight.query.wantedColumns.count
      && hasExplanations(reply.items, for: flight)
  }

  /// Whether all items are explained, in numbers that can be written, or none where nobody asked.
  private func hasExplanations(_ items: ScoredList, for flight: Flight) -> Bool {
    guard flight.query.explain, items.count > 0 else { return items.explanations == nil }
    let width = ContributionLayout(catalog[flight.entry].release).width
    return items.explanations?.isWellFormed(items: items.count, width: width) ?? false
  }

  /// The shards that the reply speaks for are answered. The others of the leg were not finished, or were unloaded
  /// meanwhile: somebody else may have them.
  mutating func settle(
    _ leg: Leg, of flight: Flight, answered: [ShardID], now: Instant, into effects: inout [Effect]
  ) {
    let omitted = flight.legShards[leg.shards].filter { !answered.contains($0) }
    if !omitted.isEmpty {
      // A leg that ran out of time belongs to a request that is answered: this one was let go of meanwhile.
      effects.append(.lacks(leg.worker, flight.release, omitted))
      for shard in omitted { flight.forgive(shard) }
    }
    for shard in answered { flight.answer(shard, planted: policy.planted) }
    tryElsewhere(flight, leg, reason: .workerError, now: now, into: &effects)
  }

  /// A sign of life, and nothing else that would speak for the worker: a fast one must not draw more traffic.
  mutating func invalid(_ flight: Flight, _ leg: Leg, now: Instant, into effects: inout [Effect]) {
    counters.invalidReplies += 1
    effects.append(.heartbeat(leg.worker, sentAt: leg.sentAt))
    book.failed(leg.worker, now: now)
    tryElsewhere(flight, leg, reason: .workerError, now: now, into: &effects)
  }

  mutating func failed(
    _ flight: Flight, _ leg: Leg, _ failure: CallFailure, now: Instant, into effects: inout [Effect]
  ) {
    switch failure {
    case .connectionLost:
      book.failed(leg.worker, now: now)
      tryElsewhere(flight, leg, reason: .connectionLost, now: now, into: &effects)
    case .wrongVersion:
      effects.append(.lacks(leg.worker, flight.release, Array(flight.legShards[leg.shards])))
      for shard in flight.legShards[leg.shards] { flight.forgive(shard) }
      tryElsewhere(flight, leg, reason: .wrongVersion, now: now, into: &effects)
    // Trying elsewhere would add load to a cluster that has too much, or time that is not there, or the same error.
    case .overloaded:
      book.overloaded(leg.worker, now: now)
      giveUp(flight, leg, .overloaded)
    case .deadlineExceeded:
      if now - leg.sentAt >= policy.timeoutCountsFrom { book.failed(leg.worker, now: now) }
      giveUp(flight, leg, .timeout)
    case .workerError, .stale:
      book.failed(leg.worker, now: now)
      giveUp(flight, leg, .workerError)
    }
  }

  /// What this leg owed is missing, unless another leg owes it too.
  private func giveUp(_ flight: Flight, _ leg: Leg, _ reason: MissingReason) {
    for shard in flight.legShards[leg.shards] where flight.shards[shard.index].legs == 0 { flight.miss(shard, reason) }
  }

  private mutating func tryElsewhere(
    _ flight: Flight, _ leg: Leg, reason: MissingReason, now: Instant, into effects: inout [Effect]
  ) {
    plan.removeAll()
    book.beginPlan()
    for shard in flight.legShards[leg.shards] {
      let progress = flight.shards[shard.index]
      guard !progress.isSettled, progress.legs == 0 else { continue }
      guard Int(progress.attempts) < policy.attemptsPerShard, now < flight.mergeBy else {
        flight.miss(shard, reason)
        continue
      }
      let rules = ChoiceRules(
        priority: flight.request.priority, tried: (progress.worker, progress.hedgeWorker), mayOverfill: true)
      switch book.choose(catalog[flight.entry].replicas[shard], rules, now: now) {
      case .worker(let worker):
        if plan.add(shard, worker) { book.records[worker.index].plan = book.plan }
      case .none, .full: flight.miss(shard, reason)
      }
    }
    guard !plan.groups.isEmpty else { return }
    guard retryBudget.take(plan.groups.count, policy: policy) else {
      counters.retriesRefused += 1
      for pick in plan.picks { flight.miss(pick.shard, reason) }
      return
    }
    counters.retryLegs += UInt64(plan.groups.count)
    sendPlan(flight, as: .retry, now: now, into: &effects)
  }

  // MARK: Hedges

  /// The time of a leg has come: a second one, now if it can be paid for, else when there is a token.
  mutating func hedgeWhenPaid(_ id: LegID, of flight: Flight, now: Instant, into effects: inout [Effect]) {
    guard flight.legs[Int(id.leg)].isOpen, !flight.legs[Int(id.leg)].isHedged else { return }
    flight.legs[Int(id.leg)].isHedged = true
    if overdue.isEmpty || policy.planted.contains(.hedgeWithoutBudget) {
      if hedge(id, of: flight, now: now, into: &effects) { return }
    }
    counters.hedgesDelayed += 1
    guard overdue.count < policy.hedgesWaitingMax else {
      counters.hedgesDropped += 1
      return
    }
    overdue.append(id)
  }

  /// Gives what tokens there are to the legs that have waited longest.
  mutating func hedgeOverdue(now: Instant, into effects: inout [Effect]) {
    while let id = overdue.first {
      let flight = slots[Int(id.flight.slot)]
      if flight.isOpen, flight.id == id.flight, flight.legs[Int(id.leg)].isOpen {
        guard hedge(id, of: flight, now: now, into: &effects) else { return }
      }
      overdue.removeFirst()
    }
  }

  /// - Returns: false when there is no token for it; true when it was sent, or there is nobody to send it to.
  private mutating func hedge(_ id: LegID, of flight: Flight, now: Instant, into effects: inout [Effect]) -> Bool {
    guard now < flight.mergeBy else { return true }
    let leg = flight.legs[Int(id.leg)]
    planCover(of: leg, of: flight, now: now)
    guard !plan.groups.isEmpty else { return true }
    // More legs than tokens can ever be saved up: it would block the line for all others.
    guard Double(plan.groups.count) <= policy.hedgeTokensMax else {
      counters.hedgesDropped += 1
      return true
    }
    if !hedgeBudget.take(plan.groups.count), !policy.planted.contains(.hedgeWithoutBudget) { return false }
    counters.hedgeLegs += UInt64(plan.groups.count)
    book.legsPerHedge += 0.05 * (Double(plan.groups.count) - book.legsPerHedge)
    sendPlan(flight, as: .hedge, now: now, into: &effects)
    return true
  }

  /// As few other workers as can answer what the leg owes: every further one costs a token. Shards that nobody else has
  /// room for are left out.
  private mutating func planCover(of leg: Leg, of flight: Flight, now: Instant) {
    plan.removeAll()
    let replicas = catalog[flight.entry].replicas
    var open = flight.legShards[leg.shards].filter {
      let progress = flight.shards[$0.index]
      return !progress.isSettled && !progress.isHedged && progress.legs == 1
    }
    while !open.isEmpty {
      var best: (worker: WorkerID, shards: Int)?
      for shard in open {
        for worker in replicas[shard] where worker != leg.worker && best?.worker != worker {
          guard book.isPanicking || !book.isEjected(worker, now), !book.isFull(worker, priority: .batch) else {
            continue
          }
          let count = open.count { replicas[$0].contains(worker) }
          if let current = best {
            guard
              count > current.shards
                || (count == current.shards && book.cost(worker, now) < book.cost(current.worker, now))
            else { continue }
          }
          best = (worker, count)
        }
      }
      guard let best else { return }
      for shard in open where replicas[shard].contains(best.worker) { plan.add(shard, best.worker) }
      open.removeAll { replicas[$0].contains(best.worker) }
    }
  }

  /// Takes back the legs of which every shard has been answered elsewhere.
  mutating func takeBackOutrun(_ flight: Flight, now: Instant, into effects: inout [Effect]) {
    guard flight.legs.count > 1 else { return }
    for index in flight.legs.indices where flight.legs[index].isOpen {
      let leg = flight.legs[index]
      guard flight.legShards[leg.shards].allSatisfy({ flight.shards[$0.index].isSettled }) else { continue }
      let id = LegID(flight: flight.id, leg: UInt16(index))
      _ = end(id, of: flight, .outrun, now: now)
      book.outrun(leg.worker, after: now - leg.sentAt, now: now)
      counters.outrunLegs += 1
      effects.append(.cancel(id, leg.worker))
    }
  }

  /// - Parameter isTimeout: whether the request's time is over, which speaks against who has not answered in it.
  mutating func cancelOpenLegs(_ flight: Flight, now: Instant, isTimeout: Bool, into effects: inout [Effect]) {
    for index in flight.legs.indices where flight.legs[index].isOpen {
      let id = LegID(flight: flight.id, leg: UInt16(index))
      let leg = end(id, of: flight, isTimeout ? .expired : .outrun, now: now)
      if isTimeout, now - leg.sentAt >= policy.timeoutCountsFrom {
        book.outrun(leg.worker, after: now - leg.sentAt, now: now)
        book.failed(leg.worker, now: now)
      }
      effects.append(.cancel(id, leg.worker))
    }
  }

  /// The planted bug of the same name: news for a request that is over goes to the one that has its slot now.
  mutating func mergeLate(
    _ id: LegID, _ result: Result<ScoreReply, CallFailure>, now: Instant, into effects: inout [Effect]
  ) {
    let flight = slots[Int(id.flight.slot)]
    guard flight.isOpen, case .success(let reply) = result, flight.phase == .scoring,
      reply.shards.allSatisfy({ $0.index < flight.shards.count })
    else { return }
    flight.merged.join(reply.items)
    for shard in reply.shards { flight.answer(shard, planted: policy.planted) }
    proceed(flight, now: now, into: &effects)
  }
}
