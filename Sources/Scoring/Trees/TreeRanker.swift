import CScoring
import RankingCore

// Boosted trees, quickly: the same scores as `TreeEnsemble.score`, for blocks of 64 rows.
//
//     candidates ─► per input: 64 values ─► 64 ranks ─► bit trees (≤ 64 leaves) ─┐
//                                                     └► walked trees ───────────┴─► sums ─► output ─► score
//
// An input is what trees ask: a feature's place among at most 255 of its thresholds, with missing values low or high,
// or whether a feature is one of a node's categories. A feature with more thresholds, or one whose missing values go
// left in one node and right in another, is several inputs. See CScoring/trees.h for the bits.

public final class TreeRanker: Sendable {
  public let ensemble: TreeEnsemble
  /// Where each of the ensemble's features comes from.
  public let sources: [FeatureSource]
  public let itemColumns: Int
  public let userColumns: Int
  public let contextColumns: Int

  enum Reading: Sendable {
    /// 2^levels − 1 thresholds, filled up with +∞; the rank of a missing value.
    case ranks(thresholds: [Float], levels: UInt32, missing: UInt8)
    /// 1 when the node is gone to the right.
    case categories(Categories)
  }
  struct Categories: Hashable, Sendable {
    var words: [UInt32]
    var inGoesRight: Bool
    var missingGoesLeft: Bool

    func goesRight(_ value: Float) -> Bool {
      value.isNaN ? !missingGoesLeft : TreeEnsemble.contains(words, value) == inGoesRight
    }
  }
  struct Input: Sendable {
    var feature: Int
    var reading: Reading
  }
  let inputs: [Input]
  /// Feature by feature, the inputs that read it.
  let inputsOfFeature: [[Int]]
  private let bitTrees: [cscoring_bit_tree]
  private let conditions: [cscoring_condition]
  let walkTrees: [cscoring_walk_tree]
  let nodes: [cscoring_node]
  let values: [Double]
  /// By node, the mean of the leaves below.
  let means: [Double]
  /// By input, the place of its feature's contributions.
  let contributionPlaces: [Int]
  /// Trees of more leaves than bits: all trees are then walked, as their sums are to be added in their order.
  private let isWalked: Bool

  static let rows = Int(CSCORING_TREE_ROWS)
  /// Fewer rows than this are walked: a block costs the same however full it is.
  private static let blockRowsMin = 10

  /// - Parameters: `sources`: one per feature of the ensemble; the column counts of the schema they were bound to.
  /// - Throws: when a source points past its columns, or there are more inputs than 65 535.
  public init(
    _ ensemble: TreeEnsemble, sources: [FeatureSource], itemColumns: Int, userColumns: Int, contextColumns: Int
  ) throws(RankerError) {
    guard sources.count == ensemble.features.count else {
      throw RankerError("\(sources.count) sources for \(ensemble.features.count) features")
    }
    for (source, feature) in zip(sources, ensemble.features) {
      if let fault = source.fault(
        itemColumns: itemColumns, userColumns: userColumns, contextColumns: contextColumns)
      {
        throw RankerError("feature \"\(feature.name)\": \(fault)")
      }
    }
    self.ensemble = ensemble
    self.sources = sources
    self.itemColumns = itemColumns
    self.userColumns = userColumns
    self.contextColumns = contextColumns
    var compiler = Compiler(ensemble)
    try compiler.compile()
    inputs = compiler.inputs
    inputsOfFeature = compiler.inputsOfFeature
    bitTrees = compiler.bitTrees
    conditions = compiler.conditions
    walkTrees = compiler.walkTrees
    nodes = compiler.nodes
    values = compiler.values
    means = ensemble.trees.flatMap { $0.means() }
    let layout = ContributionLayout(
      itemColumns: itemColumns, userColumns: userColumns, contextColumns: contextColumns)
    contributionPlaces = inputs.map { layout.place(of: sources[$0.feature]) }
    isWalked = compiler.isWalked
  }

  /// Scores `count` candidates.
  ///
  /// - Parameters:
  ///   - candidates: their rows, retrieval scores and what the request says.
  ///   - scores: out; NaN where there is no finite score.
  func score(
    count: Int, candidates: CandidateFeatures, memory: inout TreeMemory, scores: UnsafeMutablePointer<Float>
  ) {
    score(count: count, memory: &memory, scores: scores) { feature, start, size, values in
      candidates.read(sources[feature], from: start, count: size, into: values)
    }
  }

