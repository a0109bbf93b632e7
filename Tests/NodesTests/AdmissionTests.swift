import Membership
import Nodes
import RankingCore
import Routing
import Testing

// What a coordinator takes in, what it lowers first, and when it answers.

@Suite struct AdmissionTests {
  /// Workers that say they admit this many legs.
  static func cluster(_ workers: [[Int]], shards: Int, admits: Int = 10) -> ClusterScript {
    var cluster = ClusterScript(workers: workers, shardCount: shards)
    cluster.adjust = { $0.admits = admits }
    cluster.linkAll()
    return cluster
  }
  static func batch() -> RankingRequest {
    var request = RankingRequest(subject: .anyone, k: 3)
    request.priority = .batch
    return request
  }

  @Test func theScarcestWorkerDecides() {
    var cluster = ClusterScript(workers: [[0], [1]], shardCount: 2)
    cluster.adjust = { $0.admits = $0.name == "w1" ? 5 : 50 }
    cluster.linkAll()
    for token in 1...5 as ClosedRange<RequestToken> { cluster.request(token) }
    #expect(cluster.answers.isEmpty)
    cluster.request(6)
    #expect(cluster.legs.count == 10, "a request that cannot be had whole sends no leg at all")
    #expect(cluster.error(6)?.message == "no replica of shard 0 has room for another request; try again shortly")
    for leg in 0..<2 { cluster.score(leg: leg) }
    cluster.request(7)
    #expect(cluster.legs.count == 12)
    #expect(cluster.node.router.counters.refused == 1)
  }

  @Test func aRefusalLeavesNoTrace() {
    var cluster = Self.cluster([[0, 1], [2]], shards: 3, admits: 4)
    for token in 1...4 as ClosedRange<RequestToken> { cluster.request(token) }
    for token in 5...50 as ClosedRange<RequestToken> { cluster.request(token) }
    for leg in cluster.legs.indices { cluster.score(leg: leg) }
    for worker in 0..<2 {
      #expect(cluster.node.router.view(of: WorkerID(worker), now: cluster.now)?.legsInFlight == 0)
    }
    #expect(cluster.node.router.inFlight == 0)
    for token in 51...54 as ClosedRange<RequestToken> { cluster.request(token) }
    #expect((51...54).allSatisfy { cluster.answers[RequestToken($0)] == nil })
  }

