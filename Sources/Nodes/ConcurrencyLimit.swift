import RankingCore

// How many legs a worker takes in, learnt from how long they take: while latency stays near what it has long been, a
// little more is allowed; when it grows, less.
//
//     gradient = tolerance × usual ÷ now, within ½ … 1        usual: a slow moving average, now: a quick one
//     limit'   = limit × gradient + √limit                    the root: always room to find out
//     limit    = limit + 0.2 × (limit' − limit)               only while at least half of the limit is in use
//
// (Netflix concurrency-limits, Gradient2.) Worked example: limit 16, legs take 2 ms as ever: gradient 1, limit' 20,
// limit 16.8. They take 8 ms: gradient 0.5 (1.5 × 2 ÷ 8 is less), limit' 12, limit 15.2; and 11.3 after five more such.

struct ConcurrencyLimit: Sendable {
  static let tolerance = 1.5
  static let smoothing = 0.2
  static let usualWeight = 0.005
  static let currentWeight = 0.1

  private(set) var value: Double
  private let range: ClosedRange<Double>
  private var usual = 0.0
  private var current = 0.0

  init(start: Int, range: ClosedRange<Int>) {
    self.range = Double(range.lowerBound)...Double(range.upperBound)
    value = min(max(Double(start), self.range.lowerBound), self.range.upperBound)
  }

  /// A leg was scored.
  /// - Parameters:
  ///   - latency: from its arrival to its end.
  ///   - busy: legs running and waiting when it ended, itself among them.
  mutating func observe(_ latency: Duration, busy: Int) {
    let sample = Double(max(1, latency.nanoseconds))
    usual = usual == 0 ? sample : usual + Self.usualWeight * (sample - usual)
    current = current == 0 ? sample : current + Self.currentWeight * (sample - current)
    // After an overload the usual must not stay at what the overload made usual.
    if usual > 2 * current { usual *= 0.95 }
    guard Double(busy) * 2 >= value else { return }
    let gradient = min(1, max(0.5, Self.tolerance * usual / current))
    let target = value * gradient + value.squareRoot()
    value = min(max(value + Self.smoothing * (target - value), range.lowerBound), range.upperBound)
  }
}
