import RankingCore

/// What will happen when, earliest first; at one instant in the order of scheduling, so that a run is the same every
/// time.
///
///     heap    (at, order, slot) (at, order, slot) …     24 bytes each: cheap to move
///     slots   payload, payload, free, payload …         stay where they are until their time comes
struct EventQueue<Payload> {
  private struct Entry {
    var at: UInt64
    var order: UInt32
    var slot: UInt32
    @inline(__always)
    func precedes(_ other: Entry) -> Bool {
      at < other.at || (at == other.at && order < other.order)
    }
  }
  private var heap: [Entry] = []
  private var slots: [Payload?] = []
  private var free: [UInt32] = []
  private var scheduled: UInt32 = 0

  var isEmpty: Bool { heap.isEmpty }
  var earliest: Instant? { heap.first.map { Instant(nanoseconds: $0.at) } }

  mutating func schedule(_ payload: Payload, at: Instant) {
    scheduled += 1
    let slot: UInt32
    if let reused = free.popLast() {
      slot = reused
      slots[Int(slot)] = payload
    } else {
      slot = UInt32(slots.count)
      slots.append(payload)
    }
    let entry = Entry(at: at.nanoseconds, order: scheduled, slot: slot)
    heap.append(entry)
    var child = heap.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      guard entry.precedes(heap[parent]) else { break }
      heap[child] = heap[parent]
      child = parent
    }
    heap[child] = entry
  }

  mutating func next() -> (at: Instant, payload: Payload)? {
    guard let first = heap.first else { return nil }
    let last = heap.removeLast()
    if !heap.isEmpty {
      var parent = 0
      while true {
        var least = 2 * parent + 1
        guard least < heap.count else { break }
        if least + 1 < heap.count, heap[least + 1].precedes(heap[least]) { least += 1 }
        guard heap[least].precedes(last) else { break }
        heap[parent] = heap[least]
        parent = least
      }
      heap[parent] = last
    }
    guard let payload = slots[Int(first.slot)].take() else { preconditionFailure("slot \(first.slot) is empty") }
    free.append(first.slot)
    return (Instant(nanoseconds: first.at), payload)
  }
}
