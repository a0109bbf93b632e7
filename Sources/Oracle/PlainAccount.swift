import RankingCore

/// What a score is made of, by the names of the features.
struct PlainAccount {
  var base = 0.0
  var contributions: [String: Double] = [:]
  var raw = 0.0
  /// Each ranker's.
  var outputs: [Float] = []

  mutating func add(_ value: Double, to feature: String) { contributions[feature, default: 0] += value }
  mutating func scale(_ factor: Double) {
    base *= factor
    contributions = contributions.mapValues { $0 * factor }
  }
}

/// A tree as nested nodes, made of a model's lists. A node's mean is that of its leaves, weighted by their covers.
indirect enum PlainNode {
  case leaf(Double, cover: Double)
  case node(feature: String, number: Int, left: PlainNode, right: PlainNode)

  var cover: Double {
    switch self {
    case .leaf(_, let cover): cover
    case .node(_, _, let left, let right): left.cover + right.cover
    }
  }
  var leaves: Double {
    switch self {
    case .leaf: 1
    case .node(_, _, let left, let right): left.leaves + right.leaves
    }
  }
  var mean: Double {
    switch self {
    case .leaf(let value, _): value
    case .node(_, _, let left, let right):
      cover > 0
        ? (left.mean * left.cover + right.mean * right.cover) / cover
        : (left.mean * left.leaves + right.mean * right.leaves) / leaves
    }
  }

  /// Follows a row down, and gives each question what it changes of the mean.
  ///
  /// - Parameters:
  ///   - goesLeft: by the node's number.
  ///   - reached: what the reached leaf counts as, given its value.
  func walk(into account: inout PlainAccount, goesLeft: (Int) -> Bool, reached: (Double) -> Double) {
    guard case .node = self else {
      if case .leaf(let value, _) = self { account.base += reached(value) }
      return
    }
    account.base += mean
    var here = self
    while case .node(let feature, let number, let left, let right) = here {
      let next = goesLeft(number) ? left : right
      if case .leaf(let value, _) = next {
        account.add(reached(value) - here.mean, to: feature)
      } else {
        account.add(next.mean - here.mean, to: feature)
      }
      here = next
    }
  }
}
