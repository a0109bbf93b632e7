import Foundation
import RankingCore
import Scoring

// XGBoost's JSON model, as `Booster.save_model("model.json")` writes it: gbtree or dart, categories included.
//
//     {"learner": {"feature_names": ["item.price", …],
//       "gradient_booster": {"name": "gbtree", "model": {"trees": [
//         {"left_children": [1, -1, -1], "right_children": [2, …], "split_indices": [0, …],
//          "split_conditions": [0.5, …], "default_left": [1, …], "split_type": [0, …], "categories": […], …}]}},
//       "learner_model_param": {"base_score": "5E-1"}, "objective": {"name": "rank:ndcg"}}}
//
// A value goes left when it is less than the condition; of a categorical split, when it is none of the categories.
// A leaf's value is its `split_conditions`. Sums are float32, from the base score on, in the order of the trees.

enum XGBoostFile {
  private struct File: Decodable {
    struct Learner: Decodable {
      var feature_names: [String]?
      var gradient_booster: Booster
      var learner_model_param: Parameters
      var objective: Objective
    }
    struct Booster: Decodable {
      var name: String
      var model: Model?
      /// Of dart: the trees, and what each counts.
      var gbtree: Inner?
      var weight_drop: [Float]?
    }
    struct Inner: Decodable { var model: Model }
    struct Model: Decodable { var trees: [Tree] }
    struct Parameters: Decodable {
      var base_score: String
      var num_class: String?
      var num_target: String?
    }
    struct Objective: Decodable { var name: String }
    struct Tree: Decodable {
      var left_children: [Int]
      var right_children: [Int]
      var split_indices: [Int]
      var split_conditions: [Float]
      var default_left: [Int]
      /// Not needed for scores.
      var sum_hessian: [Double]?
      var split_type: [Int]?
      var categories: [Int]?
      var categories_nodes: [Int]?
      var categories_segments: [Int]?
      var categories_sizes: [Int]?
    }
    var learner: Learner
  }

  /// Whether these bytes are a model: no other file begins so.
  static func isOne(_ bytes: [UInt8]) -> Bool {
    let start = bytes.prefix(64).filter { $0 > UInt8(ascii: " ") }
    return start.starts(with: Array("{\"learner\":".utf8))
  }

  static func parse(_ bytes: [UInt8], path: String) throws(InputError) -> TreeEnsemble {
    let file: File
    do { file = try JSONDecoder().decode(File.self, from: Data(bytes)) } catch {
      throw InputError(file: path, "is not an XGBoost JSON model: \(error)")
    }
    let learner = file.learner
    let parameters = learner.learner_model_param
    guard Int(parameters.num_class ?? "0") ?? 2 <= 1, parameters.num_target ?? "1" == "1" else {
      throw InputError(file: path, "a model of several classes or targets gives no one score to rank by")
    }
    let booster = learner.gradient_booster
    guard let model = booster.model ?? booster.gbtree?.model else {
      throw InputError(file: path, "booster \"\(booster.name)\" is not supported; allowed are gbtree and dart")
    }
    let weights = booster.weight_drop ?? []
    guard weights.isEmpty || weights.count == model.trees.count else {
      throw InputError(file: path, "weight_drop: \(weights.count) values for \(model.trees.count) trees")
    }
    let names = learner.feature_names ?? []
    let featureCount = max(names.count, 1 + (model.trees.flatMap(\.split_indices).max() ?? -1))
    var trees: [TreeEnsemble.Tree] = []
    for (number, tree) in model.trees.enumerated() {
      trees.append(
        try converted(tree, weight: weights.isEmpty ? 1 : weights[number], InputError(file: path, "tree \(number)")))
    }
    let (base, output) = try meaning(learner, path)
    do {
      return try TreeEnsemble(
        features: (0..<featureCount).map {
          TreeEnsemble.Feature(name: $0 < names.count ? names[$0] : "f\($0)", missing: .nan)
        }, trees: trees, base: base, isSingle: true, output: output)
    } catch { throw InputError(file: path, "\(error)") }
  }

  private static let identities = [
    "reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror",
    "reg:quantileerror", "binary:logitraw",
  ]

