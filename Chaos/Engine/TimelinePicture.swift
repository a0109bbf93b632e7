import Foundation

// A run as a picture: all rows over one axis of time, every fault a grey band through all of them.
//
//     faults      ▌kill w3     ▌cut → w1
//     answers/s   ▁▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂        green complete, orange degraded, red failed
//     latency     ┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈        p50, p99, slowest; logarithmic, ms
//     coverage    ──────────────╲__╱─        the least of any answer
//     c1 sees w1  ████████████░░████         green up, red down, …

struct TimelinePicture {
  private let timeline: Timeline
  private let faults: [FaultStory]
  private static let width = 1100.0
  private static let left = 106.0
  private static let right = 12.0
  private static let bandHeight = 15.0
  private static let labelRowsMax = 5

  init(_ timeline: Timeline, faults: [FaultStory]) {
    self.timeline = timeline
    self.faults = faults
  }

  private static let colours = [
    "up": "#4cae6e", "incomplete": "#b6d77a", "joining": "#9ec9e8", "suspect": "#f2c14e", "ejected": "#c58ae0",
    "draining": "#7fa3c7", "down": "#d9534a", "gone": "#8a2b24", "unknown": "#dfe4ea", "unseen": "#c9cfd6",
  ]

  private func x(_ seconds: Double) -> Double {
    Self.left + seconds / max(timeline.length, 0.001) * (Self.width - Self.left - Self.right)
  }
  private func n(_ value: Double) -> String { String(format: "%.1f", value) }

  /// - Parameter title: drawn above, for a picture that stands alone; empty = none.
  func svg(title: String) -> String {
    var body = ""
    var y = title.isEmpty ? 8.0 : 34.0
    if !title.isEmpty {
      body +=
        "<text x=\"\(n(Self.left))\" y=\"20\" font-size=\"15\" font-weight=\"600\">\(HTMLReport.escaped(title))</text>"
    }
    let top = y
    let labels = labelRows()
    let faultsHeight = Double(max(1, labels.compactMap { $0.map { $0 + 1 } }.max() ?? 1)) * Self.bandHeight + 4
    var rows = ""
    y += faultsHeight
    rows += name("answers/s", y + 40)
    rows += throughput(y, 70)
    y += 84
    rows += name("latency ms", y + 48)
    rows += latency(y, 92)
    y += 106
    if timeline.coverage.contains(where: { $0 != nil }) {
      rows += name("coverage", y + 20)
      rows += coverage(y, 34)
      y += 46
    }
    for lane in timeline.lanes {
      let label =
        timeline.lanes.contains { $0.coordinator != lane.coordinator }
        ? "\(lane.coordinator) sees \(lane.worker)" : lane.worker
      rows += name(label, y + 10)
      for span in lane.spans {
        rows += rect(x(span.from), y, x(span.to) - x(span.from), 12, Self.colours[span.health] ?? "#ccc")
      }
      y += 16
    }
    let bottom = y
    for (fault, label) in zip(faults, labels) {
      let from = x(fault.began)
      let width = max(1.5, x(fault.ended) - from)
      body += rect(from, top, width, bottom - top, fault.trouble == nil ? "#5b6675" : "#d9534a", opacity: 0.13)
      guard let label else { continue }
      let at = top + Double(label) * Self.bandHeight + 11
      let end = from > Self.width - 120
      body += """
        <text x="\(n(end ? from - 2 : from + 2))" y="\(n(at))" font-size="10.5" fill="#3a4452"\
        \(end ? " text-anchor=\"end\"" : "")>\(HTMLReport.escaped(fault.what))</text>
        """
    }
    body += rows + axis(bottom)
    y = bottom + 22
    body += legend(y)
    return """
      <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Int(Self.width)) \(Int(y + 14))" \
      font-family="system-ui,sans-serif" font-size="11" fill="#1c2430">\
      <rect width="100%" height="100%" fill="#fff"/>\(body)</svg>
      """
  }

  /// Labels that would lie on each other go into rows of their own; one for which there is no row left is not drawn.
  private func labelRows() -> [Int?] {
    var ends = [Double](repeating: 0, count: Self.labelRowsMax)
    return faults.map { fault in
      let from = x(fault.began)
      guard let row = ends.firstIndex(where: { $0 <= from }) else { return nil }
      ends[row] = from + Double(fault.what.count) * 6.2 + 8
      return row
    }
  }

  private func name(_ text: String, _ y: Double) -> String {
    "<text x=\"\(n(Self.left - 32))\" y=\"\(n(y))\" text-anchor=\"end\" fill=\"#5b6675\">\(text)</text>"
  }
  private func rect(
    _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ colour: String, opacity: Double = 1
  ) -> String {
    let see = opacity < 1 ? " fill-opacity=\"\(opacity)\"" : ""
    return "<rect x=\"\(n(x))\" y=\"\(n(y))\" width=\"\(n(max(0, width)))\" height=\"\(n(max(0, height)))\" "
      + "fill=\"\(colour)\"\(see)/>"
  }

