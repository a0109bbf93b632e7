import CScoring
import RankingCore

/// The features of candidates that come from the request's recent items (see `RecentFeature`).
struct RecentSimilarity: ~Copyable {
  private var recent = ScratchBuffer<Float>()
  private var dots = ScratchBuffer<Float>()
  private var norms = ScratchBuffer<Double>()
  private var sums = ScratchBuffer<Double>()
  private var counts = ScratchBuffer<Int>()

  /// - Parameter features: out: `RecentFeature.width` columns of `count` values each.
  mutating func fill(
    count: Int, rows: UnsafePointer<UInt32>, slice: Slice, query: ScoreQuery, features: UnsafeMutablePointer<Float>
  ) {
    let dimension = slice.dimension
    let items = query.recent.count / max(1, dimension)
    let last = features + RecentFeature.lastSimilarity.rawValue * count
    let most = features + RecentFeature.maxSimilarity.rawValue * count
    let mean = features + RecentFeature.meanSimilarity.rawValue * count
    (features + RecentFeature.count.rawValue * count).update(repeating: Float(items), count: count)
    last.update(repeating: .nan, count: 3 * count)
    guard items > 0, count > 0, let vectors = slice.vectors.baseAddress else { return }

    let kernel = cscoring_active().pointee
    let stride = slice.stride
    let recent = self.recent.room(for: items * stride)
    recent.update(repeating: 0, count: items * stride)
    for item in 0..<items {
      for place in 0..<dimension { recent[item * stride + place] = query.recent[item * dimension + place] }
    }
    let dots = self.dots.room(for: count)
    let norms = self.norms.room(for: count)
    for index in 0..<count {
      var square = Float(0)
      kernel.dot_gather(vectors, stride, rows + index, 1, vectors + Int(rows[index]) * stride, &square)
      norms[index] = Double(square).squareRoot()
    }
    let (sums, counts) = (self.sums.room(for: count), self.counts.room(for: count))
    sums.update(repeating: 0, count: count)
    counts.update(repeating: 0, count: count)
    for item in 0..<items {
      let vector = recent + item * stride
      var (first, square) = (UInt32(0), Float(0))
      kernel.dot_gather(vector, stride, &first, 1, vector, &square)
      let norm = Double(square).squareRoot()
      guard norm > 0 else { continue }
      kernel.dot_gather(vectors, stride, rows, count, vector, dots)
      for index in 0..<count where norms[index] > 0 {
        let cosine = Float(Double(dots[index]) / (norms[index] * norm))
        if item == items - 1 { last[index] = cosine }
        if !(most[index] >= cosine) { most[index] = cosine }
        sums[index] += Double(cosine)
        counts[index] += 1
      }
    }
    for index in 0..<count where counts[index] > 0 { mean[index] = Float(sums[index] / Double(counts[index])) }
  }
}
