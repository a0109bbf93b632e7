import Membership
import Nodes
import RankingCore
import Routing
import Wire

// Carries out what nodes decide, and brings them what happens.

/// What an experiment changes in a world without faults.
struct ExperimentHooks {
  var isExperiment = false
  /// Share of legs, in thousandths, that every worker answers late.
  var delayedPerMille = 0
  var delay: Duration = .milliseconds(100)
  /// Called with how long a request took.
  var took: ((Duration, Instant) -> Void)?
}

extension World {
  // MARK: Effects of coordinators

  /// - Returns: news for the same node that follows at once.
  func carryOut(_ effect: CoordinatorEffect, of c: Int) throws(Violation) -> CoordinatorEvent? {
    switch effect {
    case .probe(let worker, let token, let timeout):
      guard send(c, worker.index, .probe(token), [], timeout) != nil else {
        return .probed(worker, token: token, .failure(.connectionLost))
      }
    case .score(let leg, let worker, let request, let timeout):
      let token = owner(of: leg, c)
      report.legs += 1
      note(c, "scores at", worker.index, token)
      let shards = request.tasks.reduce(into: UInt64(0)) { $0 |= 1 << UInt64($1.shard.rawValue) }
      guard token >= 0 else { return try sendOwn(leg, c, worker, .score(leg), request.encoded(), shards, timeout) }
      try coordinators[c].checker.sent(token, request, retry: allowance, now: now)
      guard let call = send(c, worker.index, .score(leg), request.encoded(), timeout) else {
        throw Violation(text: "request \(token): a leg for worker \(worker.rawValue), which is not linked")
      }
      calls[call].token = token
      calls[call].shards = shards
      coordinators[c].checker.asked[token].legs.append((leg, call))
    case .lookup(let leg, let worker, let request, let timeout):
      let token = owner(of: leg, c)
      note(c, "looks up at", worker.index, token)
      let wanted = request.shards.reduce(into: UInt64(0)) { $0 |= 1 << UInt64($1.rawValue) }
      guard token >= 0 else { return try sendOwn(leg, c, worker, .lookup(leg), request.encoded(), wanted, timeout) }
      let others = coordinators[c].checker.asked[token].lookups.filter { calls[$0].shards & wanted != 0 }
      let isExtra = !others.isEmpty
      let isHedge = others.contains { calls[$0].isOpen }
      try coordinators[c].checker.lookedUp(isExtra: isExtra, isHedge: isHedge, retry: allowance, now: now)
      guard let call = send(c, worker.index, .lookup(leg), request.encoded(), timeout) else {
        throw Violation(text: "request \(token): a lookup for worker \(worker.rawValue), which is not linked")
      }
      coordinators[c].checker.asked[token].lookups.append(call)
      calls[call].token = token
      calls[call].shards = wanted
      coordinators[c].checker.asked[token].legs.append((leg, call))
    case .cancel(let leg, let worker):
      note(c, "takes back from", worker.index)
      let token = owner(of: leg, c)
      let legs = token >= 0 ? coordinators[c].checker.asked[token].legs : ownLegs
      if let call = legs.last(where: { $0.leg == leg && calls[$0.call].coordinator == c })?.call, calls[call].isOpen {
        calls[call].isOpen = false
        if token >= 0 { coordinators[c].checker.legEnded(token, calls[call].shards) }
        queue.schedule(.cancelAtWorker(call), at: arrival(c, worker.index, toWorker: true))
      }
    case .answer(let token, let outcome): try answered(c, Int(token), outcome)
    case .wake(let at):
      coordinators[c].wakes += 1
      queue.schedule(
        .wakeCoordinator(c, life: coordinators[c].life, number: coordinators[c].wakes), at: max(at, now))
    case .connect(let worker, let address):
      let index = Int(address.dropFirst()) ?? worker.index
      precondition(index == worker.index || joins, "static members keep their numbers")
      connections(c, worker, index)
    case .disconnect(let worker): if let index = route(c, worker) { drop(c, index) }
    case .load(let worker, let order): if !rolls || mayDrive(c) { give(c, worker, .load, order) }
    case .unload(let worker, let order):
      guard !rolls || mayDrive(c) else { break }
      if rolls, let index = route(c, worker) { try checkUnload(order, at: index) }
      give(c, worker, .unload, order)
    case .rollout(let effect): try carryOut(effect, of: c)
    case .replyJoin, .replyLeave, .memberChanged, .trace: break
    }
    return nil
  }

