import Foundation
import RankingCore
import Scoring

// Factors, columns and history → one immutable directory. Written beside its place and renamed, so that a reader sees a
// whole bundle or none; a version that exists is never written again.

public struct BundleOptions: Sendable {
  /// The directory with items.npy users.npy (or factors.safetensors with tensors "items" and "users") items.ids
  /// users.ids.
  public var factors = ""
  public var itemColumns: String?
  public var userColumns: String?
  public var history: String?
  public var rankers: [RankerInput] = []
  /// What re-ranks merged lists, and how many items it is shown.
  public var listRanker: String?
  public var listPool = ListRanking.poolDefault
  public var schema: String?
  public var store = ""
  public var release = ModelVersion(model: "", version: "")
  public var shards = 16
  public init() {}

  /// The only ranker, with weight 1.
  public var ranker: String? {
    get { rankers.first?.file }
    set { rankers = newValue.map { [RankerInput($0)] } ?? [] }
  }
}

public struct BundleSummary: Sendable {
  public var path: String
  public var items: Int
  public var users: Int
  public var bytes: Int
  /// Rows of column and history files whose id the factors do not know.
  public var ignored: Int
}

public struct BundleBuilder {
  private let options: BundleOptions
  public init(_ options: BundleOptions) { self.options = options }

  /// - Parameter rehearse: given the bundle's directory before it is published: the requests that it brings along,
  ///   with the answers that are right. `nil` = some users' requests, without answers.
  public func build(
    rehearse: ((_ directory: String) throws -> [UInt8])? = nil,
    progress: (_ done: Int, _ total: Int) -> Void = { _, _ in }
  ) throws(InputError) -> BundleSummary {
    try checkOptions()
    let place = Store(options.store).path(of: options.release)
    guard !FileManager.default.fileExists(atPath: place) else {
      throw InputError(file: place, "is there already; versions are never reused")
    }
    let items = try factors("items")
    let users = try factors("users")
    guard items.matrix.columns == users.matrix.columns else {
      throw InputError(
        file: options.factors,
        "the users' vectors have \(users.matrix.columns) numbers, the items' \(items.matrix.columns)")
    }
    let itemRows = IDRows(items.ids)
    let userRows = IDRows(users.ids)
    let schema: SchemaFile? = if let path = options.schema { try SchemaFile(path: path) } else { nil }
    let itemTable = try columns(options.itemColumns, schema?.item, items.ids.count, itemRows)
    let userTable = try columns(options.userColumns, schema?.user, users.ids.count, userRows)
    let context = schema?.context ?? []
    let (rankers, usesRecent) = try rankers(hasSchema: schema != nil, itemTable.columns, userTable.columns, context)
    let listRanker = try listRanker(hasSchema: schema != nil, itemTable.columns, userTable.columns, context)
    let (history, ignoredHistory) = try loadHistory(userRows, itemRows, users: users.ids.count)

    do {
      try FileManager.default.createDirectory(
        atPath: options.store + "/" + options.release.model, withIntermediateDirectories: true)
    } catch { throw InputError(file: options.store, "cannot be written: \(error.localizedDescription)") }
    let output = try AtomicDirectory(path: place)
    var files: [BundleManifest.File] = []
    let owners = items.ids.map { ShardID.owner(of: $0, shards: options.shards) }
    var rows = [[Int]](repeating: [], count: options.shards)
    for (row, owner) in owners.enumerated() { rows[owner.index].append(row) }
    let total = options.shards + 1
    for shard in 0..<options.shards {
      files.append(try writeSlice(shard, rows[shard], items, itemTable, into: output.temporary))
      progress(shard + 1, total)
    }
    files.append(try writeUsers(users, userTable, history, owners, into: output.temporary))
    progress(total, total)
    for (entry, bytes) in rankers { files.append(try write(bytes, entry.file, into: output.temporary)) }
    if let (entry, bytes) = listRanker { files.append(try write(bytes, entry.file, into: output.temporary)) }
    files.append(try write(warmup(users.ids), BundleManifest.warmupName, into: output.temporary))
    var manifest = BundleManifest(
      formatVersion: listRanker != nil ? 3 : isEnsemble ? 2 : 1, model: options.release.model,
      version: options.release.version,
      shards: options.shards, hash: BundleManifest.hash, dimension: items.matrix.columns,
      itemsPerShard: rows.map(\.count), users: users.ids.count,
      schema: .init(
        item: itemTable.columns.map { .init($0) }, user: userTable.columns.map { .init($0) },
        context: context.map { .init($0) }),
      ranker: isEnsemble ? nil : rankers.first?.entry.file, rankers: isEnsemble ? rankers.map(\.entry) : nil,
      recentFeatures: usesRecent ? true : nil, listRanker: listRanker?.entry,
      files: files, lineage: .init(inputs: try inputs()),
      createdAt: ISO8601DateFormatter().string(from: Date()))
    try write(manifest, into: output.temporary)
    if let rehearse {
      let bytes: [UInt8]
      do { bytes = try rehearse(output.temporary) } catch let error as InputError {
        throw error
      } catch { throw InputError(file: place, "cannot be rehearsed: \(error)") }
      manifest.files.removeAll { $0.name == BundleManifest.warmupName }
      manifest.files.append(try write(bytes, BundleManifest.warmupName, into: output.temporary))
      try write(manifest, into: output.temporary)
    }
    try output.commit()
    return BundleSummary(
      path: place, items: items.ids.count, users: users.ids.count, bytes: files.reduce(0) { $0 + $1.size },
      ignored: itemTable.ignored + userTable.ignored + ignoredHistory)
  }

