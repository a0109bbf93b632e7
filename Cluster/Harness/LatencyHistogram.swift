// Latencies by the million in a few tens of kilobytes, exact to three significant digits.
//
//   nanoseconds   0 … 2047 : one bucket each
//                 2048 … 4095 : buckets of 2
//                 4096 … 8191 : buckets of 4     (1024 buckets per doubling: at most 1/1024 of the value wide)
//
// A log-linear histogram, like Gil Tene's HdrHistogram.

/// Counts of durations, from which percentiles are read.
public struct LatencyHistogram: Sendable, Equatable {
  private static let exactBits = 11
  private static let perDoubling = 1 << (exactBits - 1)
  /// Everything above counts as this: 2⁴¹ ns, about 37 minutes.
  private static let largest: UInt64 = (1 << 41) - 1

  public private(set) var count = 0
  /// The largest duration seen, exactly; zero when nothing was recorded.
  public private(set) var max: Duration = .zero
  private var counts: [UInt64]

  public init() {
    counts = [UInt64](repeating: 0, count: Self.bucket(Self.largest) + 1)
  }

  /// Adds one duration; negative ones count as zero.
  public mutating func record(_ duration: Duration) {
    let (seconds, attoseconds) = duration.components
    let nanoseconds = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    let value =
      nanoseconds.overflow
      ? (seconds < 0 ? 0 : Self.largest)
      : UInt64(Swift.max(0, nanoseconds.partialValue.addingReportingOverflow(attoseconds / 1_000_000_000).partialValue))
    counts[Self.bucket(Swift.min(value, Self.largest))] += 1
    count += 1
    if duration > max { max = duration }
  }

  public mutating func add(_ other: LatencyHistogram) {
    for index in counts.indices { counts[index] += other.counts[index] }
    count += other.count
    max = Swift.max(max, other.max)
  }

  /// The smallest bucket's upper end below which at least `fraction` of what was recorded lies, never above `max`;
  /// `nil` when nothing was recorded.
  /// - Parameter fraction: 0.5 for the median, 0.999 for p99.9.
  public func quantile(_ fraction: Double) -> Duration? {
    guard count > 0 else { return nil }
    let rank = UInt64(Swift.max(1, (fraction * Double(count)).rounded(.up)))
    var seen: UInt64 = 0
    for (index, bucket) in counts.enumerated() where bucket > 0 {
      seen += bucket
      if seen >= rank { return Swift.min(.nanoseconds(Int64(Self.upperEnd(of: index))), max) }
    }
    return max
  }

  private static func bucket(_ value: UInt64) -> Int {
    let bits = UInt64.bitWidth - value.leadingZeroBitCount
    guard bits > exactBits else { return Int(value) }
    let shift = bits - exactBits
    return (shift + 1) * perDoubling + Int(value >> UInt64(shift)) - perDoubling
  }

  private static func upperEnd(of bucket: Int) -> UInt64 {
    guard bucket >= 2 * perDoubling else { return UInt64(bucket) }
    let shift = bucket / perDoubling - 1
    let mantissa = UInt64(bucket % perDoubling + perDoubling)
    return ((mantissa + 1) << UInt64(shift)) - 1
  }
}