  private var allowance: Checker.RetryAllowance {
    Checker.RetryAllowance(
      perLeg: settings.routing.retryTokensPerLeg, perSecond: settings.routing.retryTokensPerSecond,
      saved: settings.routing.retryTokensMax, hedgePerLeg: settings.routing.hedgeTokensPerLeg,
      hedgesSaved: settings.routing.hedgeTokensMax)
  }

  private func owner(of leg: LegID, _ c: Int) -> Int {
    if let known = coordinators[c].tokens[leg.requestKey] { return known }
    precondition(asking >= 0 || rolls, "a leg of a request that nobody made")
    // What follows a client's own legs, or its answer, in the same breath is the coordinator's: a copy for the shadow.
    let isClients = asking >= 0 && asking != lastBound && !coordinators[c].checker.asked[asking].isAnswered
    coordinators[c].tokens[leg.requestKey] = isClients ? asking : -1
    if isClients { lastBound = asking }
    return isClients ? asking : -1
  }

  /// - Returns: nothing that would follow at once.
  private func sendOwn(
    _ leg: LegID, _ c: Int, _ worker: WorkerID, _ kind: Call.Kind, _ bytes: [UInt8], _ shards: UInt64,
    _ timeout: Duration
  ) throws(Violation) -> CoordinatorEvent? {
    var isLookup = false
    if case .lookup = kind { isLookup = true }
    try coordinators[c].checker.sentOwn(leg.requestKey, shards, isLookup: isLookup, retry: allowance, now: now)
    guard let call = send(c, worker.index, kind, bytes, timeout) else {
      throw Violation(text: "a leg of its own for worker \(worker.rawValue), which is not linked")
    }
    calls[call].shards = shards
    if ownLegs.count > 4096 { ownLegs.removeAll { !calls[$0.call].isOpen } }
    ownLegs.append((leg, call))
    return nil
  }

  private func answered(_ c: Int, _ token: Int, _ outcome: Result<Answer, RankingError>) throws(Violation) {
    let grace: Duration = coordinators[c].frozeFor > .zero ? coordinators[c].frozeFor : .zero
    let took = now - coordinators[c].checker.asked[token].at
    switch outcome {
    case .success(let answer):
      report.answered += 1
      if !answer.coverage.missing.isEmpty { report.degraded += 1 }
      note(c, "answers", token, answer.coverage.answered)
    case .failure(let error):
      if error.code == .overloaded { report.refused += 1 }
      note(c, "refuses", token)
    }
    hooks.took?(took, now)
    if now >= fate.liveFrom { quietLatencies.append(took.milliseconds) }
    do throws(Violation) {
      try coordinators[c].checker.answered(token, outcome, now: now, grace: grace)
    } catch {
      throw Violation(text: error.text + holders(outcome, c))
    }
  }

  /// Who has the shards that an answer lacks, and who the coordinator thinks has.
  private func holders(_ outcome: Result<Answer, RankingError>, _ c: Int) -> String {
    guard case .success(let answer) = outcome else { return "" }
    return answer.coverage.missing.map { missing in
      let held = workers.indices.filter { workers[$0].node.held(answer.release).contains(missing.shard) }
      let known = coordinators[c].node.router.catalog.entry(answer.release)?.replicas[missing.shard] ?? []
      return "; shard \(missing.shard) of \(answer.release) is held by \(held.map { "w\($0)" }), c\(c) knows of "
        + "\(known.compactMap { route(c, $0).map { "w\($0)" } })"
    }.joined()
  }

