import RankingCore

// Who is alive and what each one serves, as one coordinator sees it.
//
// Health is decided by several signals and acted on by the strongest:
//
//     link lost ───────────────────────────────────────────────┐ at once
//     probe unanswered ──► miss 1 ─► miss 2 ─► miss 3 ─────────┤
//                          (alive)   (suspect … still used)    ▼
//     joining ──2 successes──► alive ◄──2 successes──────── down ──30 s──► gone ──2 successes──► alive
//     traffic answered ──► misses forgotten, if it was sent after the last of them
//
// A worker that is frozen keeps its connection and accepts bytes, so only an answer proves life; a worker that died
// gives an EOF within a millisecond, so nobody waits for a probe to learn it.
//
// Worked example, a freeze right after an answer at 0 ms: probe at 300, unanswered at 600 (miss 1; the next goes out at
// once and then every 100 ms), 900 (miss 2), 1000 (miss 3): down, within the 1.2 s that the policy allows.
//
// Workers become known in three ways, which may be mixed: the configuration names them, they join by themselves, or a
// DNS name lists their addresses. A process that is known twice is used once.
//
// Deliberately absent: I/O, clocks, any agreement between coordinators. Routing uses only what workers say they hold,
// so two coordinators that see different members for a moment both give right answers.

public struct Membership: Sendable {
  public enum Effect: Sendable, Equatable {
    case probe(WorkerID, token: UInt64, timeout: Duration)
    /// A member became usable or stopped being so, or holds something else now: routing tables must be made anew.
    case changed(WorkerID)
    /// Keep a connection to this address for this worker, instead of the one it had.
    case connect(WorkerID, address: String)
    case disconnect(WorkerID)
    /// Another process has this number now, or the same one is back: what was measured before says nothing.
    case renewed(WorkerID)
  }

  public let policy: MembershipPolicy
  public internal(set) var members: [Member] = []
  /// The earliest instant at which `tick` has something to do.
  public internal(set) var due: Instant?
  /// Every change of a member's state so far, by the state it went to.
  public internal(set) var transitions = [UInt64](repeating: 0, count: MemberState.allCases.count)
  var byName: [String: WorkerID] = [:]
  private var generator: SeededGenerator
  private var lastToken: UInt64 = 0

  public init(policy: MembershipPolicy = MembershipPolicy(), seed: UInt64) {
    self.policy = policy
    generator = SeededGenerator(seed: seed)
  }

  /// Adds a worker by name; it is `joining` until it has answered.
  public mutating func add(name: String, now: Instant) -> WorkerID {
    let id = WorkerID(members.count)
    members.append(Member(id: id, name: name, address: "", origin: .configured, now: now))
    byName[name] = id
    return id
  }

  // MARK: Facts

  public mutating func linked(_ id: WorkerID, now: Instant, into effects: inout [Effect]) {
    members[id.index].isLinked = true
    if members[id.index].state == .joining { members[id.index].downSince = nil }
    members[id.index].misses = 0
    members[id.index].successes = 0
    members[id.index].probes = ProbeSchedule(next: now)
    effects.append(.renewed(id))
    tick(now: now, into: &effects)
  }

  /// The connection ended, could not be made or takes no further calls: acted on at once.
  public mutating func unlinked(_ id: WorkerID, now: Instant, into effects: inout [Effect]) {
    members[id.index].isLinked = false
    members[id.index].probes = ProbeSchedule(next: now)
    switch members[id.index].state {
    case .gone: break
    // One that joined and was never reached is given up in time, or a wrong address would be tried for ever.
    case .joining:
      if members[id.index].origin == .joined, members[id.index].downSince == nil { members[id.index].downSince = now }
    case .alive, .suspect, .down: setState(id, .down, now: now, into: &effects)
    }
    if !members[id.index].isListed { retire(id, now: now, into: &effects) }
    refreshDue()
  }

  public mutating func probeAnswered(
    _ id: WorkerID, token: UInt64, status: WorkerStatus, now: Instant, into effects: inout [Effect]
  ) {
    // An answer to a probe that already counted as missed is late news of a past life: dropped.
    guard members[id.index].probes.close(token) != nil else { return }
    let before = members[id.index]
    members[id.index].misses = 0
    members[id.index].successes += 1
    var accepted = status
    if status.oldestJob > policy.oldestJobMax {
      for index in accepted.holdings.indices { accepted.holdings[index].ready = [] }
    }
    if before.status?.incarnation != status.incarnation { members[id.index].isLeaving = false }
    members[id.index].status = accepted
    findDuplicates(of: id)
    switch members[id.index].state {
    case .suspect: setState(id, .alive, now: now, into: &effects)
    case .joining, .down, .gone:
      if members[id.index].successes >= policy.successesToUp {
        setState(id, .alive, now: now, into: &effects)
      } else {
        // Still changing: the next question follows soon, not after the leisurely interval of a member that is down.
        let soon = now + policy.probeIntervalChanging
        members[id.index].probes.next = min(members[id.index].probes.next, soon)
      }
    case .alive: break
    }
    let after = members[id.index]
    if before.isUsable != after.isUsable || before.isDraining != after.isDraining
      || before.status?.holdings != accepted.holdings
    {
      effects.append(.changed(id))
    }
    refreshDue()
  }

