import ClusterHarness
import Foundation
import RankingCore
import Synchronization
import Testing
import Wire

@testable import ClusterLoad

/// A cluster whose versions change under load.
struct RollingCluster {
  let live: LiveCluster
  let answers = AnswerLog()
  let requests: [[UInt8]]
  let load: BackgroundLoad
  let admin: String
  var bundle: TestBundle { live.bundle }
  var cluster: LocalCluster { live.cluster }

  /// Stages of tenths of a second; every request is shadowed.
  static var settings: [String: Any] {
    [
      "shadow": ["min_time_ms": 100, "min_sample": 20], "canary": ["min_time_ms": 100, "min_sample": 10],
      "retire": ["min_time_ms": 100], "rolling_back": ["min_time_ms": 100], "shadow_share": 10_000,
      "canary_steps": [2500, 10_000],
    ]
  }

  init(
    ranked: Bool = false, rate: Double = 120, _ change: (inout LocalCluster.Options) -> Void = { _ in }
  ) throws {
    try self.init(try TestBundle(ranked: ranked), rate: rate, change)
  }
  init(_ bundle: TestBundle, rate: Double = 120, _ change: (inout LocalCluster.Options) -> Void) throws {
    live = try LiveCluster(bundle) {
      $0.rollouts = true
      change(&$0)
    }
    requests = bundle.requests(200, seed: 9).filter { $0.api == .recommend && !$0.body.contains("\"explain\"") }
      .map { Array($0.body.utf8) }
    let answers = answers
    var generator = LoadGenerator(
      server: try ServerURL(live.cluster.url), endpoint: .recommend, requests: requests, rate: rate,
      duration: .seconds(300), poisson: false, seed: 1, connections: 2, outstandingMax: 1000, limit: .seconds(5))
    generator.ended = { answers.add($0) }
    load = try BackgroundLoad(generator)
    admin = live.cluster.admin
    try live.waitForAnswers(50)
  }

  func start(_ version: String, _ more: [String: Any] = [:], again: Bool = false) throws -> String {
    let settings = Self.settings.merging(more) { $1 }
    let command: [String: Any] = [
      "action": "start", "model": "home", "version": version, "who": "ada", "settings": settings, "again": again,
    ]
    return try RolloutReport.command(admin, command).rollout
  }

  /// Asks until it holds; a coordinator that is being restarted is asked again.
  @discardableResult
  func wait(
    _ what: String, at admin: String? = nil, limit: Duration = .seconds(60), _ condition: (RolloutReport) -> Bool
  ) throws -> RolloutReport {
    let deadline = ContinuousClock.now + limit
    while true {
      let report = try? RolloutReport.fetch(admin ?? self.admin)
      if let report, condition(report) { return report }
      try #require(
        ContinuousClock.now < deadline, "still not \(what): \(report.map { "\($0)" } ?? "")\n\(cluster.logTails())")
    }
  }
  func waitForEnd(_ rollout: String) throws -> RolloutReport.Finished {
    try #require(try wait("the end of \(rollout)") { $0["home"]?.last?.id == rollout }["home"]?.last)
  }

  /// Stops the load: nothing failed, nothing was degraded, and three hundred answers, evenly spread, are what their own
  /// version's oracle says.
  func expectSound(versions: [String], degraded: Bool = false) throws {
    let tally = try load.stop().tally
    #expect(
      tally.failures == 0 && (degraded || tally.degraded == 0) && tally.ok > 100,
      "\(tally.ok) ok, \(tally.degraded) degraded, failed: \(tally.failed)\n\(cluster.logTails())")
    let check = VersionCheck(bundle)
    let wrong = try check.wrong(answers.all.spread(300), of: requests)
    #expect(wrong == [], "\(wrong.count) of \(answers.all.count)")
    #expect(check.compared.keys.sorted() == versions, "\(check.compared)")
  }
  func history() throws -> [RolloutReport.Entry] { try RolloutReport.history(admin) }
}

