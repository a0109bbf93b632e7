// Time as an argument. Pure code never asks what time it is: the process (or the simulator) says `now`.

/// A point on one process's monotonic clock, in nanoseconds since an origin of that clock. Never sent over the wire:
/// a hop is told what remains, not when it ends.
public struct Instant: Hashable, Comparable, Sendable, CustomStringConvertible {
  public var nanoseconds: UInt64
  @inlinable public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }
  @inlinable public static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }

  /// Later by `duration`; saturates at both ends instead of trapping.
  @inlinable
  public static func + (a: Instant, duration: Duration) -> Instant {
    let delta = duration.nanoseconds
    if delta >= 0 {
      let (sum, overflow) = a.nanoseconds.addingReportingOverflow(UInt64(delta))
      return Instant(nanoseconds: overflow ? .max : sum)
    }
    return Instant(nanoseconds: a.nanoseconds &- Swift.min(a.nanoseconds, delta.magnitude))
  }

  /// What lies between two instants; negative when `b` is the later one.
  @inlinable
  public static func - (a: Instant, b: Instant) -> Duration {
    a >= b
      ? .nanoseconds(Int64(clamping: a.nanoseconds - b.nanoseconds))
      : .nanoseconds(-Int64(clamping: b.nanoseconds - a.nanoseconds))
  }
  public var description: String { "\(nanoseconds / 1_000_000)ms" }
}

/// The one absolute time by which a whole request must be answered.
public typealias Deadline = Instant

extension Duration {
  /// The whole duration in nanoseconds, clamped to what an `Int64` holds (±292 years).
  @inlinable
  public var nanoseconds: Int64 {
    let (seconds, attoseconds) = components
    let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    if overflow { return seconds < 0 ? .min : .max }
    let (sum, overflowed) = scaled.addingReportingOverflow(attoseconds / 1_000_000_000)
    return overflowed ? (scaled < 0 ? .min : .max) : sum
  }

  /// The duration in milliseconds, for people and for JSON.
  @inlinable public var milliseconds: Double { Double(nanoseconds) / 1e6 }
}
