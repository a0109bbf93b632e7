import Membership
import RankingCore
import Testing

@testable import Rollout

/// Plans as text: `home/v41 by hashing`, or per shard who holds it.
@Suite struct LoadPlanTests {
  static func text(_ plan: [PlacedRelease]) -> [String] {
    plan.map { release in
      let holders = release.holders.map { shards in
        shards.map { $0.isEmpty ? "-" : $0.joined(separator: "+") }.joined(separator: " ")
      }
      return "\(release.id) \(holders ?? "by hashing")"
    }
  }
  /// Three workers with room for two shards each, three shards, two replicas: every worker is full.
  static func full() -> World {
    var world = World(workers: 3, capacity: 20)
    world["home/v41"].bytes = [10, 10, 10]
    world["home/v42"].bytes = [10, 10, 10]
    world.say(.adopt(model: "home", version: "v41"))
    let id = World.id("home/v41")
    for (index, shards) in [[0, 1], [0, 2], [1, 2]].enumerated() { world.workers[index].ready[id] = Set(shards) }
    return world
  }
  static func fit(_ world: World) -> LoadPlan.Fit { LoadPlan.fit(world.document, model: "home", world.observed()) }

  @Test func withoutARolloutOnlyWhatServesAndIsPinned() {
    var world = World.serving()
    #expect(Self.text(LoadPlan.releases(world.document, world.observed())) == ["home/v41 by hashing"])
    world.say(.pin(model: "home", version: "v40"))
    #expect(
      Self.text(LoadPlan.releases(world.document, world.observed())) == ["home/v41 by hashing", "home/v40 by hashing"])
    world.say(.pin(model: "home", version: "v41"))
    #expect(LoadPlan.releases(world.document, world.observed()).count == 2, "what serves and is pinned is wanted once")
  }

  @Test func besideWhereThereIsRoom() {
    var world = World.serving(capacity: 60)
    world.say(RolloutPolicyTests.v42)
    #expect(
      Self.fit(world) == .beside("2 replicas of home/v42 take 80 B, 4 workers have 160 B free beside what must stay"))
    let undecided = Self.text(LoadPlan.releases(world.document, world.observed()))
    #expect(undecided == ["home/v41 by hashing"], "nothing is loaded before it is decided how")
    world.tick()
    #expect(world.history.last?.why.hasPrefix("beside: 2 replicas of home/v42 take 80 B") == true)
    #expect(
      Self.text(LoadPlan.releases(world.document, world.observed())) == ["home/v41 by hashing", "home/v42 by hashing"])
  }

  @Test func workersThatSayNothingHaveRoom() {
    var world = World.serving()
    world.say(RolloutPolicyTests.v42)
    #expect(
      Self.fit(world)
        == .beside(
          "2 replicas of home/v42 take 80 B, the 4 workers do not all say how much room they have beside what must stay"
        ))
  }

  @Test func replicaByReplicaWhereThereIsNot() {
    var world = Self.full()
    world.say(RolloutPolicyTests.v42)
    guard case .replicaByReplica(let why) = Self.fit(world) else {
      Issue.record("\(Self.fit(world))")
      return
    }
    #expect(why.hasPrefix("2 replicas of home/v42 take 60 B, 3 workers have 10 B free"))
    world.document.models[0].rollout?.memory = .replicaByReplica
    let plan = Self.text(LoadPlan.releases(world.document, world.observed()))
    // Of each shard one ready replica stays, one on every worker; the new ones go where that leaves room.
    #expect(plan == ["home/v41 w1 w3 w2", "home/v42 w1 w2 w3"])
  }

  /// Three workers with room for nine of the twelve replicas.
  static func short() -> World {
    var world = World(workers: 3, capacity: 30)
    for version in ["v41", "v42"] { world["home/\(version)"].bytes = [10, 10, 10] }
    world.say(.adopt(model: "home", version: "v41"))
    world.tick(5)
    return world
  }

  /// Each shard of the serving version is ready all the while.
  @Test(arguments: [false, true])
  func aWholeRolloutWithoutRoomForBoth(isBad: Bool) {
    var world = Self.short()
    world["home/v42"].errorRate = isBad ? 0.5 : 0
    world.say(RolloutPolicyTests.v42)
    let ended = world.run()
    #expect(ended)
    #expect(world.history[2].why.hasPrefix("replica by replica"), "\(world.history[2].why)")
    let serving = isBad ? "v41" : "v42"
    #expect(world.document["home"]?.serving == serving)
    world.tick(5)
    #expect((0..<3).allSatisfy { world.readyReplicas(World.id("home/\(serving)"), $0) == 2 })
    #expect(world.violations == [])
  }

  @Test func tooBigSaysByHowMuch() {
    var world = Self.full()
    world["home/v42"].bytes = [10, 11, 10]
    world.say(RolloutPolicyTests.v42)
    #expect(
      Self.fit(world)
        == .tooBig(
          "2 replicas of home/v42 take 62 B, 3 workers have 10 B free beside what must stay; and with one replica of "
            + "each shard of home/v41 kept (30 B) one replica of each of its 3 shards (31 B, the largest 11 B) does "
            + "not fit either: w1 has 20 B in all, w2 has 20 B in all, w3 has 20 B in all"))
  }

  @Test func unknownSizesDecideNothing() {
    var world = World.serving()
    world.say(RolloutPolicyTests.v42)
    var observed = world.observed()
    observed.bundles.removeAll { $0.release.version == "v42" }
    #expect(LoadPlan.fit(world.document, model: "home", observed) == .unknown)
    observed = world.observed()
    observed.workers = []
    #expect(LoadPlan.fit(world.document, model: "home", observed) == .unknown)
  }

  @Test func whatRetiresStaysUntilItIsDrained() {
    var world = World.serving()
    world.say(RolloutPolicyTests.v42)
    while world.document["home"]?.rollout?.stage != .retire { world.tick() }
    let held = Self.text(LoadPlan.releases(world.document, world.observed())).last ?? ""
    #expect(held.hasPrefix("home/v41 w"), "it is named with those who hold it: \(held)")
    world.document.models[0].rollout?.isDrained = true
    var observed = world.observed()
    observed.traffic = [.init(release: World.id("home/v41"), inFlight: 1)]
    #expect(Self.text(LoadPlan.releases(world.document, observed)).last == held, "a request is in flight")
    observed.traffic = []
    #expect(Self.text(LoadPlan.releases(world.document, observed)).last == "home/v41 - - - -")
  }

  /// A worker that was away while its version failed comes back with it.
  @Test func whatNobodyWantsIsUnloadedLater() {
    var world = World.serving()
    world.workers[2].ready[World.id("home/v40")] = [1]
    #expect(
      Self.text(LoadPlan.releases(world.document, world.observed())) == ["home/v41 by hashing", "home/v40 - - - -"])
    world.workers[2].ready[World.id("other/v1")] = [0]
    #expect(LoadPlan.releases(world.document, world.observed()).count == 2, "a model that is not in the document")
  }
}
