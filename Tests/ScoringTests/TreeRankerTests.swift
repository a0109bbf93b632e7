import RankingCore
import Testing

@testable import Scoring

// The fast ranker gives the definition's scores, bit for bit; the definition itself is checked by hand here and against
// LightGBM's own predictions in BundlesTests.

@Suite struct TreeRankerTests {
  private struct Shape {
    var trees = 30
    var leaves = 2...40
    var features = 7
    var thresholds = 40
    var categories = false
    var missing: [TreeEnsemble.Missing] = [.nan]
    var isSingle = false
    var output = TreeEnsemble.Output.identity
  }

  private func ensemble(_ shape: Shape, _ generator: inout SeededGenerator) throws -> TreeEnsemble {
    let bins = (0..<shape.features).map { _ in
      (0..<shape.thresholds).map { _ in Float(generator.below(200) - 100) / 8 }
    }
    let trees = (0..<shape.trees).map { _ -> TreeEnsemble.Tree in
      let leaves = shape.leaves.lowerBound + generator.below(shape.leaves.count)
      var nodes: [TreeEnsemble.Node] = []
      var ends: [(node: Int, isLeft: Bool)?] = [nil]
      for node in 0..<leaves - 1 {
        if let end = ends.remove(at: generator.below(ends.count)) {
          if end.isLeft { nodes[end.node].left = node } else { nodes[end.node].right = node }
        }
        let feature = generator.below(shape.features)
        let isCategory = shape.categories && feature == 0
        let split: TreeEnsemble.Split =
          isCategory
          ? .categories(
            (0..<1 + generator.below(3)).map { _ in UInt32(truncatingIfNeeded: generator.next()) },
            inGoesRight: generator.below(2) == 0)
          : .above(bins[feature][generator.below(shape.thresholds)])
        nodes.append(
          TreeEnsemble.Node(
            feature: feature, split: split, missingGoesLeft: generator.below(2) == 0, left: 0, right: 0))
        ends += [(node, true), (node, false)]
      }
      ends.shuffle(using: &generator)
      for (leaf, end) in ends.enumerated() {
        guard let end else { continue }
        if end.isLeft { nodes[end.node].left = ~leaf } else { nodes[end.node].right = ~leaf }
      }
      return TreeEnsemble.Tree(nodes: nodes, leaves: (0..<leaves).map { _ in Double(Float(generator.unit() - 0.5)) })
    }
    return try TreeEnsemble(
      features: (0..<shape.features).map {
        TreeEnsemble.Feature(name: "f\($0)", missing: shape.missing[$0 % shape.missing.count])
      }, trees: trees, base: 0.25, isSingle: shape.isSingle, factor: 0.5, output: shape.output)
  }

  private func value(_ generator: inout SeededGenerator) -> Float {
    switch generator.below(12) {
    case 0: .nan
    case 1: 0
    case 2: -0.0
    case 3: 1e-36
    case 4: generator.below(2) == 0 ? .infinity : -.infinity
    default: Float(generator.below(400) - 200) / 16
    }
  }

  private func check(_ shape: Shape, seed: UInt64, sourceLocation: SourceLocation = #_sourceLocation) throws {
    var generator = SeededGenerator(seed: seed)
    let ensemble = try ensemble(shape, &generator)
    let ranker = try TreeRanker(
      ensemble, sources: Array(repeating: .retrievalScore, count: shape.features), itemColumns: 0, userColumns: 0,
      contextColumns: 0)
    let rows = (0..<150).map { _ in (0..<shape.features).map { _ in value(&generator) } }
    let expected = rows.map { (ensemble.score($0) ?? .nan).bitPattern }
    var memory = TreeMemory()
    for size in [1, 9, 10, 63, 64, 65, 150] {
      var scores = [Float](repeating: -1, count: size)
      ranker.score(count: size, memory: &memory, scores: &scores) { feature, start, size, values in
        for row in 0..<size { values[row] = rows[start + row][feature] }
      }
      let same = zip(scores, expected).prefix { $0.bitPattern == $1 }.count
      #expect(same == size, "of \(size) rows", sourceLocation: sourceLocation)
    }
  }

  @Test(arguments: 0..<8 as Range<UInt64>)
  func isTheDefinition(seed: UInt64) throws {
    try check(Shape(), seed: seed)
    try check(Shape(leaves: 64...64), seed: seed)
    try check(Shape(leaves: 1...3, isSingle: true), seed: seed)
    try check(Shape(categories: true, missing: [.nan, .none, .zero]), seed: seed)
  }

  @Test func treesOfManyLeavesAreWalked() throws {
    try check(Shape(trees: 5, leaves: 60...200), seed: 1)
    try check(Shape(trees: 3, leaves: 65...65, categories: true), seed: 2)
  }

  @Test func aFeatureMayHaveManyThresholds() throws {
    try check(Shape(trees: 60, leaves: 30...60, features: 1, thresholds: 1000), seed: 1)
  }

  @Test(arguments: [
    TreeEnsemble.Output.identity, .sigmoid(scale: 2), .exponential, .softplus, .signedSquare,
  ])
  func outputs(output: TreeEnsemble.Output) throws { try check(Shape(output: output), seed: 3) }

