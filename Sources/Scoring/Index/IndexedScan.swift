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

/// One query's scan by an index, and its memory, kept by a compute thread.
///
/// `run` is a whole scan. Queries that are scanned together each have one of these and take turns block by block, so
/// that a block's bytes come from memory once: `begin`, `look(at:)` with every block in order until it says no, `end`.
package struct IndexedScan: ~Copyable {
  /// Rows that are rescored together.
  private static let lot = 64
  /// At most so many wait: a lot that is not quite full, and what one more block or lot brings.
  private static let room = 2 * lot + ScanIndex.blockRows
  private static let sampleRows = 2048
  /// Blocks between two looks at the flag: some 10 µs.
  package static let blocksPerGlance = 32

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
    mutating func add(_ other: Counts) {
      blocks += other.blocks
      passedFirst += other.passedFirst
      scored += other.scored
    }
  }
  package var counts: Counts {
    kept == nil ? lastCounts : course.pointee.counts
  }
  private var lastCounts = Counts()
  private var bits = FilterBits()
  /// Of a block of which no more rows pass the filter, these are looked up; else its heads are read.
  private static let lookUpMax = 8

  /// The scan that was begun; trivial, so that what another scan left in it needs no end.
  let course = UnsafeMutablePointer<ScanCourse>.allocate(capacity: 1)
  /// What the course points into; nil = no scan was begun, and the course is not initialised.
  private var kept: (slice: Slice, index: ScanIndex, filter: RowFilter?)?

  package init() {}
  deinit { course.deallocate() }

  /// Offers every row of the slice that could be among the best and is not excluded; the others are known not to be.
  ///
  /// - Parameters: as of `begin` and `look(at:)`.
  /// - Returns: false when it was cancelled on the way; `best` is then meaningless.
  package mutating func run(
    _ slice: Slice, _ index: ScanIndex, query: UnsafePointer<Float>, excluded: borrowing ExclusionSet,
    exclusions: Int, filter: FilterProgram? = nil, reached: Float = -.infinity, into best: inout BestRows,
    cancelled: some Interruption
  ) -> Bool {
    begin(slice, index, query: query, exclusions: exclusions, filter: filter, reached: reached, best: best)
    return go(excluded: excluded, into: &best, cancelled: cancelled)
  }

  /// The scan that was begun, to its end. False when it was cancelled on the way.
  package mutating func go(
    excluded: borrowing ExclusionSet, into best: inout BestRows, cancelled: some Interruption
  ) -> Bool {
    for number in 0..<(kept?.index.blockCount ?? 0) {
      if number % Self.blocksPerGlance == 0, cancelled.isCancelled {
        // A slice that is unloaded must not stay for a scan that will not go on.
        kept = nil
        return false
      }
      if !look(at: number, excluded: excluded, into: &best) { break }
    }
    end(excluded: excluded, into: &best)
    return true
  }

  /// - Parameters:
  ///   - query: `slice.stride` finite floats, the padding zero; they must stay until `end`.
  ///   - exclusions: at most so many of the slice's rows are excluded.
  ///   - filter: nil = every row passes.
  ///   - reached: what a row needs in any case: rows below it need not be offered.
  ///   - isSampled: `reached` comes from `sample` of this slice and others.
  ///   - best: what will be offered to, empty.
  package mutating func begin(
    _ slice: Slice, _ index: ScanIndex, query: UnsafePointer<Float>, exclusions: Int, filter: FilterProgram?,
    reached elsewhere: Float, isSampled: Bool = false, best: borrowing BestRows
  ) {
    let filter = filter.map { RowFilter(program: $0, columns: index.columns) }
    let norm = RoundingBound.up(cscoring_square(query, slice.stride).squareRoot())
    let full = fullLook(slice, index, query, norm: norm)
    let (head, neck) = index.axes.map { headLooks(slice, index, $0, query, norm: norm) } ?? (nil, nil)
    // Of the sample's rows, as many as are wanted reach this, even when everything that is excluded is among them.
    var reached = Double(elsewhere)
    if head != nil, !best.isCapped, !isSampled {
      let wanted = best.limit + exclusions
      let count = sample(index, full, filter, rows: Self.sampleRows)
      if let least = Self.reached(by: wanted, of: keys.room(for: max(1, count)), count) {
        reached = max(reached, least)
      }
    }
    kept = (slice, index, filter)
    course.initialize(
      to: ScanCourse(
        slice, index, query: query, full: full, head: head, neck: neck, norm: norm, reached: reached,
        isFiltered: filter != nil, picked: picked.room(for: ScanIndex.blockRows + Int(CSCORING_PICK_SPARE)),
        products: pickedProducts.room(for: ScanIndex.blockRows + Int(CSCORING_PICK_SPARE))))
  }

  /// Looks at a block's rows; the blocks must come in order.
  ///
  /// - Returns: false when no row of it or of a later one can be among the best.
  package mutating func look(at number: Int, excluded: borrowing ExclusionSet, into best: inout BestRows) -> Bool {
    switch ask(about: number) {
    case .done: return false
    case .noScan: take(0, of: number, excluded, into: &best)
    case .scan(let least):
      let course = course.pointee
      let found = cscoring_active().pointee.bytes.pointee.scan(
        course.source(of: number), course.size / 4, course.groups(of: number), course.first.bytes, least,
        UInt32(number * ScanIndex.blockRows), course.picked, course.products)
      take(found, of: number, excluded, into: &best)
    }
    return true
  }

  /// What is to be done with a block.
  enum Question {
    /// No row of it or of a later one can be among the best.
    case done
    /// Its rows wait already, or none passes the filter.
    case noScan
    /// Its first look, for products of at least so much.
    case scan(least: Int32)
  }

  /// The first half of `look(at:)`. `take` must follow, unless it is `done`.
  mutating func ask(about number: Int) -> Question {
    guard kept != nil, let least = course.pointee.least(of: number) else { return .done }
    guard course.pointee.isFiltered, let filter = kept?.filter else { return .scan(least: least) }
    let start = number * ScanIndex.blockRows
    let passing = bits.ask(filter, start, min(ScanIndex.blockRows, course.pointee.count - start))
    if bits.passed == 0 { return .noScan }
    guard bits.passed <= Self.lookUpMax else { return .scan(least: least) }
    let waiting = self.waiting.room(for: Self.room)
    for word in 0..<ScanIndex.blockRows / 64 {
      var rest = passing[word]
      while rest != 0 {
        let position = start + 64 * word + rest.trailingZeroBitCount
        rest &= rest - 1
        waiting[course.pointee.waiting] = UInt32(position)
        course.pointee.waiting += 1
        course.pointee.prefetch(position)
      }
    }
    return .noScan
  }

  /// The second half: takes the rows that were picked, which wait for their next look.
  mutating func take(
    _ found: Int, of number: Int, _ excluded: borrowing ExclusionSet, into best: inout BestRows
  ) {
    let course = self.course
    if found > 0 {
      let (picked, products) = (course.pointee.picked, course.pointee.products)
      var found = found
      // The last group may be filled up with rows that do not exist.
      while found > 0, Int(picked[found - 1]) >= course.pointee.count { found -= 1 }
      if course.pointee.isFiltered {
        found = Self.keep(picked, products, found, number * ScanIndex.blockRows, bits.last)
      }
      course.pointee.counts.passedFirst += found
      if course.pointee.neck != nil, let necks = course.pointee.necks {
        let atNeck = self.atNeck.room(for: Self.room) + course.pointee.atNeck
        let atNeckProducts = self.atNeckProducts.room(for: Self.room) + course.pointee.atNeck
        for place in 0..<found {
          atNeck[place] = picked[place]
          atNeckProducts[place] = products[place]
          cscoring_prefetch(necks + Int(picked[place]) * 16)
        }
        course.pointee.atNeck += found
        if course.pointee.atNeck >= Self.lot { lookAtNecks() }
      } else {
        let waiting = self.waiting.room(for: Self.room) + course.pointee.waiting
        for place in 0..<found {
          waiting[place] = picked[place]
          course.pointee.prefetch(Int(picked[place]))
        }
        course.pointee.waiting += found
      }
    }
    guard course.pointee.waiting >= Self.lot else { return }
    if course.pointee.isByHead { lookFully() }
    score(excluded, into: &best)
  }

  /// Looks at the rows that still wait.
  package mutating func end(excluded: borrowing ExclusionSet, into best: inout BestRows) {
    guard kept != nil else { return }
    if course.pointee.neck != nil { lookAtNecks() }
    if course.pointee.isByHead { lookFully() }
    score(excluded, into: &best)
    lastCounts = course.pointee.counts
    kept = nil
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

  /// The greatest value that `wanted` of some rows are known to reach; nil when they are too few to tell.
  ///
  /// - Parameter keys: what each of the rows is known to reach, in any order, and put in another.
  private static func reached(by wanted: Int, of keys: UnsafeMutablePointer<UInt64>, _ count: Int) -> Double? {
    guard wanted <= sampleRows / 2, wanted <= count else { return nil }
    BestRows.select(keys, count: count, limit: wanted)
    // The key's score may have been rounded up.
    return Double(RowKey(bits: keys[wanted - 1]).score.nextDown)
  }

  /// Puts into `keys` what each of the rows with the greatest norms is known to reach, of those that pass the filter.
  ///
  /// - Returns: how many there are.
  private mutating func sample(
    _ index: ScanIndex, _ look: Look, _ filter: RowFilter?, rows: Int, after before: Int = 0
  ) -> Int {
    let size = min(rows, index.count)
    let numbers = self.numbers.room(for: max(Self.room, size))
    var count = 0
    for position in 0..<size {
      if let filter, !filter.passes(position) { continue }
      numbers[count] = UInt32(position)
      count += 1
    }
    let products = self.products.room(for: max(Self.room, size))
    let keys = self.keys.room(for: max(Self.sampleRows, size)) + before
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
    return count
  }

  /// What `wanted` rows of some slices together are known to reach, from a sample of each: the rows that are wanted of
  /// all of them need it in any case. −∞ when it cannot be told.
  package mutating func sample(
    _ slices: [Slice], query: UnsafePointer<Float>, filter: FilterProgram?, wanted: Int
  ) -> Float {
    let rows = Self.sampleRows / max(1, slices.count)
    var count = 0
    for slice in slices {
      guard let index = slice.scanIndex, index.heads != nil else { continue }
      let norm = RoundingBound.up(cscoring_square(query, slice.stride).squareRoot())
      let look = fullLook(slice, index, query, norm: norm)
      let filter = filter.map { RowFilter(program: $0, columns: index.columns) }
      count += sample(index, look, filter, rows: rows, after: count)
    }
    let least = Self.reached(by: wanted, of: keys.room(for: max(1, count)), count) ?? -.infinity
    // Rounded down.
    return Double(Float(least)) > least ? Float(least).nextDown : Float(least)
  }

  /// Of the rows at the neck, passes those on whose heads and necks let them reach the limit.
  private mutating func lookAtNecks() {
    let course = self.course.pointee
    guard let look = course.neck, let necks = course.necks else { return }
    let positions = atNeck.room(for: Self.room)
    let headProducts = atNeckProducts.room(for: Self.room)
    let products = self.products.room(for: Self.room)
    let waiting = self.waiting.room(for: Self.room)
    cscoring_active().pointee.bytes.pointee.dot_gather(necks, 16, positions, course.atNeck, look.bytes, products)
    var number = -1
    var least = Int32.min
    var waitingCount = course.waiting
    for place in 0..<course.atNeck {
      let position = Int(positions[place])
      if position / ScanIndex.blockRows != number {
        number = position / ScanIndex.blockRows
        least = look.least(course.limit, course.blocks[number].neck, course.blocks[number].norm)
      }
      guard headProducts[place] + products[place] >= least else { continue }
      cscoring_prefetch(course.full + position * course.fullStride)
      waiting[waitingCount] = positions[place]
      waitingCount += 1
    }
    self.course.pointee.atNeck = 0
    self.course.pointee.waiting = waitingCount
  }

  /// Of the rows that wait, keeps those whose whole bytes let them reach the limit.
  private mutating func lookFully() {
    let course = self.course.pointee
    let waiting = self.waiting.room(for: Self.room)
    let products = self.products.room(for: Self.room)
    cscoring_active().pointee.bytes.pointee.dot_gather(
      course.full, course.fullStride, waiting, course.waiting, course.whole.bytes, products)
    var kept = 0
    var number = -1
    var least = Int32.min
    for place in 0..<course.waiting {
      let position = waiting[place]
      if Int(position) / ScanIndex.blockRows != number {
        number = Int(position) / ScanIndex.blockRows
        least = course.whole.least(course.limit, course.blocks[number].full, course.blocks[number].norm)
      }
      guard products[place] >= least else { continue }
      waiting[kept] = position
      kept += 1
    }
    self.course.pointee.waiting = kept
  }

  /// Scores the rows that wait as a plain scan would, and offers them.
  private mutating func score(_ excluded: borrowing ExclusionSet, into best: inout BestRows) {
    let course = self.course.pointee
    guard course.waiting > 0 else { return }
    let count = course.waiting
    self.course.pointee.counts.scored += count
    let waiting = self.waiting.room(for: Self.room)
    let numbers = self.numbers.room(for: Self.room)
    let scores = self.scores.room(for: Self.room)
    for place in 0..<count {
      numbers[place] = course.rows[Int(waiting[place])]
      let row = UnsafeRawPointer(course.vectors + Int(numbers[place]) * course.stride)
      for line in stride(from: 0, to: course.stride * 4, by: 64) { cscoring_prefetch(row + line) }
    }
    cscoring_active().pointee.dot_gather(course.vectors, course.stride, numbers, count, course.query, scores)
    for place in 0..<count {
      let row = Int(numbers[place])
      let key = RowKey(score: scores[place], rank: Slice.rank(ofRow: row))
      guard key.bits > best.floor, scores[place].isFinite else { continue }
      if excluded.contains(course.ordinals[row]) { continue }
      best.offer(key)
    }
    best.tighten()
    self.course.pointee.waiting = 0
    self.course.pointee.limit = max(course.reached, Double(best.threshold))
  }
}