  /// Scores rows whose features the caller has: `features` gives a feature's values of the rows from a start on.
  package func score(
    count: Int, memory: inout TreeMemory, scores: UnsafeMutablePointer<Float>,
    features: (_ feature: Int, _ start: Int, _ size: Int, _ values: UnsafeMutablePointer<Float>) -> Void
  ) {
    let values = memory.values.room(for: Self.rows)
    let ranks = memory.ranks.room(for: max(1, inputs.count) * Self.rows)
    let sums = memory.sums.room(for: Self.rows)
    for start in stride(from: 0, to: count, by: Self.rows) {
      let size = min(Self.rows, count - start)
      for feature in inputsOfFeature.indices where !inputsOfFeature[feature].isEmpty {
        features(feature, start, size, values)
        read(feature, values, size, into: ranks)
      }
      let isWalked = isWalked || size < Self.blockRowsMin
      if isWalked {
        for row in 0..<size {
          sums[row] = cscoring_walk_trees(
            walkTrees, walkTrees.count, nodes, self.values, ranks + row, Self.rows, ensemble.isSingle ? 1 : 0,
            ensemble.base)
        }
      } else {
        sums.update(repeating: ensemble.base, count: Self.rows)
        cscoring_bit_trees(bitTrees, bitTrees.count, conditions, self.values, ranks, ensemble.isSingle ? 1 : 0, sums)
      }
      for row in 0..<size { scores[start + row] = ensemble.finished(sums[row]) ?? .nan }
    }
  }

  /// The inputs of a feature, for one block.
  func read(
    _ feature: Int, _ values: UnsafeMutablePointer<Float>, _ size: Int, into ranks: UnsafeMutablePointer<UInt8>
  ) {
    let missing = ensemble.features[feature].missing
    var isRead = false
    for input in inputsOfFeature[feature] {
      let ranks = ranks + input * Self.rows
      switch inputs[input].reading {
      case .categories(let categories):
        for row in 0..<size { ranks[row] = categories.goesRight(values[row]) ? 1 : 0 }
      case .ranks(let thresholds, let levels, let rank):
        if !isRead {
          // A feature's categories, if any, come before its thresholds.
          isRead = true
          if missing != .nan { for row in 0..<size { values[row] = missing.reading(values[row]) } }
        }
        cscoring_ranks(values, size, thresholds, levels, rank, ranks)
      }
    }
  }

  // MARK: Compiling

  private struct Compiler {
    let ensemble: TreeEnsemble
    var inputs: [Input] = []
    var inputsOfFeature: [[Int]]
    var bitTrees: [cscoring_bit_tree] = []
    var conditions: [cscoring_condition] = []
    var walkTrees: [cscoring_walk_tree] = []
    var nodes: [cscoring_node] = []
    var values: [Double] = []
    var isWalked = false
    /// By feature and side of missing values: ascending thresholds, and the first input of them.
    private var thresholds: [[Bool: [Float]]]
    private var firstInput: [[Bool: Int]]
    private var categoryInput: [[Categories: Int]]

    private static let perInput = 255

    init(_ ensemble: TreeEnsemble) {
      self.ensemble = ensemble
      inputsOfFeature = Array(repeating: [], count: ensemble.features.count)
      thresholds = Array(repeating: [:], count: ensemble.features.count)
      firstInput = Array(repeating: [:], count: ensemble.features.count)
      categoryInput = Array(repeating: [:], count: ensemble.features.count)
    }

    mutating func compile() throws(RankerError) {
      makeInputs()
      guard inputs.count <= Int(UInt16.max) else {
        throw RankerError("\(inputs.count) inputs, at most \(UInt16.max) are allowed")
      }
      isWalked = ensemble.trees.contains { $0.leaves.count > 64 }
      for tree in ensemble.trees {
        let start = UInt32(values.count)
        values += tree.leaves
        walkTrees.append(
          cscoring_walk_tree(nodes: UInt32(nodes.count), node_count: UInt32(tree.nodes.count), values: start))
        for node in tree.nodes {
          let (input, rank) = test(node)
          nodes.append(
            cscoring_node(
              feature: UInt16(input), rank: rank, unused: 0, kids: (Int16(node.left), Int16(node.right))))
        }
        if !isWalked { addBits(tree) }
      }
      // A tree of one leaf looks at the node where its own would be.
      nodes.append(cscoring_node())
    }

