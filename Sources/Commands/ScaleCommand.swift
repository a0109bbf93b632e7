import Foundation
import Simulator
import Terminal

/// `simulate --scale`: what hedging is worth where a request goes to a thousand workers, and what a coordinator costs.
enum ScaleCommand {
  private struct Row: Encodable {
    var shards: Int
    var hedging: Bool
    var requests: Int
    var complete: Int
    var failed: Int
    var legs_per_request: Double
    var extra_legs: Double
    var p50_ms: Double
    var p90_ms: Double
    var p99_ms: Double
    var p999_ms: Double
    var coordinator_us_per_request: Double
  }

  static func run(_ invocation: Invocation) throws -> Int32 {
    let requests = invocation.integer("requests")
    var rows: [Row] = []
    for shards in [1, 3, 10, 30, 100, 300, 1000] {
      for hedging in [false, true] {
        // The whole number of requests for the full fan-out with hedging; enough for a p99 elsewhere.
        let count = shards == 1000 && hedging ? requests : max(100, requests / 20)
        Console.live("\(shards) shards, \(hedging ? "with" : "without") hedging: \(count) requests …")
        rows.append(row(shards, hedging, count))
      }
    }
    Console.live("")
    if invocation.json {
      for row in rows { try Console.printJSON(row) }
      return 0
    }
    var table = TextTable([
      "fan-out", "hedging", "requests", "complete", "legs", "extra %", "p50 ms", "p90", "p99", "p99.9", "CPU us",
    ])
    for row in rows {
      table.add([
        "\(row.shards)", row.hedging ? "yes" : "no", "\(row.requests)", "\(row.complete)",
        text(row.legs_per_request), text(row.extra_legs * 100), text(row.p50_ms), text(row.p90_ms), text(row.p99_ms),
        text(row.p999_ms), text(row.coordinator_us_per_request),
      ])
    }
    Console.print(table.text)
    return 0
  }

  private static func text(_ value: Double) -> String { String(format: "%.1f", value) }

  private static func row(_ shards: Int, _ hedging: Bool, _ requests: Int) -> Row {
    var options = ScaleOptions()
    options.shards = shards
    options.requests = requests
    options.hedging = hedging
    let report = ScaleSimulation(options, clock: threadTime).run()
    let count = Double(max(1, report.requests))
    return Row(
      shards: shards, hedging: hedging, requests: report.requests, complete: report.complete, failed: report.failed,
      legs_per_request: Double(report.legs) / count, extra_legs: Double(report.hedges) / Double(max(1, report.legs)),
      p50_ms: report.p50, p90_ms: report.p90, p99_ms: report.p99, p999_ms: report.p999,
      coordinator_us_per_request: report.cpuMicrosecondsPerRequest)
  }

  /// Processor time of this thread in nanoseconds.
  private static func threadTime() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
