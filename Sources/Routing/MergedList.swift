import RankingCore

/// The join of the sorted lists of a request's legs: commutative, associative, idempotent. A shard that answers twice
/// (a hedge and its leg, a retry whose first answer came after all) changes nothing, because equal items are one item.
///
///     join [(9,a) (5,b)]  with  [(7,c) (5,b) (1,d)]  =  [(9,a) (7,c) (5,b) (1,d)]   cut at the limit
struct MergedList: Sendable {
  private(set) var entries: [Answer.Entry] = []
  private(set) var lists: [ScoredList] = []
  private var scratch: [Answer.Entry] = []
  private(set) var limit: Int

  init(limit: Int) { self.limit = limit }

  mutating func begin(limit: Int) {
    self.limit = limit
    entries.removeAll(keepingCapacity: true)
    lists.removeAll(keepingCapacity: true)
  }

  /// Leaves out what lies beyond the groups' cap, and cuts the rest at `limit`. For a list joined without limit.
  mutating func cap(_ cap: GroupCap, limit: Int) {
    var counts = GroupCounts(max: cap.max)
    var kept = 0
    for entry in entries where kept < limit {
      let groups = lists[Int(entry.list)].groups
      guard groups.isEmpty || counts.takes(groups[Int(entry.position)]) else { continue }
      entries[kept] = entry
      kept += 1
    }
    entries.removeLast(entries.count - kept)
  }

  /// Gives away what was joined; the list is empty afterwards.
  mutating func take() -> (entries: [Answer.Entry], lists: [ScoredList]) {
    defer {
      entries = []
      lists = []
    }
    return (entries, lists)
  }

  /// - Parameter list: sorted in the total order, without NaN (`ScoredList.isWellFormed`).
  mutating func join(_ list: ScoredList) {
    let source = Int32(lists.count)
    lists.append(list)
    scratch.removeAll(keepingCapacity: true)
    scratch.reserveCapacity(min(limit, entries.count + list.count))
    var (mine, theirs) = (0, 0)
    let (mineCount, theirCount) = (entries.count, list.count)
    list.ordinals.withUnsafeBufferPointer { ordinals in
      list.scores.withUnsafeBufferPointer { scores in
        while scratch.count < limit {
          if theirs == theirCount {
            guard mine < mineCount else { break }
            scratch.append(entries[mine])
            mine += 1
            continue
          }
          let item = ScoredItem(score: scores[theirs], ordinal: ItemOrdinal(rawValue: ordinals[theirs]))
          if mine < mineCount, !item.precedes(entries[mine].item) {
            if entries[mine].item == item { theirs += 1 }
            scratch.append(entries[mine])
            mine += 1
          } else {
            scratch.append(Answer.Entry(item: item, list: source, position: Int32(theirs)))
            theirs += 1
          }
        }
      }
    }
    swap(&entries, &scratch)
  }
}