  /// The probe came back as an error: a miss like a silent one. (A lost connection is told by `unlinked`.)
  public mutating func probeFailed(_ id: WorkerID, token: UInt64, now: Instant, into effects: inout [Effect]) {
    guard members[id.index].probes.close(token) != nil else { return }
    missed(id, count: 1, now: now, into: &effects)
    tick(now: now, into: &effects)
  }

  /// A reply of real traffic proves life, but only to a request sent after the last miss: older ones may have been
  /// answered before the freeze.
  public mutating func trafficAnswered(_ id: WorkerID, sentAt: Instant, now: Instant, into effects: inout [Effect]) {
    guard members[id.index].misses > 0, sentAt > members[id.index].lastMiss else { return }
    members[id.index].misses = 0
    if members[id.index].state == .suspect { setState(id, .alive, now: now, into: &effects) }
  }

  /// The worker said that it does not hold these shards, or is being told to unload them: nobody is sent there for them
  /// until its next snapshot. Its other shards are not in doubt: a replica must not go for the sake of another.
  /// - Returns: whether this is news.
  public mutating func lacks(_ id: WorkerID, release: ModelVersion, shards: [ShardID]) -> Bool {
    guard
      let index = members[id.index].status?.holdings.firstIndex(where: { $0.release == release }),
      members[id.index].status?.holdings[index].ready.contains(where: shards.contains) == true
    else { return false }
    members[id.index].status?.holdings[index].ready.removeAll(where: shards.contains)
    return true
  }

  // MARK: Time

  /// Sends the probes that are due, counts the ones that ran out of time, gives up who has been down too long.
  /// Idempotent at one instant.
  public mutating func tick(now: Instant, into effects: inout [Effect]) {
    for index in members.indices {
      let id = members[index].id
      if members[index].state == .down || members[index].state == .joining, let since = members[index].downSince,
        now >= since + policy.replacedAfter
      {
        setState(id, .gone, now: now, into: &effects)
        if members[index].origin == .joined { effects.append(.disconnect(id)) }
      }
      guard members[index].isLinked else { continue }
      let expired = members[index].probes.expire(now)
      if expired > 0 { missed(id, count: expired, now: now, into: &effects) }
      guard members[index].probes.next <= now else { continue }
      lastToken += 1
      members[index].probes.outstanding.append(
        ProbeSchedule.Outstanding(token: lastToken, sentAt: now, expires: now + policy.probeTimeout))
      members[index].probes.next = now + interval(members[index])
      effects.append(.probe(id, token: lastToken, timeout: policy.probeTimeout))
    }
    refreshDue()
  }

  private mutating func missed(_ id: WorkerID, count: Int, now: Instant, into effects: inout [Effect]) {
    let first = members[id.index].misses == 0
    members[id.index].misses += count
    members[id.index].successes = 0
    members[id.index].lastMiss = now
    if first { members[id.index].probes.next = now }
    switch members[id.index].state {
    case .alive, .suspect:
      setState(id, members[id.index].misses >= policy.missesToDown ? .down : .suspect, now: now, into: &effects)
    case .joining, .down, .gone: break
    }
  }

  private mutating func interval(_ member: Member) -> Duration {
    let base =
      switch member.state {
      case .alive: policy.probeInterval
      case .suspect, .joining: policy.probeIntervalChanging
      case .down, .gone: member.successes > 0 ? policy.probeIntervalChanging : policy.probeIntervalDown
      }
    let spread = 1 + policy.probeJitter * (2 * generator.unit() - 1)
    return .nanoseconds(Int64(Double(base.nanoseconds) * spread))
  }

  mutating func setState(_ id: WorkerID, _ state: MemberState, now: Instant, into effects: inout [Effect]) {
    let before = members[id.index].state
    guard before != state else { return }
    members[id.index].state = state
    switch state {
    case .down: members[id.index].downSince = now
    case .gone: break
    case .joining, .alive, .suspect: members[id.index].downSince = nil
    }
    if let index = MemberState.allCases.firstIndex(of: state) { transitions[index] += 1 }
    effects.append(.changed(id))
  }

  mutating func refreshDue() {
    var earliest: Instant?
    func consider(_ at: Instant) { if earliest.map({ at < $0 }) ?? true { earliest = at } }
    for index in members.indices {
      if members[index].isLinked { consider(members[index].probes.due) }
      switch members[index].state {
      case .down, .joining:
        if let since = members[index].downSince { consider(since + policy.replacedAfter) }
      case .alive, .suspect, .gone: break
      }
    }
    due = earliest
  }
}
