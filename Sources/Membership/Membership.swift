import RankingCore

// Who is alive and what each one serves, as one coordinator sees it.
//
// Health is decided by several signals and acted on by the strongest:
//
//     link lost ───────────────────────────────────────────────┐ at once
//     probe unanswered ──► miss 1 ─► miss 2 ─► miss 3 ─────────┤
//                          (alive)   (suspect … still used)    ▼
//     joining ──2 successes──► alive ◄──2 successes──────── down
//     traffic answered ──► misses forgotten, if it was sent after the last of them
//
// A worker that is frozen keeps its connection and accepts bytes, so only an answer proves life; a worker that died
// gives an EOF within a millisecond, so nobody waits for a probe to learn it.
//
// Worked example, a freeze right after an answer at 0 ms: probe at 300, unanswered at 600 (miss 1; the next goes out at
// once and then every 100 ms), 900 (miss 2), 1000 (miss 3): down, within the 1.2 s that the policy allows.
//
// Deliberately absent: I/O, clocks, any agreement between coordinators. Routing uses only what workers say they hold.

public enum MemberState: String, Sendable, CaseIterable {
  /// Never answered yet.
  case joining
  case alive
  /// Missed a probe or two: still used, watched closely.
  case suspect
  case down
}

public struct Member: Sendable {
  public let id: WorkerID
  public let name: String
  public internal(set) var state: MemberState = .joining
  /// Whether the transport has a live connection.
  public internal(set) var isLinked = false
  /// The last snapshot it sent; kept while down for people to read, never for routing.
  public internal(set) var status: WorkerStatus?
  var misses = 0
  var successes = 0
  var lastMiss = Instant(nanoseconds: 0)
  var probes: ProbeSchedule

  /// Whether routing may use it at all.
  public var isUsable: Bool {
    guard isLinked, state == .alive || state == .suspect, let status else { return false }
    return !status.draining
  }
}

public struct Membership: Sendable {
  public enum Effect: Sendable, Equatable {
    case probe(WorkerID, token: UInt64, timeout: Duration)
    /// A member became usable or stopped being so, or holds something else now: routing tables must be made anew.
    case changed(WorkerID)
  }

  public let policy: MembershipPolicy
  public private(set) var members: [Member] = []
  private var generator: SeededGenerator
  private var lastToken: UInt64 = 0

  public init(policy: MembershipPolicy = MembershipPolicy(), seed: UInt64) {
    self.policy = policy
    generator = SeededGenerator(seed: seed)
  }

  /// Adds a worker by name; it is `joining` until it has answered.
  public mutating func add(name: String, now: Instant) -> WorkerID {
    let id = WorkerID(members.count)
    members.append(Member(id: id, name: name, probes: ProbeSchedule(next: now)))
    return id
  }

  /// The earliest instant at which `tick` has something to do.
  public var due: Instant? {
    members.lazy.filter(\.isLinked).map(\.probes.due).min()
  }

  // MARK: Facts

  public mutating func linked(_ id: WorkerID, now: Instant, into effects: inout [Effect]) {
    members[id.index].isLinked = true
    members[id.index].misses = 0
    members[id.index].successes = 0
    members[id.index].probes = ProbeSchedule(next: now)
    tick(now: now, into: &effects)
  }

  /// The connection ended or could not be made: acted on at once.
  public mutating func unlinked(_ id: WorkerID, now: Instant, into effects: inout [Effect]) {
    members[id.index].isLinked = false
    members[id.index].probes = ProbeSchedule(next: now)
    setState(id, members[id.index].state == .joining ? .joining : .down, into: &effects)
  }

