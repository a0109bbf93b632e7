import RankingCore

/// Phase 2: what turns a shard's candidates into final scores.
///
/// A ranker works on a block of candidates at a time, column after column, so that choosing its kind costs once per
/// shard. A candidate's score depends on its own features alone, never on the block it came in.
public enum Ranker: Sendable {
  /// The final score is the retrieval score.
  case none
  case linear(LinearRanker)
  case trees(TreeRanker)
  case mlp(MLPRanker)
  case ensemble(RankerEnsemble)

  var isNone: Bool { if case .none = self { true } else { false } }

  /// How many values of each kind it reads; a request or a slice with other counts does not belong to it.
  public var widths: (item: Int, user: Int, context: Int)? {
    switch self {
    case .none: nil
    case .linear(let ranker): (ranker.itemColumns, ranker.userColumns, ranker.contextColumns)
    case .trees(let ranker): (ranker.itemColumns, ranker.userColumns, ranker.contextColumns)
    case .mlp(let ranker): (ranker.itemColumns, ranker.userColumns, ranker.contextColumns)
    case .ensemble(let ensemble): ensemble.widths
    }
  }

  /// Whether it looks at the request's recent items.
  public var usesRecent: Bool {
    switch self {
    case .none: false
    case .linear(let ranker): ranker.terms.contains { $0.source.isRecent }
    case .trees(let ranker): ranker.sources.contains(where: \.isRecent)
    case .mlp(let ranker): ranker.sources.contains(where: \.feature.isRecent)
    case .ensemble(let ensemble): ensemble.usesRecent
    }
  }

  /// Gives the candidates of a slice their final scores and offers those that reach the query's `minScore`.
  ///
  /// - Parameter candidates: keys with the retrieval score.
  /// - Returns: how many were dropped because the ranker gave no finite number.
  package func rank(
    _ candidates: UnsafeMutableBufferPointer<UInt64>, of slice: Slice, query: ScoreQuery,
    memory: inout RankerMemory, into best: inout BestRows
  ) -> Int {
    let minScore = query.minScore ?? -.infinity
    switch self {
    case .none:
      for bits in candidates where RowKey(bits: bits).score >= minScore { best.offer(RowKey(bits: bits)) }
      return 0
    case .linear, .trees, .mlp, .ensemble:
      let count = candidates.count
      let rows = memory.rows.room(for: max(1, count))
      let retrieval = memory.retrieval.room(for: max(1, count))
      let scores = memory.scores.room(for: max(1, count))
      for index in 0..<count {
        let key = RowKey(bits: candidates[index])
        rows[index] = UInt32(slice.row(ofRank: key.rank))
        retrieval[index] = key.score
      }
      var candidates = CandidateFeatures(rows: rows, retrieval: retrieval, slice: slice, query: query)
      if usesRecent {
        let features = memory.recent.room(for: max(1, count) * RecentFeature.width)
        memory.similarity.fill(count: count, rows: rows, slice: slice, query: query, features: features)
        candidates.recent = UnsafePointer(features)
        candidates.recentCount = count
      }
      score(count: count, candidates: candidates, memory: &memory, scores: scores)
      var dropped = 0
      for index in 0..<count {
        let score = scores[index]
        if !score.isFinite {
          dropped += 1
        } else if score >= minScore {
          best.offer(RowKey(score: score, rank: slice.rank(ofRow: Int(rows[index]))))
        }
      }
      return dropped
    }
  }

  /// - Parameter scores: out; not finite where there is no score.
  func score(
    count: Int, candidates: CandidateFeatures, memory: inout RankerMemory, scores: UnsafeMutablePointer<Float>
  ) {
    switch self {
    case .none: scores.update(from: candidates.retrieval, count: count)
    case .linear(let ranker):
      let sums = memory.sums.room(for: max(1, count))
      ranker.sum(count: count, candidates: candidates, sums: sums)
      for index in 0..<count { scores[index] = Float(sums[index]) + 0 }
    case .trees(let ranker):
      ranker.score(count: count, candidates: candidates, memory: &memory.trees, scores: scores)
    case .mlp(let ranker): ranker.score(count: count, candidates: candidates, memory: &memory.mlp, scores: scores)
    case .ensemble(let ensemble):
      ensemble.score(count: count, candidates: candidates, memory: &memory, scores: scores)
    }
  }
}

/// The columns of one block of candidates, kept by a compute thread.
package struct RankerMemory: ~Copyable {
  var rows = ScratchBuffer<UInt32>()
  var retrieval = ScratchBuffer<Float>()
  var sums = ScratchBuffer<Double>()
  var scores = ScratchBuffer<Float>()
  var trees = TreeMemory()
  var mlp = MLPMemory()
  var recent = ScratchBuffer<Float>()
  var similarity = RecentSimilarity()
  /// Of an ensemble.
  var weighted = ScratchBuffer<Double>()
  package init() {}
}

/// Where one input of a ranker comes from.
public enum FeatureSource: Sendable, Equatable {
  /// The inner product of phase 1.
  case retrievalScore
  /// A column of the slice, by its place in `Slice.columns`.
  case item(Int)
  /// A value of the request, by its place in `ScoreQuery.userValues`.
  case user(Int)
  /// A value of the request, by its place in `ScoreQuery.contextValues`.
  case context(Int)
  /// What the candidate has to do with `ScoreQuery.recent`.
  case recent(RecentFeature)

  var isRecent: Bool { if case .recent = self { true } else { false } }

  /// Why it cannot be read from a schema of so many columns, in a few words; `nil` = it can.
  func fault(itemColumns: Int, userColumns: Int, contextColumns: Int) -> String? {
    let (column, count, kind) =
      switch self {
      case .retrievalScore: (0, 1, "retrieval score")
      case .item(let column): (column, itemColumns, "item")
      case .user(let column): (column, userColumns, "user")
      case .context(let column): (column, contextColumns, "context")
      case .recent(let feature): (feature.rawValue, RecentFeature.width, "recent-items")
      }
    return 0..<max(0, count) ~= column ? nil : "\(kind) column \(column), the schema has \(count)"
  }
}

/// Why a ranker cannot be used with a schema: one line.
public struct RankerError: Error, Sendable, Equatable, CustomStringConvertible {
  public var description: String
  public init(_ description: String) { self.description = description }
}
