import CScoring
import RankingCore

/// The explanations of a leg's reply, made when its best k are known: of those rows alone, and from the same numbers.
enum LegExplanation {
  /// - Parameters:
  ///   - entries: the listed items, at least one.
  ///   - vector: the query, padded to the slices' stride.
  ///   - cancelled: looked at between items, which take some 10 µs each with 500 trees.
  /// - Throws: `.workerError` when there are more numbers than a reply may hold, `.deadlineExceeded` when cancelled.
  static func make(
    of entries: UnsafeBufferPointer<MergedLists.Entry>, _ request: ScoreRequest, holding: HostedRelease,
    vector: UnsafePointer<Float>, memory: inout RankerMemory, cancelled: CancellationFlag
  ) throws(CallFailure) -> Explanations? {
    let query = request.query
    let slices = request.tasks.map { holding.slice($0.shard) }
    let layout = ContributionLayout(
      itemColumns: slices.first??.columns.count ?? 0, userColumns: query.userValues.count,
      contextColumns: query.contextValues.count, hasRecent: holding.ranker.usesRecent)
    do throws(RankingError) { try layout.check(items: entries.count) } catch { throw .workerError(error.message) }
    var retrieval: [Float] = []
    var raw: [Double] = []
    var outputs: [Float] = []
    let contributions = UnsafeMutablePointer<Double>.allocate(capacity: entries.count * layout.width)
    defer { contributions.deallocate() }
    contributions.initialize(repeating: 0, count: entries.count * layout.width)
    for (index, entry) in entries.enumerated() {
      if cancelled.isCancelled { throw .deadlineExceeded }
      guard let slice = slices[Int(entry.task)] else { throw .wrongVersion }
      var item = ExplainedItem(
        row: Int(entry.row), retrieval: Self.retrieval(entry.row, of: slice, vector), slice: slice, query: query)
      if layout.hasRecent {
        item.recent = [Float](repeating: .nan, count: RecentFeature.width)
        var row = entry.row
        memory.similarity.fill(count: 1, rows: &row, slice: slice, query: query, features: &item.recent)
      }
      var account = ItemAccount(layout, places: contributions + index * layout.width)
      holding.ranker.explain(item, memory: &memory, into: &account)
      retrieval.append(item.retrieval)
      raw.append(account.raw)
      outputs += account.outputs
    }
    return Explanations(
      items: entries.count, retrieval: retrieval, raw: raw, outputs: outputs,
      contributions: Array(UnsafeBufferPointer(start: contributions, count: entries.count * layout.width)))
  }

  /// A row's retrieval score: by the kernel that gave it, so that the bits are the same.
  private static func retrieval(_ row: UInt32, of slice: Slice, _ query: UnsafePointer<Float>) -> Float {
    var (row, score) = (row, Float(0))
    cscoring_active().pointee.dot_gather(slice.vectors.baseAddress!, slice.stride, &row, 1, query, &score)
    return score
  }
}