  // In join mode a coordinator numbers the workers by their arrival; addresses say which one is meant.

  private func connections(_ c: Int, _ worker: WorkerID, _ index: Int) {
    links[c][index].isWanted = true
    queue.schedule(.connect(coordinator: c, worker: index, life: coordinators[c].life), at: now)
  }
  /// The worker behind a coordinator's number for it.
  func route(_ c: Int, _ worker: WorkerID) -> Int? {
    guard joins else { return worker.index }
    let address = coordinators[c].node.membership.members[worker.index].address
    return Int(address.dropFirst())
  }
  /// A coordinator's number for a worker.
  func number(_ c: Int, _ worker: Int) -> WorkerID? {
    guard joins else { return WorkerID(worker) }
    return coordinators[c].node.membership.members.first { $0.address == "w\(worker)" }?.id
  }

  private func drop(_ c: Int, _ worker: Int) {
    links[c][worker].isWanted = false
    links[c][worker].isUp = false
    links[c][worker].connection &+= 1
  }

  private func give(_ c: Int, _ worker: WorkerID, _ kind: Call.Kind, _ order: ShardOrder) {
    note(c, "orders", worker.index, order.shards.first?.index ?? 0)
    _ = send(c, worker.index, kind, order.encoded(), .seconds(1))
  }

  /// - Returns: the call; `nil` when there is no connection.
  private func send(_ c: Int, _ number: Int, _ kind: Call.Kind, _ bytes: [UInt8], _ timeout: Duration) -> Int? {
    guard let w = route(c, WorkerID(number)), links[c][w].isUp else { return nil }
    calls.append(
      Call(
        coordinator: c, coordinatorLife: coordinators[c].life, worker: w, workerLife: workers[w].life,
        connection: links[c][w].connection, kind: kind, bytes: bytes, timeout: timeout))
    let call = calls.count - 1
    if links[c][w].calls.count > 256 { links[c][w].calls.removeAll { !calls[$0].isOpen } }
    links[c][w].calls.append(call)
    queue.schedule(.atWorker(call), at: arrival(c, w, toWorker: true))
    return call
  }

  // MARK: Effects of workers

  func carryOut(_ effect: WorkerEffect, of w: Int) {
    switch effect {
    case .run(let runs, _, let threads):
      var nanoseconds = 200_000 + generator.below(600_000)
      if generator.below(100) == 0, !hooks.isExperiment { nanoseconds += generator.below(10_000_000) }
      if now < workers[w].slowUntil { nanoseconds *= workers[w].slowness }
      nanoseconds /= threads
      for run in runs {
        calls[Int(run.call)].scored = scorer.score(run.request, of: catalogue)
        queue.schedule(
          .scored(worker: w, life: workers[w].life, call: Int(run.call)), at: now + .nanoseconds(Int64(nanoseconds)))
      }
    case .abort: break
    case .lookUp(let token, let request):
      let held = workers[w].node.held(request.release)
      if let reply = SliceScorer.look(up: request, held: held, in: catalogue) {
        respond(Int(token), .success(reply.encoded()))
      } else {
        respond(Int(token), .failure(.wrongVersion))
      }
    case .replyScore(let token, let result):
      let isLate =
        (hooks.delayedPerMille > 0 && generator.below(1000) < hooks.delayedPerMille) || workers[w].isDelayed
      respond(Int(token), result.map { $0.encoded() }, after: isLate ? hooks.delay : .zero)
    case .refuseLookup(let token, let failure): respond(Int(token), .failure(failure))
    case .replyStatus(let token, let status): respond(Int(token), .success(status.encoded()))
    case .replyOrder(let token, let failure):
      respond(Int(token), failure.map { .failure($0) } ?? .success([]))
    case .load(let release, let shard):
      queue.schedule(
        .loaded(worker: w, life: workers[w].life, release, shard), at: now + .milliseconds(5 + generator.below(40)))
    case .unload: break
    case .join(let coordinator, let request):
      guard let c = Int(coordinator.dropFirst()), c < coordinators.count else { return }
      queue.schedule(.join(worker: w, coordinator: c, request), at: arrival(c, w, toWorker: false))
    case .leave, .depart: break
    case .wake(let at):
      workers[w].wakes += 1
      queue.schedule(.wakeWorker(w, life: workers[w].life, number: workers[w].wakes), at: max(at, now))
    }
  }

