import CScoring
import RankingCore
import Testing

@testable import Scoring

// The fast ranker gives the definition's scores, bit for bit, in every batch and on every path; each kernel gives the
// scalar one's bits. What the definition means is checked by hand here, and against numpy in BundlesTests.

private let paths = [cscoring_isa.scalar, .avx2, .avx512, .neon].filter { cscoring_kernels_for($0) != nil }

@Suite(.serialized) struct MLPRankerTests {
  private func numbers(_ count: Int, _ terrain: Terrain, _ generator: inout SeededGenerator) -> [Float] {
    (0..<count).map { _ in terrain.value(&generator) }
  }

  /// A network of random layers, and weights from the terrain.
  private func network(
    _ widths: [Int], _ terrain: Terrain, _ generator: inout SeededGenerator
  ) throws -> MLPNetwork {
    var layers: [MLPNetwork.Layer] = []
    for (inputs, outputs) in zip(widths, widths.dropFirst()) {
      if generator.below(3) == 0 {
        layers.append(
          .layerNorm(
            weights: numbers(inputs, terrain, &generator), biases: numbers(inputs, terrain, &generator), epsilon: 1e-5))
      }
      layers.append(
        .dense(
          weights: numbers(inputs * outputs, terrain, &generator), biases: numbers(outputs, terrain, &generator)))
      if generator.below(5) > 0 { layers.append(.activation(Activation.allCases[generator.below(4)])) }
    }
    return try MLPNetwork(
      inputs: (0..<widths[0]).map { MLPNetwork.Input("f\($0)", missing: terrain.value(&generator)) },
      means: generator.below(2) == 0 ? [] : numbers(widths[0], .ordinary, &generator),
      scales: (0..<widths[0]).map { _ in Float(generator.unit()) + 0.5 }, layers: layers)
  }

  private func check(
    _ network: MLPNetwork, rows: [[Float]], batches: [Int], _ name: String = "",
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let ranker = try MLPRanker(
      network, sources: network.inputs.map { _ in .init(.retrievalScore) }, itemColumns: 0, userColumns: 0,
      contextColumns: 0)
    let expected = rows.map { (network.score($0) ?? .nan).bitPattern }
    var memory = MLPMemory()
    for batch in batches {
      var scores = [Float](repeating: -1, count: batch)
      ranker.score(count: batch, memory: &memory, scores: &scores) { input, start, size, values in
        for row in 0..<size { values[row] = rows[start + row][input] }
      }
      let same = zip(scores, expected).prefix { ($0.isFinite ? $0 : .nan).bitPattern == $1 }.count
      #expect(same == batch, "of \(batch) rows \(name)", sourceLocation: sourceLocation)
    }
  }

  @Test(arguments: paths)
  func isTheDefinitionInEveryBatch(isa: cscoring_isa) throws {
    let before = cscoring_active().pointee.isa
    defer { cscoring_force_isa(before) }
    cscoring_force_isa(isa)
    var generator = SeededGenerator(seed: 5)
    let network = try network([7, 40, 33, 1], .ordinary, &generator)
    var rows = (0..<200).map { _ in numbers(7, .ordinary, &generator) }
    for row in stride(from: 0, to: 200, by: 3) { rows[row][row % 7] = .nan }
    rows[17][3] = .infinity
    try check(network, rows: rows, batches: Array(1...200), "\(isa)")
  }

  @Test(arguments: paths)
  func isTheDefinitionOnEveryTerrain(isa: cscoring_isa) throws {
    let before = cscoring_active().pointee.isa
    defer { cscoring_force_isa(before) }
    cscoring_force_isa(isa)
    for seed in 0..<6 as Range<UInt64> {
      var generator = SeededGenerator(seed: seed)
      for terrain in Terrain.allCases {
        let widths = [[1, 1], [50, 16, 1], [3, 17, 5, 1], [33, 64, 1], [31, 129, 32, 1]][generator.below(5)]
        let network = try network(widths, terrain, &generator)
        let rows = (0..<67).map { _ in numbers(widths[0], terrain, &generator) }
        try check(network, rows: rows, batches: [1, 3, 4, 59, 67], "\(isa) \(terrain) \(seed)")
      }
    }
  }

