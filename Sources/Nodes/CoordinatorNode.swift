import Membership
import RankingCore
import Routing

// A coordinator as a value: facts in, commands out. The process and the simulator run this same code; they differ only
// in who carries out the effects.
//
//     clients ──requested──►┌─────────────────┐──score/lookup──► workers
//                           │ Router          │
//     workers ──scored────► │   ▲ replicas    │──answer───────► clients
//             ──probed────► │ Membership      │──probe────────► workers
//     time    ──woke──────► └─────────────────┘──wake(at:)────► timer

public enum CoordinatorEvent: Sendable {
  /// A version's user table and shape are loaded; it is published once every shard was ready.
  case loaded(Release)
  case requested(RequestToken, RankingRequest, deadline: Deadline)
  case cancelled(RequestToken)
  case linked(WorkerID)
  case unlinked(WorkerID)
  case probed(WorkerID, token: UInt64, Result<WorkerStatus, CallFailure>)
  case scored(LegID, Result<ScoreReply, CallFailure>)
  case lookedUp(LegID, Result<LookupReply, CallFailure>)
  case woke
}

public enum CoordinatorEffect: Sendable {
  case probe(WorkerID, token: UInt64, timeout: Duration)
  case score(LegID, WorkerID, ScoreRequest, timeout: Duration)
  case lookup(LegID, WorkerID, LookupRequest, timeout: Duration)
  case cancel(LegID, WorkerID)
  case answer(RequestToken, Result<Answer, RankingError>)
  /// Send `.woke` at this instant; replaces an earlier wish.
  case wake(at: Instant)
  case memberChanged(WorkerID, MemberState)
}

public struct CoordinatorNode: Sendable {
  public private(set) var membership: Membership
  public private(set) var router: Router
  private var wakeAt: Instant?
  private var membershipEffects: [Membership.Effect] = []
  private var routerEffects: [Router.Effect] = []

  /// - Parameter workers: names, in the order of their `WorkerID`s.
  public init(
    workers: [String], membership: MembershipPolicy = MembershipPolicy(), routing: RoutingPolicy = RoutingPolicy(),
    seed: UInt64, now: Instant
  ) {
    self.membership = Membership(policy: membership, seed: seed)
    router = Router(policy: routing, seed: StableHash.mix(seed), now: now)
    for name in workers { _ = self.membership.add(name: name, now: now) }
  }

  public var isReady: Bool { router.catalog.isReady }

  public mutating func handle(_ event: CoordinatorEvent, now: Instant, into effects: inout [CoordinatorEffect]) {
    switch event {
    case .loaded(let release): router.catalog.add(release, members: membership.members)
    case .requested(let token, let request, let deadline):
      router.requested(token, request, deadline: deadline, now: now, into: &routerEffects)
    case .cancelled(let token): router.cancelled(token, now: now, into: &routerEffects)
    case .linked(let worker): membership.linked(worker, now: now, into: &membershipEffects)
    case .unlinked(let worker):
      router.connectionLost(worker)
      membership.unlinked(worker, now: now, into: &membershipEffects)
    case .probed(let worker, let token, .success(let status)):
      membership.probeAnswered(worker, token: token, status: status, now: now, into: &membershipEffects)
    case .probed(let worker, let token, .failure):
      membership.probeFailed(worker, token: token, now: now, into: &membershipEffects)
    case .scored(let leg, let result): router.scored(leg, result, now: now, into: &routerEffects)
    case .lookedUp(let leg, let result): router.lookedUp(leg, result, now: now, into: &routerEffects)
    case .woke:
      wakeAt = nil
      membership.tick(now: now, into: &membershipEffects)
      router.tick(now: now, into: &routerEffects)
    }
    settle(into: &effects)
    wish(into: &effects)
  }

  /// Passes on what the rooms decided; what the router learnt of workers goes to membership, whose changes come back as
  /// new replica tables. Ends because membership sends nothing to the router.
  private mutating func settle(into effects: inout [CoordinatorEffect]) {
    for effect in routerEffects {
      switch effect {
      case .score(let leg, let worker, let request, let timeout):
        effects.append(.score(leg, worker, request, timeout: timeout))
      case .lookup(let leg, let worker, let request, let timeout):
        effects.append(.lookup(leg, worker, request, timeout: timeout))
      case .cancel(let leg, let worker): effects.append(.cancel(leg, worker))
      case .answer(let token, let outcome): effects.append(.answer(token, outcome))
      case .heartbeat(let worker, let sentAt):
        membership.trafficAnswered(worker, sentAt: sentAt, into: &membershipEffects)
      case .lacks(let worker, let release): membership.lacks(worker, release: release, into: &membershipEffects)
      }
    }
    routerEffects.removeAll(keepingCapacity: true)
    var isStale = false
    for effect in membershipEffects {
      switch effect {
      case .probe(let worker, let token, let timeout):
        effects.append(.probe(worker, token: token, timeout: timeout))
      case .changed(let worker):
        isStale = true
        effects.append(.memberChanged(worker, membership.members[worker.index].state))
      }
    }
    membershipEffects.removeAll(keepingCapacity: true)
    if isStale { router.catalog.refresh(members: membership.members) }
  }

  private mutating func wish(into effects: inout [CoordinatorEffect]) {
    guard let due = [membership.due, router.due].compactMap({ $0 }).min() else { return }
    if let wakeAt, wakeAt <= due { return }
    wakeAt = due
    effects.append(.wake(at: due))
  }
}
