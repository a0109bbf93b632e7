import Membership
import RankingCore
import Rollout
import Testing

@testable import Nodes
@testable import Routing

// A coordinator with an agreed document, under a scripted store: commits lie there until the script takes them.

private struct DeskScript {
  static let settings: RolloutSettings = {
    var settings = RolloutSettings()
    settings.shadow = StageLimits(minTime: .seconds(1), minSample: 2, deadline: .seconds(60))
    settings.canary = StageLimits(minTime: .seconds(1), minSample: 0, deadline: .seconds(60))
    settings.retire = StageLimits(minTime: .seconds(1), deadline: .seconds(60))
    settings.shadowShare = 10_000
    return settings
  }()
  var cluster: ClusterScript
  var commits: [CommitOrder] = []
  var loads: [ModelVersion] = []
  var forgotten: [ModelVersion] = []
  var replies: [CallToken: Result<HistoryEntry, RolloutError>] = [:]
  var asked = 0
  var revision: UInt64 = 0
  var document = RolloutDocument()
  var history: [HistoryEntry] = []
  /// Versions whose user table can be read here.
  var readable = ["v1", "v2"]
  var rehearsals: [Rehearsal] = []
  private var lastToken: RequestToken = 1000

  static func id(_ version: String) -> ModelVersion { ModelVersion(model: "home", version: version) }

  init(initial: [String] = ["v1"], coordinators: [String] = []) {
    var settings = CoordinatorSettings()
    settings.hasDocument = true
    settings.initial = initial.map(Self.id)
    settings.placement = PlacementPolicy()
    settings.coordinators = coordinators
    cluster = ClusterScript(workers: [[0, 1], [0, 1]], shardCount: 2, settings: settings)
    cluster.versions = ["v1"]
    for worker in 0..<2 { cluster.latency[WorkerID(worker)] = .milliseconds(1) }
    cluster.linkAll()
    take()
  }

  /// Carries out what is not the cluster script's.
  mutating func take() {
    while !cluster.rollouts.isEmpty {
      let effects = cluster.rollouts
      cluster.rollouts = []
      for effect in effects {
        switch effect {
        case .commit(let order): commits.append(order)
        case .load(let id):
          loads.append(id)
          if readable.contains(id.version) {
            cluster.send(.loaded(release(id)))
          } else {
            cluster.send(.releaseFailed(id, why: "no such file"))
          }
        case .forget(let id): forgotten.append(id)
        case .reply(let call, let result): replies[call] = result
        case .askOthers: asked += 1
        case .decided, .measure: break
        }
      }
    }
  }
  func release(_ id: ModelVersion) -> Release {
    var release = Release(
      id: id, dimension: 2, itemsPerShard: [10, 10], userColumns: [], contextColumns: [], coldStart: [0.5, 0.5],
      users: NoUsers())
    release.bytesPerShard = [100, 100]
    release.rehearsals = rehearsals
    return release
  }
  mutating func send(_ event: CoordinatorEvent) {
    cluster.send(event)
    take()
  }
  mutating func start(driving epoch: UInt64? = 1) {
    send(.agreed(revision: revision, document: []))
    if let epoch { send(.driving(epoch: epoch)) }
  }

  /// The store takes the oldest commit.
  mutating func commit() throws {
    let order = commits.removeFirst()
    try #require(order.expecting == revision, "\(order.expecting) at \(revision)")
    revision += 1
    document = try order.document.withUnsafeBytes { try RolloutDocument(json: $0) }
    history.append(try order.entry.withUnsafeBytes { try HistoryEntry(json: $0) })
    send(.agreed(revision: revision, document: order.document))
    send(.committed(.committed))
  }
  mutating func wait(_ duration: Duration) {
    cluster.pass(duration)
    take()
  }
  var shadow: ShadowCounts? { cluster.node.rollouts(now: cluster.now)?.progress.first?.shadow }
  var compared: Int { shadow?.compared ?? 0 }
  var stage: RolloutStage? { document["home"]?.rollout?.stage }

  /// With v1 serving, v2 as far as `stage`.
  mutating func roll(to stage: RolloutStage) throws {
    start()
    try commit()
    send(
      .commanded(1, .start(model: "home", version: "v2", settings: Self.settings), who: "ada"))
    try commit()
    cluster.versions = ["v1", "v2"]
    for _ in 0..<100 where self.stage != stage {
      lastToken += 1
      cluster.request(lastToken)
      wait(.milliseconds(500))
      while !commits.isEmpty, self.stage != stage { try commit() }
    }
    try #require(self.stage == stage, "\(history.map { "\($0.from) → \($0.to): \($0.why)" })")
  }
}