  @Test func noMoreThan1024RequestsWhateverWorkersTake() {
    var cluster = Self.cluster([[0]], shards: 1, admits: 100_000)
    for token in 1...1024 as ClosedRange<RequestToken> { cluster.request(token) }
    #expect(cluster.answers.isEmpty)
    cluster.request(1025)
    #expect(
      cluster.error(1025)?.message == "1024 requests are in flight, the most this coordinator takes; try again shortly")
    #expect(cluster.legs.count == 1024)
  }

  @Test func batchIsRefusedWhileInteractiveIsTaken() {
    var cluster = Self.cluster([[0]], shards: 1, admits: 10)
    for token in 1...5 as ClosedRange<RequestToken> { cluster.request(token, Self.batch()) }
    #expect(cluster.answers.isEmpty)
    cluster.request(6, Self.batch())
    #expect(cluster.error(6)?.code == .overloaded, "batch may take half of the room")
    for token in 7...11 as ClosedRange<RequestToken> { cluster.request(token) }
    #expect(cluster.legs.count == 10)
    cluster.request(12)
    #expect(cluster.error(12)?.code == .overloaded)
  }

  @Test func qualityIsLoweredBeforeAnybodyIsRefusedAndTold() throws {
    var cluster = Self.cluster([[0]], shards: 1, admits: 10)
    for token in 1...10 as ClosedRange<RequestToken> { cluster.request(token) }
    // Pressure is (legs in flight + 1) ÷ 10: up to 0.5 all of R = 200, at 1.0 a quarter, in eighths between.
    #expect(cluster.legs.map(\.request.query.candidates) == [200, 200, 200, 200, 200, 175, 150, 125, 100, 50])
    for leg in cluster.legs.indices { cluster.score(leg: leg) }
    let last = try #require(try? cluster.answers[10]?.get())
    #expect(last.candidates == 50 && last.quality == 0.25)
    let first = try #require(try? cluster.answers[1]?.get())
    #expect(first.candidates == 200 && first.quality == 1)
    #expect(cluster.node.router.counters.lowered == 5)
  }

  @Test func neverBelowK() {
    var cluster = Self.cluster([[0]], shards: 1, admits: 2)
    for token in 1...2 as ClosedRange<RequestToken> { cluster.request(token, RankingRequest(subject: .anyone, k: 120)) }
    #expect(cluster.legs[1].request.query.candidates == 120)
  }

  @Test func rankingGivenItemsIsNeverLowered() {
    var cluster = Self.cluster([[0]], shards: 1, admits: 2)
    for token in 1...2 as ClosedRange<RequestToken> {
      cluster.request(token, RankingRequest(kind: .rank(["a"]), subject: .anyone))
    }
    #expect(cluster.legs.allSatisfy { $0.request.query.candidates == 200 })
  }

  @Test func nothingIsHedgedUnderPressure() {
    var cluster = Self.cluster([[0], [0]], shards: 1, admits: 10)
    for worker in 0..<2 { cluster.latency[WorkerID(worker)] = .milliseconds(2) }
    cluster.serve(400)
    cluster.latency = [:]
    let before = cluster.node.router.counters
    for token in 1...20 as ClosedRange<RequestToken> { cluster.request(token) }
    cluster.pass(.milliseconds(100))
    let hedges = cluster.node.router.counters.hedgeLegs - before.hedgeLegs
    #expect(hedges <= 10, "only those that came while there was room")
    let perLeg = Dictionary(grouping: cluster.legs.suffix(20 + Int(hedges)), by: \.id.requestKey)
    let late = cluster.legs.suffix(20 + Int(hedges)).prefix(20).suffix(10)
    #expect(late.allSatisfy { perLeg[$0.id.requestKey]?.count == 1 })
  }

  @Test func alsoNotWhenTheOtherReplicaHasRoom() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.adjust = { $0.admits = $0.name == "w1" ? 10 : 1000 }
    for worker in 0..<2 { cluster.latency[WorkerID(worker)] = .milliseconds(worker == 0 ? 2 : 5) }
    cluster.linkAll()
    cluster.serve(400)
    cluster.latency = [:]
    cluster.legs = []
    for token in 1...12 as ClosedRange<RequestToken> { cluster.request(token) }
    let pressed = cluster.legs.filter { $0.request.query.candidates < 200 }
    #expect(pressed.count >= 2 && pressed.allSatisfy { $0.worker == WorkerID(0) })
    cluster.pass(.milliseconds(8))
    let hedged = Set(cluster.legs.dropFirst(12).map(\.id.requestKey))
    #expect(hedged.count >= 4, "those that came while there was room")
    #expect(pressed.allSatisfy { !hedged.contains($0.id.requestKey) })
  }

  @Test func anOverloadReplyShrinksTheRoomAndNotTheHealth() {
    var cluster = Self.cluster([[0]], shards: 1, admits: 20)
    let worker = WorkerID(0)
    func room() -> Double { cluster.node.router.view(of: worker, now: cluster.now)!.room }
    #expect(room() == 20)
    for token in 1...10 as ClosedRange<RequestToken> { cluster.request(token) }
    cluster.fail(leg: 0, .overloaded)
    #expect(room() == 8, "it refused with ten on it: 0.8 of those")
    cluster.fail(leg: 1, .overloaded)
    #expect(room() == 8, "one refusal of the same moment is enough")
    cluster.pass(.milliseconds(101))
    cluster.fail(leg: 2, .overloaded)
    #expect(room() < 8)
    let shrunk = room()
    for leg in 3..<10 { cluster.score(leg: leg) }
    #expect(room() > shrunk && room() < shrunk + 2, "more is tried out reply by reply")
    for token in 20...300 as ClosedRange<RequestToken> {
      cluster.request(token)
      cluster.score(leg: cluster.legs.count - 1)
    }
    #expect(room() == 20)
    #expect(cluster.node.router.ejections.detected == 0)
    #expect(cluster.node.membership.members[0].state == .alive)
  }

  @Test func theRoomNeverShrinksBelowTwo() {
    var cluster = Self.cluster([[0]], shards: 1, admits: 20)
    for token in 1...50 as ClosedRange<RequestToken> {
      cluster.request(token)
      if cluster.answers[token] == nil { cluster.fail(leg: cluster.legs.count - 1, .overloaded) }
      cluster.pass(.milliseconds(101))
    }
    #expect(cluster.node.router.view(of: WorkerID(0), now: cluster.now)?.room == 2)
  }

  @Test func aWorkerThatDoesNotSayIsTakenToAdmit36() {
    var cluster = Self.cluster([[0]], shards: 1, admits: 0)
    for token in 1...37 as ClosedRange<RequestToken> { cluster.request(token) }
    #expect(cluster.legs.count == 36)
  }

  @Test func aRequestWhoseTimeIsOverIsRefusedBeforeAnyLeg() {
    var cluster = Self.cluster([[0], [1]], shards: 2)
    for (token, late) in [(RequestToken(1), 0), (2, 10), (3, 100_000)] {
      cluster.request(token, timeout: .milliseconds(-late))
      #expect(cluster.error(token) != nil)
    }
    #expect(cluster.legs.isEmpty)
  }
}

