import Membership
import Nodes
import RankingCore
import Routing
import Testing

@Suite struct CoordinatorNodeTests {
  @Test func answersWhenEveryShardHas() {
    var cluster = ClusterScript(workers: [[0, 1], [2, 3]], shardCount: 4)
    cluster.linkAll()
    cluster.request(1)
    #expect(cluster.sent == ["w1: 0 1", "w2: 2 3"])
    cluster.score(leg: 0)
    #expect(cluster.answers.isEmpty, "two shards are still owed")
    cluster.score(leg: 1)
    #expect(cluster.ids(1) == ["item30", "item20", "item10"])
    #expect(cluster.coverage(1) == Coverage(shards: 4, answered: 4, items: 1, missing: []))
  }

  @Test func refusesBeforeEveryShardWasReady() {
    var cluster = ClusterScript(workers: [[0]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1)
    #expect(cluster.error(1)?.code == .unavailable)
    #expect(cluster.error(1)?.message == "home/v1 is not published yet: not all of its shards have been ready")
  }

  @Test func lostConnectionIsTriedOnceMoreElsewhere() {
    var cluster = ClusterScript(workers: [[0, 1], [0, 1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1)
    let lost = cluster.legs[0]
    let before = cluster.legs.count
    cluster.send(.unlinked(lost.worker))
    cluster.send(.scored(lost.id, .failure(.connectionLost)))
    #expect(cluster.legs.count == before + 1)
    let again = cluster.legs[before]
    #expect(again.worker != lost.worker && again.request == lost.request, "the same pin, query and shards")
    for index in 1..<cluster.legs.count { cluster.score(leg: index) }
    #expect(cluster.coverage(1)?.answered == 2)
    #expect(cluster.node.router.counters.retryLegs == 1)
  }

  @Test func aShardIsTriedTwiceAtMost() {
    var cluster = ClusterScript(workers: [[0], [0], [0]], shardCount: 1)
    cluster.linkAll()
    cluster.request(1)
    for index in 0..<2 { cluster.send(.scored(cluster.legs[index].id, .failure(.connectionLost))) }
    #expect(cluster.legs.count == 2)
    #expect(cluster.error(1)?.message == "no shard answered: shard 0 (connection lost)")
  }

  @Test func bothReplicasDeadNamesTheShards() {
    var cluster = ClusterScript(workers: [[0, 1], [0, 1], [2, 3]], shardCount: 4)
    cluster.linkAll()
    for worker in 0..<2 { cluster.send(.unlinked(WorkerID(worker))) }
    cluster.request(1)
    #expect(cluster.sent == ["w3: 2 3"])
    cluster.score(leg: 0)
    let missing = [0, 1].map { Coverage.Missing(shard: ShardID($0), reason: .noReadyReplica) }
    #expect(cluster.coverage(1) == Coverage(shards: 4, answered: 2, items: 0.5, missing: missing))

    var strict = RankingRequest(subject: .anyone, k: 3)
    strict.minCoverage = 1
    cluster.request(2, strict)
    #expect(cluster.legs.count == 1, "what cannot be had is refused before anybody is asked")
    #expect(cluster.error(2)?.code == .unavailable)
    #expect(cluster.error(2)?.missing == missing)
  }

  @Test func silenceIsAnsweredAtTheDeadlineWithWhatIsThere() {
    var cluster = ClusterScript(workers: [[0], [1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1, timeout: .milliseconds(100))
    cluster.score(leg: 0)
    cluster.pass(.milliseconds(89))
    #expect(cluster.answers.isEmpty, "10 ms are kept back, so the answer is due at 90 ms")
    cluster.pass(.milliseconds(1))
    #expect(cluster.coverage(1)?.missing == [Coverage.Missing(shard: ShardID(1), reason: .timeout)])
    #expect(cluster.cancelled == [cluster.legs[1].id])
    cluster.score(leg: 1)
    #expect(cluster.node.router.counters.lateReplies == 1)
  }

  @Test func cancellingStopsTheLegs() {
    var cluster = ClusterScript(workers: [[0], [1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1)
    cluster.send(.cancelled(1))
    #expect(cluster.cancelled == cluster.legs.map(\.id))
    cluster.score(leg: 0)
    cluster.score(leg: 1)
    #expect(cluster.answers.isEmpty)
    #expect(cluster.node.router.inFlight == 0)
  }

  @Test func aReplyOfAnotherVersionIsNeverMerged() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    cluster.request(1)
    var wrong = cluster.reply(cluster.legs[0].request)
    wrong.release.version = "v2"
    cluster.send(.scored(cluster.legs[0].id, .success(wrong)))
    #expect(cluster.answers.isEmpty)
    #expect(cluster.node.router.counters.invalidReplies == 1)
    cluster.score(leg: 1)
    #expect(cluster.ids(1) == ["item0"])
  }

  @Test func vectorsOfAnotherVersionAreNeverUsed() {
    var cluster = ClusterScript(workers: [[0, 1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1, RankingRequest(subject: .item("a"), k: 3))
    let lookup = cluster.lookups[0]
    let found = LookupReply.Found(id: "a", ordinal: ItemOrdinal(1), vector: [1, 0])
    let other = ModelVersion(model: "home", version: "v2")
    cluster.send(
      .lookedUp(lookup.id, .success(LookupReply(release: other, shards: lookup.request.shards, found: [found]))))
    #expect(cluster.legs.isEmpty)
    #expect(cluster.error(1)?.code == .unavailable)
  }

  @Test func aReplicaWithoutTheVersionIsAvoidedUntilItsNextStatus() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    cluster.request(1)
    let lacking = cluster.legs[0].worker
    cluster.send(.scored(cluster.legs[0].id, .failure(.wrongVersion)))
    cluster.score(leg: 1)
    for token in 2..<12 as Range<RequestToken> { cluster.request(token) }
    #expect(cluster.legs.dropFirst(2).allSatisfy { $0.worker != lacking })
  }

  @Test func unknownUserGetsTheColdStartVectorAndIsTold() {
    let known = UserRecord(
      vector: [1, 2], values: [], history: ShardedOrdinals(ordinals: [3, 5], ends: [1, 2]))
    var cluster = ClusterScript(workers: [[0, 1]], shardCount: 2, users: ["ann": known])
    cluster.linkAll()
    cluster.request(1, RankingRequest(subject: .user("bob"), k: 3))
    #expect(cluster.legs[0].request.query.vector == [0.5, 0.5])
    cluster.score(leg: 0)
    #expect(try! cluster.answers[1]!.get().coldStart == true)

    var seen = RankingRequest(subject: .user("ann"), k: 3)
    seen.excludeSeen = true
    cluster.request(2, seen)
    #expect(cluster.legs[1].request.query.vector == [1, 2])
    #expect(cluster.legs[1].request.tasks.map(\.excludedOrdinals) == [[3], [5]])
  }

  @Test func recentItemsAreLookedUpWeightedAndUnknownOnesListed() {
    var cluster = ClusterScript(workers: [[0, 1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1, RankingRequest(subject: .recentItems(["a", "ghost", "b"]), k: 3))
    #expect(cluster.legs.isEmpty)
    let lookup = cluster.lookups[0]
    #expect(Set(lookup.request.ids) == ["a", "ghost", "b"])
    let found = [("a", [1, 0]), ("b", [0, 1])].map {
      LookupReply.Found(id: $0.0, ordinal: ItemOrdinal(1), vector: $0.1.map { Float($0) })
    }
    cluster.send(
      .lookedUp(
        lookup.id, .success(LookupReply(release: ClusterScript.release, shards: lookup.request.shards, found: found))))
    #expect(cluster.legs[0].request.query.vector == [0.85, 1])
    cluster.score(leg: 0)
    #expect(try! cluster.answers[1]!.get().unknown == ["ghost"])
  }

  @Test func rankAsksOnlyTheOwnersAndListsTheUnknown() {
    var cluster = ClusterScript(workers: [[0, 1, 2, 3]], shardCount: 4)
    cluster.linkAll()
    cluster.request(1, RankingRequest(kind: .rank(["item0"]), subject: .anyone))
    let owner = ShardID.owner(of: "item0", shards: 4)
    #expect(cluster.legs[0].request.tasks.map(\.shard) == [owner])
    cluster.send(
      .scored(
        cluster.legs[0].id, .success(ScoreReply(release: ClusterScript.release, shards: [owner], items: ScoredList()))))
    #expect(try! cluster.answers[1]!.get().unknown == ["item0"])
    #expect(cluster.coverage(1)?.answered == 4)
  }

  @Test func unknownModelVersionAndDimensionAreNamed() {
    var cluster = ClusterScript(workers: [[0]], shardCount: 1)
    cluster.linkAll()
    var request = RankingRequest(subject: .anyone)
    request.model = "shop"
    cluster.request(1, request)
    #expect(cluster.error(1)?.message == "unknown model \"shop\"; served here: \"home\"")
    request.model = "home"
    request.version = "v9"
    cluster.request(2, request)
    #expect(cluster.error(2)?.message == "unknown version \"v9\" of model \"home\"; served here: \"v1\"")
    cluster.request(3, RankingRequest(subject: .vector([1, 2, 3])))
    #expect(cluster.error(3)?.message == "\"vector\" has 3 numbers; home/v1 takes 2")
  }

  @Test func inFlightRequestsAreBoundedByTheRoomOfWorkers() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    let room = Int(cluster.node.router.policy.admitsUnknown)
    for token in 0..<RequestToken(2 * room) { cluster.request(token) }
    #expect(cluster.answers.isEmpty)
    cluster.request(9999)
    #expect(cluster.error(9999)?.code == .overloaded)
    #expect(cluster.legs.count == 2 * room, "a request that is refused sends no leg")
  }
}

@Suite struct FailureDetectionTests {
  @Test(arguments: UInt64(1)...20)
  func aFrozenWorkerIsDownWithinTheBoundAndBackAfterTwoAnswers(seed: UInt64) {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1, seed: seed)
    cluster.linkAll()
    cluster.pass(.milliseconds(1000 + Int(seed) * 17))
    let frozen = WorkerID(0)
    cluster.answersProbes.remove(frozen)
    let start = cluster.now
    while cluster.node.membership.members[0].state != .down, cluster.now - start < .seconds(3) {
      cluster.pass(.milliseconds(1))
    }
    #expect(cluster.now - start <= .milliseconds(1200))
    #expect(cluster.now - start >= .milliseconds(500), "two probes must have had their time")
    #expect(cluster.node.membership.members[1].state == .alive)
    cluster.answersProbes.insert(frozen)
    let thawed = cluster.now
    while cluster.node.membership.members[0].state != .alive, cluster.now - thawed < .seconds(3) {
      cluster.pass(.milliseconds(1))
    }
    #expect(cluster.now - thawed <= .milliseconds(1300))
  }

  @Test(arguments: UInt64(1)...20)
  func aPauseBelowTwoHundredMillisecondsChangesNothing(seed: UInt64) {
    var cluster = ClusterScript(workers: [[0]], shardCount: 1, seed: seed)
    cluster.linkAll()
    cluster.pass(.milliseconds(1000 + Int(seed) * 13))
    // A paused process answers late, not never: a probe sent in the pause is answered at its end.
    var effects: [CoordinatorEffect] = []
    var open: [(WorkerID, UInt64)] = []
    let end = cluster.now + .milliseconds(200)
    while let at = cluster.wakeAt, at < end {
      cluster.now = at
      cluster.node.handle(.woke, now: at, into: &effects)
      cluster.wakeAt = nil
      for case .wake(let next) in effects { cluster.wakeAt = next }
      for case .probe(let worker, let token, _) in effects { open.append((worker, token)) }
      effects.removeAll()
    }
    cluster.now = end
    for (worker, token) in open {
      cluster.send(.probed(worker, token: token, .success(cluster.status(worker))))
    }
    #expect(cluster.node.membership.members[0].state == .alive)
  }

  @Test func theFirstMissSendsTheNextProbeAtOnce() {
    var membership = Membership(seed: 3)
    var now = Instant(nanoseconds: 0)
    let worker = membership.add(name: "w1", now: now)
    var probes: [(token: UInt64, at: Instant)] = []
    var isAnswering = true
    func take(_ effects: [Membership.Effect]) -> [UInt64] {
      effects.compactMap { if case .probe(_, let token, _) = $0 { token } else { nil } }
    }
    var effects: [Membership.Effect] = []
    membership.linked(worker, now: now, into: &effects)
    while probes.count < 8, let due = membership.due {
      for token in take(effects) {
        probes.append((token, now))
        isAnswering = probes.count <= 4
        var answered: [Membership.Effect] = []
        let status = WorkerStatus(name: "w1", incarnation: 1)
        if isAnswering {
          membership.probeAnswered(worker, token: token, status: status, now: now, into: &answered)
        }
      }
      effects.removeAll()
      now = due
      membership.tick(now: now, into: &effects)
    }
    // The fifth probe is the first unanswered one: its time runs out 300 ms later, and another goes out that instant.
    let missedAt = probes[4].at + membership.policy.probeTimeout
    #expect(probes.contains { $0.at == missedAt })
  }

  @Test func aLostLinkIsActedOnAtOnce() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    cluster.send(.unlinked(WorkerID(0)))
    #expect(cluster.node.membership.members[0].state == .down)
    for token in 1...10 as ClosedRange<RequestToken> { cluster.request(token) }
    #expect(cluster.legs.allSatisfy { $0.worker == WorkerID(1) })
  }
}
