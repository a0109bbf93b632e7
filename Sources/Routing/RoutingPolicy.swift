import RankingCore

/// The numbers of one request's way. Origins: the failure policy, "Coordinator → worker".
public struct RoutingPolicy: Sendable {
  /// Kept back for merging and encoding: the smaller of these two.
  public var reserveMax: Duration = .milliseconds(10)
  public var reserveShare = 0.10
  /// How often one shard may be tried in all.
  public var attemptsPerShard = 2
  /// Extra legs for lost connections: this many tokens per primary leg …
  public var retryTokensPerLeg = 0.10
  /// … and per second, so that a quiet service can retry too …
  public var retryTokensPerSecond = 2.0
  /// … and never more than this saved up (or than the legs that a lost connection carried).
  public var retryTokensMax = 50.0
  /// Requests in flight in one coordinator; above it the answer is "overloaded" at once.
  public var requestsInFlightMax = 1024
  /// Weight of a new latency sample in a worker's moving average.
  public var latencyWeight = 0.2
  public init() {}

  /// When what is there must be merged so that the answer leaves by the deadline.
  func mergeBy(start: Instant, deadline: Deadline) -> Instant {
    let whole = (deadline - start).nanoseconds
    let reserve = min(reserveMax.nanoseconds, Int64(Double(whole) * reserveShare))
    return deadline + .nanoseconds(-reserve)
  }
}

/// Tokens that pay for retries, so that a bad day costs a bounded number of extra legs.
struct RetryBudget: Sendable {
  private(set) var tokens: Double
  private var refilledAt: Instant
  init(policy: RoutingPolicy, now: Instant) {
    tokens = policy.retryTokensMax
    refilledAt = now
  }

  mutating func primaryLegs(_ count: Int, policy: RoutingPolicy, now: Instant) {
    let elapsed = max(0, (now - refilledAt).nanoseconds)
    refilledAt = now
    let earned = Double(count) * policy.retryTokensPerLeg + Double(elapsed) / 1e9 * policy.retryTokensPerSecond
    if tokens < policy.retryTokensMax { tokens = min(policy.retryTokensMax, tokens + earned) }
  }
  /// A connection was lost with this many legs on it: each may be tried once more, whatever was saved.
  mutating func cover(_ legs: Int) { tokens = max(tokens, Double(legs)) }
  mutating func take() -> Bool {
    guard tokens >= 1 else { return false }
    tokens -= 1
    return true
  }
}