@Suite struct RolloutDeskTests {
  @Test func nothingIsServedBeforeTheDocumentIsKnown() throws {
    var script = DeskScript()
    #expect(!script.cluster.node.isReady && script.loads.isEmpty)
    script.start(driving: nil)
    #expect(script.commits.isEmpty, "only a driver adopts")
    script.send(.driving(epoch: 4))
    #expect(script.commits.count == 1 && script.commits[0].epoch == 4)
    try script.commit()
    #expect(script.document["home"]?.serving == "v1" && script.loads == [DeskScript.id("v1")])
    script.wait(.seconds(2))
    #expect(script.cluster.node.isReady)
    #expect(script.commits.isEmpty)
  }

  /// While a change is on its way to the store, the node does not ask to be woken again and again.
  @Test func aSlowStoreIsWaitedFor() throws {
    var script = DeskScript(coordinators: ["c1", "c2"])
    script.start()
    try script.commit()
    script.send(.commanded(1, .start(model: "home", version: "v2", settings: DeskScript.settings), who: "ada"))
    #expect(script.commits.count == 1)
    let (wakes, asked) = (script.cluster.wakes, script.asked)
    script.wait(.seconds(3))
    #expect(script.commits.count == 1 && script.asked == asked)
    #expect(script.cluster.wakes - wakes < 100, "\(script.cluster.wakes - wakes) wakes in 3 s")
    try script.commit()
    #expect(try script.replies[1]?.get().to == "load")
  }

  @Test func aConflictIsTriedAgainOnTheNewerDocument() throws {
    var script = DeskScript()
    script.start()
    try script.commit()
    script.send(.commanded(7, .pin(model: "home", version: "v2"), who: "ada"))
    let lost = script.commits.removeFirst()
    // Somebody else was first.
    script.revision += 1
    let other = try script.document.applying(.pin(model: "home", version: "v0"), who: "bob", atMilliseconds: 1).get()
    script.document = other.document
    script.send(.agreed(revision: script.revision, document: other.document.json))
    script.send(.committed(.conflict))
    #expect(script.commits.count == 1 && script.commits[0].expecting == lost.expecting + 1)
    try script.commit()
    #expect(script.document["home"]?.pinned == ["v0", "v2"])
    #expect(try script.replies[7]?.get().who == "ada")
    script.send(.commanded(8, .pin(model: "home", version: "v2"), who: "ada"))
    #expect(throws: RolloutError.self) { try script.replies[8]?.get() }
    script.send(.commanded(9, .unpin(model: "home", version: "v0"), who: "ada"))
    script.send(.committed(.lost("the disk is full")))
    let error = #expect(throws: RolloutError.self) { try script.replies[9]?.get() }
    #expect(error?.code == .unavailable && error?.message.contains("the disk is full") == true)
  }

  @Test func withoutTheStoreNothingMoves() throws {
    var script = DeskScript()
    try script.roll(to: .shadow)
    script.send(.storeAway("connection refused"))
    script.send(.driving(epoch: nil))
    script.wait(.seconds(30))
    #expect(script.commits.isEmpty)
    script.send(.commanded(5, .abort(model: "home", why: ""), who: "ada"))
    let error = #expect(throws: RolloutError.self) { try script.replies[5]?.get() }
    #expect(error?.code == .unavailable)
    script.cluster.request(1)
    script.wait(.milliseconds(10))
    #expect(try script.cluster.answers[1]?.get().release == DeskScript.id("v1"))
    script.send(.storeAway(nil))
    script.send(.driving(epoch: 9))
    script.wait(.seconds(90))
    #expect(script.commits.count == 1)
  }

  @Test func garbageInTheStoreIsNotActedUponNorOverwritten() throws {
    var script = DeskScript()
    script.start()
    try script.commit()
    script.send(.agreed(revision: 9, document: Array("{\"models\":7}".utf8)))
    let view = script.cluster.node.rollouts(now: script.cluster.now)
    #expect(view?.problem?.contains("cannot be read") == true && view?.document["home"]?.serving == "v1")
    script.send(.commanded(1, .pin(model: "home", version: "v2"), who: "ada"))
    #expect(script.commits.first?.expecting == 1, "so that the store refuses it")
  }

