import Foundation

// The report as one page that needs nothing else: no script, no font, no network. A person should see in ten seconds
// what happened: green or red at the top, then every run as a picture, then the numbers.

enum HTMLReport {
  static func page(_ report: ChaosReport) -> String {
    var html = """
      <!DOCTYPE html>
      <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
      <title>\(escaped(report.title))</title><style>\(style)</style></head><body>
      <h1><span class="\(report.passes ? "good" : "bad")">\(report.passes ? "PASS" : "FAIL")</span> \
      \(escaped(report.title))</h1>
      """
    html += summary(report)
    for (index, run) in report.runs.enumerated() { html += section(run, index) }
    return html + "</body></html>\n"
  }

  private static let style = """
    body{font:14px/1.45 system-ui,sans-serif;max-width:1160px;margin:24px auto;padding:0 16px;color:#1c2430}
    h1{font-size:24px}h2{font-size:19px;margin:40px 0 4px;border-top:1px solid #d8dee6;padding-top:24px}
    table{border-collapse:collapse;margin:10px 24px 10px 0;font-size:13px;vertical-align:top}
    th,td{padding:3px 10px;border-bottom:1px solid #e6eaef;text-align:left}th{color:#5b6675;font-weight:600}
    td.n{text-align:right;font-variant-numeric:tabular-nums}.good{color:#0a7d3c}.bad{color:#c0271d;font-weight:700}
    .about{color:#5b6675;margin:0 0 8px}code{background:#f1f4f7;padding:2px 6px;border-radius:4px}
    .side{display:flex;flex-wrap:wrap;align-items:flex-start}svg{width:100%;height:auto}ul{color:#c0271d}
    """

  private static func summary(_ report: ChaosReport) -> String {
    let requests = report.runs.reduce(0) { $0 + ($1.verdict?.requests ?? 0) }
    let faults = report.runs.reduce(0) { $0 + ($1.verdict?.faults.count ?? 0) }
    let violations = report.runs.flatMap { $0.verdict?.invariants ?? [] }.reduce(0) { $0 + $1.violations }
    var html = """
      <p class="about">\(report.runs.count) run\(report.runs.count == 1 ? "" : "s"), \(faults) faults, \
      \(requests) requests; \(violations) violations of what must hold.</p>
      """
    guard report.runs.count > 1 else { return html }
    html += "<table><tr><th></th><th>scenario</th><th>what</th><th>faults</th><th>requests</th><th>seconds</th></tr>"
    for (index, run) in report.runs.enumerated() {
      html += """
        <tr><td>\(mark(run.passes))</td><td><a href="#run\(index)">\(escaped(run.scenario))</a></td>\
        <td>\(escaped(run.about))</td><td class="n">\(run.verdict?.faults.count ?? 0)</td>\
        <td class="n">\(run.verdict?.requests ?? 0)</td><td class="n">\(Int(run.seconds))</td></tr>
        """
    }
    return html + "</table>"
  }

  private static func section(_ run: RunReport, _ index: Int) -> String {
    var html = """
      <h2 id="run\(index)">\(mark(run.passes)) \(escaped(run.scenario))\(run.seedText)</h2>
      <p class="about">\(escaped(run.about))</p>
      """
    if let bites = run.bites {
      html += "<p class=\"about\">A defence is off, so that this must be violated: \(escaped(bites))</p>"
    }
    if let trouble = run.trouble { html += "<p class=\"bad\">\(escaped(trouble))</p>" }
    if let timeline = run.timeline {
      html += TimelinePicture(timeline, faults: run.verdict?.faults ?? []).svg(title: "")
    }
    if let verdict = run.verdict {
      html += "<div class=\"side\">" + invariants(verdict) + figures(verdict) + "</div>"
      let examples = verdict.invariants.flatMap { invariant in
        invariant.examples.map { "\(invariant.name): \($0)" }
      }
      if !examples.isEmpty { html += "<ul>" + examples.map { "<li>\(escaped($0))</li>" }.joined() + "</ul>" }
      html += faults(verdict)
    }
    html += "<p>Again: <code>\(escaped(run.command))</code>"
    if let logs = run.logs { html += " · logs: <code>\(escaped(logs))</code>" }
    return html + "</p>"
  }

  private static func invariants(_ verdict: Verdict) -> String {
    guard !verdict.invariants.isEmpty else { return "" }
    var html = "<table><tr><th></th><th>must hold</th><th>looked at</th><th>violations</th></tr>"
    for invariant in verdict.invariants {
      html += """
        <tr><td>\(mark(invariant.violations == 0))</td><td>\(escaped(invariant.name))</td>\
        <td class="n">\(invariant.checked)</td><td class="n\(invariant.violations == 0 ? "" : " bad")">\
        \(invariant.violations)</td></tr>
        """
    }
    return html + "</table>"
  }

  private static func figures(_ verdict: Verdict) -> String {
    var html = "<table><tr><th></th><th>figure</th><th>measured</th><th>limit</th></tr>"
    for figure in verdict.figures {
      html += """
        <tr><td>\(figure.isJudged ? mark(figure.pass) : "")</td><td>\(escaped(figure.name))</td>\
        <td class="n">\(escaped(figure.valueText))</td><td>\(escaped(figure.limit))</td></tr>
        """
    }
    return html + "</table>"
  }

  private static func faults(_ verdict: Verdict) -> String {
    guard !verdict.faults.isEmpty else { return "" }
    var html = """
      <table><tr><th>#</th><th>fault</th><th>at s</th><th>for s</th><th>held for down after s</th>\
      <th>whole again after s</th><th>slowest ms</th><th>degraded</th><th>failed</th><th>outcome</th></tr>
      """
    func text(_ value: Double?) -> String { value.map { String(format: "%.2f", $0) } ?? "–" }
    for fault in verdict.faults {
      let outcome = fault.trouble.map { "<span class=\"bad\">\(escaped($0))</span>" } ?? escaped(fault.outcome)
      html += """
        <tr><td class="n">\(fault.number)</td><td>\(escaped(fault.what))</td><td class="n">\(text(fault.began))</td>\
        <td class="n">\(text(fault.ended - fault.began))</td><td class="n">\(text(fault.noticed))</td>\
        <td class="n">\(text(fault.healed))</td><td class="n">\(text(fault.slowestMilliseconds))</td>\
        <td class="n">\(fault.degraded)</td><td class="n">\(fault.failed)</td><td>\(outcome)</td></tr>
        """
    }
    return html + "</table>"
  }

  private static func mark(_ passes: Bool) -> String {
    passes ? "<span class=\"good\">✓</span>" : "<span class=\"bad\">✗</span>"
  }
  static func escaped(_ text: String) -> String {
    text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
      .replacing("\"", with: "&quot;")
  }
}
