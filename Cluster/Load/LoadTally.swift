import ClusterHarness
import Foundation
import Terminal

/// What became of the requests of one run. Every request that was due is in exactly one of `ok`, `degraded` and
/// `failed`.
package struct LoadTally: Sendable, Equatable {
  package enum Outcome: Sendable, Equatable {
    /// A complete answer.
    case ok
    /// An answer that does not cover every shard.
    case degraded
    /// No answer; why, in few enough words to count by.
    case failed(String)
  }
  package var ok = 0
  package var degraded = 0
  package var failed: [String: Int] = [:]
  /// From the time a request was due to the end of its answer; answers only.
  package var latencies = LatencyHistogram()
  /// The same of those that failed, by reason: how soon somebody is told "no".
  package var refusals: [String: LatencyHistogram] = [:]

  package var sent: Int { ok + degraded + failures }
  package var failures: Int { failed.values.reduce(0, +) }

  package mutating func add(_ outcome: Outcome, latency: Duration) {
    switch outcome {
    case .ok: ok += 1
    case .degraded: degraded += 1
    case .failed(let reason):
      failed[reason, default: 0] += 1
      refusals[reason, default: LatencyHistogram()].record(latency)
      return
    }
    latencies.record(latency)
  }

  package mutating func add(_ other: LoadTally) {
    ok += other.ok
    degraded += other.degraded
    failed.merge(other.failed, uniquingKeysWith: +)
    latencies.add(other.latencies)
    refusals.merge(other.refusals) { mine, theirs in
      var sum = mine
      sum.add(theirs)
      return sum
    }
  }
}

/// What `shortlist load` prints.
package struct LoadReport: Codable, Sendable {
  package var sent: Int
  package var ok: Int
  package var degraded: Int
  /// How many failed for each reason.
  package var failed: [String: Int]
  /// Milliseconds from when a request was due; null when nothing was answered.
  package var p50: Double?
  package var p90: Double?
  package var p99: Double?
  package var p999: Double?
  package var max: Double?
  /// Requests per second, as asked for and as answered.
  package var rate: Double
  package var achievedRate: Double
  package var durationSeconds: Double
  /// How soon those that failed were told so, in milliseconds, by reason.
  package var refusedP50: [String: Double]
  package var refusedP99: [String: Double]
  package var refusedMax: [String: Double]
  /// The run cut into pieces by when requests were due; only when asked for.
  package var windows: [LoadWindow]?

  package enum CodingKeys: String, CodingKey {
    case sent, ok, degraded, failed, p50, p90, p99, max, rate, windows
    case refusedP50 = "refused_p50"
    case refusedP99 = "refused_p99"
    case refusedMax = "refused_max"
    case p999 = "p99.9"
    case achievedRate = "achieved_rate"
    case durationSeconds = "duration_s"
  }

  package init(_ tally: LoadTally, rate: Double, elapsed: Duration) {
    func milliseconds(_ fraction: Double) -> Double? { tally.latencies.quantile(fraction).map(inMilliseconds) }
    func refused(_ fraction: Double) -> [String: Double] {
      tally.refusals.compactMapValues { $0.quantile(fraction).map(inMilliseconds) }
    }
    sent = tally.sent
    ok = tally.ok
    degraded = tally.degraded
    failed = tally.failed
    p50 = milliseconds(0.5)
    p90 = milliseconds(0.9)
    p99 = milliseconds(0.99)
    p999 = milliseconds(0.999)
    max = milliseconds(1)
    refusedP50 = refused(0.5)
    refusedP99 = refused(0.99)
    refusedMax = refused(1)
    self.rate = rate
    let seconds: Double = elapsed / Duration.seconds(1)
    durationSeconds = (seconds * 1000).rounded() / 1000
    achievedRate = seconds > 0 ? (Double(tally.ok + tally.degraded) / seconds * 10).rounded() / 10 : 0
  }
}
