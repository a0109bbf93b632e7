import ClusterLoad
import Foundation
import Terminal

/// One measured number of a row, beside what it must be.
package struct Figure: Codable, Sendable {
  package enum Limit: Sendable, Equatable {
    /// Shown, not judged.
    case none
    case equal(Double)
    case atMost(Double)
    case below(Double)
    case atLeast(Double)
  }
  package var name: String
  package var value: Double
  package var unit: String
  package var limit: String
  package var pass: Bool

  package init(_ name: String, _ value: Double, _ unit: String = "", _ limit: Limit = .none) {
    self.name = name
    self.value = rounded(value)
    self.unit = unit
    switch limit {
    case .none: (self.limit, pass) = ("", true)
    case .equal(let wanted): (self.limit, pass) = ("= " + Self.text(wanted), value == wanted)
    case .atMost(let most): (self.limit, pass) = ("≤ " + Self.text(most), value <= most)
    case .below(let bound): (self.limit, pass) = ("< " + Self.text(bound), value < bound)
    case .atLeast(let least): (self.limit, pass) = ("≥ " + Self.text(least), value >= least)
    }
  }
  package init(_ name: String, _ count: Int, _ limit: Limit = .none) { self.init(name, Double(count), "", limit) }

  package var isJudged: Bool { !limit.isEmpty }
  package static func text(_ value: Double) -> String {
    value == value.rounded() && abs(value) < 1e9 ? "\(Int(value))" : String(format: "%.3g", value)
  }
  package var valueText: String {
    let number = value == value.rounded() && abs(value) < 1e9 ? "\(Int(value))" : String(format: "%.2f", value)
    return unit.isEmpty ? number : "\(number) \(unit)"
  }
}

/// What one row gave.
package struct FigureRow: Codable, Sendable {
  package var row: String
  package var what: String
  package var figures: [Figure] = []
  /// What went wrong, in a few lines.
  package var notes: [String] = []
  /// What else there is to know.
  package var remarks: [String] = []
  package var seconds = 0.0
  /// The run that the figures are of, for a picture; not in the JSON.
  var timeline: Timeline?
  /// What was done in it, and when.
  var moments: [FaultStory] = []
  package var pass: Bool { notes.isEmpty && figures.allSatisfy(\.pass) }

  private enum CodingKeys: String, CodingKey { case row, what, figures, notes, remarks, seconds, pass }
  package init(_ row: String, _ what: String) {
    self.row = row
    self.what = what
  }
  package init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    row = try container.decode(String.self, forKey: .row)
    what = try container.decode(String.self, forKey: .what)
    figures = try container.decode([Figure].self, forKey: .figures)
    notes = try container.decode([String].self, forKey: .notes)
    remarks = try container.decodeIfPresent([String].self, forKey: .remarks) ?? []
    seconds = try container.decode(Double.self, forKey: .seconds)
  }
  package func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(row, forKey: .row)
    try container.encode(what, forKey: .what)
    try container.encode(figures, forKey: .figures)
    try container.encode(notes, forKey: .notes)
    if !remarks.isEmpty { try container.encode(remarks, forKey: .remarks) }
    try container.encode(seconds, forKey: .seconds)
    try container.encode(pass, forKey: .pass)
  }

  package mutating func add(_ name: String, _ value: Double, _ unit: String = "", _ limit: Figure.Limit = .none) {
    figures.append(Figure(name, value, unit, limit))
  }
  package mutating func add(_ name: String, _ count: Int, _ limit: Figure.Limit = .none) {
    figures.append(Figure(name, count, limit))
  }

  package var text: String {
    var table = TextTable(["figure", "measured", "limit", ""])
    for figure in figures {
      table.add([
        figure.name, figure.valueText, figure.isJudged ? figure.limit : "-",
        figure.isJudged ? (figure.pass ? "ok" : "FAIL") : "",
      ])
    }
    let head = "\(pass ? "PASS" : "FAIL")  \(row): \(what) (\(Int(seconds)) s)"
    return ([head, table.text] + notes.map { "  ! \($0)" } + remarks.map { "  · \($0)" }).joined(separator: "\n")
  }
}

extension FigureRow {
  /// Has a run drawn in the report.
  /// - Parameter moments: what was done, from when to when, counted from the run's first request.
  package mutating func show(_ run: LoadGenerator.Run, _ moments: [(what: String, from: Duration, to: Duration)]) {
    timeline = Timeline(run.trace)
    self.moments = moments.enumerated().map { index, moment in
      FaultStory(
        number: index + 1, what: moment.what, from: moment.from, to: moment.to,
        run.trace.samples.filter { $0.due <= moment.to && $0.end >= moment.from })
    }
  }

  /// The row as a run of the chaos report.
  package func report(command: String) -> RunReport {
    var report = RunReport(
      scenario: row, about: what, command: command, seconds: seconds,
      trouble: notes.isEmpty ? nil : notes.joined(separator: "; "),
      verdict: Verdict(
        invariants: [], figures: figures, faults: moments,
        requests: timeline.map { ($0.ok + $0.degraded + $0.failed).reduce(0, +) } ?? 0))
    report.timeline = timeline
    return report
  }
}
