import Membership
import RankingCore
import Testing

/// The driver alone: members as their statuses say, orders as text.
struct DriverScript {
  var driver: PlacementDriver
  var now = Instant(nanoseconds: 1_000_000_000)
  var members: [Member] = []
  var release: PlacedRelease
  private var membership = Membership(seed: 1)

  init(_ names: [String], shards: Int = 4, bytes: UInt64 = 1, policy: PlacementPolicy = PlacementPolicy()) {
    driver = PlacementDriver(policy: policy, epoch: 9, now: now)
    release = PlacementTests.release(shards: shards, bytes: bytes)
    for name in names { add(name) }
  }
  mutating func add(_ name: String) {
    var effects: [Membership.Effect] = []
    _ = membership.joined(
      JoinRequest(name: name, incarnation: 1, address: "\(name):1"), now: now, into: &effects)
    let id = WorkerID(members.count)
    membership.linked(id, now: now, into: &effects)
    for _ in 0..<2 {
      for case .probe(id, let token, _) in effects {
        membership.probeAnswered(
          id, token: token, status: WorkerStatus(name: name, incarnation: 1), now: now, into: &effects)
      }
      now = now + .milliseconds(111)
      effects = []
      membership.tick(now: now, into: &effects)
      for case .probe(id, let token, _) in effects {
        membership.probeAnswered(
          id, token: token, status: WorkerStatus(name: name, incarnation: 1), now: now, into: &effects)
      }
    }
    members.append(membership.members[id.index])
  }
  /// Says of a worker what it holds now. (The driver only reads members, so that a copy is enough.)
  mutating func set(_ worker: Int, ready: [Int] = [], loading: [Int] = [], failed: [Int] = [], capacity: UInt64 = 0) {
    var status = WorkerStatus(name: members[worker].name, incarnation: 1)
    status.holdings = [
      .init(
        release: release.id, shardCount: release.bytesPerShard.count, ready: ready.map { ShardID($0) },
        loading: loading.map { ShardID($0) }, failed: failed.map { ShardID($0) })
    ]
    status.capacityBytes = capacity
    status.heldBytes = UInt64(ready.count) * release.bytesPerShard[0]
    let id = members[worker].id
    var effects: [Membership.Effect] = []
    now = now + .milliseconds(331)
    membership.tick(now: now, into: &effects)
    for case .probe(let asked, let token, _) in effects {
      let answer = asked == id ? status : membership.members[asked.index].status!
      membership.probeAnswered(asked, token: token, status: answer, now: now, into: &effects)
    }
    members = membership.members
  }
  mutating func unlink(_ worker: Int) {
    var effects: [Membership.Effect] = []
    membership.unlinked(members[worker].id, now: now, into: &effects)
    members = membership.members
  }
  mutating func pass(_ duration: Duration) { now = now + duration }
  mutating func tick() -> [String] {
    driver.tick(members: members, releases: [release], now: now).map { order in
      let (verb, worker, order) =
        switch order {
        case .load(let worker, let order): ("load", worker, order)
        case .unload(let worker, let order): ("unload", worker, order)
        }
      let shards = order.shards.map { "\($0)" }.joined(separator: " ")
      return "\(verb) \(members[worker.index].name) \(shards) @\(order.term.epoch).\(order.term.revision)"
    }
  }
}

@Suite struct PlacementDriverTests {
  /// Several orders at once could overtake each other, and a worker refuses the older one.
  @Test func aWorkerGetsOneOrderWithItsTermAndSixteenShardsAtMost() {
    var script = DriverScript(["w1"], shards: 20)
    let first = (0..<16).map(String.init).joined(separator: " ")
    #expect(script.tick() == ["load w1 \(first) @9.1"])
    #expect(script.tick() == [], "nothing is asked twice")
    script.set(0, ready: [0, 1], loading: Array(2..<16))
    #expect(script.tick() == ["load w1 16 17 @9.2"])
  }