  private func checkOptions() throws(InputError) {
    for name in [options.release.model, options.release.version] where !ModelVersion.isValidName(name) {
      throw InputError(
        file: options.store,
        "\"\(name)\" is no name for a model or version; allowed: 1 to 64 of A-Z a-z 0-9 . _ -, not starting with a dot")
    }
    guard (1...4096).contains(options.shards) else {
      throw InputError(file: options.store, "\(options.shards) shards; allowed: 1 to 4096")
    }
  }

  // MARK: Inputs

  private func factors(_ name: String) throws(InputError) -> (matrix: Matrix, ids: [String]) {
    var path = "\(options.factors)/\(name).npy"
    let tensors = options.factors + "/factors.safetensors"
    let matrix: Matrix
    if !FileManager.default.fileExists(atPath: path), FileManager.default.fileExists(atPath: tensors) {
      path = tensors
      matrix = try SafetensorsFile.read(path, tensor: name)
    } else {
      matrix = try NumPyFile.read(path)
    }
    let ids = try IDFile.read("\(options.factors)/\(name).ids")
    guard matrix.rows == ids.count else {
      throw InputError(file: path, "has \(matrix.rows) rows, \(name).ids names \(ids.count)")
    }
    guard matrix.rows > 0, (1...RequestLimit.vectorDimension).contains(matrix.columns) else {
      throw InputError(
        file: path,
        "is \(matrix.rows) × \(matrix.columns); at least 1 row and 1 to \(RequestLimit.vectorDimension) columns")
    }
    for row in 0..<matrix.rows {
      let squares = matrix.row(row).reduce(0.0) { $0 + Double($1) * Double($1) }
      guard squares.isFinite, squares <= RequestLimit.vectorNorm * RequestLimit.vectorNorm else {
        throw InputError(file: path, "row \(row) (\"\(ids[row])\"): not finite, or its norm is above 1e18")
      }
    }
    return (matrix, ids)
  }

  private struct IDRows {
    private let rows: [String: Int]
    init(_ ids: [String]) { rows = Dictionary(zip(ids, 0...), uniquingKeysWith: { first, _ in first }) }
    subscript(id: String) -> Int? { rows[id] }
  }

  private func columns(
    _ path: String?, _ kinds: [Column]?, _ count: Int, _ rows: IDRows
  ) throws(InputError) -> ColumnTable {
    guard let path else {
      if let first = kinds?.first {
        throw InputError(
          file: options.schema ?? "", "names the column \"\(first.name)\", but no file of columns is given")
      }
      return ColumnTable()
    }
    return try ColumnTable(path: path, kinds: kinds, rows: count) { rows[$0] }
  }

  /// The list ranker's file, which fits the columns.
  private func listRanker(
    hasSchema: Bool, _ item: [Column], _ user: [Column], _ context: [Column]
  ) throws(InputError) -> (entry: BundleManifest.ListRankerEntry, bytes: [UInt8])? {
    guard let path = options.listRanker else { return nil }
    guard hasSchema else { throw InputError(file: path, "a list ranker needs --schema, which names its features") }
    guard ListRanking.poolRange.contains(options.listPool) else {
      throw InputError(
        file: path, "a pool of \(options.listPool); allowed: 1 to \(ListRanking.poolRange.upperBound)")
    }
    let bytes = try InputFile.readAll(path: path, limit: BundleManifest.rankerBytesMax)
    _ = try ListRankerFile.parse(
      bytes, path: path, pool: options.listPool, item: item, user: user, context: context)
    return (.init(file: BundleManifest.listRankerName(bytes), pool: options.listPool), bytes)
  }

