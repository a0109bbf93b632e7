import ClusterHarness
import Foundation

/// What became of the requests of one run. Every request that was due is in exactly one of `ok`, `degraded` and
/// `failed`.
struct LoadTally: Sendable, Equatable {
  enum Outcome: Sendable, Equatable {
    /// A complete answer.
    case ok
    /// An answer that does not cover every shard.
    case degraded
    /// No answer; why, in few enough words to count by.
    case failed(String)
  }
  var ok = 0
  var degraded = 0
  var failed: [String: Int] = [:]
  /// From the time a request was due to the end of its answer; answers only.
  var latencies = LatencyHistogram()
  /// The same of those that failed, by reason: how soon somebody is told "no".
  var refusals: [String: LatencyHistogram] = [:]

  var sent: Int { ok + degraded + failures }
  var failures: Int { failed.values.reduce(0, +) }

  mutating func add(_ outcome: Outcome, latency: Duration) {
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

  mutating func add(_ other: LoadTally) {
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
struct LoadReport: Codable, Sendable {
  var sent: Int
  var ok: Int
  var degraded: Int
  /// How many failed for each reason.
  var failed: [String: Int]
  /// Milliseconds from when a request was due; null when nothing was answered.
  var p50: Double?
  var p90: Double?
  var p99: Double?
  var p999: Double?
  var max: Double?
  /// Requests per second, as asked for and as answered.
  var rate: Double
  var achievedRate: Double
  var durationSeconds: Double
  /// How soon those that failed were told so, in milliseconds, by reason.
  var refusedP50: [String: Double]
  var refusedP99: [String: Double]
  var refusedMax: [String: Double]
  /// The run cut into pieces by when requests were due; only when asked for.
  var windows: [LoadWindow]?

  enum CodingKeys: String, CodingKey {
    case sent, ok, degraded, failed, p50, p90, p99, max, rate, windows
    case refusedP50 = "refused_p50"
    case refusedP99 = "refused_p99"
    case refusedMax = "refused_max"
    case p999 = "p99.9"
    case achievedRate = "achieved_rate"
    case durationSeconds = "duration_s"
  }

  init(_ tally: LoadTally, rate: Double, elapsed: Duration) {
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
