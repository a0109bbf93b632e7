import Membership
import RankingCore
import Rollout
import Routing

// A coordinator's part in rollouts: it keeps the agreed document, has loaded what the document names, splits its
// traffic accordingly, and, when it drives, compares what is wanted with what it sees and proposes the next step.
//
//     store ──agreed(revision, bytes)──► document ─┬─► offers, splits ──► Router        every coordinator
//           ──driving(epoch) ─────────►            ├─► releases to load and forget
//                                                  │
//     people ──commanded──┐                        ▼
//                         ├──► Decision ──► commit(expecting: revision) ──► store ──► committed | conflict | lost
//     RolloutPolicy.step ─┘                 one at a time                    only the driver steps; anybody may carry
//                                                                            a command in
//
// Nothing is true before the store has taken it: the desk acts on what `agreed` says, never on what it proposed. A
// command that meets a conflict is tried again on the newer document; a step is simply made again.

/// What a coordinator asks the store to take: both parts or neither.
public struct CommitOrder: Sendable, Equatable {
  public var expecting: UInt64
  public var document: [UInt8]
  public var entry: [UInt8]
  /// nil = a person's command, which any coordinator may carry in.
  public var epoch: UInt64?
}

public enum CommitEnd: Sendable, Equatable {
  case committed
  /// Somebody else was first; what the document is now has been told.
  case conflict
  /// Not taken, or not known to be.
  case lost(String)
}

/// An object for the same reason as the node, and because every request looks at it.
final class RolloutDesk {
  struct Command: Sendable {
    var call: CallToken
    var command: RolloutCommand
    var who: String
    var tries = 0
  }
  struct Pending: Sendable {
    var decision: Decision
    var command: Command?
  }
  enum Loading: Sendable, Equatable {
    case asked
    case loaded
    case failed(String, until: Instant)
  }
  /// A version that could not be loaded is tried again after so long.
  static let retryAfter: Duration = .seconds(5)
  static let commandTries = 5
  static let commandsMax = 64

  let initial: [ModelVersion]
  private(set) var document = RolloutDocument()
  private(set) var revision: UInt64?
  private(set) var epoch: UInt64?
  /// Why the store cannot be reached; nil = it can.
  private(set) var away: String?
  /// Why what the store holds is no document; the last good one goes on.
  private(set) var problem: String?
  private(set) var splits: [TrafficSplit] = []
  private(set) var memory = RolloutMemory()
  private(set) var rehearser: [Rehearser] = []
  var shadows = ShadowPairs()
  /// To be asked at once.
  var copies: [ShadowPairs.Copy] = []
  private(set) var traffic: [Observed.Traffic] = []
  private(set) var metrics: [Observed.Metric] = []
  /// What other coordinators have seen, as of when.
  private(set) var others: [(peer: String, report: TrafficReport, at: Instant)] = []
  private(set) var loading: [ModelVersion: Loading] = [:]
  private(set) var pending: Pending?
  private var commands: [Command] = []
  private(set) var due: Instant
  /// Something happened that may ask for loads, commits or rehearsals.
  var isStirred = true
  /// In the names of the rehearsals' requests.
  static let rehearsalBits: RequestToken = 3 << 62
  private var lastRehearsal: RequestToken = 0
  /// The wall clock in milliseconds, for the history alone.
  var wallMilliseconds = 0

  init(initial: [ModelVersion], now: Instant) {
    self.initial = initial
    due = now
  }

  /// When it looks for the next step; nil = not before something happens: while a change is on its way to the store,
  /// there is nothing to decide.
  var looksAt: Instant? { drives && pending == nil ? due : nil }
  var drives: Bool { epoch != nil && away == nil && revision != nil }

  // MARK: What the store says