@Suite struct CoverageTests {
  @Test func theAnswerLeavesEarlyWhenEnoughIsThere() {
    var cluster = ClusterScript(workers: [[0], [1], [2], [3]], shardCount: 4)
    cluster.linkAll()
    var request = RankingRequest(subject: .anyone, k: 3)
    request.earlyAt = 0.75
    cluster.request(1, timeout: .milliseconds(500), request)
    cluster.pass(.milliseconds(90))
    for leg in 0..<2 { cluster.score(leg: leg) }
    cluster.pass(.milliseconds(160))
    cluster.score(leg: 2)
    // 490 − 250 = 240 ms remain, a quarter of that is 60.
    cluster.pass(.milliseconds(59))
    #expect(cluster.answers.isEmpty)
    cluster.pass(.milliseconds(1))
    #expect(cluster.coverage(1)?.items == 0.75)
    #expect(cluster.coverage(1)?.missing == [Coverage.Missing(shard: ShardID(3), reason: .timeout)])
    #expect(cluster.cancelled == [cluster.legs[3].id])
    #expect(cluster.node.router.ejections.detected == 0)
  }

  @Test func offByDefault() {
    var cluster = ClusterScript(workers: [[0], [1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1)
    cluster.score(leg: 0)
    cluster.pass(.milliseconds(489))
    #expect(cluster.answers.isEmpty)
    cluster.score(leg: 1)
    #expect(cluster.coverage(1)?.items == 1)
  }

  @Test func anEarlyEndNeverTurnsAnAnswerIntoAnError() {
    var cluster = ClusterScript(workers: [[0], [1], [2], [3]], shardCount: 4)
    cluster.linkAll()
    var request = RankingRequest(subject: .anyone, k: 3)
    request.earlyAt = 0.25
    request.minCoverage = 0.75
    cluster.request(1, request)
    for leg in 0..<2 { cluster.score(leg: leg) }
    cluster.pass(.milliseconds(400))
    #expect(cluster.answers.isEmpty)
    cluster.score(leg: 2)
    cluster.pass(.milliseconds(89))
    #expect(cluster.coverage(1)?.items == 0.75)
  }

  @Test func whatCannotReachMinCoverageIsRefusedAtOnceAndItsLegsTakenBack() {
    var cluster = ClusterScript(workers: [[0], [1], [2], [3]], shardCount: 4)
    cluster.linkAll()
    var request = RankingRequest(subject: .anyone, k: 3)
    request.minCoverage = 0.75
    cluster.request(1, request)
    cluster.fail(leg: 0)
    #expect(cluster.answers.isEmpty, "three of four are enough")
    cluster.fail(leg: 1)
    #expect(cluster.error(1)?.code == .unavailable)
    #expect(cluster.error(1)?.missing.map(\.shard) == [ShardID(0), ShardID(1)])
    #expect(cluster.cancelled == [cluster.legs[2].id, cluster.legs[3].id])
  }

  @Test func aPartialAnswerLeavesWhenNothingMissingCanStillArrive() {
    var cluster = ClusterScript(workers: [[0], [1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1)
    cluster.fail(leg: 0)
    cluster.score(leg: 1)
    #expect(cluster.coverage(1)?.items == 0.5, "no waiting for the deadline")
  }

  @Test func shardsThatAReplyDoesNotSpeakForAreMissing() {
    var cluster = ClusterScript(workers: [[0, 1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1)
    var reply = cluster.reply(cluster.legs[0].request)
    reply.shards = [ShardID(1), ShardID(1), ShardID(1)]
    cluster.send(.scored(cluster.legs[0].id, .success(reply)))
    #expect(
      cluster.coverage(1)
        == Coverage(
          shards: 2, answered: 1, items: 0.5, missing: [Coverage.Missing(shard: ShardID(0), reason: .workerError)]),
      "and a shard that is named three times counts once")
  }

  @Test func zeroShardsAnsweredIsAlwaysAnError() {
    var cluster = ClusterScript(workers: [[0]], shardCount: 1)
    cluster.linkAll()
    cluster.request(1)
    cluster.pass(.milliseconds(490))
    #expect(cluster.error(1)?.message == "no shard answered: shard 0 (timeout)")
  }

  @Test func rankingNothingIsAnsweredWithNothing() throws {
    var cluster = ClusterScript(workers: [[0, 1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1, RankingRequest(kind: .rank([]), subject: .anyone))
    let answer = try #require(try? cluster.answers[1]?.get())
    #expect(cluster.legs.isEmpty && answer.entries.isEmpty && answer.coverage.answered == 2)
  }

  @Test func whatRemainsIsCountedDownToTheLegs() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    for (token, timeout) in [(RequestToken(1), 500), (2, 40)] {
      var effects: [CoordinatorEffect] = []
      let request = RankingRequest(subject: .anyone)
      let deadline = cluster.now + .milliseconds(timeout)
      cluster.node.handle(.requested(token, request, deadline: deadline), now: cluster.now, into: &effects)
      var leg: LegID?
      for case .score(let id, _, _, let left) in effects {
        #expect(left == .milliseconds(timeout - min(10, timeout / 10)))
        leg = id
      }
      effects = []
      let later = cluster.now + .milliseconds(30)
      cluster.node.handle(.scored(leg!, .failure(.connectionLost)), now: later, into: &effects)
      for case .score(_, _, _, let left) in effects {
        #expect(left == .milliseconds(timeout - min(10, timeout / 10) - 30), "never a new timeout")
      }
    }
  }
}
