import RankingCore
import Scoring
import Testing

@Suite struct LegScorerTests {
  /// Scores the request at S shards and compares with plain sorting, items, ids and score bits.
  private func check(
    _ catalogue: Catalogue, _ request: ScoreRequest, shards: Int, ranker: Ranker = .none,
    final: (Int, Float) -> Float? = { $1 }, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let hosted = try catalogue.hosted(shards: shards, ranker: ranker)
    let reply = try LegScorer().score(request, holding: hosted, cancelled: CancellationFlag()).get()
    let expected = catalogue.expected(request, shards: shards, final: final)
    #expect(reply.items.lines == catalogue.lines(expected.items), sourceLocation: sourceLocation)
    #expect(reply.droppedNaN == expected.dropped, sourceLocation: sourceLocation)
    #expect(reply.items.isWellFormed, sourceLocation: sourceLocation)
    #expect(reply.shards == request.tasks.map(\.shard), sourceLocation: sourceLocation)
  }

  @Test(arguments: Terrain.allCases)
  func retrievalEqualsSortingEverything(terrain: Terrain) throws {
    // 3000 rows of one shard: several blocks, and ties by the thousand where vectors repeat.
    for (dimension, k) in [(3, 1), (3, 20), (17, 100), (64, 3500)] {
      let catalogue = Catalogue(count: 3000, dimension: dimension, terrain: terrain == .huge ? .ordinary : terrain)
      let request = catalogue.request(catalogue.query(terrain: .ties, k: k), shards: 1)
      try check(catalogue, request, shards: 1)
    }
  }

  @Test func theBestComeWhateverTheOrderOfTheRows() throws {
    for direction: Float in [1, -1] {
      var catalogue = Catalogue(count: 5000, dimension: 1)
      catalogue.vectors = (0..<5000).map { direction * Float($0 / 3) }
      var query = catalogue.query(k: 50, candidates: 70)
      query.vector = [1]
      try check(catalogue, catalogue.request(query, shards: 1), shards: 1)
    }
  }

  @Test(arguments: [1, 3, 16])
  func shardingChangesNothing(shards: Int) throws {
    let catalogue = Catalogue(count: 2000, dimension: 20)
    let query = catalogue.query(k: 30)
    let whole = catalogue.expected(catalogue.request(query, shards: 1), shards: 1).items
    let reply = try LegScorer().score(
      catalogue.request(query, shards: shards), holding: catalogue.hosted(shards: shards),
      cancelled: CancellationFlag()
    ).get()
    #expect(reply.items.lines == catalogue.lines(whole))
  }

  @Test func excludedItemsMakeRoomForOthers() throws {
    let catalogue = Catalogue(count: 2000, dimension: 8)
    let query = catalogue.query(k: 25, candidates: 25)
    let best = catalogue.expected(catalogue.request(query, shards: 1), shards: 1).items.map { Int($0.ordinal.rawValue) }
    for shards in [1, 3] {
      // The whole top by ordinal, the same by id, a mixture with strangers, and nearly everything.
      let ids = best.map { catalogue.ids[$0] } + ["nobody", ""]
      try check(catalogue, catalogue.request(query, shards: shards, excluding: best.sorted()), shards: shards)
      try check(catalogue, catalogue.request(query, shards: shards, excludingIDs: ids), shards: shards)
      try check(
        catalogue,
        catalogue.request(
          query, shards: shards, excluding: Array(stride(from: 0, to: 2000, by: 2)), excludingIDs: ids),
        shards: shards)
      try check(catalogue, catalogue.request(query, shards: shards, excluding: Array(0..<1990)), shards: shards)
      try check(catalogue, catalogue.request(query, shards: shards, excluding: Array(0..<2000)), shards: shards)
    }
  }

  @Test func exclusionsOutsideTheCatalogueMeanNothing() throws {
    let catalogue = Catalogue(count: 100, dimension: 4)
    var request = catalogue.request(catalogue.query(k: 10), shards: 1)
    request.tasks[0].excludedOrdinals = [5000, .max - 1, .max, 3, 3]
    try check(catalogue, request, shards: 1)
  }

  @Test func fewerCandidatesThanK() throws {
    let catalogue = Catalogue(count: 500, dimension: 8)
    for shards in [1, 4] {
      try check(
        catalogue, catalogue.request(catalogue.query(k: 40, candidates: 7), shards: shards), shards: shards)
    }
  }

