import RankingCore

// Whether a loop that has nothing to do looks again and again for a while before it sleeps. Falling asleep and being
// woken costs a thread some 20 us, and whoever wakes it some 8 us more (an interrupt to another core); a reply that is
// 50 us away is cheaper to wait for. One that is 5 ms away is not, so the loop remembers how often it paid:
//
//     waits that brought something in time:  1 1 1 1 0 1 …  average ≥ ¼ ─► look before every sleep
//                                            0 0 0 1 0 0 …  below       ─► before one sleep in 16, to notice a change

struct BusyPoll {
  /// How long to look; zero = never.
  var limit = Duration.zero
  private var paid = 1.0
  private var skipped = 0

  private static let paidMin = 0.25
  private static let weight = 0.05
  private static let skippedMax = 15

  mutating func begins() -> Bool {
    guard limit > .zero else { return false }
    if paid >= Self.paidMin { return true }
    guard skipped == Self.skippedMax else {
      skipped += 1
      return false
    }
    skipped = 0
    return true
  }
  mutating func ended(found: Bool) { paid += Self.weight * ((found ? 1 : 0) - paid) }
}
