import Foundation
import RankingCore
import Testing

@testable import Bundles
@testable import Oracle
@testable import Scoring

// Networks in the safetensors format, and what float64 makes of some rows (Fixtures/make-mlp.py).

private let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Fixtures")

/// A safetensors file of float32 tensors and a layout.
func safetensors(_ tensors: [(name: String, shape: [Int], values: [Float])], layout: String?) throws -> [UInt8] {
  var header: [String: Any] = [:]
  var data: [UInt8] = []
  for (name, shape, values) in tensors {
    let start = data.count
    for value in values { withUnsafeBytes(of: value.bitPattern.littleEndian) { data += $0 } }
    header[name] = ["dtype": "F32", "shape": shape, "data_offsets": [start, data.count]] as [String: Any]
  }
  if let layout { header["__metadata__"] = ["shortlist": layout] }
  let json = try JSONSerialization.data(withJSONObject: header, options: [.sortedKeys])
  return withUnsafeBytes(of: UInt64(json.count).littleEndian) { Array($0) } + json + data
}

@Suite struct MLPFileTests {
  private static let item = [
    Column(name: "kind", kind: .category, categories: ["tea", "cup", "pot", "bag"]),
    Column(name: "price", kind: .number),
  ]
  private static let user = [Column(name: "age", kind: .number)]
  private static let context = [Column(name: "hour", kind: .number)]

