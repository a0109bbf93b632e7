import Foundation
import RankingCore
import Scoring

// A published bundle, read back. Every file is checked against the manifest while it is copied into own memory.

/// The directory that holds bundles: `<store>/<model>/<version>/`.
public struct Store: Sendable {
  public let path: String
  public init(_ path: String) { self.path = path }
  public func path(of release: ModelVersion) -> String { "\(path)/\(release.model)/\(release.version)" }
}

public final class Bundle: Sendable {
  public let path: String
  public let manifest: BundleManifest

  private init(path: String, manifest: BundleManifest) {
    self.path = path
    self.manifest = manifest
  }

  /// Reads the manifest; the other files are read when they are asked for.
  public static func open(_ path: String) throws(InputError) -> Bundle {
    Bundle(path: path, manifest: try BundleManifest.read(path + "/" + BundleManifest.fileName))
  }

  public var itemColumns: [Column] { manifest.schema.item.compactMap(\.column) }
  public var userColumns: [Column] { manifest.schema.user.compactMap(\.column) }
  public var contextColumns: [Column] { manifest.schema.context.compactMap(\.column) }

  /// One shard's sections in own memory: what the slice is made of, and what the oracle reads by itself.
  public func rawSlice(_ shard: ShardID) throws(InputError) -> SectionFile {
    guard shard.index < manifest.shards else {
      throw InputError(file: path, "has no shard \(shard); it has \(manifest.shards)")
    }
    let name = BundleManifest.sliceName(shard)
    let entry = try manifest.file(name, in: path)
    let file = path + "/" + name
    let manifest = manifest
    return try SectionFile(path: file, kind: .slice, size: entry.size, sum: entry.sha256) {
      (header) throws(InputError) in
      guard header.shard == shard.index, header.shardCount == manifest.shards, header.dimension == manifest.dimension,
        header.count == manifest.itemsPerShard[shard.index]
      else {
        throw InputError(
          file: file,
          "header: shard \(header.shard) of \(header.shardCount), dimension \(header.dimension), "
            + "\(header.count) items; "
            + "the manifest says shard \(shard) of \(manifest.shards), dimension \(manifest.dimension), "
            + "\(manifest.itemsPerShard[shard.index]) items")
      }
    }
  }

  public func loadSlice(_ shard: ShardID) throws(InputError) -> Scoring.Slice {
    let file = try rawSlice(shard)
    let count = manifest.itemsPerShard[shard.index]
    let stride = Scoring.Slice.stride(dimension: manifest.dimension)
    var columns: [(column: Column, bytes: Range<Int>)] = []
    for column in itemColumns { columns.append((column, try file.range("column." + column.name, length: count * 4))) }
    let layout = Scoring.Slice.Layout(
      vectors: try file.range("vectors", length: count * stride * 4),
      ordinals: try file.range("ordinals", length: count * 8), idEnds: try file.range("id_ends", length: count * 4),
      idBytes: try file.range("id_bytes"), columns: columns)
    return Scoring.Slice(
      release: manifest.release, shard: shard, shardCount: manifest.shards, dimension: manifest.dimension, count: count,
      memory: file.memory, layout: layout)
  }

  public func loadUsers() throws(InputError) -> UserTable {
    let entry = try manifest.file(BundleManifest.usersName, in: path)
    let file = path + "/" + BundleManifest.usersName
    let manifest = manifest
    let sections = try SectionFile(path: file, kind: .users, size: entry.size, sum: entry.sha256) {
      (header) throws(InputError) in
      guard header.shardCount == manifest.shards, header.dimension == manifest.dimension,
        header.count == manifest.users
      else { throw InputError(file: file, "header: does not fit the manifest") }
    }
    return try UserTable(sections, columns: manifest.schema.user.count)
  }

  /// The version as a coordinator knows it.
  public func release() throws(InputError) -> Release {
    let users = try loadUsers()
    var release = Release(
      id: manifest.release, dimension: manifest.dimension, itemsPerShard: manifest.itemsPerShard.map { UInt64($0) },
      userColumns: userColumns, contextColumns: contextColumns, coldStart: users.coldStart, users: users)
    release.fingerprint = manifest.fingerprint
    release.itemColumns = itemColumns
    release.wantsRecent = manifest.recentFeatures ?? false
    release.listRanker = try listRanker()
    release.bytesPerShard = try (0..<manifest.shards).map { (shard) throws(InputError) in
      UInt64(try manifest.file(BundleManifest.sliceName(ShardID(shard)), in: path).size)
    }
    return release
  }