  @Test func theWholeClusterLoadsSixtyFourAtMost() {
    var script = DriverScript((1...40).map { "w\($0)" }, shards: 256)
    #expect(script.tick().reduce(0) { $0 + $1.split(separator: " ").count - 3 } == 64)
    #expect(script.tick() == [])
  }

  @Test func anOrderWithoutEffectIsGivenAgainAfterTwoSeconds() {
    var script = DriverScript(["w1"], shards: 1)
    #expect(script.tick() == ["load w1 0 @9.1"])
    script.pass(.milliseconds(1999))
    #expect(script.tick() == [])
    script.pass(.milliseconds(1))
    #expect(script.tick() == ["load w1 0 @9.2"], "with a newer revision, or the worker would refuse it")
  }

  @Test func aFailedLoadRestsTenSeconds() {
    var script = DriverScript(["w1"], shards: 1)
    #expect(script.tick().count == 1)
    script.set(0, failed: [0])
    #expect(script.tick() == [])
    script.pass(.milliseconds(9_999))
    #expect(script.tick() == [])
    script.pass(.milliseconds(1))
    #expect(script.tick() == ["load w1 0 @9.2"])
  }

  @Test func nothingIsUnloadedBeforeEveryWantedReplicaIsReady() {
    // Three workers hold the shard, two are wanted.
    var script = DriverScript(["w1", "w2", "w3"], shards: 1)
    let wanted = Placement.assign(
      [script.release], to: script.members.map { PlacementMember(name: $0.name) }, replicas: 2)[0][0]
    let extra = [0, 1, 2].first { !wanted.contains($0) }!
    script.set(extra, ready: [0])
    script.set(wanted[0], ready: [0])
    #expect(script.tick() == ["load \(script.members[wanted[1]].name) 0 @9.1"])
    script.set(wanted[1], loading: [0])
    #expect(script.tick() == [])
    script.set(wanted[1], ready: [0])
    script.unlink(wanted[0])
    #expect(script.tick() == [], "one of them cannot be reached")
  }

  @Test func whatIsTooMuchIsUnloadedThenAndOnce() {
    var script = DriverScript(["w1", "w2", "w3"], shards: 1)
    let wanted = Placement.assign(
      [script.release], to: script.members.map { PlacementMember(name: $0.name) }, replicas: 2)[0][0]
    let extra = [0, 1, 2].first { !wanted.contains($0) }!
    for worker in 0..<3 { script.set(worker, ready: [0]) }
    #expect(script.tick() == [])
    script.pass(.seconds(2))
    #expect(script.tick() == ["unload \(script.members[extra].name) 0 @9.1"])
    #expect(script.tick() == [])
    script.pass(.seconds(2))
    #expect(script.tick() == ["unload \(script.members[extra].name) 0 @9.2"], "lost, so given again")
  }

  @Test func loadsNeverExceedTheRoomThatIsThere() {
    // Room for five; three unwanted shards are held, so two may come, even while loading ones are not yet counted.
    var script = DriverScript(["w1"], shards: 5, bytes: 10)
    script.set(0, ready: [], capacity: 50)
    script.release.bytesPerShard = [10, 10, 10, 10, 10]
    #expect(script.tick() == ["load w1 0 1 2 3 4 @9.1"])
    var six = DriverScript(["w1"], shards: 6, bytes: 10)
    six.set(0, ready: [0], loading: [1, 2, 3], capacity: 50)
    #expect(six.tick() == ["load w1 4 @9.1"])
    // Now the same with memory that something else has taken: 20 of 50 held, 30 loading.
    var full = DriverScript(["w1"], shards: 5, bytes: 10)
    full.set(0, ready: [0, 1], loading: [2, 3, 4], capacity: 50)
    #expect(full.tick() == [])
    var other = DriverScript(["w1"], shards: 6, bytes: 10)
    other.set(0, ready: [0, 1], loading: [2, 3], capacity: 49)
    #expect(other.tick() == [], "40 of 49 are taken, two of them by loads that are not finished")
  }

