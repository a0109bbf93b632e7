import RankingCore
import Scoring

// LightGBM's text model, as `Booster.save_model` writes it.
//
//     tree                             a header of key=value lines
//     objective=lambdarank
//     feature_names=item.price user.age context.hour retrieval_score
//
//     Tree=0                           then each tree: one value per node, or per leaf, in a line
//     split_feature=2 0                child numbers ≥ 0 are nodes, −1 … are leaf 0 …
//     threshold=5.0 1.5
//     decision_type=2 1                bit 0: categories; 1: missing goes left; 2–3: none, zero or NaN is missing
//     left_child=1 -1
//     …
//     end of trees
//
// What it does with a value is LightGBM 4's `Tree::NumericalDecision` and `Tree::CategoricalDecision`.

enum LightGBMFile {
  static func isOne(_ bytes: [UInt8]) -> Bool { bytes.starts(with: Array("tree\n".utf8)) }

  /// - Throws: with the line, when the text is cut off or damaged, or the model is of a kind that is not supported.
  static func parse(_ bytes: [UInt8], path: String) throws(InputError) -> TreeEnsemble {
    guard let text = String(validating: bytes, as: UTF8.self) else { throw InputError(file: path, "is not UTF-8") }
    var reader = Reader(text, path)
    let header = try reader.block()
    try reader.refuse(header)
    let names = try header.words("feature_names", reader)
    var features = names.map { TreeEnsemble.Feature(name: $0, missing: .nan) }
    var kinds = [TreeEnsemble.Missing?](repeating: nil, count: names.count)
    var trees: [TreeEnsemble.Tree] = []
    while let block = try reader.tree(trees.count) {
      trees.append(try tree(block, reader, &kinds, names))
    }
    for (index, kind) in kinds.enumerated() { if let kind { features[index].missing = kind } }
    do {
      return try TreeEnsemble(
        features: features, trees: trees, factor: header["average_output"] == nil ? 1 : 1 / Double(max(1, trees.count)),
        output: try output(String(header["objective"]?.text ?? ""), reader))
    } catch let error as RankerError {
      throw InputError(file: path, error.description)
    } catch let error as InputError {
      throw error
    } catch { throw InputError(file: path, "\(error)") }
  }

  private static func output(_ objective: String, _ reader: Reader) throws(InputError) -> TreeEnsemble.Output {
    var words = objective.split(separator: " ").map(String.init)
    guard !words.isEmpty else { return .identity }
    let name = words.removeFirst()
    switch name {
    case "lambdarank", "rank_xendcg", "quantile", "mape": return .identity
    case "regression", "regression_l1", "huber", "fair":
      return words.contains("sqrt") ? .signedSquare : .identity
    case "binary":
      let scale = words.first { $0.hasPrefix("sigmoid:") }.flatMap { Double($0.dropFirst("sigmoid:".count)) }
      guard let scale, scale > 0 else {
        throw reader.error("objective=\(objective): a binary model needs sigmoid:S with S > 0")
      }
      return .sigmoid(scale: scale)
    case "cross_entropy": return .sigmoid(scale: 1)
    case "cross_entropy_lambda": return .softplus
    case "poisson", "gamma", "tweedie": return .exponential
    default:
      throw reader.error(
        "objective \"\(name)\" is not supported; allowed are lambdarank, rank_xendcg, binary, cross_entropy, "
          + "cross_entropy_lambda, regression, regression_l1, huber, fair, poisson, quantile, mape, gamma, tweedie")
    }
  }

  private static func tree(
    _ block: Block, _ reader: Reader, _ kinds: inout [TreeEnsemble.Missing?], _ names: [String]
  ) throws(InputError) -> TreeEnsemble.Tree {
    if try block.integer("is_linear", reader, standard: 0) != 0 {
      throw reader.error("Tree=\(block.number): linear trees are not supported; train with linear_tree=false", block)
    }
    let leafCount = try block.integer("num_leaves", reader)
    guard leafCount >= 1 else { throw reader.error("Tree=\(block.number): num_leaves is \(leafCount)", block) }
    let leaves = try block.numbers("leaf_value", leafCount, reader)
    let count = leafCount - 1
    guard count > 0 else { return TreeEnsemble.Tree(nodes: [], leaves: leaves) }
    // Not every tool that writes this format says it.
    let covers = block["leaf_count"] == nil ? [] : try block.numbers("leaf_count", leafCount, reader)
    let features = try block.integers("split_feature", count, reader)
    let thresholds = try block.numbers("threshold", count, reader)
    let decisions = try block.integers("decision_type", count, reader)
    let lefts = try block.integers("left_child", count, reader)
    let rights = try block.integers("right_child", count, reader)
    let categoryCount = try block.integer("num_cat", reader, standard: 0)
    let bounds = categoryCount > 0 ? try block.integers("cat_boundaries", categoryCount + 1, reader) : [0]
    let words = categoryCount > 0 ? try block.integers("cat_threshold", bounds[categoryCount], reader) : []
    var nodes: [TreeEnsemble.Node] = []
    for node in 0..<count {
      let feature = features[node]
      guard names.indices.contains(feature) else {
        throw reader.error("Tree=\(block.number): node \(node) splits on feature \(feature) of \(names.count)", block)
      }
      let split: TreeEnsemble.Split
      if decisions[node] & 1 == 1 {
        guard let set = Int(exactly: thresholds[node]), 0..<categoryCount ~= set, bounds[set] >= 0,
          bounds[set] <= bounds[set + 1], bounds[set + 1] <= words.count
        else { throw reader.error("Tree=\(block.number): node \(node) has no categories", block) }
        let set32 = words[bounds[set]..<bounds[set + 1]].map { UInt32(truncatingIfNeeded: $0) }
        split = .categories(set32, inGoesRight: false)
      } else {
        let kind: TreeEnsemble.Missing? =
          switch decisions[node] >> 2 & 3 {
          case 0: TreeEnsemble.Missing.none
          case 1: .zero
          case 2: .nan
          default: nil
          }
        guard let kind, kinds[feature] == nil || kinds[feature] == kind else {
          throw reader.error(
            "Tree=\(block.number): node \(node) treats missing values of \"\(names[feature])\" otherwise than nodes "
              + "before", block)
        }
        kinds[feature] = kind
        split = .above(down(thresholds[node]))
      }
      nodes.append(
        TreeEnsemble.Node(
          feature: feature, split: split, missingGoesLeft: decisions[node] & 3 == 2, left: lefts[node],
          right: rights[node]))
    }
    return TreeEnsemble.Tree(nodes: nodes, leaves: leaves, covers: covers)
  }