  /// Every request of the shadow stage is scored by both; the client gets the old version's answer, once.
  @Test func shadowedRequestsAreComparedAndTheCopyIsNobodys() throws {
    var script = DeskScript()
    try script.roll(to: .shadow)
    let before = script.cluster.legs.count
    script.cluster.request(40)
    let compared = script.compared
    #expect(Set(script.cluster.legs[before...].map(\.request.query.release.version)) == ["v1"])
    script.wait(.milliseconds(10))
    #expect(Set(script.cluster.legs[before...].map(\.request.query.release.version)) == ["v1", "v2"])
    #expect(try script.cluster.answers[40]?.get().release == DeskScript.id("v1"))
    #expect(script.cluster.answers.keys.allSatisfy { $0 < 1 << 62 }, "no answer of the cluster's own leaves")
    #expect(script.compared == compared + 1)
    #expect(script.shadow?.overlapSum == Double(script.compared))
    // Taken back: there is no copy of it.
    let open = script.cluster.legs.count
    script.cluster.request(41)
    script.send(.cancelled(41))
    script.wait(.milliseconds(10))
    #expect(Set(script.cluster.legs[open...].map(\.request.query.release.version)) == ["v1"])
  }

  /// One that is behind goes by the old version: it is not unloaded under its feet.
  @Test func aCoordinatorThatIsBehindHoldsUpUnloading() throws {
    var script = DeskScript(coordinators: ["c1", "c2"])
    try script.roll(to: .retire)
    for _ in 0..<10 {
      script.send(.told(peer: "c2", TrafficReport(revision: script.revision - 1)))
      script.wait(.seconds(1))
    }
    #expect(script.commits.isEmpty && script.document["home"]?.rollout?.isDrained == false)
    script.send(.told(peer: "c2", TrafficReport(revision: script.revision)))
    script.wait(.seconds(2))
    try script.commit()
    #expect(script.document["home"]?.rollout?.isDrained == true)
  }

  /// Driving is lost and got again while a golden query is being answered: that answer is not held against the next
  /// rehearsal's first query.
  @Test func theAnswerOfAnEarlierRehearsalIsNotTakenForALaterOnes() throws {
    func query(_ k: Int) -> Rehearsal {
      let items = [Rehearsal.Expected(id: "item10", score: 1), Rehearsal.Expected(id: "item0", score: 0)]
      return Rehearsal(request: RankingRequest(subject: .anyone, k: k), expected: Array(items.prefix(k)))
    }
    var script = DeskScript()
    script.rehearsals = [query(2), query(1)]
    for worker in 0..<2 { script.cluster.latency[WorkerID(worker)] = nil }
    try script.roll(to: .verify)
    func open() -> [Int] { script.cluster.legs.indices.filter { script.cluster.legs[$0].request.query.k < 3 } }
    var answered = 0
    func answer() {
      let legs = open()
      while answered < legs.count {
        script.cluster.score(leg: legs[answered])
        answered += 1
      }
      script.take()
    }
    // The first query by both replicas; the second one is under way.
    answer()
    answer()
    let late = open()[answered...]
    #expect(!late.isEmpty && late.allSatisfy { script.cluster.legs[$0].request.query.k == 1 })
    script.send(.driving(epoch: nil))
    script.send(.driving(epoch: 2))
    for leg in late { script.cluster.score(leg: leg) }
    answered += late.count
    script.take()
    for _ in 0..<20 where script.stage == .verify {
      answer()
      script.wait(.milliseconds(500))
      while !script.commits.isEmpty, script.stage == .verify { try script.commit() }
    }
    #expect(script.stage == .warm, "\(script.history.last?.why ?? "")")
  }

  @Test func aVersionThatCannotBeReadIsTurnedBackAndForgotten() throws {
    var script = DeskScript()
    script.readable = ["v1"]
    script.start()
    try script.commit()
    script.send(.commanded(1, .start(model: "home", version: "v2", settings: DeskScript.settings), who: "ada"))
    try script.commit()
    for _ in 0..<20 where script.document["home"]?.rollout != nil {
      script.wait(.seconds(1))
      while !script.commits.isEmpty { try script.commit() }
    }
    #expect(script.document["home"]?.last?.why.contains("no such file") == true, "\(script.history)")
    #expect(script.cluster.node.router.catalog.entries.map(\.id) == [DeskScript.id("v1")])
  }
}

