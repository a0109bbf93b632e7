import Membership
import Nodes
import RankingCore
import Routing
import Testing

// Whole clusters of nodes: random days that must keep what must never break, and the moves of shards.

@Suite struct RandomDayTests {
  /// Requests of every kind, cancelled ones among them, while links break, workers die and come back, and the network
  /// loses, repeats and delays.
  @Test(arguments: UInt64(1)...40)
  func whatMustNeverBreak(seed: UInt64) {
    var dice = SeededGenerator(seed: seed &* 977)
    var settings = FleetSettings()
    settings.lost = seed % 3 == 0 ? 3 : 0
    settings.twice = seed % 2 == 0 ? 10 : 0
    settings.late = seed % 5 == 0 ? 4 : 0
    settings.scoreMax = .milliseconds(1 + dice.below(12))
    let fleet = Fleet(settings, seed: seed)
    for worker in 0..<4 {
      // Each shard on two of four workers.
      fleet.start("w\(worker + 1)", holding: (0..<8).filter { $0 % 4 == worker || ($0 + 1) % 4 == worker })
    }
    fleet.pass(.milliseconds(400))
    var deadlines: [RequestToken: Instant] = [:]
    var ks: [RequestToken: Int] = [:]
    var cancelled: Set<RequestToken> = []
    for token in 1...500 as ClosedRange<RequestToken> {
      var request = RankingRequest(subject: .anyone, k: 1 + dice.below(30))
      request.priority = dice.below(5) == 0 ? .batch : .interactive
      request.sticky = dice.below(4) == 0
      request.minCoverage = [0, 0, 0.5, 1][dice.below(4)]
      if dice.below(4) == 0 { request.earlyAt = Double(dice.below(5)) / 4 }
      if dice.below(5) == 0 { request.subject = .recentItems(["a", "b", "c"]) }
      let deadline = fleet.now + .milliseconds([1, 20, 100, 500][dice.below(4)])
      (deadlines[token], ks[token]) = (deadline, request.k)
      fleet.handle(.requested(token, request, deadline: deadline))
      fleet.pass(.microseconds(dice.below(6000)))
      if dice.below(12) == 0 {
        let victim = RequestToken(1 + dice.below(Int(token)))
        if fleet.answers[victim] == nil { cancelled.insert(victim) }
        fleet.handle(.cancelled(victim))
      }
      let index = dice.below(4)
      switch dice.below(40) {
      case 0: fleet.cut(index)
      case 1: fleet.kill(index)
      case 2:
        if !fleet.processes[index].isUp {
          fleet.start(
            "w\(index + 1)", holding: (0..<8).filter { $0 % 4 == index || ($0 + 1) % 4 == index })
        }
      case 3: fleet.pass(.milliseconds(dice.below(300)))
      default: break
      }
      if seed % 7 == 0, dice.below(100) == 0 {
        // The coordinator itself stands still for a while.
        fleet.now = fleet.now + .milliseconds(dice.below(2000))
      }
    }
    fleet.pass(.seconds(3))
    check(fleet, deadlines, ks, cancelled, mayStandStill: seed % 7 == 0)
  }

