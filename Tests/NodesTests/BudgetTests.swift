import Membership
import Nodes
import RankingCore
import Testing

@testable import Routing

// What pays for extra legs, and when a shard is asked a second time.

@Suite struct BudgetTests {
  let policy = RoutingPolicy()
  let start = Instant(nanoseconds: 1_000_000_000)

  @Test func aRetryTokenForTenLegsAndTwoASecond() {
    var budget = RetryBudget(policy: policy, now: start)
    #expect(budget.tokens == 50, "what may be saved up is there at the start")
    #expect(budget.take(50, policy: policy) == true)
    #expect(budget.take(1, policy: policy) == false)
    budget.primaryLegs(9, policy: policy, now: start)
    #expect(budget.take(1, policy: policy) == false)
    budget.primaryLegs(2, policy: policy, now: start)
    #expect(budget.take(1, policy: policy) == true)
    budget.primaryLegs(0, policy: policy, now: start + .milliseconds(900))
    #expect(budget.tokens > 1.8 && budget.tokens < 2, "\(budget.tokens)")
    budget.primaryLegs(10_000, policy: policy, now: start + .seconds(100))
    #expect(budget.tokens == 50)
  }

  @Test func aLostConnectionIsCoveredWhateverWasSaved() {
    var budget = RetryBudget(policy: policy, now: start)
    budget.cover(10)
    #expect(budget.tokens == 50)
    budget.cover(300)
    #expect(budget.tokens == 300)
    budget.primaryLegs(10, policy: policy, now: start + .seconds(5))
    #expect(budget.tokens == 300, "nothing is earned above the cap, and nothing is lost")
  }

  @Test func aHedgeTokenForTwentyLegsNoneAtTheStartTenAtMost() {
    var budget = HedgeBudget()
    #expect(budget.take(1) == false)
    budget.primaryLegs(19, policy: policy)
    #expect(budget.take(1) == false)
    budget.primaryLegs(1, policy: policy)
    #expect(budget.tokens == 1)
    #expect(budget.take(1) == true && budget.tokens == 0)
    budget.primaryLegs(100_000, policy: policy)
    #expect(budget.tokens == 10)
  }

  @Test func theReserveKeptBackForTheMerge() {
    for (timeout, reserve) in [(500, 10.0), (100, 10), (50, 5), (1, 0.1), (60_000, 10)] {
      let deadline = start + .milliseconds(timeout)
      #expect((deadline - policy.mergeBy(start: start, deadline: deadline)).milliseconds == reserve, "\(timeout) ms")
    }
  }
}

