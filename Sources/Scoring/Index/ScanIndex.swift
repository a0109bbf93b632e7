import CScoring
import RankingCore

// What makes an exact scan quick. Beside a slice's float32 rows lie copies of them in bytes, in descending order of
// their norms, in blocks of 256 rows. A query is answered by ever closer looks at ever fewer rows:
//
//     norm    a block's greatest norm · ‖q‖ is too little        ─► it and all after it are done      1 M rows
//     head    the row's part along 15 or 31 axes                 ─► most rows are done                230 000
//     neck    its part along 14 axes more, beside those 15       ─► most of the rest are done           9 000
//     full    the whole row, a byte a dimension                  ─► nearly all are done                 2 000
//     exact   the float32 kernel, as a plain scan would use it   ─► the score                             240
//
// (The numbers: rows that come to each look, of a million factor-like rows of 64, on average of many queries.) Heads
// are read one after the other, necks and full rows looked up one by one.
//
// Each look gives an upper bound of what the kernel would compute, and a row is done with only when that is strictly
// below the threshold: the score that is known to be reached by as many rows as are wanted. So the answer is that of a
// plain scan of every row, bit for bit.
//
// The bounds. A block's rows are rounded to x̂ = scale · bytes, x = x̂ + e; the query likewise, q = q̂ + f. Then
//
//     full    x·q ≤ x̂·q̂ + ‖e‖‖q‖ + ‖x̂‖‖f‖
//     head    x·q = (Ax)·(Aq) + (x's part off the axes)·(q's) ≤ ŷ·p̂ + ‖e‖‖p‖ + ‖ŷ‖‖f‖ + t·t_q
//
// where A has the axes as its rows, y = Ax, p = Aq, and t is the norm of what the axes leave of x. The last term costs
// nothing: t, rounded up, is one more byte of the head, and t_q of the query's. The neck's product is added to the
// head's; it carries the row's t once more, against the query's −t_q, which takes the head's last term away, and a t of
// its own for what 29 axes leave. Products of bytes are exact integers, so a block's test is one comparison:
// product ≥ (threshold − slack) / (scale · the query's scale).
// The slack also covers γ‖x‖‖q‖ for the kernel's own rounding, and that the axes are orthonormal only nearly.
//
// Worked example, one block, threshold 7.0: greatest norm 2.5, ‖q‖ = 4, so that 10 ≥ 7 keeps it. Its rows were rounded
// with scale 0.02 and at most ‖e‖ = 0.01, ‖x̂‖ = 2.5; the query with 0.03 and ‖f‖ = 0.02. The slack is 0.01·4 +
// 2.5·0.02 = 0.09, so a row passes when its product is at least (7 − 0.09) / (0.02 · 0.03) = 11 516.

/// The byte copies of a slice's rows. Built once, when the slice is loaded, and never changed.
package final class ScanIndex: @unchecked Sendable {
  package static let blockRows = 256
  /// Smaller slices are scanned plainly: there is nothing to win.
  package static let rowsMin = 2048
  /// Axes of a head of 16 bytes, and of it and its neck together.
  static let headAxes = 15
  static let neckAxes = 29

  /// How a block's rows were rounded: x̂ = scale · (byte − 128); the greatest ‖x − x̂‖ and ‖x̂‖ of its rows.
  struct Rounding {
    var scale = 0.0
    var error = 0.0
    var norm = 0.0
  }
  struct Block {
    /// The greatest ‖x‖.
    var norm = 0.0
    var full = Rounding()
    /// The neck has the head's scale; its error and norm are those of both together.
    var head = Rounding()
    var neck = Rounding()
  }
  /// What a scan reads first.
  package enum Plan: Equatable, Sendable {
    /// All of each row, interleaved: where no few axes say much.
    case full
    /// Heads of so many bytes, interleaved; the rows lie beside them, to be looked up, and necks to heads of 16.
    case head(bytes: Int)
  }

  package let plan: Plan
  let count: Int
  /// By position: the row that lies there.
  let rows: UnsafeMutablePointer<UInt32>
  let blocks: UnsafeMutablePointer<Block>
  let blockCount: Int
  let full: UnsafeMutablePointer<UInt8>
  /// Bytes of a row in `full`.
  let fullStride: Int
  let heads: UnsafeMutablePointer<UInt8>?
  let headBytes: Int
  /// 16 bytes of each row.
  let necks: UnsafeMutablePointer<UInt8>?
  let axes: Axes?
  /// The slice's columns, by position.
  let columns: [UnsafePointer<Float>]
  let memory: AlignedMemory

  init(
    plan: Plan, count: Int, memory: AlignedMemory, rows: UnsafeMutablePointer<UInt32>,
    blocks: UnsafeMutablePointer<Block>, full: UnsafeMutablePointer<UInt8>, fullStride: Int,
    heads: UnsafeMutablePointer<UInt8>?, necks: UnsafeMutablePointer<UInt8>?, axes: Axes?,
    columns: [UnsafePointer<Float>]
  ) {
    self.plan = plan
    self.count = count
    self.memory = memory
    self.rows = rows
    self.blocks = blocks
    blockCount = (count + Self.blockRows - 1) / Self.blockRows
    self.full = full
    self.fullStride = fullStride
    self.heads = heads
    headBytes = if case .head(let bytes) = plan { bytes } else { 0 }
    self.necks = necks
    self.columns = columns
    self.axes = axes
  }

  package var memoryFootprint: Int { memory.bytes.count }
  /// Bytes of each row that the first look reads.
  package var firstLookBytes: Int { heads == nil ? fullStride : headBytes }
}

/// Bounds of float32 and float64 arithmetic that every test of the index allows for.
enum RoundingBound {
  /// Covers the roundings of the float64 arithmetic that the bounds themselves are computed with: a few hundred
  /// operations, each off by at most 2⁻⁵³.
  static let slop = 1e-9

  /// |kernel's score − x·q| ≤ gamma · ‖x‖‖q‖ + underflow; see CScoring.h.
  static func gamma(stride: Int) -> Double {
    let n = Double(stride / 16 + 4)
    return n * 0x1p-24 / (1 - n * 0x1p-24)
  }
  static func underflow(stride: Int) -> Double { Double(stride) * 0x1p-149 }

  static func up(_ value: Double) -> Double { value * (1 + slop) }
}