  /// - Returns: whether the document changed.
  func agreed(revision: UInt64, bytes: [UInt8], now: Instant) -> Bool {
    guard revision >= self.revision ?? 0 else { return false }
    stir(now)
    var fresh = RolloutDocument()
    if !bytes.isEmpty {
      do {
        fresh = try RolloutDocument(json: bytes)
      } catch {
        // Not acted upon, and not overwritten: without a revision nothing is committed.
        problem = "the agreed document (revision \(revision)) cannot be read: \(error)"
        return false
      }
    }
    problem = nil
    let isFirst = self.revision == nil
    self.revision = revision
    guard fresh != document || isFirst else { return false }
    document = fresh
    splits = fresh.models.map(TrafficSplit.init)
    let rollouts = fresh.models.compactMap(\.rollout)
    shadows.keep(rollouts.map(\.id))
    let involved = involved
    traffic.removeAll { !involved.contains($0.release) }
    for release in involved where !traffic.contains(where: { $0.release == release }) {
      traffic.append(Observed.Traffic(release: release))
    }
    rehearser.removeAll { rehearser in
      !fresh.models.contains { $0.model == rehearser.release.model && $0.rollout?.to == rehearser.release.version }
    }
    return true
  }

  func driving(_ epoch: UInt64?, now: Instant) {
    guard epoch != self.epoch else { return }
    self.epoch = epoch
    // A new driver sees every stage as just begun.
    memory = RolloutMemory()
    rehearser = []
    others = []
    stir(now)
  }
  func reached(_ why: String?, now: Instant) {
    away = why
    stir(now)
  }

  /// Something that the policy looks at changed.
  func look(now: Instant) { if hasRollout { stir(now) } }
  private func stir(_ now: Instant) {
    due = now
    isStirred = true
  }

  // MARK: Which version

  func wish(_ request: RankingRequest, model: String?) -> (VersionWish, shadow: ShadowPairs.Versions?) {
    guard request.version == nil, let model, let split = splits.first(where: { $0.model == model }) else {
      return (.serving, nil)
    }
    let choice = split.choice(for: request)
    if choice > 0 { return (.preferred(split.versions[choice]), nil) }
    guard let shadowed = split.shadowed, split.isShadowed(request.requestID) else { return (.serving, nil) }
    return (.serving, (split.rollout, ModelVersion(model: model, version: split.versions[0]), split.versions[shadowed]))
  }

  func count(_ end: ShadowPairs.End) {
    guard let origin = end.origin, let outcome = TrafficCounts.Outcome(end, origin) else { return }
    for index in traffic.indices where traffic[index].release == origin.release {
      traffic[index].counts.record(outcome)
    }
  }
  /// A coordinator that says nothing for so long has nothing in flight any more, or cannot be asked.
  static let othersFresh: Duration = .seconds(5)
  func told(_ peer: String, _ report: TrafficReport, now: Instant) {
    others.removeAll { $0.peer == peer }
    others.append((peer, report, now))
  }
  /// What all coordinators have seen; `inFlight` says what this one has in flight. One that is behind, because it does
  /// not reach the store, counts as having a request in flight on everything: what it goes by must not be unloaded.
  func allTraffic(_ inFlight: (ModelVersion) -> Int, now: Instant) -> TrafficReport {
    var sum = ownTraffic(inFlight)
    for other in others {
      let isFresh = now - other.at < Self.othersFresh
      for part in other.report.traffic {
        guard let index = sum.traffic.firstIndex(where: { $0.release == part.release }) else { continue }
        sum.traffic[index].counts += part.counts
        if isFresh { sum.traffic[index].inFlight += part.inFlight }
      }
      if isFresh, other.report.revision < revision ?? 0 {
        for index in sum.traffic.indices { sum.traffic[index].inFlight += 1 }
      }
      for part in other.report.shadows {
        if let index = sum.shadows.firstIndex(where: { $0.rollout == part.rollout }) {
          sum.shadows[index].counts += part.counts
        } else {
          sum.shadows.append(part)
        }
      }
    }
    return sum
  }
  func ownTraffic(_ inFlight: (ModelVersion) -> Int) -> TrafficReport {
    TrafficReport(
      revision: revision ?? 0,
      traffic: traffic.map { part in
        var part = part
        part.inFlight = inFlight(part.release)
        return part
      }, shadows: shadows.counts.map { Observed.Shadow(rollout: $0.rollout, counts: $0.counts) })
  }
  var hasRollout: Bool { document.models.contains { $0.rollout != nil } }
  func measured(_ metrics: [Observed.Metric]) { self.metrics = metrics }

