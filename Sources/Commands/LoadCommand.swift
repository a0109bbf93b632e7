import ClusterHarness
import ClusterLoad
import Foundation
import Terminal

extension Command {
  static let load = Command(
    name: "load",
    summary: "Send requests at a steady rate and measure the answers",
    discussion: """
      Requests are sent on schedule whether or not earlier ones are answered, and latency counts from when a request was
      due: a stall is seen by everyone who would have come meanwhile. The requests of the file are used in turn.
      ok = complete answers, degraded = answers that miss shards; sent = ok + degraded + failed. How soon those that
      failed were told so is in refused_p50, refused_p99 and refused_max, by reason.
      Exit code 0 when nothing failed (degraded answers are no failure). Ctrl-C ends the run and reports what there is.
      """,
    example: "shortlist load --url http://127.0.0.1:8080 --requests requests.jsonl --rate 500 --duration 30s",
    options: [
      .text("url", "URL", "the coordinator").required,
      .text("requests", "FILE", "requests, one JSON object per line").required,
      .number("rate", "requests per second", in: 0.01...1e6).required,
      Option(name: "duration", kind: .duration, placeholder: "TIME", help: "how long", standard: "30s"),
      Option(
        name: "api", kind: .choice(LoadGenerator.Endpoint.allCases.map(\.rawValue)), placeholder: "NAME",
        help: "what is asked: recommend, rank or similar", standard: "recommend"),
      .flag("poisson", "random gaps (exponential) instead of equal ones"),
      .integer("seed", "seed of the random gaps", in: 0...Int.max, standard: 1),
      .integer("connections", "HTTP/2 connections", in: 1...64, standard: 4),
      .integer("outstanding", "the most requests under way; more are not sent", in: 1...100_000, standard: 1000),
      Option(
        name: "timeout", kind: .duration, placeholder: "TIME", help: "how long one request may take", standard: "5s"),
      Option(
        name: "windows", kind: .duration, placeholder: "TIME",
        help: "also report the run in pieces of this length, by when requests were due"),
    ] + trustOptions,
    signals: .own,
    run: { try load($0) })

  private static func load(_ invocation: Invocation) throws -> Int32 {
    let rate = invocation.number("rate")
    let duration = invocation.duration("duration")
    guard let endpoint = LoadGenerator.Endpoint(rawValue: invocation.text("api")) else { return 2 }
    let windows = invocation.optional("windows").flatMap { parseDuration($0) }
    var generator = LoadGenerator(
      server: try serverURL(invocation), endpoint: endpoint,
      requests: try RequestFile.read(invocation.text("requests")).map(\.body), rate: rate, duration: duration,
      poisson: invocation.flag("poisson"), seed: UInt64(invocation.integer("seed")),
      connections: invocation.integer("connections"), outstandingMax: invocation.integer("outstanding"),
      limit: invocation.duration("timeout"))
    generator.traces = windows != nil

    let interrupted = Interrupt()
    let run = try generator.run(
      stopped: { interrupted.isSet },
      tick: { tally, elapsed in Console.live(liveLine(tally, elapsed, duration)) })
    Console.live("")
    let tally = run.tally
    var report = LoadReport(tally, rate: rate, elapsed: run.elapsed)
    report.windows = windows.map { run.trace.windows(of: $0) }
    try Console.printJSON(report)
    if interrupted.isSet { return 130 }
    return tally.failures == 0 ? 0 : 1
  }

  private static func liveLine(_ tally: LoadTally, _ elapsed: Duration, _ duration: Duration) -> String {
    let report = LoadReport(tally, rate: 0, elapsed: elapsed)
    func text(_ milliseconds: Double?) -> String { milliseconds.map { String(format: "%.1f", $0) } ?? "-" }
    return "\(seconds(elapsed)) of \(seconds(duration)) · \(report.sent) sent, \(report.degraded) degraded, "
      + "\(tally.failures) failed · \(text(report.achievedRate))/s · ms p50 \(text(report.p50)) "
      + "p99 \(text(report.p99)) max \(text(report.max))"
  }
}
