import RankingCore

// What pays for extra legs, so that a bad day costs a bounded number of them.

/// Tokens for retries.
struct RetryBudget: Sendable {
  private(set) var tokens: Double
  private var refilledAt: Instant
  private var isBroken = false
  init(policy: RoutingPolicy, now: Instant) {
    tokens = policy.retryTokensMax
    refilledAt = now
  }

  mutating func primaryLegs(_ count: Int, policy: RoutingPolicy, now: Instant) {
    let elapsed = max(0, (now - refilledAt).nanoseconds)
    refilledAt = now
    guard !isBroken else { return }
    let earned = Double(count) * policy.retryTokensPerLeg + Double(elapsed) / 1e9 * policy.retryTokensPerSecond
    if tokens < policy.retryTokensMax { tokens = min(policy.retryTokensMax, tokens + earned) }
  }
  /// A connection was lost that owed this many shards: each may be tried once more, whatever was saved.
  mutating func cover(_ shards: Int) {
    if !isBroken { tokens = max(tokens, Double(shards)) }
  }
  mutating func take(_ legs: Int, policy: RoutingPolicy) -> Bool {
    guard tokens >= Double(legs) else {
      if policy.planted.contains(.budgetNotRefilledAfterHeal) {
        isBroken = true
        tokens = 0
      }
      return false
    }
    tokens -= Double(legs)
    return true
  }
}

/// Tokens for hedges: earned by primary legs alone, none at the start.
struct HedgeBudget: Sendable {
  private(set) var tokens = 0.0

  mutating func primaryLegs(_ count: Int, policy: RoutingPolicy) {
    tokens = min(policy.hedgeTokensMax, tokens + Double(count) * policy.hedgeTokensPerLeg)
  }
  mutating func take(_ legs: Int) -> Bool {
    guard tokens >= Double(legs) else { return false }
    tokens -= Double(legs)
    return true
  }
}
