import CScoring
import RankingCore

/// What legs need while they are ranked, one after the other; kept by a compute thread.
struct ScoringRoom: ~Copyable {
  var phase2 = BestRows()
  var scores = ScratchBuffer<Float>()
  var rows = ScratchBuffer<UInt32>()
  var ranking = RankerMemory()
}

/// One leg that is being scored, and the memory that it needs for itself.
///
/// `begin`, then each task by `score`, then `reply` and `end`. A scan that was made before a task's `score` by
/// `beginScan`, `ask`, `take` and `endScan` is not made again.
final class ScoringLane {
  private var excluded = ExclusionSet()
  private var indexed = IndexedScan()
  private var phase1 = BestRows()
  private var query = ScratchBuffer<Float>()
  private var merged = MergedLists()
  private var leg: (request: ScoreRequest, holding: HostedRelease)?
  private var source = CandidateSource.named
  private var limit = 0
  private var dropped = 0
  /// What an item of the reply is known to need.
  private var reached: Float = -.infinity
  /// The task whose candidates lie in `phase1`.
  private var scanned: Int?
  /// Of the scans by an index since the leg began.
  private(set) var counts = IndexedScan.Counts()

  /// - Returns: why the leg cannot be scored; nil = it can.
  func begin(_ request: ScoreRequest, _ holding: HostedRelease) -> CallFailure? {
    guard request.query.release == holding.release else { return .wrongVersion }
    for task in request.tasks where holding.slice(task.shard) == nil { return .wrongVersion }
    if let fault = Self.fault(of: request, holding: holding) { return .workerError(fault) }
    leg = (request, holding)
    let query = request.query
    let stride = Slice.stride(dimension: holding.dimension)
    let vector = self.query.room(for: stride)
    vector.update(repeating: 0, count: stride)
    for (index, value) in query.vector.enumerated() { vector[index] = value }
    dropped = 0
    scanned = nil
    counts = IndexedScan.Counts()
    reached = -.infinity
    switch query.mode {
    case .retrieve:
      limit = query.k
      // Without a ranker phase 2 changes no score, and a shard owes no more than k.
      source = .vector(quota: holding.ranker.isNone ? min(query.k, query.candidates) : query.candidates)
      if holding.ranker.isNone, query.cap == nil, query.candidates >= query.k, request.tasks.count > 1 {
        reached = indexed.sample(
          request.tasks.compactMap { holding.slice($0.shard) }, query: vector, filter: query.filter,
          wanted: request.tasks.reduce(query.k) { $0 + $1.excludedOrdinals.count + $1.excludedIDs.count })
      }
    case .rank:
      limit = .max
      source = .named
    }
    // Capped lists are joined whole, and capped again.
    merged.begin(limit: query.cap == nil ? limit : .max)
    return nil
  }

  /// Forgets the leg.
  func end() { leg = nil }

  /// Collects a task's candidates, ranks them and takes in the best. False when cancelled.
  func score(_ number: Int, _ room: inout ScoringRoom, _ cancelled: CancellationFlag) -> Bool {
    guard let (request, holding) = leg, let slice = holding.slice(request.tasks[number].shard) else { return false }
    if cancelled.isCancelled { return false }
    let query = request.query
    if scanned != number {
      exclude(request.tasks[number], in: slice)
      guard collect(request.tasks[number], slice, query, &room, cancelled) else { return false }
    }
    let candidates = phase1.chosen()
    room.phase2.begin(
      limit: limit, of: candidates.count, cap: query.cap, groups: query.cap.map { slice.columnBases[$0.column] })
    dropped += holding.ranker.rank(candidates, of: slice, query: query, memory: &room.ranking, into: &room.phase2)
    if cancelled.isCancelled { return false }
    merged.join(room.phase2.sorted(), slice: slice, task: number)
    return true
  }

  /// What the tasks that were scored give.
  ///
  /// - Parameter part: which they were; nil = all.
  func reply(
    part: [Int]? = nil, _ room: inout ScoringRoom, _ cancelled: CancellationFlag
  ) -> Result<ScoreReply, CallFailure> {
    guard let (request, holding) = leg else { preconditionFailure("a reply without a leg") }
    var items = merged.list(request.tasks, holding, cap: request.query.cap, limit: limit)
    addDetails(to: &items, request, holding)
    if request.query.explain, items.count > 0 {
      do throws(CallFailure) {
        items.explanations = try LegExplanation.make(
          of: merged.listed(items.count), request, holding: holding,
          vector: query.room(for: Slice.stride(dimension: holding.dimension)), memory: &room.ranking,
          cancelled: cancelled)
      } catch { return .failure(error) }
    }
    return .success(
      ScoreReply(
        release: holding.release,
        shards: part.map { $0.map { request.tasks[$0].shard } } ?? request.tasks.map(\.shard), items: items,
        droppedNaN: dropped))
  }

