import Foundation
import RankingCore
import Testing

@testable import Bundles
@testable import Scoring

// Models that LightGBM wrote, and what it says of some rows (Fixtures/make-lightgbm.py).

private let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Fixtures")

@Suite struct LightGBMTests {
  private static let names = [
    "lambdarank", "no-missing", "zero-missing", "binary", "averaged", "poisson", "square", "entropy", "softplus",
  ]
  private static let schema = (
    item: [
      Column(name: "kind", kind: .category, categories: ["a"]), Column(name: "price", kind: .number),
    ], user: [Column(name: "age", kind: .number)], context: [Column(name: "hour", kind: .number)]
  )

  private func text(_ name: String) throws -> String {
    try String(contentsOf: fixtures.appendingPathComponent(name + ".txt"), encoding: .utf8)
  }
  private func parse(_ text: String) throws -> TreeEnsemble {
    try LightGBMFile.parse(Array(text.utf8), path: "model.txt")
  }

  @Test(arguments: names)
  func predictsAsLightGBMDoes(name: String) throws {
    let ensemble = try parse(try text(name))
    let lines = try String(contentsOf: fixtures.appendingPathComponent(name + ".csv"), encoding: .utf8)
      .split(separator: "\n").dropFirst()
    #expect(lines.count == 120)
    var scores = Set<Float>()
    for line in lines {
      let numbers = line.split(separator: ",").map { Double($0)! }
      let expected = numbers[6]
      let score = try #require(ensemble.score(numbers[..<6].map { Float($0) }))
      #expect(abs(Double(score) - expected) <= 1e-6 * max(1, abs(expected)))
      scores.insert(score)
    }
    #expect(scores.count > 20)
  }

  /// 0.1 in float64 lies below 0.1 in float32: the float32 goes right.
  @Test func thresholdsAreRoundedDown() throws {
    let text = """
      tree
      num_class=1
      num_tree_per_iteration=1
      feature_names=x

      Tree=0
      num_leaves=2
      num_cat=0
      split_feature=0
      threshold=0.1
      decision_type=2
      left_child=-1
      right_child=-2
      leaf_value=1 2

      end of trees

      """
    let ensemble = try parse(text)
    #expect(ensemble.score([0.1]) == 2)
    #expect(ensemble.score([Float(0.1).nextDown]) == 1)
  }

  @Test func bindsToTheSchema() throws {
    let bytes = Array(try text("lambdarank").utf8)
    let ranker = try RankerFile.parse(
      bytes, path: "model.txt", item: Self.schema.item, user: Self.schema.user, context: Self.schema.context)
    guard case .trees(let trees) = ranker else { return #expect(Bool(false), "\(ranker)") as Void }
    // item.unused is asked by no tree.
    #expect(trees.sources == [.item(1), .item(0), .user(0), .context(0), .retrievalScore, .retrievalScore])
    #expect(
      throws: InputError(
        file: "model.txt",
        "features that the schema lacks: item.price, user.age; they are named retrieval_score, item.NAME, user.NAME, "
          + "context.NAME, recent.count, recent.last_similarity, recent.max_similarity, recent.mean_similarity")
    ) {
      try RankerFile.parse(
        bytes, path: "model.txt", item: [Self.schema.item[0]], user: [], context: Self.schema.context)
    }
  }

  @Test func damageIsFoundWithItsLine() throws {
    let good = try text("lambdarank")
    func refused(_ text: String, _ line: Int?, _ reason: String, sourceLocation: SourceLocation = #_sourceLocation) {
      #expect(throws: InputError(file: "model.txt", line: line, reason), sourceLocation: sourceLocation) {
        try parse(text)
      }
    }
    let lines = good.split(separator: "\n", omittingEmptySubsequences: false)
    func line(_ start: String) throws -> Int { try #require(lines.firstIndex { $0.hasPrefix(start) }) + 1 }
    func with(_ start: String, _ replacement: String) throws -> String {
      var copy = lines
      copy[try line(start) - 1] = Substring(replacement)
      return copy.joined(separator: "\n")
    }
    let cut = lines[..<(try line("Tree=3") - 1)].joined(separator: "\n")
    refused(cut, try line("Tree=3") - 1, "ends after 3 trees, without \"end of trees\": it is cut off")
    refused(try with("num_leaves=", "num_leaves=16"), try line("leaf_value="), "leaf_value: 15 values, expected 16")
    refused(try with("threshold=", "threshold=1 2 x"), try line("threshold="), "threshold: \"x\" is no number")
    refused(
      try with("num_class=", "num_class=3"), 2,
      "num_class=3: a model of several classes gives no one score to rank by")
    refused(
      try with("is_linear=", "is_linear=1"), try line("Tree=0"),
      "Tree=0: linear trees are not supported; train with linear_tree=false")
    refused(try with("Tree=1", "Tree=7"), try line("Tree=1"), "\"Tree=7\" where Tree=1 or \"end of trees\" is expected")
    refused(
      try with("objective=", "objective=custom"), nil,
      "objective \"custom\" is not supported; allowed are lambdarank, rank_xendcg, binary, cross_entropy, "
        + "cross_entropy_lambda, regression, regression_l1, huber, fair, poisson, quantile, mape, gamma, tweedie")
  }

  /// Cut off or changed anywhere: an error or a model, never a trap.
  @Test func damageNeverTraps() throws {
    let good = Array(try text("binary").utf8)
    var generator = SeededGenerator(seed: 1)
    var parsed = 0
    for round in 0..<400 {
      var bytes = good
      if round % 4 == 0 { bytes.removeLast(generator.below(good.count)) }
      for _ in 0..<1 + generator.below(3) where !bytes.isEmpty {
        bytes[generator.below(bytes.count)] = UInt8(32 + generator.below(90))
      }
      if let ensemble = try? LightGBMFile.parse(bytes, path: "m") {
        parsed += 1
        _ = ensemble.score([Float](repeating: 1, count: ensemble.features.count))
      }
    }
    #expect(parsed > 0 && parsed < 400)
  }
}