  private func respond(_ call: Int, _ result: Result<[UInt8], CallFailure>, after wait: Duration = .zero) {
    let w = calls[call].worker
    calls[call].reply = result
    if now < workers[w].resetsUntil, generator.below(2) == 0 { calls[call].reply = .failure(.connectionLost) }
    queue.schedule(.atCoordinator(call), at: arrival(calls[call].coordinator, w, toWorker: false, after: wait))
    if fate.mayDuplicate(now), generator.below(20) == 0, case .score = calls[call].kind {
      report.faults[FaultKind.duplicatedReplies.rawValue] += 1
      queue.schedule(
        .duplicate(call), at: now + .milliseconds(generator.below(4) == 0 ? 1 + generator.below(900) : 1))
    }
  }

  // MARK: What happens

  func happen(_ happening: Happening) throws(Violation) {
    switch happening {
    case .request: request()
    case .takeBack(let c, let life, let token):
      guard coordinators[c].isAlive, coordinators[c].life == life, !coordinators[c].checker.asked[token].isAnswered
      else { return }
      if now < coordinators[c].frozenUntil { return queue.schedule(happening, at: coordinators[c].frozenUntil) }
      note(c, "is told to forget", token)
      report.faults[FaultKind.clientGone.rawValue] += 1
      coordinators[c].checker.asked[token].isGone = true
      tell(c, CoordinatorEvent.cancelled(RequestToken(token)))
    case .atWorker(let call):
      let w = calls[call].worker
      guard isDelivered(call) else { return }
      if now < workers[w].frozenUntil { return queue.schedule(happening, at: workers[w].frozenUntil) }
      arrive(call)
    case .cancelAtWorker(let call):
      let w = calls[call].worker
      guard workers[w].isAlive, workers[w].life == calls[call].workerLife else { return }
      if now < workers[w].frozenUntil { return queue.schedule(happening, at: workers[w].frozenUntil) }
      tell(w, WorkerEvent.cancelled(CallToken(call)))
    case .scored(let w, let life, let call):
      guard workers[w].isAlive, workers[w].life == life else { return }
      if now < workers[w].frozenUntil { return queue.schedule(happening, at: workers[w].frozenUntil) }
      let reply = calls[call].scored
      calls[call].scored = nil
      tell(w, .scored(CallToken(call), reply.map { .success($0) } ?? .failure(.wrongVersion)))
    case .atCoordinator(let call):
      let c = calls[call].coordinator
      if now < coordinators[c].frozenUntil { return queue.schedule(happening, at: coordinators[c].frozenUntil) }
      guard calls[call].isOpen, isSameLife(c, call), links[c][calls[call].worker].connection == calls[call].connection
      else { return }
      calls[call].isOpen = false
      note(c, "hears from", calls[call].worker)
      try deliver(call, calls[call].reply)
    case .duplicate(let call):
      let c = calls[call].coordinator
      guard isSameLife(c, call), now >= coordinators[c].frozenUntil else { return }
      guard !calls[call].isOpen, case .score(let leg) = calls[call].kind else { return }
      note(c, "hears again from", calls[call].worker)
      tell(c, .scored(leg, decode(calls[call].reply, ScoreReply.init(decoding:))))
    case .wakeCoordinator(let c, let life, let number):
      guard coordinators[c].isAlive, coordinators[c].life == life, coordinators[c].wakes == number else { return }
      if now < coordinators[c].frozenUntil { return queue.schedule(happening, at: coordinators[c].frozenUntil) }
      tell(c, CoordinatorEvent.woke)
    case .wakeWorker(let w, let life, let number):
      guard workers[w].isAlive, workers[w].life == life, workers[w].wakes == number else { return }
      if now < workers[w].frozenUntil { return queue.schedule(happening, at: workers[w].frozenUntil) }
      tell(w, WorkerEvent.woke)
    case .connect(let c, let w, let life):
      guard coordinators[c].isAlive, coordinators[c].life == life else { return }
      connect(c, w, happening)
    case .linkUp(let c, let w, let connection): linkUp(c, w, connection)
    case .linkDown(let c, let w, let connection): linkDown(c, w, connection, happening)
    case .loaded(let w, let life, let release, let shard):
      guard workers[w].isAlive, workers[w].life == life else { return }
      tell(w, .loaded(release, shardCount: catalogue.shards, shard, bytes: 1000))
    case .join(let w, let c, let request):
      guard coordinators[c].isAlive, let decoded = try? decoded(request) else { return }
      tell(c, .joinRequested(0, decoded))
      queue.schedule(
        .joined(
          worker: w, life: workers[w].life, coordinator: c,
          .success(JoinReply(coordinators: settings.coordinators))), at: arrival(c, w, toWorker: true))
    case .joined(let w, let life, let c, let reply):
      guard workers[w].life == life else { return }
      tell(w, .joined(coordinator: "c\(c)", reply))
    case .startWorker(let w): startWorker(w)
    case .startCoordinator(let c): if !coordinators[c].isAlive { startCoordinator(c) }
    case .fault: strikeFault()
    case .lose: loseWorker()
    case .heal: healAll()
    case .strike: strikeInPeace()
    case .delayWorker(let w): workers[w].isDelayed = true
    case .store(let happening): try happen(happening)
    }
  }

