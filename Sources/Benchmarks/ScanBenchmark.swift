import CScoring
import Glibc
import RankingCore
import Scoring
import Servers

// What a worker's retrieval costs, on one core, beside what the machine allows in the same run: a plain read of the
// rows' memory, and a plain scan of every row, which is also the oracle that every answer is compared with.

public struct ScanBenchmark {
  public struct Report: Codable, Sendable {
    public var rows: Int
    public var dimension: Int
    public var shards: Int
    public var threads: Int
    public var batch: Int
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
    /// The median; of queries that came together, of a batch's time by its queries.
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
  /// Threads that share the shards of a query, or the queries of a batch.
  public var threads = 1
  /// Queries that come together.
  public var batch = 1
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
  /// - Returns: beside the figures, the rows that each query found, best first.
  public func run(_ progress: (String) -> Void) -> (report: Report, found: [[UInt64]]) {
    progress("building \(shards) slices of \(items.count) rows in all")
    let slices = slices()
    let built = Self.milliseconds { for slice in slices { slice.rebuildIndex(plan?.indexPlan) } }
    var hosted = HostedRelease(release: Self.release, shardCount: shards, dimension: items.dimension)
    for slice in slices {
      do { try hosted.add(slice) } catch { preconditionFailure("\(error)") }
    }
    let holding = hosted
    let requests = (0..<queries.count).map(request)

    let read = plainRead(slices)
    let compared = min(queries.count, 100)
    let legs = Legs(holding: holding, threads: threads, batch: batch)
    defer { legs.stop() }
    var different = 0
    var plainTimes: [Double] = []
    let plain = PlainScan(holding, k: k)
    for start in stride(from: 0, to: compared, by: batch) {
      progress("comparing with the plain scan: \(start) of \(compared)")
      let some = Array(requests[start..<min(compared, start + batch)])
      let replies = legs.score(some)
      for (request, reply) in zip(some, replies) {
        var expected: [ScoredItem] = []
        plainTimes.append(Self.milliseconds { expected = plain.best(of: request) })
        if (0..<reply.count).map({ reply[$0] }) != expected { different += 1 }
      }
    }
    // What a plain scan has in mind of its memory is not the next query's to find there.
    for request in requests.prefix(batch) { _ = legs.score([request]) }

    progress("timing \(queries.count) queries")
    var times: [Double] = []
    for start in stride(from: 0, through: requests.count - batch, by: batch) {
      let some = Array(requests[start..<start + batch])
      times.append(Self.milliseconds { _ = legs.score(some) } / Double(batch))
    }
    times.sort()
    let scorer = LegScorer()
    var counts = (blocks: 0, passed: 0, scored: 0)
    var found: [[UInt64]] = []
    for request in requests {
      let reply = scorer.score(request, holding: holding, cancelled: CancellationFlag())
      found.append((try? reply.get().items.ordinals) ?? [])
      counts.blocks += scorer.counts().blocks
      counts.passed += scorer.counts().passedFirst
      counts.scored += scorer.counts().scored
    }
    let count = Double(queries.count)
    let rowsRead = min(Double(items.count), Double(counts.blocks * ScanIndex.blockRows) / count)
    let bytes = slices.reduce(0.0) { $0 + Double($1.scanIndex?.firstLookBytes ?? $1.stride * 4) } / Double(shards)
    let median = times[times.count / 2]
    let report = Report(
      rows: items.count, dimension: items.dimension, shards: shards, threads: threads, batch: batch, k: k,
      queries: queries.count,
      plan: Set(slices.map { $0.scanIndex.map { "\($0.plan)" } ?? "plain" }).sorted()
        .joined(separator: ", "),
      keep: keep, index_ms: built, bytes: slices.reduce(0) { $0 + $1.memoryFootprint },
      bytes_of_floats_and_bytes: items.count * items.dimension * 5, limit_ms: read,
      plain_ms: plainTimes.sorted()[compared / 2], ms_per_query: median, percent_of_limit: read / median * 100,
      p95_ms: times[times.count * 95 / 100], max_ms: times[times.count - 1],
      bytes_per_query: rowsRead * bytes + Double(counts.scored * slices[0].stride * 4) / count, rows_read: rowsRead,
      rows_passed: Double(counts.passed) / count, rows_scored: Double(counts.scored) / count,
      rescored_share: Double(counts.scored) / count / Double(items.count), compared: compared, different: different)
    return (report, found)
  }