  /// Where the sum starts, and what becomes of it.
  private static func meaning(
    _ learner: File.Learner, _ path: String
  ) throws(InputError) -> (base: Double, output: TreeEnsemble.Output) {
    let text = learner.learner_model_param.base_score.trimmingCharacters(in: CharacterSet(charactersIn: "[]"))
    guard let score = Float(text), score.isFinite else {
      throw InputError(file: path, "base_score \"\(learner.learner_model_param.base_score)\" is no number")
    }
    switch learner.objective.name {
    case "binary:logistic", "reg:logistic":
      guard score > 0, score < 1 else { throw InputError(file: path, "base_score \(score) is no probability") }
      return (Double(Float(-log(1 / Double(score) - 1))), .sigmoid(scale: 1))
    case "count:poisson", "reg:gamma", "reg:tweedie":
      guard score > 0 else { throw InputError(file: path, "base_score \(score) has no logarithm") }
      return (Double(Float(log(Double(score)))), .exponential)
    case let name where name.hasPrefix("rank:") || identities.contains(name): return (Double(score), .identity)
    default:
      throw InputError(
        file: path,
        "objective \"\(learner.objective.name)\" is not supported; allowed are rank:…, reg:…, binary:logistic, "
          + "binary:logitraw and count:poisson")
    }
  }

  /// The nodes that can be reached, numbered anew: pruning leaves others in the file.
  private static func converted(
    _ tree: File.Tree, weight: Float, _ place: InputError
  ) throws(InputError) -> TreeEnsemble.Tree {
    func error(_ reason: String) -> InputError { InputError(file: place.file, "\(place.reason): \(reason)") }
    let count = tree.left_children.count
    guard count > 0, tree.right_children.count == count, tree.split_indices.count == count,
      tree.split_conditions.count == count, tree.default_left.count == count, tree.split_type?.count ?? count == count,
      tree.sum_hessian?.count ?? count == count
    else { throw error("its lists have different lengths, or are empty") }
    let sets = try categories(of: tree, error)
    var nodes: [TreeEnsemble.Node] = []
    var leaves: [Double] = []
    var covers: [Double] = []
    /// What is to be numbered, and where its number goes.
    var open: [(old: Int, parent: Int, isLeft: Bool)] = [(0, -1, false)]
    while let (old, parent, isLeft) = open.popLast() {
      guard 0..<count ~= old, nodes.count + leaves.count < count else { throw error("its nodes make no tree") }
      let number: Int
      if tree.left_children[old] == -1 {
        number = ~leaves.count
        leaves.append(Double(tree.split_conditions[old] * weight))
        if let hessians = tree.sum_hessian { covers.append(hessians[old]) }
      } else {
        number = nodes.count
        let split: TreeEnsemble.Split
        if tree.split_type?[old] ?? 0 == 1 {
          guard let words = sets[old] else { throw error("node \(old) has no categories") }
          split = .categories(words, inGoesRight: true)
        } else {
          split = .above(tree.split_conditions[old].nextDown)
        }
        nodes.append(
          TreeEnsemble.Node(
            feature: tree.split_indices[old], split: split, missingGoesLeft: tree.default_left[old] != 0, left: 0,
            right: 0))
        open.append((tree.right_children[old], number, false))
        open.append((tree.left_children[old], number, true))
      }
      if parent >= 0 { if isLeft { nodes[parent].left = number } else { nodes[parent].right = number } }
    }
    return TreeEnsemble.Tree(nodes: nodes, leaves: leaves, covers: covers)
  }

  private static let categoriesMax = 1 << 16

  private static func categories(
    of tree: File.Tree, _ error: (String) -> InputError
  ) throws(InputError) -> [Int: [UInt32]] {
    let nodes = tree.categories_nodes ?? []
    let (starts, sizes, all) = (tree.categories_segments ?? [], tree.categories_sizes ?? [], tree.categories ?? [])
    guard starts.count == nodes.count, sizes.count == nodes.count else {
      throw error("its lists of categories have different lengths")
    }
    var sets: [Int: [UInt32]] = [:]
    for (index, node) in nodes.enumerated() {
      guard starts[index] >= 0, sizes[index] >= 0, starts[index] <= all.count - sizes[index] else {
        throw error("node \(node): its categories lie beyond the list")
      }
      let some = all[starts[index]..<starts[index] + sizes[index]]
      guard some.allSatisfy({ 0..<categoriesMax ~= $0 }) else {
        throw error("node \(node): a category is not in 0..<\(categoriesMax)")
      }
      var words = [UInt32](repeating: 0, count: (some.max() ?? 0) / 32 + 1)
      for category in some { words[category / 32] |= 1 << UInt32(category % 32) }
      sets[node] = words
    }
    return sets
  }
}
