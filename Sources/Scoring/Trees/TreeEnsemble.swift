import RankingCore

// Boosted trees as a library wrote them, in one form for all libraries. How they are evaluated is in TreeRanker.swift;
// what they mean is here, and `score` says it as plainly as can be:
//
//     value ─► missing? ─► node: value > threshold, or not one of its categories? ─► right, else left ─► … ─► leaf
//     leaves of all trees, added in their order in float64 (or float32) ─► the output's transform ─► float32

public struct TreeEnsemble: Sendable, Equatable {
  public enum Split: Sendable, Equatable {
    /// Goes right when the value is greater. (A library's float64 threshold is rounded down to float32: for float32
    /// values that is the same test.)
    case above(Float)
    /// Whether the value, cut to an integer, is a bit of these words: goes left then and right otherwise, or, when
    /// `inGoesRight`, the other way round. No missing value is in.
    case categories([UInt32], inGoesRight: Bool)
  }
  public struct Node: Sendable, Equatable {
    /// Index into `features`.
    public var feature: Int
    public var split: Split
    /// Where a missing value goes.
    public var missingGoesLeft: Bool
    /// A node of the tree, or ~leaf.
    public var left: Int
    public var right: Int
    public init(feature: Int, split: Split, missingGoesLeft: Bool, left: Int, right: Int) {
      self.feature = feature
      self.split = split
      self.missingGoesLeft = missingGoesLeft
      self.left = left
      self.right = right
    }
  }
  public struct Tree: Sendable, Equatable {
    /// The first is the root; none = leaf 0 alone.
    public var nodes: [Node]
    public var leaves: [Double]
    /// How much each leaf counts in the mean below a node: the rows (LightGBM) or the hessians (XGBoost) that reached
    /// it in training. Empty = all the same. Scores do not depend on it, only what they are said to be made of.
    public var covers: [Double]
    public init(nodes: [Node], leaves: [Double], covers: [Double] = []) {
      self.nodes = nodes
      self.leaves = leaves
      self.covers = covers
    }
  }
  /// What counts as missing in a feature's values.
  public enum Missing: String, Sendable, Equatable {
    /// Nothing: NaN is taken as 0.
    case none
    /// NaN and what is within 1e-35 of 0.
    case zero
    case nan
  }
  public struct Feature: Sendable, Equatable {
    public var name: String
    public var missing: Missing
    public init(name: String, missing: Missing) {
      self.name = name
      self.missing = missing
    }
  }
  /// What becomes of the sum.
  public enum Output: Sendable, Equatable {
    case identity
    /// 1 / (1 + e^(−scale · x))
    case sigmoid(scale: Double)
    case exponential
    /// log(1 + eˣ)
    case softplus
    /// x · |x|
    case signedSquare
  }

  public var features: [Feature]
  public var trees: [Tree]
  /// What the sum starts with.
  public var base: Double
  /// Whether the sum is rounded to float32 after each tree; the leaves are then float32, too.
  public var isSingle: Bool
  /// What the sum is multiplied with: 1, or 1 / trees where the library averages.
  public var factor: Double
  public var output: Output

  /// - Throws: when a node points outside its tree, is reached twice or never, or a number is not finite; says where.
  public init(
    features: [Feature], trees: [Tree], base: Double = 0, isSingle: Bool = false, factor: Double = 1,
    output: Output = .identity
  ) throws(RankerError) {
    self.features = features
    self.trees = trees
    self.base = base
    self.isSingle = isSingle
    self.factor = factor
    self.output = output
    for (number, tree) in trees.enumerated() {
      if let fault = Self.fault(of: tree, features: features.count) {
        throw RankerError("tree \(number): \(fault)")
      }
    }
  }