  func check(
    _ fleet: Fleet, _ deadlines: [RequestToken: Instant], _ ks: [RequestToken: Int], _ cancelled: Set<RequestToken>,
    mayStandStill: Bool
  ) {
    for (token, deadline) in deadlines.sorted(by: { $0.key < $1.key }) {
      guard let outcome = fleet.answers[token] else {
        #expect(cancelled.contains(token), "request \(token) has no answer")
        continue
      }
      #expect(!cancelled.contains(token), "request \(token) was taken back and answered")
      if !mayStandStill { #expect(fleet.answeredAt[token]! <= deadline, "request \(token) was answered late") }
      guard case .success(let answer) = outcome else { continue }
      let missing = Set(answer.coverage.missing.map(\.shard.index))
      let covered = (0..<8).filter { !missing.contains($0) }
      #expect(answer.coverage.answered == covered.count)
      #expect(answer.coverage.items == Double(covered.count) / 8)
      let expected = Fleet.best(answer.release, covered, k: ks[token]!)
      #expect(answer.entries.map(\.item) == expected, "request \(token) over \(covered)")
    }
    let router = fleet.node.router
    #expect(router.inFlight == 0)
    for member in fleet.node.membership.members {
      #expect(router.view(of: member.id, now: fleet.now)?.legsInFlight == 0, "\(member.name)")
    }
    let counters = router.counters
    #expect(counters.hedgeLegs <= counters.primaryLegs / 20)
    #expect(fleet.sentLegs.values.allSatisfy { $0 <= 24 }, "eight shards: primary, retry and hedge of each at most")
    #expect(fleet.answers.values.contains { if case .success = $0 { true } else { false } })
  }

  @Test func theSameSeedGivesTheSameRun() {
    func trace(_ seed: UInt64) -> [String] {
      var settings = FleetSettings()
      (settings.lost, settings.twice, settings.late) = (2, 5, 2)
      let fleet = Fleet(settings, seed: seed)
      for worker in 0..<3 { fleet.start("w\(worker + 1)", holding: Array(0..<8)) }
      fleet.pass(.milliseconds(400))
      for token in 1...100 as ClosedRange<RequestToken> {
        fleet.handle(
          .requested(token, RankingRequest(subject: .anyone, k: 5), deadline: fleet.now + .milliseconds(100)))
        fleet.pass(.milliseconds(2))
        if token == 50 { fleet.kill(1) }
      }
      fleet.pass(.seconds(1))
      return fleet.answeredAt.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value.nanoseconds)" }
        + ["\(fleet.node.router.counters)"]
    }
    #expect(trace(4) == trace(4))
    #expect(trace(4) != trace(5))
  }
}

@Suite struct PlacementMoveTests {
  /// A driving coordinator and workers that have loaded what it wants.
  static func driven(
    _ workers: Int, shards: Int = 16, capacity: UInt64 = 0, loadTime: Duration = .milliseconds(300),
    lost: Int = 0, seed: UInt64 = 1
  ) -> Fleet {
    var settings = FleetSettings()
    settings.shards = shards
    settings.capacityBytes = capacity
    settings.loadTime = loadTime
    settings.lost = lost
    settings.coordinator.placement = PlacementPolicy()
    settings.coordinator.epoch = 5
    let fleet = Fleet(settings, seed: seed)
    for worker in 1...workers { fleet.start("w\(worker)") }
    fleet.pass(.seconds(20))
    return fleet
  }
  func ready(_ fleet: Fleet) -> [Int] {
    fleet.node.router.catalog.entries[0].replicas.replicas.map(\.count)
  }
  func held(_ fleet: Fleet, _ index: Int) -> Int {
    fleet.processes[index].node.status(now: fleet.now).holdings.first?.ready.count ?? 0
  }