@Suite(.serialized) struct RolloutTests {
  /// Three in a row, forward and back, with a worker killed in each: no answer fails, none is made of two versions.
  @Test(arguments: [false, true])
  func rolloutsUnderLoadWithAKillInEach(joins: Bool) throws {
    let rolling = try RollingCluster(ranked: true) {
      $0.joins = joins
      $0.replacedAfter = .seconds(60)
    }
    defer { rolling.cluster.stop() }
    try rolling.bundle.add("v2", seed: 5)
    try rolling.bundle.add("v3", seed: 6)
    if joins { _ = try rolling.live.waitUntilPlaced(on: 4) }
    for (number, version) in ["v2", "v3", "v1"].enumerated() {
      let rollout = try rolling.start(version)
      let stages = [["load", "verify"], ["shadow"], ["canary", "retire"]][number]
      let victim = rolling.cluster.workers[number].name
      try rolling.wait("in \(stages)") { report in
        report["home"]?.rollout.map { stages.contains($0.stage) } ?? true
      }
      try rolling.cluster.kill(victim)
      try rolling.cluster.restart(victim)
      let end = try rolling.waitForEnd(rollout)
      #expect(end.outcome == "done", "\(end)\n\(rolling.cluster.logTails())")
    }
    try rolling.expectSound(versions: ["v1", "v2", "v3"])
  }

  struct Broken: Sendable, CustomTestStringConvertible {
    var kind: TestBundle.Version
    var stage: String
    var reason: String
    var testDescription: String { "\(kind)" }
  }
  /// Each is stopped by the stage that should stop it, the reason is shown, and no request fails.
  @Test(arguments: [
    Broken(kind: .flippedBit, stage: "load", reason: "shard 3 of home/v2 cannot be loaded by w"),
    Broken(kind: .otherDimension, stage: "load", reason: "its vectors have 2 numbers, those of home/v1 24"),
    Broken(kind: .tooBig, stage: "load", reason: "too big for the workers' memory"),
    Broken(kind: .brokenRanker, stage: "verify", reason: "the ranker gave NaN instead of a score"),
    Broken(kind: .permuted, stage: "shadow", reason: "guard overlap"),
  ])
  func aBrokenVersionIsStopped(broken: Broken) throws {
    let rolling = try RollingCluster {
      if broken.kind == .tooBig { $0.memoryMiB = 1 }
    }
    defer { rolling.cluster.stop() }
    try rolling.bundle.add("v2", broken.kind)
    let rollout = try rolling.start("v2")
    let end = try rolling.waitForEnd(rollout)
    #expect(end.outcome == "failed" && end.why.contains(broken.reason), "\(end)\n\(rolling.cluster.logTails())")
    let back = try #require(try rolling.history().first { $0.to == "rolling_back" })
    #expect(back.from == broken.stage && back.why == end.why, "\(back)")
    #expect(try RolloutReport.fetch(rolling.admin)["home"]?.serving == "v1")
    try rolling.cluster.waitFor("nothing of v2 left") { report in
      report.workers.allSatisfy { $0.holdings.allSatisfy { $0.version == "v1" } }
    }
    let refused = #expect(throws: HarnessError.self) { try rolling.start("v2") }
    #expect(refused?.message.contains("failed in \(rollout)") == true, "\(refused?.message ?? "")")
    try rolling.expectSound(versions: ["v1"])
  }

  /// 50 ms slower than the old one: nobody has been answered by it when it is turned back.
  @Test func aSlowVersionIsStoppedInShadow() throws {
    let rolling = try RollingCluster { $0.allowFaults = true }
    defer { rolling.cluster.stop() }
    try rolling.bundle.add("v2")
    for worker in rolling.cluster.workers {
      var http = PlainHTTP(try ServerURL(worker.url))
      #expect(try http.post("/faults", Array(#"{"delay_ms":50,"version":"v2"}"#.utf8)).status == 200)
    }
    // A copy every 200 ms, four times what it takes.
    let end = try rolling.waitForEnd(
      try rolling.start(
        "v2",
        ["shadow": ["min_time_ms": 40_000, "min_sample": 20], "guards": ["latency_p99": ["sample": 30]]]))
    #expect(end.outcome == "failed" && end.why.contains("guard latency_p99"), "\(end)")
    #expect(try rolling.history().first { $0.to == "rolling_back" }?.from == "shadow")
    try rolling.expectSound(versions: ["v1"])
  }

