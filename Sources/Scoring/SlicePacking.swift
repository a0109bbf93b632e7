import RankingCore

extension Slice {
  /// A slice made from arrays instead of a file: for tests, tools and benchmarks. Traps when the arrays do not fit each
  /// other: they are the caller's own.
  ///
  /// - Parameters:
  ///   - vectors: count × dimension float32, row after row, unpadded.
  ///   - ordinals: strictly ascending.
  ///   - ids: one per row, 1–255 UTF-8 bytes.
  ///   - columns: per item column one value per row, NaN = missing.
  public static func packed(
    release: ModelVersion, shard: ShardID, shardCount: Int, dimension: Int, vectors: [Float], ordinals: [UInt64],
    ids: [String], columns: [(column: Column, values: [Float])] = []
  ) -> Slice {
    let count = ordinals.count
    precondition(ids.count == count, "\(ids.count) ids for \(count) ordinals")
    precondition(vectors.count == count * dimension, "\(vectors.count) floats for \(count) rows of \(dimension)")
    precondition(
      columns.allSatisfy { $0.values.count == count }, "a column has not one value for each of \(count) rows")

    var end = 0
    func section(_ bytes: Int) -> Range<Int> {
      let start = (end + 63) & ~63
      end = start + bytes
      return start..<end
    }
    let stride = Slice.stride(dimension: dimension)
    let layout = Layout(
      vectors: section(count * stride * 4), ordinals: section(count * 8), idEnds: section(count * 4),
      idBytes: section(ids.reduce(0) { $0 + $1.utf8.count }),
      columns: columns.map { ($0.column, section(count * 4)) })

    let memory = AlignedMemory(byteCount: end)
    memory.bytes.initializeMemory(as: UInt8.self, repeating: 0)
    let base = memory.bytes.baseAddress.unsafelyUnwrapped
    vectors.withUnsafeBytes { from in
      for row in 0..<count {
        let bytes = UnsafeRawBufferPointer(rebasing: from[row * dimension * 4..<(row + 1) * dimension * 4])
        UnsafeMutableRawBufferPointer(rebasing: memory.bytes[(layout.vectors.lowerBound + row * stride * 4)...])
          .copyMemory(from: bytes)
      }
    }
    var idEnd = 0
    for row in 0..<count {
      base.storeBytes(of: ordinals[row], toByteOffset: layout.ordinals.lowerBound + row * 8, as: UInt64.self)
      for byte in ids[row].utf8 {
        memory.bytes[layout.idBytes.lowerBound + idEnd] = byte
        idEnd += 1
      }
      base.storeBytes(of: UInt32(idEnd), toByteOffset: layout.idEnds.lowerBound + row * 4, as: UInt32.self)
    }
    for (place, column) in zip(layout.columns, columns) {
      for row in 0..<count {
        base.storeBytes(of: column.values[row], toByteOffset: place.bytes.lowerBound + row * 4, as: Float.self)
      }
    }
    return Slice(
      release: release, shard: shard, shardCount: shardCount, dimension: dimension, count: count, memory: memory,
      layout: layout)
  }
}
