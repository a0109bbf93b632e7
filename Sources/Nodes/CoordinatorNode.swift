import Membership
import RankingCore
import Rollout
import Routing

// A coordinator's decisions: facts in, commands out. The process and the simulator run this same code; they differ only
// in who carries out the effects.
//
//     clients ──requested──►┌─────────────────┐──score/lookup──► workers
//                           │ Router          │
//     workers ──scored────► │   ▲ replicas    │──answer───────► clients
//             ──probed────► │ Membership      │──probe────────► workers
//             ──joined────► │   │ members     │──connect──────► workers
//     time    ──woke──────► │   ▼             │──load/unload──► workers
//                           │ PlacementDriver │──wake(at:)────► timer
//     store   ──agreed────► │   ▲ who holds   │
//     people  ──commanded─► │ RolloutDesk     │──commit───────► store
//                           └─────────────────┘
//
// What it does about rollouts is in CoordinatorRollouts.swift.
//
// It is an object because its requests in flight are: there is one per coordinator, and nobody copies it.

public enum CoordinatorEvent: Sendable {
  /// A version's user table and shape are loaded; it is published once every shard was ready.
  case loaded(Release)
  case requested(RequestToken, RankingRequest, deadline: Deadline)
  case cancelled(RequestToken)
  /// The configuration names a worker.
  case configured(name: String, address: String)
  case joinRequested(CallToken, JoinRequest)
  case leaveRequested(CallToken, LeaveRequest)
  /// A DNS name stands for these addresses now.
  case resolved(source: String, addresses: [String])
  case linked(WorkerID)
  /// The connection ended, or could not be made. Told before the calls that were on it fail.
  case unlinked(WorkerID)
  /// The worker takes no further calls on this connection (GOAWAY); the open ones go on.
  case closing(WorkerID)
  case probed(WorkerID, token: UInt64, Result<WorkerStatus, CallFailure>)
  case scored(LegID, Result<ScoreReply, CallFailure>)
  case lookedUp(LegID, Result<LookupReply, CallFailure>)
  /// The worker took an order, or did not.
  case ordered(WorkerID, CallFailure?)
  /// The agreed document as of this revision; no bytes = nothing was ever agreed.
  case agreed(revision: UInt64, document: [UInt8])
  /// Whether this coordinator drives, as the store says; larger epochs are later drivers.
  case driving(epoch: UInt64?)
  /// Why the store cannot be reached; nil = it can be again.
  case storeAway(String?)
  case committed(CommitEnd)
  /// A version could not be loaded here.
  case releaseFailed(ModelVersion, why: String)
  case commanded(CallToken, RolloutCommand, who: String)
  /// What another coordinator has seen.
  case told(peer: String, TrafficReport)
  /// What `measure` asked for, as far as there is such a metric.
  case measured([Observed.Metric])
  case draining
  case woke
}

public enum CoordinatorEffect: Sendable {
  case probe(WorkerID, token: UInt64, timeout: Duration)
  case score(LegID, WorkerID, ScoreRequest, timeout: Duration)
  case lookup(LegID, WorkerID, LookupRequest, timeout: Duration)
  case cancel(LegID, WorkerID)
  case answer(RequestToken, Result<Answer, RankingError>)
  /// Of the request whose answer follows.
  case trace(RequestTrace)
  case connect(WorkerID, address: String)
  case disconnect(WorkerID)
  case replyJoin(CallToken, Result<JoinReply, CallFailure>)
  case replyLeave(CallToken, LeaveReply)
  case load(WorkerID, ShardOrder)
  case unload(WorkerID, ShardOrder)
  case rollout(RolloutEffect)
  /// Send `.woke` at this instant; replaces an earlier wish.
  case wake(at: Instant)
  case memberChanged(WorkerID, MemberState)
}

public enum RolloutEffect: Sendable {
  /// Tell `.committed` of it, once.
  case commit(CommitOrder)
  /// Read its user table and shape, and tell `.loaded` or `.releaseFailed`.
  case load(ModelVersion)
  case forget(ModelVersion)
  case reply(CallToken, Result<HistoryEntry, RolloutError>)
  /// A change that this coordinator brought in.
  case decided(HistoryEntry)
  /// Ask the other coordinators for their `traffic`, and tell `.told` of each that answers.
  case askOthers
  /// Tell `.measured` at once.
  case measure([String])
}

