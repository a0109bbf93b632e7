import RankingCore
import Testing

@testable import Scoring

// What a leg says its scores are made of, through filters, caps, exclusions and limits. The trees' own numbers are
// checked in BundlesTests.

@Suite struct ExplanationTests {
  private static func linear() throws -> Ranker {
    .linear(
      try LinearRanker(
        intercept: 0.5,
        terms: [
          .init(.retrievalScore, weight: 2), .init(.item(0), weight: -0.01, missing: 2.1),
          .init(.user(1), weight: 0.1, missing: -1), .init(.context(0), weight: 1), .init(.item(0), weight: 0.003),
        ], itemColumns: 1, userColumns: 2, contextColumns: 1))
  }
  /// price > 40 (missing goes right) → context₀ > 2; and retrieval > 0.
  private static func trees() throws -> Ranker {
    let ensemble = try TreeEnsemble(
      features: ["item.price", "context.hour", "retrieval_score"].map { .init(name: $0, missing: .nan) },
      trees: [
        .init(
          nodes: [
            .init(feature: 0, split: .above(40), missingGoesLeft: false, left: ~0, right: 1),
            .init(feature: 1, split: .above(2), missingGoesLeft: true, left: ~1, right: ~2),
          ], leaves: [0.25, -1, 3], covers: [2, 1, 1]),
        .init(
          nodes: [.init(feature: 2, split: .above(0), missingGoesLeft: true, left: ~0, right: ~1)],
          leaves: [-0.5, 0.5]),
      ], base: 0.125, output: .sigmoid(scale: 1))
    return .trees(
      try TreeRanker(
        ensemble, sources: [.item(0), .context(0), .retrievalScore], itemColumns: 1, userColumns: 2,
        contextColumns: 1))
  }

  /// An item's numbers: base, retrieval_score, item.price, user 0 and 1, context 0, ranker.
  private func expected(_ ranker: Ranker, _ retrieval: Float, _ price: Float, _ query: ScoreQuery) -> [Double] {
    switch ranker {
    case .none: return [0, Double(retrieval), 0, 0, 0, 0, 0]
    case .linear:
      var item = -0.01 * (price.isNaN ? 2.1 : Double(price))
      item += 0.003 * (price.isNaN ? 0 : Double(price))
      let user = 0.1 * (query.userValues[1].isNaN ? -1 : Double(query.userValues[1]))
      let context = query.contextValues[0].isNaN ? 0 : Double(query.contextValues[0])
      return [0.5, 2 * Double(retrieval), item, 0, user, context, 0]
    case .trees:
      // Means: 1 below the second question, 0.625 at the root, 0 of the second tree.
      let isDear = price.isNaN || price > 40
      let context = isDear ? (query.contextValues[0] > 2 ? 2.0 : -2) : 0
      return [0.75, retrieval > 0 ? 0.5 : -0.5, isDear ? 0.375 : -0.375, 0, 0, context, 0]
    case .mlp, .ensemble: return []
    }
  }

