import Benchmarks
import Foundation
import RankingCore
import Testing

@testable import Bundles
@testable import ClusterLoad
@testable import Commands
@testable import Terminal

/// The benches are programs, too: small, they must run, and their comparison with the definition must hold.
@Suite struct BenchTests {
  @Test(arguments: SyntheticItems.Kind.allCases)
  func scanIsComparedWithThePlainOne(kind: SyntheticItems.Kind) {
    let made = SyntheticItems.make(kind, items: 6000, queries: 20, dimension: 32)
    var all: [[UInt64]] = []
    for (shards, keep, batch, threads) in [(1, nil, 1, 1), (2, nil, 1, 2), (2, nil, 7, 2), (2, 0.3, 4, 1)]
      as [(Int, Double?, Int, Int)]
    {
      var benchmark = ScanBenchmark(items: made.items, queries: made.queries)
      benchmark.k = 10
      benchmark.shards = shards
      benchmark.keep = keep
      benchmark.batch = batch
      benchmark.threads = threads
      let (report, found) = benchmark.run { _ in }
      #expect(found.count == 20 && found.allSatisfy { $0.count == 10 })
      if keep == nil {
        #expect(all.isEmpty || found == all)
        all = found
      }
      #expect(report.compared == 20 && report.different == 0)
      #expect(report.rows == 6000 && report.queries == 20)
      #expect(report.rows_scored >= 10 && report.rows_scored < 6000)
    }
  }

  @Test func treesAreComparedWithTheirDefinition() throws {
    let report = try TreeBenchmark.made(trees: 20, leaves: 31, features: 10, rows: 100).run { _ in }
    #expect(report.different == 0)
    #expect(report.batches.map(\.rows) == [1, 10, 64, 100])
  }

  @Test func networksAreComparedWithTheirDefinition() throws {
    let report = try MLPBenchmark.made(widths: [20, 40, 1], rows: 100).run { _ in }
    #expect(report.different == 0 && report.products_per_row == 840)
    #expect(report.batches.map(\.rows) == [1, 10, 100])
    #expect(report.batches.allSatisfy { $0.ns_per_row > 0 && $0.percent_of_limit > 0 })
    let again = try MLPBenchmark.made(widths: [20, 40, 1], rows: 100)
    #expect(try again.network == MLPBenchmark.made(widths: [20, 40, 1], rows: 100).network)
  }

  @Test func madeItemsAreTheSameForASeed() {
    let (one, two) = (
      SyntheticItems.make(.structured, items: 50, queries: 5, dimension: 16),
      SyntheticItems.make(.structured, items: 50, queries: 5, dimension: 16)
    )
    #expect(one.items.values == two.items.values && one.queries.values == two.queries.values)
    #expect(
      SyntheticItems.make(.structured, items: 50, queries: 5, dimension: 16, seed: 8).items.values != one.items.values)
  }
}

@Suite struct PredictTests {
  private static let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("BundlesTests/Fixtures").path

  private func predict(_ model: String, _ rows: String) throws -> (lines: [String], code: Int32) {
    let file = FileManager.default.temporaryDirectory.path + "/shortlist-test-\(UUID().uuidString).csv"
    defer { try? FileManager.default.removeItem(atPath: file) }
    try AtomicFile.write(Array(rows.utf8), to: file)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: Executable.path)
    process.arguments = ["predict", "--model", "\(Self.fixtures)/\(model)", "--rows", file]
    let out = Pipe()
    process.standardOutput = out
    process.standardError = out
    try process.run()
    let text = String(decoding: out.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return (
      text.replacingOccurrences(of: file, with: "ROWS").split(separator: "\n").map(String.init),
      process.terminationStatus
    )
  }

  /// The predictions beside the models, through the program.
  @Test func saysWhatTheLibrarySays() throws {
    for (model, rows, columns) in [
      ("lambdarank.txt", "lambdarank.csv", 6), ("xgb-ndcg.json", "xgb-ndcg.csv", 5),
    ] {
      let table = try String(contentsOfFile: Self.fixtures + "/" + rows, encoding: .utf8).split(separator: "\n")
      let expected = table.dropFirst().map { Double($0.split(separator: ",")[columns])! }
      let cleaned = table.map { $0.replacingOccurrences(of: "nan", with: "") }.joined(separator: "\n")
      let (lines, code) = try predict(model, cleaned)
      #expect(code == 0)
      #expect(lines.count == expected.count)
      for (line, value) in zip(lines, expected) {
        #expect(abs(try #require(Double(line)) - value) <= 1e-6 * max(1, abs(value)))
      }
    }
  }

  /// Categories are cells of text, and an empty cell is missing.
  @Test(arguments: ["relu", "gelu", "tanh", "sigmoid"])
  func saysWhatANetworkSays(name: String) throws {
    let table = try String(contentsOfFile: Self.fixtures + "/mlp-\(name).csv", encoding: .utf8).split(separator: "\n")
    let (lines, code) = try predict("mlp-\(name).safetensors", table.joined(separator: "\n"))
    #expect(code == 0 && lines.count == 120)
    for (line, row) in zip(lines, table.dropFirst()) {
      let expected = Double(row.split(separator: ",").last!)!
      #expect(abs(try #require(Double(line)) - expected) <= 1e-6 * max(1, abs(expected)))
    }
    let bad = try predict("mlp-relu.safetensors", table[0] + "\n1,expensive,tea,1,1,1\n")
    #expect(bad.code != 0 && bad.lines[0].contains("ROWS:2: column 2: \"expensive\" is not a finite decimal number"))
  }

  @Test func aHeaderIsOptionalAndItsNamesCount() throws {
    let plain = try predict("lambdarank.txt", "1,2,3,4,5,6\n,,,,,\n")
    #expect(plain.code == 0 && plain.lines.count == 2)
    let named = try predict(
      "lambdarank.txt", "item.unused,retrieval_score,context.hour,user.age,item.kind,item.price\n6,5,4,3,2,1\n")
    #expect(named.lines == [plain.lines[0]])
    let short = try predict("lambdarank.txt", "1,2\n")
    #expect(short.code != 0)
    #expect(short.lines.first?.contains("ROWS has no header and 2 columns; the model has 6 features") == true)
    let wrong = try predict("lambdarank.txt", "item.price,b\n1,2\n")
    #expect(wrong.code != 0)
    #expect(
      wrong.lines.first?.contains("ROWS:1: no column \"item.kind\"; the header has \"item.price\", \"b\"") == true)
    let none = try predict("lambdarank.csv", "1,2\n")
    #expect(none.code != 0 && none.lines.first?.contains("is neither a LightGBM text model") == true)
  }
}

/// The program under test: built beside the tests.
private enum Executable {
  static let path = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path + "/shortlist"
}
