import ChaosEngine
import ClusterHarness
import ClusterLoad
import Foundation
import HTTP2
import Synchronization
import Terminal

// The rows in which processes die, freeze and come back. Each compares with R, the p99 of the same load on the same
// cluster just before anything was done to it.

extension FigureRig {
  private func cleared(_ row: inout FigureRow, _ run: LoadGenerator.Run, _ trouble: TroubleLog) {
    row.add("requests", run.tally.sent)
    row.add("failed", run.failures, .equal(0))
    row.add("degraded", run.tally.degraded, .equal(0))
    if run.failures > 0 { row.notes.append("failed: \(run.failureText)") }
    row.notes += trouble.notes
  }

  /// kill -9, again and again.
  func kill() throws -> FigureRow {
    let kills = quick ? 6 : 60
    let interval: Duration = .seconds(5)
    var row = FigureRow("kill", "kill -9 of one worker every 5 s, \(kills) times")
    let cluster = try cluster()
    defer { cluster.stop() }
    try warmUp(cluster)
    let healthy = try run(try generator(cluster, for: interval * kills, mixed: true))
    let trouble = TroubleLog()
    let load = try BackgroundLoad(
      try generator(cluster, for: interval * (2 * kills), mixed: true, ended: { trouble.add($0) }))
    var moments: [Duration] = []
    var shown: [(what: String, from: Duration, to: Duration)] = []
    for number in 0..<kills {
      load.wait(until: interval * number + .milliseconds(2500))
      try waitUntilHealthy(cluster)
      let victim = cluster.workers[number % cluster.workers.count].name
      moments.append(load.now)
      try cluster.kill(victim)
      pause(.seconds(1))
      try cluster.restart(victim)
      shown.append(("kill \(victim)", moments[number], load.now))
      if number % 10 == 9 { say("kill: \(number + 1) of \(kills)") }
    }
    try waitUntilHealthy(cluster)
    load.wait(until: interval * kills)
    let run = try load.stop()
    row.show(run, shown)
    cleared(&row, run, trouble)
    row.add("R, p99 when healthy", healthy.p99, "ms")
    row.add("p99", run.p99, "ms", .atMost(1.5 * healthy.p99))
    let slowest = moments.map { run.slowest(from: $0 - .milliseconds(5), to: $0 + .milliseconds(300)) }.sorted()
    row.add("slowest request around a kill, median", slowest[slowest.count / 2], "ms")
    row.add("slowest request around a kill, worst", slowest[slowest.count - 1], "ms", .below(50))
    row.add("slowest request when healthy", healthy.tally.latencies.max / .milliseconds(1), "ms")
    return row
  }

  /// Both replicas of some shards at once.
  func bothDead() throws -> FigureRow {
    var row = FigureRow("both-dead", "both replicas of a shard dead for 4 s")
    let cluster = try cluster(joins: false)
    defer { cluster.stop() }
    let (first, second, lost) = try pair(try waitUntilHealthy(cluster))
    try warmUp(cluster)
    let answers = AnswerLog()
    let load = try BackgroundLoad(
      try generator(cluster, for: .seconds(60), ended: { answers.add($0) }))
    load.wait(until: .seconds(2))
    let before = Monotonic.now
    try cluster.kill(first)
    try cluster.kill(second)
    let dead = Monotonic.now
    pause(.seconds(4))
    let returning = Monotonic.now
    try cluster.restart(first)
    let ready = Monotonic.now
    pause(.seconds(4))
    try cluster.restart(second)
    try waitUntilHealthy(cluster)
    pause(.seconds(2))
    let run = try load.stop()
    row.show(run, [("kill \(first) + \(second)", before - load.start, ready - load.start)])
    row.add("requests", run.tally.sent)
    row.add("failed", run.failures, .equal(0))
    if run.failures > 0 { row.notes.append("failed: \(run.failureText)") }
    row.add("slowest request", run.tally.latencies.max / .milliseconds(1), "ms", .atMost(500))
    row.add("shards lost", lost.count)
    let seen = answers.all
    let during = seen.filter { $0.sent >= dead && $0.received <= returning }
    row.add("answers while they were lost", during.count)
    row.add("false \"full\"", during.count { $0.missing.isEmpty }, .equal(0))
    row.add("coverage not exact", during.count { $0.missing != lost }, .equal(0))
    row.add("a shard missing that was not lost", seen.count { !Set($0.missing).isSubset(of: lost) }, .equal(0))
    let early = seen.count { !$0.missing.isEmpty && $0.received < before }
    row.add("degraded before", early, .equal(0))
    let last = seen.filter { !$0.missing.isEmpty }.map(\.received).max() ?? ready
    row.add("full again after ready", (last - ready) / .seconds(1), "s", .atMost(2))
    let check = AnswerCheck(bundle.path, requests: bundle.requests())
    let wrong = try check.wrong(during.spread(40) + seen.filter { $0.received > ready }.spread(20))
    row.add("answers compared with the oracle", check.compared)
    row.add("wrong answers", wrong.count, .equal(0))
    row.notes += wrong.prefix(3)
    return row
  }

