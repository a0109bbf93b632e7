import RankingCore

/// A leg of several shards on several compute threads: each thread scores some of its tasks, and what they give is
/// joined into what one thread would have given.
public enum LegParts {
  /// The leg's tasks in at most `count` parts with about as many rows each: places in `request.tasks`, ascending.
  public static func split(_ request: ScoreRequest, holding: HostedRelease, into count: Int) -> [[Int]] {
    let rows = request.tasks.map { holding.slice($0.shard)?.count ?? 0 }
    var parts = [(tasks: [Int], rows: Int)](
      repeating: ([], 0), count: max(1, min(count, request.tasks.count)))
    for task in rows.indices.sorted(by: { (rows[$1], $0) < (rows[$0], $1) }) {
      let least = parts.indices.min { (parts[$0].rows, $0) < (parts[$1].rows, $1) }!
      parts[least].tasks.append(task)
      parts[least].rows += rows[task]
    }
    return parts.map { $0.tasks.sorted() }
  }

  /// The reply of the whole leg from those of its parts. (One that is to be explained is not divided.)
  public static func join(_ parts: [ScoreReply], of request: ScoreRequest) -> ScoreReply {
    guard parts.count > 1 else { return parts[0] }
    let limit = request.query.mode == .retrieve ? request.query.k : .max
    var taken = GroupCounts(max: request.query.cap?.max ?? 0)
    var heads = [Int](repeating: 0, count: parts.count)
    var list = ScoredList()
    while list.count < limit {
      var best: Int?
      for part in parts.indices where heads[part] < parts[part].items.count {
        if let other = best, !parts[part].items[heads[part]].precedes(parts[other].items[heads[other]]) { continue }
        best = part
      }
      guard let best else { break }
      let (items, place) = (parts[best].items, heads[best])
      heads[best] += 1
      if request.query.cap != nil {
        guard taken.takes(items.groups[place]) else { continue }
        list.groups.append(items.groups[place])
      }
      func copy(_ from: [Float], _ to: inout [Float]) {
        let width = from.count / max(1, items.count)
        to += from[place * width..<(place + 1) * width]
      }
      copy(items.vectors, &list.vectors)
      copy(items.values, &list.values)
      items.ids.bytes.withUnsafeBytes {
        list.append(items[place], id: UnsafeRawBufferPointer(rebasing: $0[items.ids.range(place)]))
      }
    }
    return ScoreReply(
      release: parts[0].release, shards: parts.flatMap(\.shards), items: list,
      droppedNaN: parts.reduce(0) { $0 + $1.droppedNaN })
  }
}
