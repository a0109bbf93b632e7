import ChaosEngine
import ClusterHarness
import ClusterLoad
import Foundation
import Terminal

// The rows in which nobody dies: stragglers, and more load than there is room for.

extension FigureRig {
  private func delay(_ worker: ClusterMember, milliseconds: Int, share: Double, seed: Int) throws {
    var http = PlainHTTP(try ServerURL(worker.url), limit: .seconds(5))
    let body = #"{"delay_ms": \#(milliseconds), "share": \#(share), "seed": \#(seed)}"#
    let response = try http.post("/faults", Array(body.utf8))
    guard response.status == 200 else { throw CommandError("\(worker.name) refuses faults: \(response.text)") }
  }

  /// Every worker is slow now and then.
  func tailA() throws -> FigureRow {
    var row = FigureRow("tail-a", "every worker delays 1 % of its legs by 100 ms")
    let length: Duration = quick ? .seconds(10) : .seconds(30)
    func measure(hedging: Bool) throws -> (run: LoadGenerator.Run, extra: Double) {
      let cluster = try cluster(routing: .init(hedging: hedging), allowFaults: true)
      defer { cluster.stop() }
      try warmUp(cluster)
      for (number, worker) in cluster.workers.enumerated() {
        try delay(worker, milliseconds: 100, share: 0.01, seed: number + 1)
      }
      let before = try MetricsPage(cluster)
      let run = try run(try generator(cluster, for: length))
      let after = try MetricsPage(cluster)
      func legs(_ kind: String) -> Double {
        after.sum("shortlist_legs_total", "kind=\"\(kind)\"") - before.sum("shortlist_legs_total", "kind=\"\(kind)\"")
      }
      return (run, (legs("hedge") + legs("retry")) / max(1, legs("primary")))
    }
    let (without, with) = (try measure(hedging: false), try measure(hedging: true))
    row.show(with.run, [("every worker stutters", .zero, with.run.elapsed)])
    row.add("degraded or failed", with.run.tally.degraded + with.run.failures, .equal(0))
    row.add("p99 without hedging", without.run.p99, "ms")
    row.add("p99 with hedging", with.run.p99, "ms", .atMost(without.run.p99 / 3))
    row.add("extra legs", with.extra * 100, "%", .atMost(5))
    return row
  }

  /// One worker is always slow.
  func tailB() throws -> FigureRow {
    var row = FigureRow("tail-b", "one worker delays every leg by 100 ms; from 2 s after the onset")
    let length: Duration = quick ? .seconds(12) : .seconds(32)
    func measure(
      _ routing: CoordinatorFile.Routing?
    ) throws -> (all: LoadGenerator.Run, later: LoadWindow, log: String) {
      let cluster = try cluster(routing: routing, allowFaults: true)
      defer { cluster.stop() }
      try warmUp(cluster)
      let load = try BackgroundLoad(try generator(cluster, for: length + .seconds(2)))
      load.wait(until: .seconds(2))
      let onset = load.now
      try delay(cluster.workers[2], milliseconds: 100, share: 1, seed: 1)
      let run = try load.result()
      let page = try MetricsPage(cluster)
      let log = "\(Int(page.sum("shortlist_ejections_total", "reason=\"slow\""))) slow ejections"
      return (run, run.trace.window(from: onset + .seconds(2), to: length + .seconds(2)), log)
    }
    let (without, with) = (try measure(.plain), try measure(nil))
    row.show(with.all, [("one worker is slow", .seconds(2), with.all.elapsed)])
    row.add("degraded or failed", with.all.tally.degraded + with.all.failures, .equal(0))
    row.add("p99 with all three off", without.later.p99 ?? 0, "ms")
    row.add("p99 with all three", with.later.p99 ?? .infinity, "ms", .atMost((without.later.p99 ?? 0) / 3))
    row.add("p50 with all three", with.later.p50 ?? .infinity, "ms")
    say("tail-b: \(with.log)")
    return row
  }

  /// More than there is room for.
  func overload() throws -> FigureRow {
    let length: Duration = quick ? .seconds(10) : .seconds(30)
    var row = FigureRow("overload", "3 × the knee for \(Int(length / .seconds(1))) s")
    let cluster = try cluster()
    defer { cluster.stop() }
    try warmUp(cluster)
    let healthy = try run(try generator(cluster, for: .seconds(6)))
    let run = try run(try generator(cluster, rate: rate * 6, for: length, connections: 32))
    row.show(run, [("3 × the knee", .zero, length)])
    let after = try self.run(try generator(cluster, for: .seconds(8)))
    let goodput = Double(run.tally.ok) / (length / .seconds(1))
    row.add("offered", rate * 6, "/s")
    row.add("peak goodput before", peak, "/s")
    row.add("goodput", goodput, "/s", peak > 0 ? .atLeast(0.9 * peak) : .none)
    row.add("degraded", run.tally.degraded)
    row.add("p99 of what is answered", run.p99, "ms")
    let refused = run.tally.refusals["overloaded"]
    row.add("refused", refused?.count ?? 0)
    row.add("p50 of refusals", refused?.quantile(0.5).map(inMilliseconds) ?? 0, "ms")
    row.add("p99 of refusals", refused?.quantile(0.99).map(inMilliseconds) ?? 0, "ms", .below(5))
    let others = run.tally.failed.filter { $0.key != "overloaded" }
    row.add("failed otherwise", others.values.reduce(0, +))
    if !others.isEmpty { say("overload: \(run.failureText)") }
    let later = after.trace.window(from: .seconds(2), to: .seconds(8))
    row.add("degraded or failed from 2 s after", later.degraded + later.failed, .equal(0))
    row.add("R, p99 when healthy", healthy.p99, "ms")
    row.add("p99 from 2 s after", later.p99 ?? .infinity, "ms", .atMost(1.5 * healthy.p99 + 1))
    return row
  }
}
