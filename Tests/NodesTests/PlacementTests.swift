import Membership
import RankingCore
import Testing

// Which workers should hold which shards: what moves, what does not, and who gets how much.

@Suite struct PlacementTests {
  static let gibibyte = UInt64(1) << 30
  static func release(shards: Int, bytes: UInt64 = 1, version: String = "v1") -> PlacedRelease {
    PlacedRelease(
      id: ModelVersion(model: "home", version: version), bytesPerShard: [UInt64](repeating: bytes, count: shards))
  }
  static func members(_ count: Int) -> [PlacementMember] {
    (1...count).map { PlacementMember(name: "w\($0)") }
  }
  /// Per shard, the names of its holders.
  static func named(
    _ members: [PlacementMember], replicas: Int = 2, shards: Int = 256, bytes: UInt64 = 1
  ) -> [Set<String>] {
    Placement.assign([release(shards: shards, bytes: bytes)], to: members, replicas: replicas)[0]
      .map { Set($0.map { members[$0].name }) }
  }

  @Test(arguments: [1, 2, 3])
  func removingAMemberMovesOnlyItsShards(replicas: Int) {
    let all = Self.members(7)
    let before = Self.named(all, replicas: replicas)
    for gone in all.map(\.name) {
      let after = Self.named(all.filter { $0.name != gone }, replicas: replicas)
      for (old, new) in zip(before, after) {
        #expect(new.isSuperset(of: old.subtracting([gone])), "\(gone) left: \(old) became \(new)")
        #expect(new.count == replicas)
      }
    }
  }

  @Test func anAddedMemberTakesItsShareAndNobodyElseGainsAny() {
    let all = Self.members(8)
    let before = Self.named(Array(all.dropLast()))
    let after = Self.named(all)
    var taken = 0
    for (old, new) in zip(before, after) {
      #expect(new.subtracting(old).isSubset(of: ["w8"]))
      taken += new.contains("w8") ? 1 : 0
    }
    // Its fair share is 256 × 2 ÷ 8 = 64; one standard deviation is 7.
    #expect((40...88).contains(taken), "took \(taken)")
  }

  @Test func theOrderInWhichMembersCameDoesNotMatter() {
    var generator = SeededGenerator(seed: 3)
    let zones = ["a", "b", "c"]
    let all = (1...9).map {
      PlacementMember(name: "w\($0)", zone: zones[$0 % 3], capacityBytes: UInt64($0) * 20 * Self.gibibyte)
    }
    let expected = Self.named(all, bytes: Self.gibibyte / 2)
    for _ in 0..<10 {
      #expect(Self.named(all.shuffled(using: &generator), bytes: Self.gibibyte / 2) == expected)
    }
  }

  @Test func replicasAreSpreadOverZonesFirst() {
    let all = (1...6).map { PlacementMember(name: "w\($0)", zone: $0 <= 4 ? "a" : "b") }
    for holders in Self.named(all) {
      #expect(holders.intersection(["w5", "w6"]).count == 1, "one in each zone: \(holders)")
    }
    // Three replicas, two zones: the third goes wherever there is room.
    for holders in Self.named(all, replicas: 3) {
      #expect(holders.count == 3 && !holders.intersection(["w5", "w6"]).isEmpty)
    }
  }

  @Test func nobodyIsGivenMoreThanItHasRoomFor() {
    var all = Self.members(4)
    for index in all.indices { all[index].capacityBytes = 10 }
    let placed = Self.named(all, shards: 30, bytes: 1)
    var held: [String: Int] = [:]
    for holders in placed { for name in holders { held[name, default: 0] += 1 } }
    #expect(held.values.allSatisfy { $0 <= 10 })
    #expect(held.values.reduce(0, +) == 40, "what room there is, is used: \(held)")
  }

  @Test func anUnevenShardDoesNotOverfill() {
    let members = [PlacementMember(name: "w1", capacityBytes: 100)]
    let release = PlacedRelease(
      id: ModelVersion(model: "home", version: "v1"), bytesPerShard: [60, 60, 40, .max])
    #expect(Placement.assign([release], to: members, replicas: 2) == [[[0], [], [0], []]])
  }

  @Test func twiceTheMemoryTwiceTheShare() {
    let all = (1...5).map {
      PlacementMember(name: "w\($0)", capacityBytes: ($0 == 1 ? 8 : 4) * Self.gibibyte)
    }
    let placed = Self.named(all, replicas: 1, shards: 3000)
    let share = Double(placed.count { $0.contains("w1") }) / 3000
    #expect(abs(share - 2.0 / 6) < 0.03, "\(share)")
  }

  @Test func membersShareEvenly() {
    let placed = Self.named(Self.members(5), replicas: 2, shards: 3000)
    for name in (1...5).map({ "w\($0)" }) {
      let share = Double(placed.count { $0.contains(name) }) / 3000
      #expect(abs(share - 0.4) < 0.04, "\(name) holds \(share)")
    }
  }

  @Test func versionsOfAModelLieSideBySide() {
    let releases = [Self.release(shards: 64), Self.release(shards: 64, version: "v2")]
    let placed = Placement.assign(releases, to: Self.members(6), replicas: 2)
    #expect(placed[0] == placed[1])
    // With room for one version only, the first in the list has it.
    var small = Self.members(2)
    for index in small.indices { small[index].capacityBytes = 64 }
    let tight = Placement.assign(releases, to: small, replicas: 2)
    #expect(tight[0].allSatisfy { $0.count == 2 } && tight[1].allSatisfy { $0.isEmpty })
  }

  @Test func fewerMembersThanReplicasGetWhatThereIs() {
    #expect(Self.named(Self.members(1), shards: 4).allSatisfy { $0 == ["w1"] })
    #expect(Placement.assign([Self.release(shards: 4)], to: [], replicas: 2) == [[[], [], [], []]])
  }
}