  private func decoded(_ request: JoinRequest) throws -> JoinRequest {
    try request.encoded().withUnsafeBytes { (raw) throws(WireError) in try JoinRequest(decoding: raw) }
  }

  private func isDelivered(_ call: Int) -> Bool {
    let w = calls[call].worker
    return workers[w].isAlive && workers[w].life == calls[call].workerLife
      && links[calls[call].coordinator][w].connection == calls[call].connection
  }
  private func isSameLife(_ c: Int, _ call: Int) -> Bool {
    coordinators[c].isAlive && coordinators[c].life == calls[call].coordinatorLife
  }

  private func arrive(_ call: Int) {
    let w = calls[call].worker
    let token = CallToken(call)
    let bytes = calls[call].bytes
    calls[call].bytes = []
    func read<Message>(_ body: (UnsafeRawBufferPointer) throws(WireError) -> Message) -> Message? {
      bytes.withUnsafeBytes { try? body($0) }
    }
    note(workerNode(w), "receives from", calls[call].coordinator)
    switch calls[call].kind {
    case .probe: tell(w, .statusRequested(token))
    case .score:
      guard let request = read(ScoreRequest.init(decoding:)) else { return respond(call, .failure(.workerError(""))) }
      tell(w, .scoreRequested(token, request, deadline: now + calls[call].timeout))
      if fate.diesOnNextScore == w {
        fate.diesOnNextScore = nil
        crashWorker(w)
        queue.schedule(.startWorker(w), at: now + .seconds(1))
      }
    case .lookup:
      guard let request = read(LookupRequest.init(decoding:)) else { return respond(call, .failure(.workerError(""))) }
      tell(w, .lookupRequested(token, request))
    case .load: if let order = read(ShardOrder.init(decoding:)) { tell(w, .loadRequested(token, order)) }
    case .unload: if let order = read(ShardOrder.init(decoding:)) { tell(w, .unloadRequested(token, order)) }
    }
  }

  private func decode<Message>(
    _ result: Result<[UInt8], CallFailure>, _ body: (UnsafeRawBufferPointer) throws(WireError) -> Message
  ) -> Result<Message, CallFailure> {
    switch result {
    case .failure(let failure): .failure(failure)
    case .success(let bytes):
      bytes.withUnsafeBytes { raw in (try? body(raw)).map { .success($0) } ?? .failure(.workerError("undecodable")) }
    }
  }

