import ChaosEngine
import ClusterHarness
import ClusterLoad
import Foundation
import Terminal

// The rows in which versions change under load.

extension FigureRig {
  private var rolloutSettings: [String: Any] {
    [
      "shadow": ["min_time_ms": 1000, "min_sample": 20], "canary": ["min_time_ms": 1000, "min_sample": 20],
      "retire": ["min_time_ms": 500], "rolling_back": ["min_time_ms": 200],
      "canary_steps": [1000, 5000, 10_000],
    ]
  }

  private func start(_ version: String, _ cluster: LocalCluster, _ more: [String: Any] = [:]) throws -> String {
    try RolloutReport.command(
      cluster.admin,
      [
        "action": "start", "model": bundle.release.model, "version": version, "who": "figures", "again": true,
        "settings": rolloutSettings.merging(more) { $1 },
      ]
    ).rollout
  }
  private func wait(
    _ what: String, _ cluster: LocalCluster, limit: Duration = .seconds(60), _ condition: (RolloutReport.Model) -> Bool
  ) throws {
    try waitForReport(what, cluster, limit: limit) { report in report[bundle.release.model].map(condition) ?? false }
  }
  private func waitForReport(
    _ what: String, _ cluster: LocalCluster, limit: Duration = .seconds(60), _ condition: (RolloutReport) -> Bool
  ) throws {
    let deadline = Monotonic.now + limit
    while true {
      if let report = try? RolloutReport.fetch(cluster.admin), condition(report) { return }
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
        ended: { end in
          answers.add(end)
          trouble.add(end)
        }))
    var done = 0
    var shown: [(what: String, from: Duration, to: Duration)] = []
    for number in 0..<count {
      let begun = load.now
      let rollout = try start(number % 2 == 0 ? SyntheticBundle.other : bundle.release.version, cluster)
      // Somewhere in it, each time elsewhere.
      pause(.milliseconds(300 + number * 790 % 5000))
      let victim = cluster.workers[number % cluster.workers.count].name
      try cluster.kill(victim)
      pause(.milliseconds(500))
      try cluster.restart(victim)
      try wait("the end of \(rollout)", cluster) { $0.last?.id == rollout }
      let last = try RolloutReport.fetch(cluster.admin)[bundle.release.model]?.last
      shown.append(("\(rollout), kill \(victim)", begun, load.now))
      if last?.outcome == "done" { done += 1 } else { row.notes.append("\(rollout): \(last?.why ?? "?")") }
      try waitUntilHealthy(cluster)
      say("rollouts: \(number + 1) of \(count)")
    }
    let run = try load.stop()
    row.show(run, shown)
    row.add("done", done, .equal(Double(count)))
    row.add("requests", run.tally.sent)
    row.add("failed", run.failures, .equal(0))
    row.add("degraded", run.tally.degraded, .equal(0))
    row.notes += trouble.notes
    row.add("p99 before", healthy.p99, "ms")
    row.add("p99 of the whole run", run.p99, "ms", .atMost(1.5 * healthy.p99))
    let check = AnswerCheck(
      bundle.path, bundle.place(of: SyntheticBundle.other), requests: bundle.requests(mixed: true))
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
    try bundle.addVersion()
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
      let rollout = try start(SyntheticBundle.other, cluster)
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

