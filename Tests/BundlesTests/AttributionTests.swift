import Foundation
import RankingCore
import Testing

@testable import Bundles
@testable import Oracle
@testable import Scoring

// What scores are made of, on the models of Fixtures: adds up, is what the oracle's nested trees say, bit for bit, and
// for XGBoost what XGBoost says (approx_contribs). LightGBM has no path attribution; its base is ours.

private let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Fixtures")

private func numbers(_ file: String) throws -> [[Double]] {
  try String(contentsOf: fixtures.appendingPathComponent(file), encoding: .utf8)
    .split(separator: "\n").dropFirst().map { $0.split(separator: ",").map { Double($0) ?? .nan } }
}

@Suite struct AttributionTests {
  /// The accounts of rows, with each of the model's features in a column of its own.
  private func accounts(
    _ ensemble: TreeEnsemble, _ rows: [[Float]]
  ) throws -> [(places: [Double], raw: Double, output: Float)] {
    let count = ensemble.features.count
    let ranker = try TreeRanker(
      ensemble, sources: (0..<count).map { .item($0) }, itemColumns: count, userColumns: 0, contextColumns: 0)
    let layout = ContributionLayout(itemColumns: count, userColumns: 0, contextColumns: 0)
    var memory = TreeMemory()
    return rows.map { row in
      var places = [Double](repeating: 0, count: layout.width)
      return places.withUnsafeMutableBufferPointer { places in
        var account = ItemAccount(layout, places: places.baseAddress!)
        ranker.explain(memory: &memory, into: &account) { row[$0] }
        return (Array(places), account.raw, account.outputs[0])
      }
    }
  }

  private func check(
    _ ensemble: TreeEnsemble, _ rows: [[Float]], plainly: ((String) -> Float) -> PlainAccount,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> [[Double]] {
    let names = ensemble.features.map(\.name)
    let accounts = try accounts(ensemble, rows)
    for (row, account) in zip(rows, accounts) {
      let raw = ensemble.raw(row)
      #expect(account.raw.bitPattern == raw.bitPattern, sourceLocation: sourceLocation)
      #expect(account.output.bitPattern == ensemble.score(row)?.bitPattern, sourceLocation: sourceLocation)
      let sum = account.places.reduce(0, +)
      #expect(abs(sum - raw) <= 1e-12 * max(1, abs(raw)), sourceLocation: sourceLocation)
      let plain = plainly { row[names.firstIndex(of: $0)!] }
      let expected = [plain.base, 0] + names.map { plain.contributions[$0] ?? 0 } + [0]
      // Averaging divides here and multiplies there.
      let isSame =
        ensemble.factor == 1
        ? account.places == expected && account.raw == plain.raw
        : zip(account.places, expected).allSatisfy { abs($0 - $1) <= 1e-15 * max(1, abs($1)) }
      #expect(isSame, "\(account.places) \(expected)", sourceLocation: sourceLocation)
    }
    return accounts.map(\.places)
  }

  @Test(arguments: ["ndcg", "squared", "logistic", "poisson", "dart"])
  func isWhatXGBoostSays(name: String) throws {
    let data = try Data(contentsOf: fixtures.appendingPathComponent("xgb-\(name).json"))
    let ensemble = try XGBoostFile.parse(Array(data), path: "m.json")
    let plain = try #require(PlainXGBoost(data))
    let rows = try numbers("xgb-\(name).csv").map { $0.prefix(5).map { Float($0) } }
    let accounts = try check(ensemble, rows) { plain.explain($0) }
    let theirs = try numbers("xgb-\(name)-contributions.csv")
    #expect(accounts.count == 120 && theirs.count == 120)
    for (account, expected) in zip(accounts, theirs) {
      let ours = account[2..<7] + account[..<1]
      #expect(zip(ours, expected).allSatisfy { abs($0 - $1) <= 1e-5 * max(1, abs($1)) }, "\(ours) \(expected)")
    }
    #expect(Set(accounts.map { $0[0] }).count == 1, "one base for all rows")
  }

  @Test(arguments: [
    "lambdarank", "no-missing", "zero-missing", "binary", "averaged", "poisson", "square", "entropy", "softplus",
  ])
  func addsUpForLightGBM(name: String) throws {
    let text = try String(contentsOf: fixtures.appendingPathComponent(name + ".txt"), encoding: .utf8)
    let ensemble = try LightGBMFile.parse(Array(text.utf8), path: "m.txt")
    let plain = try #require(PlainTrees(text))
    let rows = try numbers(name + ".csv").map { $0.prefix(6).map { Float($0) } }
    let accounts = try check(ensemble, rows) { plain.explain($0) }
    let bases = try String(contentsOf: fixtures.appendingPathComponent("lightgbm-bases.csv"), encoding: .utf8)
    let line = try #require(bases.split(separator: "\n").first { $0.hasPrefix(name + ",") })
    // LightGBM does not average what it says of averaged trees.
    let base = try #require(Double(line.dropFirst(name.count + 1))) * ensemble.factor
    for account in accounts { #expect(abs(account[0] - base) <= 1e-12 * max(1, abs(base))) }
    #expect(Set(accounts.map { $0.dropFirst() }).count > 20)
  }

  /// The tree of the drawing in TreeAttribution.swift; its means by hand.
  @Test func theDrawnTree() throws {
    func ensemble(_ covers: [Double], factor: Double = 1) throws -> TreeEnsemble {
      try TreeEnsemble(
        features: [.init(name: "price", missing: .nan), .init(name: "age", missing: .nan)],
        trees: [
          .init(
            nodes: [
              .init(feature: 0, split: .above(3), missingGoesLeft: true, left: ~0, right: 1),
              .init(feature: 1, split: .above(30), missingGoesLeft: true, left: ~1, right: ~2),
            ], leaves: [-0.4, 1.1, 0.5], covers: covers), .init(nodes: [], leaves: [2]),
        ], base: 1, factor: factor)
    }
    func near(_ account: (places: [Double], raw: Double, output: Float), _ expected: [Double]) -> Bool {
      zip(account.places, expected).allSatisfy { abs($0 - $1) < 1e-12 }
    }
    // Means 0.8 and (−0.4 · 2 + 0.8 · 2) / 4 = 0.2; the second tree and the ensemble's own are base.
    let account = try accounts(try ensemble([2, 1, 1]), [[5, 40], [.nan, 40]])
    #expect(near(account[0], [3.2, 0, 0.6, -0.3, 0]) && near(account[1], [3.2, 0, -0.6, 0, 0]))
    // Without covers, and where nothing was ever reached: (−0.4 + 1.1 + 0.5) / 3 = 0.4.
    for covers in [[], [0, 0, 0]] as [[Double]] {
      #expect(near(try accounts(try ensemble(covers), [[5, 40]])[0], [3.4, 0, 0.4, -0.3, 0]))
    }
    #expect(near(try accounts(try ensemble([2, 0, 0]), [[5, 40]])[0], [2.6, 0, 1.2, -0.3, 0]))
    #expect(near(try accounts(try ensemble([2, 1, 1], factor: 0.5), [[5, 40]])[0], [1.6, 0, 0.3, -0.15, 0]))
    for (covers, reason) in [
      ([1, 2], "2 covers for 3 leaves"), ([1, -1, 1], "leaf 1 is covered -1.0 times"),
      ([1, 1, .infinity], "leaf 2 is covered inf times"),
    ] as [([Double], String)] {
      #expect(throws: RankerError("tree 0: " + reason)) { try ensemble(covers) }
    }
  }
}
