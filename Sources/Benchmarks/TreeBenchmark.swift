import Glibc
import RankingCore
import Scoring

/// What a tree ranker costs per row, beside its own definition, on one core.
public struct TreeBenchmark {
  public struct Report: Codable, Sendable {
    public struct Batch: Codable, Sendable {
      public var rows: Int
      public var ns_per_row: Double
    }
    public var trees: Int
    public var leaves_max: Int
    public var features: Int
    public var batches: [Batch]
    /// `TreeEnsemble.score`, row by row.
    public var plain_ns_per_row: Double
    /// What a row's explanation takes, one row at a time.
    public var explain_ns_per_row: Double
    /// Rows whose score differs from the definition's.
    public var different: Int
    /// Where expected scores were given: the greatest |score − expected| / max(1, |expected|).
    public var error_max: Double?
  }

  public var ensemble: TreeEnsemble
  /// rows × features.
  public var inputs: Vectors
  public var expected: [Double]?

  public init(ensemble: TreeEnsemble, inputs: Vectors, expected: [Double]? = nil) {
    self.ensemble = ensemble
    self.inputs = inputs
    self.expected = expected
  }

  /// Trees of `leaves` leaves with random splits, and rows for them.
  public static func made(trees: Int, leaves: Int, features: Int, rows: Int, seed: UInt64 = 7) throws -> TreeBenchmark {
    var generator = SeededGenerator(seed: seed)
    // As a trainer's histograms do: at most 255 thresholds a feature.
    let bins = (0..<features).map { _ in (0..<255).map { _ in Float(generator.unit()) }.sorted() }
    let made = (0..<trees).map { _ -> TreeEnsemble.Tree in
      var nodes: [TreeEnsemble.Node] = []
      var ends: [(node: Int, isLeft: Bool)?] = [nil]
      for node in 0..<leaves - 1 {
        let end = ends.remove(at: generator.below(ends.count))
        if let end { if end.isLeft { nodes[end.node].left = node } else { nodes[end.node].right = node } }
        let feature = generator.below(features)
        nodes.append(
          TreeEnsemble.Node(
            feature: feature, split: .above(bins[feature][generator.below(255)]),
            missingGoesLeft: true, left: 0, right: 0))
        ends += [(node, true), (node, false)]
      }
      for (leaf, end) in ends.enumerated() {
        guard let end else { continue }
        if end.isLeft { nodes[end.node].left = ~leaf } else { nodes[end.node].right = ~leaf }
      }
      return TreeEnsemble.Tree(nodes: nodes, leaves: (0..<leaves).map { _ in generator.unit() - 0.5 })
    }
    return TreeBenchmark(
      ensemble: try TreeEnsemble(
        features: (0..<features).map { TreeEnsemble.Feature(name: "f\($0)", missing: .nan) }, trees: made),
      inputs: Vectors(
        dimension: features,
        values: (0..<rows * features).map { _ in generator.below(20) == 0 ? .nan : Float(generator.unit()) }))
  }

  /// - Throws: when the inputs do not fit the trees.
  public func run(_ progress: (String) -> Void) throws -> Report {
    let width = ensemble.features.count
    guard inputs.dimension == width, inputs.count > 0 else {
      throw RankerError("inputs of \(inputs.dimension) features, the model has \(width)")
    }
    let ranker = try TreeRanker(
      ensemble, sources: Array(repeating: .retrievalScore, count: width), itemColumns: 0, userColumns: 0,
      contextColumns: 0)
    var memory = TreeMemory()
    let count = inputs.count
    var scores = [Float](repeating: 0, count: count)
    func score(from start: Int, _ size: Int) {
      inputs.values.withUnsafeBufferPointer { inputs in
        ranker.score(count: size, memory: &memory, scores: &scores) { feature, offset, rows, values in
          for row in 0..<rows { values[row] = inputs[(start + offset + row) * width + feature] }
        }
      }
    }
    progress("comparing \(count) rows with the definition")
    score(from: 0, count)
    var different = 0
    let plain = Benchmark.seconds {
      for row in 0..<count {
        let values = Array(inputs.values[row * width..<(row + 1) * width])
        let wanted = ensemble.score(values) ?? .nan
        if wanted.bitPattern != scores[row].bitPattern { different += 1 }
      }
    }
    var batches: [Report.Batch] = []
    for size in [1, 10, 64, 100, 1000] where size <= count {
      progress("timing \(size) rows at a time")
      let times = (0..<7).map { _ in Benchmark.secondsPerRow(of: count, size, least: 4000, score) }
      batches.append(Report.Batch(rows: size, ns_per_row: times.sorted()[3] * 1e9))
    }
    let explained = explain(ranker, &memory, rows: min(count, 200))
    return Report(
      trees: ensemble.trees.count, leaves_max: ensemble.trees.map(\.leaves.count).max() ?? 0, features: width,
      batches: batches, plain_ns_per_row: plain / Double(count) * 1e9, explain_ns_per_row: explained,
      different: different, error_max: expected.map { Benchmark.error(scores, beside: $0) })
  }

  /// Nanoseconds per row, the median of some runs.
  private func explain(_ ranker: TreeRanker, _ memory: inout TreeMemory, rows: Int) -> Double {
    let width = ensemble.features.count
    let layout = ContributionLayout(itemColumns: 0, userColumns: 0, contextColumns: 0)
    var places = [Double](repeating: 0, count: layout.width)
    var times: [Double] = []
    for _ in 0..<7 {
      times.append(
        Benchmark.seconds {
          for row in 0..<rows {
            places.withUnsafeMutableBufferPointer { places in
              var account = ItemAccount(layout, places: places.baseAddress!)
              ranker.explain(memory: &memory, into: &account) { inputs.values[row * width + $0] }
            }
          }
        })
    }
    return times.sorted()[3] / Double(rows) * 1e9
  }
}

enum Benchmark {
  /// Scores batches of `size` rows, over and over, until at least so many are done.
  static func secondsPerRow(
    of count: Int, _ size: Int, least: Int, _ score: (_ start: Int, _ size: Int) -> Void
  )
    -> Double
  {
    var done = 0
    let time = seconds {
      repeat {
        for start in stride(from: 0, through: count - size, by: size) where done < least {
          score(start, size)
          done += size
        }
      } while done < least
    }
    return time / Double(done)
  }

  /// The greatest |score − expected| / max(1, |expected|).
  static func error(_ scores: [Float], beside expected: [Double]) -> Double {
    zip(scores, expected).map { abs(Double($0) - $1) / max(1, abs($1)) }.max() ?? 0
  }

  static func seconds(_ body: () -> Void) -> Double {
    var (start, end) = (timespec(), timespec())
    clock_gettime(CLOCK_MONOTONIC, &start)
    body()
    clock_gettime(CLOCK_MONOTONIC, &end)
    return Double(end.tv_sec - start.tv_sec) + Double(end.tv_nsec - start.tv_nsec) / 1e9
  }
}
