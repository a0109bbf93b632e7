import RankingCore

/// The join of the sorted lists of a request's legs: commutative, associative, idempotent. A shard that answers twice
/// (a retry whose first answer came after all) changes nothing, because equal items are one item.
///
///     join [(9,a) (5,b)]  with  [(7,c) (5,b) (1,d)]  =  [(9,a) (7,c) (5,b) (1,d)]   cut at the limit
struct MergedList: Sendable {
  private(set) var entries: [Answer.Entry] = []
  private(set) var lists: [ScoredList] = []
  private var scratch: [Answer.Entry] = []
  let limit: Int

  init(limit: Int) { self.limit = limit }

  /// - Parameter list: sorted in the total order, without NaN (`ScoredList.isWellFormed`).
  mutating func join(_ list: ScoredList) {
    let source = Int32(lists.count)
    lists.append(list)
    scratch.removeAll(keepingCapacity: true)
    scratch.reserveCapacity(min(limit, entries.count + list.count))
    var (mine, theirs) = (0, 0)
    while scratch.count < limit {
      if theirs == list.count {
        guard mine < entries.count else { break }
        scratch.append(entries[mine])
        mine += 1
        continue
      }
      let item = list[theirs]
      if mine < entries.count, !item.precedes(entries[mine].item) {
        if entries[mine].item == item { theirs += 1 }
        scratch.append(entries[mine])
        mine += 1
      } else {
        scratch.append(Answer.Entry(item: item, list: source, position: Int32(theirs)))
        theirs += 1
      }
    }
    swap(&entries, &scratch)
  }
}