/// What a coordinator is told once.
public struct CoordinatorSettings: Sendable {
  public var membership = MembershipPolicy()
  public var routing = RoutingPolicy()
  /// `nil` = this coordinator only routes; workers hold what their own configuration or another driver says.
  public var placement: PlacementPolicy?
  /// Per shard the names of the workers that hold it; `nil` = by hashing.
  public var table: [[String]]?
  /// Larger than any earlier driver's; used only by one that drives without a document.
  public var epoch: UInt64 = 0
  /// Whether the versions to serve, and who drives, come from an agreed document.
  public var hasDocument = false
  /// The versions that the document begins with, where it knows nothing of their models.
  public var initial: [ModelVersion] = []
  /// What a join is told: where all coordinators take joins.
  public var coordinators: [String] = []
  public init() {}
}

public final class CoordinatorNode {
  public internal(set) var membership: Membership
  public internal(set) var router: Router
  public internal(set) var driver: PlacementDriver?
  public private(set) var isDraining = false
  let settings: CoordinatorSettings
  let desk: RolloutDesk?
  private var wakeAt: Instant?
  private var membershipEffects: [Membership.Effect] = []
  var routerEffects: [Router.Effect] = []

  /// - Parameter workers: names, in the order of their `WorkerID`s; for them the caller keeps the addresses.
  public init(workers: [String] = [], settings: CoordinatorSettings = CoordinatorSettings(), seed: UInt64, now: Instant)
  {
    membership = Membership(policy: settings.membership, seed: seed)
    router = Router(policy: settings.routing, seed: StableHash.mix(seed), now: now)
    self.settings = settings
    desk = settings.hasDocument ? RolloutDesk(initial: settings.initial, now: now) : nil
    if settings.hasDocument {
      router.offer([])
    } else {
      driver = settings.placement.map { PlacementDriver(policy: $0, epoch: settings.epoch, now: now) }
    }
    for name in workers { _ = membership.add(name: name, now: now) }
    router.refresh(members: membership.members, now: now)
  }

  /// Whether every model has a version that could be answered from, and this coordinator stays.
  /// Requests that take so long are traced, and those that fail or miss shards; nil = none is.
  public var tracesFrom: Duration? {
    get { router.tracesFrom }
    set { router.tracesFrom = newValue }
  }
  public var isReady: Bool { router.catalog.isReady && !isDraining }

  public func handle(_ event: CoordinatorEvent, now: Instant, into effects: inout [CoordinatorEffect]) {
    switch event {
    case .loaded(let release):
      router.add(release, members: membership.members, now: now)
      desk?.loaded(release.id, now: now)
    case .requested(let token, let request, let deadline):
      requested(token, request, deadline: deadline, now: now)
    case .cancelled(let token): cancelled(token, now: now)
    case .configured(let name, let address):
      _ = membership.configured(name: name, address: address, now: now, into: &membershipEffects)
      router.refresh(members: membership.members, now: now)
    case .joinRequested(let call, let request):
      switch membership.joined(request, now: now, into: &membershipEffects) {
      case .accepted: effects.append(.replyJoin(call, .success(JoinReply(coordinators: settings.coordinators))))
      case .refused(let reason): effects.append(.replyJoin(call, .failure(.workerError(reason))))
      }
    case .leaveRequested(let call, let request):
      let workers = membership.leaving(request, into: &membershipEffects)
      settle(now: now, into: &effects)
      effects.append(.replyLeave(call, LeaveReply(mayGo: workers.allSatisfy(mayGo))))
    case .resolved(let source, let addresses):
      membership.resolved(source: source, addresses: addresses, now: now, into: &membershipEffects)
    case .linked(let worker): membership.linked(worker, now: now, into: &membershipEffects)
    case .unlinked(let worker):
      router.connectionLost(worker, now: now)
      membership.unlinked(worker, now: now, into: &membershipEffects)
    case .closing(let worker): membership.unlinked(worker, now: now, into: &membershipEffects)
    case .probed(let worker, let token, .success(let status)):
      membership.probeAnswered(worker, token: token, status: status, now: now, into: &membershipEffects)
      router.reported(worker, admits: status.admits)
    case .probed(let worker, let token, .failure):
      membership.probeFailed(worker, token: token, now: now, into: &membershipEffects)
    case .scored(let leg, let result): router.scored(leg, result, now: now, into: &routerEffects)
    case .lookedUp(let leg, let result): router.lookedUp(leg, result, now: now, into: &routerEffects)
    case .ordered(_, let failure): if failure == .stale { driver?.refused() }
    case .agreed(let revision, let document): agreed(revision, document, now: now, into: &effects)
    case .driving(let epoch): driving(epoch, now: now)
    case .storeAway(let why): desk?.reached(why, now: now)
    case .committed(let end): committed(end, now: now, into: &effects)
    case .releaseFailed(let release, let why): desk?.failed(release, why, now: now)
    case .commanded(let call, let command, let who): commanded(call, command, who, into: &effects)
    case .told(let peer, let report): desk?.told(peer, report, now: now)
    case .measured(let metrics): desk?.measured(metrics)
    case .draining: isDraining = true
    case .woke:
      wakeAt = nil
      membership.tick(now: now, into: &membershipEffects)
      router.tick(now: now, into: &routerEffects)
      if let driver, driver.due <= now { drive(now: now, into: &effects) }
    }
    settle(now: now, into: &effects)
    if let desk, desk.isStirred || wakeAt == nil { attend(now: now, into: &effects) }
    wish(into: &effects)
  }

