// Scores, their one total order, and the best k of a stream of them.

/// An item's place and its score. A score is never NaN.
public struct ScoredItem: Hashable, Sendable {
  public var score: Float
  public var ordinal: ItemOrdinal
  @inlinable
  public init(score: Float, ordinal: ItemOrdinal) {
    self.score = score
    self.ordinal = ordinal
  }

  /// The total order of every list in the cluster: score descending, then ordinal ascending.
  @inlinable @inline(__always)
  public func precedes(_ other: ScoredItem) -> Bool {
    score > other.score || (score == other.score && ordinal.rawValue < other.ordinal.rawValue)
  }
}

/// The best `k` of the items offered, in the total order, whatever the order of offering.
///
/// A binary heap with the worst kept item at its root: offering is one comparison while nothing improves.
///
///     var top = TopK(k: 2)
///     top.offer(ScoredItem(score: 1, ordinal: ItemOrdinal(7)))
///     …
///     let best = top.sorted()
public struct TopK: Sendable {
  public let k: Int
  @usableFromInline var heap: [ScoredItem] = []

  /// - Parameter k: how many to keep, at least 1.
  @inlinable
  public init(k: Int) {
    precondition(k >= 1, "TopK keeps at least one item, not \(k)")
    self.k = k
    heap.reserveCapacity(Swift.min(k, 1024))
  }

  @inlinable public var count: Int { heap.count }

  /// An item whose score is strictly below this cannot enter; −∞ until k items are held.
  @inlinable public var threshold: Float { heap.count < k ? -.infinity : heap[0].score }

  @inlinable
  public mutating func offer(_ item: ScoredItem) {
    if heap.count < k {
      heap.append(item)
      siftUp(heap.count - 1)
    } else if item.precedes(heap[0]) {
      heap[0] = item
      siftDown(0)
    }
  }

  /// The kept items, best first.
  public consuming func sorted() -> [ScoredItem] {
    var items = heap
    items.sort { $0.precedes($1) }
    return items
  }

  @usableFromInline
  mutating func siftUp(_ start: Int) {
    var child = start
    while child > 0 {
      let parent = (child - 1) / 2
      guard heap[parent].precedes(heap[child]) else { return }
      heap.swapAt(parent, child)
      child = parent
    }
  }

  @usableFromInline
  mutating func siftDown(_ start: Int) {
    var parent = start
    while true {
      var worst = parent
      let left = 2 * parent + 1
      if left < heap.count, heap[worst].precedes(heap[left]) { worst = left }
      if left + 1 < heap.count, heap[worst].precedes(heap[left + 1]) { worst = left + 1 }
      if worst == parent { return }
      heap.swapAt(parent, worst)
      parent = worst
    }
  }
}
