import Foundation
import RankingCore

/// `manifest.json`: what a bundle is, and the size and sum of each of its files. Written last, so a directory with a
/// manifest is whole.
public struct BundleManifest: Codable, Sendable {
  /// 2 with an ensemble, 3 with a list ranker: a program that does not know of them must not serve without them.
  static let formatVersions = 1...3
  public static let fileName = "manifest.json"
  static let hash = "xxh64"

  public struct File: Codable, Sendable {
    public var name: String
    public var size: Int
    public var sha256: String
  }
  public struct ColumnEntry: Codable, Sendable {
    public var name: String
    public var kind: String
    public var categories: [String]
    init(_ column: Column) {
      name = column.name
      kind = column.kind.rawValue
      categories = column.categories
    }
    var column: Column? {
      ColumnKind(rawValue: kind).map { Column(name: name, kind: $0, categories: categories) }
    }
  }
  public struct Schema: Codable, Sendable {
    public var item: [ColumnEntry]
    public var user: [ColumnEntry]
    public var context: [ColumnEntry]
  }
  public struct RankerEntry: Codable, Sendable {
    public var file: String
    public var weight: Double
  }
  public struct ListRankerEntry: Codable, Sendable {
    public var file: String
    public var pool: Int
  }
  public struct Lineage: Codable, Sendable {
    public var inputs: [File]
  }

  public var formatVersion: Int
  public var model: String
  public var version: String
  public var shards: Int
  public var hash: String
  public var dimension: Int
  public var itemsPerShard: [Int]
  public var users: Int
  public var schema: Schema
  /// The ranker's file, if there is one that decides alone.
  public var ranker: String?
  /// The rankers whose weighted scores are added, in that order; a manifest of format version 2 has them.
  public var rankers: [RankerEntry]?
  /// Whether a ranker looks at recent items.
  public var recentFeatures: Bool?
  /// What re-ranks merged lists; a manifest of format version 3 has it.
  public var listRanker: ListRankerEntry?
  public var files: [File]
  public var lineage: Lineage
  public var createdAt: String

  /// Tells bundles with different contents apart, also when somebody gave them the same name: the first eight bytes
  /// of the SHA-256 of all files' names and sums. Never 0.
  public var fingerprint: UInt64 {
    let text = files.map { "\($0.name) \($0.sha256)\n" }.sorted().joined()
    let sum = SHA256.bytes(of: Array(text.utf8)).prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    return max(1, sum)
  }

  /// Every ranker with its weight.
  public var weightedRankers: [RankerEntry] { rankers ?? ranker.map { [RankerEntry(file: $0, weight: 1)] } ?? [] }
  public var items: Int { itemsPerShard.reduce(0, +) }
  public var release: ModelVersion { ModelVersion(model: model, version: version) }

  static func sliceName(_ shard: ShardID) -> String {
    let digits = String(shard.rawValue)
    return "shard-" + String(repeating: "0", count: max(0, 4 - digits.count)) + digits + ".slice"
  }
  static let usersName = "users.table"
  static let warmupName = "warmup.jsonl"
  static let warmupBytesMax = 16 << 20
  /// - Parameter place: of a member of an ensemble.
  static func rankerName(_ bytes: [UInt8], place: Int? = nil) -> String {
    let type = LightGBMFile.isOne(bytes) ? "txt" : MLPFile.isOne(bytes) ? "safetensors" : "json"
    return "ranker" + (place.map { "-\($0)" } ?? "") + "." + type
  }
  static func listRankerName(_ bytes: [UInt8]) -> String { LightGBMFile.isOne(bytes) ? "list.txt" : "list.json" }
  /// A model of a thousand trees of a hundred leaves is some 10 MiB.
  static let rankerBytesMax = 256 << 20

  /// Reads and checks it.
  static func read(_ path: String) throws(InputError) -> BundleManifest {
    let bytes = try InputFile.readAll(path: path, limit: 64 << 20)
    let manifest: BundleManifest
    do {
      let decoder = JSONDecoder()
      decoder.keyDecodingStrategy = .convertFromSnakeCase
      manifest = try decoder.decode(BundleManifest.self, from: Data(bytes))
    } catch {
      throw InputError(file: path, "is not a manifest: \(error)")
    }
    guard formatVersions.contains(manifest.formatVersion) else {
      throw InputError(
        file: path,
        "format version \(manifest.formatVersion), this program reads \(formatVersions.lowerBound) to "
          + "\(formatVersions.upperBound)")
    }
    guard manifest.hash == hash else {
      throw InputError(file: path, "hash \"\(manifest.hash)\" is not known; this program knows \"\(hash)\"")
    }
    for name in [manifest.model, manifest.version] where !ModelVersion.isValidName(name) {
      throw InputError(file: path, "\"\(name)\" is not a name")
    }
    guard (1...4096).contains(manifest.shards), manifest.itemsPerShard.count == manifest.shards,
      manifest.itemsPerShard.allSatisfy({ (0...Int(UInt32.max)).contains($0) })
    else { throw InputError(file: path, "items_per_shard does not fit shards \(manifest.shards)") }
    guard (1...RequestLimit.vectorDimension).contains(manifest.dimension) else {
      throw InputError(file: path, "dimension \(manifest.dimension) is not in 1 to \(RequestLimit.vectorDimension)")
    }
    if let pool = manifest.listRanker?.pool, !ListRanking.poolRange.contains(pool) {
      throw InputError(file: path, "list_ranker.pool \(pool) is not in 1 to \(ListRanking.poolRange.upperBound)")
    }
    let columns = manifest.schema.item + manifest.schema.user + manifest.schema.context
    for column in columns where column.column == nil {
      throw InputError(file: path, "column \"\(column.name)\" is of unknown kind \"\(column.kind)\"")
    }
    return manifest
  }

  func encoded() throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return Array(try encoder.encode(self)) + [10]
  }

  func file(_ name: String, in directory: String) throws(InputError) -> File {
    guard let file = files.first(where: { $0.name == name }) else {
      throw InputError(file: directory + "/" + Self.fileName, "lists no file \(name)")
    }
    return file
  }
}