  /// Whether weights are needed to say what the score is.
  private var isEnsemble: Bool { options.rankers.count > 1 || options.rankers.contains { $0.weight != 1 } }

  /// The rankers' files, each of which fits the columns.
  private func rankers(
    hasSchema: Bool, _ item: [Column], _ user: [Column], _ context: [Column]
  ) throws(InputError) -> (files: [(entry: BundleManifest.RankerEntry, bytes: [UInt8])], usesRecent: Bool) {
    var rankers: [(entry: BundleManifest.RankerEntry, bytes: [UInt8])] = []
    var usesRecent = false
    guard options.rankers.count <= RankerEnsemble.membersMax else {
      throw InputError(
        file: options.rankers[RankerEnsemble.membersMax].file,
        "is one ranker too many; allowed: \(RankerEnsemble.membersMax)")
    }
    for (place, input) in options.rankers.enumerated() {
      guard hasSchema else {
        throw InputError(file: input.file, "a ranker needs --schema, which names its features")
      }
      guard input.weight.isFinite else { throw InputError(file: input.file, "weight \(input.weight) is not finite") }
      let bytes = try InputFile.readAll(path: input.file, limit: BundleManifest.rankerBytesMax)
      let ranker = try RankerFile.parse(bytes, path: input.file, item: item, user: user, context: context)
      if ranker.usesRecent { usesRecent = true }
      let name = BundleManifest.rankerName(bytes, place: isEnsemble ? place : nil)
      rankers.append((BundleManifest.RankerEntry(file: name, weight: input.weight), bytes))
    }
    return (rankers, usesRecent)
  }

  /// Per user the rows of the items the user had, ascending, each once.
  private func loadHistory(
    _ userRows: IDRows, _ itemRows: IDRows, users: Int
  ) throws(InputError) -> ([[Int]], ignored: Int) {
    var history = [[Int]](repeating: [], count: users)
    guard let path = options.history else { return (history, 0) }
    var reader = try CSVReader(path: path)
    let (userColumn, itemColumn) = (try reader.column("user"), try reader.column("item"))
    var ignored = 0
    while let row = try reader.next() {
      guard let user = userRows[try row.id(userColumn)], let item = itemRows[try row.id(itemColumn)] else {
        ignored += 1
        continue
      }
      history[user].append(item)
    }
    return (history.map { Set($0).sorted() }, ignored)
  }

  private func inputs() throws(InputError) -> [BundleManifest.File] {
    var paths = ["items.npy", "users.npy", "factors.safetensors", "items.ids", "users.ids"]
      .map { options.factors + "/" + $0 }.filter { FileManager.default.fileExists(atPath: $0) }
    paths += [options.itemColumns, options.userColumns, options.history].compactMap { $0 }
    paths += options.rankers.map(\.file) + [options.listRanker, options.schema].compactMap { $0 }
    var files: [BundleManifest.File] = []
    for path in paths {
      let (size, sum) = try SHA256.of(file: path)
      files.append(.init(name: path.split(separator: "/").last.map(String.init) ?? path, size: size, sha256: sum))
    }
    return files
  }

  // MARK: Outputs

  private func write(_ manifest: BundleManifest, into directory: String) throws(InputError) {
    let bytes: [UInt8]
    do { bytes = try manifest.encoded() } catch { throw InputError(file: directory, "no manifest: \(error)") }
    try AtomicFile.write(bytes, to: directory + "/" + BundleManifest.fileName)
  }

  private func write(_ bytes: [UInt8], _ name: String, into directory: String) throws(InputError) -> BundleManifest.File
  {
    try AtomicFile.write(bytes, to: directory + "/" + name)
    return .init(name: name, size: bytes.count, sha256: bytes.withUnsafeBytes { SHA256.of($0) })
  }

