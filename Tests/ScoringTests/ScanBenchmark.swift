import CScoring
import Foundation
import RankingCore
import Scoring
import Testing

// What a leg costs beside a plain read of the same memory. Not a test: it runs only when asked for,
//
//     SHORTLIST_BENCH=1 swift test -c release --filter ScanBenchmark

@Suite(.serialized, .enabled(if: ProcessInfo.processInfo.environment["SHORTLIST_BENCH"] != nil))
struct ScanBenchmark {
  private func median(_ runs: Int, _ body: () -> Void) -> Double {
    body()
    return (0..<runs).map { _ in ContinuousClock().measure(body).milliseconds }.sorted()[runs / 2]
  }

  @Test(arguments: [(1_000_000, 64, 1), (1_000_000, 64, 16), (250_000, 256, 1), (2_000_000, 16, 1), (20_000, 64, 1)])
  func leg(rows: Int, dimension: Int, shards: Int) throws {
    var generator = SeededGenerator(seed: 1)
    let release = Catalogue.release
    var hosted = HostedRelease(release: release, shardCount: shards, dimension: dimension)
    let each = rows / shards
    for shard in 0..<shards {
      let vectors = (0..<each * dimension).map { _ in Float(generator.unit() - 0.5) }
      let ordinals = (0..<each).map { UInt64($0 * shards + shard) }
      try hosted.add(
        Slice.packed(
          release: release, shard: ShardID(shard), shardCount: shards, dimension: dimension, vectors: vectors,
          ordinals: ordinals, ids: ordinals.map { "\($0)" }))
    }
    let bytes = Double(rows * Slice.stride(dimension: dimension) * 4)
    let gigabytes = { (milliseconds: Double) in bytes / milliseconds / 1e6 }
    func report(_ what: String, _ milliseconds: Double) {
      let (time, rate) = (
        String(format: "%8.3f ms", milliseconds), String(format: "%6.1f GB/s", gigabytes(milliseconds))
      )
      print("\(rows)×\(dimension), \(shards) shards  \(time)  \(rate)  \(what)")
    }
    func query(_ k: Int, _ candidates: Int) -> ScoreQuery {
      let vector = (0..<dimension).map { _ in Float(generator.unit() - 0.5) }
      return ScoreQuery(release: release, mode: .retrieve, vector: vector, k: k, candidates: candidates)
    }
    func legs(_ what: String, _ holding: HostedRelease, _ query: ScoreQuery, history: Int = 0) {
      let scorer = LegScorer()
      let flag = CancellationFlag()
      let tasks = (0..<shards).map { shard in
        ShardTask(
          shard: ShardID(shard),
          excludedOrdinals: (0..<history / shards).map { UInt64($0 * 50 * shards + shard) })
      }
      let request = ScoreRequest(query: query, tasks: tasks)
      report(what, median(15) { _ = scorer.score(request, holding: holding, cancelled: flag) })
    }

    var sum: UInt64 = 0
    let read = median(15) {
      for slice in hosted.slices {
        let words = UnsafeRawBufferPointer(slice!.vectors).assumingMemoryBound(to: UInt64.self)
        sum ^= cscoring_read(words.baseAddress!, words.count)
      }
    }
    report("plain read (\(sum & 1))", read)
    let found = cscoring_active().pointee.isa
    for isa in [cscoring_isa.avx512, .avx2, .neon, .scalar] where cscoring_force_isa(isa) {
      if isa == .scalar, rows > 100_000 { continue }
      legs("top 100, path \(isa.rawValue)", hosted, query(100, 100))
    }
    _ = cscoring_force_isa(found)
    legs("top 1", hosted, query(1, 1))
    legs("top 20", hosted, query(20, 200))
    legs("top 100, history of 10 000", hosted, query(100, 100), history: 10_000)
    let named = ScoreRequest(
      query: ScoreQuery(
        release: release, mode: .rank, vector: query(1, 1).vector, k: 1, candidates: 1),
      tasks: (0..<shards).map { shard in
        ShardTask(shard: ShardID(shard), items: (0..<1000 / shards).map { "\($0 * 7 % each * shards + shard)" })
      })
    let scorer = LegScorer()
    let rank = median(15) { _ = scorer.score(named, holding: hosted, cancelled: CancellationFlag()) }
    print("\(rows)×\(dimension), \(shards) shards  \(String(format: "%8.3f ms", rank))  rank 1000 ids")
    var linear = HostedRelease(
      release: release, shardCount: shards, dimension: dimension,
      ranker: .linear(
        try LinearRanker(
          intercept: 1, terms: [.init(.retrievalScore, weight: 0.5)], itemColumns: 0, userColumns: 0,
          contextColumns: 0)))
    for slice in hosted.slices { try linear.add(slice!) }
    legs("top 20 of R 200, linear ranker", linear, query(20, 200))
    legs("top 1000 of R 10 000, linear ranker", linear, query(1000, 10_000))
  }
}
