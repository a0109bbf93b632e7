import RankingCore
import Scoring
import Testing

@Suite struct RankerTests {
  /// 0.5 + 2·retrieval − 0.01·price (missing: 2.1) + 0.1·user₁ + 1·context₀, as the file's order says.
  private static func ranker(weights: [Double] = [2, -0.01, 0.1, 1]) throws -> LinearRanker {
    try LinearRanker(
      intercept: 0.5,
      terms: [
        .init(.retrievalScore, weight: weights[0]), .init(.item(0), weight: weights[1], missing: 2.1),
        .init(.user(1), weight: weights[2], missing: -1), .init(.context(0), weight: weights[3]),
      ], itemColumns: 1, userColumns: 2, contextColumns: 1)
  }

  private func check(
    _ catalogue: Catalogue, _ request: ScoreRequest, shards: Int, weights: [Double],
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let ranker = Ranker.linear(try RankerTests.ranker(weights: weights))
    let (user, context) = (request.query.userValues[1], request.query.contextValues[0])
    let expected = catalogue.expected(request, shards: shards) { item, retrieval in
      let price = catalogue.prices[item]
      var sum = 0.5
      sum = sum + weights[0] * Double(retrieval)
      sum = sum + weights[1] * (price.isNaN ? 2.1 : Double(price))
      sum = sum + weights[2] * (user.isNaN ? -1 : Double(user))
      sum = sum + weights[3] * (context.isNaN ? 0 : Double(context))
      let score = Float(sum) + 0
      return score.isFinite ? score : nil
    }
    let hosted = try catalogue.hosted(shards: shards, ranker: ranker)
    let reply = try LegScorer().score(request, holding: hosted, cancelled: CancellationFlag()).get()
    #expect(reply.items.lines == catalogue.lines(expected.items), sourceLocation: sourceLocation)
    #expect(reply.droppedNaN == expected.dropped, sourceLocation: sourceLocation)
  }

  @Test(arguments: [1, 3])
  func linearEqualsItsDefinition(shards: Int) throws {
    let catalogue = Catalogue(count: 1500, dimension: 10)
    for (k, candidates) in [(20, 200), (200, 20), (1000, 1500)] {
      for values: [Float] in [[1, 2, 3], [.nan, .nan, .nan], [0, 1e30, -1]] {
        let query = catalogue.query(
          k: k, candidates: candidates, userValues: [values[0], values[1]], contextValues: [values[2]])
        try check(
          catalogue, catalogue.request(query, shards: shards, excluding: [5, 6]), shards: shards,
          weights: [2, -0.01, 0.1, 1])
      }
    }
  }

  @Test func minScoreComparesTheFinalScore() throws {
    let catalogue = Catalogue(count: 300, dimension: 10)
    for mode in [ScoreMode.retrieve, .rank] {
      let query = catalogue.query(
        mode: mode, k: 100, candidates: 100, minScore: 0.4, userValues: [0, 1], contextValues: [0])
      try check(
        catalogue, catalogue.request(query, shards: 3, items: catalogue.ids), shards: 3, weights: [0.1, -0.01, 0.1, 1])
    }
  }

  @Test func resultsThatAreNoNumberAreDroppedAndCounted() throws {
    // Prices above some 34 overflow float32, those missing do not, and none is larger than what float64 holds.
    let catalogue = Catalogue(count: 300, dimension: 10)
    let query = catalogue.query(k: 100, candidates: 250, userValues: [0, 0], contextValues: [0])
    let request = catalogue.request(query, shards: 1)
    try check(catalogue, request, shards: 1, weights: [1, 1e37, 0, 0])
    // ∞ − ∞ = NaN.
    try check(catalogue, request, shards: 1, weights: [.greatestFiniteMagnitude, 1e37, 0, 0])
    let hosted = try catalogue.hosted(
      shards: 1, ranker: .linear(RankerTests.ranker(weights: [1, 1e37, 0, 0])))
    let reply = try LegScorer().score(request, holding: hosted, cancelled: CancellationFlag()).get()
    #expect(reply.droppedNaN > 50)
    #expect(reply.items.count > 20)
  }

  @Test func productsAndSumsRoundApart() throws {
    // With a fused multiply-add the result would be −2⁻⁵⁴·…, not 0.
    let weight = 1 + 0x1p-27
    let ranker = try LinearRanker(
      intercept: -(1 + 0x1p-26), terms: [.init(.user(0), weight: weight, missing: weight)], itemColumns: 1,
      userColumns: 1, contextColumns: 0)
    let catalogue = Catalogue(count: 1, dimension: 2)
    let request = catalogue.request(catalogue.query(k: 1, userValues: [.nan]), shards: 1)
    let reply = try LegScorer().score(
      request, holding: catalogue.hosted(shards: 1, ranker: .linear(ranker)), cancelled: CancellationFlag()
    ).get()
    #expect(reply.items.scores.map(\.bitPattern) == [0])
  }

