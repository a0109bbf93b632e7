import Membership
import Nodes
import RankingCore
import Routing
import Testing

// Events in orders that are rare and legal: news for requests that are over, workers that go in the middle of things,
// versions that come later.

@Suite struct CoordinatorEdgeTests {
  static func lookup(_ cluster: ClusterScript, _ index: Int, dimension: Int = 2) -> LookupReply {
    let request = cluster.lookups[index].request
    let found = request.ids.map {
      LookupReply.Found(id: $0, ordinal: ItemOrdinal(1), vector: [Float](repeating: 1, count: dimension))
    }
    return LookupReply(release: request.release, shards: request.shards, found: found)
  }

  @Test func newsForARequestThatIsOverNeverReachesTheOneInItsPlace() {
    var cluster = ClusterScript(workers: [[0], [1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1)
    cluster.send(.cancelled(1))
    cluster.request(2, RankingRequest(subject: .anyone, k: 1))
    #expect(cluster.legs[0].id != cluster.legs[2].id)
    cluster.score(leg: 0)
    cluster.score(leg: 1)
    cluster.fail(leg: 0)
    #expect(cluster.answers.isEmpty, "the two replies were for the request before")
    cluster.score(leg: 2)
    cluster.score(leg: 3)
    #expect(cluster.ids(2) == ["item10"])
    cluster.score(leg: 3)
    cluster.send(.cancelled(2))
    #expect(cluster.node.router.counters.lateReplies == 3)
  }

  /// As many explanations as items, each as wide as the version's columns ask, all finite; none where nobody asked.
  @Test func explanationsThatDoNotFitAreAFailure() throws {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    func reply(_ width: Int, _ value: Double = 1) -> ScoreReply {
      var reply = cluster.reply(cluster.legs[cluster.legs.count - 1].request)
      reply.items.explanations = Explanations(
        items: 1, retrieval: [1], raw: [1], outputs: [], contributions: Array(repeating: value, count: width))
      return reply
    }
    var request = RankingRequest(subject: .anyone, k: 3)
    var wrong: UInt64 = 0
    for (token, explain, width, value) in [
      (1, true, 2, 1), (2, true, 4, 1), (3, true, 3, .nan), (4, true, 3, -.infinity), (5, false, 3, 1),
    ] as [(RequestToken, Bool, Int, Double)] {
      request.explain = explain
      cluster.request(token, request)
      cluster.send(.scored(cluster.legs[cluster.legs.count - 1].id, .success(reply(width, value))))
      wrong += 1
      #expect(cluster.answers[token] == nil && cluster.node.router.counters.invalidReplies == wrong)
      cluster.send(.scored(cluster.legs[cluster.legs.count - 1].id, .failure(.overloaded)))
      #expect(cluster.error(token) != nil)
      cluster.pass(.seconds(5))
    }
    request.explain = true
    cluster.request(6, request)
    #expect(cluster.legs[cluster.legs.count - 1].request.query.explain)
    cluster.send(.scored(cluster.legs[cluster.legs.count - 1].id, .success(reply(3))))
    let answer = try #require(try cluster.answers[6]?.get())
    #expect(answer.contributionNames == ["base", "retrieval_score", "ranker"])
    #expect(answer.lists[0].explanations?.contributions == [1, 1, 1])
  }

  @Test func explanationsBeyondTheLimitAreRefusedByName() {
    var cluster = ClusterScript(workers: [[0]], shardCount: 1)
    var wide = Release(
      id: ModelVersion(model: "wide", version: "v1"), dimension: 2, itemsPerShard: [10],
      userColumns: (0..<50).map { Column(name: "u\($0)", kind: .number) },
      contextColumns: [Column(name: "hour", kind: .number)], coldStart: [1, 1], users: NoUsers())
    wide.itemColumns = (0..<30).map { Column(name: "i\($0)", kind: .number) }
    cluster.send(.loaded(wide))
    cluster.adjust = { $0.holdings = [.init(release: wide.id, shardCount: 1, ready: [ShardID(0)])] }
    cluster.linkAll()
    var request = RankingRequest(subject: .anyone, k: 781)
    (request.model, request.version, request.explain) = ("wide", "v1", true)
    cluster.request(1, request)
    #expect(
      cluster.error(1)
        == RankingError(
          .invalidArgument,
          "\"explain\" gives 84 numbers an item here, for 781 items more than the 65536 of one answer; at most 780 "
            + "items can be explained at once"))
    request.k = 780
    cluster.request(2, request)
    (request.k, request.explain) = (1000, false)
    cluster.request(3, request)
    #expect(cluster.legs.map(\.request.query.k) == [780, 1000], "those two are asked")
  }

  /// A name may be used twice by mistake; shards of two bundles never meet in one answer.
  @Test func aWorkerWithAnotherBundleOfTheSameNameIsNotAsked() throws {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    var release = Release(
      id: ModelVersion(model: "home", version: "v2"), dimension: 2, itemsPerShard: [10], userColumns: [],
      contextColumns: [], coldStart: [1, 1], users: NoUsers())
    release.fingerprint = 7
    cluster.send(.loaded(release))
    cluster.adjust = { status in
      let fingerprint: UInt64 = status.name == "w1" ? 8 : 7
      status.holdings = [.init(release: release.id, shardCount: 1, ready: [ShardID(0)], fingerprint: fingerprint)]
    }
    cluster.linkAll()
    for token in 1...20 { cluster.request(RequestToken(token)) }
    #expect(cluster.legs.count >= 20 && cluster.legs.allSatisfy { $0.worker == WorkerID(1) })
    // One that does not say, as an older program does not, is believed.
    cluster.adjust = { $0.holdings = [.init(release: release.id, shardCount: 1, ready: [ShardID(0)])] }
    cluster.pass(.seconds(10))
    for token in 101...140 { cluster.request(RequestToken(token)) }
    #expect(cluster.legs.contains { $0.worker == WorkerID(0) })
  }

  @Test func aLegIsCountedOnceHoweverOftenItIsAnswered() {
    var cluster = ClusterScript(workers: [[0], [1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1)
    for _ in 0..<3 { cluster.score(leg: 0) }
    cluster.fail(leg: 0)
    #expect(cluster.answers.isEmpty)
    cluster.score(leg: 1)
    #expect(cluster.coverage(1)?.answered == 2)
    for worker in 0..<2 {
      #expect(cluster.node.router.view(of: WorkerID(worker), now: cluster.now)?.legsInFlight == 0)
    }
  }

  @Test func aLinkThatIsLostDuringLookupsIsTriedElsewhere() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    cluster.request(1, RankingRequest(subject: .recentItems(["a", "b"]), k: 3))
    let first = cluster.lookups[0]
    cluster.send(.unlinked(first.worker))
    cluster.send(.lookedUp(first.id, .failure(.connectionLost)))
    #expect(cluster.lookups.count == 2 && cluster.lookups[1].worker != first.worker)
    #expect(cluster.lookups[1].request == first.request)
    cluster.send(.lookedUp(cluster.lookups[1].id, .success(Self.lookup(cluster, 1))))
    cluster.score(leg: 0)
    #expect(cluster.coverage(1)?.items == 1)
  }

  @Test func aVectorThatCannotBeHadIsAnErrorThatNamesTheShard() {
    var cluster = ClusterScript(workers: [[0], [1]], shardCount: 2)
    cluster.linkAll()
    let lacking = ShardID.owner(of: "a", shards: 2)
    cluster.request(1, RankingRequest(subject: .item("a"), k: 3))
    cluster.send(.lookedUp(cluster.lookups[0].id, .failure(.connectionLost)))
    #expect(cluster.legs.isEmpty, "never a silently changed query")
    #expect(cluster.error(1)?.missing == [Coverage.Missing(shard: lacking, reason: .connectionLost)])
    cluster.request(2, RankingRequest(subject: .item("a"), k: 3))
    cluster.send(.lookedUp(cluster.lookups[1].id, .success(Self.lookup(cluster, 1, dimension: 3))))
    #expect(cluster.error(2)?.code == .unavailable, "a vector of another length is no vector")
  }

  @Test func lookupsThatComeTooLateStartNoLegs() {
    var cluster = ClusterScript(workers: [[0]], shardCount: 1)
    cluster.linkAll()
    cluster.request(1, timeout: .milliseconds(100), RankingRequest(subject: .item("a"), k: 3))
    cluster.now = cluster.now + .milliseconds(95)
    cluster.send(.lookedUp(cluster.lookups[0].id, .success(Self.lookup(cluster, 0))))
    cluster.pass(.zero)
    #expect(cluster.legs.isEmpty)
    #expect(cluster.error(1) != nil)
  }

  @Test func noRecentItemAtAllIsAColdStart() throws {
    var cluster = ClusterScript(workers: [[0, 1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1, RankingRequest(subject: .recentItems([]), k: 3))
    #expect(cluster.lookups.isEmpty)
    cluster.score(leg: 0)
    #expect(try cluster.answers[1]?.get().coldStart == true)
  }

  @Test func aMemberThatIsGoneWithLegsOnItLeavesNothingBehind() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    for token in 1...10 as ClosedRange<RequestToken> { cluster.request(token, timeout: .seconds(60)) }
    // Frozen: it is down, and gone after 30 s, with its legs still open; then they end.
    cluster.answersProbes = [WorkerID(1)]
    cluster.pass(.seconds(33))
    #expect(cluster.node.membership.members[0].state == .gone)
    let open = cluster.legs.indices
    for leg in open { cluster.fail(leg: leg) }
    for leg in open.upperBound..<cluster.legs.count { cluster.score(leg: leg) }
    cluster.pass(.seconds(30))
    #expect(cluster.node.router.inFlight == 0)
    #expect((1...10).allSatisfy { cluster.answers[RequestToken($0)] != nil })
  }

  @Test func aVersionAddedInTheMiddleOfARequestDoesNotTouchItsPin() throws {
    var cluster = ClusterScript(workers: [[0], [1]], shardCount: 2)
    cluster.linkAll()
    cluster.request(1)
    cluster.score(leg: 0)
    let next = ModelVersion(model: "home", version: "v2")
    cluster.adjust = { status in
      let shards = status.holdings[0].ready
      status.holdings.append(.init(release: next, shardCount: 2, ready: shards))
    }
    cluster.send(
      .loaded(
        Release(
          id: next, dimension: 2, itemsPerShard: [10, 10], userColumns: [], contextColumns: [], coldStart: [1, 1],
          users: NoUsers())))
    cluster.pass(.milliseconds(400))
    cluster.fail(leg: 1)
    #expect(cluster.legs.count == 2, "its shard has no other replica")
    #expect(try cluster.answers[1]?.get().release.version == "v1")
    cluster.request(2)
    #expect(cluster.legs.suffix(2).allSatisfy { $0.request.query.release == next }, "the last one serves")
    var named = RankingRequest(subject: .anyone)
    named.version = "v1"
    cluster.request(3, named)
    #expect(cluster.legs.suffix(2).allSatisfy { $0.request.query.release == ClusterScript.release })
  }

  @Test func anIncompleteVersionGivesWayToACompletePublishedOne() {
    var cluster = ClusterScript(workers: [[0], [1]], shardCount: 2)
    let next = ModelVersion(model: "home", version: "v2")
    var holdsNext: Set<String> = ["w1", "w2"]
    cluster.adjust = { status in
      guard holdsNext.contains(status.name) else { return }
      status.holdings.append(.init(release: next, shardCount: 2, ready: status.holdings[0].ready))
    }
    cluster.linkAll()
    cluster.send(
      .loaded(
        Release(
          id: next, dimension: 2, itemsPerShard: [10, 10], userColumns: [], contextColumns: [], coldStart: [1, 1],
          users: NoUsers())))
    cluster.pass(.milliseconds(400))
    cluster.request(1)
    #expect(cluster.legs.last?.request.query.release == next)
    holdsNext = ["w1"]
    cluster.adjust = { status in
      guard status.name == "w1" else { return }
      status.holdings.append(.init(release: next, shardCount: 2, ready: status.holdings[0].ready))
    }
    cluster.pass(.milliseconds(400))
    cluster.request(2)
    #expect(cluster.legs.last?.request.query.release == ClusterScript.release)
  }

  @Test func aSnapshotOfAnotherNumberOfShardsIsNotBelieved() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.adjust = { if $0.name == "w1" { $0.holdings[0].shardCount = 7 } }
    cluster.linkAll()
    for token in 1...20 as ClosedRange<RequestToken> {
      cluster.request(token)
      cluster.score(leg: cluster.legs.count - 1)
    }
    #expect(cluster.legs.allSatisfy { $0.worker == WorkerID(1) })
  }

  @Test func aConnectionThatIsClosingTakesNoNewLegsAndItsOpenOnesGoOn() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    cluster.request(1)
    let worker = cluster.legs[0].worker
    cluster.send(.closing(worker))
    for token in 2...9 as ClosedRange<RequestToken> { cluster.request(token) }
    #expect(cluster.legs.dropFirst().allSatisfy { $0.worker != worker })
    cluster.score(leg: 0)
    #expect(cluster.coverage(1)?.answered == 1)
    #expect(cluster.node.router.ejections.detected == 0)
  }

  @Test func aDrainingDriverSleeps() {
    var settings = CoordinatorSettings()
    settings.placement = PlacementPolicy()
    var cluster = ClusterScript(workers: [[0]], shardCount: 1, settings: settings)
    cluster.linkAll()
    cluster.send(.draining)
    var wakeups = 0
    let end = cluster.now + .seconds(10)
    while let at = cluster.wakeAt, at <= end, wakeups < 1000 {
      cluster.now = max(cluster.now, at)
      cluster.wakeAt = nil
      cluster.send(.woke)
      wakeups += 1
    }
    #expect(wakeups < 150, "four looks and three probes a second: \(wakeups) in ten seconds")
    #expect(!cluster.node.isReady)
  }

  @Test func aWorkerMayGoWhenAnotherThatStaysHasItsShards() {
    var cluster = ClusterScript(workers: [[0, 1], [0], [1]], shardCount: 2)
    cluster.linkAll()
    func ask(_ name: String, _ incarnation: UInt64 = 1) -> Bool? {
      var effects: [CoordinatorEffect] = []
      let request = LeaveRequest(name: name, incarnation: incarnation)
      cluster.node.handle(.leaveRequested(1, request), now: cluster.now, into: &effects)
      for case .replyLeave(_, let reply) in effects { return reply.mayGo }
      return nil
    }
    #expect(ask("nobody") == true)
    #expect(ask("w1", 9) == true, "that process is not known any more")
    #expect(ask("w2") == true, "w1 has its shard")
    #expect(ask("w1") == false, "w2 is leaving, so w1 would be the last of shard 0")
    cluster.holdings[2] = [ShardID(0), ShardID(1)]
    cluster.pass(.milliseconds(400))
    #expect(ask("w1") == true, "w3 has all of it now")
    #expect(ask("w3") == false)
  }

  @Test func readinessFollowsWhatCanBeAnswered() {
    var cluster = ClusterScript(workers: [[0], [1]], shardCount: 2)
    #expect(!cluster.node.isReady)
    cluster.linkAll()
    #expect(cluster.node.isReady)
    cluster.send(.unlinked(WorkerID(0)))
    #expect(cluster.node.isReady, "half of the items can be answered for")
    cluster.send(.unlinked(WorkerID(1)))
    #expect(!cluster.node.isReady)
  }

  /// Time that leaps while requests are open: all are answered, nothing is asked any more, and the next one works.
  @Test(arguments: [1, 10, 3600, 1_000_000])
  func timeThatLeaps(seconds: Int) {
    var cluster = ClusterScript(workers: [[0, 1], [0, 1]], shardCount: 2)
    for worker in 0..<2 { cluster.latency[WorkerID(worker)] = .milliseconds(2) }
    cluster.linkAll()
    cluster.serve(300)
    cluster.latency = [:]
    for token in 1...20 as ClosedRange<RequestToken> { cluster.request(token) }
    let legs = cluster.legs.count
    cluster.now = cluster.now + .seconds(seconds)
    cluster.send(.woke)
    #expect(cluster.legs.count == legs)
    #expect((1...20).allSatisfy { cluster.answers[RequestToken($0)] != nil })
    cluster.pass(.seconds(1))
    cluster.request(21)
    for leg in legs..<cluster.legs.count { cluster.score(leg: leg) }
    #expect(cluster.coverage(21)?.items == 1)
  }
}