  /// A version that is really slow and one whose items are mixed up: from the guard's last sample that it needs to the
  /// rollback.
  func guards() throws -> FigureRow {
    var row = FigureRow("guards", "versions that a guard must turn back, at 50 requests/s of which a tenth is shadowed")
    // A guard of a share or a quantile needs its floor of 100; that an overlap is below a tenth takes 152 pairs which
    // have nothing in common: 0.9 to the 152nd is e to the −16, the evidence that is asked for.
    for (version, kind, name, sample) in [
      ("slow", SyntheticBundle.Kind.slow, "latency_p99", 100), ("permuted", .permuted, "overlap", 152),
    ] {
      try bundle.addVersion(version, kind)
      let cluster = try cluster(rollouts: true)
      defer { cluster.stop() }
      let trouble = TroubleLog()
      let load = try BackgroundLoad(
        try generator(cluster, rate: 50, for: .seconds(400), mixed: true, ended: { trouble.add($0) }))
      let rollout = try start(version, cluster, ["shadow": ["min_time_ms": 120_000, "min_sample": 20]])
      var sampledAt: Duration?
      var pairs = 0
      try waitForReport("\(version) turned back", cluster, limit: .seconds(300)) { report in
        let progress = report.progress(of: bundle.release.model)
        pairs = max(pairs, progress?.pairs ?? 0)
        if pairs >= sample, sampledAt == nil { sampledAt = load.now }
        let model = report[bundle.release.model]
        return model?.rollout?.stage == "rolling_back" || model?.last?.id == rollout
      }
      let back = load.now
      try wait("the end of \(rollout)", cluster) { $0.last?.id == rollout }
      let why = try RolloutReport.fetch(cluster.admin)[bundle.release.model]?.last?.why ?? ""
      let run = try load.stop()
      row.add("\(version): stopped by guard \(name)", why.contains("guard \(name)") ? 1 : 0, .equal(1))
      row.add("\(version): pairs by then", pairs)
      row.add(
        "\(version): from \(sample) pairs to the rollback", max(0, (back - (sampledAt ?? back)) / .seconds(1)), "s",
        .atMost(5))
      row.add("\(version): failed or degraded", run.failures + run.tally.degraded, .equal(0))
      row.add("\(version): p99 of the whole run", run.p99, "ms")
      row.remarks.append(why)
      row.notes += trouble.notes
    }
    return row
  }

  /// Two coordinators whose etcd stands still for half a minute in the middle of a canary.
  func etcdAway() throws -> FigureRow {
    let away: Duration = quick ? .seconds(10) : .seconds(30)
    var row = FigureRow("etcd-away", "etcd frozen for \(away / .seconds(1)) s while a version is in canary")
    try bundle.addVersion()
    let place = directory + "/etcd-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
    let etcd = try EtcdProcess(directory: place)
    defer { etcd.kill() }
    let cluster = try cluster(rollouts: true) {
      $0.coordinators = 2
      $0.etcd = [etcd.address]
    }
    defer { cluster.stop() }
    try warmUp(cluster)
    let load = try BackgroundLoad(try generator(cluster, for: .seconds(300), mixed: true))
    let rollout = try start(SyntheticBundle.other, cluster, ["canary": ["min_time_ms": 4000, "min_sample": 20]])
    try wait("in canary", cluster) { $0.rollout?.stage == "canary" }
    let step = try RolloutReport.fetch(cluster.admin)[bundle.release.model]?.rollout?.step
    etcd.freeze()
    let frozenAt = load.now
    try waitForReport("seen to be away", cluster) { $0.problem != nil && !$0.drives }
    let seenAt = load.now
    pause(away - (load.now - frozenAt))
    let after = try RolloutReport.fetch(cluster.admin)
    let thawedAt = load.now
    etcd.thaw()
    let second = cluster.coordinators[1].admin ?? ""
    try waitForReport("driven again", cluster) { report in
      report.problem == nil && (report.drives || ((try? RolloutReport.fetch(second).drives) ?? false))
    }
    let drivenAt = load.now
    try wait("the end of \(rollout)", cluster, limit: .seconds(120)) { $0.last?.id == rollout }
    let outcome = try RolloutReport.fetch(cluster.admin)[bundle.release.model]?.last?.outcome
    let run = try load.stop()
    row.show(run, [("etcd frozen", frozenAt, thawedAt)])
    row.add("until both say that it is away", (seenAt - frozenAt) / .seconds(1), "s")
    row.add("steps widened meanwhile", after[bundle.release.model]?.rollout?.step == step ? 0 : 1, .equal(0))
    row.add("until somebody drives again", (drivenAt - thawedAt) / .seconds(1), "s")
    row.add("then done", outcome == "done" ? 1 : 0, .equal(1))
    row.add("requests", run.tally.sent)
    row.add("failed", run.failures, .equal(0))
    row.add("degraded", run.tally.degraded, .equal(0))
    row.add("p99", run.p99, "ms")
    return row
  }
}
