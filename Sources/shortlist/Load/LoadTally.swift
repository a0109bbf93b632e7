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
  /// From the time a request was due to the end of its answer; failed ones are only counted.
  var latencies = LatencyHistogram()

  var sent: Int { ok + degraded + failures }
  var failures: Int { failed.values.reduce(0, +) }

  mutating func add(_ outcome: Outcome, latency: Duration) {
    switch outcome {
    case .ok: ok += 1
    case .degraded: degraded += 1
    case .failed(let reason):
      failed[reason, default: 0] += 1
      return
    }
    latencies.record(latency)
  }

  mutating func add(_ other: LoadTally) {
    ok += other.ok
    degraded += other.degraded
    failed.merge(other.failed, uniquingKeysWith: +)
    latencies.add(other.latencies)
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

  enum CodingKeys: String, CodingKey {
    case sent, ok, degraded, failed, p50, p90, p99, max, rate
    case p999 = "p99.9"
    case achievedRate = "achieved_rate"
    case durationSeconds = "duration_s"
  }

  init(_ tally: LoadTally, rate: Double, elapsed: Duration) {
    func milliseconds(_ fraction: Double) -> Double? {
      tally.latencies.quantile(fraction).map { ($0 / .microseconds(1)).rounded() / 1000 }
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
    self.rate = rate
    let seconds: Double = elapsed / Duration.seconds(1)
    durationSeconds = (seconds * 1000).rounded() / 1000
    achievedRate = seconds > 0 ? (Double(tally.ok + tally.degraded) / seconds * 10).rounded() / 10 : 0
  }
}
