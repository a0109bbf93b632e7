import CScoring
import RankingCore

// The few directions along which the rows differ most: the leading principal axes of the slice's rows, found by
// orthogonal iteration on the second moments of a sample. They need not be exact, only orthonormal, and by how much
// they are not is measured and allowed for.

struct Axes {
  let count: Int
  let stride: Int
  /// count × stride.
  let values: [Float]
  /// ‖AAᵀ − I‖ at most: how far they are from orthonormal.
  let skew: Double
  /// |computed Ax − Ax| ≤ relative · ‖x‖ + absolute.
  let relative: Double
  let absolute: Double

  private static let sampleMax = 4096
  private static let rounds = 12

  /// - Parameters:
  ///   - rows: numbers of the rows to learn from, largest norms first.
  ///   - count: how many axes; at most the dimension.
  init(
    _ vectors: UnsafePointer<Float>, stride: Int, dimension: Int, rows: UnsafePointer<UInt32>, rowCount: Int,
    count: Int
  ) {
    self.count = count
    self.stride = stride
    let moments = Self.moments(vectors, stride: stride, dimension: dimension, rows: rows, rowCount: rowCount)
    var basis = [[Double]](repeating: [], count: count)
    var generator = SeededGenerator(seed: 1)
    for index in 0..<count { basis[index] = (0..<dimension).map { _ in generator.unit() - 0.5 } }
    for _ in 0..<Self.rounds {
      for index in 0..<count { basis[index] = Self.product(moments, basis[index]) }
      Self.orthonormalize(&basis, &generator)
    }
    var values = [Float](repeating: 0, count: count * stride)
    for (index, axis) in basis.enumerated() {
      for place in 0..<dimension { values[index * stride + place] = Float(axis[place]) }
    }
    self.values = values
    var skew = 0.0
    for a in 0..<count {
      for b in 0..<count {
        var sum = a == b ? -1.0 : 0
        for place in 0..<dimension {
          sum += Double(values[a * stride + place]) * Double(values[b * stride + place])
        }
        skew += sum * sum
      }
    }
    self.skew = RoundingBound.up(skew.squareRoot()) + RoundingBound.slop
    let root = Double(count).squareRoot()
    relative = RoundingBound.up(root * RoundingBound.gamma(stride: stride) * (1 + self.skew))
    absolute = root * RoundingBound.underflow(stride: stride)
  }

  /// Whether they are near enough to orthonormal for the bounds to mean something.
  var isSound: Bool { skew < 0.01 }

  /// A vector's parts along the axes: `count` floats.
  func parts(of vector: UnsafePointer<Float>, into parts: UnsafeMutablePointer<Float>) {
    values.withUnsafeBufferPointer {
      cscoring_active().pointee.dot_rows($0.baseAddress!, stride, count, vector, parts)
    }
  }

  /// At least the norm of what the axes leave of a vector of this norm whose parts were computed.
  func rest(norm: Double, parts: UnsafePointer<Float>, count: Int) -> Double {
    let kept = max(0, cscoring_square(parts, count).squareRoot() - relative * norm - absolute)
    let square = norm * norm * (1 + 2 * skew + RoundingBound.slop) - kept * kept
    return square > 0 ? RoundingBound.up(square.squareRoot()) : 0
  }

  private static func moments(
    _ vectors: UnsafePointer<Float>, stride: Int, dimension: Int, rows: UnsafePointer<UInt32>, rowCount: Int
  ) -> [[Double]] {
    // The rows that a query has to look at are those with large norms.
    let reach = max(1, rowCount / 2)
    let size = min(reach, sampleMax)
    var sample = [Float](repeating: 0, count: size * stride)
    var most: Float = 0
    for index in 0..<size {
      let row = Int(rows[index * reach / size])
      for place in 0..<stride { sample[index * stride + place] = vectors[row * stride + place] }
      most = max(most, cscoring_greatest(vectors + row * stride, stride))
    }
    // Norms up to 1e18 must not overflow when they are squared in float32.
    if most > 0 { for index in sample.indices { sample[index] /= most } }
    var gram = [Float](repeating: 0, count: stride * stride)
    cscoring_als_gramian(sample, size, stride, &gram)
    return (0..<dimension).map { row in (0..<dimension).map { Double(gram[row * stride + $0]) } }
  }

  private static func product(_ matrix: [[Double]], _ vector: [Double]) -> [Double] {
    matrix.map { dot($0, vector) }
  }
  private static func dot(_ a: [Double], _ b: [Double]) -> Double {
    var sum = 0.0
    for (a, b) in zip(a, b) { sum += a * b }
    return sum
  }

  /// Gram and Schmidt, twice, as once leaves errors where vectors were nearly parallel.
  private static func orthonormalize(_ basis: inout [[Double]], _ generator: inout SeededGenerator) {
    for index in basis.indices {
      var axis = basis[index]
      var attempts = 0
      while true {
        let before = norm(axis)
        for _ in 0..<2 {
          for other in basis[..<index] {
            let along = dot(axis, other)
            for place in axis.indices { axis[place] -= along * other[place] }
          }
        }
        let after = norm(axis)
        if after > 1e-10 * before, after > 0 {
          for place in axis.indices { axis[place] /= after }
          break
        }
        // The rows span fewer dimensions than there are axes: any direction that is new will do.
        attempts += 1
        guard attempts < 8 else { break }
        for place in axis.indices { axis[place] = generator.unit() - 0.5 }
      }
      basis[index] = axis
    }
  }
  private static func norm(_ vector: [Double]) -> Double { dot(vector, vector).squareRoot() }
}
