// A list that does not repeat itself: maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).
//
//     {"mmr": {"lambda": 0.7, "pool": 100}}
//
// Of the `pool` best items the next one taken is, until there are k, the one with the largest
//
//     lambda · relevance − (1 − lambda) · the largest cosine with an item already taken (0 for the first)
//
// where relevance is the score, shifted and scaled to 0…1 over the pool (1 where all scores are the same). Of equals
// the one that stands higher in the list is taken. All is in float64: a product of two of the vectors' numbers is
// exact, and they are added in 8 lanes, i mod 8, and a tree of halves.

public struct MarginalRelevance: Sendable, Equatable {
  /// 1 = the scores alone decide.
  public var lambda: Double
  /// How many items there are to choose from.
  public var pool: Int
  public init(lambda: Double, pool: Int = poolDefault) {
    self.lambda = lambda
    self.pool = pool
  }
  public static let poolDefault = 100
  public static let poolRange = 1...500
  /// Multiplications that one answer may cost: some 10 ms of a coordinator's loop.
  public static let workMax = 1 << 24

  /// - Throws: `.invalidArgument` when an answer would cost too much; says what.
  public func check(k: Int, dimension: Int) throws(RankingError) {
    let pool = max(pool, k)
    guard pool * k * dimension <= Self.workMax else {
      throw RankingError(
        .invalidArgument,
        "\"mmr\" takes pool × k × dimension = \(pool) × \(k) × \(dimension) multiplications; allowed: \(Self.workMax)")
    }
  }

  static let lanes = 8

  /// Which items to take, in order: places in the list.
  ///
  /// - Parameters:
  ///   - scores: finite, best first.
  ///   - dimension: of the vectors.
  ///   - vector: an item's vector, of `dimension` numbers.
  public func order(
    scores: [Float], k: Int, dimension: Int, vector: (Int) -> ArraySlice<Float>
  ) -> [Int] {
    let count = scores.count
    guard count > 0, k > 0 else { return [] }
    let stride = (dimension + Self.lanes - 1) / Self.lanes * Self.lanes
    var numbers = [Double](repeating: 0, count: count * stride)
    for item in 0..<count {
      for (place, value) in vector(item).enumerated() { numbers[item * stride + place] = Double(value) }
    }
    let (high, low) = (Double(scores[0]), Double(scores[count - 1]))
    let relevance = scores.map { high > low ? (Double($0) - low) / (high - low) : 1 }
    var likeness = [Double](repeating: 0, count: count)
    var isTaken = [Bool](repeating: false, count: count)
    var order: [Int] = []
    order.reserveCapacity(min(k, count))
    numbers.withUnsafeBufferPointer { numbers in
      let norms = (0..<count).map { Self.dot(numbers, $0 * stride, $0 * stride, stride).squareRoot() }
      while order.count < min(k, count) {
        var best = -1
        var bestGain = -Double.infinity
        for item in 0..<count where !isTaken[item] {
          let gain = lambda * relevance[item] - (1 - lambda) * likeness[item]
          if gain > bestGain { (best, bestGain) = (item, gain) }
        }
        isTaken[best] = true
        order.append(best)
        guard lambda < 1, norms[best] > 0 else { continue }
        for item in 0..<count where !isTaken[item] && norms[item] > 0 {
          let cosine = Self.dot(numbers, item * stride, best * stride, stride) / (norms[item] * norms[best])
          if order.count == 1 || cosine > likeness[item] { likeness[item] = cosine }
        }
      }
    }
    return order
  }

  private static func dot(_ numbers: UnsafeBufferPointer<Double>, _ a: Int, _ b: Int, _ count: Int) -> Double {
    guard let base = numbers.baseAddress else { return 0 }
    let (x, y) = (UnsafeRawPointer(base + a), UnsafeRawPointer(base + b))
    var sums = SIMD8<Double>.zero
    for place in Swift.stride(from: 0, to: count * 8, by: 64) {
      sums +=
        x.loadUnaligned(fromByteOffset: place, as: SIMD8<Double>.self)
        * y.loadUnaligned(fromByteOffset: place, as: SIMD8<Double>.self)
    }
    let four = sums.lowHalf + sums.highHalf
    let two = four.lowHalf + four.highHalf
    return two[0] + two[1]
  }
}