  @Test func minScoreIsInclusive() throws {
    let catalogue = Catalogue(count: 500, dimension: 8)
    let sorted = catalogue.expected(catalogue.request(catalogue.query(k: 500, candidates: 500), shards: 1), shards: 1)
    for limit in [sorted.items[4].score, sorted.items[499].score, .infinity, -.infinity] {
      let query = catalogue.query(k: 10, candidates: 500, minScore: limit)
      try check(catalogue, catalogue.request(query, shards: 3), shards: 3)
    }
    let kept = try LegScorer().score(
      catalogue.request(catalogue.query(k: 10, minScore: sorted.items[4].score), shards: 1),
      holding: catalogue.hosted(shards: 1), cancelled: CancellationFlag()
    ).get()
    #expect(kept.items.count == 5)
  }

  @Test func rankScoresTheNamedItemsOnce() throws {
    let catalogue = Catalogue(count: 400, dimension: 20)
    let named = ["item-7", "item-399", "stranger", "item-7", "item-12", "item-0", ""]
    for shards in [1, 3] {
      let query = catalogue.query(mode: .rank, k: 1, candidates: 1)
      try check(
        catalogue,
        catalogue.request(query, shards: shards, excluding: [12], excludingIDs: ["item-0"], items: named),
        shards: shards)
      try check(
        catalogue,
        catalogue.request(query, shards: shards, items: catalogue.ids + catalogue.ids), shards: shards)
      try check(catalogue, catalogue.request(query, shards: shards), shards: shards)
    }
    let reply = try LegScorer().score(
      catalogue.request(catalogue.query(mode: .rank, k: 1), shards: 3, items: named),
      holding: catalogue.hosted(shards: 3), cancelled: CancellationFlag()
    ).get()
    #expect(Set((0..<reply.items.count).map { reply.items.ids[$0] }) == ["item-7", "item-399", "item-12", "item-0"])
  }

  @Test func oneScorerServesLegsOfEverySize() throws {
    let scorer = LegScorer()
    let hosted = try [1, 5].map { try Catalogue(count: 700, dimension: 12).hosted(shards: $0) }
    let catalogue = Catalogue(count: 700, dimension: 12)
    for (round, k) in [3, 600, 1, 50, 700, 2].enumerated() {
      let shards = round % 2 == 0 ? 1 : 5
      let query = catalogue.query(seed: UInt64(round), k: k, candidates: 1000)
      let request = catalogue.request(query, shards: shards, excluding: Array(0..<round * 40))
      let reply = try scorer.score(request, holding: hosted[round % 2], cancelled: CancellationFlag()).get()
      #expect(reply.items.lines == catalogue.lines(catalogue.expected(request, shards: shards).items))
    }
  }

  @Test func emptyShardsAnswerWithNothing() throws {
    let catalogue = Catalogue(count: 2, dimension: 4)
    try check(catalogue, catalogue.request(catalogue.query(k: 5), shards: 16), shards: 16)
    try check(
      catalogue, catalogue.request(catalogue.query(mode: .rank, k: 5), shards: 16, items: ["item-1"]), shards: 16)
    let none = Catalogue(count: 0, dimension: 4)
    try check(none, none.request(none.query(k: 5), shards: 1), shards: 1)
  }