  /// The tree of the drawing in CScoring/trees.h.
  @Test func theDrawnTree() throws {
    let tree = TreeEnsemble.Tree(
      nodes: [
        .init(feature: 0, split: .above(3), missingGoesLeft: true, left: 1, right: 2),
        .init(feature: 1, split: .above(7), missingGoesLeft: false, left: ~0, right: ~1),
        .init(feature: 2, split: .categories([0b110], inGoesRight: false), missingGoesLeft: false, left: ~2, right: ~3),
      ], leaves: [10, 11, 12, 13])
    let ensemble = try TreeEnsemble(
      features: ["x", "y", "z"].map { .init(name: $0, missing: .nan) }, trees: [tree], base: 0.5)
    #expect(ensemble.score([3, 7, 0]) == 10.5)
    #expect(ensemble.score([.nan, 7.5, 0]) == 11.5)
    #expect(ensemble.score([3, .nan, 0]) == 11.5)
    #expect(ensemble.score([4, 0, 1]) == 12.5)
    #expect(ensemble.score([4, 0, 2.9]) == 12.5)
    for z: Float in [0, 3, .nan, -1, 1e30, -.infinity] { #expect(ensemble.score([4, 0, z]) == 13.5) }
  }

  @Test func missingValues() throws {
    func score(_ missing: TreeEnsemble.Missing, goesLeft: Bool, _ value: Float) throws -> Float? {
      let tree = TreeEnsemble.Tree(
        nodes: [.init(feature: 0, split: .above(-1), missingGoesLeft: goesLeft, left: ~0, right: ~1)], leaves: [0, 1])
      return try TreeEnsemble(features: [.init(name: "x", missing: missing)], trees: [tree]).score([value])
    }
    for goesLeft in [true, false] {
      let missing: Float = goesLeft ? 0 : 1
      #expect(try score(.nan, goesLeft: goesLeft, .nan) == missing)
      #expect(try score(.nan, goesLeft: goesLeft, 0) == 1)
      #expect(try score(.zero, goesLeft: goesLeft, .nan) == missing)
      #expect(try score(.zero, goesLeft: goesLeft, 1e-36) == missing)
      #expect(try score(.zero, goesLeft: goesLeft, 1e-34) == 1)
      #expect(try score(.none, goesLeft: goesLeft, .nan) == 1)
    }
  }

  @Test func brokenTreesAreRefused() {
    func refused(_ nodes: [TreeEnsemble.Node], leaves: [Double], _ reason: String) {
      #expect(throws: RankerError("tree 0: " + reason)) {
        try TreeEnsemble(features: [.init(name: "x", missing: .nan)], trees: [.init(nodes: nodes, leaves: leaves)])
      }
    }
    func node(_ left: Int, _ right: Int, feature: Int = 0, _ threshold: Float = 0) -> TreeEnsemble.Node {
      .init(feature: feature, split: .above(threshold), missingGoesLeft: true, left: left, right: right)
    }
    refused([node(~0, ~1)], leaves: [1], "1 leaves for 1 nodes; there is one more leaf than nodes")
    refused([node(~0, ~0)], leaves: [1, 2], "leaf 0 is reached twice")
    refused([node(~0, ~7)], leaves: [1, 2], "a node points to leaf 7")
    refused([node(0, ~1)], leaves: [1, 2], "node 0 is reached twice")
    refused([node(3, ~1)], leaves: [1, 2], "a node points to node 3")
    refused([node(~0, ~1, feature: 1)], leaves: [1, 2], "node 0 asks feature 1 of 1")
    refused([node(~0, ~1, .nan)], leaves: [1, 2], "node 0 compares with NaN")
    refused([node(~0, ~1)], leaves: [1, .infinity], "leaf 1 is inf")
    refused([node(~0, ~1), node(~0, ~1)], leaves: [1, 2, 3], "a leaf is never reached")
  }
}

@Suite struct ExponentialTests {
  @Test func isNearTheTruth() {
    // e¹, e^0.5, e^−1, e^10, e^−20, from tables.
    for (x, expected) in [
      (1, 2.718281828459045), (0.5, 1.6487212707001282), (-1, 0.36787944117144233), (10, 22026.465794806718),
      (-20, 2.061153622438558e-9), (0, 1), (709, 8.218407461554972e307),
    ] {
      #expect(abs(Exponential.of(x) - expected) <= 4e-15 * expected, "\(x)")
    }
    #expect(Exponential.of(710) == .infinity)
    #expect(Exponential.of(-800) == 0)
    #expect(Exponential.of(.nan).isNaN)
    for step in -400...400 {
      let x = Double(step) / 16
      let product = Exponential.of(x) * Exponential.of(-x)
      #expect(abs(product - 1) < 4e-15)
    }
  }

  @Test func logarithmTurnsItAround() {
    for x in [0, 1e-300, 1e-9, 1e-5, 1e-4, 0.1, 1, 3, 1e3, 1e15, 1e300] {
      let back = Exponential.of(Exponential.logOnePlus(x)) - 1
      #expect(abs(back - x) <= 1e-12 * max(1, x), "\(x)")
    }
    #expect(Exponential.logOnePlus(.infinity) == .infinity)
    #expect(abs(Exponential.logOnePlus(1) - 0.6931471805599453) < 1e-15)
  }
}
