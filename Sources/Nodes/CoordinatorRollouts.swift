import Membership
import RankingCore
import Rollout
import Routing

// Where the rollout desk meets the other rooms of a coordinator: which version a request gets, what the policy sees,
// who should hold what.

/// A coordinator's view of its rollouts, for people.
public struct RolloutView: Sendable {
  public var document: RolloutDocument
  /// nil = the document is not known yet.
  public var revision: UInt64?
  public var drives: Bool
  /// Why the store cannot be reached, or what it holds not be read.
  public var problem: String?
  public struct Progress: Sendable {
    public var model: String
    /// Of the version being rolled out; nil = it is not loaded here.
    public var shards: Int?
    public var workers: [Worker]
    public var figures: [GuardFigure]
    /// Golden answers that were right, and rounds of warming up.
    public var rightAnswers: Int
    public var warmRounds: Int
    public var shadow: ShadowCounts?
  }
  public struct Worker: Sendable {
    public var name: String
    public var isUsable: Bool
    public var ready: Int
    public var loading: Int
    public var failed: Int
    public var failure: String
  }
  /// One per model with a rollout.
  public var progress: [Progress]
}

extension CoordinatorNode {
  /// Above the epochs that drivers without a document take from the clock, so that one which gets a document goes on.
  static let epochBase: UInt64 = 1 << 40

  /// The wall clock in milliseconds, for the history alone; set by the caller from time to time.
  public var wallMilliseconds: Int {
    get { desk?.wallMilliseconds ?? 0 }
    set { desk?.wallMilliseconds = newValue }
  }

  // MARK: Requests

  func requested(_ token: RequestToken, _ request: RankingRequest, deadline: Deadline, now: Instant) {
    guard let desk else {
      return router.requested(token, request, deadline: deadline, now: now, into: &routerEffects)
    }
    let (wish, shadow) = desk.wish(request, model: router.catalog.model(of: request))
    if let shadow { desk.shadows.open(token, request, timeout: deadline - now, shadow, now: now) }
    router.requested(token, request, deadline: deadline, wish: wish, now: now, into: &routerEffects)
  }

  func cancelled(_ token: RequestToken, now: Instant) {
    router.cancelled(token, now: now, into: &routerEffects)
    desk?.shadows.cancelled(token)
  }

  /// Asks what the new version says to requests that have just been answered.
  func askCopies(now: Instant) {
    guard let desk, !desk.copies.isEmpty else { return }
    for copy in desk.copies {
      router.requested(
        copy.token, copy.request, deadline: now + copy.timeout, wish: .exactly(copy.version, replica: nil), now: now,
        into: &routerEffects)
    }
    desk.copies.removeAll()
  }

  /// Counts an answer; says whether it was the cluster's own request, which nobody waits for outside.
  func isOwn(
    _ token: RequestToken, _ outcome: Result<Answer, RankingError>, _ origin: Router.Origin?, now: Instant
  ) -> Bool {
    guard let desk else { return false }
    if RolloutDesk.isRehearsal(token) {
      desk.rehearsed(
        token, outcome, hasNaN: origin?.hasNaN ?? false,
        replicas: { self.router.catalog.entry($0)?.replicas.replicas.map(\.count).max() ?? 1 }, now: now)
      return true
    }
    let end = (outcome: outcome, origin: origin, at: now)
    if !desk.shadows.isEmpty, let copy = desk.shadows.answered(token, end) { desk.copies.append(copy) }
    if token & ShadowPairs.copyBit != 0 { return true }
    desk.count(end)
    return false
  }

  // MARK: What the store and people say

  func agreed(_ revision: UInt64, _ bytes: [UInt8], now: Instant, into effects: inout [CoordinatorEffect]) {
    guard let desk, desk.agreed(revision: revision, bytes: bytes, now: now) else { return }
    router.offer(desk.splits.map { VersionOffer(model: $0.model, versions: $0.versions) })
    drive(now: now, into: &effects)
  }

  func driving(_ epoch: UInt64?, now: Instant) {
    desk?.driving(epoch, now: now)
    driver = epoch.flatMap { epoch in
      settings.placement.map { PlacementDriver(policy: $0, epoch: Self.epochBase + epoch, now: now) }
    }
  }