  @Test func whatDoesNotFitIsRefused() throws {
    let catalogue = Catalogue(count: 50, dimension: 4)
    let ranker = Ranker.linear(
      try LinearRanker(intercept: 0, terms: [], itemColumns: 1, userColumns: 2, contextColumns: 1))
    var hosted = try catalogue.hosted(shards: 2, ranker: ranker)
    let good = catalogue.request(
      catalogue.query(k: 5, userValues: [1, 2], contextValues: [3]), shards: 2)
    func failure(_ change: (inout ScoreRequest) -> Void) -> CallFailure? {
      var request = good
      change(&request)
      let result = LegScorer().score(request, holding: hosted, cancelled: CancellationFlag())
      if case .failure(let failure) = result { return failure }
      return nil
    }
    #expect(failure { _ in } == nil)
    #expect(failure { $0.query.release.version = "v2" } == .wrongVersion)
    #expect(failure { $0.tasks[0].shard = ShardID(2) } == .wrongVersion)
    #expect(failure { $0.tasks[0].shard = ShardID(rawValue: .max) } == .wrongVersion)
    #expect(failure { $0.tasks[0].shard = ShardID(1) } == .workerError("shard 1 is asked twice"))
    #expect(
      failure { $0.query.vector.append(0) } == .workerError("vector has 5 values, home/v1 has dimension 4"))
    #expect(failure { $0.query.k = 0 } == .workerError("k is 0, at least 1 is allowed"))
    #expect(failure { $0.query.candidates = -1 } == .workerError("candidates is -1, at least 1 is allowed"))
    #expect(failure { $0.query.k = .max } == nil)
    #expect(failure { $0.query.candidates = .max } == nil)
    #expect(failure { $0.query.minScore = .nan } == .workerError("min_score is not a number"))
    for value: Float in [.nan, .infinity, 2e18] {
      #expect(
        failure { $0.query.vector[1] = value }
          == .workerError("vector has a value that is not finite, or a norm above 1e+18"))
    }
    #expect(
      failure { $0.query.userValues = [] }
        == .workerError("0 user values, the ranker of home/v1 has 2 user columns"))
    #expect(
      failure { $0.query.contextValues = [1, 2] }
        == .workerError("2 context values, the ranker of home/v1 has 1 context columns"))
    hosted.remove(ShardID(1))
    #expect(failure { _ in } == .wrongVersion)
    #expect(hosted.shards == [ShardID(0)])
  }

  @Test func raisedFlagsEndTheLeg() throws {
    let catalogue = Catalogue(count: 50, dimension: 4)
    let flag = CancellationFlag()
    flag.cancel()
    for mode in [ScoreMode.retrieve, .rank] {
      let request = catalogue.request(catalogue.query(mode: mode, k: 5), shards: 2, items: ["item-1"])
      let result = LegScorer().score(request, holding: try catalogue.hosted(shards: 2), cancelled: flag)
      #expect(result == .failure(.deadlineExceeded))
      let nothing = catalogue.request(catalogue.query(mode: .rank, k: 5), shards: 2)
      let idle = LegScorer().score(nothing, holding: try catalogue.hosted(shards: 2), cancelled: flag)
      #expect(idle == .failure(.deadlineExceeded))
    }
  }

  @Test func rowsWithoutAFiniteScoreAreLeftOut() throws {
    var catalogue = Catalogue(count: 40, dimension: 4)
    for (item, value) in [(3, Float.nan), (4, .infinity), (5, -.infinity)] { catalogue.vectors[item * 4] = value }
    for mode in [ScoreMode.retrieve, .rank] {
      let request = catalogue.request(catalogue.query(mode: mode, k: 40), shards: 1, items: catalogue.ids)
      let reply = try LegScorer().score(
        request, holding: catalogue.hosted(shards: 1), cancelled: CancellationFlag()
      ).get()
      #expect(reply.items.ordinals.sorted() == (0..<40).filter { !(3...5 ~= $0) })
      #expect(reply.items.isWellFormed)
    }
  }

  @Test func theScanAsksTheFlagForEveryBlock() {
    final class Countdown: Interruption, @unchecked Sendable {
      var left: Int
      var asked = 0
      init(_ left: Int) { self.left = left }
      var isCancelled: Bool {
        asked += 1
        left -= 1
        return left < 0
      }
    }
    let catalogue = Catalogue(count: 10_000, dimension: 1)
    let slice = catalogue.slice(ShardID(0), of: 1)
    let query = [Float](repeating: 1, count: 16)
    var (scores, picked) = ([Float](repeating: 0, count: 1024), [UInt32](repeating: 0, count: 1024))
    for (left, finished) in [(3, false), (9, false), (10, true)] {
      let flag = Countdown(left)
      var best = BestRows()
      best.begin(limit: 5, of: slice.count)
      let done = VectorScan.run(
        slice, query: query, excluded: ExclusionSet(), into: &best, scores: &scores, picked: &picked, cancelled: flag)
      #expect(done == finished)
      #expect(flag.asked == (finished ? 10 : left + 1))
    }
    #expect(VectorScan.blockRows(of: slice) == 1024)
  }
}
