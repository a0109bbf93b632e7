import CScoring
import RankingCore
import Testing

@testable import Scoring

// A scan by an index gives what a plain scan of every row gives, bit for bit, whatever the rows are like.

private let scalarSide = cscoring_kernels_for(.scalar)!.pointee.bytes.pointee
private let byteSides = [cscoring_isa.avx2, .avx512, .neon].compactMap {
  cscoring_kernels_for($0)?.pointee.bytes.pointee
}

@Suite struct ByteKernelTests {
  private var generator = SeededGenerator(seed: 5)

  private mutating func bytes(_ count: Int, extreme: Bool) -> [UInt8] {
    (0..<count).map { _ in extreme ? (generator.next() & 1 == 0 ? 1 : 255) : UInt8(1 + generator.below(255)) }
  }
  private mutating func query(_ count: Int, extreme: Bool) -> [Int8] {
    (0..<count).map { _ in extreme ? (generator.next() & 1 == 0 ? -127 : 127) : Int8(generator.below(255) - 127) }
  }

  @Test(arguments: [1, 3, 4, 7, 8, 16, 17, 33, 128], [false, true])
  mutating func everyPathFindsTheSameRows(chunks: Int, extreme: Bool) {
    let groups = 9
    let rows = bytes(groups * chunks * 64, extreme: extreme)
    let query = query(4 * chunks, extreme: extreme)
    // The products themselves, by plain arithmetic.
    let products = (0..<groups * 16).map { (row: Int) -> Int in
      var sum = 0
      for place in 0..<4 * chunks {
        let chunk = row / 16 * chunks + place / 4
        sum += Int(rows[chunk * 64 + row % 16 * 4 + place % 4]) * Int(query[place])
      }
      return sum
    }
    func found(_ side: cscoring_bytes, least: Int32) -> [UInt32] {
      var picked = [UInt32](repeating: 0, count: groups * 16 + Int(CSCORING_PICK_SPARE))
      var found = [Int32](repeating: 0, count: picked.count)
      let count = side.scan(rows, chunks, groups, query, least, 1000, &picked, &found)
      for place in 0..<count { #expect(Int(found[place]) == products[Int(picked[place]) - 1000]) }
      return Array(picked[..<count])
    }
    #expect(found(scalarSide, least: .min) == (0..<UInt32(groups * 16)).map { 1000 + $0 })
    #expect(found(scalarSide, least: .max).isEmpty)
    for limit in products.prefix(20) {
      for shift in -1...1 {
        let least = Int32(limit + shift)
        let expected = products.indices.filter { products[$0] >= limit + shift }.map { UInt32(1000 + $0) }
        #expect(found(scalarSide, least: least) == expected)
        for side in byteSides { #expect(found(side, least: least) == expected) }
      }
    }
  }

  /// Each of several queries finds what it finds alone, also in the groups that are left over, and writes nothing else.
  @Test(arguments: [1, 4, 7, 16, 33], [1, 4, 9, 16])
  mutating func severalQueriesFindWhatEachFindsAlone(chunks: Int, groups: Int) {
    let rows = bytes(groups * chunks * 64, extreme: false)
    let size = Int(CSCORING_SCAN_QUERIES)
    let room = groups * 16 + Int(CSCORING_PICK_SPARE)
    let queries = (0..<size).map { _ in query(4 * chunks, extreme: false) }
    let least = [Int32.min, .max, 0, Int32(generator.below(20_000))]
    var alone: [[UInt32]] = []
    var products: [[Int32]] = []
    for turn in 0..<size {
      var picked = [UInt32](repeating: 0, count: room)
      var found = [Int32](repeating: 0, count: room)
      let count = scalarSide.scan(rows, chunks, groups, queries[turn], least[turn], 50, &picked, &found)
      alone.append(Array(picked[..<count]))
      products.append(Array(found[..<count]))
    }
    for side in [scalarSide] + byteSides {
      let bytes = UnsafeMutablePointer<Int8>.allocate(capacity: size * 4 * chunks)
      let picked = UnsafeMutablePointer<UInt32>.allocate(capacity: size * room + 1)
      let found = UnsafeMutablePointer<Int32>.allocate(capacity: size * room + 1)
      picked.initialize(repeating: 7, count: size * room + 1)
      found.initialize(repeating: 7, count: size * room + 1)
      for turn in 0..<size {
        (bytes + turn * 4 * chunks).initialize(from: queries[turn], count: 4 * chunks)
      }
      var counts = [Int](repeating: -1, count: size)
      side.scan_many(
        rows, chunks, groups, (0..<size).map { UnsafePointer(bytes + $0 * 4 * chunks) }, least, 50,
        (0..<size).map { picked + $0 * room }, (0..<size).map { found + $0 * room }, &counts)
      for turn in 0..<size {
        #expect(counts[turn] == alone[turn].count)
        #expect(Array(UnsafeBufferPointer(start: picked + turn * room, count: alone[turn].count)) == alone[turn])
        #expect(Array(UnsafeBufferPointer(start: found + turn * room, count: alone[turn].count)) == products[turn])
      }
      #expect(picked[size * room] == 7)
      #expect(found[size * room] == 7)
      bytes.deallocate()
      picked.deallocate()
      found.deallocate()
    }
  }

  @Test(arguments: [16, 64, 128, 192, 1024], [false, true])
  mutating func everyPathGivesTheSameProducts(stride: Int, extreme: Bool) {
    let rows = bytes(50 * stride, extreme: extreme)
    let query = query(stride, extreme: extreme)
    let numbers: [UInt32] = (0..<37).map { _ in UInt32(generator.below(50)) } + [0, 49, 49]
    let expected = numbers.map { (number: UInt32) -> Int32 in
      var sum: Int32 = 0
      for place in 0..<stride { sum += Int32(rows[Int(number) * stride + place]) * Int32(query[place]) }
      return sum
    }
    for side in [scalarSide] + byteSides {
      var products = [Int32](repeating: -1, count: numbers.count)
      side.dot_gather(rows, stride, numbers, numbers.count, query, &products)
      #expect(products == expected)
    }
  }
}

/// The filters' comparisons go by the path in use, which these change: one after the other.
@Suite(.serialized) struct FilterBitsTests {
  @Test(arguments: [cscoring_isa.scalar, .avx512])
  func everyPathFindsTheSameRows(isa: cscoring_isa) {
    let before = cscoring_active().pointee.isa
    guard cscoring_force_isa(isa) else { return }
    defer { _ = cscoring_force_isa(before) }
    var generator = SeededGenerator(seed: 5)
    for count in [1, 15, 16, 17, 63, 64, 65, 200, 256] {
      let values = (0..<count).map { _ -> Float in
        generator.below(8) == 0 ? [.nan, .infinity, -.infinity, -0.0][generator.below(4)] : Float(generator.below(9))
      }
      func bits(_ expected: (Float) -> Bool, _ fill: (UnsafeMutablePointer<UInt64>) -> Void) {
        var words = [UInt64](repeating: .max, count: (count + 63) / 64)
        fill(&words)
        for place in 0..<words.count * 64 {
          let isSet = words[place / 64] >> UInt64(place % 64) & 1 == 1
          #expect(isSet == (place < count && expected(values[place])), "\(place) of \(count)")
        }
      }
      for (low, high) in [(2, 5), (-Float.infinity, 3), (4, .infinity), (5, 2), (0, 0)] as [(Float, Float)] {
        bits({ $0 >= low && $0 <= high }) { cscoring_range_bits(values, count, low, high, $0) }
      }
      for wanted: [Float] in [[], [3], [0, 7, 100]] {
        bits({ wanted.contains($0) }) { cscoring_in_bits(values, count, wanted, wanted.count, $0) }
      }
    }
  }
}

/// Rows to be hard on an index, and queries for them.
enum Country: String, CaseIterable, Sendable {
  /// A few dimensions that matter, and norms that differ, as factors have.
  case structured
  /// All norms alike, all directions alike.
  case flat
  case ties, zeros, denormals, equalRows
  /// Norms over thirty orders of magnitude.
  case scales
  /// A single row towers over the others.
  case giant
  /// Fewer dimensions than axes.
  case lowRank
  case huge

  func rows(_ count: Int, _ dimension: Int, _ generator: inout SeededGenerator) -> [Float] {
    let base = (0..<3 * dimension).map { _ in Float(generator.unit() - 0.5) }
    var values: [Float] = []
    for row in 0..<count {
      let size = Float(1 + 20 / Double(1 + row % 97))
      for place in 0..<dimension {
        let unit = Float(generator.unit() - 0.5)
        switch self {
        case .structured: values.append(unit * size * (place < 8 ? 1 : 0.05))
        case .flat: values.append(unit < 0 ? -1 : 1)
        case .ties: values.append(Float(generator.below(2)))
        case .zeros: values.append(row % 3 == 0 ? unit : 0)
        case .denormals: values.append(Float(bitPattern: UInt32(truncatingIfNeeded: generator.next()) & 0x807F_FFFF))
        case .equalRows: values.append(base[place])
        case .scales: values.append(unit * Float(sign: .plus, exponent: 40 - row % 100, significand: 1))
        case .giant: values.append(row == count / 2 ? 1e15 * unit : unit)
        case .lowRank: values.append((0..<3).reduce(0) { $0 + base[$1 * dimension + place] * Float(row % (7 + $1)) })
        case .huge: values.append(unit * 1e17)
        }
      }
    }
    return values
  }
}

@Suite struct ScanIndexTests {
  private func slice(_ vectors: [Float], _ dimension: Int) -> Slice {
    let count = vectors.count / dimension
    return Slice.packed(
      release: Catalogue.release, shard: ShardID(0), shardCount: 1, dimension: dimension, vectors: vectors,
      ordinals: (0..<count).map { UInt64(3 * $0) }, ids: (0..<count).map { "i\($0)" })
  }

  /// The best `k` keys, by the index or by every row.
  private func best(
    _ slice: Slice, _ index: ScanIndex?, _ query: [Float], k: Int, excluding: [UInt64] = [],
    filter: FilterProgram? = nil
  ) -> [UInt64] {
    var padded = query + [Float](repeating: 0, count: slice.stride - query.count)
    var best = BestRows()
    best.begin(limit: k, of: slice.count)
    var excluded = ExclusionSet()
    excluded.begin(count: excluding.count)
    for ordinal in excluding { excluded.insert(ordinal) }
    if let index {
      var scan = IndexedScan()
      let done = scan.run(
        slice, index, query: &padded, excluded: excluded, exclusions: excluding.count, filter: filter,
        into: &best, cancelled: CancellationFlag())
      #expect(done)
    } else {
      var scores = [Float](repeating: 0, count: VectorScan.blockRowsMax)
      var picked = [UInt32](repeating: 0, count: VectorScan.blockRowsMax)
      let done = VectorScan.run(
        slice, query: &padded, excluded: excluded, into: &best, scores: &scores, picked: &picked,
        cancelled: CancellationFlag(), filter: filter)
      #expect(done)
    }
    return Array(best.sorted())
  }

  private static let plans: [ScanIndex.Plan] = [.full, .head(bytes: 16), .head(bytes: 32)]

  @Test(arguments: Country.allCases, [17, 64])
  func isThePlainScan(country: Country, dimension: Int) throws {
    var generator = SeededGenerator(seed: StableHash.xxh64("\(country) \(dimension)"))
    let count = ScanIndex.rowsMin + 301
    let vectors = country.rows(count, dimension, &generator)
    let slice = slice(vectors, dimension)
    var queries = (0..<3).map { _ in (0..<dimension).map { _ in Float(generator.unit() - 0.5) } }
    queries.append([Float](repeating: 0, count: dimension))
    queries.append((0..<dimension).map { $0 == 1 ? 1 : 0 })
    queries.append((0..<dimension).map { _ in Float(bitPattern: UInt32(generator.below(1 << 23))) })
    queries.append(Array(vectors[5 * dimension..<6 * dimension]))
    queries.append(queries[0].map { $0 * 1e17 })
    for plan in Self.plans {
      let index = try #require(ScanIndex.build(slice, plan: plan))
      for (number, query) in queries.enumerated() {
        for k in [1, 100, number % 2 == 0 ? 1500 : count] {
          let excluding = k == 100 ? (0..<200).map { _ in UInt64(3 * generator.below(count)) } : []
          let expected = best(slice, nil, query, k: k, excluding: excluding)
          let found = best(slice, index, query, k: k, excluding: excluding)
          let same = zip(found, expected).prefix { $0 == $1 }.count
          #expect(found.count == expected.count, "\(plan), query \(number), k \(k)")
          #expect(same == expected.count, "\(plan), query \(number), k \(k)")
        }
      }
    }
  }

  /// Filters that keep from nearly all rows to none, over columns with missing values: the index, and the filter first,
  /// give what a plain scan gives that asks every row.
  @Test(arguments: [Country.structured, .flat, .ties], [17, 64])
  func filtersAreThePlainScans(country: Country, dimension: Int) throws {
    var generator = SeededGenerator(seed: StableHash.xxh64("\(country) \(dimension)"))
    let count = 5000
    let prices = (0..<count).map { _ in generator.below(9) == 0 ? .nan : Float(generator.below(1000)) }
    let slice = Slice.packed(
      release: Catalogue.release, shard: ShardID(0), shardCount: 1, dimension: dimension,
      vectors: country.rows(count, dimension, &generator), ordinals: (0..<count).map { UInt64(3 * $0) },
      ids: (0..<count).map { "i\($0)" }, columns: [(Column(name: "price", kind: .number), prices)])
    let query = (0..<dimension).map { _ in Float(generator.unit() - 0.5) }
    let filters: [[FilterProgram.Step]] =
      [900, 500, 100, 60, 10, -1].map { [.range(column: 0, low: 0, high: $0)] }
      + [
        [.isIn(column: 0, [5, 700, 3])], [.range(column: 0, low: 0, high: 800), .not],
        [
          .range(column: 0, low: 0, high: 20), .range(column: 0, low: 990, high: 999), .any(2), .isIn(column: 0, [5]),
          .not, .all(2),
        ],
      ]
    for plan in Self.plans {
      let index = try #require(ScanIndex.build(slice, plan: plan))
      for (number, steps) in filters.enumerated() {
        let filter = FilterProgram(steps: steps)
        let excluding = (0..<50).map { _ in UInt64(3 * generator.below(count)) }
        let expected = best(slice, nil, query, k: 100, excluding: excluding, filter: filter)
        let allowed = (0..<count).filter { row in
          filter.passes { _ in prices[row] } && !excluding.contains(UInt64(3 * row))
        }
        #expect(expected.count == min(100, allowed.count))
        #expect(expected.allSatisfy { allowed.contains(Int(RowKey(bits: $0).rank)) })
        let found = best(slice, index, query, k: 100, excluding: excluding, filter: filter)
        let isPlain = found == expected
        #expect(isPlain, "\(plan), filter \(number)")
      }
    }
  }

  @Test func theBestMayAllBeExcluded() throws {
    var generator = SeededGenerator(seed: 3)
    let dimension = 64
    let slice = slice(Country.structured.rows(ScanIndex.rowsMin, dimension, &generator), dimension)
    let query = (0..<dimension).map { _ in Float(generator.unit() - 0.5) }
    for plan in Self.plans {
      let index = try #require(ScanIndex.build(slice, plan: plan))
      let first = best(slice, index, query, k: 300).map { 3 * UInt64(RowKey(bits: $0).rank) }
      let rest = best(slice, index, query, k: 100, excluding: first)
      let isPlain = rest == best(slice, nil, query, k: 100, excluding: first)
      #expect(isPlain)
      #expect(rest.count == 100)
    }
  }

  @Test func readsFewRowsWhereTheRowsAllowIt() throws {
    var generator = SeededGenerator(seed: 4)
    let dimension = 64
    let count = 20_000
    let slice = slice(Country.structured.rows(count, dimension, &generator), dimension)
    let index = try #require(slice.scanIndex)
    #expect(index.plan == .head(bytes: 16))
    var query = (0..<dimension).map { _ in Float(generator.unit() - 0.5) }
    var scan = IndexedScan()
    var best = BestRows()
    best.begin(limit: 10, of: count)
    #expect(
      scan.run(
        slice, index, query: &query, excluded: ExclusionSet(), exclusions: 0, into: &best,
        cancelled: CancellationFlag()))
    #expect(scan.counts.passedFirst < count / 10)
    #expect(scan.counts.scored < 100)
    #expect(scan.counts.scored >= 10)
  }

  @Test func flatRowsAreReadWhole() throws {
    var generator = SeededGenerator(seed: 4)
    let slice = slice(Country.flat.rows(4096, 64, &generator), 64)
    #expect(try #require(slice.scanIndex).plan == .full)
  }

  @Test func smallOrExcessiveSlicesHaveNone() {
    var generator = SeededGenerator(seed: 4)
    #expect(slice(Country.flat.rows(ScanIndex.rowsMin - 1, 16, &generator), 16).scanIndex == nil)
    var vectors = Country.flat.rows(ScanIndex.rowsMin, 16, &generator)
    vectors[77] = 1e19
    #expect(slice(vectors, 16).scanIndex == nil)
    vectors[77] = .nan
    #expect(slice(vectors, 16).scanIndex == nil)
  }

  @Test func keepsNoSliceOnceItHasEnded() throws {
    var generator = SeededGenerator(seed: 4)
    var scan = IndexedScan()
    for isCancelled in [false, true] {
      weak var gone: Slice?
      do {
        let slice = slice(Country.flat.rows(4096, 64, &generator), 64)
        gone = slice
        var query = [Float](repeating: 1, count: 64)
        var best = BestRows()
        best.begin(limit: 10, of: 4096)
        let flag = CancellationFlag()
        if isCancelled { flag.cancel() }
        let done = scan.run(
          slice, try #require(slice.scanIndex), query: &query, excluded: ExclusionSet(), exclusions: 0, into: &best,
          cancelled: flag)
        #expect(done == !isCancelled)
      }
      #expect(gone == nil)
    }
  }

  @Test func stopsWhenCancelled() throws {
    var generator = SeededGenerator(seed: 4)
    let slice = slice(Country.flat.rows(4096, 64, &generator), 64)
    var query = [Float](repeating: 1, count: 64)
    var scan = IndexedScan()
    var best = BestRows()
    best.begin(limit: 10, of: 4096)
    let flag = CancellationFlag()
    flag.cancel()
    #expect(
      !scan.run(
        slice, try #require(slice.scanIndex), query: &query, excluded: ExclusionSet(), exclusions: 0, into: &best,
        cancelled: flag))
  }
}
