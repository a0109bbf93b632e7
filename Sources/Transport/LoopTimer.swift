import RankingCore

// Timers as objects that know their place in the heap: setting one again, which a coordinator does for every request,
// moves it instead of leaving a stale entry behind, and costs no allocation.

/// Something to do at an instant, on its loop.
public final class LoopTimer {
  fileprivate var at = Instant(nanoseconds: 0)
  /// Index in the heap; -1 = not set.
  fileprivate var place = -1
  private var body: (() -> Void)?
  private let isOnce: Bool

  /// A timer that is set with `EventLoop.arm`, again and again.
  public convenience init(_ body: @escaping () -> Void) { self.init(isOnce: false, body) }
  init(isOnce: Bool, _ body: @escaping () -> Void) {
    self.body = body
    self.isOnce = isOnce
  }

  func fire() {
    let body = body
    if isOnce { self.body = nil }
    body?()
  }
  /// What a cancelled timer would have done is let go at once.
  fileprivate func wasDisarmed() { if isOnce { body = nil } }
}

struct TimerHeap {
  private var heap: [LoopTimer] = []

  var earliest: Instant? { heap.first?.at }

  mutating func arm(_ timer: LoopTimer, at: Instant) {
    let isNew = timer.place < 0
    if isNew {
      timer.place = heap.count
      heap.append(timer)
    }
    let isEarlier = isNew || at < timer.at
    timer.at = at
    if isEarlier { siftUp(timer) } else { siftDown(timer) }
  }

  mutating func disarm(_ timer: LoopTimer) {
    if timer.place >= 0 { remove(timer) }
    timer.wasDisarmed()
  }

  mutating func popDue(_ now: Instant) -> LoopTimer? {
    guard let first = heap.first, first.at <= now else { return nil }
    remove(first)
    return first
  }

  private mutating func remove(_ timer: LoopTimer) {
    let place = timer.place
    timer.place = -1
    let last = heap.removeLast()
    guard last !== timer else { return }
    put(last, place)
    siftUp(last)
    siftDown(last)
  }

  private mutating func put(_ timer: LoopTimer, _ place: Int) {
    heap[place] = timer
    timer.place = place
  }

  private mutating func siftUp(_ timer: LoopTimer) {
    while timer.place > 0 {
      let place = timer.place
      let parent = heap[(place - 1) / 2]
      guard timer.at < parent.at else { return }
      put(timer, (place - 1) / 2)
      put(parent, place)
    }
  }

  private mutating func siftDown(_ timer: LoopTimer) {
    while true {
      let place = timer.place
      var least = timer
      for child in 2 * place + 1..<2 * place + 3 where child < heap.count && heap[child].at < least.at {
        least = heap[child]
      }
      guard least !== timer else { return }
      put(timer, least.place)
      put(least, place)
    }
  }
}