  private func check(
    _ ranker: Ranker, shards: Int, sourceLocation: SourceLocation = #_sourceLocation,
    _ change: (inout ScoreQuery) -> Void
  ) throws {
    var catalogue = Catalogue(count: 900, dimension: 10)
    catalogue.prices = catalogue.prices.map { ($0 / 10).rounded(.down) * 10 }
    var query = catalogue.query(k: 25, candidates: 300, userValues: [7, 3], contextValues: [1])
    change(&query)
    let request = catalogue.request(
      query, shards: shards, excluding: [5, 6, 7], excludingIDs: ["item-8"], items: Array(catalogue.ids[..<60]))
    let hosted = try catalogue.hosted(shards: shards, ranker: ranker)
    let plain = try LegScorer().score(request, holding: hosted, cancelled: CancellationFlag()).get()
    var asking = request
    asking.query.explain = true
    var reply = try LegScorer().score(asking, holding: hosted, cancelled: CancellationFlag()).get()
    let explanations = try #require(reply.items.explanations, sourceLocation: sourceLocation)
    reply.items.explanations = nil
    #expect(reply == plain, "explaining changes nothing", sourceLocation: sourceLocation)
    #expect(explanations.isWellFormed(items: plain.items.count, width: 7), sourceLocation: sourceLocation)
    let rankers = if case .none = ranker { 0 } else { 1 }
    #expect(explanations.rankers == rankers && plain.items.count > 4, sourceLocation: sourceLocation)
    for index in 0..<plain.items.count {
      let item = Int(plain.items.ordinals[index])
      let retrieval = referenceScore(catalogue.vectors[item * 10..<(item + 1) * 10], query.vector)
      #expect(explanations.retrieval[index].bitPattern == retrieval.bitPattern, sourceLocation: sourceLocation)
      let numbers = Array(explanations.contributions[index * 7..<(index + 1) * 7])
      #expect(
        numbers == expected(ranker, retrieval, catalogue.prices[item], query), sourceLocation: sourceLocation)
      let raw = explanations.raw[index]
      #expect(abs(numbers.reduce(0, +) - raw) <= 1e-12 * max(1, abs(raw)), sourceLocation: sourceLocation)
      let score = plain.items.scores[index]
      if case .trees = ranker {
        #expect(abs(1 / (1 + Exponential.of(-raw)) - Double(score)) < 1e-7, sourceLocation: sourceLocation)
      } else {
        #expect(Float(raw).bitPattern == score.bitPattern, sourceLocation: sourceLocation)
      }
      if rankers == 1 { #expect(explanations.outputs[index] == score, sourceLocation: sourceLocation) }
    }
  }

  @Test(arguments: [1, 3])
  func saysWhatScoresAreMadeOf(shards: Int) throws {
    for ranker in [Ranker.none, try Self.linear(), try Self.trees()] {
      try check(ranker, shards: shards) { _ in }
      try check(ranker, shards: shards) { $0.mode = .rank }
      try check(ranker, shards: shards) { $0.filter = FilterProgram(steps: [.range(column: 0, low: 20, high: 60)]) }
      try check(ranker, shards: shards) { $0.cap = GroupCap(column: 0, max: 2) }
      try check(ranker, shards: shards) { $0.minScore = 0.3 }
      try check(ranker, shards: shards) { query in
        query.userValues = [.nan, .nan]
        query.contextValues = [.nan]
        query.mode = .rank
        query.cap = GroupCap(column: 0, max: 1)
      }
    }
  }