  /// Carries news between the rooms until there is none, and the rest outside.
  func settle(now: Instant, into effects: inout [CoordinatorEffect]) {
    repeat {
      for effect in routerEffects {
        switch effect {
        case .score(let leg, let worker, let request, let timeout):
          effects.append(.score(leg, worker, request, timeout: timeout))
        case .lookup(let leg, let worker, let request, let timeout):
          effects.append(.lookup(leg, worker, request, timeout: timeout))
        case .cancel(let leg, let worker): effects.append(.cancel(leg, worker))
        case .answer(let token, let outcome, let origin):
          if isOwn(token, outcome, origin, now: now) { continue }
          effects.append(.answer(token, outcome))
        case .trace(let trace): effects.append(.trace(trace))
        case .heartbeat(let worker, let sentAt):
          membership.trafficAnswered(worker, sentAt: sentAt, now: now, into: &membershipEffects)
        case .lacks(let worker, let release, let shards):
          if membership.lacks(worker, release: release, shards: shards) { membershipEffects.append(.changed(worker)) }
        }
      }
      routerEffects.removeAll(keepingCapacity: true)
      askCopies(now: now)
    } while !routerEffects.isEmpty
    guard !membershipEffects.isEmpty else { return }
    var isStale = false
    for effect in membershipEffects {
      switch effect {
      case .probe(let worker, let token, let timeout):
        effects.append(.probe(worker, token: token, timeout: timeout))
      case .changed(let worker):
        isStale = true
        effects.append(.memberChanged(worker, membership.members[worker.index].state))
      case .connect(let worker, let address): effects.append(.connect(worker, address: address))
      case .disconnect(let worker):
        isStale = true
        effects.append(.disconnect(worker))
      case .renewed(let worker): router.renewed(worker, now: now)
      }
    }
    membershipEffects.removeAll(keepingCapacity: true)
    if isStale {
      router.refresh(members: membership.members, now: now)
      drive(now: now, into: &effects)
      desk?.look(now: now)
    }
  }

  func drive(now: Instant, into effects: inout [CoordinatorEffect]) {
    guard driver != nil, !isDraining else { return }
    let releases = placed(now: now)
    let orders = driver?.tick(members: membership.members, releases: releases, now: now) ?? []
    for order in orders {
      switch order {
      case .load(let worker, let order): effects.append(.load(worker, order))
      case .unload(let worker, let order):
        _ = membership.lacks(worker, release: order.release, shards: order.shards)
        router.refresh(members: membership.members, now: now)
        effects.append(.unload(worker, order))
      }
    }
  }

  /// Whether every shard has a ready replica that stays. One that is leaving stands in a replica table only where there
  /// is none: two that leave together would else each count on the other.
  private func mayGo(_ worker: WorkerID) -> Bool {
    router.catalog.entries.allSatisfy { entry in
      !entry.isPublished || entry.replicas.replicas.allSatisfy { !$0.contains(worker) }
    }
  }

  private func wish(into effects: inout [CoordinatorEffect]) {
    var due = membership.due
    for other in [router.due, isDraining ? nil : driver?.due, isDraining ? nil : deskDue] {
      if let other { due = due.map { min($0, other) } ?? other }
    }
    guard let due else { return }
    if let wakeAt, wakeAt <= due { return }
    wakeAt = due
    effects.append(.wake(at: due))
  }
}
