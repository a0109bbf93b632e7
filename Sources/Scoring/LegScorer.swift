import CScoring
import RankingCore

// One leg, scored on one compute thread:
//
//     task ─► exclusions ─► candidates ─► ranker ─► min score ─► best k ─┐
//     task ─► …                                                           ├─► merge in total order ─► reply with ids
//     task ─► …                                                           ┘          (and why, where asked)
//
// `.retrieve` takes the best R rows of each shard and leaves its best k; `.rank` takes the named rows and leaves all.
// Either way a shard's list is what the whole catalogue's would be, cut to the shard, so that merging loses nothing.

/// Scores legs, one at a time, with memory that it keeps between them. One per compute thread: it is not shared.
public final class LegScorer {
  private var excluded = ExclusionSet()
  private var indexed = IndexedScan()
  private var phase1 = BestRows()
  private var phase2 = BestRows()
  private var query = ScratchBuffer<Float>()
  private var scores = ScratchBuffer<Float>()
  private var rows = ScratchBuffer<UInt32>()
  private var ranking = RankerMemory()
  private var merged = MergedLists()

  public init() {}

  /// The leg's reply: the best k of its shards in the total order, or in `.rank` mode every named item that is held.
  ///
  /// - Parameter cancelled: looked at between blocks of rows; once raised, the call returns within about 0.1 ms.
  /// - Returns: `.wrongVersion` when the release is another one or a shard is not held; `.workerError` when the request
  ///   does not fit the release, saying what; `.deadlineExceeded` when cancelled. All of a leg or nothing.
  public func score(
    _ request: ScoreRequest, holding: HostedRelease, cancelled: CancellationFlag
  ) -> Result<ScoreReply, CallFailure> {
    guard request.query.release == holding.release else { return .failure(.wrongVersion) }
    for task in request.tasks where holding.slice(task.shard) == nil { return .failure(.wrongVersion) }
    if let fault = LegScorer.fault(of: request, holding: holding) { return .failure(.workerError(fault)) }

    let query = request.query
    let sources: [CandidateSource]
    let limit: Int
    switch query.mode {
    case .retrieve:
      limit = query.k
      // Without a ranker phase 2 changes no score, and a shard owes no more than k.
      let quota = if case .none = holding.ranker { min(query.k, query.candidates) } else { query.candidates }
      sources = [.vector(quota: quota)]
    case .rank:
      limit = .max
      sources = [.named]
    }

    let stride = Slice.stride(dimension: holding.dimension)
    let vector = self.query.room(for: stride)
    vector.update(repeating: 0, count: stride)
    for (index, value) in query.vector.enumerated() { vector[index] = value }

    // Capped lists are joined whole, and capped again.
    merged.begin(limit: query.cap == nil ? limit : .max)
    var dropped = 0
    for (index, task) in request.tasks.enumerated() {
      guard let slice = holding.slice(task.shard) else { return .failure(.wrongVersion) }
      exclude(task, in: slice)
      for source in sources {
        guard
          collect(
            source, task: task, slice: slice, query: vector, of: query, ranker: holding.ranker, cancelled: cancelled)
        else { return .failure(.deadlineExceeded) }
      }
      let candidates = phase1.chosen()
      phase2.begin(
        limit: limit, of: candidates.count, cap: query.cap, groups: query.cap.map { slice.columnBases[$0.column] })
      dropped += holding.ranker.rank(candidates, of: slice, query: query, memory: &ranking, into: &phase2)
      if cancelled.isCancelled { return .failure(.deadlineExceeded) }
      merged.join(phase2.sorted(), slice: slice, task: index)
    }
    var items = merged.list(request.tasks, holding, cap: query.cap, limit: limit)
    if query.explain, items.count > 0 {
      do throws(CallFailure) {
        items.explanations = try LegExplanation.make(
          of: merged.listed(items.count), request, holding: holding, vector: vector, memory: &ranking,
          cancelled: cancelled)
      } catch { return .failure(error) }
    }
    return .success(
      ScoreReply(
        release: holding.release, shards: request.tasks.map(\.shard), items: items, droppedNaN: dropped))
  }

