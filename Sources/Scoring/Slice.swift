import RankingCore

// One shard of one version in this process's own memory: what the scan reads and nothing else may change.
//
//     vectors   count × stride float32, stride = dimension rounded up to 16, the padding is zero
//     ordinals  count × UInt64, ascending
//     ids       count ends (UInt32) into one block of UTF-8 bytes
//     columns   per item column: count × float32 (number; boolean 0/1; category index), NaN = missing

/// Memory that is ours alone, 64-byte aligned, freed with its owner.
public final class AlignedMemory: @unchecked Sendable {
  public let bytes: UnsafeMutableRawBufferPointer
  public init(byteCount: Int) {
    bytes = .allocate(byteCount: max(64, byteCount), alignment: 64)
  }
  deinit { bytes.deallocate() }
}

public final class Slice: @unchecked Sendable {
  public let release: ModelVersion
  public let shard: ShardID
  public let shardCount: Int
  public let dimension: Int
  /// float32 from one row to the next: the dimension rounded up to a multiple of 16.
  public let stride: Int
  public let count: Int
  public let vectors: UnsafeBufferPointer<Float>
  public let ordinals: UnsafeBufferPointer<UInt64>
  public let columns: [ItemColumn]
  let idEnds: UnsafeBufferPointer<UInt32>
  let idBytes: UnsafeRawBufferPointer
  let memory: AlignedMemory

  public struct ItemColumn {
    public let column: Column
    public let values: UnsafeBufferPointer<Float>
  }

  /// Byte ranges of `memory` that hold each section; the caller has checked that they fit `count` and are aligned.
  public struct Layout {
    public var vectors: Range<Int>
    public var ordinals: Range<Int>
    public var idEnds: Range<Int>
    public var idBytes: Range<Int>
    public var columns: [(column: Column, bytes: Range<Int>)]
    public init(
      vectors: Range<Int>, ordinals: Range<Int>, idEnds: Range<Int>, idBytes: Range<Int>,
      columns: [(column: Column, bytes: Range<Int>)]
    ) {
      self.vectors = vectors
      self.ordinals = ordinals
      self.idEnds = idEnds
      self.idBytes = idBytes
      self.columns = columns
    }
  }

  public init(
    release: ModelVersion, shard: ShardID, shardCount: Int, dimension: Int, count: Int, memory: AlignedMemory,
    layout: Layout
  ) {
    self.release = release
    self.shard = shard
    self.shardCount = shardCount
    self.dimension = dimension
    self.stride = Slice.stride(dimension: dimension)
    self.count = count
    self.memory = memory
    let base = UnsafeRawBufferPointer(memory.bytes)
    vectors = UnsafeRawBufferPointer(rebasing: base[layout.vectors]).assumingMemoryBound(to: Float.self)
    ordinals = UnsafeRawBufferPointer(rebasing: base[layout.ordinals]).assumingMemoryBound(to: UInt64.self)
    idEnds = UnsafeRawBufferPointer(rebasing: base[layout.idEnds]).assumingMemoryBound(to: UInt32.self)
    idBytes = UnsafeRawBufferPointer(rebasing: base[layout.idBytes])
    columns = layout.columns.map {
      ItemColumn(
        column: $0.column,
        values: UnsafeRawBufferPointer(rebasing: base[$0.bytes]).assumingMemoryBound(to: Float.self))
    }
  }

  public static func stride(dimension: Int) -> Int { (dimension + 15) & ~15 }

  /// The UTF-8 bytes of a row's item id, valid while the slice lives.
  public func id(ofRow row: Int) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: idBytes[(row == 0 ? 0 : Int(idEnds[row - 1]))..<Int(idEnds[row])])
  }
}
