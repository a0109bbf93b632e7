import RankingCore

// What a worker is told to hold, and its coming and going.

/// The coordinators that a worker knows.
struct Companions: Sendable {
  struct Companion: Sendable {
    var address: String
    /// Whether it let this worker go, or could not be asked.
    var letsGo = false
  }
  var known: [Companion] = []
  var nextJoin: Instant?
  var nextLeave: Instant?
  var leaveBy: Instant?
  var hasDeparted = false

  /// - Returns: whether it is news.
  mutating func add(_ address: String) -> Bool {
    guard known.count < 64, !known.contains(where: { $0.address == address }) else { return false }
    known.append(Companion(address: address))
    return true
  }
}

extension WorkerNode {
  // MARK: Orders

  private mutating func isNewest(_ order: ShardOrder) -> Bool {
    guard order.term > newestTerm else {
      counters.staleOrders += 1
      return false
    }
    newestTerm = order.term
    return true
  }

  mutating func load(_ call: CallToken, _ order: ShardOrder, into effects: inout [WorkerEffect]) {
    guard isNewest(order) else { return effects.append(.replyOrder(call, .stale)) }
    begin(order.release, order.shards, into: &effects)
    effects.append(.replyOrder(call, nil))
  }

  /// Starts reading what is neither held nor being read.
  mutating func begin(_ release: ModelVersion, _ shards: [ShardID], into effects: inout [WorkerEffect]) {
    let index: Int
    if let known = holdings.firstIndex(where: { $0.release == release }) {
      index = known
    } else {
      index = holdings.count
      holdings.append(WorkerStatus.Holding(release: release, shardCount: 0, ready: []))
    }
    for shard in shards
    where !holdings[index].ready.contains(shard) && !holdings[index].loading.contains(shard) {
      holdings[index].failed.removeAll { $0 == shard }
      holdings[index].loading.append(shard)
      holdings[index].loading.sort()
      effects.append(.load(release, shard))
    }
  }

  mutating func loadFailed(_ release: ModelVersion, _ shard: ShardID, _ why: String) {
    counters.loadsFailed += 1
    guard let index = holdings.firstIndex(where: { $0.release == release }) else { return }
    holdings[index].loading.removeAll { $0 == shard }
    holdings[index].failure = why.cut(utf8: WorkerStatus.Holding.failureBytes)
    if !holdings[index].failed.contains(shard) {
      holdings[index].failed.append(shard)
      holdings[index].failed.sort()
    }
  }

  /// Legs that run keep the slice they run on; legs that wait are told, in their turn, that the shard is not held.
  mutating func unload(_ call: CallToken, _ order: ShardOrder, into effects: inout [WorkerEffect]) {
    guard isNewest(order) else { return effects.append(.replyOrder(call, .stale)) }
    if let index = holdings.firstIndex(where: { $0.release == order.release }) {
      for shard in order.shards where holdings[index].ready.contains(shard) {
        holdings[index].ready.removeAll { $0 == shard }
        effects.append(.unload(order.release, shard))
      }
      holdings[index].failed.removeAll(where: order.shards.contains)
      let held = holdings[index]
      if held.ready.isEmpty, held.loading.isEmpty, held.failed.isEmpty { holdings.remove(at: index) }
    }
    effects.append(.replyOrder(call, nil))
  }

  // MARK: Coming

  mutating func join(_ coordinators: [String], now: Instant, into effects: inout [WorkerEffect]) {
    for address in coordinators { _ = companions.add(address) }
    companions.nextJoin = now
    tick(now: now, into: &effects)
  }

  mutating func joined(
    _ coordinator: String, _ result: Result<JoinReply, CallFailure>, now: Instant, into effects: inout [WorkerEffect]
  ) {
    guard case .success(let reply) = result, !isDraining else { return }
    for address in reply.coordinators where companions.add(address) {
      effects.append(.join(coordinator: address, joinRequest))
    }
  }

  private var joinRequest: JoinRequest {
    JoinRequest(name: name, incarnation: settings.incarnation, address: settings.address)
  }

  // MARK: Going

  /// From now on the status says so. Without coordinators to ask it departs at once.
  mutating func drain(now: Instant, into effects: inout [WorkerEffect]) {
    guard !isDraining else { return }
    isDraining = true
    companions.leaveBy = now + policy.leaveLimit
    companions.nextLeave = now
    for index in companions.known.indices { companions.known[index].letsGo = false }
    tick(now: now, into: &effects)
  }

  /// A coordinator that cannot be asked does not hold anybody back.
  mutating func mayLeave(
    _ coordinator: String, _ result: Result<LeaveReply, CallFailure>, now: Instant, into effects: inout [WorkerEffect]
  ) {
    guard let index = companions.known.firstIndex(where: { $0.address == coordinator }) else { return }
    switch result {
    case .success(let reply): companions.known[index].letsGo = reply.mayGo
    case .failure: companions.known[index].letsGo = true
    }
    departIfFree(now: now, into: &effects)
  }

  private mutating func departIfFree(now: Instant, into effects: inout [WorkerEffect]) {
    guard isDraining, !companions.hasDeparted else { return }
    let isLate = companions.leaveBy.map { now >= $0 } ?? false
    guard isLate || companions.known.allSatisfy(\.letsGo) else { return }
    companions.hasDeparted = true
    effects.append(.depart)
  }

  /// Says again what has to be said again. Idempotent at one instant.
  mutating func tick(now: Instant, into effects: inout [WorkerEffect]) {
    if isDraining {
      if let next = companions.nextLeave, next <= now, !companions.hasDeparted {
        companions.nextLeave = now + policy.leaveInterval
        let request = LeaveRequest(name: name, incarnation: settings.incarnation)
        for companion in companions.known where !companion.letsGo {
          effects.append(.leave(coordinator: companion.address, request))
        }
      }
      departIfFree(now: now, into: &effects)
      if !companions.hasDeparted, let next = companions.nextLeave { effects.append(.wake(at: next)) }
    } else if let next = companions.nextJoin {
      if next <= now {
        companions.nextJoin = now + policy.joinInterval
        for companion in companions.known { effects.append(.join(coordinator: companion.address, joinRequest)) }
      }
      if let next = companions.nextJoin { effects.append(.wake(at: next)) }
    }
  }
}
