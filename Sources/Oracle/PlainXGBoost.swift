import Foundation

/// XGBoost's JSON model, walked on the file's own lists: the other opinion on what such a file means. As `PlainTrees`,
/// it trusts a file that has been checked.
struct PlainXGBoost {
  private let trees: [[String: Any]]
  private let weights: [Float]
  private let names: [String]
  private let objective: String
  private let base: Float

  /// - Returns: nil when the bytes are no such model.
  init?(_ data: Data) {
    guard let root = (try? JSONSerialization.jsonObject(with: data)) as? [String: Any],
      let learner = root["learner"] as? [String: Any], let booster = learner["gradient_booster"] as? [String: Any],
      let objective = learner["objective"] as? [String: Any],
      let parameters = learner["learner_model_param"] as? [String: Any]
    else { return nil }
    let inner = booster["gbtree"] as? [String: Any] ?? booster
    let model = inner["model"] as? [String: Any]
    trees = model?["trees"] as? [[String: Any]] ?? []
    weights = (booster["weight_drop"] as? [Double] ?? []).map { Float($0) }
    names = learner["feature_names"] as? [String] ?? []
    self.objective = objective["name"] as? String ?? ""
    let text = (parameters["base_score"] as? String ?? "").filter { $0 != "[" && $0 != "]" }
    base = Float(text) ?? 0
  }

  /// - Parameter value: of a feature, by its name.
  func score(_ value: (String) -> Float) -> Float? {
    let values = names.map(value)
    var sum = start
    for number in trees.indices { sum += leafValue(number, leaf(trees[number], values)) }
    return finished(sum)
  }

  /// - Parameter value: of a feature, by its name.
  func explain(_ value: (String) -> Float) -> PlainAccount {
    let values = names.map(value)
    var sum = start
    var account = PlainAccount()
    account.base = Double(start)
    for number in trees.indices {
      root(number).walk(into: &account, goesLeft: { goesLeft(trees[number], $0, values) }) { leaf in
        let before = sum
        sum += Float(leaf)
        return Double(sum) - Double(before)
      }
    }
    account.raw = Double(sum)
    account.outputs = [finished(sum) ?? .nan]
    return account
  }

  private var isProbability: Bool { objective.hasSuffix(":logistic") }
  private var isLogarithm: Bool { ["count:poisson", "reg:gamma", "reg:tweedie"].contains(objective) }
  private var start: Float {
    isProbability ? Float(-log(1 / Double(base) - 1)) : isLogarithm ? Float(log(Double(base))) : base
  }
  private func leafValue(_ number: Int, _ leaf: Int) -> Float {
    let value = Float((trees[number]["split_conditions"] as! [Double])[leaf])
    return weights.isEmpty ? value : value * weights[number]
  }

  private func root(_ number: Int) -> PlainNode {
    let tree = trees[number]
    func list(_ name: String) -> [Int] { tree[name] as! [Int] }
    let (lefts, rights, features) = (list("left_children"), list("right_children"), list("split_indices"))
    let hessians = tree["sum_hessian"] as? [Double]
    func node(_ place: Int) -> PlainNode {
      lefts[place] == -1
        ? .leaf(Double(leafValue(number, place)), cover: hessians?[place] ?? 1)
        : .node(
          feature: names[features[place]], number: place, left: node(lefts[place]), right: node(rights[place]))
    }
    return node(0)
  }

  private func finished(_ sum: Float) -> Float? {
    var result = Double(sum)
    if isProbability { result = 1 / (1 + exp(-result)) }
    if isLogarithm { result = exp(result) }
    let score = Float(result)
    return score.isFinite ? score + 0 : nil
  }

  private func leaf(_ tree: [String: Any], _ values: [Float]) -> Int {
    func list(_ name: String) -> [Int] { tree[name] as! [Int] }
    let (lefts, rights) = (list("left_children"), list("right_children"))
    var node = 0
    while lefts[node] != -1 { node = goesLeft(tree, node, values) ? lefts[node] : rights[node] }
    return node
  }

  private func goesLeft(_ tree: [String: Any], _ node: Int, _ values: [Float]) -> Bool {
    func list(_ name: String) -> [Int] { tree[name] as! [Int] }
    let value = values[list("split_indices")[node]]
    if value.isNaN { return list("default_left")[node] == 1 }
    guard (tree["split_type"] as? [Int])?[node] == 1 else {
      return value < Float((tree["split_conditions"] as! [Double])[node])
    }
    let place = list("categories_nodes").firstIndex(of: node)!
    let start = list("categories_segments")[place]
    return !list("categories")[start..<start + list("categories_sizes")[place]].contains(Int(value))
  }
}