  private static func fault(of tree: Tree, features: Int) -> String? {
    guard tree.leaves.count == tree.nodes.count + 1 else {
      return "\(tree.leaves.count) leaves for \(tree.nodes.count) nodes; there is one more leaf than nodes"
    }
    if tree.leaves.count > Int(Int16.max) { return "\(tree.leaves.count) leaves, at most \(Int16.max) are allowed" }
    for (index, leaf) in tree.leaves.enumerated() where !leaf.isFinite { return "leaf \(index) is \(leaf)" }
    guard tree.covers.isEmpty || tree.covers.count == tree.leaves.count else {
      return "\(tree.covers.count) covers for \(tree.leaves.count) leaves"
    }
    for (index, cover) in tree.covers.enumerated() where !cover.isFinite || cover < 0 {
      return "leaf \(index) is covered \(cover) times"
    }
    var nodes = [Bool](repeating: false, count: tree.nodes.count)
    var leaves = [Bool](repeating: false, count: tree.leaves.count)
    var open = [tree.nodes.isEmpty ? ~0 : 0]
    while let place = open.popLast() {
      if place < 0 {
        guard leaves.indices.contains(~place) else { return "a node points to leaf \(~place)" }
        guard !leaves[~place] else { return "leaf \(~place) is reached twice" }
        leaves[~place] = true
        continue
      }
      guard nodes.indices.contains(place) else { return "a node points to node \(place)" }
      guard !nodes[place] else { return "node \(place) is reached twice" }
      nodes[place] = true
      let node = tree.nodes[place]
      guard 0..<features ~= node.feature else { return "node \(place) asks feature \(node.feature) of \(features)" }
      if case .above(let threshold) = node.split, threshold.isNaN { return "node \(place) compares with NaN" }
      open += [node.right, node.left]
    }
    // As many leaves as were counted, each reached once: then every node was, too.
    return leaves.allSatisfy { $0 } ? nil : "a leaf is never reached"
  }

  /// The definition: one row's score, tree by tree. `nil` when it is no finite float32.
  ///
  /// - Parameter values: one per feature, NaN = not there.
  public func score(_ values: [Float]) -> Float? { finished(sum(values)) }

  /// The score before its output's transform.
  public func raw(_ values: [Float]) -> Double { sum(values) * factor }

  private func sum(_ values: [Float]) -> Double {
    var sum = base
    for tree in trees {
      var place = tree.nodes.isEmpty ? ~0 : 0
      while place >= 0 {
        let node = tree.nodes[place]
        place = goesRight(node, values[node.feature]) ? node.right : node.left
      }
      sum += tree.leaves[~place]
      if isSingle { sum = Double(Float(sum)) }
    }
    return sum
  }

  private func goesRight(_ node: Node, _ value: Float) -> Bool {
    switch node.split {
    case .categories(let words, let inGoesRight):
      return value.isNaN ? !node.missingGoesLeft : Self.contains(words, value) == inGoesRight
    case .above(let threshold):
      let value = features[node.feature].missing.reading(value)
      return value.isNaN ? !node.missingGoesLeft : value > threshold
    }
  }

  /// Whether a value is one of the categories that the words name, bit by bit.
  static func contains(_ words: [UInt32], _ value: Float) -> Bool {
    // Cut towards zero: −0.5 is category 0.
    guard value > -1, value < Float(32 * words.count) else { return false }
    let category = Int(value)
    return words[category / 32] >> UInt32(category % 32) & 1 == 1
  }

  /// The score of a row whose leaves add up to `sum`.
  @inline(__always)
  func finished(_ sum: Double) -> Float? {
    let sum = sum * factor
    let result =
      switch output {
      case .identity: sum
      case .sigmoid(let scale): 1 / (1 + Exponential.of(-scale * sum))
      case .exponential: Exponential.of(sum)
      case .softplus: sum > 36 ? sum : Exponential.logOnePlus(Exponential.of(sum))
      case .signedSquare: sum * sum.magnitude
      }
    let score = Float(result) + 0
    return score.isFinite ? score : nil
  }
}

extension TreeEnsemble.Missing {
  /// The value as a node reads it; NaN = missing.
  @inline(__always)
  func reading(_ value: Float) -> Float {
    switch self {
    case .none: value.isNaN ? 0 : value
    case .zero: value.magnitude <= 1e-35 ? .nan : value
    case .nan: value
    }
  }
}