    private mutating func makeInputs() {
      var above = Array(repeating: [Bool: Set<Float>](), count: ensemble.features.count)
      for tree in ensemble.trees {
        for node in tree.nodes {
          switch node.split {
          case .above(let threshold): above[node.feature][node.missingGoesLeft, default: []].insert(threshold)
          case .categories(let words, let inGoesRight):
            let categories = Categories(
              words: words, inGoesRight: inGoesRight, missingGoesLeft: node.missingGoesLeft)
            guard categoryInput[node.feature][categories] == nil else { continue }
            categoryInput[node.feature][categories] = inputs.count
            add(Input(feature: node.feature, reading: .categories(categories)))
          }
        }
      }
      for feature in above.indices {
        for goesLeft in [true, false] {
          guard let all = above[feature][goesLeft]?.sorted() else { continue }
          thresholds[feature][goesLeft] = all
          firstInput[feature][goesLeft] = inputs.count
          for start in stride(from: 0, to: all.count, by: Self.perInput) {
            let some = all[start..<min(all.count, start + Self.perInput)]
            var levels: UInt32 = 0
            while 1 << levels - 1 < some.count { levels += 1 }
            let padded = some + [Float](repeating: .infinity, count: 1 << Int(levels) - 1 - some.count)
            add(
              Input(
                feature: feature,
                reading: .ranks(thresholds: Array(padded), levels: levels, missing: goesLeft ? 0 : 255)))
          }
        }
      }
    }
    private mutating func add(_ input: Input) {
      inputsOfFeature[input.feature].append(inputs.count)
      inputs.append(input)
    }

    /// The input that a node asks, and the rank above which it goes right.
    private func test(_ node: TreeEnsemble.Node) -> (input: Int, rank: UInt8) {
      switch node.split {
      case .categories(let words, let inGoesRight):
        let categories = Categories(words: words, inGoesRight: inGoesRight, missingGoesLeft: node.missingGoesLeft)
        return (categoryInput[node.feature][categories]!, 0)
      case .above(let threshold):
        let all = thresholds[node.feature][node.missingGoesLeft]!
        var (low, high) = (0, all.count)
        while low < high {
          let middle = (low + high) / 2
          if all[middle] < threshold { low = middle + 1 } else { high = middle }
        }
        return (
          firstInput[node.feature][node.missingGoesLeft]! + low / Self.perInput, UInt8(low % Self.perInput)
        )
      }
    }

    private mutating func addBits(_ tree: TreeEnsemble.Tree) {
      // Leaves from left to right, and the range of them on each node's left.
      var order: [Int] = []
      var left = [Range<Int>](repeating: 0..<0, count: tree.nodes.count)
      func visit(_ place: Int) {
        guard place >= 0 else { return order.append(~place) }
        let start = order.count
        visit(tree.nodes[place].left)
        left[place] = start..<order.count
        visit(tree.nodes[place].right)
      }
      visit(tree.nodes.isEmpty ? ~0 : 0)
      var sorted: [[cscoring_condition]] = [[], [], []]
      for (place, node) in tree.nodes.enumerated() {
        let (input, rank) = test(node)
        let range = left[place]
        let (first, last) = (range.lowerBound / 8, (range.upperBound - 1) / 8)
        let below = UInt8(truncatingIfNeeded: (1 << (range.lowerBound % 8)) - 1)
        let above = UInt8(truncatingIfNeeded: 0xFF << ((range.upperBound - 1) % 8 + 1))
        let condition = cscoring_condition(
          feature: UInt16(input), rank: rank, plane: UInt8(first), planes: UInt8(last - first + 1),
          keep: first == last ? below | above : below, keep_last: above, unused: 0)
        sorted[min(2, last - first)].append(condition)
      }
      bitTrees.append(
        cscoring_bit_tree(
          conditions: UInt32(conditions.count), one: UInt16(sorted[0].count), two: UInt16(sorted[1].count),
          more: UInt16(sorted[2].count), leaves: UInt16(tree.leaves.count), values: UInt32(values.count)))
      for some in sorted { conditions += some }
      // The leaves once more, in the order of the bits.
      values += order.map { tree.leaves[$0] }
    }
  }
}

/// What a tree ranker keeps between blocks; one per compute thread.
package struct TreeMemory: ~Copyable {
  var values = ScratchBuffer<Float>()
  var ranks = ScratchBuffer<UInt8>()
  var sums = ScratchBuffer<Double>()
  package init() {}
}