  /// What in the request does not fit the release, in one line.
  private static func fault(of request: ScoreRequest, holding: HostedRelease) -> String? {
    let query = request.query
    guard query.k >= 1 else { return "k is \(query.k), at least 1 is allowed" }
    guard query.candidates >= 1 else { return "candidates is \(query.candidates), at least 1 is allowed" }
    guard query.vector.count == holding.dimension else {
      return "vector has \(query.vector.count) values, \(holding.release) has dimension \(holding.dimension)"
    }
    var square = 0.0
    for value in query.vector { square += Double(value) * Double(value) }
    // Also false when a value is NaN.
    guard square <= RequestLimit.vectorNorm * RequestLimit.vectorNorm else {
      return "vector has a value that is not finite, or a norm above \(RequestLimit.vectorNorm)"
    }
    if let limit = query.minScore, limit.isNaN { return "min_score is not a number" }
    if let widths = holding.ranker.widths {
      guard query.userValues.count == widths.user else {
        return "\(query.userValues.count) user values, the ranker of \(holding.release) has \(widths.user) user columns"
      }
      guard query.contextValues.count == widths.context else {
        return "\(query.contextValues.count) context values, the ranker of \(holding.release) has \(widths.context) "
          + "context columns"
      }
    }
    if let cap = query.cap {
      for task in request.tasks {
        let columns = holding.slice(task.shard)?.columns.count ?? 0
        guard 0..<columns ~= cap.column, cap.max >= 1 else {
          return "the cap does not fit \(holding.release): column \(cap.column) of \(columns), at most \(cap.max)"
        }
      }
    }
    if let filter = query.filter {
      for task in request.tasks {
        if let fault = filter.fault(columns: holding.slice(task.shard)?.columns.count ?? 0) {
          return "the filter does not fit \(holding.release): \(fault)"
        }
      }
    }
    for (index, task) in request.tasks.enumerated() {
      for other in request.tasks[..<index] where other.shard == task.shard {
        return "shard \(task.shard) is asked twice"
      }
    }
    return nil
  }

  private func exclude(_ task: ShardTask, in slice: Slice) {
    excluded.begin(count: task.excludedOrdinals.count + task.excludedIDs.count)
    for ordinal in task.excludedOrdinals { excluded.insert(ordinal) }
    for id in task.excludedIDs {
      if let row = slice.row(ofID: id) { excluded.insert(slice.ordinal(ofRow: row).rawValue) }
    }
  }

  /// Phase 1: puts one source's candidates into `phase1`. False when cancelled.
  private func collect(
    _ source: CandidateSource, task: ShardTask, slice: Slice, query: UnsafePointer<Float>, of request: ScoreQuery,
    ranker: Ranker, cancelled: CancellationFlag
  ) -> Bool {
    let filter = request.filter
    switch source {
    case .vector(let quota):
      // Without a ranker the retrieval score decides alone: it is capped already here, and no row below what the leg
      // has found so far can be in its reply.
      let isFinal = if case .none = ranker { true } else { false }
      let cap = isFinal ? request.cap : nil
      phase1.begin(limit: quota, of: slice.count, cap: cap, groups: cap.map { slice.columnBases[$0.column] })
      let reached = isFinal ? merged.threshold() : -.infinity
      if let index = slice.scanIndex {
        return indexed.run(
          slice, index, query: query, excluded: excluded,
          exclusions: task.excludedOrdinals.count + task.excludedIDs.count, filter: filter, reached: reached,
          into: &phase1, cancelled: cancelled)
      }
      return VectorScan.run(
        slice, query: query, excluded: excluded, into: &phase1, scores: scores.room(for: VectorScan.blockRowsMax),
        picked: rows.room(for: VectorScan.blockRowsMax), cancelled: cancelled, filter: filter)
    case .named:
      let rows = self.rows.room(for: max(1, task.items.count))
      let filter = filter.map { RowFilter(program: $0, columns: slice.columnBases) }
      var count = 0
      for id in task.items {
        guard let row = slice.row(ofID: id), !excluded.contains(slice.ordinal(ofRow: row).rawValue) else { continue }
        if let filter, !filter.passes(row) { continue }
        rows[count] = UInt32(row)
        count += 1
      }
      phase1.begin(limit: count, of: count)
      return gather(rows, count: count, slice: slice, query: query, cancelled: cancelled)
    }
  }

  /// Gives the named rows their retrieval scores; a row named twice counts once. False when cancelled.
  private func gather(
    _ rows: UnsafeMutablePointer<UInt32>, count: Int, slice: Slice, query: UnsafePointer<Float>,
    cancelled: CancellationFlag
  ) -> Bool {
    guard count > 0, let vectors = slice.vectors.baseAddress else { return true }
    var numbers = UnsafeMutableBufferPointer(start: rows, count: count)
    numbers.sort()
    let scores = self.scores.room(for: count)
    let block = VectorScan.blockRows(of: slice)
    var start = 0
    while start < count {
      if cancelled.isCancelled { return false }
      let size = min(block, count - start)
      cscoring_active().pointee.dot_gather(vectors, slice.stride, rows + start, size, query, scores + start)
      start += size
    }
    for index in 0..<count where index == 0 || rows[index] != rows[index - 1] {
      guard scores[index].isFinite else { continue }
      phase1.offer(RowKey(score: scores[index], rank: slice.rank(ofRow: Int(rows[index]))))
    }
    return true
  }
}