  /// The version's ranker, checked against the manifest and bound to the schema.
  public func ranker() throws(InputError) -> Ranker {
    let ranker = try boundRanker()
    // Coordinators go by the manifest.
    guard ranker.usesRecent == manifest.recentFeatures ?? false else {
      throw InputError(file: path + "/" + BundleManifest.fileName, "recent_features does not fit the ranker")
    }
    return ranker
  }

  private func boundRanker() throws(InputError) -> Ranker {
    guard let rankers = manifest.rankers else {
      return if let name = manifest.ranker { try ranker(name) } else { .none }
    }
    guard rankers.count <= RankerEnsemble.membersMax else {
      throw InputError(file: path, "\(rankers.count) rankers; allowed: at most \(RankerEnsemble.membersMax)")
    }
    var members: [RankerEnsemble.Member] = []
    for entry in rankers { members.append(.init(try ranker(entry.file), weight: entry.weight)) }
    do { return .ensemble(try RankerEnsemble(members)) } catch { throw InputError(file: path, error.description) }
  }

  /// What re-ranks merged lists, checked and bound likewise.
  func listRanker() throws(InputError) -> ListPhase? {
    guard let entry = manifest.listRanker else { return nil }
    return try ListRankerFile.parse(
      try contents(of: entry.file, limit: BundleManifest.rankerBytesMax), path: path + "/" + entry.file,
      pool: entry.pool, item: itemColumns, user: userColumns, context: contextColumns)
  }

  private func ranker(_ name: String) throws(InputError) -> Ranker {
    try RankerFile.parse(
      try contents(of: name, limit: BundleManifest.rankerBytesMax), path: path + "/" + name, item: itemColumns,
      user: userColumns, context: contextColumns)
  }

  /// A small file of the bundle, checked against the manifest.
  private func contents(of name: String, limit: Int) throws(InputError) -> [UInt8] {
    let entry = try manifest.file(name, in: path)
    let file = path + "/" + name
    let bytes = try InputFile.readAll(path: file, limit: limit)
    let sum = bytes.withUnsafeBytes { SHA256.of($0) }
    guard sum == entry.sha256 else {
      throw InputError(file: file, "SHA-256 expected \(entry.sha256), actual \(sum)")
    }
    return bytes
  }

  /// The requests that it brings along, one JSON object per line; see `BundleBuilder.build`.
  public func warmup() throws(InputError) -> [UInt8] {
    try contents(of: BundleManifest.warmupName, limit: BundleManifest.warmupBytesMax)
  }

  /// Everything that is wrong with a bundle, a line each; empty = nothing.
  public static func verify(_ path: String, progress: (_ done: Int, _ total: Int) -> Void = { _, _ in }) -> [String] {
    let bundle: Bundle
    do throws(InputError) { bundle = try Bundle.open(path) } catch { return [error.description] }
    var problems: [String] = []
    func attempt(_ body: () throws(InputError) -> Void) {
      do throws(InputError) { try body() } catch { problems.append(error.description) }
    }
    for shard in 0..<bundle.manifest.shards {
      attempt { () throws(InputError) in
        let slice = try bundle.loadSlice(ShardID(shard))
        var hosted = HostedRelease(
          release: bundle.manifest.release, shardCount: bundle.manifest.shards, dimension: bundle.manifest.dimension)
        do { try hosted.add(slice) } catch { throw InputError(file: path, "shard \(shard): \(error)") }
      }
      progress(shard + 1, bundle.manifest.shards + 2)
    }
    attempt { () throws(InputError) in _ = try bundle.loadUsers() }
    attempt { () throws(InputError) in _ = try bundle.ranker() }
    for entry in bundle.manifest.files
    where !entry.name.hasSuffix(".slice") && entry.name != BundleManifest.usersName {
      attempt { () throws(InputError) in
        let actual = try SHA256.of(file: path + "/" + entry.name)
        guard actual.size == entry.size, actual.sum == entry.sha256 else {
          throw InputError(file: path + "/" + entry.name, "SHA-256 expected \(entry.sha256), actual \(actual.sum)")
        }
      }
    }
    return problems
  }
}
