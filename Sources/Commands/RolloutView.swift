import ClusterHarness
import Foundation
import Terminal

// A rollout as people read it:
//
//   home-7   v41 → v42, started by ada                                            beside the old one
//     load ✓  verify ✓  warm ✓  shadow ✓  [canary 10 %]  50 %  100 %  retire      in it for 42 s
//     w1  ██████████  16 of 16 shards
//     w2  ████░░░░░░   7 of 16 shards, 2 loading
//     guards: error_rate   0.0 % of 300 requests against 0.0 % of 2 700 …; evidence 0.0 of 16.0

enum RolloutView {
  private static let stages = ["load", "verify", "warm", "shadow", "canary", "retire"]

  static func text(_ report: RolloutReport, model: String?) -> String {
    var parts: [String] = []
    if let problem = report.problem { parts.append("! \(problem)") }
    for state in report.document.models where model == nil || state.model == model {
      guard let rollout = state.rollout else {
        parts.append("\(state.model): \(state.serving) serves\(last(state).map { "; \($0)" } ?? "")")
        continue
      }
      parts.append(text(rollout, report.progress(of: state.model)))
    }
    return parts.isEmpty ? "no model" : parts.joined(separator: "\n\n")
  }

  private static func text(_ rollout: RolloutReport.Rollout, _ progress: RolloutReport.Progress?) -> String {
    let memory = rollout.memory == "undecided" ? "" : ", \(rollout.memory.replacingOccurrences(of: "_", with: " "))"
    var lines = [
      "\(rollout.id): \(rollout.from) → \(rollout.to), started by \(rollout.who)\(memory)"
        + (rollout.paused ? ", PAUSED" : ""),
      "  \(path(rollout))   for \(age(rollout))",
    ]
    if !rollout.cause.isEmpty { lines.append("  because: \(rollout.cause)") }
    guard let progress else { return lines.joined(separator: "\n") }
    for worker in progress.workers { lines.append("  " + bar(worker, progress)) }
    switch rollout.stage {
    case "verify": lines.append("  \(progress.rightAnswers) golden answers right")
    case "warm": lines.append("  \(progress.warmRounds) rounds of warming up")
    case "shadow": lines.append("  \(progress.pairs) pairs of answers compared")
    default: break
    }
    for figure in progress.guards {
      lines.append("  \(figure.tripped ? "✗" : "·") \(figure.name): \(figure.text)")
    }
    return lines.joined(separator: "\n")
  }

  private static func age(_ rollout: RolloutReport.Rollout) -> String {
    let seconds = Date().timeIntervalSince1970 - Double(rollout.enteredMilliseconds) / 1000
    return ClusterText.seconds(max(0, seconds))
  }

  private static func path(_ rollout: RolloutReport.Rollout) -> String {
    guard let now = stages.firstIndex(of: rollout.stage) else { return "[rolling back]" }
    var words: [String] = []
    for (place, stage) in stages.enumerated() {
      guard stage == "canary" else {
        words.append(place < now ? "\(stage) ✓" : place == now ? "[\(stage)]" : stage)
        continue
      }
      for (step, share) in rollout.settings.canarySteps.enumerated() {
        let name = step == 0 ? "canary \(percent(share))" : percent(share)
        let isNow = place == now && step == rollout.step
        let isDone = place < now || place == now && step < rollout.step
        words.append(isNow ? "[\(name)]" : isDone ? "\(name) ✓" : name)
      }
    }
    return words.joined(separator: "  ")
  }
  /// Of hundredths of a percent.
  private static func percent(_ share: Int) -> String {
    share % 100 == 0 ? "\(share / 100) %" : String(format: "%.2f %%", Double(share) / 100)
  }

  private static let barWidth = 10
  private static func bar(_ worker: RolloutReport.Worker, _ progress: RolloutReport.Progress) -> String {
    let known = worker.ready + worker.loading + worker.failed
    let full = known == 0 ? 0 : worker.ready * barWidth / known
    let bar = String(repeating: "█", count: full) + String(repeating: "░", count: barWidth - full)
    var text = "\(worker.name)  \(bar)  \(worker.ready) of \(progress.shards) shards"
    if worker.loading > 0 { text += ", \(worker.loading) loading" }
    if worker.failed > 0 { text += ", \(worker.failed) failed: \(worker.failure)" }
    if !worker.usable { text += ", not there" }
    return text
  }

  static func last(_ state: RolloutReport.Model) -> String? {
    state.last.map { "\($0.id) from \($0.from) to \($0.to): \($0.outcome), \($0.why)" }
  }

  static func models(_ report: RolloutReport) -> String {
    var table = TextTable(["model", "serving", "pinned", "rollout", "failed"])
    for state in report.document.models {
      let rollout = state.rollout.map { "\($0.id) to \($0.to): \($0.stage)" } ?? "-"
      table.add([
        state.model, state.serving, state.pinned.isEmpty ? "-" : state.pinned.joined(separator: " "), rollout,
        state.failed.isEmpty ? "-" : state.failed.map(\.version).joined(separator: " "),
      ])
    }
    let note = report.problem.map { "\n! \($0)" } ?? ""
    return table.text + note
  }

  static func line(_ entry: RolloutReport.Entry) -> String {
    let time = Date(timeIntervalSince1970: Double(entry.atMilliseconds) / 1000).ISO8601Format()
    let subject = entry.rollout.isEmpty ? "\(entry.model)/\(entry.version)" : "\(entry.rollout) (\(entry.version))"
    return "\(entry.sequence)  \(time)  \(subject): \(entry.from) → \(entry.to), by \(entry.who): \(entry.why)"
  }
}

enum ClusterText {
  static func seconds(_ seconds: Double) -> String {
    seconds < 120 ? "\(Int(seconds)) s" : "\(Int(seconds / 60)) min"
  }
}

/// Shows a rollout until it ends: on a terminal what there is now, elsewhere a line of history at a time.
struct RolloutWatch {
  let admin: String
  let model: String
  let rollout: String
  let json: Bool
  /// Lines of the history up to here have been shown.
  var shown = 0
  private static let interval = 0.5
  /// A coordinator that is restarted is back by then.
  private static let patience = 60

  /// - Returns: 0 when the new version serves.
  func run() throws -> Int32 {
    var next = shown + 1
    var failures = 0
    var drawn = 0
    let isLive = Console.outputIsTerminal && !json
    while true {
      do {
        let entries = try RolloutReport.history(admin, from: next)
        if let last = entries.last { next = last.sequence + 1 }
        let mine = entries.filter { $0.rollout == rollout }
        let report = try RolloutReport.fetch(admin)
        failures = 0
        if isLive, drawn > 0 { Console.write(Array("\u{1B}[\(drawn)A\u{1B}[J".utf8)) }
        drawn = 0
        for entry in mine { if json { try Console.printJSON(entry) } else { Console.print(RolloutView.line(entry)) } }
        let state = report[model]
        if state?.rollout?.id != rollout {
          let isDone = state?.last?.id == rollout && state?.last?.outcome == "done"
          return isDone ? 0 : 1
        }
        if isLive {
          let text = RolloutView.text(report, model: model)
          Console.print(text)
          drawn = text.split(separator: "\n", omittingEmptySubsequences: false).count
        }
      } catch {
        failures += 1
        guard failures < Self.patience else { throw error }
        if failures == 1 { Console.warn("\(error); trying again") }
      }
      Thread.sleep(forTimeInterval: Self.interval)
    }
  }
}