  /// Members' numbers times their weights; one whose output is transformed, or that knows no features, as a whole.
  @Test func ensemblesAddUpTheirMembersAccounts() throws {
    let identity = try MLPNetwork(inputs: [.init("retrieval_score")], layers: [.dense(weights: [3], biases: [0.5])])
    let mlp = Ranker.mlp(
      try MLPRanker(
        identity, sources: [.init(.retrievalScore)], itemColumns: 1, userColumns: 2, contextColumns: 1))
    let ranker = Ranker.ensemble(
      try RankerEnsemble([
        .init(try Self.linear(), weight: 2), .init(try Self.trees(), weight: -0.5), .init(mlp, weight: 0.25),
      ]))
    let catalogue = Catalogue(count: 900, dimension: 10)
    var query = catalogue.query(k: 25, candidates: 300, userValues: [7, 3], contextValues: [1])
    query.explain = true
    let reply = try LegScorer().score(
      catalogue.request(query, shards: 2), holding: catalogue.hosted(shards: 2, ranker: ranker),
      cancelled: CancellationFlag()
    ).get()
    let explanations = try #require(reply.items.explanations)
    #expect(explanations.rankers == 3 && reply.items.count == 25)
    for index in 0..<reply.items.count {
      let retrieval = explanations.retrieval[index]
      let outputs = explanations.outputs[index * 3..<index * 3 + 3].map { Double($0) }
      let linear = expected(try Self.linear(), retrieval, catalogue.prices[Int(reply.items.ordinals[index])], query)
      #expect(abs(outputs[2] - (0.5 + 3 * Double(retrieval))) < 1e-5)
      var numbers = linear.map { 2 * $0 }
      numbers[6] = -0.5 * outputs[1] + 0.25 * outputs[2]
      let found = Array(explanations.contributions[index * 7..<(index + 1) * 7])
      for (a, b) in zip(found, numbers) { #expect(abs(a - b) <= 1e-12 * max(1, abs(b))) }
      let score = Double(reply.items.scores[index])
      #expect(abs(found.reduce(0, +) - score) <= 1e-6 * max(1, abs(score)))
      #expect(abs(explanations.raw[index] - score) <= 1e-6 * max(1, abs(score)))
    }
  }

  @Test func nothingListedIsNothingExplained() throws {
    let catalogue = Catalogue(count: 10, dimension: 4)
    var query = catalogue.query(k: 5, minScore: .infinity)
    query.explain = true
    let reply = try LegScorer().score(
      catalogue.request(query, shards: 2), holding: catalogue.hosted(shards: 2), cancelled: CancellationFlag()
    ).get()
    #expect(reply.items.count == 0 && reply.items.explanations == nil)
  }

  /// 1.7e308 · 2 overflows, although the sum in the file's order does not.
  @Test func contributionsThatAreNoNumbersGiveWay() throws {
    var catalogue = Catalogue(count: 3, dimension: 2)
    catalogue.prices = [1, 1, 1]
    let ranker = Ranker.linear(
      try LinearRanker(
        intercept: 0,
        terms: [
          .init(.item(0), weight: 1.7e308), .init(.user(0), weight: -1.7e308), .init(.item(0), weight: 1.7e308),
          .init(.user(0), weight: -1.7e308), .init(.user(0), weight: 0.25),
        ], itemColumns: 1, userColumns: 1, contextColumns: 0))
    var query = catalogue.query(k: 3, userValues: [1])
    query.explain = true
    let reply = try LegScorer().score(
      catalogue.request(query, shards: 1), holding: catalogue.hosted(shards: 1, ranker: ranker),
      cancelled: CancellationFlag()
    ).get()
    let explanations = try #require(reply.items.explanations)
    #expect(reply.items.scores == [0.25, 0.25, 0.25] && explanations.raw == [0.25, 0.25, 0.25])
    #expect(explanations.contributions == [0, 0, 0, 0, 0.25, 0, 0, 0, 0, 0.25, 0, 0, 0, 0, 0.25])
  }

  @Test func whatFitsNoReplyIsRefused() throws {
    let catalogue = Catalogue(count: 17_000, dimension: 1)
    let hosted = try catalogue.hosted(shards: 1)
    func reply(_ k: Int) -> Result<ScoreReply, CallFailure> {
      var query = catalogue.query(k: k, candidates: 17_000)
      query.explain = true
      return LegScorer().score(catalogue.request(query, shards: 1), holding: hosted, cancelled: CancellationFlag())
    }
    #expect(try reply(16_384).get().items.explanations?.contributions.count == RequestLimit.explainedNumbers)
    #expect(
      reply(16_385)
        == .failure(
          .workerError(
            "\"explain\" gives 4 numbers an item here, for 16385 items more than the 65536 of one answer; at most "
              + "16384 items can be explained at once")))
  }

  @Test func raisedFlagsEndIt() throws {
    let catalogue = Catalogue(count: 10, dimension: 4)
    let flag = CancellationFlag()
    flag.cancel()
    let entry = MergedLists.Entry(score: 1, ordinal: 0, task: 0, row: 0)
    var memory = RankerMemory()
    let request = catalogue.request(catalogue.query(k: 1), shards: 1)
    let hosted = try catalogue.hosted(shards: 1)
    let failure = withUnsafePointer(to: entry) { entry in
      #expect(throws: CallFailure.self) {
        try LegExplanation.make(
          of: UnsafeBufferPointer(start: entry, count: 1), request, holding: hosted,
          vector: [Float](repeating: 0, count: 16), memory: &memory, cancelled: flag)
      }
    }
    #expect(failure == .deadlineExceeded)
  }
}
