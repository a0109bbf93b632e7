import RankingCore
import Testing

@testable import Rollout

/// Commands in the order given; the refusal or the line of the last one as text.
@Suite struct RolloutCommandTests {
  static func start(_ version: String, again: Bool = false) -> RolloutCommand {
    .start(model: "home", version: version, settings: RolloutSettings(), again: again)
  }
  static let adopt = RolloutCommand.adopt(model: "home", version: "v41")

  func check(
    _ commands: [RolloutCommand], at stage: RolloutStage? = nil, step: Int = 0, _ expected: String,
    _ location: SourceLocation = #_sourceLocation
  ) {
    var document = RolloutDocument()
    var last = ""
    for (index, command) in commands.enumerated() {
      if index == commands.count - 1, let stage {
        document.models[0].rollout?.stage = stage
        document.models[0].rollout?.step = step
        if stage == .retire { document.models[0].serving = "v42" }
        if stage == .rollingBack { document.models[0].rollout?.cause = "guard x" }
      }
      switch document.applying(command, who: "ada", atMilliseconds: 5) {
      case .success(let decision):
        document = decision.document
        let entry = decision.entry
        last = "\(entry.sequence) \(entry.who): \(entry.from) → \(entry.to): \(entry.why)"
      case .failure(let error): last = error.description
      }
    }
    #expect(last == expected, sourceLocation: location)
    #expect(throws: Never.self, sourceLocation: location) {
      try document.json.withUnsafeBytes { try RolloutDocument(json: $0) }
    }
  }

  @Test func theFirstVersionIsAdopted() {
    check([Self.adopt], "1 ada: none → serving: the first version of home")
    check(
      [Self.adopt, .adopt(model: "home", version: "v42")],
      "conflict: home has a serving version, v41, already; use start to move from it")
    check(
      [.adopt(model: "ho/me", version: "v")],
      "invalid_argument: \"model\" must be 1 to 64 of A-Z a-z 0-9 . _ - and not start with a dot")
  }

  @Test func aRolloutStarts() {
    check([Self.adopt, Self.start("v42")], "2 ada: none → load: from v41 to v42")
    check([Self.adopt, Self.start("v41")], "conflict: home/v41 is the serving version already")
    check([Self.start("v42")], "not_found: unknown model \"home\"; known: none")
    check(
      [Self.adopt, .start(model: "hone", version: "v", settings: RolloutSettings())],
      "not_found: unknown model \"hone\"; known: home")
    check(
      [Self.adopt, Self.start("v42"), Self.start("v43")],
      "conflict: home-2, from v41 to v42, is under way (load); wait for it or abort it")
    var settings = RolloutSettings()
    settings.evidence = .nan
    check(
      [Self.adopt, .start(model: "home", version: "v42", settings: settings)],
      "invalid_argument: \"settings.evidence\" must be a number, 1.0 to 100.0")
  }

  @Test func aFailedVersionIsNotStartedByAccident() {
    var world = World.serving()
    world["home/v42"].problem = "damaged"
    world.say(Self.start("v42"))
    let ended = world.run()
    #expect(ended)
    let refusal = world.say(Self.start("v42"))
    #expect(
      refusal?.description == "conflict: home/v42 failed in home-2: home/v42 cannot be served: damaged; "
        + "say \"again\" to try it once more")
    world["home/v42"].problem = nil
    world.say(Self.start("v42", again: true))
    let endedAgain = world.run()
    #expect(endedAgain)
    #expect(world.document["home"]?.serving == "v42" && world.document["home"]?.failed == [])
    // The way back is a rollout like any other.
    let back = world.say(Self.start("v41"))
    #expect(back == nil)
  }

  @Test func pauseAndResume() {
    let started = [Self.adopt, Self.start("v42")]
    check(started + [.pause(model: "home")], at: .canary, "3 ada: canary 1 % → canary 1 %: paused")
    check(started + [.pause(model: "home"), .pause(model: "home")], "conflict: home-2 is paused already")
    check(started + [.resume(model: "home")], "conflict: home-2 is not paused")
    check(started + [.pause(model: "home"), .resume(model: "home")], "4 ada: load → load: resumed")
    check([Self.adopt, .pause(model: "home")], "not_found: home has no rollout that could be paused")
    check(
      started + [.pause(model: "home")], at: .retire,
      "conflict: home-2 can no longer be paused: v42 serves and v41 retires; to go back, start a rollout to v41")
    check(
      started + [.pause(model: "home")], at: .rollingBack,
      "conflict: home-2 is rolling back (guard x) and cannot be paused")
  }

  @Test func abort() {
    let started = [Self.adopt, Self.start("v42")]
    check(
      started + [.abort(model: "home", why: "")], at: .shadow, "3 ada: shadow → rolling_back: aborted by ada")
    check(
      started + [.abort(model: "home", why: "wrong day")], at: .load,
      "3 ada: load → rolling_back: aborted by ada: wrong day")
    var world = World.serving()
    world.say(Self.start("v42"))
    world.tick(3)
    world.say(.abort(model: "home", why: ""))
    let ended = world.run()
    #expect(ended)
    #expect(world.document["home"]?.last?.outcome == .aborted)
    #expect(world.document["home"]?.failed == [], "nothing speaks against it")
    #expect(world.lines().last == "policy: rolling_back → aborted")
  }

  @Test func promote() {
    let next = [Self.adopt, Self.start("v42"), .promote(model: "home", to: .next)]
    let full = [Self.adopt, Self.start("v42"), .promote(model: "home", to: .full)]
    check(next, at: .shadow, "3 ada: shadow → canary 1 %: promoted by hand")
    check(next, at: .canary, step: 0, "3 ada: canary 1 % → canary 10 %: promoted by hand")
    check(next, at: .canary, step: 3, "3 ada: canary 100 % → retire: promoted by hand")
    check(full, at: .canary, step: 1, "3 ada: canary 10 % → canary 100 %: promoted by hand")
    check(full, at: .shadow, "3 ada: shadow → canary 100 %: promoted by hand")
    check(
      full, at: .canary, step: 3, "conflict: home-2 has all users already; the next stage is retire")
    for stage in [RolloutStage.load, .verify, .warm] {
      check(
        next, at: stage,
        "conflict: home-2 is in \(stage.rawValue): it cannot be promoted before every shard is loaded, verified and "
          + "warm (that is, before shadow)")
    }
    check(
      [Self.adopt, Self.start("v42"), .pause(model: "home"), .promote(model: "home", to: .next)], at: .canary,
      "conflict: home-2 is paused; resume it first")
  }

  @Test func pinAndUnpin() {
    check([Self.adopt, .pin(model: "home", version: "v40")], "2 ada: none → pinned: pinned")
    check(
      [Self.adopt, .pin(model: "home", version: "v40"), .pin(model: "home", version: "v40")],
      "conflict: home/v40 is pinned already")
    check(
      [Self.adopt, .pin(model: "home", version: "v40"), .unpin(model: "home", version: "v40")],
      "3 ada: pinned → none: unpinned")
    check([Self.adopt, .unpin(model: "home", version: "v40")], "not_found: home/v40 is not pinned; pinned: none")
    check(
      [Self.adopt, Self.start("v42"), .pin(model: "home", version: "v42")],
      "conflict: home/v42 is being rolled out; pin it when it serves")
    check(
      [Self.adopt] + (0...8).map { .pin(model: "home", version: "p\($0)") },
      "conflict: home has 8 pinned versions, the most: p0, p1, p2, p3, p4, p5, p6, p7")
  }

  @Test func whoIsSomebody() {
    for who in ["", "policy", String(repeating: "x", count: 65)] {
      guard case .failure(let error) = RolloutDocument().applying(Self.adopt, who: who, atMilliseconds: 0) else {
        Issue.record("\(who) is accepted")
        continue
      }
      #expect(error.message == "\"who\" must be a name of 1 to 64 bytes other than \"policy\"")
    }
  }
}