  func committed(_ end: CommitEnd, now: Instant, into effects: inout [CoordinatorEffect]) {
    guard let news = desk?.committed(end, now: now) else { return }
    if let entry = news.entry { effects.append(.rollout(.decided(entry))) }
    if let reply = news.reply { effects.append(.rollout(.reply(reply.call, reply.1))) }
  }

  func commanded(_ call: CallToken, _ command: RolloutCommand, _ who: String, into effects: inout [CoordinatorEffect]) {
    guard let desk else {
      let error = RolloutError(
        .unavailable, "this coordinator has no agreed document: its configuration names no \"state\"")
      return effects.append(.rollout(.reply(call, .failure(error))))
    }
    if let refusal = desk.command(RolloutDesk.Command(call: call, command: command, who: who)) {
      effects.append(.rollout(.reply(call, .failure(refusal))))
    }
  }

  /// What this coordinator has seen of the versions in the document, for the one that drives.
  public var traffic: TrafficReport { desk?.ownTraffic(router.catalog.inFlight) ?? TrafficReport() }

  // MARK: What is to be done

  /// Loads and forgets versions, proposes the next change, rehearses. Idempotent at one instant.
  func attend(now: Instant, into effects: inout [CoordinatorEffect]) {
    guard let desk else { return }
    let loads = desk.loads(router.catalog.entries.map(\.id), now: now)
    desk.isStirred = false
    for id in loads.load { effects.append(.rollout(.load(id))) }
    for id in loads.forget {
      router.forget(id)
      effects.append(.rollout(.forget(id)))
    }
    guard !isDraining else { return }
    if let looksAt = desk.looksAt, looksAt <= now, desk.hasRollout {
      if !desk.metricNames.isEmpty { effects.append(.rollout(.measure(desk.metricNames))) }
      if settings.coordinators.count > 1 { effects.append(.rollout(.askOthers)) }
    }
    decisions: while true {
      switch desk.next({ self.observed(now: now) }, now: now) {
      case .refused(let call, let error): effects.append(.rollout(.reply(call, .failure(error))))
      case .commit(let order):
        effects.append(.rollout(.commit(order)))
        break decisions
      case .nothing: break decisions
      }
    }
    let turns = desk.rehearse({ self.router.catalog.entry($0)?.release }, now: now)
    for turn in turns {
      var request = turn.request
      request.model = turn.release.model
      router.requested(
        turn.token, request, deadline: now + Self.rehearsalTimeout,
        wish: .exactly(turn.release.version, replica: turn.replica), now: now, into: &routerEffects)
    }
    if !turns.isEmpty { settle(now: now, into: &effects) }
  }

  /// Longer than clients wait: a slow version is turned back by what it costs them, not because it cannot be rehearsed.
  private static let rehearsalTimeout: Duration = .seconds(5)

  var deskDue: Instant? {
    [desk?.looksAt, desk?.rehearsalDue].compactMap(\.self).min()
  }

  /// What should be where, for the placement driver.
  func placed(now: Instant) -> [PlacedRelease] {
    if let desk { return LoadPlan.releases(desk.document, observed(now: now)) }
    return router.catalog.entries.map { entry in
      PlacedRelease(
        id: entry.id, bytesPerShard: Self.bytes(entry.release),
        holders: settings.table.flatMap { $0.count == entry.release.shardCount ? $0 : nil })
    }
  }
  private static func bytes(_ release: Release) -> [UInt64] {
    release.bytesPerShard.isEmpty ? [UInt64](repeating: 0, count: release.shardCount) : release.bytesPerShard
  }

  // MARK: What the policy sees

  func observed(now: Instant) -> Observed {
    var observed = Observed()
    guard let desk else { return observed }
    observed.replicas = settings.placement?.replicas ?? observed.replicas
    observed.table = settings.table
    observed.workers = membership.members.compactMap { worker($0, desk) }
    for state in desk.document.models {
      for version in state.versionsInvolved {
        observed.bundles.append(bundle(ModelVersion(model: state.model, version: version), state, desk))
      }
    }
    let traffic = desk.allTraffic(router.catalog.inFlight, now: now)
    observed.traffic = traffic.traffic
    observed.shadows = traffic.shadows
    observed.metrics = desk.metrics
    return observed
  }

