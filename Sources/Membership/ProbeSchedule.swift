import RankingCore

/// The numbers of failure detection. Origins: the failure policy, "Health and membership".
public struct MembershipPolicy: Sendable {
  /// `Status` is asked this often while nothing changes …
  public var probeInterval: Duration = .milliseconds(300)
  /// … spread by this share, so that coordinators and workers do not fall into step.
  public var probeJitter = 0.10
  /// While a member's state is changing: quick confirmation costs little and halves detection.
  public var probeIntervalChanging: Duration = .milliseconds(100)
  /// While down: it may come back any time, but nobody waits for it.
  public var probeIntervalDown: Duration = .seconds(1)
  /// Sent on schedule whatever is outstanding; each probe has its own limit.
  public var probeTimeout: Duration = .milliseconds(300)
  /// Misses in a row that make a member down: worst case 330 + 300 + 100 + 300 ms after a freeze, below 1.2 s.
  public var missesToDown = 3
  /// Successes in a row that make it alive again.
  public var successesToUp = 2
  /// A scoring job older than this means the compute threads are stuck although the loop answers.
  public var oldestJobMax: Duration = .seconds(1)
  /// Down for this long: a restart would have been quicker, so its shards are placed on others.
  public var replacedAfter: Duration = .seconds(30)
  /// Gone for this long: its number may be given to a newcomer. Longer than any request lives.
  public var forgottenAfter: Duration = .seconds(120)
  /// Workers that one coordinator knows at the most.
  public var membersMax = 4096
  public init() {}
}

/// When one member is asked next, and which questions are still open.
struct ProbeSchedule: Sendable {
  struct Outstanding: Sendable {
    var token: UInt64
    var sentAt: Instant
    var expires: Instant
  }
  var next: Instant
  /// At most timeout ÷ shortest interval, rounded up, plus the one sent at once: five.
  var outstanding: [Outstanding] = []

  /// The earliest instant at which something is due.
  var due: Instant { outstanding.reduce(next) { min($0, $1.expires) } }

  mutating func close(_ token: UInt64) -> Outstanding? {
    guard let index = outstanding.firstIndex(where: { $0.token == token }) else { return nil }
    return outstanding.remove(at: index)
  }
  mutating func expire(_ now: Instant) -> Int {
    let before = outstanding.count
    outstanding.removeAll { $0.expires <= now }
    return before - outstanding.count
  }
}
