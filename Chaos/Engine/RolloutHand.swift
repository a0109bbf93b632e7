import ClusterHarness
import ClusterLoad
import Foundation
import Synchronization
import Terminal

/// Says commands about versions, one rollout at a time, and remembers what was acknowledged.
final class RolloutHand: Sendable {
  private let admins: [String]
  private let model: String
  private let usual: String
  private let guardsOff: Bool
  private let now: @Sendable () -> Duration
  private let turn = NSLock()
  private let state = Mutex(State())
  private struct State {
    var acknowledged: [Evidence.Acknowledged] = []
    var poisoned: [(rollout: String, served: Bool)] = []
  }

  init(_ stage: Stage, now: @escaping @Sendable () -> Duration) {
    admins = stage.cluster.coordinators.map(\.admin)
    model = stage.model
    usual = stage.version
    guardsOff = stage.scenario.cluster.without.contains(.guards)
    self.now = now
  }

  func write(into evidence: inout Evidence) {
    state.withLock {
      evidence.acknowledged = $0.acknowledged
      evidence.poisoned = $0.poisoned
    }
  }

  /// So quick that a rollout takes seconds; the guards are the usual ones.
  private func settings(poison: Bool) -> [String: Any] {
    // That an overlap is below a tenth takes 152 pairs.
    let shadow = ["min_time_ms": 1000, "min_sample": poison ? 160 : 20]
    var settings: [String: Any] = [
      "shadow": shadow, "canary": ["min_time_ms": 1000, "min_sample": 20], "retire": ["min_time_ms": 500],
      "rolling_back": ["min_time_ms": 200], "canary_steps": [1000, 5000, 10_000],
    ]
    if poison { settings["shadow_share"] = 10_000 }
    if guardsOff {
      let off: [String: Any] = ["on": false]
      settings["guards"] = [
        "overlap": off, "score_drift": off, "coverage": off, "error_rate": off, "latency_p99": off,
        "empty_answers": off, "short_answers": off, "nan_scores": off,
      ]
    }
    return settings
  }

  /// Says a command at whichever coordinator takes it.
  /// - Returns: the line of history, once it is agreed.
  func say(_ fields: [String: Any], limit: Duration = .seconds(20)) throws -> RolloutReport.Entry {
    let deadline = Monotonic.now + limit
    var all = fields
    all["model"] = model
    all["who"] = "chaos"
    while true {
      var last: (any Error)?
      for admin in admins {
        do {
          let entry = try RolloutReport.command(admin, all, limit: .seconds(5))
          state.withLock {
            $0.acknowledged.append(
              .init(at: now(), sequence: entry.sequence, rollout: entry.rollout, from: entry.from, to: entry.to))
          }
          return entry
        } catch { last = error }
      }
      guard Monotonic.now < deadline else { throw last ?? CommandError("no coordinator takes a command") }
      Monotonic.wait(until: Monotonic.now + .milliseconds(100))
    }
  }

  func report() throws -> RolloutReport {
    var last: (any Error)?
    for admin in admins {
      do {
        let report = try RolloutReport.fetch(admin)
        if report.problem == nil || admin == admins.last { return report }
      } catch { last = error }
    }
    throw last ?? CommandError("no coordinator tells of rollouts")
  }

  /// A rollout to its end.
  /// - Parameters:
  ///   - version: nil = of the two sound ones, that which does not serve.
  ///   - abortAfter: when an operator has second thoughts.
  /// - Returns: how it ended.
  func run(to version: String?, abortAfter: Duration? = nil, limit: Duration) throws -> String {
    turn.lock()
    defer { turn.unlock() }
    let deadline = Monotonic.now + limit
    let serving = try waitForReport(deadline) { $0[model] }.serving
    let wanted = version ?? (serving == usual ? Stage.other : usual)
    let rollout = try start(wanted, deadline)
    if let abortAfter {
      Monotonic.wait(until: Monotonic.now + abortAfter)
      // It may have ended meanwhile.
      _ = try? say(["action": "abort", "why": "second thoughts"], limit: .seconds(2))
    }
    let last = try waitForReport(deadline) { report in report[model]?.last.flatMap { $0.id == rollout ? $0 : nil }
    }
    if version == Stage.poison {
      state.withLock { $0.poisoned.append((rollout, last.outcome == "done")) }
      if last.outcome == "done" { _ = try? say(["action": "start", "version": usual, "again": true]) }
    }
    return last.outcome == "done" ? "done" : "\(last.outcome): \(last.why)"
  }

  /// Starts a rollout, be it that the coordinator died between taking the command and saying so: then it is under way
  /// already, and was not acknowledged.
  /// - Returns: its id.
  private func start(_ version: String, _ deadline: Duration) throws -> String {
    let fields: [String: Any] = [
      "action": "start", "version": version, "again": true, "settings": settings(poison: version == Stage.poison),
    ]
    while true {
      do { return try say(fields, limit: .zero).rollout } catch {
        if let under = try? report()[model]?.rollout, under.to == version, under.who == "chaos" { return under.id }
        guard Monotonic.now < deadline else { throw error }
      }
      Monotonic.wait(until: Monotonic.now + .milliseconds(50))
    }
  }

  private func waitForReport<Value>(
    _ deadline: Duration, _ value: (RolloutReport) -> Value?
  ) throws -> Value {
    while true {
      if let report = try? report(), let found = value(report) { return found }
      guard Monotonic.now < deadline else { throw CommandError("a rollout did not end in its time") }
      Monotonic.wait(until: Monotonic.now + .milliseconds(50))
    }
  }

  /// The whole history, oldest first.
  func history() throws -> [Evidence.Acknowledged] {
    var last: any Error = CommandError("no coordinator tells of history")
    for admin in admins {
      do { return try history(of: admin) } catch { last = error }
    }
    throw last
  }

  private func history(of admin: String) throws -> [Evidence.Acknowledged] {
    var lines: [Evidence.Acknowledged] = []
    while true {
      let page = try RolloutReport.history(admin, from: (lines.last?.sequence ?? 0) + 1)
      if page.isEmpty { return lines }
      lines += page.map { .init(at: .zero, sequence: $0.sequence, rollout: $0.rollout, from: $0.from, to: $0.to) }
    }
  }
}
