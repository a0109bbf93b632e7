import RankingCore
import Rollout

// What rollouts write elsewhere, and what guards read there.

enum RolloutPages {
  /// For the log.
  static func line(_ entry: HistoryEntry) -> String {
    let subject = entry.rollout.isEmpty ? "\(entry.model)/\(entry.version)" : "\(entry.rollout) (\(entry.version))"
    return "\(subject): \(entry.from) → \(entry.to) by \(entry.who): \(entry.why)"
  }

  /// The named metrics of a page in Prometheus' text format; a name is followed by its labels, as on the page.
  static func metrics(_ names: [String], in page: String) -> [Observed.Metric] {
    page.split(separator: "\n").compactMap { line in
      guard let space = line.lastIndex(of: " "), !line.hasPrefix("#") else { return nil }
      let name = String(line[..<space])
      guard names.contains(name), let value = Double(line[line.index(after: space)...]) else { return nil }
      return Observed.Metric(name, value)
    }
  }
}