  public mutating func probeAnswered(
    _ id: WorkerID, token: UInt64, status: WorkerStatus, now: Instant, into effects: inout [Effect]
  ) {
    // An answer to a probe that already counted as missed is late news of a past life: dropped.
    guard members[id.index].probes.close(token) != nil else { return }
    let wasUsable = members[id.index].isUsable
    let before = members[id.index].status
    members[id.index].misses = 0
    members[id.index].successes += 1
    var accepted = status
    if status.oldestJob > policy.oldestJobMax {
      for index in accepted.holdings.indices { accepted.holdings[index].ready = [] }
    }
    members[id.index].status = accepted
    switch members[id.index].state {
    case .suspect: setState(id, .alive, into: &effects)
    case .joining, .down:
      if members[id.index].successes >= policy.successesToUp {
        setState(id, .alive, into: &effects)
      } else {
        // Still changing: the next question follows soon, not after the leisurely interval of a member that is down.
        let soon = now + policy.probeIntervalChanging
        members[id.index].probes.next = min(members[id.index].probes.next, soon)
      }
    case .alive: break
    }
    if wasUsable != members[id.index].isUsable || before?.holdings != accepted.holdings {
      effects.append(.changed(id))
    }
  }

  /// The probe came back as an error: a miss like a silent one. (A lost connection is told by `unlinked`.)
  public mutating func probeFailed(_ id: WorkerID, token: UInt64, now: Instant, into effects: inout [Effect]) {
    guard members[id.index].probes.close(token) != nil else { return }
    missed(id, count: 1, now: now, into: &effects)
    tick(now: now, into: &effects)
  }

  /// A reply of real traffic proves life, but only to a request sent after the last miss: older ones may have been
  /// answered before the freeze.
  public mutating func trafficAnswered(_ id: WorkerID, sentAt: Instant, into effects: inout [Effect]) {
    guard members[id.index].misses > 0, sentAt > members[id.index].lastMiss else { return }
    members[id.index].misses = 0
    if members[id.index].state == .suspect { setState(id, .alive, into: &effects) }
  }

  /// The worker said that it does not hold this version: believed until its next snapshot.
  public mutating func lacks(_ id: WorkerID, release: ModelVersion, into effects: inout [Effect]) {
    guard
      let index = members[id.index].status?.holdings.firstIndex(where: { $0.release == release }),
      members[id.index].status?.holdings[index].ready.isEmpty == false
    else { return }
    members[id.index].status?.holdings[index].ready = []
    effects.append(.changed(id))
  }

  // MARK: Time

  /// Sends the probes that are due and counts the ones that ran out of time. Idempotent at one instant.
  public mutating func tick(now: Instant, into effects: inout [Effect]) {
    for index in members.indices where members[index].isLinked {
      let id = members[index].id
      let expired = members[index].probes.expire(now)
      if expired > 0 { missed(id, count: expired, now: now, into: &effects) }
      guard members[index].probes.next <= now else { continue }
      lastToken += 1
      members[index].probes.outstanding.append(
        ProbeSchedule.Outstanding(token: lastToken, sentAt: now, expires: now + policy.probeTimeout))
      members[index].probes.next = now + interval(members[index])
      effects.append(.probe(id, token: lastToken, timeout: policy.probeTimeout))
    }
  }

  private mutating func missed(_ id: WorkerID, count: Int, now: Instant, into effects: inout [Effect]) {
    let first = members[id.index].misses == 0
    members[id.index].misses += count
    members[id.index].successes = 0
    members[id.index].lastMiss = now
    if first { members[id.index].probes.next = now }
    switch members[id.index].state {
    case .alive, .suspect:
      setState(id, members[id.index].misses >= policy.missesToDown ? .down : .suspect, into: &effects)
    case .joining, .down: break
    }
  }

  private mutating func interval(_ member: Member) -> Duration {
    let base =
      switch member.state {
      case .alive: policy.probeInterval
      case .suspect, .joining: policy.probeIntervalChanging
      case .down: member.successes > 0 ? policy.probeIntervalChanging : policy.probeIntervalDown
      }
    let spread = 1 + policy.probeJitter * (2 * generator.unit() - 1)
    return .nanoseconds(Int64(Double(base.nanoseconds) * spread))
  }

  private mutating func setState(_ id: WorkerID, _ state: MemberState, into effects: inout [Effect]) {
    let before = members[id.index].state
    members[id.index].state = state
    if before != state { effects.append(.changed(id)) }
  }
}