@Suite struct RetryTests {
  @Test func retriesEndWhenTheBudgetDoes() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    // 50 saved up and one for ten primaries: after 55 the budget is 50 + 5 − 55 = 0, and 0.1 more for each.
    for token in 1...100 as ClosedRange<RequestToken> {
      cluster.request(token)
      cluster.fail(leg: cluster.legs.count - 1)
      if cluster.answers[token] == nil { cluster.score(leg: cluster.legs.count - 1) }
    }
    let counters = cluster.node.router.counters
    #expect(counters.primaryLegs == 100)
    // Ejections leave one replica at times, which cannot be retried: legs are counted, not requests.
    #expect(counters.retryLegs <= 60)
    #expect(counters.retryLegs + counters.retriesRefused == 100)
    #expect(counters.retryLegs >= 55, "\(counters.retryLegs)")
  }

  @Test(arguments: [CallFailure.overloaded, .deadlineExceeded, .workerError("no")])
  func afterACompleteReplyNothingIsTriedElsewhere(failure: CallFailure) {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    cluster.request(1)
    cluster.fail(leg: 0, failure)
    #expect(cluster.legs.count == 1)
    #expect(cluster.error(1) != nil)
  }

  @Test func overloadNamesItselfWhenItIsTheOnlyReason() {
    var cluster = ClusterScript(workers: [[0], [1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1)
    cluster.fail(leg: 0, .overloaded)
    #expect(cluster.answers.isEmpty, "the other shard may still answer")
    cluster.fail(leg: 1, .overloaded)
    #expect(cluster.error(1)?.code == .overloaded)
    cluster.request(2)
    cluster.fail(leg: 2, .overloaded)
    cluster.fail(leg: 3, .workerError("no"))
    #expect(cluster.error(2)?.code == .unavailable)
  }

  /// The first that had let go of the shard is old news and does not count.
  /// A worker had let go of it, the next one died: a third is asked.
  @Test func aStaleReplicaAndALostConnectionLeaveAThird() {
    var cluster = ClusterScript(workers: [[0], [0], [0]], shardCount: 1)
    cluster.linkAll()
    cluster.request(1)
    cluster.fail(leg: 0, .wrongVersion)
    cluster.fail(leg: 1, .connectionLost)
    #expect(cluster.legs.count == 3)
    cluster.score(leg: 2)
    #expect(cluster.coverage(1)?.missing == [])
  }

  @Test func wrongVersionFromEveryReplicaIsToldAfterThreeAttempts() {
    var cluster = ClusterScript(workers: [[0], [0], [0], [0]], shardCount: 1)
    cluster.linkAll()
    cluster.request(1)
    for leg in 0..<3 { cluster.fail(leg: leg, .wrongVersion) }
    #expect(cluster.legs.count == 3)
    #expect(Set(cluster.legs.map(\.worker)).count == 3)
    #expect(cluster.error(1)?.missing == [Coverage.Missing(shard: ShardID(0), reason: .wrongVersion)])
    cluster.request(2)
    #expect(!cluster.legs[..<3].map(\.worker).contains(cluster.legs[3].worker))
    cluster.fail(leg: 3, .wrongVersion)
    cluster.request(3)
    #expect(cluster.error(3)?.missing == [Coverage.Missing(shard: ShardID(0), reason: .noReadyReplica)])
    cluster.pass(.milliseconds(400))
    cluster.request(4)
    #expect(cluster.legs.count == 5, "the next status makes them ready again")
    #expect(cluster.node.router.ejections.detected == 0, "a worker without the version is not a bad worker")
  }

  @Test func aRetryIsSpreadOverWhoHoldsTheShards() {
    var cluster = ClusterScript(workers: [[0, 1], [0], [1]], shardCount: 2)
    for worker in 0..<3 { cluster.latency[WorkerID(worker)] = .milliseconds(worker == 0 ? 2 : 5) }
    cluster.linkAll()
    cluster.serve(100)
    cluster.latency = [:]
    for token in 1...20 as ClosedRange<RequestToken> {
      let first = cluster.legs.count
      cluster.request(token)
      guard cluster.sent[first] == "w1: 0 1" else { continue }
      cluster.fail(leg: first)
      #expect(Array(cluster.sent[(first + 1)...]) == ["w2: 0", "w3: 1"])
      return
    }
    Issue.record("w1 was never asked for both")
  }

  @Test func everyShardOfALostConnectionIsTriedOnceMore() {
    var cluster = ClusterScript(workers: [[0, 1, 2, 3], [0, 1, 2, 3]], shardCount: 4)
    cluster.latency = [WorkerID(1): .milliseconds(1)]
    cluster.adjust = { $0.admits = 1000 }
    cluster.linkAll()
    // More legs on one connection than tokens can be saved up.
    for token in 1...200 as ClosedRange<RequestToken> { cluster.request(token) }
    let owed = cluster.legs.indices.filter { cluster.legs[$0].worker == WorkerID(0) }
    #expect(owed.count > 100)
    cluster.send(.unlinked(WorkerID(0)))
    for leg in owed { cluster.fail(leg: leg) }
    cluster.pass(.milliseconds(5))
    #expect((1...200).allSatisfy { cluster.coverage(RequestToken($0))?.answered == 4 })
    #expect(cluster.node.router.counters.retriesRefused == 0)
  }

  @Test func anInvalidReplyIsAFailureAndSaysNothingGoodOfItsWorker() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    var bad = 0
    for token in 1...200 as ClosedRange<RequestToken> {
      cluster.request(token)
      let leg = cluster.legs.count - 1
      if cluster.legs[leg].worker == WorkerID(0) {
        bad += 1
        var reply = cluster.reply(cluster.legs[leg].request)
        reply.shards.append(ShardID(7))
        cluster.send(.scored(cluster.legs[leg].id, .success(reply)))
        cluster.score(leg: leg + 1)
      } else {
        cluster.score(leg: leg)
      }
      #expect(cluster.coverage(token)?.answered == 1)
    }
    #expect(bad == 5, "five in a row eject")
    #expect(cluster.node.router.counters.invalidReplies == 5)
  }

  @Test func aFailureAfterTheTimeIsOverIsNotTriedAgain() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    cluster.request(1, timeout: .milliseconds(100))
    cluster.now = cluster.now + .milliseconds(95)
    cluster.fail(leg: 0)
    #expect(cluster.legs.count == 1, "its time was over at 90 ms")
    cluster.pass(.zero)
    #expect(cluster.error(1)?.missing.map(\.reason) == [.connectionLost])
  }
}