  @Test func loadsUnderWayTakeRoomBesideWhatIsHeldAndNotWanted() {
    var policy = PlacementPolicy()
    policy.replicas = 1
    var script = DriverScript(["w1", "w2"], shards: 8, bytes: 10, policy: policy)
    for worker in 0..<2 { script.set(worker, capacity: 1000) }
    let wanted = Placement.assign(
      [script.release], to: ["w1", "w2"].map { PlacementMember(name: $0, capacityBytes: 1000) }, replicas: 1)[0]
    let shards = [0, 1].map { member in (0..<8).filter { wanted[$0] == [member] } }
    let me = shards[0].count <= shards[1].count ? 0 : 1
    #expect(shards[me].count >= 2)
    // All of the other's shards are held and one of its own is loading: nothing more fits.
    script.set(
      me, ready: shards[1 - me], loading: [shards[me][0]], capacity: UInt64(10 * (shards[1 - me].count + 1)))
    #expect(script.tick().allSatisfy { !$0.hasPrefix("load w\(me + 1)") })
  }

  @Test func aStaleOrderIsCountedAndTheTermIsNotRaisedOverIt() {
    var script = DriverScript(["w1"], shards: 1)
    _ = script.tick()
    script.driver.refused()
    #expect(script.driver.staleOrders == 1)
    #expect(script.driver.term == DriverTerm(epoch: 9, revision: 1))
  }

  @Test func namedHoldersGoBeforeHashing() {
    var script = DriverScript(["w1", "w2", "w3"], shards: 2)
    script.release.holders = [["w3"], ["w1", "w2"]]
    #expect(script.tick() == ["load w3 0 @9.1", "load w1 1 @9.2", "load w2 1 @9.3"])
    var known = DriverScript(["w1", "w2", "w3"], shards: 2)
    known.release.holders = [["w3"], ["w9"]]
    for worker in 0..<3 { known.set(worker, ready: [0, 1]) }
    // Shard 1 is to be held by somebody who is not there: nobody lets go of it.
    #expect(known.tick() == [])
    known.pass(.seconds(2))
    #expect(known.tick() == ["unload w1 0 @9.1"])
  }

  /// Other coordinators hear of it by a probe: until then they must find one of the replicas they know.
  @Test func replicasOfAShardThatMovesAreUnloadedOneAfterTheOther() {
    var script = DriverScript(["w1", "w2", "w3"], shards: 1)
    script.release.holders = [["w3"]]
    for worker in 0..<3 { script.set(worker, ready: [0]) }
    #expect(script.tick() == [])
    script.pass(.milliseconds(1999))
    #expect(script.tick() == [])
    script.pass(.milliseconds(1))
    #expect(script.tick() == ["unload w1 0 @9.1"])
    script.set(0, ready: [])
    // Setting what a worker says takes a third of a second.
    script.pass(.milliseconds(1600))
    #expect(script.tick() == [])
    script.pass(.milliseconds(100))
    #expect(script.tick() == ["unload w2 0 @9.2"])
  }

  @Test func whatNamesNoHoldersIsUnloadedEverywhere() {
    var script = DriverScript(["w1", "w2"], shards: 2)
    for worker in 0..<2 { script.set(worker, ready: [0, 1]) }
    script.release.holders = [[], []]
    #expect(script.tick() == ["unload w1 0 1 @9.1", "unload w2 0 1 @9.2"])
    #expect(script.tick() == [])
  }

  @Test func itLooksEverySecond() {
    var script = DriverScript(["w1"], shards: 1)
    _ = script.tick()
    #expect(script.driver.due == script.now + .seconds(1))
  }

  @Test func numbers() {
    let policy = PlacementPolicy()
    #expect(policy.replicas == 2)
    #expect(policy.loadsPerWorker == 16)
    #expect(policy.loadsMax == 64)
  }
}
