import CScoring
import RankingCore

// Filters on rows. A filter that many rows pass is asked late, for the few rows that could be among the best. One that
// few rows pass is asked first, for all of them: column by column into bits, 64 rows a word, joined as the filter says,
// and only the rows whose bit is left are scored.
//
//     price ≤ 5      1 0 1 1 0 …  ┐
//     brand in (3)   0 0 1 0 0 …  ┴ not, all ─► 1 0 0 1 0 … ─► rows 0, 3, … ─► float32 kernel ─► best

/// A filter on the rows of one slice.
struct RowFilter {
  let program: FilterProgram
  let columns: [UnsafePointer<Float>]

  init(_ program: FilterProgram, _ slice: Slice) {
    self.program = program
    columns = slice.columnBases
  }

  @inline(__always)
  func passes(_ row: Int) -> Bool { program.passes { columns[$0][row] } }
}

/// The memory of scans that ask the filter first; one per compute thread.
package struct FilteredScan: ~Copyable {
  /// Rows whose bits are made at a time: their values and bits stay in the first cache.
  private static let blockRows = 4096
  private static let words = blockRows / 64
  /// Rows that are scored together.
  private static let lot = 64

  private var bits = ScratchBuffer<UInt64>()
  private var rows = ScratchBuffer<UInt32>()
  private var scores = ScratchBuffer<Float>()

  package init() {}

  /// Offers every row that passes the filter and is not excluded.
  ///
  /// - Returns: false when it was cancelled on the way.
  mutating func run(
    _ slice: Slice, _ filter: RowFilter, query: UnsafePointer<Float>, excluded: borrowing ExclusionSet,
    into best: inout BestRows, cancelled: some Interruption
  ) -> Bool {
    guard let vectors = slice.vectors.baseAddress else { return true }
    let kernels = cscoring_active().pointee
    let bits = self.bits.room(for: Self.words * filter.program.depth)
    let rows = self.rows.room(for: Self.lot)
    let scores = self.scores.room(for: Self.lot)
    var count = 0
    func score(_ best: inout BestRows, _ excluded: borrowing ExclusionSet) {
      kernels.dot_gather(vectors, slice.stride, rows, count, query, scores)
      for place in 0..<count {
        let row = Int(rows[place])
        let key = RowKey(score: scores[place], rank: slice.rank(ofRow: row))
        guard key.bits > best.floor, scores[place].isFinite else { continue }
        if excluded.contains(slice.ordinals[row]) { continue }
        best.offer(key)
      }
      count = 0
    }
    for start in stride(from: 0, to: slice.count, by: Self.blockRows) {
      if cancelled.isCancelled { return false }
      let size = min(Self.blockRows, slice.count - start)
      Self.join(filter, start, size, into: bits)
      for index in 0..<(size + 63) / 64 {
        var word = bits[index]
        while word != 0 {
          let row = start + 64 * index + word.trailingZeroBitCount
          word &= word - 1
          let address = UnsafeRawPointer(vectors + row * slice.stride)
          for line in Swift.stride(from: 0, to: slice.stride * 4, by: 64) { cscoring_prefetch(address + line) }
          rows[count] = UInt32(row)
          count += 1
          if count == Self.lot { score(&best, excluded) }
        }
      }
    }
    score(&best, excluded)
    return true
  }

  /// The filter's bits of some rows, in the first words of `bits`.
  private static func join(_ filter: RowFilter, _ start: Int, _ size: Int, into bits: UnsafeMutablePointer<UInt64>) {
    let used = (size + 63) / 64
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
        // Rows that do not exist pass nothing.
        if size % 64 != 0 { last[used - 1] &= 1 << UInt64(size % 64) - 1 }
      }
    }
  }
}
