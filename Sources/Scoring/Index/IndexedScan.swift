import CScoring
import RankingCore

// A scan by an index: the looks of ScanIndex.swift, one after the other.
//
//     sample ─► threshold ─► block: norm? ─► head ─► wait ─► neck ─► wait ─► full, exact ─► best ─► threshold …
//                                        └─► full ──────────────────► wait ─► exact ─┘
//
// Rows that pass a look wait until some have gathered, so that their memory is asked for before it is needed; the
// threshold rises each time such a lot has been scored. It starts as what a sample of the rows with the greatest norms
// is known to reach: their lower bounds, by which no row needs to be scored.

/// A test of rows by the products of bytes, for one query: product · scale + slack of the block is a row's upper bound.
private struct Look {
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

/// The memory of scans by an index, kept by a compute thread.
package struct IndexedScan: ~Copyable {
  /// Rows that are rescored together.
  private static let lot = 64
  /// At most so many wait: a lot that is not quite full, and what one more block or lot brings.
  private static let room = 2 * lot + ScanIndex.blockRows
  private static let sampleRows = 2048
  /// Blocks between two looks at the flag: some 10 µs.
  private static let blocksPerGlance = 32

  private var fullBytes = ScratchBuffer<Int8>()
  private var headBytes = ScratchBuffer<Int8>()
  private var parts = ScratchBuffer<Float>()
  private var neckBytes = ScratchBuffer<Int8>()
  private var picked = ScratchBuffer<UInt32>()
  private var pickedProducts = ScratchBuffer<Int32>()
  private var atNeck = ScratchBuffer<UInt32>()
  private var atNeckProducts = ScratchBuffer<Int32>()
  private var waiting = ScratchBuffer<UInt32>()
  private var numbers = ScratchBuffer<UInt32>()
  private var products = ScratchBuffer<Int32>()
  private var scores = ScratchBuffer<Float>()
  private var keys = ScratchBuffer<UInt64>()

  /// Of the last scan: blocks whose rows were read, and rows that passed each look.
  package struct Counts: Sendable {
    package var blocks = 0
    package var passedFirst = 0
    package var scored = 0
  }
  package private(set) var counts = Counts()
  private var bits = FilterBits()
  /// Of a block of which no more rows pass the filter, these are looked up; else its heads are read.
  private static let lookUpMax = 8

  package init() {}

  /// Offers every row of the slice that could be among the best and is not excluded; the others are known not to be.
  ///
  /// - Parameters:
  ///   - query: `slice.stride` finite floats, the padding zero.
  ///   - exclusions: at most so many of the slice's rows are in `excluded`.
  ///   - filter: nil = every row passes.
  ///   - reached: what a row needs in any case: rows below it need not be offered.
  /// - Returns: false when it was cancelled on the way; `best` is then meaningless.
  package mutating func run(
    _ slice: Slice, _ index: ScanIndex, query: UnsafePointer<Float>, excluded: borrowing ExclusionSet,
    exclusions: Int, filter: FilterProgram? = nil, reached elsewhere: Float = -.infinity, into best: inout BestRows,
    cancelled: some Interruption
  ) -> Bool {
    counts = Counts()
    let filter = filter.map { RowFilter(program: $0, columns: index.columns) }
    let bytes = cscoring_active().pointee.bytes.pointee
    let norm = RoundingBound.up(cscoring_square(query, slice.stride).squareRoot())
    let gamma = RoundingBound.gamma(stride: slice.stride)
    let underflow = RoundingBound.underflow(stride: slice.stride)
    let full = fullLook(slice, index, query, norm: norm)
    let (head, neck) = index.axes.map { headLooks(slice, index, $0, query, norm: norm) } ?? (nil, nil)
    // Of the sample's rows, as many as are wanted reach this, even when everything that is excluded is among them.
    var reached = Double(elsewhere)
    if head != nil, !best.isCapped {
      reached = max(reached, sample(index, full, filter, wanted: best.limit + exclusions))
    }

    let first = head ?? full
    let size = head == nil ? index.fullStride : index.headBytes
    let source = index.heads ?? index.full
    let picked = self.picked.room(for: ScanIndex.blockRows + Int(CSCORING_PICK_SPARE))
    let products = self.pickedProducts.room(for: ScanIndex.blockRows + Int(CSCORING_PICK_SPARE))
    let atNeck = self.atNeck.room(for: Self.room)
    let atNeckProducts = self.atNeckProducts.room(for: Self.room)
    let waiting = self.waiting.room(for: Self.room)
    var (atNeckCount, waitingCount) = (0, 0)
    for number in 0..<index.blockCount {
      if number % Self.blocksPerGlance == 0, cancelled.isCancelled { return false }
      let block = index.blocks + number
      let limit = max(reached, Double(best.threshold))
      // Norms only fall from here.
      if block.pointee.norm * norm * (1 + gamma + RoundingBound.slop) + underflow < limit { break }
      counts.blocks += 1
      let start = number * ScanIndex.blockRows
      let rows = min(ScanIndex.blockRows, index.count - start)
      var passing: UnsafePointer<UInt64>?
      if let filter {
        passing = bits.ask(filter, start, rows)
        if bits.passed == 0 { continue }
      }
      if let passing, bits.passed <= Self.lookUpMax {
        for word in 0..<(rows + 63) / 64 {
          var rest = passing[word]
          while rest != 0 {
            let position = start + 64 * word + rest.trailingZeroBitCount
            rest &= rest - 1
            waiting[waitingCount] = UInt32(position)
            waitingCount += 1
            prefetch(slice, index, position)
          }
        }
      } else {
        let least = first.least(limit, head == nil ? block.pointee.full : block.pointee.head, block.pointee.norm)
        var found = bytes.scan(
          source + start * size, size / 4, (rows + 15) / 16, first.bytes, least, UInt32(start), picked, products)
        // The last group may be filled up with rows that do not exist.
        while found > 0, Int(picked[found - 1]) >= index.count { found -= 1 }
        if let passing { found = Self.keep(picked, products, found, start, passing) }
        guard found > 0 else { continue }
        counts.passedFirst += found
        if let neck, let necks = index.necks {
          for place in 0..<found {
            atNeck[atNeckCount + place] = picked[place]
            atNeckProducts[atNeckCount + place] = products[place]
            cscoring_prefetch(necks + Int(picked[place]) * 16)
          }
          atNeckCount += found
          if atNeckCount >= Self.lot {
            lookAtNecks(index, neck, necks, limit: limit, atNeckCount, &waitingCount)
            atNeckCount = 0
          }
        } else {
          for place in 0..<found {
            waiting[waitingCount + place] = picked[place]
            prefetch(slice, index, Int(picked[place]))
          }
          waitingCount += found
        }
      }
      guard waitingCount >= Self.lot else { continue }
      if head != nil { lookFully(index, full, limit: limit, &waitingCount) }
      score(slice, index, query, waitingCount, excluded, into: &best)
      waitingCount = 0
    }
    let limit = max(reached, Double(best.threshold))
    if let neck, let necks = index.necks {
      lookAtNecks(index, neck, necks, limit: limit, atNeckCount, &waitingCount)
    }
    if head != nil { lookFully(index, full, limit: limit, &waitingCount) }
    score(slice, index, query, waitingCount, excluded, into: &best)
    return true
  }

  // MARK: The query's looks

  private mutating func fullLook(
    _ slice: Slice, _ index: ScanIndex, _ query: UnsafePointer<Float>, norm: Double
  ) -> Look {
    let size = max(64, index.fullStride)
    let bytes = fullBytes.room(for: size)
    let scale = RoundingBound.up(Double(cscoring_greatest(query, slice.dimension)) / 127)
    let rounded = Self.round(query, slice.dimension, rest: 0, scale, into: bytes, size: size)
    return Look(
      bytes: bytes, shift: rounded.shift, scale: scale, error: RoundingBound.up(rounded.error.squareRoot()), norm: norm,
      skew: RoundingBound.gamma(stride: slice.stride) * norm, rest: RoundingBound.underflow(stride: slice.stride))
  }

  /// The head's, and the neck's where there are necks; its products are the head's and its own together.
  private mutating func headLooks(
    _ slice: Slice, _ index: ScanIndex, _ axes: Axes, _ query: UnsafePointer<Float>, norm: Double
  ) -> (head: Look, neck: Look?) {
    let used = index.headBytes - 1
    let all = index.necks == nil ? used : ScanIndex.neckAxes
    let parts = self.parts.room(for: axes.count)
    axes.parts(of: query, into: parts)
    let rest = axes.rest(norm: norm, parts: parts, count: used)
    let scale = RoundingBound.up(max(Double(cscoring_greatest(parts, all)), rest) / 127)
    let bytes = headBytes.room(for: 64)
    let rounded = Self.round(parts, used, rest: rest, scale, into: bytes, size: 64)
    let gamma = RoundingBound.gamma(stride: slice.stride)
    // The parts' own rounding is off by `absolute` at most, which meets the other side's norm: a block's is in `skew`.
    let skew = (2 * axes.skew + 4 * axes.relative * (1 + axes.skew) + gamma) * norm + 2 * axes.absolute
    let tiny = RoundingBound.underflow(stride: slice.stride) + 2 * axes.absolute * (norm + 1)
    func look(_ bytes: UnsafePointer<Int8>, _ count: Int, error: Double, shift: Double) -> Look {
      Look(
        bytes: bytes, shift: shift, scale: scale, error: RoundingBound.up(error.squareRoot()),
        norm: RoundingBound.up(cscoring_square(parts, count).squareRoot()), skew: skew, rest: tiny)
    }
    let head = look(bytes, used, error: rounded.error, shift: rounded.shift)
    guard index.necks != nil else { return (head, nil) }
    let more = neckBytes.room(for: 16)
    let left = axes.rest(norm: norm, parts: parts, count: all)
    let roundedMore = Self.round(parts + used, all - used, rest: left, scale, into: more, size: 16)
    // Takes the head's last term away again.
    more[all - used + 1] = -bytes[used]
    let shift = rounded.shift + roundedMore.shift - 128 * Double(bytes[used])
    return (head, look(more, all, error: rounded.error + roundedMore.error, shift: shift))
  }

  /// Rounds `count` values, and after them `rest` (rounded up), to the signed side of the products.
  ///
  /// - Returns: Σ (value − rounded)², and what the bytes add to every product.
  private static func round(
    _ values: UnsafePointer<Float>, _ count: Int, rest: Double, _ scale: Double, into bytes: UnsafeMutablePointer<Int8>,
    size: Int
  ) -> (error: Double, shift: Double) {
    bytes.update(repeating: 0, count: size)
    guard scale > 0 else { return (0, 0) }
    var (error, sum) = (0.0, 0)
    for index in 0..<count {
      let rounded = (Double(values[index]) / scale).rounded(.toNearestOrEven)
      bytes[index] = Int8(max(-127, min(127, rounded)))
      let lost = Double(values[index]) - Double(bytes[index]) * scale
      error += lost * lost
      sum += Int(bytes[index])
    }
    if rest > 0 {
      bytes[count] = Int8(min(127, (rest / scale).rounded(.up)))
      sum += Int(bytes[count])
    }
    return (error, Double(128 * sum))
  }

  // MARK: Rows

  /// Asks for what is read next of a row that waits.
  @inline(__always)
  private func prefetch(_ slice: Slice, _ index: ScanIndex, _ position: Int) {
    if index.heads == nil {
      cscoring_prefetch(slice.vectors.baseAddress! + Int(index.rows[position]) * slice.stride)
    } else {
      cscoring_prefetch(index.full + position * index.fullStride)
    }
  }

  /// Of the rows that were picked, keeps those whose bit says that they pass the filter.
  private static func keep(
    _ picked: UnsafeMutablePointer<UInt32>, _ products: UnsafeMutablePointer<Int32>, _ found: Int, _ start: Int,
    _ passing: UnsafePointer<UInt64>
  ) -> Int {
    var kept = 0
    for place in 0..<found {
      let row = Int(picked[place]) - start
      picked[kept] = picked[place]
      products[kept] = products[place]
      kept += Int(passing[row / 64] >> UInt64(row % 64) & 1)
    }
    return kept
  }

  /// The greatest value that `wanted` of the rows with the greatest norms are known to reach; −∞ when they are too few.
  private mutating func sample(_ index: ScanIndex, _ look: Look, _ filter: RowFilter?, wanted: Int) -> Double {
    guard wanted <= Self.sampleRows / 2 else { return -.infinity }
    let size = min(Self.sampleRows, index.count)
    let numbers = self.numbers.room(for: size)
    var count = 0
    for position in 0..<size {
      if let filter, !filter.passes(position) { continue }
      numbers[count] = UInt32(position)
      count += 1
    }
    guard count >= wanted else { return -.infinity }
    let products = self.products.room(for: size)
    let keys = self.keys.room(for: size)
    cscoring_active().pointee.bytes.pointee.dot_gather(
      index.full, index.fullStride, numbers, count, look.bytes, products)
    var number = -1
    var (unit, slack) = (0.0, 0.0)
    for place in 0..<count {
      if Int(numbers[place]) / ScanIndex.blockRows != number {
        number = Int(numbers[place]) / ScanIndex.blockRows
        let block = index.blocks[number]
        (unit, slack) = (block.full.scale * look.scale, look.slack(block.full, block.norm))
      }
      let least = (Double(products[place]) - look.shift) * unit - slack
      keys[place] = RowKey(score: Float(least), rank: numbers[place]).bits
    }
    BestRows.select(keys, count: count, limit: wanted)
    // The key's score may have been rounded up.
    return Double(RowKey(bits: keys[wanted - 1]).score.nextDown)
  }

  /// Of the rows at the neck, passes those on whose heads and necks let them reach `limit`.
  private mutating func lookAtNecks(
    _ index: ScanIndex, _ look: Look, _ necks: UnsafePointer<UInt8>, limit: Double, _ count: Int,
    _ waitingCount: inout Int
  ) {
    let positions = atNeck.room(for: Self.room)
    let headProducts = atNeckProducts.room(for: Self.room)
    let products = self.products.room(for: Self.room)
    let waiting = self.waiting.room(for: Self.room)
    cscoring_active().pointee.bytes.pointee.dot_gather(necks, 16, positions, count, look.bytes, products)
    var number = -1
    var least = Int32.min
    for place in 0..<count {
      let position = Int(positions[place])
      if position / ScanIndex.blockRows != number {
        number = position / ScanIndex.blockRows
        least = look.least(limit, index.blocks[number].neck, index.blocks[number].norm)
      }
      guard headProducts[place] + products[place] >= least else { continue }
      cscoring_prefetch(index.full + position * index.fullStride)
      waiting[waitingCount] = positions[place]
      waitingCount += 1
    }
  }

  /// Of the rows that wait, keeps those whose whole bytes let them reach `limit`.
  private mutating func lookFully(_ index: ScanIndex, _ look: Look, limit: Double, _ count: inout Int) {
    let waiting = self.waiting.room(for: Self.room)
    let products = self.products.room(for: Self.room)
    cscoring_active().pointee.bytes.pointee.dot_gather(
      index.full, index.fullStride, waiting, count, look.bytes, products)
    var kept = 0
    var number = -1
    var least = Int32.min
    for place in 0..<count {
      let position = waiting[place]
      if Int(position) / ScanIndex.blockRows != number {
        number = Int(position) / ScanIndex.blockRows
        least = look.least(limit, index.blocks[number].full, index.blocks[number].norm)
      }
      guard products[place] >= least else { continue }
      waiting[kept] = position
      kept += 1
    }
    count = kept
  }

  /// Scores the rows that wait as a plain scan would, and offers them.
  private mutating func score(
    _ slice: Slice, _ index: ScanIndex, _ query: UnsafePointer<Float>, _ count: Int, _ excluded: borrowing ExclusionSet,
    into best: inout BestRows
  ) {
    guard count > 0, let vectors = slice.vectors.baseAddress else { return }
    counts.scored += count
    let waiting = self.waiting.room(for: Self.room)
    let numbers = self.numbers.room(for: Self.room)
    let scores = self.scores.room(for: Self.room)
    for place in 0..<count {
      numbers[place] = index.rows[Int(waiting[place])]
      let row = UnsafeRawPointer(vectors + Int(numbers[place]) * slice.stride)
      for line in stride(from: 0, to: slice.stride * 4, by: 64) { cscoring_prefetch(row + line) }
    }
    cscoring_active().pointee.dot_gather(vectors, slice.stride, numbers, count, query, scores)
    for place in 0..<count {
      let row = Int(numbers[place])
      let key = RowKey(score: scores[place], rank: slice.rank(ofRow: row))
      guard key.bits > best.floor, scores[place].isFinite else { continue }
      if excluded.contains(slice.ordinals[row]) { continue }
      best.offer(key)
    }
    best.tighten()
  }
}
