import RankingCore

// Brings what workers hold to what placement says, one careful step after the other. A function of what is observed: it
// may be asked at any time, and a lost order is simply given again.
//
//     wanted, not held   → Load    while the worker has room and a loading place; few at a time in all
//     held, not wanted   → Unload  only when every worker that should hold the shard has it ready: coverage never dips
//     worker gone        → its shards are wanted elsewhere (placement leaves it out)
//     worker draining    → the same, while it still serves
//     wanted by nobody   → Unload  (a version that is retired: its release names no holders)
//
// Only one coordinator drives. Its orders carry (epoch, revision); workers refuse older ones, so that a driver that was
// replaced and does not know it yet does no harm.

public struct PlacementPolicy: Sendable {
  /// Workers per shard.
  public var replicas = 2
  /// Shards that one worker is told to load at a time; it reads them one after the other.
  public var loadsPerWorker = 16
  /// Shards being loaded in the whole cluster: a burst of loads must not starve the traffic.
  public var loadsMax = 64
  /// An order that shows no effect in the worker's status by then is given again.
  public var orderTimeout: Duration = .seconds(2)
  /// A shard that could not be loaded is not tried again before this.
  public var retryFailedAfter: Duration = .seconds(10)
  /// How often it looks when nothing happens.
  public var interval: Duration = .seconds(1)
  /// Replicas of a shard that moves are unloaded so long after the new ones are ready, and one at a time, so far apart:
  /// other coordinators, which learn of all that by their next probe, then always know of one that is there.
  public var unloadPause: Duration = .seconds(2)
  public init() {}
}

public struct PlacementDriver: Sendable {
  public enum Order: Sendable, Equatable {
    case load(WorkerID, ShardOrder)
    case unload(WorkerID, ShardOrder)
  }
  private struct Pending: Sendable {
    var worker: WorkerID
    var release: ModelVersion
    var shard: ShardID
    var bytes: UInt64
    var isLoad: Bool
    var until: Instant
  }

  public let policy: PlacementPolicy
  public private(set) var term: DriverTerm
  /// Orders given so far.
  public private(set) var loadsOrdered: UInt64 = 0
  public private(set) var unloadsOrdered: UInt64 = 0
  public private(set) var due: Instant
  private var pending: [Pending] = []
  /// Loads that failed: not before.
  private var resting: [Pending] = []
  /// Shards that have more replicas than they should: not before.
  private var surplus: [(release: ModelVersion, shard: ShardID, notBefore: Instant)] = []

  /// - Parameter epoch: larger than any earlier driver's.
  public init(policy: PlacementPolicy, epoch: UInt64, now: Instant) {
    self.policy = policy
    term = DriverTerm(epoch: epoch, revision: 0)
    due = now
  }

  /// The worker refused the order as older than one it has obeyed: somebody else drives, or drove. Its epoch is not
  /// overtaken: that is for whoever configures the driver.
  public private(set) var staleOrders: UInt64 = 0
  public mutating func refused() { staleOrders += 1 }

  public mutating func tick(members: [Member], releases: [PlacedRelease], now: Instant) -> [Order] {
    due = now + policy.interval
    let eligible = members.filter { member in
      member.status != nil && member.state != .gone && member.state != .joining && !member.isDraining
        && !member.isDuplicate
    }
    guard !eligible.isEmpty else { return [] }
    let targets = Placement.assign(
      releases,
      to: eligible.map { member in
        PlacementMember(
          name: member.status?.name ?? member.name, zone: member.status?.zone ?? "",
          capacityBytes: member.status?.capacityBytes ?? 0)
      }, replicas: policy.replicas)
    settle(members, now)
    let loadingNow = members.reduce(0) { $0 + ($1.isUsable ? Self.loading($1) : 0) }

    let before = surplus
    surplus = []
    var (loads, unloads) = (Batches(), Batches())
    for (release, target) in zip(releases, targets) {
      for shard in target.indices {
        let wanted = target[shard].map { eligible[$0] }
        for member in wanted where !holds(member, release.id, ShardID(shard)) {
          guard mayLoad(member, release, shard, of: releases, loadingNow: loadingNow) else { continue }
          loads.add(member.id, release.id, ShardID(shard))
          loadsOrdered += 1
          note(member.id, release, shard, isLoad: true, now)
        }
        // Nobody left to hold it is a misfortune; nobody named to hold it is an order.
        let isUnwanted = release.holders.map { shard < $0.count && $0[shard].isEmpty } ?? false
        let settled =
          isUnwanted
          || !wanted.isEmpty && wanted.allSatisfy { $0.isUsable && state($0, release.id, ShardID(shard)) == .ready }
        guard settled else { continue }
        let known = before.first { $0.release == release.id && $0.shard == ShardID(shard) }
        var notBefore = known?.notBefore ?? now + policy.unloadPause
        var hasSurplus = false
        for member in members
        where member.isUsable && !member.isDraining && !wanted.contains(where: { $0.id == member.id })
          && mayUnload(member, release.id, ShardID(shard), isUnwanted: isUnwanted)
        {
          hasSurplus = true
          guard !isPending(member.id, release.id, ShardID(shard)) else { continue }
          guard isUnwanted || notBefore <= now else { break }
          notBefore = now + policy.unloadPause
          unloads.add(member.id, release.id, ShardID(shard))
          unloadsOrdered += 1
          note(member.id, release, shard, isLoad: false, now)
        }
        if hasSurplus { surplus.append((release.id, ShardID(shard), notBefore)) }
      }
    }
    return loads.all.map { .load($0.worker, order($0.release, $0.shards)) }
      + unloads.all.map { .unload($0.worker, order($0.release, $0.shards)) }
  }