  private func writeSlice(
    _ shard: Int, _ rows: [Int], _ items: (matrix: Matrix, ids: [String]), _ table: ColumnTable, into directory: String
  ) throws(InputError) -> BundleManifest.File {
    let dimension = items.matrix.columns
    let stride = Scoring.Slice.stride(dimension: dimension)
    let count = rows.count
    let header = SectionFileHeader(
      kind: .slice, shard: shard, shardCount: options.shards, dimension: dimension, count: count,
      sections: [
        ("vectors", count * stride * 4), ("ordinals", count * 8), ("id_ends", count * 4),
        ("id_bytes", rows.reduce(0) { $0 + items.ids[$1].utf8.count }),
      ] + table.columns.map { ("column." + $0.name, count * 4) })
    let name = BundleManifest.sliceName(ShardID(shard))
    let image = SectionImage(header, path: directory + "/" + name)
    let vectors = image.section("vectors", of: Float.self)
    let ordinals = image.section("ordinals", of: UInt64.self)
    for (place, row) in rows.enumerated() {
      ordinals[place] = UInt64(row)
      for (k, value) in items.matrix.row(row).enumerated() { vectors[place * stride + k] = value }
    }
    fill(image, ids: rows.map { items.ids[$0] })
    for (column, values) in zip(table.columns, table.values) {
      let section = image.section("column." + column.name, of: Float.self)
      for (place, row) in rows.enumerated() { section[place] = values[row] }
    }
    let (size, sum) = try image.write()
    return .init(name: name, size: size, sha256: sum)
  }

  private func fill(_ image: SectionImage, ids: [String]) {
    let ends = image.section("id_ends", of: UInt32.self)
    let bytes = image.section("id_bytes")
    var end = 0
    for (place, id) in ids.enumerated() {
      for byte in id.utf8 {
        bytes[end] = byte
        end += 1
      }
      ends[place] = UInt32(end)
    }
  }

  private func writeUsers(
    _ users: (matrix: Matrix, ids: [String]), _ table: ColumnTable, _ history: [[Int]], _ owners: [ShardID],
    into directory: String
  ) throws(InputError) -> BundleManifest.File {
    let count = users.ids.count
    let dimension = users.matrix.columns
    var slots = 16
    while slots < 2 * count { slots *= 2 }
    let historyCount = history.reduce(0) { $0 + $1.count }
    let header = SectionFileHeader(
      kind: .users, shard: 0, shardCount: options.shards, dimension: dimension, count: count,
      sections: [
        ("index", slots * 4), ("id_ends", count * 4), ("id_bytes", users.ids.reduce(0) { $0 + $1.utf8.count }),
        ("vectors", count * dimension * 4), ("columns", count * table.columns.count * 4), ("history_ends", count * 8),
        ("history", historyCount * 8), ("history_shards", historyCount * 2), ("cold_start", dimension * 4),
      ])
    let image = SectionImage(header, path: directory + "/" + BundleManifest.usersName)
    fill(image, ids: users.ids)
    let index = image.section("index", of: UInt32.self)
    let vectors = image.section("vectors", of: Float.self)
    let values = image.section("columns", of: Float.self)
    let ends = image.section("history_ends", of: UInt64.self)
    let ordinals = image.section("history", of: UInt64.self)
    let shards = image.section("history_shards", of: UInt16.self)
    var sum = [Double](repeating: 0, count: dimension)
    var end = 0
    for row in 0..<count {
      var slot = Int(truncatingIfNeeded: StableHash.xxh64(users.ids[row])) & (slots - 1)
      while index[slot] != 0 { slot = (slot + 1) & (slots - 1) }
      index[slot] = UInt32(row + 1)
      for (k, value) in users.matrix.row(row).enumerated() {
        vectors[row * dimension + k] = value
        sum[k] += Double(value)
      }
      for column in table.columns.indices { values[row * table.columns.count + column] = table.values[column][row] }
      for item in history[row].sorted(by: { (owners[$0], $0) < (owners[$1], $1) }) {
        ordinals[end] = UInt64(item)
        shards[end] = UInt16(owners[item].rawValue)
        end += 1
      }
      ends[row] = UInt64(end)
    }
    let cold = image.section("cold_start", of: Float.self)
    for k in 0..<dimension { cold[k] = Float(sum[k] / Double(count)) }
    let (size, sha) = try image.write()
    return .init(name: BundleManifest.usersName, size: size, sha256: sha)
  }

  /// Requests of real users, spread over the table: for warming up and for golden answers.
  private func warmup(_ users: [String]) -> [UInt8] {
    let step = max(1, users.count / 32)
    var text = ""
    for row in stride(from: 0, to: users.count, by: step).prefix(32) {
      guard let data = try? JSONSerialization.data(withJSONObject: ["user": users[row]], options: [.sortedKeys]) else {
        continue
      }
      text += String(decoding: data, as: UTF8.self) + "\n"
    }
    return Array(text.utf8)
  }
}
