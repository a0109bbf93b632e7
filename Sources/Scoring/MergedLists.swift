import RankingCore

/// The join of the shards' lists so far: at most `limit` entries, best first.
struct MergedLists: ~Copyable {
  // Not private: as the argument of a noncopyable generic, Swift 6.3 then emits a module that LLVM refuses.
  struct Entry: BitwiseCopyable {
    var score: Float
    var ordinal: UInt64
    var task: UInt32
    var row: UInt32
    var item: ScoredItem { ScoredItem(score: score, ordinal: ItemOrdinal(rawValue: ordinal)) }
  }
  private var entries = ScratchBuffer<Entry>()
  private var spare = ScratchBuffer<Entry>()
  private var count = 0
  private var limit = 0

  mutating func begin(limit: Int) {
    self.limit = limit
    count = 0
  }

  /// Merges in a shard's keys, best first.
  mutating func join(_ keys: UnsafeMutableBufferPointer<UInt64>, slice: Slice, task: Int) {
    let total = min(limit, count + keys.count)
    let old = entries.room(for: max(1, count))
    let new = spare.room(for: max(1, total))
    var (kept, taken) = (0, 0)
    for place in 0..<total {
      if taken < keys.count {
        let key = RowKey(bits: keys[taken])
        let row = slice.row(ofRank: key.rank)
        let item = ScoredItem(score: key.score, ordinal: slice.ordinal(ofRow: row))
        if kept == count || item.precedes(old[kept].item) {
          new[place] = Entry(score: item.score, ordinal: item.ordinal.rawValue, task: UInt32(task), row: UInt32(row))
          taken += 1
          continue
        }
      }
      new[place] = old[kept]
      kept += 1
    }
    swap(&entries, &spare)
    count = total
  }

  /// The score of the worst entry, when there are as many as wanted: what an item needs to get in.
  mutating func threshold() -> Float {
    count == limit && count > 0 ? entries.room(for: count)[count - 1].score : -.infinity
  }

  /// The entries with their ids; with a cap, those of the capped list, at most `limit`, and their groups.
  mutating func list(
    _ tasks: [ShardTask], _ holding: HostedRelease, cap: GroupCap? = nil, limit: Int = .max
  ) -> ScoredList {
    var taken = GroupCounts(max: cap?.max ?? 0)
    let entries = self.entries.room(for: max(1, count))
    var list = ScoredList()
    list.ordinals.reserveCapacity(count)
    list.scores.reserveCapacity(count)
    list.ids.ends.reserveCapacity(count)
    for index in 0..<count {
      let entry = entries[index]
      guard let slice = holding.slice(tasks[Int(entry.task)].shard) else { continue }
      if let cap {
        let group = slice.columns[cap.column].values[Int(entry.row)]
        guard list.count < limit, taken.takes(group) else { continue }
        list.groups.append(group)
      }
      entries[list.count] = entry
      list.append(entry.item, id: slice.id(ofRow: Int(entry.row)))
    }
    return list
  }

  /// The entries of the list that was made last, of so many.
  mutating func listed(_ count: Int) -> UnsafeBufferPointer<Entry> {
    UnsafeBufferPointer(start: entries.room(for: max(1, count)), count: count)
  }
}
