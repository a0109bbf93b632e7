import RankingCore
import Scoring
import Testing

@testable import Bundles

@Suite struct ListRankerTests {
  private let item = [
    Column(name: "price", kind: .number), Column(name: "kind", kind: .category, categories: ["cup", "pot"]),
  ]
  private let context = [Column(name: "hour", kind: .number)]
  private func phase(_ terms: String, pool: Int = 10) throws -> ListPhase {
    try ListRankerFile.parse(
      Array("{\"type\": \"linear\", \"intercept\": 1, \"terms\": [\(terms)]}".utf8), path: "list.json", pool: pool,
      item: item, user: [], context: context)
  }

  @Test func everyFeature() throws {
    let phase = try phase(
      """
      {"feature": "list.rank", "weight": 1000}, {"feature": "list.score", "weight": 1},
      {"feature": "list.gap", "weight": 100}, {"feature": "list.share.kind", "weight": 10000, "missing": 9},
      {"feature": "item.price", "weight": 0.125}, {"feature": "context.hour", "weight": 1000000}
      """)
    #expect(phase.columns == [1, 0] && phase.pool == 10)
    // kind and price of each: cup 8, – 16, cup –, pot 24
    let values: [Float] = [0, 8, .nan, 16, 0, .nan, 1, 24]
    let list = MergedItems(scores: [5, 4, 4, 2], values: values, userValues: [], contextValues: [2])
    // 1, the score, a million times the hour, and: rank, gap, share, price.
    let plain: [Float] = [5001, 91_102, 7100, 5803]
    let sums = zip(plain, list.scores).map { 2_000_001 + $0 + $1 }
    #expect(phase.scores(of: list) == sums)
  }

  @Test func whatNoListHasIsRefusedByName() {
    for (feature, isKnown) in [
      ("list.rank", true), ("list.place", false), ("retrieval_score", false), ("item.colour", false),
      ("item.kind", false), ("list.share.colour", false), ("user.age", false), ("list.share.price", true),
    ] {
      let terms = "{\"feature\": \"\(feature)\", \"weight\": 1}"
      guard !isKnown else {
        #expect(throws: Never.self) { try phase(terms) }
        continue
      }
      let error = #expect(throws: InputError.self) { try phase(terms) }
      #expect(error?.description.contains("features that no list has, or that are categories: \(feature);") == true)
    }
  }

  @Test func treesForAWholeListAreBounded() throws {
    let tree = TreeEnsemble.Tree(nodes: [], leaves: [1])
    let trees = try TreeEnsemble(features: [], trees: Array(repeating: tree, count: 201))
    #expect(throws: RankerError.self) { try ListPhase(.trees(trees, []), columns: [], pool: 100) }
    let phase = try ListPhase(.trees(trees, []), columns: [], pool: 99)
    let list = MergedItems(scores: [3, 2], values: [], userValues: [], contextValues: [])
    #expect(phase.scores(of: list) == [201, 201])
  }
}
