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
    let isProbability = objective.hasSuffix(":logistic")
    let isLogarithm = ["count:poisson", "reg:gamma", "reg:tweedie"].contains(objective)
    var sum = isProbability ? Float(-log(1 / Double(base) - 1)) : isLogarithm ? Float(log(Double(base))) : base
    for (number, tree) in trees.enumerated() {
      let leaf = Float((tree["split_conditions"] as! [Double])[self.leaf(tree, values)])
      sum += weights.isEmpty ? leaf : leaf * weights[number]
    }
    var result = Double(sum)
    if isProbability { result = 1 / (1 + exp(-result)) }
    if isLogarithm { result = exp(result) }
    let score = Float(result)
    return score.isFinite ? score + 0 : nil
  }

  private func leaf(_ tree: [String: Any], _ values: [Float]) -> Int {
    func list(_ name: String) -> [Int] { tree[name] as! [Int] }
    let (lefts, rights) = (list("left_children"), list("right_children"))
    let (features, defaults) = (list("split_indices"), list("default_left"))
    let conditions = tree["split_conditions"] as! [Double]
    var node = 0
    while lefts[node] != -1 {
      let value = values[features[node]]
      let goesLeft: Bool
      if value.isNaN {
        goesLeft = defaults[node] == 1
      } else if (tree["split_type"] as? [Int])?[node] == 1 {
        let place = list("categories_nodes").firstIndex(of: node)!
        let start = list("categories_segments")[place]
        let some = list("categories")[start..<start + list("categories_sizes")[place]]
        goesLeft = !some.contains(Int(value))
      } else {
        goesLeft = value < Float(conditions[node])
      }
      node = goesLeft ? lefts[node] : rights[node]
    }
    return node
  }
}