  /// One order per worker and version: several at once could overtake each other, and the older one would be refused.
  private struct Batches {
    private(set) var all: [(worker: WorkerID, release: ModelVersion, shards: [ShardID])] = []
    mutating func add(_ worker: WorkerID, _ release: ModelVersion, _ shard: ShardID) {
      if let index = all.firstIndex(where: { $0.worker == worker && $0.release == release }) {
        all[index].shards.append(shard)
      } else {
        all.append((worker, release, [shard]))
      }
    }
  }

  private enum ReplicaState { case absent, loading, ready, failed }

  private func state(_ member: Member, _ release: ModelVersion, _ shard: ShardID) -> ReplicaState {
    guard let holding = member.status?.holdings.first(where: { $0.release == release }) else { return .absent }
    if holding.ready.contains(shard) { return .ready }
    if holding.loading.contains(shard) { return .loading }
    return holding.failed.contains(shard) ? .failed : .absent
  }
  private func holds(_ member: Member, _ release: ModelVersion, _ shard: ShardID) -> Bool {
    switch state(member, release, shard) {
    case .ready, .loading: true
    case .absent, .failed: isPending(member.id, release, shard)
    }
  }
  /// What could not be loaded is forgotten with the version.
  private func mayUnload(_ member: Member, _ release: ModelVersion, _ shard: ShardID, isUnwanted: Bool) -> Bool {
    switch state(member, release, shard) {
    case .ready: true
    case .failed: isUnwanted
    case .absent, .loading: false
    }
  }
  private func isPending(_ worker: WorkerID, _ release: ModelVersion, _ shard: ShardID) -> Bool {
    pending.contains { $0.worker == worker && $0.release == release && $0.shard == shard }
  }

  /// Forgets the orders whose effect can be seen, and those that had none in time.
  private mutating func settle(_ members: [Member], _ now: Instant) {
    resting.removeAll { $0.until <= now }
    var open: [Pending] = []
    for var entry in pending {
      let state = state(members[entry.worker.index], entry.release, entry.shard)
      if entry.isLoad, state == .failed {
        entry.until = now + policy.retryFailedAfter
        resting.append(entry)
      } else if entry.until > now, entry.isLoad ? state == .absent : state == .ready || state == .failed {
        open.append(entry)
      }
    }
    pending = open
  }

  private static func loading(_ member: Member) -> Int {
    member.status?.holdings.reduce(0) { $0 + $1.loading.count } ?? 0
  }

  /// Memory that the loads which the worker has begun will take; its status counts them when they are done.
  private static func loadingBytes(_ member: Member, _ releases: [PlacedRelease]) -> UInt64 {
    var bytes: UInt64 = 0
    for holding in member.status?.holdings ?? [] {
      guard let release = releases.first(where: { $0.id == holding.release }) else { continue }
      for shard in holding.loading where shard.index < release.bytesPerShard.count {
        bytes &+= release.bytesPerShard[shard.index]
      }
    }
    return bytes
  }

  private func mayLoad(
    _ member: Member, _ release: PlacedRelease, _ shard: Int, of releases: [PlacedRelease], loadingNow: Int
  ) -> Bool {
    guard member.isUsable, let status = member.status else { return false }
    let isResting = resting.contains {
      $0.worker == member.id && $0.release == release.id && $0.shard == ShardID(shard)
    }
    guard !isResting else { return false }
    let mine = pending.filter { $0.worker == member.id && $0.isLoad }
    guard mine.count + Self.loading(member) < policy.loadsPerWorker,
      pending.count(where: \.isLoad) + loadingNow < policy.loadsMax
    else { return false }
    guard status.capacityBytes > 0 else { return true }
    let taken = mine.reduce(status.heldBytes &+ Self.loadingBytes(member, releases)) { $0 &+ $1.bytes }
    return taken <= status.capacityBytes && release.bytesPerShard[shard] <= status.capacityBytes - taken
  }

  private mutating func order(_ release: ModelVersion, _ shards: [ShardID]) -> ShardOrder {
    term.revision += 1
    return ShardOrder(term: term, release: release, shards: shards)
  }
  private mutating func note(
    _ worker: WorkerID, _ release: PlacedRelease, _ shard: Int, isLoad: Bool, _ now: Instant
  ) {
    pending.append(
      Pending(
        worker: worker, release: release.id, shard: ShardID(shard), bytes: release.bytesPerShard[shard],
        isLoad: isLoad, until: now + policy.orderTimeout))
  }
}
