import Bundles
import Foundation
import Oracle
import RankingCore
import Testing
import Wire

@testable import ClusterLoad

/// A small bundle made from a seed, in a directory of its own that goes with it.
final class TestBundle {
  static let shards = 16
  let directory: String
  let items: [String]
  let users: [String]
  let oracle: Oracle
  private let hasColumns: Bool
  /// As it was built; another version is it with something changed.
  private(set) var options: BundleOptions
  private(set) var itemVectors: Matrix
  var store: String { directory + "/store" }
  static let dimension = 24

  /// The last two have a list ranker, too: a linear one over an ensemble, trees over retrieval alone.
  enum Ranking: Sendable { case none, plain, linear, trees, mlp, ensemble, recent, listLinear, listTrees }

  convenience init(ranked: Bool) throws { try self.init(ranked ? .linear : .none) }

  /// - Parameters:
  ///   - ranking: none has no columns, plain has columns and no ranker.
  ///   - itemCount: with more than 2048 a shard, slices are scanned by their index.
  init(_ ranking: Ranking, itemCount: Int = 1500, seed: UInt64 = 11) throws {
    directory = FileManager.default.temporaryDirectory.path + "/shortlist-test-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory + "/factors", withIntermediateDirectories: true)
    var generator = SeededGenerator(seed: seed)
    items = (0..<itemCount).map { "item-\($0)" }
    users = (0..<200).map { "user-\($0)" }
    func matrix(_ rows: Int) -> Matrix {
      // Coarse numbers, so that equal scores are common and the order by ordinal matters.
      let values = (0..<rows * Self.dimension).map { _ in Float(generator.below(5)) - 2 }
      return Matrix(rows: rows, columns: Self.dimension, values: values)
    }
    itemVectors = matrix(items.count)
    try NumPyFile.write(itemVectors, to: directory + "/factors/items.npy")
    try NumPyFile.write(matrix(users.count), to: directory + "/factors/users.npy")
    try IDFile.write(items, to: directory + "/factors/items.ids")
    try IDFile.write(users, to: directory + "/factors/users.ids")
    var history = "user,item\n"
    for user in users {
      for _ in 0..<generator.below(40) { history += "\(user),\(items[generator.below(items.count)])\n" }
    }
    try AtomicFile.write(Array(history.utf8), to: directory + "/history.csv")
    var options = BundleOptions()
    options.factors = directory + "/factors"
    options.history = directory + "/history.csv"
    options.store = directory + "/store"
    options.release = ModelVersion(model: "home", version: "v1")
    options.shards = Self.shards
    if ranking != .none {
      var table = "item,price,kind,new\n"
      for item in items where generator.below(10) > 0 {
        let (price, kind) = (generator.below(50), ["tea", "cup", "pot", "", "bag"][generator.below(5)])
        table += "\(item),\(price),\(kind),\(["true", "false"][generator.below(2)])\n"
      }
      try AtomicFile.write(Array(table.utf8), to: directory + "/items.csv")
      let schema =
        #"{"item": {"price": "number", "kind": "category", "new": "boolean"}, "context": {"hour": "number"}}"#
      try AtomicFile.write(Array(schema.utf8), to: directory + "/schema.json")
      let linear = """
        {"type": "linear", "intercept": 0.1, "terms": [{"feature": "retrieval_score", "weight": 1.25},
         {"feature": "item.price", "weight": -0.37, "missing": 20}, {"feature": "context.hour", "weight": 0.01}]}
        """
      let (linearFile, treesFile) = (directory + "/linear.json", directory + "/trees.txt")
      let networkFile = directory + "/net.safetensors"
      try AtomicFile.write(Array(linear.utf8), to: linearFile)
      try AtomicFile.write(Array(Self.trees.utf8), to: treesFile)
      try AtomicFile.write(try TestNetwork.safetensors(seed: seed), to: networkFile)
      let (recentLinear, recentTrees) = (directory + "/recent.json", directory + "/recent.txt")
      try AtomicFile.write(Array(Self.recentLinear.utf8), to: recentLinear)
      try AtomicFile.write(Array(Self.recentTrees.utf8), to: recentTrees)
      options.itemColumns = directory + "/items.csv"
      options.schema = directory + "/schema.json"
      options.rankers =
        switch ranking {
        case .none, .plain, .listTrees: []
        case .linear: [RankerInput(linearFile)]
        case .recent: [RankerInput(recentLinear), RankerInput(recentTrees, weight: 2)]
        case .trees: [RankerInput(treesFile)]
        case .mlp: [RankerInput(networkFile)]
        case .ensemble, .listLinear:
          [
            RankerInput(treesFile, weight: 0.75), RankerInput(networkFile), RankerInput(linearFile, weight: -0.1),
          ]
        }
    }
    switch ranking {
    case .listLinear:
      options.listRanker = directory + "/list.json"
      options.listPool = 70
      try AtomicFile.write(Array(Self.listLinear.utf8), to: options.listRanker ?? "")
    case .listTrees:
      options.listRanker = directory + "/list.txt"
      options.listPool = 25
      try AtomicFile.write(Array(Self.listTrees.utf8), to: options.listRanker ?? "")
    default: break
    }
    hasColumns = ranking != .none
    self.options = options
    // A large one's golden answers would take longer than its test.
    let rehearse: ((String) throws -> [UInt8])? = itemCount > 10_000 ? nil : { try Self.rehearsals($0) }
    _ = try BundleBuilder(options).build(rehearse: rehearse)
    oracle = try Oracle(bundle: directory + "/store/home/v1")
  }
  private static let recentLinear = """
    {"type": "linear", "terms": [{"feature": "recent.last_similarity", "weight": 2.5, "missing": 0.125},
     {"feature": "recent.mean_similarity", "weight": -1.5, "missing": 0.5}, {"feature": "recent.count", "weight": 0.25},
     {"feature": "retrieval_score", "weight": 0.0625}]}
    """
  private static var recentTrees: String {
    trees.replacingOccurrences(
      of: "feature_names=retrieval_score item.price context.hour",
      with: "feature_names=recent.max_similarity item.price context.hour"
    ).replacingOccurrences(of: "threshold=2.5 20", with: "threshold=0.25 20")
  }
  /// What is frequent in the list, and what is dear, sinks; a gap that is absurd gives no score.
  private static let listLinear = """
    {"type": "linear", "intercept": 0.25, "terms": [{"feature": "list.score", "weight": 0.5},
     {"feature": "list.share.kind", "weight": -3, "missing": 0.5}, {"feature": "list.rank", "weight": 0.013},
     {"feature": "list.gap", "weight": -0.1}, {"feature": "item.price", "weight": 0.02, "missing": 11},
     {"feature": "context.hour", "weight": 0.01}]}
    """
  private static var listTrees: String {
    trees.replacingOccurrences(
      of: "feature_names=retrieval_score item.price context.hour",
      with: "feature_names=list.gap item.price list.share.kind"
    ).replacingOccurrences(of: "threshold=11.5 ", with: "threshold=0.25 ")
  }
  /// Two trees as LightGBM writes them: on the price (missing goes right), the retrieval score and the hour.
  private static let trees = """
    tree
    version=v4
    num_class=1
    num_tree_per_iteration=1
    max_feature_idx=2
    objective=lambdarank
    feature_names=retrieval_score item.price context.hour
    feature_infos=none none none

    Tree=0
    num_leaves=4
    num_cat=0
    split_feature=0 1 1
    threshold=2.5 20.000000000000004 35
    decision_type=2 8 8
    left_child=1 -1 -2
    right_child=2 -3 -4
    leaf_value=0.125 -0.25 0.5 1.75
    leaf_count=211 97 3 410
    is_linear=0
    shrinkage=1


    Tree=1
    num_leaves=3
    num_cat=0
    split_feature=2 0
    threshold=11.5 -1.0000000000000002
    decision_type=0 2
    left_child=1 -2
    right_child=-1 -3
    leaf_value=0.1 -0.3 0.7
    is_linear=0
    shrinkage=0.1


    end of trees

    """

