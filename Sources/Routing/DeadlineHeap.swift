import RankingCore

/// Instants with a payload, earliest first. Entries whose request has ended stay until their time comes or `prune`
/// throws them out: ending a request costs nothing here.
struct DeadlineHeap: Sendable {
  enum Purpose: Sendable, Equatable {
    /// Put the answer together with what is there.
    case merge
    /// This leg deserves a second one by now.
    case hedge(UInt16)
  }
  struct Entry: Sendable {
    var at: Instant
    var flight: FlightID
    var purpose: Purpose
  }
  private var heap: [Entry] = []

  var earliest: Instant? { heap.first?.at }
  var count: Int { heap.count }

  mutating func insert(_ entry: Entry) {
    heap.append(entry)
    var child = heap.count - 1
    while child > 0, heap[child].at < heap[(child - 1) / 2].at {
      heap.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  mutating func popDue(_ now: Instant) -> Entry? {
    guard let first = heap.first, first.at <= now else { return nil }
    removeFirst()
    return first
  }

  /// Drops entries at the front that `isOver` says have ended, so that no wake-up is spent on them.
  mutating func prune(_ isOver: (Entry) -> Bool) {
    while let first = heap.first, isOver(first) { removeFirst() }
  }

  private mutating func removeFirst() {
    let last = heap.removeLast()
    guard !heap.isEmpty else { return }
    heap[0] = last
    var parent = 0
    while true {
      var least = parent
      if 2 * parent + 1 < heap.count, heap[2 * parent + 1].at < heap[least].at { least = 2 * parent + 1 }
      if 2 * parent + 2 < heap.count, heap[2 * parent + 2].at < heap[least].at { least = 2 * parent + 2 }
      if least == parent { return }
      heap.swapAt(parent, least)
      parent = least
    }
  }
}
