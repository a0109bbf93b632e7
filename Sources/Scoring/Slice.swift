import RankingCore

// One shard of one version in this process's own memory: what the scan reads and nothing else may change.
//
//     vectors   count × stride float32, stride = dimension rounded up to 16, the padding is zero
//     ordinals  count × UInt64, ascending
//     ids       count ends (UInt32) into one block of UTF-8 bytes
//     columns   per item column: count × float32 (number; boolean 0/1; category index), NaN = missing
//
// Built here, from the sections, when the slice is loaded: the index from an item's id to its row, and the copies of
// the rows in bytes that a scan reads first (Index/ScanIndex.swift).
//
// A row number and an ordinal are asked of each other only through `row(ofOrdinal:)`, `ordinal(ofRow:)` and
// `row(ofRank:)`/`rank(ofRow:)`: rows lie by ascending ordinal today, and a faster layout may order them otherwise.

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
  /// Where each column's values begin.
  let columnBases: [UnsafePointer<Float>]
  let idEnds: UnsafeBufferPointer<UInt32>
  let idBytes: UnsafeRawBufferPointer
  let memory: AlignedMemory
  let index: IDIndex
  /// What in the sections contradicts a slice, in one line; `nil` = nothing. A loader refuses a slice that has a fault;
  /// using it all the same gives wrong answers, never a wild read.
  public let fault: String?
  /// `nil` = every scan reads every row.
  package private(set) var scanIndex: ScanIndex?

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
    // A slice without rows has no values to point to, and none are asked for.
    columnBases = columns.map {
      $0.values.baseAddress ?? UnsafePointer(base.baseAddress!.assumingMemoryBound(to: Float.self))
    }
    fault = Slice.firstFault(ordinals: ordinals, idEnds: idEnds, idBytes: idBytes.count)
    let ids = IDColumn(ends: idEnds, bytes: idBytes)
    index = IDIndex(count: count) { ids[$0] }
    if fault == nil { scanIndex = ScanIndex.build(self) }
  }

  /// Makes the index anew; for benchmarks. Nobody may be scanning.
  package func rebuildIndex(_ plan: ScanIndex.Plan?) { scanIndex = ScanIndex.build(self, plan: plan) }

  public static func stride(dimension: Int) -> Int { (dimension + 15) & ~15 }

  /// The UTF-8 bytes of a row's item id, valid while the slice lives.
  @inline(__always)
  public func id(ofRow row: Int) -> UnsafeRawBufferPointer { IDColumn(ends: idEnds, bytes: idBytes)[row] }

  /// A row's vector: `dimension` float32.
  public func vector(ofRow row: Int) -> UnsafeBufferPointer<Float> {
    UnsafeBufferPointer(rebasing: vectors[row * stride..<row * stride + dimension])
  }

  /// The row of the item with this id, if this slice holds it.
  public func row(ofID id: String) -> Int? {
    var id = id
    return id.withUTF8 { row(ofID: UnsafeRawBufferPointer($0)) }
  }

  /// The row of the item whose id has these UTF-8 bytes, if this slice holds it.
  public func row(ofID id: UnsafeRawBufferPointer) -> Int? {
    let ids = IDColumn(ends: idEnds, bytes: idBytes)
    return index.row(of: id) { ids[$0] }
  }

  @inline(__always)
  public func ordinal(ofRow row: Int) -> ItemOrdinal { ItemOrdinal(rawValue: ordinals[row]) }

  /// The row of the item with this ordinal, if this slice holds it.
  public func row(ofOrdinal ordinal: ItemOrdinal) -> Int? {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if ordinals[middle] < ordinal.rawValue { low = middle + 1 } else { high = middle }
    }
    return low < count && ordinals[low] == ordinal.rawValue ? low : nil
  }

  /// How many of the slice's items have a smaller ordinal than the one in `row`: 32 bits that break ties as the
  /// ordinal's 64 would.
  @inline(__always)
  package func rank(ofRow row: Int) -> UInt32 { Self.rank(ofRow: row) }
  @inline(__always)
  static func rank(ofRow row: Int) -> UInt32 { UInt32(truncatingIfNeeded: row) }
  @inline(__always)
  package func row(ofRank rank: UInt32) -> Int { Int(rank) }

  /// Bytes of this process's memory that the slice holds.
  public var memoryFootprint: Int { memory.bytes.count + index.memoryFootprint + (scanIndex?.memoryFootprint ?? 0) }

  private static func firstFault(
    ordinals: UnsafeBufferPointer<UInt64>, idEnds: UnsafeBufferPointer<UInt32>, idBytes: Int
  ) -> String? {
    var last: UInt32 = 0
    for row in 0..<idEnds.count {
      let end = idEnds[row]
      guard end >= last, itemIDLengthRange.contains(Int(end - last)), Int(end) <= idBytes else {
        return "row \(row): its id ends at byte \(end), after one that ends at \(last), of \(idBytes)"
      }
      last = end
      if row > 0, ordinals[row] <= ordinals[row - 1] {
        return "row \(row): ordinal \(ordinals[row]) follows \(ordinals[row - 1]), ordinals ascend"
      }
    }
    return nil
  }
}

/// Item ids by row. Ends that run backwards or past the block give a shorter id, never bytes outside the block.
struct IDColumn {
  let ends: UnsafeBufferPointer<UInt32>
  let bytes: UnsafeRawBufferPointer

  @inline(__always)
  subscript(row: Int) -> UnsafeRawBufferPointer {
    let end = min(Int(ends[row]), bytes.count)
    let start = row == 0 ? 0 : min(Int(ends[row - 1]), end)
    return UnsafeRawBufferPointer(rebasing: bytes[start..<end])
  }
}
