import RankingCore

// How sure a guard is. Not a normal approximation: failures are rare, samples small, and looks many, which is where
// those cry wolf. The bound is Chernoff's, which holds for every sample size (Hoeffding 1963, theorem 1, for any
// values between 0 and 1, so for shares of items as well as for yes and no):
//
//     P(mean of n values ≥ p̂) ≤ exp(−n·KL(p̂ ‖ p))  for  p̂ > p        KL(a ‖ b) = a·ln(a/b) + (1−a)·ln((1−a)/(1−b))
//
// The old version's true share q is not known either, only what was seen of it. What speaks against "the new one is
// within the limit L(q) = max(absolute, relative · q)" is what the most favourable q still leaves:
//
//     evidence = min over q of  n_old·KL(p̂_old ‖ q) + n_new·KL(p̂_new ‖ L(q))       (each only on its own side)
//
// If the new version is within the limit, both terms at the true q have a tail below e^−x each, so that their sum
// exceeds e with a chance below (1 + e)·exp(−e): 2 in a million at e = 16, for one look.
//
//     an example: 12 of 240 requests failed, of the old version's 2400 none; limit max(0.5 %, 1.5 · q)
//       q = 0      0          + 240 · KL(5 % ‖ 0.5 %)  = 17.1      ◄ the least: beyond 16, it trips
//       q = 0.5 %  2400·0.005 + 240 · KL(5 % ‖ 0.75 %) = 12.0 + 13.1

enum Evidence {
  static let negligible = 0.5
  /// Natural logarithm, for x > 0.
  static func log(_ x: Double) -> Double {
    x >= 1 ? Exponential.logOnePlus(x - 1) : -Exponential.logOnePlus(1 / x - 1)
  }
  /// Kullback–Leibler divergence of two shares; infinite when b rules a out.
  static func divergence(_ a: Double, _ b: Double) -> Double {
    func part(_ a: Double, _ b: Double) -> Double { a <= 0 ? 0 : b <= 0 ? .infinity : a * log(a / b) }
    return max(0, part(a, b) + part(1 - a, 1 - b))
  }

  /// Against "the mean share of `sum` over `count` is at most `limit`".
  static func above(_ sum: Double, of count: Int, limit: Double) -> Double {
    guard count > 0 else { return 0 }
    let share = min(1, max(0, sum / Double(count)))
    guard share > limit else { return 0 }
    return Double(count) * divergence(share, max(0, limit))
  }

  /// Against "the new share is at most max(absolute, relative · the old share)".
  ///
  /// - Parameter old: nil = nothing to compare with; the absolute limit alone.
  static func above(
    _ new: (sum: Double, count: Int), old: (sum: Double, count: Int)?, absolute: Double, relative: Double
  ) -> Double {
    let least = above(new.sum, of: new.count, limit: absolute)
    guard least > 0, let old, old.count > 0, relative > 0 else { return least }
    let seen = min(1, max(0, old.sum / Double(old.count)))
    // The limit cannot pass 1, and q cannot pass what makes it 1.
    let highest = min(1, 1 / relative)
    func against(_ q: Double) -> Double {
      let limit = max(absolute, min(1, relative * q))
      return (q > seen ? Double(old.count) * divergence(seen, q) : 0) + above(new.sum, of: new.count, limit: limit)
    }
    var result = against(min(seen, highest))
    // The least is less still, and so little evidence is none: not worth the search at every look.
    guard result >= negligible else { return result }
    // Below this q the absolute limit rules and a larger q only costs; from there on the sum is convex.
    var (low, high) = (min(highest, max(seen, absolute / relative)), highest)
    guard low < high else { return result }
    for _ in 0..<60 {
      let (a, b) = (low + (high - low) / 3, high - (high - low) / 3)
      if against(a) <= against(b) { high = b } else { low = a }
    }
    result = min(result, against(low))
    return result
  }

  /// Against "the means lie within `limit` of each other", by the normal approximation: answers' mean scores are sums
  /// of many, and both samples have hundreds of them. z²/2 stands beside the other exponents.
  static func apart(_ new: TrafficCounts, _ old: TrafficCounts, limit: Double) -> Double {
    guard new.scored > 1, old.scored > 1 else { return 0 }
    let beyond = (new.scoreMean - old.scoreMean).magnitude - limit
    let error = new.scoreVariance / Double(new.scored) + old.scoreVariance / Double(old.scored)
    guard beyond > 0 else { return 0 }
    return error > 0 ? beyond * beyond / error / 2 : .infinity
  }
}