@Suite struct RehearserTests {
  private static let release = ModelVersion(model: "home", version: "v2")
  private static func rehearser(_ queries: [Rehearsal]) -> Rehearser {
    var release = Release(
      id: release, dimension: 1, itemsPerShard: [1], userColumns: [], contextColumns: [], coldStart: [1],
      users: NoUsers())
    release.rehearsals = queries
    return Rehearser(release, now: Instant(nanoseconds: 0))
  }
  private static func answer(_ ids: [String], took: Duration = .milliseconds(1), missing: Bool = false) -> Answer {
    var list = ScoredList()
    for (place, id) in ids.enumerated() {
      let item = ScoredItem(score: Float(10 - place), ordinal: ItemOrdinal(place))
      Array(id.utf8).withUnsafeBytes { list.append(item, id: $0) }
    }
    return Answer(
      release: release,
      entries: ids.indices.map {
        Answer.Entry(
          item: ScoredItem(score: Float(10 - $0), ordinal: ItemOrdinal($0)), list: 0, position: Int32($0))
      }, lists: [list], coldStart: nil,
      coverage: Coverage(
        shards: 1, answered: missing ? 0 : 1, items: missing ? 0 : 1,
        missing: missing ? [Coverage.Missing(shard: ShardID(0), reason: .timeout)] : []), candidates: 1, quality: 1,
      unknown: [], requestID: "", took: took)
  }
  private static func query(_ user: String, _ expected: [String]?) -> Rehearsal {
    Rehearsal(
      request: RankingRequest(subject: .user(user)),
      expected: expected?.enumerated().map { Rehearsal.Expected(id: $1, score: Float(10 - $0)) })
  }

  @Test func everyGoldenQueryByEveryReplicaThenRoundsUntilFlat() {
    var rehearser = Self.rehearser([Self.query("a", ["x", "y"]), Self.query("b", nil)])
    var turns: [String] = []
    var now = Instant(nanoseconds: 1)
    func ask(_ mayWarm: Bool, took: Duration) {
      now = now + .milliseconds(1)
      guard let turn = rehearser.ask(as: 1, mayWarm: mayWarm, now: now), case .user(let user) = turn.request.subject
      else {
        return
      }
      turns.append("\(user)\(turn.replica)")
      rehearser.answered(.success(Self.answer(["x", "y"], took: took)), hasNaN: false, replicas: 2, now: now)
    }
    for _ in 0..<5 { ask(false, took: .zero) }
    #expect(turns == ["a0", "a1"] && rehearser.check == .passed && !rehearser.isWarm)
    turns = []
    // Each round a third faster, the fourth as fast as the third.
    for took in [900, 600, 400, 390, 390] {
      for _ in 0..<4 { ask(true, took: .microseconds(took)) }
    }
    #expect(turns.prefix(4) == ["a0", "a1", "b0", "b1"] && turns.count == 16)
    #expect(rehearser.isWarm && rehearser.rounds == 4)
  }