  /// kill -9 of the coordinator whenever the history has a new line: it goes on where it was, and the history has
  /// neither gap nor double.
  @Test(arguments: [("v2", "done"), ("v3", "failed")])
  func theCoordinatorDiesAtEveryStage(version: String, outcome: String) throws {
    let rolling = try RollingCluster()
    defer { rolling.cluster.stop() }
    try rolling.bundle.add("v2")
    try rolling.bundle.add("v3", .permuted)
    let rollout = try rolling.start(version)
    var seen = 0
    var kills = 0
    while true {
      let report = try rolling.wait("a further step") { $0.document.nextSequence > seen }
      seen = report.document.nextSequence
      if report["home"]?.last?.id == rollout { break }
      try rolling.cluster.kill("c1")
      try rolling.cluster.restart("c1")
      kills += 1
    }
    #expect(kills >= (outcome == "done" ? 8 : 5), "\(kills)")
    let history = try rolling.history()
    #expect(history.map(\.sequence) == Array(1...history.count))
    #expect(Set(history.map { "\($0.rollout) \($0.from) \($0.to) \($0.why.prefix(20))" }).count == history.count)
    #expect(history.last?.to == outcome, "\(history.map { "\($0.from) → \($0.to): \($0.why)" })")
    #expect(try RolloutReport.fetch(rolling.admin)["home"]?.serving == (outcome == "done" ? "v2" : "v1"))
    _ = try rolling.load.stop()
    let check = VersionCheck(rolling.bundle)
    #expect(try check.wrong(rolling.answers.all.spread(200), of: rolling.requests) == [])
  }

  @Test func peoplePauseResumePromoteAbortAndPin() throws {
    let rolling = try RollingCluster()
    defer { rolling.cluster.stop() }
    try rolling.bundle.add("v2")
    func say(_ action: String, _ more: [String: Any] = [:]) throws -> RolloutReport.Entry {
      try RolloutReport.command(
        rolling.admin, ["action": action, "model": "home", "who": "ada"].merging(more) { $1 })
    }
    let slow: [String: Any] = ["shadow": ["min_time_ms": 50_000], "canary": ["min_time_ms": 50_000]]
    let rollout = try rolling.start("v2", slow)
    try rolling.wait("in shadow") { $0["home"]?.rollout?.stage == "shadow" }
    #expect(try say("pause").why == "paused")
    #expect(try RolloutReport.fetch(rolling.admin)["home"]?.rollout?.paused == true)
    #expect(throws: HarnessError.self) { try say("promote") }
    #expect(try say("resume").why == "resumed")
    #expect(try say("promote").to == "canary 25 %")
    #expect(try say("promote", ["to": "full"]).to == "canary 100 %")
    #expect(try say("abort", ["why": "a hunch"]).why == "aborted by ada: a hunch")
    #expect(try rolling.waitForEnd(rollout).outcome == "aborted")
    // A version that is pinned stays for those who name it.
    #expect(try say("pin", ["version": "v2"]).to == "pinned")
    var http = PlainHTTP(try ServerURL(rolling.cluster.url))
    let body = Array(#"{"user":"user-1","version":"v2"}"#.utf8)
    let limit = ContinuousClock.now + .seconds(30)
    while try http.post("/v1/recommend", body).status != 200 {
      try #require(ContinuousClock.now < limit, "\(rolling.cluster.logTails())")
    }
    #expect(try say("unpin", ["version": "v2"]).from == "pinned")
    try rolling.cluster.waitFor("nothing of v2 left") { report in
      report.workers.allSatisfy { $0.holdings.allSatisfy { $0.version == "v1" } }
    }
    #expect(try http.post("/v1/recommend", body).status == 404)
    for (fields, part) in [
      (["action": "launch", "model": "home"], "\"action\" is \"launch\""),
      (["action": "start", "model": "home", "version": "v2", "colour": "red"], "unknown key \"colour\""),
      (["action": "start", "model": "shop", "version": "v2"], "unknown model \"shop\""),
      (["action": "start", "model": "home", "version": "v1"], "is the serving version already"),
    ] {
      let refused = #expect(throws: HarnessError.self) { try RolloutReport.command(rolling.admin, fields) }
      #expect(refused?.message.contains(part) == true, "\(refused?.message ?? "")")
    }
    _ = try rolling.load.stop()
  }
}