  @Test(arguments: [0, 10, 30])
  func everyShardGetsItsReplicasWhateverIsLost(lost: Int) {
    let fleet = Self.driven(4, lost: lost)
    if lost > 0 { fleet.pass(.seconds(120)) }
    #expect(fleet.node.isReady)
    #expect((0..<4).reduce(0) { $0 + held(fleet, $1) } == 32, "two replicas of 16 shards, and nothing else")
    let orders = fleet.orders
    fleet.pass(.seconds(20))
    if lost == 0 { #expect(fleet.orders == orders, "what is as it should be needs no orders") }
  }

  @Test func oneThatJoinsTakesItsShareWithoutADip() {
    let fleet = Self.driven(3)
    #expect(ready(fleet) == [Int](repeating: 2, count: 16))
    fleet.watchesCoverage = true
    fleet.start("w4")
    for _ in 0..<200 {
      fleet.pass(.milliseconds(100))
      #expect(ready(fleet).min()! >= 2, "never fewer ready replicas than wanted")
    }
    #expect(fleet.dips == [])
    #expect(ready(fleet) == [Int](repeating: 2, count: 16))
    #expect((4...12).contains(held(fleet, 3)), "its share of 32 is 8: \(held(fleet, 3))")
  }

  @Test func oneThatDiesIsReplacedAfterThirtySeconds() {
    let fleet = Self.driven(4)
    fleet.watchesCoverage = true
    fleet.kill(1)
    let orders = fleet.orders
    fleet.pass(.milliseconds(29_900))
    #expect(fleet.orders == orders, "it may come back yet")
    fleet.pass(.seconds(5))
    #expect(ready(fleet) == [Int](repeating: 2, count: 16))
    #expect(fleet.dips == [])
  }

  @Test func oneThatComesBackInTimeCostsNoMove() {
    let fleet = Self.driven(4)
    let orders = fleet.orders
    fleet.cut(1)
    fleet.pass(.seconds(10))
    #expect(fleet.orders == orders)
  }

  @Test func nobodyIsOverfilledWhileShardsMove() {
    // Five workers with room for eight shards each, 32 replicas wanted; then one goes and two come.
    let fleet = Self.driven(5, capacity: 80, loadTime: .milliseconds(700))
    func look() {
      for process in fleet.processes where process.isUp {
        let status = process.node.status(now: fleet.now)
        let shards = status.holdings.reduce(0) { $0 + $1.ready.count + $1.loading.count }
        #expect(shards <= 8, "\(process.node.name) holds or loads \(shards)")
      }
    }
    look()
    fleet.start("w6")
    for step in 0..<300 {
      fleet.pass(.milliseconds(200))
      look()
      if step == 60 { fleet.kill(0) }
      if step == 220 { fleet.start("w7") }
    }
    #expect(ready(fleet).allSatisfy { $0 >= 2 })
  }

  @Test(arguments: [[1], [0, 1], [0, 1, 2]])
  func thoseThatDrainLeaveWhenOthersHaveWhatTheyHold(leaving: [Int]) {
    let fleet = Self.driven(5, loadTime: .milliseconds(100))
    fleet.watchesCoverage = true
    let start = fleet.now
    for index in leaving { fleet.drain(index) }
    while fleet.departed.count < leaving.count, fleet.now - start < .seconds(20) { fleet.pass(.milliseconds(10)) }
    #expect(fleet.departed.sorted() == leaving)
    #expect(fleet.now - start < .seconds(8), "long before its limit")
    fleet.pass(.seconds(40))
    #expect(fleet.dips == [], "no shard was ever without a ready replica")
    #expect(ready(fleet) == [Int](repeating: 2, count: 16))
  }

  @Test func theLastReplicaStaysUntilItsLimit() {
    // Nobody drives, so nobody takes over: two workers that hold the same leave together.
    let fleet = Fleet(FleetSettings(), seed: 3)
    for name in ["w1", "w2"] { fleet.start(name, holding: Array(0..<8)) }
    fleet.pass(.seconds(1))
    fleet.drain(0)
    fleet.pass(.milliseconds(500))
    #expect(fleet.departed == [0], "the other one has it all")
    fleet.drain(1)
    fleet.pass(.milliseconds(8_900))
    #expect(fleet.departed == [0])
    fleet.pass(.milliseconds(200))
    #expect(fleet.departed == [0, 1])

    let both = Fleet(FleetSettings(), seed: 3)
    for name in ["w1", "w2"] { both.start(name, holding: Array(0..<8)) }
    both.pass(.seconds(1))
    both.drain(0)
    both.drain(1)
    both.pass(.milliseconds(8_900))
    #expect(both.departed.count == 1, "the second may not count on the first, which was let go")
    #expect(both.node.router.catalog.entries[0].replicas.isComplete)
  }

  @Test func aReleaseThatIsAddedLaterIsLoadedBesideAndPublishedWhenComplete() {
    let fleet = Self.driven(4)
    fleet.watchesCoverage = true
    fleet.handle(.loaded(Fleet.release("v2", shards: 16)))
    func ask(_ token: RequestToken) -> String? {
      fleet.handle(
        .requested(token, RankingRequest(subject: .anyone, k: 5), deadline: fleet.now + .milliseconds(100)))
      fleet.pass(.milliseconds(30))
      return try? fleet.answers[token]?.get().release.version
    }
    #expect(ask(1) == "v1", "v2 is not published before every shard of it was ready")
    var versions: [String?] = []
    for token in 2...300 as ClosedRange<RequestToken> { versions.append(ask(token)) }
    #expect(versions.allSatisfy { $0 != nil })
    #expect(versions.last == "v2")
    let switched = versions.firstIndex(of: "v2")!
    #expect(versions[switched...].allSatisfy { $0 == "v2" } && versions[..<switched].allSatisfy { $0 == "v1" })
    #expect(fleet.dips == [])
  }
}
