import Foundation
import RankingCore
import Scoring

// A ranker's file: LightGBM's text model (LightGBMFile.swift), XGBoost's JSON model (XGBoostFile.swift), a network of
// safetensors (MLPFile.swift), or a linear ranker in JSON: final score = intercept + Σ weight × feature, summed in
// double in the order of the file.
//
//     {"type": "linear", "intercept": 0.0, "terms": [
//       {"feature": "retrieval_score", "weight": 1.0},
//       {"feature": "item.price", "weight": -0.01, "missing": 2.1},
//       {"feature": "user.spend", "weight": 0.1},
//       {"feature": "context.hour", "weight": 0.0}]}
//
// `missing` stands in for a value that is not there; 0 when not given. Categories have no number and are refused.
//
// Features are named as above, in a model of trees, too; a category is then its place in the schema's list.

/// Trained models as libraries write them, without a schema.
public enum RankerModel {
  case trees(TreeEnsemble)
  case mlp(MLPNetwork)

  public static func read(_ path: String) throws(InputError) -> RankerModel {
    try parse(try InputFile.readAll(path: path, limit: BundleManifest.rankerBytesMax), path: path)
  }

  /// - Parameter path: for complaints.
  public static func parse(_ bytes: [UInt8], path: String) throws(InputError) -> RankerModel {
    if LightGBMFile.isOne(bytes) { return .trees(try LightGBMFile.parse(bytes, path: path)) }
    if XGBoostFile.isOne(bytes) { return .trees(try XGBoostFile.parse(bytes, path: path)) }
    if MLPFile.isOne(bytes) { return .mlp(try MLPFile.parse(bytes, path: path)) }
    throw InputError(
      file: path, line: 1,
      "is neither a LightGBM text model, which starts with a line \"tree\", nor an XGBoost JSON model, which starts "
        + "with {\"learner\", nor a network in the safetensors format")
  }

  public static func trees(_ path: String) throws(InputError) -> TreeEnsemble {
    guard case .trees(let ensemble) = try read(path) else { throw InputError(file: path, "holds no trees") }
    return ensemble
  }

  public static func mlp(_ path: String) throws(InputError) -> MLPNetwork {
    guard case .mlp(let network) = try read(path) else { throw InputError(file: path, "holds no network") }
    return network
  }
}

enum RankerFile {
  struct File: Codable {
    struct Term: Codable {
      var feature: String
      var weight: Double
      var missing: Double?
    }
    var type: String
    var intercept: Double?
    var terms: [Term]
  }

  static func parse(
    _ bytes: [UInt8], path: String, item: [Column], user: [Column], context: [Column]
  ) throws(InputError) -> Ranker {
    if LightGBMFile.isOne(bytes) {
      return try bind(try LightGBMFile.parse(bytes, path: path), path: path, item: item, user: user, context: context)
    }
    if XGBoostFile.isOne(bytes) {
      return try bind(try XGBoostFile.parse(bytes, path: path), path: path, item: item, user: user, context: context)
    }
    if MLPFile.isOne(bytes) {
      return try bind(try MLPFile.parse(bytes, path: path), path: path, item: item, user: user, context: context)
    }
    let file = try linear(bytes, path: path)
    var terms: [LinearRanker.Term] = []
    var unknown: [String] = []
    for term in file.terms {
      guard let source = source(of: term.feature, item, user, context, allowsCategories: false) else {
        unknown.append(term.feature)
        continue
      }
      terms.append(LinearRanker.Term(source, weight: term.weight, missing: term.missing ?? 0))
    }
    guard unknown.isEmpty else {
      throw InputError(
        file: path,
        "features that the schema lacks, or that are categories: \(unknown.joined(separator: ", "))")
    }
    do {
      return .linear(
        try LinearRanker(
          intercept: file.intercept ?? 0, terms: terms, itemColumns: item.count, userColumns: user.count,
          contextColumns: context.count))
    } catch {
      throw InputError(file: path, "\(error)")
    }
  }

  static func linear(_ bytes: [UInt8], path: String) throws(InputError) -> File {
    let file: File
    do { file = try JSONDecoder().decode(File.self, from: Data(bytes)) } catch {
      throw InputError(
        file: path, "is no LightGBM text model, XGBoost JSON model, safetensors network or linear ranker: \(error)")
    }
    guard file.type == "linear" else {
      throw InputError(file: path, "type \"\(file.type)\" is not supported; allowed: \"linear\"")
    }
    for term in file.terms where !term.weight.isFinite || !(term.missing?.isFinite ?? true) {
      throw InputError(file: path, "feature \"\(term.feature)\": its weight is not finite")
    }
    return file
  }

