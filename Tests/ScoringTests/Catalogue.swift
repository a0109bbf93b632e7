import RankingCore
import Scoring

// A catalogue, its slices at any number of shards, and what a leg over it must answer, written as plainly as can be.

struct Catalogue {
  static let release = ModelVersion(model: "home", version: "v1")
  let dimension: Int
  let count: Int
  var vectors: [Float]
  var ids: [String]
  /// One column, NaN for every fifth item.
  var prices: [Float]

  init(count: Int, dimension: Int, terrain: Terrain = .ordinary, seed: UInt64 = 1) {
    var generator = SeededGenerator(seed: seed)
    self.count = count
    self.dimension = dimension
    vectors = (0..<count * dimension).map { _ in terrain.value(&generator) }
    ids = (0..<count).map { "item-\($0)" }
    prices = (0..<count).map { $0 % 5 == 0 ? .nan : Float(generator.unit() * 100) }
  }

  func owner(_ item: Int, shards: Int) -> ShardID { ShardID.owner(of: ids[item], shards: shards) }

  func slice(_ shard: ShardID, of shards: Int) -> Slice {
    let items = (0..<count).filter { owner($0, shards: shards) == shard }
    return Slice.packed(
      release: Catalogue.release, shard: shard, shardCount: shards, dimension: dimension,
      vectors: items.flatMap { vectors[$0 * dimension..<($0 + 1) * dimension] }, ordinals: items.map { UInt64($0) },
      ids: items.map { ids[$0] },
      columns: [(Column(name: "price", kind: .number), items.map { prices[$0] })])
  }

  func hosted(shards: Int, ranker: Ranker = .none) throws -> HostedRelease {
    var hosted = HostedRelease(
      release: Catalogue.release, shardCount: shards, dimension: dimension, ranker: ranker)
    for shard in 0..<shards { try hosted.add(slice(ShardID(shard), of: shards)) }
    return hosted
  }

  func query(
    seed: UInt64 = 99, terrain: Terrain = .ordinary, mode: ScoreMode = .retrieve, k: Int, candidates: Int = 200,
    minScore: Float? = nil, userValues: [Float] = [], contextValues: [Float] = []
  ) -> ScoreQuery {
    var generator = SeededGenerator(seed: seed)
    return ScoreQuery(
      release: Catalogue.release, mode: mode, vector: (0..<dimension).map { _ in terrain.value(&generator) }, k: k,
      candidates: candidates, minScore: minScore, userValues: userValues, contextValues: contextValues)
  }

  /// A request to all shards, with exclusions and named items given to each.
  func request(
    _ query: ScoreQuery, shards: Int, excluding: [Int] = [], excludingIDs: [String] = [], items: [String] = []
  ) -> ScoreRequest {
    ScoreRequest(
      query: query,
      tasks: (0..<shards).map { shard in
        ShardTask(
          shard: ShardID(shard),
          excludedOrdinals: excluding.filter { owner($0, shards: shards) == ShardID(shard) }.map { UInt64($0) },
          excludedIDs: excludingIDs, items: items)
      })
  }

  /// What the request must give: every step by sorting everything.
  ///
  /// - Parameter final: the final score of an item, given its retrieval score; `nil` = dropped.
  func expected(
    _ request: ScoreRequest, shards: Int, final: (Int, Float) -> Float? = { $1 }
  ) -> (items: [ScoredItem], dropped: Int) {
    let query = request.query
    var dropped = 0
    var all: [ScoredItem] = []
    for task in request.tasks {
      var list: [ScoredItem] = []
      for item in 0..<count where owner(item, shards: shards) == task.shard {
        if query.mode == .rank, !task.items.contains(ids[item]) { continue }
        if task.excludedOrdinals.contains(UInt64(item)) || task.excludedIDs.contains(ids[item]) { continue }
        let score = referenceScore(vectors[item * dimension..<(item + 1) * dimension], query.vector)
        list.append(ScoredItem(score: score, ordinal: ItemOrdinal(item)))
      }
      list.sort { $0.precedes($1) }
      if query.mode == .retrieve { list = Array(list.prefix(query.candidates)) }
      var ranked: [ScoredItem] = []
      for entry in list {
        guard let score = final(Int(entry.ordinal.rawValue), entry.score) else {
          dropped += 1
          continue
        }
        if let limit = query.minScore, score < limit { continue }
        ranked.append(ScoredItem(score: score, ordinal: entry.ordinal))
      }
      all += ranked
    }
    all.sort { $0.precedes($1) }
    return (query.mode == .retrieve ? Array(all.prefix(query.k)) : all, dropped)
  }
}

extension ScoredList {
  /// Ordinals and score bits: what must be equal for two answers to be the same.
  var lines: [String] { (0..<count).map { "\(ordinals[$0]) \(scores[$0].bitPattern) \(ids[$0])" } }
}

extension Catalogue {
  func lines(_ items: [ScoredItem]) -> [String] {
    items.map { "\($0.ordinal.rawValue) \($0.score.bitPattern) \(ids[Int($0.ordinal.rawValue)])" }
  }
}
