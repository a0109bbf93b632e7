import RankingCore

// Live latencies of one worker: a histogram of the last few slots of time, forgotten slot by slot.
//
//     16 µs ──┬──┬──┬──┬── 32 µs ──┬──┬──┬──┬── 64 µs …    four buckets per doubling: a quantile is at most 25 % high
//
//     slot 0 │ slot 1 │ slot 2 │ slot 3        one of them is being filled; when time moves on, the oldest is emptied
//
// It answers "what is p95 now?" and "is its median three times its siblings'?", for which 25 % is plenty.

struct LatencyRing: Sendable {
  private static let firstBit = 14
  private static let buckets = 96
  private let slots: Int
  private let slotNanoseconds: UInt64
  private var counts: [UInt32]
  private var perSlot: [Int]
  private var current: UInt64 = 0
  /// Latencies remembered.
  private(set) var count = 0

  init(slots: Int, slot: Duration) {
    self.slots = slots
    slotNanoseconds = UInt64(max(1, slot.nanoseconds))
    counts = [UInt32](repeating: 0, count: slots * Self.buckets)
    perSlot = [Int](repeating: 0, count: slots)
  }

  mutating func record(_ latency: Duration, now: Instant) {
    advance(now)
    let slot = Int(current % UInt64(slots))
    counts[slot * Self.buckets + Self.bucket(UInt64(max(0, latency.nanoseconds)))] += 1
    perSlot[slot] += 1
    count += 1
  }

  /// Forgets the slots that have gone by.
  mutating func advance(_ now: Instant) {
    let number = now.nanoseconds / slotNanoseconds
    guard number != current else { return }
    let passed = number > current ? min(UInt64(slots), number - current) : UInt64(slots)
    for step in 0..<passed {
      let slot = Int((number - step) % UInt64(slots))
      guard perSlot[slot] > 0 else { continue }
      count -= perSlot[slot]
      perSlot[slot] = 0
      for index in slot * Self.buckets..<(slot + 1) * Self.buckets { counts[index] = 0 }
    }
    current = number
  }

  mutating func removeAll() {
    for index in counts.indices { counts[index] = 0 }
    for index in perSlot.indices { perSlot[index] = 0 }
    count = 0
  }

  /// The upper end of the bucket that the quantile lies in; `nil` when nothing is remembered.
  /// - Parameter fraction: 0…1.
  func quantile(_ fraction: Double) -> Duration? {
    guard count > 0 else { return nil }
    let rank = max(1, Int((fraction * Double(count)).rounded(.up)))
    var seen = 0
    for bucket in 0..<Self.buckets {
      for slot in 0..<slots { seen += Int(counts[slot * Self.buckets + bucket]) }
      if seen >= rank { return .nanoseconds(Int64(Self.upperEnd(bucket))) }
    }
    return .nanoseconds(Int64(Self.upperEnd(Self.buckets - 1)))
  }

  private static func bucket(_ nanoseconds: UInt64) -> Int {
    let value = max(nanoseconds, 1 << UInt64(firstBit))
    let bits = 63 - value.leadingZeroBitCount
    let quarter = Int((value >> UInt64(bits - 2)) & 3)
    return min(buckets - 1, (bits - firstBit) * 4 + quarter)
  }
  private static func upperEnd(_ bucket: Int) -> UInt64 {
    let bits = UInt64(firstBit + bucket / 4)
    return (1 << bits) + UInt64(bucket % 4 + 1) << (bits - 2)
  }
}
