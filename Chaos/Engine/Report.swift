import ClusterLoad
import Foundation
import Terminal

// What is kept of a run: the verdict, and what happened when, in pieces small enough for a picture. The same values go
// out as JSON, as text, and as a page to look at.

/// One or several runs.
package struct ChaosReport: Codable, Sendable {
  var title: String
  var runs: [RunReport]
  var passes: Bool { runs.allSatisfy(\.passes) }
  package init(title: String, runs: [RunReport]) {
    self.title = title
    self.runs = runs
  }
}

package struct RunReport: Codable, Sendable {
  var scenario: String
  var about: String
  /// nil = nothing was drawn.
  var seed: UInt64?
  /// What repeats it.
  var command: String
  var seconds: Double
  /// Why it did not come to a verdict.
  var trouble: String?
  var verdict: Verdict?
  var timeline: Timeline?
  /// What had to be violated; see `Scenario.bites`.
  var bites: String?
  /// Where its processes' logs are; nil = thrown away.
  var logs: String?
  var passes: Bool {
    guard trouble == nil, let verdict else { return false }
    return bites.map(verdict.violates) ?? verdict.passes
  }
}

/// A run in time.
struct Timeline: Codable, Sendable {
  /// Seconds.
  var length: Double
  var baseline: Double
  var bucket: Double
  /// Requests by when they were due, per bucket; the latencies (ms) are of answers, null where there was none.
  var ok: [Int]
  var degraded: [Int]
  var failed: [Int]
  var p50: [Double?]
  var p99: [Double?]
  var max: [Double?]
  /// The least share of the items that an answer spoke for.
  var coverage: [Double?]
  /// How each coordinator saw each worker.
  var lanes: [Strip]

  struct Strip: Codable, Sendable {
    var coordinator: String
    var worker: String
    var spans: [Span]
  }
  struct Span: Codable, Sendable {
    var from: Double
    var to: Double
    var health: String
  }

  /// One request, as far as the picture goes.
  private struct Dot {
    var due: Duration
    var latency: Duration
    var outcome: LoadTrace.Outcome
    /// Of the items; nil = not known.
    var share: Double?
  }

  init(_ evidence: Evidence) {
    let dots = evidence.requests.map { request in
      let outcome: LoadTrace.Outcome =
        switch request.outcome {
        case .ok: .ok
        case .degraded: .degraded
        case .failed: .failed
        }
      let share = outcome == .ok ? 1 : outcome == .degraded ? AnswerCheck.itemsShare(of: request.body) : nil
      return Dot(due: request.due, latency: request.latency, outcome: outcome, share: share)
    }
    self.init(dots, length: evidence.end, baseline: evidence.baseline)
    for coordinator in 0..<evidence.scenario.cluster.coordinators {
      let samples = evidence.samples.filter { $0.coordinator == coordinator }
      for worker in evidence.holdings.indices {
        lanes.append(
          Strip(
            coordinator: "c\(coordinator + 1)", worker: "w\(worker + 1)",
            spans: Self.spans(samples, worker, end: length)))
      }
    }
  }

  /// Of a load that nobody watched the cluster under.
  init(_ trace: LoadTrace) {
    let dots = trace.samples.map { Dot(due: $0.due, latency: $0.latency, outcome: $0.outcome) }
    self.init(dots, length: trace.samples.map(\.end).max() ?? .zero, baseline: .zero)
  }

  private init(_ dots: [Dot], length: Duration, baseline: Duration) {
    self.length = length / .seconds(1)
    self.baseline = baseline / .seconds(1)
    bucket = Swift.max(0.25, self.length / 480)
    let count = Swift.max(1, Int((self.length / bucket).rounded(.up)))
    ok = Array(repeating: 0, count: count)
    (degraded, failed, lanes) = (ok, ok, [])
    coverage = Array(repeating: nil, count: count)
    (p50, p99, max) = (coverage, coverage, coverage)
    var latencies = Array(repeating: [Double](), count: count)
    for dot in dots {
      let index = Swift.min(count - 1, Swift.max(0, Int(dot.due / .seconds(1) / bucket)))
      switch dot.outcome {
      case .ok: ok[index] += 1
      case .degraded: degraded[index] += 1
      case .failed: failed[index] += 1
      }
      if dot.outcome != .failed { latencies[index].append(inMilliseconds(dot.latency)) }
      if let share = dot.share { coverage[index] = Swift.min(coverage[index] ?? 1, share) }
    }
    for (index, all) in latencies.enumerated() where !all.isEmpty {
      let sorted = all.sorted()
      p50[index] = sorted[sorted.count / 2]
      p99[index] = sorted[sorted.count * 99 / 100]
      max[index] = sorted[sorted.count - 1]
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
}

extension ChaosReport {
  /// The reader's text.
  var text: String { runs.map(\.text).joined(separator: "\n\n") }
}

extension RunReport {
  var seedText: String { seed.map { ", seed \($0)" } ?? "" }

  var text: String {
    var lines = ["\(passes ? "PASS" : "FAIL")  \(scenario)\(seedText): \(about) (\(Int(seconds)) s)"]
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