  // MARK: What is loaded

  private var involved: [ModelVersion] {
    document.models.flatMap { state in
      state.versionsInvolved.map { ModelVersion(model: state.model, version: $0) }
    }
  }

  /// Versions that should be loaded here and are not, and those that no longer need be.
  func loads(_ loaded: [ModelVersion], now: Instant) -> (load: [ModelVersion], forget: [ModelVersion]) {
    let wanted = involved
    var load: [ModelVersion] = []
    for id in wanted {
      switch loading[id] {
      case .asked, .loaded: continue
      case .failed(_, let until) where now < until: continue
      case nil, .failed:
        loading[id] = .asked
        load.append(id)
      }
    }
    let forget = loaded.filter { !wanted.contains($0) }
    for id in loading.keys.sorted() where !wanted.contains(id) { loading[id] = nil }
    return (load, forget)
  }
  func loaded(_ id: ModelVersion, now: Instant) {
    if loading[id] != nil { loading[id] = .loaded }
    stir(now)
  }
  func failed(_ id: ModelVersion, _ why: String, now: Instant) {
    if loading[id] != nil { loading[id] = .failed(why, until: now + Self.retryAfter) }
    stir(now)
  }

  // MARK: Decisions

  /// - Returns: a refusal; nil = it is taken in.
  func command(_ command: Command) -> RolloutError? {
    guard revision != nil else {
      return RolloutError(.unavailable, problem ?? "the agreed document is not known yet; try again shortly")
    }
    guard commands.count < Self.commandsMax else {
      return RolloutError(.unavailable, "\(commands.count) commands wait already; try again shortly")
    }
    commands.append(command)
    isStirred = true
    return nil
  }

  enum Next { case commit(CommitOrder), refused(CallToken, RolloutError), nothing }

  /// The next change to propose. One at a time: while one is open there is nothing.
  func next(_ observed: () -> Observed, now: Instant) -> Next {
    guard pending == nil, let revision else { return .nothing }
    if !commands.isEmpty {
      let command = commands.removeFirst()
      if let away { return .refused(command.call, Self.unreachable(away)) }
      switch document.applying(command.command, who: command.who, atMilliseconds: wallMilliseconds) {
      case .failure(let error): return .refused(command.call, error)
      case .success(let decision): return propose(decision, command, at: revision, epoch: nil)
      }
    }
    guard drives, now >= due else { return .nothing }
    due = now + RolloutPolicy.interval
    if let first = initial.first(where: { document[$0.model] == nil }) {
      let adopt = RolloutCommand.adopt(model: first.model, version: first.version)
      if case .success(let decision) = document.applying(
        adopt, who: "configuration", atMilliseconds: wallMilliseconds)
      {
        return propose(decision, nil, at: revision, epoch: epoch)
      }
    }
    guard
      let decision = RolloutPolicy.step(
        document, observed(), memory: &memory, now: now, atMilliseconds: wallMilliseconds)
    else { return .nothing }
    return propose(decision, nil, at: revision, epoch: epoch)
  }

  private static func unreachable(_ why: String) -> RolloutError {
    RolloutError(.unavailable, "the store of the agreed document cannot be reached, nothing can be changed: \(why)")
  }

  private func propose(
    _ decision: Decision, _ command: Command?, at revision: UInt64, epoch: UInt64?
  ) -> Next {
    pending = Pending(decision: decision, command: command)
    return .commit(
      CommitOrder(
        expecting: revision, document: decision.document.json, entry: decision.entry.json, epoch: epoch))
  }

