import CScoring
import RankingCore
import Testing

// Every path gives the scalar path's bits, and the scalar path the documented order's.

/// The paths of this machine other than the scalar one.
private let paths = [cscoring_isa.avx2, .avx512, .neon].filter { cscoring_kernels_for($0) != nil }

/// What rows and queries may look like.
enum Terrain: String, CaseIterable, Sendable {
  case ordinary, ties, zeros, negativeZeros, denormals, huge, mixedScales

  func value(_ generator: inout SeededGenerator) -> Float {
    let bits = generator.next()
    let unit = Float(Int32(truncatingIfNeeded: bits)) * 0x1p-31
    switch self {
    case .ordinary: return unit
    case .ties: return bits & 1 == 0 ? 1 : -1
    case .zeros: return bits & 1 == 0 ? 0 : -0.0
    case .negativeZeros: return -0.0
    case .denormals: return Float(bitPattern: UInt32(truncatingIfNeeded: bits) & 0x807F_FFFF)
    case .huge: return bits & 1 == 0 ? 1e30 * unit : -1e30
    case .mixedScales: return unit * (bits >> 40 & 1 == 0 ? 1e18 : 1e-30)
    }
  }
}

/// The order of summation as the header states it, in plain Swift.
func referenceScore(_ row: ArraySlice<Float>, _ query: [Float]) -> Float {
  var acc = [Float](repeating: 0, count: 16)
  for (index, value) in row.enumerated() {
    acc[index % 16] = acc[index % 16].addingProduct(value, query[index])
  }
  for width in [8, 4, 2, 1] {
    for lane in 0..<width { acc[lane] = acc[lane] + acc[lane + width] }
  }
  return acc[0] + 0
}

/// Rows and a query, padded, on odd addresses on request.
struct KernelInput {
  let stride: Int
  let count: Int
  var rows: [Float]
  var query: [Float]

  init(dimension: Int, count: Int, terrain: Terrain, seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    stride = (dimension + 15) & ~15
    self.count = count
    rows = [Float](repeating: 0, count: count * stride)
    query = [Float](repeating: 0, count: stride)
    // Products of huge values stay finite, as the norms' bound guarantees for real input.
    let scale: Float = terrain == .huge ? 0x1p-70 : 1
    rows.withUnsafeMutableBufferPointer { rows in
      for row in 0..<count {
        for column in 0..<dimension { rows[row * stride + column] = terrain.value(&generator) }
      }
    }
    for column in 0..<dimension { query[column] = terrain.value(&generator) * scale }
  }

  func bits(_ isa: cscoring_isa) throws -> [UInt32] {
    let kernels = try #require(cscoring_kernels_for(isa)).pointee
    var scores = [Float](repeating: .nan, count: count)
    kernels.dot_rows(rows, stride, count, query, &scores)
    return scores.map(\.bitPattern)
  }

  func gathered(_ isa: cscoring_isa, _ numbers: [UInt32]) throws -> [UInt32] {
    let kernels = try #require(cscoring_kernels_for(isa)).pointee
    var scores = [Float](repeating: .nan, count: numbers.count)
    kernels.dot_gather(rows, stride, numbers, numbers.count, query, &scores)
    return scores.map(\.bitPattern)
  }
}

@Suite struct KernelTests {
  @Test func scalarFollowsTheDocumentedOrder() throws {
    for terrain in Terrain.allCases {
      for dimension in 1...130 {
        let input = KernelInput(dimension: dimension, count: 5, terrain: terrain, seed: UInt64(dimension))
        let expected = (0..<input.count).map { row in
          referenceScore(input.rows[row * input.stride..<(row + 1) * input.stride], input.query).bitPattern
        }
        #expect(try input.bits(.scalar) == expected, "\(terrain), dimension \(dimension)")
      }
    }
  }

  @Test(arguments: paths)
  func pathsAgreeOnEveryTerrainAndDimension(isa: cscoring_isa) throws {
    for terrain in Terrain.allCases {
      for dimension in 1...130 {
        // 29 rows: full groups of 8 and of 4, and a rest of either.
        let input = KernelInput(dimension: dimension, count: 29, terrain: terrain, seed: UInt64(dimension) << 8)
        let expected = try input.bits(.scalar)
        #expect(try input.bits(isa) == expected, "\(terrain), dimension \(dimension)")
        let numbers = (0..<23).map { UInt32($0 * 13 % 29) }
        #expect(try input.gathered(isa, numbers) == numbers.map { expected[Int($0)] }, "\(terrain), \(dimension)")
      }
    }
  }

  @Test(arguments: paths)
  func pathsAgreeOnAMillionRows(isa: cscoring_isa) throws {
    var generator = SeededGenerator(seed: 7)
    let stride = 32
    let count = 1_000_000
    // The top bits of a 64-bit draw as two floats in [−1, 1): quick enough without optimisation.
    var words = [UInt64](repeating: 0, count: count * stride / 2)
    words.withUnsafeMutableBufferPointer { words in
      for index in 0..<words.count { words[index] = generator.next() & 0xBFFF_FFFF_BFFF_FFFF }
    }
    let query = (0..<stride).map { _ in Terrain.ordinary.value(&generator) }
    let scalar = try #require(cscoring_kernels_for(.scalar)).pointee
    let tested = try #require(cscoring_kernels_for(isa)).pointee
    var expected = [Float](repeating: .nan, count: count)
    var scores = [Float](repeating: 0, count: count)
    words.withUnsafeBytes { bytes in
      let rows = bytes.assumingMemoryBound(to: Float.self).baseAddress.unsafelyUnwrapped
      scalar.dot_rows(rows, stride, count, query, &expected)
      tested.dot_rows(rows, stride, count, query, &scores)
    }
    let equal = expected.withUnsafeBytes { a in scores.withUnsafeBytes { b in a.elementsEqual(b) } }
    #expect(equal)
    #expect(!expected[0].isNaN)
  }

  @Test func scoresAreNeverNegativeZero() throws {
    // Every product is negative and too small for a subnormal: each lane ends as −0, and so would their sum.
    var input = KernelInput(dimension: 32, count: 19, terrain: .zeros, seed: 1)
    input.rows = input.rows.map { _ in 1e-30 }
    input.query = input.query.map { _ in -1e-30 }
    for isa in [cscoring_isa.scalar] + paths {
      #expect(try input.bits(isa).allSatisfy { $0 == 0 }, "\(isa.rawValue)")
      #expect(try input.gathered(isa, Array(0..<19)).allSatisfy { $0 == 0 }, "\(isa.rawValue)")
    }
  }

  @Test func selectPicksWhatReachesTheThreshold() {
    var generator = SeededGenerator(seed: 3)
    for count in [0, 1, 15, 16, 17, 1000] {
      let scores = (0..<count).map { _ -> Float in
        let draw = generator.below(10)
        return draw == 0 ? .nan : Float(draw)
      }
      for threshold: Float in [-.infinity, 3, 9, 10] {
        var picked = [UInt32](repeating: 0, count: count + 1)
        let found = cscoring_select(scores, count, threshold, &picked)
        #expect(picked[..<found].map(Int.init) == scores.indices.filter { scores[$0] >= threshold })
      }
    }
  }
}