  /// Where a shape, a stride or a rest of rows could go wrong: every kernel beside the scalar one, on its raw buffers.
  @Test(arguments: paths)
  func kernelsGiveTheScalarBits(isa: cscoring_isa) throws {
    let scalar = try #require(cscoring_kernels_for(.scalar)).pointee.layers.pointee
    let tested = try #require(cscoring_kernels_for(isa)).pointee.layers.pointee
    var generator = SeededGenerator(seed: 9)
    func same(_ a: [Float], _ b: [Float]) -> Bool {
      zip(a, b).allSatisfy { $0.bitPattern == $1.bitPattern || $0.isNaN && $1.isNaN }
    }
    for terrain in Terrain.allCases {
      for (count, inputs, panels) in [
        (1, 1, 1), (1, 50, 16), (2, 31, 9), (3, 32, 8), (4, 33, 4), (5, 64, 5), (6, 7, 1), (13, 100, 7), (61, 20, 3),
      ] {
        let stride = (inputs + 15) & ~15
        let rows = numbers(count * stride, terrain, &generator)
        let weights = numbers(16 * panels * inputs, terrain, &generator)
        let biases = numbers(max(16 * panels, stride), terrain, &generator)
        for relu in [false, true] {
          var expected = [Float](repeating: 1, count: count * 16 * panels)
          var outputs = expected
          scalar.dense(rows, stride, count, inputs, weights, biases, panels, relu, &expected)
          tested.dense(rows, stride, count, inputs, weights, biases, panels, relu, &outputs)
          #expect(same(outputs, expected), "dense, \(terrain), \(count) × \(inputs) → \(16 * panels)")
        }
        var (expected, outputs) = (rows, rows)
        scalar.layer_norm(&expected, stride, count, inputs, biases, rows, 1e-5)
        tested.layer_norm(&outputs, stride, count, inputs, biases, rows, 1e-5)
        let isSame = (0..<count).allSatisfy {
          same(Array(outputs[$0 * stride..<$0 * stride + inputs]), Array(expected[$0 * stride..<$0 * stride + inputs]))
        }
        #expect(isSame, "layer norm, \(terrain), \(count) × \(inputs)")
      }
    }
  }

  /// Activations of every scale, of both signs, and at the ends.
  @Test(arguments: paths)
  func activationsAreTheirDefinition(isa: cscoring_isa) throws {
    let layers = try #require(cscoring_kernels_for(isa)).pointee.layers.pointee
    var generator = SeededGenerator(seed: 4)
    var values: [Float] = [
      0, -0.0, .infinity, -.infinity, .nan, 708, -708, 710, -1000, 7.07, 7.0710678, 7.08, -7.0710678, 1e30, -1e30,
      .leastNonzeroMagnitude,
    ]
    // Any bits, and those of the interesting range.
    for _ in 0..<20_000 { values.append(Float(bitPattern: UInt32(truncatingIfNeeded: generator.next()))) }
    for _ in 0..<20_000 { values.append(Float(generator.unit() * 24 - 12)) }
    for activation in Activation.allCases {
      var outputs = values
      layers.activate(activation.kernel, &outputs, outputs.count)
      let different = values.indices.filter {
        let truth = activation.of(values[$0])
        return outputs[$0].bitPattern != truth.bitPattern && !(outputs[$0].isNaN && truth.isNaN)
      }
      #expect(different.isEmpty, "\(activation) of \(different.prefix(5).map { values[$0] })")
    }
  }

  /// 2 inputs → 2 outputs → relu → 1, by hand.
  @Test func aNetworkByHand() throws {
    let network = try MLPNetwork(
      inputs: [.init("a", missing: 3), .init("b")], means: [1, 0], scales: [2, 1],
      layers: [
        .dense(weights: [1, 2, -1, 1], biases: [0.5, 0]), .activation(.relu), .dense(weights: [10, 100], biases: [-1]),
      ])
    // a = (3 − 1) / 2 = 1, b = 4: 0.5 + 1 + 8 = 9.5; −1 + 4 = 3; −1 + 95 + 300.
    #expect(network.score([3, 4]) == 394)
    #expect(network.score([.nan, 4]) == 394)
    // b = 0: 1.5; −1 → 0.
    #expect(network.score([3, .nan]) == 14)
    #expect(network.score([.infinity, 0]) == nil)
    #expect(network.products == 6)
    // (1, 3): mean 2, variance 1.
    let normed = try MLPNetwork(
      inputs: [.init("a"), .init("b")],
      layers: [
        .layerNorm(weights: [1, 4], biases: [0, 0.5], epsilon: 0), .dense(weights: [1, 1], biases: [0]),
      ])
    #expect(normed.score([1, 3]) == -1 + 4.5)
  }

  @Test func whatDoesNotFitIsRefused() {
    func refused(
      _ reason: String, inputs: Int = 2, means: [Float] = [], scales: [Float] = [], _ layers: [MLPNetwork.Layer]
    ) {
      #expect(throws: RankerError(reason)) {
        try MLPNetwork(
          inputs: (0..<inputs).map { .init("f\($0)") }, means: means, scales: scales, layers: layers)
      }
    }
    let last = MLPNetwork.Layer.dense(weights: [1, 1], biases: [0])
    refused("0 layers; allowed: 1 to 256", [])
    refused("layer 0 is given 0 values; allowed: 1 to 16384", inputs: 0, [last])
    refused("layer 1 has 2 weights and 1 biases for 1 values", [last, last])
    refused("layer 0 has 3 weights and 2 biases for 2 values", [.dense(weights: [1, 1, 1], biases: [0, 0])])
    refused("layer 0 has 1 weights and 2 biases for 2 values", [.layerNorm(weights: [1], biases: [0, 0], epsilon: 0)])
    refused("layer 0: epsilon is -1.0", [.layerNorm(weights: [1, 1], biases: [0, 0], epsilon: -1)])
    refused("layer 0 has the number inf", [.dense(weights: [.infinity, 1], biases: [0])])
    refused("the last layer gives 2 values, not one score", [.activation(.relu)])
    refused("1 means and 2 scales for 2 inputs", means: [1], [last])
    refused(
      "input 1, f1: missing 0.0, mean 0.0 and scale 0.0 must be finite, the scale not 0", scales: [1, 0], [last])
  }
}
