import Foundation
import RankingCore
import Testing

@testable import Bundles
@testable import Oracle
@testable import Scoring

// Models that XGBoost wrote, and what it says of some rows (Fixtures/make-xgboost.py).

private let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Fixtures")

@Suite struct XGBoostTests {
  private func bytes(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: fixtures.appendingPathComponent("xgb-\(name).json")))
  }

  @Test(arguments: ["ndcg", "squared", "logistic", "poisson", "dart"])
  func predictsAsXGBoostDoes(name: String) throws {
    let ensemble = try XGBoostFile.parse(try bytes(name), path: "m.json")
    let plain = try #require(PlainXGBoost(Data(try bytes(name))))
    let names = ensemble.features.map(\.name)
    let lines = try String(contentsOf: fixtures.appendingPathComponent("xgb-\(name).csv"), encoding: .utf8)
      .split(separator: "\n").dropFirst()
    #expect(lines.count == 120)
    var scores = Set<Float>()
    for line in lines {
      let numbers = line.split(separator: ",").map { Double($0)! }
      let expected = numbers[5]
      let score = try #require(ensemble.score(numbers[..<5].map { Float($0) }))
      #expect(abs(Double(score) - expected) <= 1e-6 * max(1, abs(expected)))
      let again = plain.score { Float(numbers[names.firstIndex(of: $0)!]) }
      #expect(again?.bitPattern == score.bitPattern)
      scores.insert(score)
    }
    #expect(scores.count > 20)
  }

  @Test func bindsToTheSchema() throws {
    let ranker = try RankerFile.parse(
      try bytes("ndcg"), path: "m.json",
      item: [Column(name: "kind", kind: .category, categories: ["a"]), Column(name: "price", kind: .number)],
      user: [Column(name: "age", kind: .number)], context: [Column(name: "hour", kind: .number)])
    guard case .trees(let trees) = ranker else { throw InputError(file: "m.json", "no trees: \(ranker)") }
    #expect(trees.sources == [.item(1), .item(0), .user(0), .context(0), .retrievalScore])
    #expect(throws: InputError.self) {
      try RankerFile.parse(try bytes("ndcg"), path: "m.json", item: [], user: [], context: [])
    }
  }

  /// Every field of the first tree cut short, and trees that are none.
  @Test func damageIsRefused() throws {
    let good = String(decoding: try bytes("ndcg"), as: UTF8.self)
    func refused(_ pattern: Regex<Substring>, _ replacement: String, _ reason: String) {
      let text = good.replacing(pattern, with: replacement, maxReplacements: 1)
      #expect(text != good)
      #expect(throws: InputError(file: "m.json", reason)) {
        try XGBoostFile.parse(Array(text.utf8), path: "m.json")
      }
    }
    refused(/"default_left":\[[0-9],/, #""default_left":["#, "tree 0: its lists have different lengths, or are empty")
    refused(/"left_children":\[[0-9]+,/, #""left_children":[0,"#, "tree 0: its nodes make no tree")
    refused(/"left_children":\[[0-9]+,/, #""left_children":[999,"#, "tree 0: its nodes make no tree")
    refused(
      /"categories_sizes":\[[0-9]+,/, #""categories_sizes":["#, "tree 1: its lists of categories have different lengths"
    )
    refused(
      /"num_class":"0"/, #""num_class":"3""#, "a model of several classes or targets gives no one score to rank by")
    refused(
      /"name":"rank:ndcg"/, #""name":"multi:softmax""#,
      "objective \"multi:softmax\" is not supported; allowed are rank:…, reg:…, binary:logistic, binary:logitraw and "
        + "count:poisson")
  }
}
