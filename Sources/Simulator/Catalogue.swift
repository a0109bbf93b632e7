import RankingCore

// The shop of a simulated run: a few hundred items in one or two versions of one model, and some users.
//
// Two places make answers of it and share no line: `SliceScorer` is what a worker does for a leg, `PlainOracle` says
// what the whole answer must be. The ranker is a made-up one that turns the order of retrieval over, so that a wrong R,
// a wrong version or a list cut too early changes the answer; scores are small whole and quarter numbers, so that ties
// are common and their order matters.

final class SimulatedUsers: UserDirectory {
  let records: [String: UserRecord]
  init(_ records: [String: UserRecord]) { self.records = records }
  func record(of user: String) -> UserRecord? { records[user] }
}

final class Catalogue {
  static let dimension = 4
  static let itemsPerShard = 8
  static let users = 20

  struct Version {
    var release: Release
    /// By ordinal.
    var vectors: [SIMD4<Float>]
    /// Changes the ranker's taste.
    var salt: UInt64
    /// What the ranker adds to an item's retrieval part, by ordinal.
    var tastes: [Float]
  }
  let shards: Int
  let versions: [Version]
  /// By ordinal.
  let ids: [String]
  /// Ordinals of each shard, ascending.
  let members: [[Int]]
  let ordinals: [String: Int]

  init(shards: Int, versions count: Int, generator: inout SeededGenerator) {
    self.shards = shards
    let ids = (0..<shards * Self.itemsPerShard).map { "i\($0)" }
    self.ids = ids
    var members = [[Int]](repeating: [], count: shards)
    for (ordinal, id) in ids.enumerated() { members[ShardID.owner(of: id, shards: shards).index].append(ordinal) }
    self.members = members
    ordinals = Dictionary(uniqueKeysWithValues: ids.enumerated().map { ($0.element, $0.offset) })
    var versions: [Version] = []
    for number in 0..<count {
      var vectors: [SIMD4<Float>] = []
      for _ in ids.indices { vectors.append(SIMD4(Self.vector(&generator))) }
      var records: [String: UserRecord] = [:]
      for user in 0..<Self.users {
        let seen = (0..<8).map { _ in generator.below(ids.count) }
        var history = ShardedOrdinals()
        for shard in 0..<shards {
          history.ordinals += members[shard].filter(seen.contains).map { UInt64($0) }
          history.ends.append(UInt32(history.ordinals.count))
        }
        records["u\(user)"] = UserRecord(vector: Self.vector(&generator), values: [], history: history)
      }
      let salt = UInt64(number) &* 977
      versions.append(
        Version(
          release: Release(
            id: ModelVersion(model: "home", version: "v\(number + 1)"), dimension: Self.dimension,
            itemsPerShard: members.map { UInt64($0.count) }, userColumns: [], contextColumns: [],
            coldStart: Self.vector(&generator), users: SimulatedUsers(records)),
          vectors: vectors, salt: salt, tastes: ids.indices.map { Float((UInt64($0) &* 7919 &+ salt) % 23) }))
    }
    self.versions = versions
  }

  static func vector(_ generator: inout SeededGenerator) -> [Float] {
    (0..<dimension).map { _ in Float(generator.below(9)) - 4 }
  }

  func version(of id: ModelVersion) -> Int? { versions.firstIndex { $0.release.id == id } }
}