  /// Trees with the features that they ask for. Those that no tree asks for need not be in the schema.
  private static func bind(
    _ ensemble: TreeEnsemble, path: String, item: [Column], user: [Column], context: [Column]
  ) throws(InputError) -> Ranker {
    var isAsked = [Bool](repeating: false, count: ensemble.features.count)
    for tree in ensemble.trees { for node in tree.nodes { isAsked[node.feature] = true } }
    var unknown: [String] = []
    let sources = ensemble.features.indices.map { index -> FeatureSource in
      let name = ensemble.features[index].name
      if let source = source(of: name, item, user, context, allowsCategories: true) { return source }
      if isAsked[index] { unknown.append(name) }
      return .retrievalScore
    }
    guard unknown.isEmpty else {
      throw InputError(
        file: path,
        "features that the schema lacks: \(unknown.joined(separator: ", ")); they are named retrieval_score, "
          + "item.NAME, user.NAME, context.NAME, \(RecentFeature.allCases.map(\.name).joined(separator: ", "))")
    }
    do {
      return .trees(
        try TreeRanker(
          ensemble, sources: sources, itemColumns: item.count, userColumns: user.count, contextColumns: context.count))
    } catch {
      throw InputError(file: path, "\(error)")
    }
  }

  /// A network with its features; a category is an input where the network lists it.
  private static func bind(
    _ network: MLPNetwork, path: String, item: [Column], user: [Column], context: [Column]
  ) throws(InputError) -> Ranker {
    var unknown: [String] = []
    let sources = network.inputs.map { input -> MLPRanker.Source in
      let isCategory = input.category != nil
      guard let source = source(of: input.feature, item, user, context, allowsCategories: isCategory) else {
        if unknown.last != input.feature { unknown.append(input.feature) }
        return MLPRanker.Source(.retrievalScore)
      }
      guard let category = input.category else { return MLPRanker.Source(source) }
      let column: Column? =
        switch source {
        case .retrievalScore, .recent: nil
        case .item(let index): item[index]
        case .user(let index): user[index]
        case .context(let index): context[index]
        }
      guard let column, column.kind == .category else {
        if unknown.last != input.feature { unknown.append(input.feature) }
        return MLPRanker.Source(source)
      }
      return MLPRanker.Source(source, category: column.categories.firstIndex(of: category).map(Float.init) ?? -1)
    }
    guard unknown.isEmpty else {
      throw InputError(
        file: path,
        "features that the schema lacks, that are categories without \"one_hot\", or \"one_hot\" and none: "
          + "\(unknown.joined(separator: ", ")); the schema has \(names(item, user, context))")
    }
    do {
      return .mlp(
        try MLPRanker(
          network, sources: sources, itemColumns: item.count, userColumns: user.count, contextColumns: context.count))
    } catch {
      throw InputError(file: path, error.description)
    }
  }

  private static func names(_ item: [Column], _ user: [Column], _ context: [Column]) -> String {
    let columns = [("item.", item), ("user.", user), ("context.", context)]
    return
      (["retrieval_score"] + columns.flatMap { prefix, columns in columns.map { prefix + $0.name } })
      .prefix(50).joined(separator: ", ")
  }

  static func source(
    of feature: String, _ item: [Column], _ user: [Column], _ context: [Column], allowsCategories: Bool
  ) -> FeatureSource? {
    if feature == "retrieval_score" { return .retrievalScore }
    if let recent = RecentFeature(name: feature) { return .recent(recent) }
    // Trainers write blanks in names as underscores.
    func isNamed(_ column: Column, _ name: Substring) -> Bool {
      column.name == name || allowsCategories && String(column.name.map { $0 == " " ? "_" : $0 }) == name
    }
    func place(_ prefix: String, _ columns: [Column]) -> Int? {
      guard feature.hasPrefix(prefix) else { return nil }
      let name = feature.dropFirst(prefix.count)
      return columns.firstIndex { isNamed($0, name) && (allowsCategories || $0.kind != .category) }
    }
    if let index = place("item.", item) { return .item(index) }
    if let index = place("user.", user) { return .user(index) }
    if let index = place("context.", context) { return .context(index) }
    return nil
  }
}