  /// The greatest float32 that is not above.
  private static func down(_ value: Double) -> Float {
    let near = Float(value)
    return Double(near) > value ? near.nextDown : near
  }

  // MARK: Text

  /// Consecutive lines of key=value.
  private struct Block {
    var number = 0
    var line = 0
    var values: [Substring: (text: Substring, line: Int)] = [:]

    subscript(key: String) -> (text: Substring, line: Int)? { values[Substring(key)] }

    private func needed(_ key: String, _ reader: Reader) throws(InputError) -> (text: Substring, line: Int) {
      guard let value = self[key] else { throw reader.error("\(key)= is missing", self) }
      return value
    }
    func words(_ key: String, _ reader: Reader) throws(InputError) -> [String] {
      try needed(key, reader).text.split(separator: " ").map(String.init)
    }
    func integer(_ key: String, _ reader: Reader, standard: Int? = nil) throws(InputError) -> Int {
      if self[key] == nil, let standard { return standard }
      let (text, line) = try needed(key, reader)
      guard let number = Int(text) else { throw reader.error("\(key)=\(text) is no integer", line: line) }
      return number
    }
    func integers(_ key: String, _ count: Int, _ reader: Reader) throws(InputError) -> [Int] {
      try list(key, count, reader) { Int($0) }
    }
    func numbers(_ key: String, _ count: Int, _ reader: Reader) throws(InputError) -> [Double] {
      try list(key, count, reader) { Double($0) }
    }
    private func list<Value>(
      _ key: String, _ count: Int, _ reader: Reader, _ parse: (Substring) -> Value?
    ) throws(InputError) -> [Value] {
      let (text, line) = try needed(key, reader)
      var values: [Value] = []
      for word in text.split(separator: " ") {
        guard let value = parse(word) else { throw reader.error("\(key): \"\(word)\" is no number", line: line) }
        values.append(value)
      }
      guard values.count == count else {
        throw reader.error("\(key): \(values.count) values, expected \(count)", line: line)
      }
      return values
    }
  }

  private struct Reader {
    let path: String
    private let lines: [Substring]
    private var next = 1

    init(_ text: String, _ path: String) {
      self.path = path
      lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    }

    func error(_ reason: String, line: Int? = nil) -> InputError { InputError(file: path, line: line, reason) }
    func error(_ reason: String, _ block: Block) -> InputError { error(reason, line: block.line) }

    /// The lines up to the next empty one.
    mutating func block() throws(InputError) -> Block {
      var block = Block()
      block.line = next + 1
      while next < lines.count, !lines[next].isEmpty {
        let line = lines[next]
        if let equals = line.firstIndex(of: "=") {
          block.values[line[..<equals]] = (line[line.index(after: equals)...], next + 1)
        } else {
          block.values[line] = ("", next + 1)
        }
        next += 1
      }
      return block
    }

    /// The next tree; nil after the last.
    mutating func tree(_ number: Int) throws(InputError) -> Block? {
      while next < lines.count, lines[next].isEmpty { next += 1 }
      guard next < lines.count else {
        throw error("ends after \(number) trees, without \"end of trees\": it is cut off", line: lines.count)
      }
      if lines[next] == "end of trees" { return nil }
      guard lines[next] == "Tree=\(number)" else {
        throw error(
          "\"\(lines[next].prefix(40))\" where Tree=\(number) or \"end of trees\" is expected", line: next + 1)
      }
      var block = try block()
      block.number = number
      return block
    }

    func refuse(_ header: Block) throws(InputError) {
      let classes = try header.integer("num_class", self, standard: 1)
      guard classes == 1, try header.integer("num_tree_per_iteration", self, standard: 1) == 1 else {
        throw error("num_class=\(classes): a model of several classes gives no one score to rank by", header)
      }
    }
  }
}
