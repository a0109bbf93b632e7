import RankingCore

// The best `limit` keys of a stream. A heap moves something for every key that enters; this appends, and each time its
// room is full it throws the worse half away by a quickselect:
//
//     |<------ limit ------>|<------ spare ------>|
//     | the best so far     | newcomers above floor | → full → quickselect → floor rises
//
// While scores come in random order each prune doubles the rows seen, so both the prunes and the keys that get this far
// grow with the logarithm of the rows.

package struct BestRows: ~Copyable {
  /// The fewest newcomers between two prunes.
  private static let spareMin = 64

  private var buffer = ScratchBuffer<UInt64>()
  private var keys: UnsafeMutablePointer<UInt64>
  package private(set) var limit = 1
  private var room = 1
  private var count = 0
  /// With a cap: the groups by row, and how many of each are kept.
  private var groups: UnsafePointer<Float>?
  private var taken = GroupCounts(max: 1)
  /// Whether a cap on groups decides, beside the keys, which are the best.
  package var isCapped: Bool { groups != nil }
  /// Only keys above this can still be among the best; 0 until `limit` keys have been pruned once.
  package private(set) var floor: UInt64 = 0

  package init() { keys = buffer.room(for: 1) }

  /// A score below this cannot enter.
  @inline(__always)
  package var threshold: Float { floor == 0 ? -.infinity : RowKey(bits: floor).score }

  /// Forgets everything and makes room for the best `limit` (at least 1) of at most `stream` keys.
  ///
  /// - Parameter groups: with `cap`, the rows' groups, by rank: the best are then those of the capped list.
  package mutating func begin(limit: Int, of stream: Int, cap: GroupCap? = nil, groups: UnsafePointer<Float>? = nil) {
    self.groups = cap == nil ? nil : groups
    if let cap { taken = GroupCounts(max: cap.max) }
    self.limit = max(1, min(limit, stream))
    room = self.limit + max(self.limit, BestRows.spareMin)
    keys = buffer.room(for: room)
    count = 0
    floor = 0
  }

  @inline(__always)
  package mutating func offer(_ key: RowKey) {
    guard key.bits > floor else { return }
    keys[count] = key.bits
    count += 1
    if count == room { prune() }
  }

  /// The best `limit` of what was offered, in any order; valid until the next `begin` or `offer`.
  package mutating func chosen() -> UnsafeMutableBufferPointer<UInt64> {
    if count > limit || isCapped { prune() }
    return UnsafeMutableBufferPointer(start: keys, count: count)
  }

  /// The best `limit` of what was offered, best first; valid until the next `begin` or `offer`.
  package mutating func sorted() -> UnsafeMutableBufferPointer<UInt64> {
    let best = chosen()
    BestRows.sort(keys, count: best.count)
    return best
  }

  /// Raises the floor to what the best `limit` reach by now, where enough has come to make that worth while.
  package mutating func tighten() {
    if count > limit + BestRows.newcomersMin || (floor == 0 && count >= limit) { prune() }
  }
  private static let newcomersMin = 16

  @inline(never)
  private mutating func prune() {
    if let groups { return pruneCapped(groups) }
    BestRows.select(keys, count: count, limit: limit)
    count = limit
    floor = keys[limit - 1]
  }

  /// Keeps the capped list of what was offered: what is passed over now would be passed over later, too.
  private mutating func pruneCapped(_ groups: UnsafePointer<Float>) {
    BestRows.sort(keys, count: count)
    taken.removeAll()
    var kept = 0
    for place in 0..<count where kept < limit {
      guard taken.takes(groups[Int(RowKey(bits: keys[place]).rank)]) else { continue }
      keys[kept] = keys[place]
      kept += 1
    }
    count = kept
    floor = kept == limit ? keys[limit - 1] : 0
  }

  /// Moves the `limit` greatest of `count` distinct keys to the front, the least of them last among these.
  package static func select(_ keys: UnsafeMutablePointer<UInt64>, count: Int, limit: Int) {
    var low = 0
    var high = count - 1
    let target = limit - 1
    var rounds = 0
    while low < high {
      rounds += 1
      // Pivots this unlucky are no accident: sorting bounds the work.
      if rounds > 64 {
        return sort(keys + low, count: high - low + 1)
      }
      let (a, b, c) = (keys[low], keys[(low + high) / 2], keys[high])
      let pivot = max(min(a, b), min(max(a, b), c))
      var i = low
      var j = high
      while i <= j {
        while keys[i] > pivot { i += 1 }
        while keys[j] < pivot { j -= 1 }
        if i <= j {
          (keys[i], keys[j]) = (keys[j], keys[i])
          i += 1
          j -= 1
        }
      }
      if target <= j {
        high = j
      } else if target >= i {
        low = i
      } else {
        return
      }
    }
  }

  /// Heapsort, greatest first: in place, without the buffer that the library's sort allocates.
  package static func sort(_ keys: UnsafeMutablePointer<UInt64>, count: Int) {
    func sink(_ start: Int, _ end: Int) {
      let key = keys[start]
      var hole = start
      while true {
        var child = 2 * hole + 1
        if child >= end { break }
        if child + 1 < end, keys[child + 1] < keys[child] { child += 1 }
        if keys[child] >= key { break }
        keys[hole] = keys[child]
        hole = child
      }
      keys[hole] = key
    }
    for start in stride(from: count / 2 - 1, through: 0, by: -1) { sink(start, count) }
    for end in stride(from: count - 1, to: 0, by: -1) {
      (keys[0], keys[end]) = (keys[end], keys[0])
      sink(0, end)
    }
  }
}
