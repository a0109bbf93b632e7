import RankingCore

// Vector, columns and history of every user of a version, in own memory, found by an open-addressing index over
// xxHash64.
//
//     index           slots × u32: row + 1, 0 = free; slots a power of two ≥ 2 × rows
//     id_ends id_bytes
//     vectors         rows × dimension float32
//     columns         rows × columns float32, NaN = missing
//     history_ends    rows × u64: where a user's part of `history` ends
//     history         ordinals (u64), per user grouped by shard, ascending within
//     history_shards  as many u16: the shard of each
//     cold_start      dimension float32

public final class UserTable: UserDirectory, @unchecked Sendable {
  public let count: Int
  public let dimension: Int
  public let coldStart: [Float]
  private let file: SectionFile
  private let shards: Int
  private let columns: Int
  private let index: UnsafeBufferPointer<UInt32>
  private let idEnds: UnsafeBufferPointer<UInt32>
  private let idBytes: UnsafeRawBufferPointer
  private let vectors: UnsafeBufferPointer<Float>
  private let values: UnsafeBufferPointer<Float>
  private let historyEnds: UnsafeBufferPointer<UInt64>
  private let history: UnsafeBufferPointer<UInt64>
  private let historyShards: UnsafeBufferPointer<UInt16>

  init(_ file: SectionFile, columns: Int) throws(InputError) {
    self.file = file
    count = file.header.count
    dimension = file.header.dimension
    shards = file.header.shardCount
    self.columns = columns
    func section<Value>(
      _ name: String, _ type: Value.Type, count: Int? = nil
    ) throws(InputError)
      -> UnsafeBufferPointer<Value>
    {
      let range = try file.range(name, length: count.map { $0 * MemoryLayout<Value>.stride })
      return file.bytes(range).assumingMemoryBound(to: Value.self)
    }
    index = try section("index", UInt32.self)
    idEnds = try section("id_ends", UInt32.self, count: count)
    idBytes = file.bytes(try file.range("id_bytes"))
    vectors = try section("vectors", Float.self, count: count * dimension)
    values = try section("columns", Float.self, count: count * columns)
    historyEnds = try section("history_ends", UInt64.self, count: count)
    history = try section("history", UInt64.self)
    historyShards = try section("history_shards", UInt16.self, count: history.count)
    coldStart = Array(try section("cold_start", Float.self, count: dimension))
    // The sums were right, so this is what was written; a wrong writer must not become a crash here either.
    guard index.count.nonzeroBitCount == 1, index.count > count, index.allSatisfy({ Int($0) <= count }),
      zip(idEnds, idEnds.dropFirst()).allSatisfy({ $0 <= $1 }), Int(idEnds.last ?? 0) == idBytes.count,
      zip(historyEnds, historyEnds.dropFirst()).allSatisfy({ $0 <= $1 }),
      historyEnds.last ?? 0 == UInt64(history.count), historyShards.allSatisfy({ Int($0) < shards }),
      vectors.allSatisfy(\.isFinite)
    else { throw InputError(file: file.path, "its sections contradict each other") }
  }

  private func row(of user: String) -> Int? {
    var user = user
    return user.withUTF8 { bytes in
      let mask = index.count - 1
      var slot = Int(truncatingIfNeeded: StableHash.xxh64(UnsafeRawBufferPointer(bytes))) & mask
      while index[slot] != 0 {
        let row = Int(index[slot]) - 1
        let id = idBytes[(row == 0 ? 0 : Int(idEnds[row - 1]))..<Int(idEnds[row])]
        if id.elementsEqual(bytes) { return row }
        slot = (slot + 1) & mask
      }
      return nil
    }
  }

  public func record(of user: String) -> UserRecord? {
    guard let row = row(of: user) else { return nil }
    let range = (row == 0 ? 0 : Int(historyEnds[row - 1]))..<Int(historyEnds[row])
    var ends = [UInt32](repeating: 0, count: shards)
    for position in range { ends[Int(historyShards[position])] += 1 }
    for shard in 1..<max(1, shards) { ends[shard] += ends[shard - 1] }
    return UserRecord(
      vector: Array(vectors[row * dimension..<(row + 1) * dimension]),
      values: Array(values[row * columns..<(row + 1) * columns]),
      history: ShardedOrdinals(ordinals: Array(history[range]), ends: ends))
  }
}
