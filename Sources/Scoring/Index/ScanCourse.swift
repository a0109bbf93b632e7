import CScoring
import RankingCore

/// A test of rows by the products of bytes, for one query: product · scale + slack of the block is a row's upper
/// bound.
struct Look {
  /// The query's bytes.
  let bytes: UnsafePointer<Int8>
  /// What they add to every product (see int8.h).
  let shift: Double
  let scale: Double
  /// A block's slack is error · its rounding's norm + norm · its rounding's error + skew · its norm + rest.
  let error: Double
  let norm: Double
  let skew: Double
  let rest: Double

  @inline(__always)
  func slack(_ rounding: ScanIndex.Rounding, _ blockNorm: Double) -> Double {
    (error * rounding.norm + norm * rounding.error + skew * blockNorm + rest) * (1 + RoundingBound.slop)
  }

  /// The least product with which a row of the block may reach `limit`.
  @inline(__always)
  func least(_ limit: Double, _ rounding: ScanIndex.Rounding, _ blockNorm: Double) -> Int32 {
    guard limit > -.infinity else { return .min }
    let wanted = limit - slack(rounding, blockNorm)
    let unit = scale * rounding.scale
    // All products are zero: every row passes, or none does.
    guard unit > 0 else { return wanted <= 0 ? .min : .max }
    let product = (wanted / unit).rounded(.down) - 1 + shift
    return Int32(max(Double(Int32.min), min(Double(Int32.max), product)))
  }
}

/// A scan on its way: the query's looks, where the rows lie, and how far it is. Trivial: whoever made it keeps the
/// slice and its index.
struct ScanCourse {
  let vectors: UnsafePointer<Float>
  let stride: Int
  let ordinals: UnsafePointer<UInt64>
  let query: UnsafePointer<Float>

  let count: Int
  let rows: UnsafePointer<UInt32>
  let blocks: UnsafePointer<ScanIndex.Block>
  let full: UnsafePointer<UInt8>
  let fullStride: Int
  let necks: UnsafePointer<UInt8>?
  /// What the first look reads, and bytes of a row there.
  let source: UnsafePointer<UInt8>
  let size: Int

  let first: Look
  /// Whether the first look is at heads; else at whole rows.
  let isByHead: Bool
  let neck: Look?
  let whole: Look
  /// A block whose greatest norm times this, and `underflow`, is below the limit is done, and so are all after it.
  let reach: Double
  let underflow: Double
  /// What a row needs, whatever has been found.
  let reached: Double
  let isFiltered: Bool
  /// Where the first look of a block puts what it finds.
  let picked: UnsafeMutablePointer<UInt32>
  let products: UnsafeMutablePointer<Int32>

  /// What a row needs by now.
  var limit: Double
  /// Rows that wait for their look at the neck, and for the looks after it.
  var atNeck = 0
  var waiting = 0
  var counts = IndexedScan.Counts()

  init(
    _ slice: Slice, _ index: ScanIndex, query: UnsafePointer<Float>, full: Look, head: Look?, neck: Look?, norm: Double,
    reached: Double, isFiltered: Bool, picked: UnsafeMutablePointer<UInt32>, products: UnsafeMutablePointer<Int32>
  ) {
    // An index has rows.
    vectors = slice.vectors.baseAddress!
    stride = slice.stride
    ordinals = slice.ordinals.baseAddress!
    self.query = query
    count = index.count
    rows = UnsafePointer(index.rows)
    blocks = UnsafePointer(index.blocks)
    self.full = UnsafePointer(index.full)
    fullStride = index.fullStride
    necks = index.necks.map { UnsafePointer($0) }
    source = UnsafePointer(head == nil ? index.full : index.heads ?? index.full)
    size = head == nil ? index.fullStride : index.headBytes
    first = head ?? full
    isByHead = head != nil
    self.neck = neck
    whole = full
    reach = norm * (1 + RoundingBound.gamma(stride: slice.stride) + RoundingBound.slop)
    underflow = RoundingBound.underflow(stride: slice.stride)
    self.reached = reached
    self.isFiltered = isFiltered
    self.picked = picked
    self.products = products
    limit = reached
  }

  /// The least product of the first look with which a row of the block may be among the best, and counts the block as
  /// read; nil when no row of it or of a later one can be.
  @inline(__always)
  mutating func least(of number: Int) -> Int32? {
    let block = blocks + number
    // Norms only fall from here.
    if block.pointee.norm * reach + underflow < limit { return nil }
    counts.blocks += 1
    return first.least(limit, isByHead ? block.pointee.head : block.pointee.full, block.pointee.norm)
  }

  @inline(__always)
  func source(of number: Int) -> UnsafePointer<UInt8> { source + number * ScanIndex.blockRows * size }
  @inline(__always)
  func groups(of number: Int) -> Int {
    (min(ScanIndex.blockRows, count - number * ScanIndex.blockRows) + 15) / 16
  }

  /// Asks for what is read next of a row that waits.
  @inline(__always)
  func prefetch(_ position: Int) {
    if isByHead { cscoring_prefetch(full + position * fullStride) } else { cscoring_prefetch(rows + position) }
  }
}