  private func throughput(_ y: Double, _ height: Double) -> String {
    let totals = timeline.ok.indices.map { timeline.ok[$0] + timeline.degraded[$0] + timeline.failed[$0] }
    let most = Double(max(1, totals.max() ?? 1))
    let width = x(timeline.bucket) - x(0) + 0.3
    var svg = ""
    for (index, total) in totals.enumerated() where total > 0 {
      var base = y + height
      for (count, colour) in [
        (timeline.ok[index], "#a9d8b8"), (timeline.degraded[index], "#f0a13c"), (timeline.failed[index], "#d9534a"),
      ] where count > 0 {
        // One that failed among hundreds must be seen.
        let tall = max(colour == "#a9d8b8" ? 0 : 4, Double(count) / most * height)
        svg += rect(x(Double(index) * timeline.bucket), base - tall, width, tall, colour)
        base -= tall
      }
    }
    return svg + tick("\(Int(most / timeline.bucket))", y + 8) + line(y + height)
  }

  private func latency(_ y: Double, _ height: Double) -> String {
    let (least, most) = (0.1, 1000.0)
    func level(_ milliseconds: Double) -> Double {
      let share = (log10(min(most, max(least, milliseconds))) - log10(least)) / (log10(most) - log10(least))
      return y + height - share * height
    }
    var svg = ""
    for mark in [0.1, 1, 10, 100, 1000] {
      svg += line(level(mark), "#eceff3") + tick(mark < 1 ? "0.1" : "\(Int(mark))", level(mark) + 3)
    }
    for (values, colour, width) in [
      (timeline.max, "#d7c3e8", 1.0), (timeline.p99, "#7b4fb0", 1.4), (timeline.p50, "#2f6fb3", 1.4),
    ] { svg += path(values, colour, width, level) }
    return svg
  }

  private func coverage(_ y: Double, _ height: Double) -> String {
    line(y, "#eceff3") + tick("100 %", y + 4) + line(y + height) + tick("0", y + height + 3)
      + path(timeline.coverage, "#0a7d3c", 1.6) { y + height - $0 * height }
  }

  private func path(
    _ values: [Double?], _ colour: String, _ width: Double, _ level: (Double) -> Double
  ) -> String {
    var d = ""
    var isDown = false
    for (index, value) in values.enumerated() {
      guard let value else {
        isDown = false
        continue
      }
      d += "\(isDown ? "L" : "M")\(n(x((Double(index) + 0.5) * timeline.bucket))) \(n(level(value)))"
      isDown = true
    }
    return "<path d=\"\(d)\" fill=\"none\" stroke=\"\(colour)\" stroke-width=\"\(width)\"/>"
  }

  private func line(_ y: Double, _ colour: String = "#c9cfd6") -> String {
    "<line x1=\"\(n(Self.left))\" x2=\"\(n(Self.width - Self.right))\" y1=\"\(n(y))\" y2=\"\(n(y))\" "
      + "stroke=\"\(colour)\"/>"
  }
  private func tick(_ text: String, _ y: Double) -> String {
    "<text x=\"\(n(Self.left - 3))\" y=\"\(n(y))\" text-anchor=\"end\" font-size=\"8.5\" "
      + "fill=\"#8b95a3\">\(text)</text>"
  }

  private func axis(_ y: Double) -> String {
    let step =
      [1.0, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200].first { timeline.length / $0 <= 14 } ?? 14_400
    var svg = ""
    for mark in stride(from: 0, through: timeline.length, by: step) {
      svg +=
        "<text x=\"\(n(x(mark)))\" y=\"\(n(y + 10))\" text-anchor=\"middle\" fill=\"#5b6675\">\(Int(mark)) s</text>"
    }
    let healthy = x(timeline.baseline)
    return svg + "<line x1=\"\(n(healthy))\" x2=\"\(n(healthy))\" y1=\"8\" y2=\"\(n(y))\" stroke=\"#8b95a3\" "
      + "stroke-dasharray=\"3 3\"/>"
  }

  private func legend(_ y: Double) -> String {
    var svg = ""
    var at = Self.left
    let seen = Set(timeline.lanes.flatMap { $0.spans.map(\.health) })
    let entries =
      [
        ("complete", "#a9d8b8"), ("degraded", "#f0a13c"), ("failed", "#d9534a"), ("p50", "#2f6fb3"), ("p99", "#7b4fb0"),
        ("slowest", "#d7c3e8"),
      ]
      + Self.colours.keys.sorted().filter { seen.contains($0) }.map { ("worker \($0)", Self.colours[$0] ?? "") }
    for (text, colour) in entries {
      svg +=
        rect(at, y, 10, 9, colour) + "<text x=\"\(n(at + 14))\" y=\"\(n(y + 8.5))\" fill=\"#5b6675\">\(text)</text>"
      at += Double(text.count) * 6 + 30
    }
    return svg
  }
}
