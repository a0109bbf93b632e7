import CScoring
import RankingCore

// Phase 1: where a shard's candidates come from. Each source adds rows with their retrieval scores; phase 2 ranks the
// union. There is one source per mode today. A source that picks rows by something else than the vector (popular items,
// the customer's repeats, new arrivals) comes as a further case: it lists its rows, up to its quota, and `gather` gives
// them their retrieval scores, as it does for named items.

package enum CandidateSource: Sendable, Equatable {
  /// The best `quota` rows of the shard by inner product with the query.
  case vector(quota: Int)
  /// The items that the task names.
  case named
}

/// The scan behind `.vector`: exact, over every row of a slice.
///
/// A block of rows goes through the kernel, the few scores that reach the threshold are picked out, and those that are
/// not excluded are offered. The block is what the flag is asked between, and what stays in the first-level cache.
package enum VectorScan {
  /// Bytes of vectors between two looks at the flag: some 10 µs at memory speed.
  package static let blockBytes = 1 << 18
  package static let blockRowsMax = 1024

  /// Rows of `slice` in one block: a multiple of 16, so that the kernel's rows in flight come out even.
  package static func blockRows(of slice: Slice) -> Int {
    max(16, min(blockRowsMax, blockBytes / (max(16, slice.stride) * 4)) & ~15)
  }

  /// Offers every row of the slice that is not excluded and passes the filter.
  ///
  /// - Parameters:
  ///   - query: `slice.stride` floats, the padding zero.
  ///   - scores: room for `blockRowsMax`.
  ///   - picked: likewise.
  /// - Returns: false when it was cancelled on the way; `best` is then meaningless.
  package static func run(
    _ slice: Slice, query: UnsafePointer<Float>, excluded: borrowing ExclusionSet, into best: inout BestRows,
    scores: UnsafeMutablePointer<Float>, picked: UnsafeMutablePointer<UInt32>, cancelled: some Interruption,
    filter: FilterProgram? = nil
  ) -> Bool {
    guard slice.count > 0, let vectors = slice.vectors.baseAddress else { return true }
    let kernels = cscoring_active().pointee
    let block = blockRows(of: slice)
    let filter = filter.map { RowFilter(program: $0, columns: slice.columnBases) }
    var row = 0
    while row < slice.count {
      if cancelled.isCancelled { return false }
      let rows = min(block, slice.count - row)
      kernels.dot_rows(vectors + row * slice.stride, slice.stride, rows, query, scores)
      let count = cscoring_select(scores, rows, best.threshold, picked)
      for index in 0..<count {
        let offset = Int(picked[index])
        let score = scores[offset]
        let key = RowKey(score: score, rank: slice.rank(ofRow: row + offset))
        guard key.bits > best.floor, score.isFinite else { continue }
        if excluded.contains(slice.ordinals[row + offset]) { continue }
        if let filter, !filter.passes(row + offset) { continue }
        best.offer(key)
      }
      row += rows
    }
    return true
  }
}
