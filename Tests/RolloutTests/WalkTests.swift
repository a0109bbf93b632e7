import RankingCore
import Testing

@testable import Rollout

/// Thousands of seconds in which anything happens, and what must hold in each of them; then peace, in which every
/// rollout must come to its end.
@Suite struct WalkTests {
  static let versions = ["v41", "v42", "v43", "v44"]
  static func settings(_ generator: inout SeededGenerator) -> RolloutSettings {
    var settings = RolloutSettings()
    settings.load.deadline = .seconds(20)
    settings.verify.deadline = .seconds(10)
    settings.warm.deadline = .seconds(10)
    settings.shadow = StageLimits(minTime: .seconds(3), minSample: 5, deadline: .seconds(60))
    settings.canary = StageLimits(minTime: .seconds(3), minSample: 3, deadline: .seconds(120))
    settings.canarySteps = [500, 2500, 10_000]
    settings.retire = StageLimits(minTime: .seconds(2), deadline: .seconds(20))
    settings.rollingBack = StageLimits(minTime: .seconds(1), deadline: .seconds(20))
    settings.shadowShare = generator.below(4) == 0 ? 0 : 5000
    settings.evidence = 8
    settings.recent = .seconds(9)
    return settings
  }

  static func fault(_ generator: inout SeededGenerator) -> World.Behaviour {
    var behaviour = World.Behaviour()
    switch generator.below(14) {
    case 0: behaviour.errorRate = 0.3
    case 1: behaviour.slower = .milliseconds(50)
    case 2: behaviour.givesNaN = true
    case 3: behaviour.overlap = 0
    case 4: behaviour.broken = generator.below(4)
    case 5: behaviour.neverLoads = true
    case 6: behaviour.golden = .failed("item 7 instead of 9")
    case 7: behaviour.verified = .pending
    case 8: behaviour.neverWarms = true
    case 9: behaviour.problem = "damaged"
    default: break
    }
    return behaviour
  }

  static func command(_ world: World, _ generator: inout SeededGenerator) -> RolloutCommand {
    let model = generator.below(5) == 0 ? "similar" : "home"
    let version = versions[generator.below(versions.count)]
    switch generator.below(24) {
    case 0: return .pause(model: model)
    case 1...3: return .resume(model: model)
    case 4: return .abort(model: model, why: "")
    case 5...6: return .promote(model: model, to: generator.below(2) == 0 ? .next : .full)
    case 7: return .pin(model: model, version: version)
    case 8...9: return .unpin(model: model, version: version)
    case 10: return .adopt(model: model, version: version)
    default: return .start(model: model, version: version, settings: settings(&generator), again: true)
    }
  }

  /// One walk; what was violated, and how its rollouts ended.
  static func walk(seed: UInt64, steps: Int) -> (violations: [String], ends: [String: Int]) {
    var generator = SeededGenerator(seed: StableHash.mix(seed &+ 77))
    // Room for two versions, for one and a half, for one, or as much as they like.
    let capacity: UInt64 = [0, 60, 40, 32][generator.below(4)]
    var world = World.serving(capacity: capacity, seed: seed)
    world.requestsPerSecond = 12
    var users = Users()
    for _ in 0..<steps {
      switch generator.below(40) {
      case 0...2:
        let index = generator.below(world.workers.count)
        if world.workers[index].isUp {
          if world.workers.count(where: \.isUp) > 2 { world.kill(index) }
        } else {
          world.workers[index].isUp = true
        }
      case 3: world.memory = RolloutMemory()
      case 4: world.isHeadless.toggle()
      case 5:
        world["home/\(versions[generator.below(versions.count)])"] = fault(&generator)
      case 6: world.requestsPerSecond = generator.below(3) == 0 ? 0 : 12
      case 7: world.losesDecisions.toggle()
      case 8...12: world.say(command(world, &generator), who: "ada")
      default: break
      }
      world.tick()
      users.check(&world)
      check(&world)
      if world.violations.count > 5 { break }
    }
    // Peace: everybody is there and sound, somebody drives, and nobody holds anything back.
    for index in world.workers.indices { world.workers[index].isUp = true }
    world.behaviour = world.behaviour.mapValues { _ in World.Behaviour() }
    (world.isHeadless, world.losesDecisions, world.requestsPerSecond) = (false, false, 50)
    for state in world.document.models where state.rollout?.isPaused == true { world.say(.resume(model: state.model)) }
    for state in world.document.models {
      if !world.run(state.model, atMost: 1500) {
        world.violations.append("\(state.model) does not end: \(world.document[state.model]?.rollout?.label ?? "")")
      }
      check(&world)
    }
    // And then each model is whole again, as far as there is room for two of them.
    world.tick(60)
    for state in world.document.models where state.model == "home" || capacity == 0 || capacity >= 60 {
      for shard in 0..<4 where world.readyReplicas(ModelVersion(model: state.model, version: state.serving), shard) == 0
      {
        world.violations.append("\(state.model)/\(state.serving) has no replica of shard \(shard) in the end")
      }
    }
    var ends: [String: Int] = [:]
    for entry in world.history where ["done", "failed", "aborted"].contains(entry.to) {
      ends[entry.to, default: 0] += 1
    }
    return (world.violations, ends)
  }

  static func check(_ world: inout World) {
    func must(_ holds: Bool, _ what: String) {
      if !holds { world.violations.append("\(world.seconds) s: \(what)") }
    }
    must(world.history.map(\.sequence) == Array(1...world.history.count), "the history has a gap or a double")
    must(world.document.nextSequence == world.history.count + 1, "document and history are apart")
    let json = world.document.json
    must((try? json.withUnsafeBytes { try RolloutDocument(json: $0) }) == world.document, "it cannot be read again")
  }

  /// Users that got the new version of a rollout get it as long as the share is not taken back.
  struct Users {
    private var seen: [String: (share: Int, got: Set<Int>)] = [:]
    mutating func check(_ world: inout World) {
      for state in world.document.models {
        guard let rollout = state.rollout, rollout.stage == .canary else { continue }
        let split = TrafficSplit(state)
        let got = Set((0..<200).filter { split.choice(for: RankingRequest(subject: .user("u\($0)"))) == 1 })
        if let before = seen[rollout.id], rollout.share >= before.share, !before.got.isSubset(of: got) {
          world.violations.append("\(world.seconds) s: widening took the new version from a user")
        }
        seen[rollout.id] = (rollout.share, got)
      }
    }
  }

  @Test(arguments: 0..<16 as Range<UInt64>)
  func whateverHappens(seed: UInt64) {
    let (violations, ends) = Self.walk(seed: seed, steps: 600)
    let text = violations.joined(separator: "\n")
    #expect(violations.isEmpty, "seed \(seed): \(text)")
    #expect(ends.values.reduce(0, +) > 0, "seed \(seed): no rollout ever ended: nothing was tested")
  }

  @Test func allEndsAreMet() {
    var all: [String: Int] = [:]
    for seed in 100..<108 as Range<UInt64> { all.merge(Self.walk(seed: seed, steps: 400).ends, uniquingKeysWith: +) }
    #expect(Set(all.keys) == ["done", "failed", "aborted"], "\(all)")
  }
}