  private func worker(_ member: Member, _ desk: RolloutDesk) -> Observed.Worker? {
    guard let status = member.status, !member.isDuplicate else { return nil }
    return Observed.Worker(
      name: status.name.isEmpty ? member.name : status.name, zone: status.zone,
      isUsable: member.isUsable && !member.isDraining,
      isEligible: member.state != .gone && member.state != .joining && !member.isDraining,
      capacityBytes: status.capacityBytes, heldBytes: status.heldBytes,
      holdings: status.holdings.map { holding in
        let rehearsal = desk.rehearsal(holding.release)
        let meant = router.catalog.entry(holding.release)?.release.fingerprint ?? 0
        let isOther = ReplicaTable.isOther(holding.fingerprint, than: meant)
        return Observed.Holding(
          release: holding.release, ready: isOther ? [] : holding.ready, loading: holding.loading,
          failed: isOther ? holding.failed + holding.ready : holding.failed,
          failure: isOther ? "it holds another bundle of this name" : holding.failure,
          verified: rehearsal.map { Self.check($0) } ?? .pending,
          isWarm: rehearsal?.isWarm ?? false)
      })
  }
  /// What is wrong is said once, of the whole version.
  private static func check(_ rehearser: Rehearser) -> Observed.Check {
    rehearser.check == .passed ? .passed : .pending
  }

  private func bundle(_ id: ModelVersion, _ state: ModelState, _ desk: RolloutDesk) -> Observed.Bundle {
    var bundle = Observed.Bundle(release: id)
    if case .failed(let why, _) = desk.loading[id] { bundle.problem = why }
    if let release = router.catalog.entry(id)?.release {
      bundle.bytesPerShard = Self.bytes(release)
      let serving = ModelVersion(model: state.model, version: state.serving)
      if let other = router.catalog.entry(serving)?.release, other.dimension != release.dimension, id != serving,
        state.rollout?.to == id.version, state.rollout?.settings.allowsOtherDimension == false
      {
        bundle.problem =
          "its vectors have \(release.dimension) numbers, those of \(serving) \(other.dimension): requests that carry "
          + "a vector would fail (\"other_dimension\": true in the settings allows it)"
      }
    }
    switch desk.rehearsal(id)?.check {
    case .passed: bundle.golden = .passed
    case .failed(let why): bundle.golden = .failed(why)
    case .pending, nil: bundle.golden = .pending
    }
    return bundle
  }

  // MARK: For people

  /// Whether it is the version that a model's requests get unless a rollout says otherwise.
  public func isServing(_ id: ModelVersion) -> Bool {
    if let desk { return desk.document[id.model]?.serving == id.version }
    return router.catalog.entries.last { $0.id.model == id.model }?.id == id
  }

  /// nil = there is no agreed document.
  public func rollouts(now: Instant) -> RolloutView? {
    guard let desk else { return nil }
    let observed = observed(now: now)
    let progress = desk.document.models.compactMap { state -> RolloutView.Progress? in
      guard let rollout = state.rollout else { return nil }
      let id = ModelVersion(model: state.model, version: rollout.to)
      let workers = observed.workers.map { worker in
        let holding = worker.holding(id)
        return RolloutView.Worker(
          name: worker.name, isUsable: worker.isUsable, ready: holding?.ready.count ?? 0,
          loading: holding?.loading.count ?? 0, failed: holding?.failed.count ?? 0, failure: holding?.failure ?? "")
      }
      let rehearsal = desk.rehearsal(id)
      return RolloutView.Progress(
        model: state.model, shards: router.catalog.entry(id)?.release.shardCount, workers: workers,
        figures: RolloutPolicy.figures(desk.document, model: state.model, memory: desk.memory),
        rightAnswers: rehearsal?.rightAnswers ?? 0, warmRounds: rehearsal?.rounds ?? 0,
        shadow: observed.shadows.first { $0.rollout == rollout.id }?.counts)
    }
    return RolloutView(
      document: desk.document, revision: desk.revision, drives: desk.drives, problem: desk.problem ?? desk.away,
      progress: progress)
  }
}