  /// - Returns: what a command gets for an answer, and the line of history that is in now.
  func committed(
    _ end: CommitEnd, now: Instant
  ) -> (reply: (call: CallToken, Result<HistoryEntry, RolloutError>)?, entry: HistoryEntry?) {
    guard let ended = pending else { return (nil, nil) }
    pending = nil
    stir(now)
    switch end {
    case .committed:
      return (ended.command.map { ($0.call, .success(ended.decision.entry)) }, ended.decision.entry)
    case .conflict:
      guard var command = ended.command else { return (nil, nil) }
      command.tries += 1
      guard command.tries < Self.commandTries else {
        let error = RolloutError(.conflict, "others change the document all the time; look and try again")
        return ((command.call, .failure(error)), nil)
      }
      commands.insert(command, at: 0)
      return (nil, nil)
    case .lost(let why):
      // A driver that cannot commit tries again, but not in a circle.
      due = now + RolloutPolicy.interval
      guard let command = ended.command else { return (nil, nil) }
      return ((command.call, .failure(RolloutError(.unavailable, "not committed: \(why)"))), nil)
    }
  }

  // MARK: Rehearsals

  struct Turn {
    var token: RequestToken
    var release: ModelVersion
    var request: RankingRequest
    var replica: Int
  }
  static func isRehearsal(_ token: RequestToken) -> Bool { token & rehearsalBits == rehearsalBits }

  /// Makes a rehearsal for every version that is being verified or warmed up, and says what to ask next.
  func rehearse(_ release: (ModelVersion) -> Release?, now: Instant) -> [Turn] {
    guard drives else { return [] }
    var turns: [Turn] = []
    for state in document.models {
      guard let rollout = state.rollout, rollout.stage == .verify || rollout.stage == .warm else { continue }
      let id = ModelVersion(model: state.model, version: rollout.to)
      if !rehearser.contains(where: { $0.release == id }), let release = release(id) {
        rehearser.append(Rehearser(release, now: now))
      }
      let token = (lastRehearsal + 1) | Self.rehearsalBits
      guard let index = rehearser.firstIndex(where: { $0.release == id }),
        let turn = rehearser[index].ask(as: token, mayWarm: rollout.stage == .warm, now: now)
      else { continue }
      lastRehearsal = token
      turns.append(Turn(token: token, release: id, request: turn.request, replica: turn.replica))
    }
    return turns
  }
  /// When a rehearsal wants to ask again.
  var rehearsalDue: Instant? {
    guard drives else { return nil }
    let waiting = rehearser.filter { rehearser in
      guard let rollout = document[rehearser.release.model]?.rollout, rollout.to == rehearser.release.version else {
        return false
      }
      switch rollout.stage {
      case .verify: return rehearser.asked == nil && !rehearser.isDone(mayWarm: false)
      case .warm: return rehearser.asked == nil && !rehearser.isDone(mayWarm: true)
      default: return false
      }
    }
    return waiting.map(\.notBefore).min()
  }
  func rehearsed(
    _ token: RequestToken, _ outcome: Result<Answer, RankingError>, hasNaN: Bool, replicas: (ModelVersion) -> Int,
    now: Instant
  ) {
    guard let index = rehearser.firstIndex(where: { $0.asked == token }) else { return }
    let before = rehearser[index]
    rehearser[index].answered(outcome, hasNaN: hasNaN, replicas: replicas(before.release), now: now)
    isStirred = true
    if rehearser[index].check != before.check || rehearser[index].isWarm != before.isWarm { stir(now) }
  }
  func rehearsal(_ id: ModelVersion) -> Rehearser? { rehearser.first { $0.release == id } }

  var metricNames: [String] {
    document.models.flatMap { $0.rollout?.settings.metrics.map(\.name) ?? [] }
  }
}

extension ModelState {
  /// Everything that requests may still be on, the serving version first.
  var versionsInvolved: [String] {
    var versions = published
    for version in [rollout?.from, rollout?.to].compactMap(\.self) where !versions.contains(version) {
      versions.append(version)
    }
    return versions
  }
}
