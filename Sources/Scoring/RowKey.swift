/// A row and its score as one integer whose order is the total order of the cluster: the greater key is the better
/// item.
///
///     bits 63…32   the score's bits, mapped so that they compare as the score does
///     bits 31…0    the complement of the row's rank among the slice's ordinals: of equal scores the smaller wins
///
/// Scores are never NaN and never −0. No two rows of a slice share a key, and a finite score's key is never 0.
package struct RowKey: Equatable, Sendable {
  package let bits: UInt64

  @inline(__always)
  package init(bits: UInt64) { self.bits = bits }

  @inline(__always)
  package init(score: Float, rank: UInt32) {
    let pattern = score.bitPattern
    let ordered = pattern & 0x8000_0000 == 0 ? pattern | 0x8000_0000 : ~pattern
    bits = UInt64(ordered) << 32 | UInt64(~rank)
  }

  @inline(__always)
  package var score: Float {
    let ordered = UInt32(truncatingIfNeeded: bits >> 32)
    return Float(bitPattern: ordered & 0x8000_0000 != 0 ? ordered & 0x7FFF_FFFF : ~ordered)
  }

  @inline(__always)
  package var rank: UInt32 { ~UInt32(truncatingIfNeeded: bits) }
}