  private func request(_ number: Int) -> ScoreRequest {
    var query = ScoreQuery(
      release: Self.release, mode: .retrieve,
      vector: Array(queries.values[number * items.dimension..<(number + 1) * items.dimension]), k: k, candidates: k)
    query.filter = keep.map { FilterProgram(steps: [.range(column: 0, low: 0, high: Float($0).nextDown)]) }
    return ScoreRequest(query: query, tasks: (0..<shards).map { ShardTask(shard: ShardID($0)) })
  }

  /// The time of a plain read of the rows.
  private func plainRead(_ slices: [Slice]) -> Double {
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
    return read
  }
}

extension ScanBenchmark.ScanPlan {
  var indexPlan: ScanIndex.Plan {
    switch self {
    case .full: .full
    case .head16: .head(bytes: 16)
    case .head32: .head(bytes: 32)
    }
  }
}

/// Scores legs as a worker does, and waits for them.
private final class Legs {
  private let holding: HostedRelease
  private let threads: Int
  private let pool: ComputePool<LegScorer>?
  private let scorer = LegScorer()

  init(holding: HostedRelease, threads: Int, batch: Int) {
    self.holding = holding
    self.threads = threads
    pool = threads > 1 ? ComputePool(threads: threads) { LegScorer() } : nil
  }
  func stop() { pool?.stop() }

  /// The legs' lists: together, or a single one on all threads.
  func score(_ requests: [ScoreRequest]) -> [ScoredList] {
    let flag = CancellationFlag()
    guard let pool else {
      let replies =
        requests.count == 1
        ? [scorer.score(requests[0], holding: holding, cancelled: flag)]
        : scorer.scoreTogether(requests.map { ($0, flag) }, holding: holding)
      return replies.map { (try? $0.get().items) ?? ScoredList() }
    }
    // Each thread takes its share of what came together; one alone is shared out by its shards.
    let share = (requests.count + threads - 1) / threads
    let shares = stride(from: 0, to: requests.count, by: share).map {
      Array(requests[$0..<min(requests.count, $0 + share)])
    }
    let results = Results(shares.count)
    for (place, some) in shares.enumerated() {
      let legs = some.map { ScoringJob.Leg(call: 0, request: $0, cancelled: flag) }
      let job = ScoringJob(legs, holding: holding, threads: requests.count == 1 ? threads : 1) { replies, _ in
        results.put(replies.map { (try? $0.get().items) ?? ScoredList() }, at: place)
      }
      for part in 0..<job.parts { pool.submit { job.run(part, $0) } }
    }
    return results.wait()
  }

  private final class Results: @unchecked Sendable {
    private var lists: [[ScoredList]?]
    private var open: Int
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    init(_ count: Int) {
      lists = [[ScoredList]?](repeating: nil, count: count)
      open = count
      pthread_mutex_init(mutex, nil)
      pthread_cond_init(condition, nil)
    }
    deinit {
      pthread_cond_destroy(condition)
      pthread_mutex_destroy(mutex)
      condition.deallocate()
      mutex.deallocate()
    }
    func put(_ some: [ScoredList], at place: Int) {
      pthread_mutex_lock(mutex)
      lists[place] = some
      open -= 1
      pthread_cond_signal(condition)
      pthread_mutex_unlock(mutex)
    }
    func wait() -> [ScoredList] {
      pthread_mutex_lock(mutex)
      while open > 0 { pthread_cond_wait(condition, mutex) }
      defer { pthread_mutex_unlock(mutex) }
      return lists.flatMap { $0 ?? [] }
    }
  }
}

/// The best of every row, by the float32 kernel: what every answer is compared with.
private struct PlainScan {
  private let holding: HostedRelease
  private let k: Int
  init(_ holding: HostedRelease, k: Int) {
    self.holding = holding
    self.k = k
  }

  func best(of request: ScoreRequest) -> [ScoredItem] {
    var best = BestRows()
    var scores = [Float](repeating: 0, count: VectorScan.blockRowsMax)
    var picked = [UInt32](repeating: 0, count: VectorScan.blockRowsMax)
    var all: [ScoredItem] = []
    var query = request.query.vector
    query += [Float](repeating: 0, count: Slice.stride(dimension: query.count) - query.count)
    for task in request.tasks {
      guard let slice = holding.slice(task.shard) else { continue }
      best.begin(limit: k, of: slice.count)
      _ = VectorScan.run(
        slice, query: query, excluded: ExclusionSet(), into: &best, scores: &scores, picked: &picked,
        cancelled: CancellationFlag(), filter: request.query.filter)
      for bits in best.sorted() {
        let key = RowKey(bits: bits)
        all.append(ScoredItem(score: key.score, ordinal: slice.ordinal(ofRow: slice.row(ofRank: key.rank))))
      }
    }
    all.sort { $0.precedes($1) }
    return Array(all.prefix(k))
  }
}
