import ClusterHarness
import Foundation

// The rows in which versions change under load.

extension FigureRig {
  private var rolloutSettings: [String: Any] {
    [
      "shadow": ["min_time_ms": 1000, "min_sample": 20], "canary": ["min_time_ms": 1000, "min_sample": 20],
      "retire": ["min_time_ms": 500], "rolling_back": ["min_time_ms": 200],
      "canary_steps": [1000, 5000, 10_000],
    ]
  }

  private func start(_ version: String, _ cluster: LocalCluster) throws -> String {
    try RolloutReport.command(
      cluster.admin,
      [
        "action": "start", "model": bundle.release.model, "version": version, "who": "figures", "again": true,
        "settings": rolloutSettings,
      ]
    ).rollout
  }
  private func wait(
    _ what: String, _ cluster: LocalCluster, limit: Duration = .seconds(60), _ condition: (RolloutReport.Model) -> Bool
  ) throws {
    let deadline = Monotonic.now + limit
    while true {
      if let model = try RolloutReport.fetch(cluster.admin)[bundle.release.model], condition(model) { return }
      guard Monotonic.now < deadline else { throw CommandError("after \(limit) still not: \(what)") }
      pause(.milliseconds(20))
    }
  }

  /// One after the other, to and fro, and in each a worker dies.
  func rollouts() throws -> FigureRow {
    let count = quick ? 4 : 20
    var row = FigureRow("rollouts", "\(count) rollouts in a row, a worker killed with -9 in each")
    try bundle.addVersion()
    let cluster = try cluster(rollouts: true)
    defer { cluster.stop() }
    try warmUp(cluster)
    let healthy = try run(try generator(cluster, for: quick ? .seconds(15) : .seconds(60), mixed: true))
    let (answers, trouble) = (AnswerLog(), TroubleLog())
    let load = try BackgroundLoad(
      try generator(
        cluster, for: .seconds(60 * count), mixed: true,
        inspect: { index, sent, response in
          answers.add(index, sent: sent, response)
          trouble.add(response)
        }))
    var done = 0
    for number in 0..<count {
      let rollout = try start(number % 2 == 0 ? FigureBundle.other : bundle.release.version, cluster)
      // Somewhere in it, each time elsewhere.
      pause(.milliseconds(300 + number * 790 % 5000))
      let victim = cluster.workers[number % cluster.workers.count].name
      try cluster.kill(victim)
      pause(.milliseconds(500))
      try cluster.restart(victim)
      try wait("the end of \(rollout)", cluster) { $0.last?.id == rollout }
      let last = try RolloutReport.fetch(cluster.admin)[bundle.release.model]?.last
      if last?.outcome == "done" { done += 1 } else { row.notes.append("\(rollout): \(last?.why ?? "?")") }
      try waitUntilHealthy(cluster)
      say("rollouts: \(number + 1) of \(count)")
    }
    let run = try load.stop()
    row.add("done", done, .equal(Double(count)))
    row.add("requests", run.tally.sent)
    row.add("failed", run.failures, .equal(0))
    row.add("degraded", run.tally.degraded, .equal(0))
    row.notes += trouble.notes
    row.add("p99 before", healthy.p99, "ms")
    row.add("p99 of the whole run", run.p99, "ms", .atMost(1.5 * healthy.p99))
    let check = try AnswerCheck(
      bundle.path, "\(bundle.store)/\(bundle.release.model)/\(FigureBundle.other)", mixed: true)
    let wrong = try check.wrong(answers.all.spread(quick ? 400 : 4000))
    row.add("answers recorded", answers.all.count)
    row.add("compared with their version's oracle", check.compared)
    row.add("wrong, or of two versions", wrong.count, .equal(0))
    row.notes += wrong.prefix(3)
    return row
  }

  /// What loading and warming up a version as large as the one that serves costs its requests.
  func rolloutLoad() throws -> FigureRow {
    let count = quick ? 5 : 30
    var row = FigureRow("rollout-load", "load and warm-up of a version as large as the serving one, \(count) times")
    if !FileManager.default.fileExists(atPath: "\(bundle.store)/\(bundle.release.model)/\(FigureBundle.other)") {
      try bundle.addVersion()
    }
    let cluster = try cluster(rollouts: true)
    defer { cluster.stop() }
    try warmUp(cluster)
    let load = try BackgroundLoad(try generator(cluster, for: .seconds(60 * count), mixed: true))
    // Quiet and loading take turns, so that both see the same machine.
    var windows: [(quiet: ClosedRange<Duration>, loading: ClosedRange<Duration>)] = []
    for number in 0..<count {
      let calm = load.now
      pause(.seconds(2))
      let begin = load.now
      let rollout = try start(FigureBundle.other, cluster)
      try wait("loaded and warm", cluster) { $0.rollout.map { $0.stage == "shadow" } ?? true }
      windows.append((calm...begin, begin...load.now))
      _ = try? RolloutReport.command(
        cluster.admin, ["action": "abort", "model": bundle.release.model, "who": "figures"])
      try wait("the end of \(rollout)", cluster) { $0.last?.id == rollout }
      try waitUntilHealthy(cluster)
      if number % 10 == 9 { say("rollout-load: \(number + 1) of \(count)") }
    }
    let run = try load.stop()
    func p99(_ ranges: [ClosedRange<Duration>]) -> (Double, Int) {
      let latencies = run.trace.samples.filter { sample in ranges.contains { $0.contains(sample.due) } }
        .map { inMilliseconds($0.latency) }.sorted()
      return (latencies.isEmpty ? .infinity : latencies[latencies.count * 99 / 100], latencies.count)
    }
    let (quiet, quietCount) = p99(windows.map(\.quiet))
    let (loading, loadingCount) = p99(windows.map(\.loading))
    let seconds = windows.map { ($0.loading.upperBound - $0.loading.lowerBound) / .seconds(1) }.sorted()
    row.add("failed or degraded", run.failures + run.tally.degraded, .equal(0))
    row.add("seconds of load and warm-up, median", seconds[seconds.count / 2], "s")
    row.add("requests in quiet", quietCount)
    row.add("p99 in quiet", quiet, "ms")
    row.add("requests meanwhile", loadingCount)
    row.add("p99 meanwhile", loading, "ms", .atMost(1.25 * quiet))
    return row
  }
}
