import RankingCore

// Who drives, as one coordinator sees it: a value, told facts, that says what to do. Every coordinator holds a lease of
// its own; who drives is whose lease is on the driver key.
//
//     linkUp ─► grant ─► granted ─► keepAlive every 500 ms …   nobody's key ─► acquire ─► our key ─► driving(epoch)
//
//     sent        t                  t + 500 ms                            t + 2 s − 200 ms        ≥ t + 2 s
//     us          keepAlive ──┐      keepAlive ──✗ (cut off)               notDriving
//     etcd                    └─► lives for 2 s from here, at least until t + 2 s ──────────────► key deleted
//     the others                                                                                  acquire
//
// A lease is believed in until 2 s after the request that was *answered* was sent, less a margin: etcd counts from when
// it got it, which was later. So the one that was cut off stops before anybody else can start, whatever the network
// does, as long as both clocks tick alike. The epoch is the revision at which the driver key was created, and revisions
// only grow. A coordinator that comes back within the lifetime of its lease and finds its key still there goes on with
// its epoch: nobody can have driven in between.

/// The driver key as of some revision.
struct DriverKey: Equatable {
  var lease: UInt64
  var createRevision: UInt64
  /// Who put it there, for people.
  var name: String
}

struct LeaseKeeper {
  struct Policy {
    /// etcd grants no less with its default election timeout.
    var ttl: Duration = .seconds(2)
    var keepAliveInterval: Duration = .milliseconds(500)
    /// Belief ends so much before the lease does: what a loop may be late by.
    var margin: Duration = .milliseconds(200)
    /// Between attempts that failed although the link is up.
    var retryInterval: Duration = .milliseconds(200)
  }

  enum Fact: Equatable {
    /// Calls can be made, and the driver key has been read.
    case linkUp
    case linkDown
    case granted(lease: UInt64, ttl: Duration, sentAt: Instant)
    case grantFailed
    /// - Parameter ttl: zero = the lease is gone.
    case keptAlive(lease: UInt64, ttl: Duration, sentAt: Instant)
    /// The driver key as of a revision, read or watched; what is older than the last is dropped.
    case driverSeen(DriverKey?, revision: UInt64)
    case acquireFailed
    /// etcd does not know the lease.
    case leaseGone
    case timePassed
    /// The owner ends in good order.
    case stopped
  }

  enum Effect: Equatable {
    case grant
    case keepAlive(lease: UInt64)
    /// Put the driver key, if it is not there.
    case acquire(lease: UInt64)
    case revoke(lease: UInt64)
    case driving(epoch: UInt64)
    case notDriving(driver: String?)
  }

  private struct Lease {
    var id: UInt64
    /// Believed in until then.
    var until: Instant
    var keepAliveAt: Instant
  }
  private enum Holding {
    case none(grantAt: Instant)
    case granting
    case held(Lease)
  }

  private let policy: Policy
  private let wantsToDrive: Bool
  private var isUp = false
  private var isStopped = false
  private var holding: Holding
  /// nil = never read.
  private var driver: (key: DriverKey?, revision: UInt64)?
  private var isAcquiring = false
  private var acquireAt: Instant
  /// What was told last; nil = nothing.
  private var told: Effect?

  init(policy: Policy = Policy(), wantsToDrive: Bool = true, now: Instant) {
    self.policy = policy
    self.wantsToDrive = wantsToDrive
    holding = .none(grantAt: now)
    acquireAt = now
  }

  /// The epoch with which we drive at this instant.
  func epoch(now: Instant) -> UInt64? {
    guard case .held(let lease) = holding, now < lease.until, !isStopped, let key = driver?.key, key.lease == lease.id
    else { return nil }
    return key.createRevision
  }

  /// When `timePassed` must be told at the latest; nil = not before another fact.
  func wakeAt(now: Instant) -> Instant? {
    guard !isStopped else { return nil }
    var times: [Instant] = []
    switch holding {
    case .none(let grantAt): if isUp { times = [grantAt] }
    case .granting: break
    case .held(let lease):
      times = isUp ? [lease.until, lease.keepAliveAt] : [lease.until]
      if isUp, canAcquire { times.append(acquireAt) }
    }
    // What is past has been done, or cannot be until something is told.
    return times.filter { $0 > now }.min()
  }
  private var canAcquire: Bool {
    if case .some((key: nil, revision: _)) = driver { return wantsToDrive && !isAcquiring }
    return false
  }

  mutating func handle(_ fact: Fact, now: Instant, into effects: inout [Effect]) {
    guard !isStopped else { return }
    switch fact {
    case .linkUp:
      isUp = true
      isAcquiring = false
      acquireAt = now
      // The first sign of life goes out at once.
      if case .held(var lease) = holding {
        lease.keepAliveAt = now
        holding = .held(lease)
      } else {
        holding = .none(grantAt: now)
      }
    case .linkDown:
      isUp = false
      isAcquiring = false
      // A grant whose reply is lost belongs to nobody, and ends by itself.
      if case .granting = holding { holding = .none(grantAt: now) }
    case .granted(let id, let ttl, let sentAt):
      guard case .granting = holding else { break }
      holding = .held(
        Lease(id: id, until: sentAt + (ttl - policy.margin), keepAliveAt: sentAt + policy.keepAliveInterval))
    case .grantFailed:
      if case .granting = holding { holding = .none(grantAt: now + policy.retryInterval) }
    case .keptAlive(let id, let ttl, let sentAt):
      guard case .held(var lease) = holding, lease.id == id else { break }
      if ttl == .zero {
        dropLease(now)
      } else {
        lease.until = max(lease.until, sentAt + (ttl - policy.margin))
        holding = .held(lease)
      }
    case .driverSeen(let key, let revision):
      guard revision > driver?.revision ?? 0 else { break }
      driver = (key, revision)
      isAcquiring = false
    case .acquireFailed:
      isAcquiring = false
      acquireAt = now + policy.retryInterval
    case .leaseGone: dropLease(now)
    case .timePassed: break
    case .stopped:
      if case .held(let lease) = holding, isUp { effects.append(.revoke(lease: lease.id)) }
      isStopped = true
      return
    }
    decide(now, &effects)
  }

  private mutating func dropLease(_ now: Instant) {
    holding = .none(grantAt: now)
    isAcquiring = false
  }

  private mutating func decide(_ now: Instant, _ effects: inout [Effect]) {
    tellDriver(now, &effects)
    guard isUp else { return }
    switch holding {
    case .none(let grantAt):
      guard grantAt <= now else { return }
      holding = .granting
      effects.append(.grant)
    case .granting: break
    case .held(var lease):
      if lease.keepAliveAt <= now {
        lease.keepAliveAt = now + policy.keepAliveInterval
        holding = .held(lease)
        effects.append(.keepAlive(lease: lease.id))
      }
      // With little life left in the lease it is not worth a try.
      if canAcquire, acquireAt <= now, now < lease.until {
        isAcquiring = true
        effects.append(.acquire(lease: lease.id))
      }
    }
  }

  private mutating func tellDriver(_ now: Instant, _ effects: inout [Effect]) {
    guard let driver, isUp || told != nil else { return }
    let effect: Effect
    if let epoch = epoch(now: now) {
      effect = .driving(epoch: epoch)
    } else {
      // Our own key without belief in our lease: nobody that we know of drives.
      var name = driver.key?.name
      if case .held(let lease) = holding, driver.key?.lease == lease.id { name = nil }
      effect = .notDriving(driver: isUp ? name : nil)
    }
    guard effect != told else { return }
    told = effect
    effects.append(effect)
  }
}
