import ClusterLoad
import Foundation
import Terminal

// What is kept of a run: the verdict, and what happened when, in pieces small enough for a picture. The same values go
// out as JSON, as text, and as a page to look at.

/// One or several runs.
package struct ChaosReport: Codable, Sendable {
  package var title: String
  package var runs: [RunReport]
  package var passes: Bool { runs.allSatisfy(\.passes) }
  package init(title: String, runs: [RunReport]) {
    self.title = title
    self.runs = runs
  }
}

package struct RunReport: Codable, Sendable {
  package var scenario: String
  package var about: String
  package var seed: UInt64
  /// What repeats it.
  package var command: String
  package var seconds: Double
  /// Why it did not come to a verdict.
  package var trouble: String?
  package var verdict: Verdict?
  package var timeline: Timeline?
  /// What had to be violated; see `Scenario.bites`.
  package var bites: String?
  /// Where its processes' logs are; nil = thrown away.
  package var logs: String?
  package var passes: Bool {
    guard trouble == nil, let verdict else { return false }
    return bites.map(verdict.violates) ?? verdict.passes
  }
}

/// A run in time.
package struct Timeline: Codable, Sendable {
  /// Seconds.
  package var length: Double
  package var baseline: Double
  package var bucket: Double
  /// Requests by when they were due, per bucket; the latencies (ms) are of answers, null where there was none.
  package var ok: [Int]
  package var degraded: [Int]
  package var failed: [Int]
  package var p50: [Double?]
  package var p99: [Double?]
  package var max: [Double?]
  /// The least share of the items that an answer spoke for.
  package var coverage: [Double?]
  /// How each coordinator saw each worker.
  package var lanes: [Lane]

  package struct Lane: Codable, Sendable {
    package var coordinator: String
    package var worker: String
    package var spans: [Span]
  }
  package struct Span: Codable, Sendable {
    package var from: Double
    package var to: Double
    package var health: String
  }

  package init(_ evidence: Evidence) {
    length = evidence.end / .seconds(1)
    baseline = evidence.baseline / .seconds(1)
    bucket = Swift.max(0.25, length / 480)
    let count = Swift.max(1, Int((length / bucket).rounded(.up)))
    ok = Array(repeating: 0, count: count)
    (degraded, failed) = (ok, ok)
    var latencies = Array(repeating: [Double](), count: count)
    var least = [Double?](repeating: nil, count: count)
    for request in evidence.requests {
      let index = Swift.min(count - 1, Swift.max(0, Int(request.due / .seconds(1) / bucket)))
      switch request.outcome {
      case .ok: ok[index] += 1
      case .degraded: degraded[index] += 1
      case .failed: failed[index] += 1
      }
      guard !request.body.isEmpty else { continue }
      latencies[index].append(inMilliseconds(request.latency))
      let share = request.outcome == .degraded ? Self.coverage(request.body) : 1
      least[index] = Swift.min(least[index] ?? 1, share)
    }
    coverage = least
    (p50, p99, max) = ([], [], [])
    for all in latencies {
      let sorted = all.sorted()
      func quantile(_ share: Double) -> Double? {
        sorted.isEmpty ? nil : sorted[Swift.min(sorted.count - 1, Int(share * Double(sorted.count)))]
      }
      p50.append(quantile(0.5))
      p99.append(quantile(0.99))
      max.append(sorted.last)
    }
    lanes = []
    for coordinator in 0..<evidence.scenario.cluster.coordinators {
      let samples = evidence.samples.filter { $0.coordinator == coordinator }
      for worker in evidence.holdings.indices {
        lanes.append(
          Lane(
            coordinator: "c\(coordinator + 1)", worker: "w\(worker + 1)",
            spans: Self.spans(samples, worker, end: length)))
      }
    }
  }

  private static func spans(_ samples: [Evidence.Sample], _ worker: Int, end: Double) -> [Span] {
    var spans: [Span] = []
    for sample in samples {
      let at = rounded(sample.at / .seconds(1))
      let health = sample.workers.map { "\($0[worker])" } ?? "unseen"
      if spans.last?.health == health { continue }
      if !spans.isEmpty { spans[spans.count - 1].to = at }
      spans.append(Span(from: at, to: end, health: health))
    }
    return spans
  }

  private static func coverage(_ body: [UInt8]) -> Double { AnswerShare.items(body) }
}

extension ChaosReport {
  /// The reader's text.
  package var text: String { runs.map(\.text).joined(separator: "\n\n") }
}

extension RunReport {
  package var text: String {
    var lines = ["\(passes ? "PASS" : "FAIL")  \(scenario), seed \(seed): \(about) (\(Int(seconds)) s)"]
    if let trouble { lines.append("  ! \(trouble)") }
    if let bites { lines.append("  without a defence, so that this must be violated: \(bites)") }
    if let verdict {
      var table = TextTable(["must hold", "looked at", "violations"])
      for invariant in verdict.invariants {
        table.add([invariant.name, "\(invariant.checked)", "\(invariant.violations)"])
      }
      lines.append(table.text)
      for invariant in verdict.invariants {
        lines += invariant.examples.map { "  ! \(invariant.name): \($0)" }
      }
      var figures = TextTable(["figure", "measured", "limit", ""])
      for figure in verdict.figures {
        figures.add([
          figure.name, figure.valueText, figure.isJudged ? figure.limit : "-",
          figure.isJudged ? (figure.pass ? "ok" : "FAIL") : "",
        ])
      }
      lines += ["", figures.text]
      if !verdict.faults.isEmpty {
        var faults = TextTable([
          "#", "fault", "at s", "for s", "noticed s", "whole s", "slowest ms", "degraded", "failed", "outcome",
        ])
        for fault in verdict.faults {
          faults.add([
            "\(fault.number)", fault.what, Self.text(fault.began), Self.text(fault.ended - fault.began),
            fault.noticed.map { Self.text($0) } ?? "-", fault.healed.map { Self.text($0) } ?? "never",
            Self.text(fault.slowestMilliseconds), "\(fault.degraded)", "\(fault.failed)", fault.outcome,
          ])
        }
        lines += ["", faults.text]
      }
    }
    lines.append("  again: \(command)")
    if let logs { lines.append("  logs: \(logs)") }
    return lines.joined(separator: "\n")
  }
  private static func text(_ value: Double) -> String { String(format: "%.2f", value) }
}
