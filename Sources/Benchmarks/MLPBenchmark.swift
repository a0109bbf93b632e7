import CScoring
import Glibc
import RankingCore
import Scoring

/// What a network costs per row, beside its own definition and beside what the machine's multiply-adds alone would
/// take, on one core.
public struct MLPBenchmark {
  public struct Report: Codable, Sendable {
    public struct Batch: Codable, Sendable {
      public var rows: Int
      public var ns_per_row: Double
      /// The limit's time over this one's.
      public var percent_of_limit: Double
    }
    public var inputs: Int
    public var products_per_row: Int
    /// What multiply-adds on registers reach, nothing read or written, between the batches of this run: the most.
    public var limit_gflops: Double
    /// The row's products at that speed.
    public var limit_ns_per_row: Double
    public var batches: [Batch]
    /// `MLPNetwork.score`, row by row.
    public var plain_ns_per_row: Double
    /// Rows whose score differs from the definition's.
    public var different: Int
    /// Where expected scores were given: the greatest |score − expected| / max(1, |expected|).
    public var error_max: Double?
  }

  public var network: MLPNetwork
  /// rows × inputs.
  public var rows: Vectors
  public var expected: [Double]?

  public init(network: MLPNetwork, rows: Vectors, expected: [Double]? = nil) {
    self.network = network
    self.rows = rows
    self.expected = expected
  }

  /// Dense layers with relu between them, weights of the scale that keeps values' scale, and rows for them.
  public static func made(widths: [Int], rows: Int, seed: UInt64 = 7) throws -> MLPBenchmark {
    var generator = SeededGenerator(seed: seed)
    var layers: [MLPNetwork.Layer] = []
    for (inputs, outputs) in zip(widths, widths.dropFirst()) {
      let scale = (6 / Double(inputs)).squareRoot()
      if !layers.isEmpty { layers.append(.activation(.relu)) }
      layers.append(
        .dense(
          weights: (0..<inputs * outputs).map { _ in Float((generator.unit() * 2 - 1) * scale) },
          biases: (0..<outputs).map { _ in Float(generator.unit() * 0.2 - 0.1) }))
    }
    return MLPBenchmark(
      network: try MLPNetwork(inputs: (0..<widths[0]).map { MLPNetwork.Input("f\($0)") }, layers: layers),
      rows: Vectors(
        dimension: widths[0],
        values: (0..<rows * widths[0]).map { _ in
          generator.below(20) == 0 ? .nan : Float(generator.unit() * 4 - 2)
        }))
  }

  /// - Throws: when the rows do not fit the network.
  public func run(_ progress: (String) -> Void) throws -> Report {
    let width = network.inputs.count
    guard rows.dimension == width, rows.count > 0 else {
      throw RankerError("rows of \(rows.dimension) numbers, the network has \(width) inputs")
    }
    let ranker = try MLPRanker(
      network, sources: Array(repeating: MLPRanker.Source(.retrievalScore), count: width), itemColumns: 0,
      userColumns: 0, contextColumns: 0)
    var memory = MLPMemory()
    let count = rows.count
    var scores = [Float](repeating: 0, count: count)
    func score(from start: Int, _ size: Int) {
      rows.values.withUnsafeBufferPointer { rows in
        ranker.score(count: size, memory: &memory, scores: &scores) { input, offset, size, values in
          for row in 0..<size { values[row] = rows[(start + offset + row) * width + input] }
        }
      }
    }
    progress("comparing \(count) rows with the definition")
    score(from: 0, count)
    var different = 0
    let plain = Benchmark.seconds {
      for row in 0..<count {
        let wanted = network.score(Array(rows.values[row * width..<(row + 1) * width])) ?? .nan
        if wanted.bitPattern != scores[row].bitPattern, !(wanted.isNaN && !scores[row].isFinite) { different += 1 }
      }
    }
    var limit = 0.0
    var times: [(rows: Int, time: Double)] = []
    let least = max(50, 2_000_000_000 / max(1, network.products) / 250)
    for size in [1, 10, 100, 1000] where size <= count {
      progress("timing \(size) rows at a time")
      var some: [Double] = []
      for _ in 0..<7 {
        var products = 0.0
        let seconds = Benchmark.seconds { products = cscoring_active().pointee.layers.pointee.multiply_adds(200_000) }
        limit = max(limit, products / seconds)
        some.append(Benchmark.secondsPerRow(of: count, size, least: least, score))
      }
      times.append((size, some.sorted()[3]))
    }
    let ideal = Double(network.products) / limit
    return Report(
      inputs: width, products_per_row: network.products, limit_gflops: 2 * limit / 1e9, limit_ns_per_row: ideal * 1e9,
      batches: times.map {
        Report.Batch(rows: $0.rows, ns_per_row: $0.time * 1e9, percent_of_limit: ideal / $0.time * 100)
      }, plain_ns_per_row: plain / Double(count) * 1e9, different: different,
      error_max: expected.map { Benchmark.error(scores, beside: $0) })
  }
}