  private func bytes(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: fixtures.appendingPathComponent("mlp-\(name).safetensors")))
  }
  private func ranker(_ bytes: [UInt8]) throws(InputError) -> MLPRanker {
    let ranker = try RankerFile.parse(
      bytes, path: "net.safetensors", item: Self.item, user: Self.user, context: Self.context)
    guard case .mlp(let mlp) = ranker else { throw InputError(file: "", "no network: \(ranker)") }
    return mlp
  }

  /// Through the kernels, and through the oracle's own reading of the file.
  @Test(arguments: ["relu", "gelu", "tanh", "sigmoid"])
  func predictsAsFloat64Does(name: String) throws {
    let mlp = try ranker(try bytes(name))
    let plain = try #require(PlainMLP(Data(try bytes(name))))
    let lines = try String(contentsOf: fixtures.appendingPathComponent("mlp-\(name).csv"), encoding: .utf8)
      .split(separator: "\n")
    let names = lines[0].split(separator: ",").map(String.init)
    let rows = lines.dropFirst().map { $0.split(separator: ",", omittingEmptySubsequences: false).map(String.init) }
    #expect(rows.count == 120)
    var scores = [Float](repeating: 0, count: rows.count)
    var memory = MLPMemory()
    mlp.score(count: rows.count, memory: &memory, scores: &scores) { input, start, size, values in
      let input = mlp.network.inputs[input]
      for row in 0..<size {
        let cell = rows[start + row][names.firstIndex(of: input.feature)!]
        values[row] = input.category.map { $0 == cell ? 1 : 0 } ?? Float(cell) ?? .nan
      }
    }
    var worst = 0.0
    for (row, score) in zip(rows, scores) {
      let expected = Double(row[5])!
      worst = max(worst, abs(Double(score) - expected) / max(1, abs(expected)))
      func cell(_ feature: String) -> String { row[names.firstIndex(of: feature)!] }
      let again = plain.score({ Float(cell($0)) ?? .nan }, category: { cell($0).isEmpty ? nil : cell($0) })
      #expect(again?.bitPattern == score.bitPattern)
    }
    #expect(worst <= 1e-6)
    #expect(Set(scores).count > 100)
  }

  @Test func bindsToTheSchema() throws {
    let relu = try ranker(try bytes("relu"))
    #expect(
      relu.sources == [
        .init(.retrievalScore), .init(.item(1)), .init(.user(0)), .init(.context(0)), .init(.item(0), category: 2),
        .init(.item(0), category: 0), .init(.item(0), category: -1), .init(.item(0), category: 1),
      ])
    let bytes = try bytes("relu")
    #expect(
      throws: InputError(
        file: "n",
        "features that the schema lacks, that are categories without \"one_hot\", or \"one_hot\" and none: item.price, "
          + "context.hour, item.kind; the schema has retrieval_score, item.price, item.kind, user.age")
    ) {
      try RankerFile.parse(
        bytes, path: "n",
        item: [
          Column(name: "price", kind: .category, categories: ["1"]), Column(name: "kind", kind: .number),
        ], user: Self.user, context: [])
    }
  }

  private static let tensors: [(name: String, shape: [Int], values: [Float])] = [
    ("0.weight", [3, 2], [1, 2, 3, 4, 5, 6]), ("0.bias", [3], [1, 2, 3]), ("n.weight", [3], [1, 1, 1]),
    ("2.weight", [1, 3], [1, 2, 3]), ("mean", [2], [0, 1]),
  ]
  private static let layout = """
    {"features": ["retrieval_score", {"feature": "item.price", "missing": 2}], "mean": "mean", "layers": [
    {"type": "dense", "weight": "0.weight", "bias": "0.bias"}, {"type": "relu"},
    {"type": "layer_norm", "weight": "n.weight", "eps": 0.5}, {"type": "dense", "weight": "2.weight"}]}
    """

  @Test func theDocumentedLayoutIsRead() throws {
    let network = try MLPFile.parse(try safetensors(Self.tensors, layout: Self.layout), path: "n")
    #expect(network.inputs == [.init("retrieval_score"), .init("item.price", missing: 2)])
    #expect(network.means == [0, 1] && network.scales == [1, 1])
    #expect(
      network.layers == [
        .dense(weights: [1, 2, 3, 4, 5, 6], biases: [1, 2, 3]), .activation(.relu),
        .layerNorm(weights: [1, 1, 1], biases: [0, 0, 0], epsilon: 0.5), .dense(weights: [1, 2, 3], biases: [0]),
      ])
  }

  @Test func whatDoesNotFitIsRefusedByName() throws {
    func refused(
      _ reason: String, _ from: String = "", _ to: String = "",
      tensors: [(name: String, shape: [Int], values: [Float])] = Self.tensors
    ) throws {
      let layout = from.isEmpty ? Self.layout : Self.layout.replacingOccurrences(of: from, with: to)
      #expect(from.isEmpty || layout != Self.layout)
      let bytes = try safetensors(tensors, layout: layout)
      #expect(throws: InputError(file: "n", reason)) { try MLPFile.parse(bytes, path: "n") }
    }
    try refused(
      "layer 1: \"tanh\" is not supported; allowed are dense, layer_norm, relu, gelu, sigmoid, gelu_tanh", "\"relu\"",
      "\"tanh\"")
    try refused("layer 1 has no \"type\"", "{\"type\": \"relu\"}", "{}")
    try refused(
      "holds no tensor \"9.weight\"; it has 0.bias, 0.weight, 2.weight, mean, n.weight", "0.weight", "9.weight")
    try refused(
      "layer 3, dense: weight: tensor \"0.weight\" is used already", "2.weight", "0.weight")
    try refused("tensors that no layer uses: 0.bias", ", \"bias\": \"0.bias\"", "")
    try refused(
      "layer 3, dense: tensor \"2.weight\" is [1, 4], expected [outputs, 3] with at most 16384 outputs",
      tensors: Self.tensors.map { $0.name == "2.weight" ? ($0.name, [1, 4], [1, 2, 3, 4]) : $0 })
    try refused(
      "layer 0, dense: bias: tensor \"0.bias\" is [2], expected [3]",
      tensors: Self.tensors.map { $0.name == "0.bias" ? ($0.name, [2], [1, 2]) : $0 })
    try refused(
      "mean: tensor \"mean\" is [1], expected [2]",
      tensors: Self.tensors.map { $0.name == "mean" ? ($0.name, [1], [1]) : $0 })
    try refused(
      "the last layer gives 2 values, not one score",
      tensors: Self.tensors.map { $0.name == "2.weight" ? ($0.name, [2, 3], [1, 2, 3, 4, 5, 6]) : $0 })
    try refused(
      "layer 0 has the number nan",
      tensors: Self.tensors.map { $0.name == "0.bias" ? ($0.name, [3], [1, .nan, 2]) : $0 })
    try refused("layer 0, dense: unknown field \"biass\"; allowed: type, weight, bias", "\"bias\"", "\"biass\"")
    try refused(
      "\"shortlist\": unknown field \"means\"; allowed: features, layers, mean, scale", "\"mean\":", "\"means\":")
    try refused(
      "feature \"item.price\": unknown field \"missin\"; allowed: feature, missing, one_hot", "missing", "missin")
    try refused("feature \"item.price\": \"missing\" must be a number", "\"missing\": 2", "\"missing\": \"2\"")
    try refused(
      "feature \"item.price\": \"one_hot\" must be a list of different categories, and goes without \"missing\"",
      "\"missing\": 2", "\"one_hot\": [\"a\", \"a\"]")
    try refused("layer 2, layer_norm: \"eps\" must be a number of at least 0", "0.5", "-0.5")
    let none = try safetensors(Self.tensors, layout: nil)
    #expect(
      throws: InputError(
        file: "n",
        "its metadata has no text \"shortlist\", which says what the tensors are: {\"features\": […], \"layers\": […]}")
    ) { try MLPFile.parse(none, path: "n") }
  }

  /// Cut off or changed anywhere: an error or a network, never a trap.
  @Test func damageNeverTraps() throws {
    var generator = SeededGenerator(seed: 2)
    var (parsed, refused) = (0, 0)
    for good in [try safetensors(Self.tensors, layout: Self.layout), try bytes("sigmoid"), try bytes("tanh")] {
      let header = 8 + Int(good[0]) + Int(good[1]) << 8
      for round in 0..<400 {
        var bytes = good
        if round % 4 == 0 { bytes.removeLast(generator.below(good.count)) }
        for _ in 0..<1 + generator.below(3) where !bytes.isEmpty {
          bytes[generator.below(min(header, bytes.count))] = UInt8(32 + generator.below(90))
        }
        do throws(InputError) {
          let network = try MLPFile.parse(bytes, path: "n")
          _ = network.score([Float](repeating: 1, count: network.inputs.count))
          parsed += 1
        } catch { refused += 1 }
      }
    }
    #expect(parsed > 0 && refused > 800)
  }
}