  private func deliver(_ call: Int, _ result: Result<[UInt8], CallFailure>) throws(Violation) {
    let (c, token) = (calls[call].coordinator, calls[call].token)
    guard let worker = number(c, calls[call].worker) else { return }
    switch calls[call].kind {
    case .probe(let probe): tell(c, .probed(worker, token: probe, decode(result, WorkerStatus.init(decoding:))))
    case .score(let leg):
      let reply = decode(result, ScoreReply.init(decoding:))
      if token >= 0 {
        if case .success(let reply) = reply { coordinators[c].checker.replied(token, reply.shards) }
        coordinators[c].checker.legEnded(token, calls[call].shards)
      }
      tell(c, .scored(leg, reply))
    case .lookup(let leg): tell(c, .lookedUp(leg, decode(result, LookupReply.init(decoding:))))
    case .load, .unload:
      if case .failure(let failure) = result {
        tell(c, .ordered(worker, failure))
      } else {
        tell(c, .ordered(worker, nil))
      }
    }
  }

  // MARK: Links

  private func connect(_ c: Int, _ w: Int, _ happening: Happening) {
    guard links[c][w].isWanted, !links[c][w].isUp, !links[c][w].isConnecting else { return }
    if now < coordinators[c].frozenUntil { return queue.schedule(happening, at: coordinators[c].frozenUntil) }
    links[c][w].connection &+= 1
    let isReachable =
      workers[w].isAlive && now >= workers[w].frozenUntil && now >= links[c][w].cutToWorkerUntil
      && now >= links[c][w].cutToCoordinatorUntil
    if isReachable {
      links[c][w].isConnecting = true
      queue.schedule(
        .linkUp(coordinator: c, worker: w, connection: links[c][w].connection),
        at: now + .microseconds(300 + generator.below(300)))
    } else {
      if let id = number(c, w) { tell(c, .unlinked(id)) }
      queue.schedule(happening, at: now + .milliseconds(100 + generator.below(900)))
    }
  }

  private func linkUp(_ c: Int, _ w: Int, _ connection: UInt32) {
    guard links[c][w].connection == connection, links[c][w].isConnecting, coordinators[c].isAlive else { return }
    links[c][w].isConnecting = false
    guard workers[w].isAlive, links[c][w].isWanted, let id = number(c, w) else {
      return queue.schedule(
        .connect(coordinator: c, worker: w, life: coordinators[c].life), at: now + .milliseconds(100))
    }
    links[c][w].isUp = true
    note(c, "is linked to", w)
    tell(c, .linked(id))
  }

  func linkDown(_ c: Int, _ w: Int, _ connection: UInt32, _ happening: Happening) {
    guard links[c][w].isUp, links[c][w].connection == connection, coordinators[c].isAlive else { return }
    if now < coordinators[c].frozenUntil { return queue.schedule(happening, at: coordinators[c].frozenUntil) }
    links[c][w].isUp = false
    links[c][w].connection &+= 1
    note(c, "loses", w)
    let lost = links[c][w].calls.filter { calls[$0].isOpen }
    links[c][w].calls = []
    coordinators[c].checker.coveredByLoss += lost.reduce(0) { $0 + calls[$1].shards.nonzeroBitCount }
    if let id = number(c, w) { tell(c, .unlinked(id)) }
    for call in lost where calls[call].isOpen {
      calls[call].isOpen = false
      // The worker sees its end of the connection go as well.
      if workers[w].life == calls[call].workerLife {
        queue.schedule(.cancelAtWorker(call), at: now + .microseconds(500))
      }
      do throws(Violation) { try deliver(call, .failure(.connectionLost)) } catch { violation = error.text }
    }
    queue.schedule(.connect(coordinator: c, worker: w, life: coordinators[c].life), at: now + .milliseconds(50))
  }
}