  /// What phases over the whole list will look at.
  private func addDetails(to items: inout ScoredList, _ request: ScoreRequest, _ holding: HostedRelease) {
    let query = request.query
    guard query.wantsVectors || !query.wantedColumns.isEmpty else { return }
    if query.wantsVectors { items.vectors.reserveCapacity(items.count * holding.dimension) }
    for entry in merged.listed(items.count) {
      guard let slice = holding.slice(request.tasks[Int(entry.task)].shard) else { continue }
      if query.wantsVectors {
        let start = Int(entry.row) * slice.stride
        items.vectors += slice.vectors[start..<start + holding.dimension]
      }
      for column in query.wantedColumns { items.values.append(slice.columns[column].values[Int(entry.row)]) }
    }
  }

  // MARK: Phase 1

  /// Begins the scan of a task's slice, which has an index.
  func beginScan(_ number: Int) {
    guard let (request, holding) = leg, case .vector(let quota) = source else { return }
    let task = request.tasks[number]
    guard let slice = holding.slice(task.shard), let index = slice.scanIndex else { return }
    exclude(task, in: slice)
    begin(quota, slice, request.query)
    scanned = number
    indexed.begin(
      slice, index, query: query.room(for: slice.stride), exclusions: exclusions(task), filter: request.query.filter,
      reached: needed, isSampled: reached > -.infinity, best: phase1)
  }
  var course: UnsafeMutablePointer<ScanCourse> { indexed.course }
  func ask(about block: Int) -> IndexedScan.Question { indexed.ask(about: block) }
  func take(_ found: Int, of block: Int) { indexed.take(found, of: block, excluded, into: &phase1) }
  func endScan() {
    indexed.end(excluded: excluded, into: &phase1)
    counts.add(indexed.counts)
  }

  private func begin(_ quota: Int, _ slice: Slice, _ query: ScoreQuery) {
    // Without a ranker the retrieval score decides alone: it is capped already here.
    let cap = isFinal ? query.cap : nil
    phase1.begin(limit: quota, of: slice.count, cap: cap, groups: cap.map { slice.columnBases[$0.column] })
  }
  private var isFinal: Bool { leg?.holding.ranker.isNone ?? false }
  /// Without a ranker no row below what the leg has found so far can be in its reply.
  private var needed: Float { isFinal ? max(reached, merged.threshold()) : -.infinity }
  private func exclusions(_ task: ShardTask) -> Int { task.excludedOrdinals.count + task.excludedIDs.count }

  /// Puts a task's candidates into `phase1`. False when cancelled.
  private func collect(
    _ task: ShardTask, _ slice: Slice, _ query: ScoreQuery, _ room: inout ScoringRoom, _ cancelled: CancellationFlag
  ) -> Bool {
    let vector = self.query.room(for: slice.stride)
    switch source {
    case .vector(let quota):
      begin(quota, slice, query)
      if let index = slice.scanIndex {
        indexed.begin(
          slice, index, query: vector, exclusions: exclusions(task), filter: query.filter, reached: needed,
          isSampled: reached > -.infinity, best: phase1)
        defer { counts.add(indexed.counts) }
        return indexed.go(excluded: excluded, into: &phase1, cancelled: cancelled)
      }
      return VectorScan.run(
        slice, query: vector, excluded: excluded, into: &phase1, scores: room.scores.room(for: VectorScan.blockRowsMax),
        picked: room.rows.room(for: VectorScan.blockRowsMax), cancelled: cancelled, filter: query.filter)
    case .named:
      let rows = room.rows.room(for: max(1, task.items.count))
      let filter = query.filter.map { RowFilter(program: $0, columns: slice.columnBases) }
      var count = 0
      for id in task.items {
        guard let row = slice.row(ofID: id), !excluded.contains(slice.ordinal(ofRow: row).rawValue) else { continue }
        if let filter, !filter.passes(row) { continue }
        rows[count] = UInt32(row)
        count += 1
      }
      phase1.begin(limit: count, of: count)
      return gather(rows, count: count, slice: slice, query: vector, &room, cancelled)
    }
  }

  private func exclude(_ task: ShardTask, in slice: Slice) {
    excluded.begin(count: exclusions(task))
    for ordinal in task.excludedOrdinals { excluded.insert(ordinal) }
    for id in task.excludedIDs {
      if let row = slice.row(ofID: id) { excluded.insert(slice.ordinal(ofRow: row).rawValue) }
    }
  }

  /// Gives the named rows their retrieval scores; a row named twice counts once. False when cancelled.
  private func gather(
    _ rows: UnsafeMutablePointer<UInt32>, count: Int, slice: Slice, query: UnsafePointer<Float>,
    _ room: inout ScoringRoom, _ cancelled: CancellationFlag
  ) -> Bool {
    guard count > 0, let vectors = slice.vectors.baseAddress else { return true }
    var numbers = UnsafeMutableBufferPointer(start: rows, count: count)
    numbers.sort()
    let scores = room.scores.room(for: count)
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

  // MARK: Requests

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
    guard query.recent.count % holding.dimension == 0,
      query.recent.count <= RecentFeature.itemsMax * holding.dimension, query.recent.allSatisfy(\.isFinite)
    else {
      return "\(query.recent.count) numbers of recent items; allowed: finite ones, \(holding.dimension) for each of "
        + "at most \(RecentFeature.itemsMax)"
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
    for column in query.wantedColumns {
      for task in request.tasks {
        let columns = holding.slice(task.shard)?.columns.count ?? 0
        guard column < columns else { return "column \(column) is asked for, \(holding.release) has \(columns)" }
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
}
