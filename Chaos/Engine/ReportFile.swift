import Bundles
import Foundation
import Terminal

/// A file that a report goes to, in the form that its name ends in.
package struct ReportFile {
  private enum Kind: String { case html, json, txt, svg }
  private let path: String
  private let kind: Kind

  /// - Throws: `UsageError` for a name that ends in something else.
  package init(_ path: String) throws {
    guard let kind = Kind(rawValue: URL(fileURLWithPath: path).pathExtension.lowercased()) else {
      throw UsageError("--report \(path): the name must end in .html, .json, .txt or .svg")
    }
    self.path = path
    self.kind = kind
  }

  /// A reader sees the old report or the new one, never half of it.
  package func write(_ report: ChaosReport) throws {
    let bytes: [UInt8]
    switch kind {
    case .html: bytes = Array(HTMLReport.page(report).utf8)
    case .txt: bytes = Array((report.text + "\n").utf8)
    case .svg:
      // A picture of one run: the last.
      guard let run = report.runs.last, let timeline = run.timeline else { return }
      let faults = run.verdict?.faults ?? []
      bytes = Array(TimelinePicture(timeline, faults: faults).svg(title: "\(run.scenario): \(run.about)").utf8)
    case .json:
      bytes = [UInt8](try Console.json(report))
    }
    try AtomicFile.write(bytes, to: path)
  }
}
