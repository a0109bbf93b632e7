import RankingCore

// When requests are due, decided before any of them is sent. An open loop: a server that stalls does not slow the
// arrivals down, so the stall is measured by everyone who would have come meanwhile.
//
//   constant  |    |    |    |    |          poisson   || |       |  |     |        (the same mean rate)

/// The times at which requests are due.
package struct ArrivalSchedule: Sendable {
  private let rate: Double
  private let isPoisson: Bool
  private var generator: SeededGenerator
  private var count = 0
  private var last = 0.0

  /// - Parameter rate: requests per second, above zero.
  package init(rate: Double, poisson: Bool, seed: UInt64) {
    self.rate = rate
    isPoisson = poisson
    generator = SeededGenerator(seed: seed)
  }

  /// When the next request is due, counted from the start.
  package mutating func next() -> Duration {
    if isPoisson {
      last += -logOfUnit() / rate
    } else {
      // Multiplied, not summed: a million arrivals later it is still on time.
      last = Double(count) / rate
    }
    count += 1
    return .nanoseconds(Int64((last * 1e9).rounded()))
  }

  /// The logarithm of a uniform number in (0, 1].
  private mutating func logOfUnit() -> Double { naturalLogarithm(1 - generator.unit()) }
}