  @Test func anEnsembleAddsItsMembersScoresInDouble() throws {
    let catalogue = Catalogue(count: 700, dimension: 10)
    let (one, two) = ([2, -0.01, 0.1, 1], [1, 1e37, 0, 0])
    let (first, second) = (try RankerTests.ranker(weights: one), try RankerTests.ranker(weights: two))
    let ensemble = try RankerEnsemble([
      .init(.linear(first), weight: 0.3), .init(.linear(second), weight: 1e-30), .init(.linear(first), weight: -0.1),
    ])
    let query = catalogue.query(k: 700, candidates: 700, userValues: [0, 2], contextValues: [3])
    let request = catalogue.request(query, shards: 2)
    func member(_ weights: [Double], _ item: Int, _ retrieval: Float) -> Float {
      let price = catalogue.prices[item]
      var sum = 0.5
      sum = sum + weights[0] * Double(retrieval)
      sum = sum + weights[1] * (price.isNaN ? 2.1 : Double(price))
      sum = sum + weights[2] * 2
      sum = sum + weights[3] * 3
      return Float(sum)
    }
    let expected = catalogue.expected(request, shards: 2) { item, retrieval in
      var sum = 0.3 * Double(member(one, item, retrieval))
      sum = sum + 1e-30 * Double(member(two, item, retrieval))
      sum = sum + -0.1 * Double(member(one, item, retrieval))
      let score = Float(sum) + 0
      return score.isFinite ? score : nil
    }
    let hosted = try catalogue.hosted(shards: 2, ranker: .ensemble(ensemble))
    let reply = try LegScorer().score(request, holding: hosted, cancelled: CancellationFlag()).get()
    #expect(reply.items.lines == catalogue.lines(expected.items))
    // A member's overflow drops the item, however small its weight.
    #expect(reply.droppedNaN == expected.dropped && expected.dropped > 50 && reply.items.count > 50)
  }

  @Test func ensemblesThatDoNotFitAreRefused() throws {
    func refused(_ reason: String, _ members: [RankerEnsemble.Member]) {
      #expect(throws: RankerError(reason)) { try RankerEnsemble(members) }
    }
    let linear = Ranker.linear(try RankerTests.ranker())
    let other = Ranker.linear(
      try LinearRanker(intercept: 0, terms: [], itemColumns: 2, userColumns: 2, contextColumns: 1))
    refused("0 rankers; allowed: 1 to 16", [])
    refused("17 rankers; allowed: 1 to 16", Array(repeating: .init(linear, weight: 1), count: 17))
    refused("ranker 1: weight nan is not finite", [.init(linear, weight: 1), .init(linear, weight: .nan)])
    refused("ranker 0 was bound to another schema than ranker 0, or to none", [.init(.none, weight: 1)])
    refused(
      "ranker 1 was bound to another schema than ranker 0, or to none",
      [.init(linear, weight: 1), .init(other, weight: 1)])
    refused(
      "ranker 0 is an ensemble itself", [.init(.ensemble(try RankerEnsemble([.init(linear, weight: 1)])), weight: 1)])
  }

  @Test func termsPastTheirColumnsAreRefused() {
    func message(_ source: FeatureSource, weight: Double = 1, missing: Double = 0) -> String? {
      do throws(RankerError) {
        _ = try LinearRanker(
          intercept: 0, terms: [.init(.retrievalScore, weight: 1), .init(source, weight: weight, missing: missing)],
          itemColumns: 1, userColumns: 2, contextColumns: 3)
        return nil
      } catch { return error.description }
    }
    #expect(message(.item(0)) == nil)
    #expect(message(.context(2)) == nil)
    #expect(message(.item(1)) == "linear ranker: term 1: item column 1, the schema has 1")
    #expect(message(.user(-1)) == "linear ranker: term 1: user column -1, the schema has 2")
    #expect(message(.context(3)) == "linear ranker: term 1: context column 3, the schema has 3")
    #expect(
      message(.item(0), weight: .nan)
        == "linear ranker: term 1: weight nan and missing 0.0 must be finite numbers")
    #expect(message(.item(0), missing: .infinity) != nil)
  }
}