@Suite struct EnsembleBundleTests {
  private func small() throws -> SmallBundle {
    let small = try SmallBundle()
    try small.write("schema.json", #"{"item": {"price": "number", "kind": "category"}}"#)
    try small.write("a.json", #"{"type":"linear","terms":[{"feature":"retrieval_score","weight":2}]}"#)
    try small.write("b.json", #"{"type":"linear","terms":[{"feature":"item.price","weight":1,"missing":3}]}"#)
    let net = try safetensors(
      [("w", [1, 2], [3, 1])],
      layout: """
        {"features": ["retrieval_score", {"feature": "item.kind", "one_hot": ["b"]}],
         "layers": [{"type": "dense", "weight": "w"}]}
        """)
    try AtomicFile.write(net, to: small.directory + "/net.safetensors")
    small.options.schema = small.directory + "/schema.json"
    return small
  }

  @Test func weightsAndOrderAreKept() throws {
    let small = try small()
    small.options.rankers = [
      RankerInput(small.directory + "/a.json", weight: 0.5), RankerInput(small.directory + "/net.safetensors"),
      RankerInput(small.directory + "/b.json", weight: -2),
    ]
    _ = try BundleBuilder(small.options).build()
    #expect(Bundles.Bundle.verify(small.path) == [])
    let bundle = try Bundles.Bundle.open(small.path)
    #expect(bundle.manifest.formatVersion == 2 && bundle.manifest.ranker == nil)
    #expect(bundle.manifest.weightedRankers.map(\.file) == ["ranker-0.json", "ranker-1.safetensors", "ranker-2.json"])
    #expect(bundle.manifest.weightedRankers.map(\.weight) == [0.5, 1, -2])
    #expect(bundle.manifest.lineage.inputs.map(\.name).contains("net.safetensors"))
    guard case .ensemble(let ensemble) = try bundle.ranker() else { throw InputError(file: "", "no ensemble") }
    #expect(ensemble.members.map(\.weight) == [0.5, 1, -2])
    // Damage to any of them is found, by its name.
    try Data([1]).write(to: URL(fileURLWithPath: small.path + "/ranker-1.safetensors"))
    #expect(Bundles.Bundle.verify(small.path).contains { $0.contains("ranker-1.safetensors") })
  }

  /// One ranker with weight 1 is written as it always was; with another weight it is an ensemble of one.
  @Test func aSingleRankerIsWrittenAsBefore() throws {
    let small = try small()
    small.options.ranker = small.directory + "/net.safetensors"
    _ = try BundleBuilder(small.options).build()
    let manifest = try Bundles.Bundle.open(small.path).manifest
    #expect(manifest.formatVersion == 1 && manifest.ranker == "ranker.safetensors" && manifest.rankers == nil)
    let text = try String(contentsOfFile: small.path + "/manifest.json", encoding: .utf8)
    #expect(!text.contains("rankers"))
    guard case .mlp = try Bundles.Bundle.open(small.path).ranker() else { throw InputError(file: "", "no network") }
    small.options.release.version = "v2"
    small.options.rankers[0].weight = 2
    _ = try BundleBuilder(small.options).build()
    #expect(try Bundles.Bundle.open(small.directory + "/store/home/v2").manifest.formatVersion == 2)
  }

  @Test func membersThatDoNotFitAreRefused() throws {
    let small = try small()
    small.options.rankers = [RankerInput(small.directory + "/a.json", weight: .infinity)]
    #expect(small.refusal() == "weight inf is not finite")
    small.options.rankers = [RankerInput](repeating: RankerInput(small.directory + "/a.json"), count: 17)
    #expect(small.refusal() == "is one ranker too many; allowed: 16")
    try small.write("c.json", #"{"type":"linear","terms":[{"feature":"item.size","weight":1}]}"#)
    small.options.rankers = [RankerInput(small.directory + "/a.json"), RankerInput(small.directory + "/c.json")]
    #expect(small.refusal() == "features that the schema lacks, or that are categories: item.size")
  }

  @Test func weightsAreParsedFromTheEnd() {
    for (text, file, weight) in [
      ("m.txt", "m.txt", 1), ("m.txt:0.5", "m.txt", 0.5), ("m:-1e3", "m", -1000), ("a:b.txt", "a:b.txt", 1),
      ("dir:2/m.txt", "dir:2/m.txt", 1), ("m:2:1", "m:2", 1), ("m:", "m:", 1), (":2", ":2", 1), ("m:nan", "m:nan", 1),
    ] as [(String, String, Double)] {
      #expect(RankerInput(parsing: text) == RankerInput(file, weight: weight), "\(text)")
    }
  }
}