  /// SIGSTOP: the process keeps its connections and answers nothing.
  func freeze() throws -> FigureRow {
    var row = FigureRow("freeze", "one worker frozen for 5 s")
    let cluster = try cluster()
    defer { cluster.stop() }
    try warmUp(cluster)
    let length: Duration = quick ? .seconds(12) : .seconds(30)
    let healthy = try run(try generator(cluster, for: length))

    // Pauses that are shorter than what counts as a sign of death.
    let before = try MetricsPage(cluster)
    let paused = try BackgroundLoad(try generator(cluster, for: .seconds(30)))
    for number in 0..<(quick ? 4 : 12) {
      paused.wait(until: .seconds(1) + .seconds(1) * number)
      let name = cluster.workers[number % cluster.workers.count].name
      try cluster.freeze(name)
      pause(.milliseconds(180))
      try cluster.thaw(name)
    }
    pause(.seconds(1))
    let pauses = try paused.stop()
    let after = try MetricsPage(cluster)
    func states(_ page: MetricsPage) -> Double { page.sum("shortlist_member_transitions_total") }
    row.add("changes of state in pauses of 180 ms", states(after) - states(before), "", .equal(0))
    row.add("degraded or failed in pauses", pauses.tally.degraded + pauses.failures, .equal(0))

    try waitUntilHealthy(cluster)
    let delay = try cluster.report().workers.compactMap(\.hedgeDelayMilliseconds).max() ?? 0
    let trouble = TroubleLog()
    let load = try BackgroundLoad(
      try generator(cluster, for: length + .seconds(10), ended: { trouble.add($0) }))
    load.wait(until: .seconds(2))
    let victim = cluster.workers[1].name
    let frozen = load.now
    try cluster.freeze(victim)
    try cluster.waitFor("\(victim) down", limit: .seconds(5)) { $0.worker(victim)?.state == "down" }
    let down = load.now
    load.wait(until: frozen + .seconds(5))
    try cluster.thaw(victim)
    load.wait(until: length)
    try waitUntilHealthy(cluster)
    let run = try load.stop()
    row.show(run, [("freeze \(victim)", frozen, frozen + .seconds(5))])
    cleared(&row, run, trouble)
    row.add("R, p99 when healthy", healthy.p99, "ms")
    row.add("hedge delay before", delay, "ms")
    row.add("p99", run.p99, "ms", .atMost(healthy.p99 + delay + 5))
    let window = run.trace.window(from: frozen, to: frozen + .seconds(5))
    row.add("p99 of the 5 s", window.p99 ?? 0, "ms")
    row.add("slowest in the 5 s", window.max ?? 0, "ms")
    row.add("down after", (down - frozen) / .seconds(1), "s", .atMost(1.2))
    return row
  }

  /// What a shard that nobody holds costs the others.
  func shardDown() throws -> FigureRow {
    var row = FigureRow("shard-down", "both replicas of a shard dead, retries on")
    let cluster = try cluster(joins: false)
    defer { cluster.stop() }
    let (first, second, lost) = try pair(try waitUntilHealthy(cluster))
    try warmUp(cluster)
    let load = try BackgroundLoad(try generator(cluster, for: quick ? .seconds(10) : .seconds(30)))
    load.wait(until: .seconds(1))
    let before = try MetricsPage(cluster)
    try cluster.kill(first)
    try cluster.kill(second)
    let run = try load.result()
    row.show(run, [("kill \(first) + \(second)", .seconds(1), run.elapsed)])
    let after = try MetricsPage(cluster)
    func legs(_ kind: String) -> Double {
      let label = kind.isEmpty ? "" : "kind=\"\(kind)\""
      return after.sum("shortlist_legs_total", label) - before.sum("shortlist_legs_total", label)
    }
    row.add("requests", run.tally.sent)
    row.add("failed", run.failures, .equal(0))
    row.add("shards lost", lost.count)
    row.add("primary legs", legs("primary"))
    row.add("retries", legs("retry"))
    row.add("hedges", legs("hedge"))
    row.add("all legs ÷ need", legs("") / max(1, legs("primary")), "", .atMost(1.10))
    return row
  }

  /// SIGTERM and start, worker after worker.
  func restarts() throws -> FigureRow {
    let count = quick ? 5 : 20
    var row = FigureRow("restarts", "\(count) SIGTERM restarts of workers, one after the other")
    let cluster = try cluster()
    defer { cluster.stop() }
    try warmUp(cluster)
    let trouble = TroubleLog()
    let load = try BackgroundLoad(
      try generator(cluster, for: .seconds(20 * count), mixed: true, ended: { trouble.add($0) }))
    var slowest: Duration = .zero
    var unclean = 0
    var events: [(what: String, at: Duration)] = []
    var shown: [(what: String, from: Duration, to: Duration)] = []
    for number in 0..<count {
      try waitUntilHealthy(cluster)
      let name = cluster.workers[number % cluster.workers.count].name
      let asked = Monotonic.now
      events.append((what: "\(name) asked to end", at: load.now))
      if try cluster.drain(name) != .code(0) { unclean += 1 }
      slowest = max(slowest, Monotonic.now - asked)
      try cluster.restart(name)
      shown.append(("terminate \(name)", asked - load.start, load.now))
      // Under load from before to after, not as quickly as it can be done.
      pause(.seconds(1))
    }
    try waitUntilHealthy(cluster)
    pause(.seconds(1))
    let run = try load.stop()
    row.show(run, shown)
    cleared(&row, run, trouble)
    row.notes += run.troubles(since: events)
    row.add("not ended with exit code 0", unclean, .equal(0))
    row.add("slowest exit", slowest / .seconds(1), "s", .atMost(10))
    row.add("p99", run.p99, "ms")
    row.add("slowest request", run.tally.latencies.max / .milliseconds(1), "ms")
    return row
  }
}
