import RankingCore

/// What will happen when, earliest first; at one instant in the order of scheduling, so that a run is the same every
/// time.
struct EventQueue<Payload> {
  private var heap: [(at: Instant, order: UInt64, payload: Payload)] = []
  private var scheduled: UInt64 = 0

  var isEmpty: Bool { heap.isEmpty }
  var earliest: Instant? { heap.first?.at }

  mutating func schedule(_ payload: Payload, at: Instant) {
    scheduled += 1
    heap.append((at, scheduled, payload))
    var child = heap.count - 1
    while child > 0, precedes(child, (child - 1) / 2) {
      heap.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  mutating func next() -> (at: Instant, payload: Payload)? {
    guard let first = heap.first else { return nil }
    let last = heap.removeLast()
    if !heap.isEmpty {
      heap[0] = last
      var parent = 0
      while true {
        var least = parent
        if 2 * parent + 1 < heap.count, precedes(2 * parent + 1, least) { least = 2 * parent + 1 }
        if 2 * parent + 2 < heap.count, precedes(2 * parent + 2, least) { least = 2 * parent + 2 }
        if least == parent { break }
        heap.swapAt(parent, least)
        parent = least
      }
    }
    return (first.at, first.payload)
  }

  private func precedes(_ a: Int, _ b: Int) -> Bool {
    heap[a].at != heap[b].at ? heap[a].at < heap[b].at : heap[a].order < heap[b].order
  }
}
