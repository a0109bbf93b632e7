import CScoring
import RankingCore

// Filters on rows: one row at a time where few are asked, or a block's rows at once, column by column into bits, 64
// rows a word, joined as the filter says.
//
//     price ≤ 5      1 0 1 1 0 …  ┐
//     brand in (3)   0 0 1 0 0 …  ┴ not, all ─► 1 0 0 1 0 … ─► rows 0, 3, …

/// A filter on columns whose values lie in one order of the rows: the slice's own, or the index's.
struct RowFilter {
  let program: FilterProgram
  let columns: [UnsafePointer<Float>]

  @inline(__always)
  func passes(_ row: Int) -> Bool { program.passes { columns[$0][row] } }
}

/// The bits of a block of rows; one per compute thread.
struct FilterBits: ~Copyable {
  private static let words = ScanIndex.blockRows / 64
  private var bits = ScratchBuffer<UInt64>()
  private(set) var passed = 0
  /// What `ask` gave.
  private(set) var last: UnsafePointer<UInt64>

  init() { last = UnsafePointer(bits.room(for: Self.words)) }

  /// Asks the filter of `size` rows from `start` on.
  ///
  /// - Returns: a bit per row of a block, the lowest of the first word the first row; bits beyond `size` are 0.
  mutating func ask(_ filter: RowFilter, _ start: Int, _ size: Int) -> UnsafePointer<UInt64> {
    let (words, used) = (Self.words, (size + 63) / 64)
    let bits = self.bits.room(for: words * filter.program.depth)
    last = UnsafePointer(bits)
    var depth = 0
    for step in filter.program.steps {
      switch step {
      case .range(let column, let low, let high):
        cscoring_range_bits(filter.columns[column] + start, size, low, high, bits + depth * words)
        depth += 1
      case .isIn(let column, let values):
        cscoring_in_bits(filter.columns[column] + start, size, values, values.count, bits + depth * words)
        depth += 1
      case .all(let count), .any(let count):
        let isAll = if case .all = step { true } else { false }
        depth -= count - 1
        let sum = bits + (depth - 1) * words
        for other in 1..<max(1, count) {
          let more = sum + other * words
          for index in 0..<used { sum[index] = isAll ? sum[index] & more[index] : sum[index] | more[index] }
        }
      case .not:
        let last = bits + (depth - 1) * words
        for index in 0..<used { last[index] = ~last[index] }
        if size % 64 != 0 { last[used - 1] &= 1 << UInt64(size % 64) - 1 }
      }
    }
    for index in used..<words { bits[index] = 0 }
    passed = 0
    for index in 0..<used { passed += bits[index].nonzeroBitCount }
    return UnsafePointer(bits)
  }
}
