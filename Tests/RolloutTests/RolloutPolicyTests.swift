import RankingCore
import Testing

@testable import Rollout

/// Whole rollouts in the small world: what the history tells.
@Suite struct RolloutPolicyTests {
  struct Fault: Sendable {
    var stage, reason: String
    var behaviour = World.Behaviour()
    init(_ stage: String, _ reason: String, _ change: (inout World.Behaviour) -> Void) {
      (self.stage, self.reason) = (stage, reason)
      change(&behaviour)
    }
  }
  static let v42 = RolloutCommand.start(model: "home", version: "v42", settings: RolloutSettings())

  @Test func aSoundVersionGoesAllTheWay() {
    var world = World.serving()
    let refusal = world.say(Self.v42)
    #expect(refusal == nil)
    let ended = world.run()
    #expect(ended)
    #expect(
      world.lines() == [
        "ada: none → serving", "ada: none → load", "policy: load → load", "policy: load → verify",
        "policy: verify → warm", "policy: warm → shadow", "policy: shadow → canary 1 %",
        "policy: canary 1 % → canary 10 %", "policy: canary 10 % → canary 50 %",
        "policy: canary 50 % → canary 100 %", "policy: canary 100 % → retire", "policy: retire → retire",
        "policy: retire → done",
      ])
    #expect(world.document["home"]?.serving == "v42")
    #expect(world.document["home"]?.last?.outcome == .done)
    #expect(world.document["home"]?.last?.id == "home-2")
    #expect((0..<4).allSatisfy { world.readyReplicas(World.id("home/v42"), $0) == 2 })
    #expect((0..<4).allSatisfy { world.readyReplicas(World.id("home/v41"), $0) == 0 })
    #expect(world.violations == [])
  }

  @Test func stagesTakeTheirTimeAndTheirSample() {
    var world = World.serving()
    world.say(Self.v42)
    _ = world.run()
    let at = Dictionary(
      world.history.map { ($0.to, $0.atMilliseconds / 1000) }, uniquingKeysWith: { first, _ in first })
    #expect(at["canary 1 %"]! - at["shadow"]! == 30)
    // 2 requests a second: 400 of them take longer than the minute.
    #expect((160...240).contains(at["canary 10 %"]! - at["canary 1 %"]!))
    #expect(at["canary 50 %"]! - at["canary 10 %"]! == 60)
    #expect(at["canary 100 %"]! - at["canary 50 %"]! == 60)
    #expect(at["retire"]! - at["canary 100 %"]! == 60)
  }

  /// Each fault is stopped by the stage that should stop it, and the history says why.
  @Test(arguments: [
    Fault("load", "cannot be served: of format 9") { $0.problem = "of format 9" },
    Fault("load", "shard 2 of home/v42 cannot be loaded by w") { $0.broken = 2 },
    Fault("load", "too big for the workers' memory") { $0.bytes = [900, 900, 900, 900] },
    Fault("load", "nothing more was loaded for 60 s; not ready: shard 0, shard 1") { $0.neverLoads = true },
    Fault("verify", "wrong on w") { $0.verified = .failed("item 7 instead of 9") },
    Fault("verify", "a golden query was answered wrongly: item 7") { $0.golden = .failed("item 7 instead of 9") },
    Fault("warm", "not warm after 120 s: w") { $0.neverWarms = true },
    Fault("shadow", "guard error_rate") { $0.errorRate = 0.05 },
    Fault("shadow", "guard latency_p99") { $0.slower = .milliseconds(50) },
    Fault("shadow", "guard empty_answers") { $0.givesNaN = true },
    Fault("shadow", "guard overlap") { $0.overlap = 0.001 },
    Fault("canary", "guard error_rate") {
      $0.errorRate = 0.05; $0.onlyLive = true
    },
    Fault("canary 1 %", "guard latency_p99") {
      $0.slower = .milliseconds(50); $0.onlyLive = true
    },
    Fault("canary 1 %", "guard empty_answers") {
      $0.givesNaN = true; $0.onlyLive = true
    },
  ])
  func aFaultIsStopped(fault: Fault) {
    let (stage, reason) = (fault.stage, fault.reason)
    var world = World.serving(capacity: 100)
    world["home/v42"] = fault.behaviour
    world.say(Self.v42)
    let ended = world.run()
    #expect(ended)
    let back = world.history.first { $0.to == "rolling_back" }
    #expect(back?.from.hasPrefix(stage) == true, "\(world.lines())")
    #expect(back?.why.contains(reason) == true, "\(back?.why ?? "never")")
    #expect(world.document["home"]?.serving == "v41")
    #expect(world.document["home"]?.failed.map(\.version) == ["v42"])
    #expect(world.document["home"]?.last?.why == back?.why)
    #expect((0..<4).allSatisfy { world.readyReplicas(World.id("home/v42"), $0) == 0 }, "memory is given back")
    #expect(world.violations == [])
  }

  /// What could not be loaded the first time says nothing about the second.
  @Test func aMendedVersionIsTriedAgainAtOnce() {
    var world = World.serving(capacity: 100)
    world["home/v42"].broken = 2
    world.say(Self.v42)
    let failed = world.run()
    #expect(failed && world.document["home"]?.last?.why.contains("shard 2 of home/v42 cannot be loaded") == true)
    world["home/v42"].broken = nil
    let refusal = world.say(.start(model: "home", version: "v42", settings: RolloutSettings(), again: true))
    #expect(refusal == nil)
    let ended = world.run()
    #expect(ended && world.document["home"]?.serving == "v42", "\(world.lines())")
    #expect(world.violations == [])
  }

  /// With a sample too small for any guard to be sure, a stage is not left as long as a figure is beyond its limit.
  @Test func aSmallSampleDoesNotLetABadVersionPass() {
    var settings = RolloutSettings()
    settings.shadow.minTime = .seconds(2)
    settings.shadow.minSample = 20
    settings.shadowShare = 10_000
    var world = World.serving()
    world["home/v42"].overlap = 0.04
    world.say(.start(model: "home", version: "v42", settings: settings))
    let ended = world.run()
    #expect(ended)
    let back = world.history.first { $0.to == "rolling_back" }
    #expect(back?.from == "shadow" && back?.why.contains("guard overlap") == true, "\(world.lines())")
  }

  @Test func aFaultThatBeginsLateIsFoundInTheRecentWindow() {
    var settings = RolloutSettings()
    settings.canary.minTime = .seconds(3600)
    settings.canary.deadline = .seconds(7200)
    var world = World.serving()
    world.say(.start(model: "home", version: "v42", settings: settings))
    while world.document["home"]?.rollout?.stage != .canary { world.tick() }
    world.say(.promote(model: "home", to: .next))
    // A healthy half-hour at 20 requests a second: 5 % of what follows would take long to show in the whole.
    world.tick(1800)
    #expect(world.document["home"]?.rollout?.label == "canary 10 %")
    world["home/v42"].errorRate = 0.05
    let since = world.seconds
    let ended = world.run()
    #expect(ended)
    let back = world.history.first { $0.to == "rolling_back" }
    #expect(back?.why.contains("lately in canary 10 %") == true, "\(back?.why ?? "never")")
    #expect((back?.atMilliseconds ?? .max) / 1000 - since <= 40)
  }

  @Test func pausedItStaysAndGuardsGoOn() {
    var world = World.serving()
    world.say(Self.v42)
    while world.document["home"]?.rollout?.stage != .canary { world.tick() }
    let refusal = world.say(.pause(model: "home"))
    #expect(refusal == nil)
    let entries = world.history.count
    world.requestsPerSecond = 10
    world.tick(4000)
    #expect(world.history.count == entries, "past minimum time and deadline")
    world.requestsPerSecond = 200
    world["home/v42"].slower = .milliseconds(50)
    world.tick(120)
    #expect(world.document["home"]?.last?.why.contains("guard latency_p99") == true)
  }

  @Test func resumedItBeginsTheStageAnew() {
    var world = World.serving()
    world.say(Self.v42)
    while world.document["home"]?.rollout?.label != "canary 10 %" { world.tick() }
    world.tick(59)
    world.say(.pause(model: "home"))
    world.tick(10)
    world.say(.resume(model: "home"))
    world.tick(59)
    #expect(world.document["home"]?.rollout?.label == "canary 10 %")
    world.tick(2)
    #expect(world.document["home"]?.rollout?.label == "canary 50 %")
  }

  @Test func aNewDriverWaitsAnew() {
    var world = World.serving()
    world.say(Self.v42)
    while world.document["home"]?.rollout?.label != "canary 10 %" { world.tick() }
    world.tick(59)
    world.memory = RolloutMemory()
    world.tick(59)
    #expect(world.document["home"]?.rollout?.label == "canary 10 %")
    world.tick(2)
    #expect(world.document["home"]?.rollout?.label == "canary 50 %")
  }

  @Test func withoutRequestsTheDeadlineEndsIt() {
    var world = World.serving()
    world.requestsPerSecond = 0
    world.say(Self.v42)
    let ended = world.run()
    #expect(ended)
    #expect(world.document["home"]?.last?.why == "only 0 of 400 pairs in 600 s")
  }

  @Test func aMetricBeyondItsBoundForFiveSecondsTrips() {
    var settings = RolloutSettings()
    settings.metrics = [MetricGuard("queue_depth", max: 100)]
    var world = World.serving()
    world.metrics = [.init("queue_depth", 10)]
    world.say(.start(model: "home", version: "v42", settings: settings))
    while world.document["home"]?.rollout?.stage != .shadow { world.tick() }
    world.metrics[0].value = 101
    world.tick(4)
    world.metrics[0].value = 100
    world.tick()
    world.metrics[0].value = 101
    world.tick(5)
    #expect(world.document["home"]?.rollout?.stage == .shadow, "no five seconds in a row yet")
    world.tick(1)
    #expect(
      world.document["home"]?.rollout?.cause == "guard queue_depth: 101.0 for 5 s, at most 100.0 (10.0 at the start)")
  }

  @Test func theRecentWindowIsMovedOnInSteps() {
    var world = World.serving()
    world.say(Self.v42)
    while world.document["home"]?.rollout?.label != "canary 1 %" { world.tick() }
    for _ in 0..<100 {
      world.tick()
      let marks = world.memory.watch("home")?.marks ?? []
      #expect(marks.count <= 5)
      guard let first = marks.first, world.now - (world.memory.watch("home")?.since ?? world.now) > .seconds(40) else {
        continue
      }
      #expect(world.now - first.at >= .seconds(30) && world.now - first.at <= .seconds(41))
    }
  }

  @Test(arguments: [(1000, "600"), (0, "1800")])
  func aMetricThatIsNotThereHoldsTheRollout(shadowShare: Int, seconds: String) {
    var settings = RolloutSettings()
    settings.shadowShare = shadowShare
    settings.metrics = [MetricGuard("que_depth", max: 100)]
    var world = World.serving()
    world.say(.start(model: "home", version: "v42", settings: settings))
    let ended = world.run()
    #expect(ended)
    #expect(world.document["home"]?.last?.why == "no such metric for \(seconds) s: que_depth")
  }

  @Test func aShardWithoutReplicaForAMinuteTurnsItBack() {
    var world = World.serving()
    world.say(Self.v42)
    while world.document["home"]?.rollout?.stage != .canary { world.tick() }
    world["home/v42"].neverLoads = true
    for index in world.workers.indices { world.workers[index].ready[World.id("home/v42")]?.remove(1) }
    world.tick(60)
    #expect(world.document["home"]?.rollout?.stage == .canary)
    world.tick(1)
    #expect(
      world.document["home"]?.rollout?.cause == "home/v42 has had no ready replica of shard 1 for 60 s")
  }

  @Test func countsThatShrinkBeginAnew() {
    var world = World.serving()
    world.say(Self.v42)
    while world.document["home"]?.rollout?.label != "canary 10 %" { world.tick() }
    world.tick(59)
    // Another coordinator, whose counts were in the sum, has begun anew.
    world.forgetCounts()
    world.tick(10)
    #expect(world.document["home"]?.rollout?.label == "canary 10 %", "400 requests have not been seen since")
    world.tick(20)
    #expect(world.document["home"]?.rollout?.label == "canary 50 %", "now they have")
    let ended = world.run()
    #expect(ended)
    #expect(world.document["home"]?.last?.outcome == .done)
  }

  /// A driver that takes over when all requests go to the new version has nothing to compare it with.
  @Test func takenOverAtTheLastStepAbsoluteLimitsRule() {
    for (errorRate, outcome) in [(0.001, FinishedRollout.Outcome.done), (0.05, .failed)] {
      var world = World.serving()
      world.say(Self.v42)
      while world.document["home"]?.rollout?.label != "canary 100 %" { world.tick() }
      world.tick()
      world.memory = RolloutMemory()
      world["home/v42"].errorRate = errorRate
      let ended = world.run()
      #expect(ended)
      #expect(world.document["home"]?.last?.outcome == outcome, "\(world.document["home"]?.last?.why ?? "")")
    }
  }

  @Test func figuresAreThereForThoseWhoWatch() {
    var world = World.serving()
    world.say(Self.v42)
    let none = RolloutPolicy.figures(world.document, model: "home", memory: world.memory)
    #expect(none == [])
    while world.document["home"]?.rollout?.stage != .shadow { world.tick() }
    world.tick(10)
    let names = RolloutPolicy.figures(world.document, model: "home", memory: world.memory).map(\.name)
    #expect(
      Set(names) == [
        "error_rate", "coverage", "latency_p99", "empty_answers", "short_answers", "nan_scores", "score_drift",
        "overlap",
      ])
  }

  @Test func twoModelsSideBySide() {
    var world = World.serving()
    world.say(.adopt(model: "similar-items", version: "a"))
    world.tick(5)
    world["similar-items/b"].errorRate = 0.2
    world.say(Self.v42)
    world.say(.start(model: "similar-items", version: "b", settings: RolloutSettings()))
    let ended = world.run()
    #expect(ended)
    let otherEnded = world.run("similar-items")
    #expect(otherEnded)
    #expect(world.document["home"]?.serving == "v42")
    #expect(world.document["similar-items"]?.serving == "a")
    #expect(world.history.map(\.sequence) == Array(1...world.history.count))
  }

  @Test func whatIsPinnedStays() {
    var world = World.serving()
    world.say(.pin(model: "home", version: "v41"))
    world.say(Self.v42)
    let ended = world.run()
    #expect(ended)
    world.tick(60)
    #expect((0..<4).allSatisfy { world.readyReplicas(World.id("home/v41"), $0) == 2 })
    world.say(.unpin(model: "home", version: "v41"))
    world.tick(3)
    #expect((0..<4).allSatisfy { world.readyReplicas(World.id("home/v41"), $0) == 0 })
    #expect(world.violations == [])
  }
}
