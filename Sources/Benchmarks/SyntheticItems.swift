import Glibc
import RankingCore
import Scoring

// Catalogues to measure on, from a seed.
//
//   structured   as a matrix factorisation leaves them: clusters of taste around centres with a falling spectrum,
//                popular items with longer vectors and a direction that they share; queries mix a few centres
//   flat         the worst for every shortcut: all norms equal, all directions alike
//
// The recipe of `structured`: item = norm · unit(centre + 0.75 noise) + 0.45 popularity · shared, norm = (0.35 + 1.3
// popularity) · e^(0.25 noise), popularity = log(1 + 10⁶ / (1 + rank)), scaled to 1; clusters of sizes
// ~ 1 / (i + 10)^0.8; spectrum ~ 1 / √(1 + dimension); and a random rotation hides the axes.

public struct Vectors: Sendable {
  public var dimension: Int
  /// count × dimension.
  public var values: [Float]
  public var count: Int { values.count / max(1, dimension) }
  public init(dimension: Int, values: [Float]) {
    self.dimension = dimension
    self.values = values
  }
}

public struct SyntheticItems: Sendable {
  public var items: Vectors
  public var queries: Vectors

  public enum Kind: String, Sendable, CaseIterable { case structured, flat }

  public static func make(_ kind: Kind, items: Int, queries: Int, dimension: Int, seed: UInt64 = 7) -> SyntheticItems {
    var source = Normals(seed: seed)
    switch kind {
    case .flat:
      return SyntheticItems(
        items: Vectors(dimension: dimension, values: source.directions(items, dimension)),
        queries: Vectors(dimension: dimension, values: source.directions(queries, dimension)))
    case .structured:
      let world = World(dimension: dimension, source: &source)
      return SyntheticItems(
        items: Vectors(dimension: dimension, values: world.items(items, &source)),
        queries: Vectors(dimension: dimension, values: world.queries(queries, &source)))
    }
  }
}

/// Numbers with mean 0 and variance 1 (Box and Muller).
private struct Normals {
  var generator: SeededGenerator
  private var spare: Double?
  init(seed: UInt64) { generator = SeededGenerator(seed: seed) }

  mutating func next() -> Double {
    if let spare {
      self.spare = nil
      return spare
    }
    let radius = (-2 * log(1 - generator.unit())).squareRoot()
    let angle = 2 * Double.pi * generator.unit()
    spare = radius * sin(angle)
    return radius * cos(angle)
  }

  /// Vectors of norm 1 in all directions alike.
  mutating func directions(_ count: Int, _ dimension: Int) -> [Float] {
    var values: [Float] = []
    values.reserveCapacity(count * dimension)
    for _ in 0..<count {
      let vector = (0..<dimension).map { _ in next() }
      let norm = Self.norm(vector)
      for value in vector { values.append(Float(value / norm)) }
    }
    return values
  }
  static func norm(_ vector: [Double]) -> Double { max(1e-300, dot(vector, vector).squareRoot()) }
  static func dot(_ a: [Double], _ b: [Double]) -> Double {
    var sum = 0.0
    for place in a.indices { sum += a[place] * b[place] }
    return sum
  }
}

private struct World {
  private static let clusters = 2000
  let dimension: Int
  let spectrum: [Double]
  let shared: [Double]
  let centres: [[Double]]
  /// Sums of the clusters' shares, ascending to 1.
  let shares: [Double]
  /// dimension × dimension, orthonormal.
  let rotation: [[Double]]

  init(dimension: Int, source: inout Normals) {
    self.dimension = dimension
    let raw = (0..<dimension).map { 1 / Double(1 + $0).squareRoot() }
    let scale = Double(dimension).squareRoot() / Normals.norm(raw)
    let spectrum = raw.map { $0 * scale }
    self.spectrum = spectrum
    let direction = spectrum.map { $0 * source.next() }
    let norm = Normals.norm(direction)
    shared = direction.map { $0 / norm }
    centres = (0..<Self.clusters).map { _ in spectrum.map { $0 * source.next() } }
    let weights = (0..<Self.clusters).map { pow(Double($0) + 10, -0.8) }
    let total = weights.reduce(0, +)
    var sum = 0.0
    shares = weights.map {
      sum += $0 / total
      return sum
    }
    var basis: [[Double]] = []
    for _ in 0..<dimension {
      var axis = (0..<dimension).map { _ in source.next() }
      for _ in 0..<2 {
        for other in basis {
          let along = Normals.dot(axis, other)
          for place in axis.indices { axis[place] -= along * other[place] }
        }
      }
      let norm = Normals.norm(axis)
      basis.append(axis.map { $0 / norm })
    }
    rotation = basis
  }

  private func cluster(_ source: inout Normals) -> Int {
    let wanted = source.generator.unit()
    var (low, high) = (0, shares.count - 1)
    while low < high {
      let middle = (low + high) / 2
      if shares[middle] < wanted { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// Rotates and appends.
  private func append(_ vector: [Double], to values: inout [Float]) {
    for axis in rotation { values.append(Float(Normals.dot(axis, vector))) }
  }

  func items(_ count: Int, _ source: inout Normals) -> [Float] {
    var ranks = Array(0..<count)
    ranks.shuffle(using: &source.generator)
    let most = log1p(1e6)
    var values: [Float] = []
    values.reserveCapacity(count * dimension)
    for item in 0..<count {
      let centre = centres[cluster(&source)]
      var vector = (0..<dimension).map { centre[$0] + 0.75 * source.next() * spectrum[$0] }
      let popularity = log1p(1e6 / Double(1 + ranks[item])) / most
      let norm = (0.35 + 1.3 * popularity) * exp(0.25 * source.next()) / Normals.norm(vector)
      for place in vector.indices { vector[place] = vector[place] * norm + 0.45 * popularity * shared[place] }
      append(vector, to: &values)
    }
    return values
  }

  func queries(_ count: Int, _ source: inout Normals) -> [Float] {
    var values: [Float] = []
    for _ in 0..<count {
      let mixed = 1 + source.generator.below(4)
      // Shares of a mixture, all alike likely: exponentials over their sum.
      let weights = (0..<mixed).map { _ in -log(1 - source.generator.unit()) }
      let total = weights.reduce(0, +)
      var vector = [Double](repeating: 0, count: dimension)
      for weight in weights {
        let centre = centres[cluster(&source)]
        for place in vector.indices { vector[place] += weight / total * centre[place] }
      }
      for place in vector.indices { vector[place] += 0.5 * source.next() * spectrum[place] }
      let norm = Normals.norm(vector)
      let length = exp(0.2 * source.next())
      for place in vector.indices { vector[place] = (vector[place] / norm + 0.25 * shared[place]) * length }
      append(vector, to: &values)
    }
    return values
  }
}