  /// Some of the golden answers: unoptimised programs take their time.
  static func rehearsals(_ directory: String) throws -> [UInt8] {
    let lines = try GoldenAnswers().lines(of: directory).split(separator: UInt8(ascii: "\n"))
    return Array(lines.prefix(6).joined(separator: [UInt8(ascii: "\n")])) + [UInt8(ascii: "\n")]
  }

  deinit { try? FileManager.default.removeItem(atPath: directory) }

  /// Requests of every kind, drawn by seed.
  func requests(_ count: Int, seed: UInt64) -> [(api: PublicAPI, body: String)] {
    var generator = SeededGenerator(seed: seed)
    func item() -> String { "\"\(items[generator.below(items.count)])\"" }
    func list(_ count: Int) -> String { "[" + (0..<count).map { _ in item() }.joined(separator: ",") + "]" }
    func filter() -> String {
      let limit = generator.below(50)
      return [
        #"{"field":"price","lte":\#(limit)}"#, #"{"field":"kind","eq":"cup"}"#,
        #"{"all":[{"field":"price","gt":\#(limit),"lt":\#(limit + 20)},{"not":{"field":"new","eq":true}}]}"#,
        #"{"any":[{"field":"kind","in":["tea","unheard"]},{"field":"price","between":[\#(limit),\#(limit + 1)]}]}"#,
        #"{"all":[{"field":"price","eq":\#(limit)},{"field":"kind","eq":"pot"}]}"#,
        #"{"not":{"field":"price","gte":0}}"#,
      ][generator.below(6)]
    }
    return (0..<count).map { index in
      var fields: [String] = []
      if hasColumns, generator.below(2) == 0 { fields.append("\"filter\":" + filter()) }
      if generator.below(3) == 0 { fields.append("\"explain\":true") }
      let field = ["kind", "price", "new"][generator.below(3)]
      let diversity = #","diversity":{"field":"\#(field)","max":\#(1 + generator.below(4))}"#
      let isDiverse = hasColumns && generator.below(3) == 0
      if generator.below(8) == 0, index % 12 != 11 {
        fields.append("\"mmr\":{\"lambda\":0.\(generator.below(10)),\"pool\":\(1 + generator.below(80))}")
      }
      switch index % 6 {
      case 0, 1: fields.append("\"user\":\"\(users[generator.below(users.count)])\"")
      case 2: fields.append("\"user\":\"stranger\"")
      case 3:
        let numbers = (0..<Self.dimension).map { _ in "\(Float(generator.unit()) - 0.5)" }
        fields.append("\"vector\":[\(numbers.joined(separator: ","))]")
      case 4: fields.append("\"recent_items\":[\(item()),\"ghost\",\(item()),\(item())]")
      default: break
      }
      if index % 6 == 5 {
        let filter = fields.map { $0 + "," }.joined()
        if index % 12 == 5 {
          let rest = "\"item\":\(item()),\"k\":\(1 + generator.below(30))"
          return (.similar, "{\(filter)\(rest)\(isDiverse ? diversity : "")}")
        }
        let distinct = Set((0..<20).map { _ in items[generator.below(items.count)] }).sorted()
        let wanted = distinct.map { "\"\($0)\"" }.joined(separator: ",")
        return (.rank, "{\(filter)\"items\":[\"ghost\",\(wanted)],\"user\":\"\(users[generator.below(users.count)])\"}")
      }
      fields.append("\"k\":\(1 + generator.below(60))")
      if generator.below(2) == 0 { fields.append("\"exclude_seen\":true") }
      if generator.below(3) == 0 { fields.append("\"exclude\":\(list(generator.below(30)))") }
      if generator.below(4) == 0 { fields.append("\"candidates\":\(1 + generator.below(40))") }
      if generator.below(5) == 0 { fields.append("\"min_score\":\(generator.below(12))") }
      if generator.below(2) == 0 { fields.append("\"context\":{\"hour\":\(generator.below(24))}") }
      return (.recommend, "{" + fields.joined(separator: ",") + (isDiverse ? diversity : "") + "}")
    }
  }

  func expected(_ api: PublicAPI, _ body: String, over shards: [Int]? = nil) throws -> ParsedAnswer {
    let bytes = Array(body.utf8)
    let request = try bytes.withUnsafeBytes { try api.parse($0, requestID: "oracle") }
    var json = JSONWriter()
    api.write(try oracle.answer(request, over: shards), into: &json)
    return try json.bytes.withUnsafeBytes { try ParsedAnswer($0) }
  }
}

/// The program under test: built beside the tests.
enum Program {
  static let path: String = {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().path
    let beside = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path
    let places = [beside + "/shortlist", root + "/.build/debug/shortlist"]
    return places.first { FileManager.default.isExecutableFile(atPath: $0) } ?? places[1]
  }()
}
