import CScoring
import RankingCore
import Scoring

// What a worker's retrieval costs, on one core, beside what the machine allows in the same run: a plain read of the
// rows' memory, and a plain scan of every row, which is also the oracle that every answer is compared with.

public struct ScanBenchmark {
  public struct Report: Codable, Sendable {
    public var rows: Int
    public var dimension: Int
    public var shards: Int
    public var k: Int
    public var queries: Int
    public var plan: String
    public var keep: Double?
    /// Building the slices' indexes alone.
    public var index_ms: Double
    public var bytes: Int
    public var bytes_of_floats_and_bytes: Int
    /// A plain read of the rows' memory.
    public var limit_ms: Double
    /// A plain scan of every row.
    public var plain_ms: Double
    /// The median.
    public var ms_per_query: Double
    public var percent_of_limit: Double
    public var p95_ms: Double
    public var max_ms: Double
    /// Means per query.
    public var bytes_per_query: Double
    public var rows_read: Double
    public var rows_passed: Double
    public var rows_scored: Double
    public var rescored_share: Double
    /// Queries whose answer was compared with the plain scan's, and those that differed.
    public var compared: Int
    public var different: Int
  }

  public var items: Vectors
  public var queries: Vectors
  public var k = 100
  public var shards = 1
  public var plan: ScanPlan?
  /// The share of rows that a filter on a column of random numbers keeps; nil = no filter.
  public var keep: Double?

  public enum ScanPlan: String, Sendable, CaseIterable { case full, head16, head32 }

  public init(items: Vectors, queries: Vectors) {
    self.items = items
    self.queries = queries
  }

  private static let release = ModelVersion(model: "bench", version: "v1")

  private func slices() -> [Slice] {
    (0..<shards).map { shard in
      var generator = SeededGenerator(seed: UInt64(shard))
      let rows = stride(from: shard, to: items.count, by: shards)
      var vectors: [Float] = []
      vectors.reserveCapacity(rows.underestimatedCount * items.dimension)
      for row in rows { vectors += items.values[row * items.dimension..<(row + 1) * items.dimension] }
      return Slice.packed(
        release: Self.release, shard: ShardID(shard), shardCount: shards, dimension: items.dimension, vectors: vectors,
        ordinals: rows.map { UInt64($0) }, ids: rows.map { "\($0)" },
        columns: [(Column(name: "random", kind: .number), rows.map { _ in Float(generator.unit()) })])
    }
  }

  private static func milliseconds(_ body: () -> Void) -> Double { Benchmark.seconds(body) * 1e3 }

  /// - Parameter progress: is told what is being done.
  public func run(_ progress: (String) -> Void) -> Report {
    progress("building \(shards) slices of \(items.count) rows in all")
    let slices = slices()
    var indexes: [ScanIndex?] = []
    let built = Self.milliseconds {
      indexes = slices.map { slice -> ScanIndex? in
        switch plan {
        case nil: ScanIndex.build(slice)
        case .full: ScanIndex.build(slice, plan: .full)
        case .head16: ScanIndex.build(slice, plan: .head(bytes: 16))
        case .head32: ScanIndex.build(slice, plan: .head(bytes: 32))
        }
      }
    }
    let stride = Slice.stride(dimension: items.dimension)
    let excluded = ExclusionSet()
    let filter = keep.map { FilterProgram(steps: [.range(column: 0, low: 0, high: Float($0).nextDown)]) }
    let flag = CancellationFlag()
    var scan = IndexedScan()
    var best = BestRows()
    var scores = [Float](repeating: 0, count: VectorScan.blockRowsMax)
    var picked = [UInt32](repeating: 0, count: VectorScan.blockRowsMax)
    let query = UnsafeMutablePointer<Float>.allocate(capacity: stride)
    defer { query.deallocate() }
    query.initialize(repeating: 0, count: stride)
    func load(_ number: Int) {
      for place in 0..<items.dimension { query[place] = queries.values[number * items.dimension + place] }
    }
    func plain(_ slice: Slice) -> [UInt64] {
      best.begin(limit: k, of: slice.count)
      _ = VectorScan.run(
        slice, query: query, excluded: excluded, into: &best, scores: &scores, picked: &picked, cancelled: flag,
        filter: filter)
      return Array(best.sorted())
    }
    func indexed(_ slice: Slice, _ index: ScanIndex?) -> UnsafeMutableBufferPointer<UInt64> {
      best.begin(limit: k, of: slice.count)
      if let index {
        _ = scan.run(
          slice, index, query: query, excluded: excluded, exclusions: 0, filter: filter, into: &best, cancelled: flag)
      } else {
        _ = VectorScan.run(
          slice, query: query, excluded: excluded, into: &best, scores: &scores, picked: &picked, cancelled: flag,
          filter: filter)
      }
      return best.sorted()
    }

    var sum: UInt64 = 0
    let read = (0..<5).map { _ in
      Self.milliseconds {
        for slice in slices {
          let words = UnsafeRawBufferPointer(slice.vectors).assumingMemoryBound(to: UInt64.self)
          sum ^= cscoring_read(words.baseAddress!, words.count)
        }
      }
    }.sorted()[2]
    precondition(sum != 1, "the read is not left out")

    let compared = min(queries.count, 100)
    var different = 0
    var plainTimes: [Double] = []
    for number in 0..<compared {
      if number % 10 == 0 { progress("comparing with the plain scan: \(number) of \(compared)") }
      load(number)
      var same = true
      var time = 0.0
      for (slice, index) in zip(slices, indexes) {
        var expected: [UInt64] = []
        time += Self.milliseconds { expected = plain(slice) }
        if Array(indexed(slice, index)) != expected { same = false }
      }
      plainTimes.append(time)
      if !same { different += 1 }
    }

    progress("timing \(queries.count) queries")
    var times: [Double] = []
    var (rowsRead, passed, scored) = (0, 0, 0)
    for number in 0..<queries.count {
      load(number)
      times.append(
        Self.milliseconds { for (slice, index) in zip(slices, indexes) { _ = indexed(slice, index) } })
      for (slice, index) in zip(slices, indexes) {
        _ = indexed(slice, index)
        rowsRead += min(slice.count, scan.counts.blocks * ScanIndex.blockRows)
        passed += scan.counts.passedFirst
        scored += scan.counts.scored
      }
    }
    times.sort()
    let count = Double(queries.count)
    let plans = Set(indexes.map { $0.map { "\($0.plan)" } ?? "plain" }).sorted().joined(separator: ", ")
    let median = times[times.count / 2]
    let bytes =
      zip(slices, indexes).reduce(0.0) { sum, pair in
        let (slice, index) = pair
        return sum + Double(index?.firstLookBytes ?? slice.stride * 4)
      } / Double(shards)
    return Report(
      rows: items.count, dimension: items.dimension, shards: shards, k: k, queries: queries.count, plan: plans,
      keep: keep, index_ms: built, bytes: slices.reduce(0) { $0 + $1.memoryFootprint },
      bytes_of_floats_and_bytes: items.count * items.dimension * 5, limit_ms: read,
      plain_ms: plainTimes.sorted()[compared / 2], ms_per_query: median, percent_of_limit: read / median * 100,
      p95_ms: times[times.count * 95 / 100], max_ms: times[times.count - 1],
      bytes_per_query: (Double(rowsRead) * bytes + Double(scored * stride * 4)) / count,
      rows_read: Double(rowsRead) / count, rows_passed: Double(passed) / count, rows_scored: Double(scored) / count,
      rescored_share: Double(scored) / count / Double(items.count), compared: compared, different: different)
  }
}