  @Test func aWrongAnswerIsToldAndAnIncompleteOneIsAskedForAgain() {
    var rehearser = Self.rehearser([Self.query("a", ["x", "y"])])
    let start = Instant(nanoseconds: 1)
    #expect(
      rehearser.ask(as: 1, mayWarm: false, now: start) != nil && rehearser.ask(as: 1, mayWarm: false, now: start) == nil
    )
    rehearser.answered(.success(Self.answer(["x", "y"], missing: true)), hasNaN: false, replicas: 1, now: start)
    #expect(rehearser.check == .pending && rehearser.ask(as: 1, mayWarm: false, now: start) == nil)
    let later = start + Rehearser.pause
    #expect(rehearser.ask(as: 1, mayWarm: false, now: later) != nil)
    rehearser.answered(.success(Self.answer(["x", "z"])), hasNaN: false, replicas: 1, now: later)
    #expect(
      rehearser.check == .failed("for user a: place 2 is z with 9.0, expected was y with 9.0"), "\(rehearser.check)")
    var other = Self.rehearser([Self.query("a", ["x"])])
    _ = other.ask(as: 1, mayWarm: false, now: start)
    other.answered(.success(Self.answer(["x"])), hasNaN: true, replicas: 1, now: start)
    #expect(other.check == .failed("for user a: the ranker gave NaN instead of a score"))
  }

  @Test func aBundleWithoutQueriesIsAsGoodAsRehearsed() {
    let rehearser = Self.rehearser([])
    #expect(rehearser.check == .passed && rehearser.isWarm)
  }

  @Test func agreementOfTwoLists() {
    func agreement(_ a: [String], _ b: [String]) -> ListAgreement { ListAgreement(Self.answer(a), Self.answer(b)) }
    #expect(agreement(["a", "b", "c"], ["a", "b", "c"]) == ListAgreement(overlap: 1, correlation: 1))
    #expect(agreement(["a", "b", "c"], ["c", "b", "a"]) == ListAgreement(overlap: 1, correlation: -1))
    #expect(agreement(["a", "b"], ["c", "d", "e", "a"]) == ListAgreement(overlap: 0.25, correlation: nil))
    #expect(agreement([], []) == ListAgreement(overlap: nil, correlation: nil))
    #expect(agreement(["a"], []) == ListAgreement(overlap: 0, correlation: nil))
  }

  /// However slow a version is, its rehearsal is half a client.
  @Test func restsAfterAnAnswer() {
    var rehearser = Self.rehearser([Self.query("a", nil), Self.query("b", nil)])
    let start = Instant(nanoseconds: 1_000_000)
    #expect(rehearser.ask(as: 1, mayWarm: true, now: start) != nil)
    let answered = start + .milliseconds(50)
    rehearser.answered(.success(Self.answer(["x"])), hasNaN: false, replicas: 1, now: answered)
    #expect(rehearser.ask(as: 2, mayWarm: true, now: answered + .milliseconds(49)) == nil)
    #expect(rehearser.ask(as: 2, mayWarm: true, now: answered + .milliseconds(50)) != nil)
  }
}

@Suite struct ShadowPairsTests {
  private let old = ModelVersion(model: "home", version: "v1")
  private let new = ModelVersion(model: "home", version: "v2")
  private func end(_ release: ModelVersion, _ milliseconds: UInt64) -> ShadowPairs.End {
    let origin = Router.Origin(release: release, wanted: 1, hasNaN: false, startedAt: at(0))
    return (.failure(RankingError(.unavailable, "")), origin, at(milliseconds))
  }
  private func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }
  private func open(_ pairs: inout ShadowPairs, _ token: RequestToken, _ milliseconds: UInt64) -> Bool {
    pairs.open(
      token, RankingRequest(subject: .anyone), timeout: .milliseconds(500), ("home-2", old, "v2"), now: at(milliseconds)
    )
  }

  /// The copy waits for the client's answer, and is not asked when that came from elsewhere.
  @Test func theCopyFollowsTheAnswer() throws {
    var pairs = ShadowPairs()
    #expect(open(&pairs, 1, 0))
    #expect(pairs.answered(1, end(new, 5)) == nil && pairs.isEmpty)
    #expect(open(&pairs, 2, 10))
    let asked = pairs.answered(2, end(old, 15))
    let copy = try #require(asked)
    #expect(copy.token == 2 | 1 << 63 && copy.version == "v2" && copy.request.priority == .batch)
    #expect(copy.timeout == .milliseconds(500) && pairs.counts.isEmpty)
    #expect(pairs.answered(copy.token, end(new, 20)) == nil && pairs.isEmpty)
    #expect(pairs.counts.map(\.rollout) == ["home-2"])
  }

  /// Copies keep a distance of four times what they take; until one has ended there is one.
  @Test func copiesOfASlowVersionAreFewerNotMoreAtOnce() throws {
    var pairs = ShadowPairs()
    func answer(_ token: RequestToken, _ milliseconds: UInt64, copy: UInt64) throws {
      let asked = pairs.answered(token, end(old, milliseconds))
      #expect(pairs.answered(try #require(asked).token, end(new, copy)) == nil)
    }
    #expect(open(&pairs, 1, 0) && !open(&pairs, 2, 1))
    try answer(1, 2, copy: 52)
    #expect(open(&pairs, 3, 60) && !open(&pairs, 4, 259))
    #expect(open(&pairs, 5, 260))
    // 50, then 10: the newest counts a quarter.
    try answer(3, 262, copy: 272)
    #expect(!open(&pairs, 6, 459) && open(&pairs, 7, 460))
    #expect(!open(&pairs, 8, 619) && open(&pairs, 9, 620))
  }
}
