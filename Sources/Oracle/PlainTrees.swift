import Foundation

/// LightGBM's text model, walked tree by tree and node by node on the file's own float64 numbers: the other opinion on
/// what such a file means. Only what the project's own models use; no errors but traps, as the file has been checked.
struct PlainTrees {
  private struct Tree {
    var feature: [Int] = []
    var threshold: [Double] = []
    var decision: [Int] = []
    var left: [Int] = []
    var right: [Int] = []
    var leaf: [Double] = []
    var count: [Double] = []
    var bounds: [Int] = []
    var words: [UInt32] = []
  }
  private var trees: [Tree] = []
  private(set) var names: [String] = []
  private var objective = ""
  private var isAverage = false

  /// - Returns: nil when the text is no LightGBM model.
  init?(_ text: String) {
    guard text.hasPrefix("tree\n") else { return nil }
    for line in text.split(separator: "\n") {
      if line == "end of trees" { break }
      if line == "average_output" { isAverage = true }
      let parts = line.split(separator: "=", maxSplits: 1).map(String.init)
      guard parts.count == 2 else { continue }
      let words = parts[1].split(separator: " ").map(String.init)
      if parts[0] == "Tree" { trees.append(Tree()) }
      let last = trees.count - 1
      switch parts[0] {
      case "feature_names": names = words
      case "objective": objective = parts[1]
      case "split_feature": trees[last].feature = words.map { Int($0)! }
      case "threshold": trees[last].threshold = words.map { Double($0)! }
      case "decision_type": trees[last].decision = words.map { Int($0)! }
      case "left_child": trees[last].left = words.map { Int($0)! }
      case "right_child": trees[last].right = words.map { Int($0)! }
      case "leaf_value": trees[last].leaf = words.map { Double($0)! }
      case "leaf_count": trees[last].count = words.map { Double($0)! }
      case "cat_boundaries": trees[last].bounds = words.map { Int($0)! }
      case "cat_threshold": trees[last].words = words.map { UInt32($0)! }
      default: break
      }
    }
  }

  /// - Parameter value: of a feature, by its name.
  func score(_ value: (String) -> Float) -> Float? {
    let values = names.map { Double(value($0)) }
    var sum = 0.0
    for tree in trees {
      var place = tree.feature.isEmpty ? -1 : 0
      while place >= 0 {
        place = goesLeft(tree, place, values[tree.feature[place]]) ? tree.left[place] : tree.right[place]
      }
      sum += tree.leaf[-place - 1]
    }
    if isAverage { sum /= Double(trees.count) }
    return finished(sum)
  }

  /// - Parameter value: of a feature, by its name.
  func explain(_ value: (String) -> Float) -> PlainAccount {
    let values = names.map { Double(value($0)) }
    var account = PlainAccount()
    var sum = 0.0
    for tree in trees {
      root(tree).walk(into: &account, goesLeft: { goesLeft(tree, $0, values[tree.feature[$0]]) }) { leaf in
        sum += leaf
        return leaf
      }
    }
    if isAverage {
      account.scale(1 / Double(trees.count))
      sum /= Double(trees.count)
    }
    account.raw = sum
    account.outputs = [finished(sum) ?? .nan]
    return account
  }

  private func root(_ tree: Tree) -> PlainNode {
    func node(_ place: Int) -> PlainNode {
      place < 0
        ? .leaf(tree.leaf[-place - 1], cover: tree.count.isEmpty ? 1 : tree.count[-place - 1])
        : .node(
          feature: names[tree.feature[place]], number: place, left: node(tree.left[place]),
          right: node(tree.right[place]))
    }
    return node(tree.feature.isEmpty ? -1 : 0)
  }

  private func finished(_ sum: Double) -> Float? {
    var sum = sum
    if objective.hasPrefix("binary") {
      let scale = Double(objective.split(separator: " ").first { $0.hasPrefix("sigmoid:") }!.dropFirst(8))!
      sum = 1 / (1 + exp(-scale * sum))
    } else if ["poisson", "gamma", "tweedie"].contains(where: objective.hasPrefix) {
      sum = exp(sum)
    }
    let score = Float(sum)
    return score.isFinite ? score + 0 : nil
  }

  private func goesLeft(_ tree: Tree, _ node: Int, _ value: Double) -> Bool {
    let decision = tree.decision[node]
    if decision & 1 == 1 {
      if value.isNaN || Int(value) < 0 { return false }
      let set = Int(tree.threshold[node])
      let word = tree.bounds[set] + Int(value) / 32
      return word < tree.bounds[set + 1] && tree.words[word] >> UInt32(Int(value) % 32) & 1 == 1
    }
    let missing = decision >> 2 & 3
    let value = value.isNaN && missing != 2 ? 0 : value
    if missing == 2 && value.isNaN || missing == 1 && abs(value) <= 1e-35 { return decision & 2 != 0 }
    return value <= tree.threshold[node]
  }
}
