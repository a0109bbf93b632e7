import RankingCore

// Which workers should hold which shards: weighted rendezvous hashing (Thaler and Ravishankar 1998), with bounds.
//
// Every member draws a number for every shard, one per ticket it holds, and counts its highest; the members with the
// highest numbers hold the shard. When a member goes, only its shards move; when one comes, it takes its share from all
// the others; and every coordinator that sees the same members computes the same, without a word between them.
//
//     shards in the order of their ids, for each:
//       as often as replicas are wanted: the best member that has room and whose zone has none yet,
//                                        else the best that has room, else nobody
//
//     shard 0   w1 0.91  w2 0.40  w3 0.77   → w1, w3          w3 leaves: w1, w2: one replica moves
//     shard 1   w1 0.12  w2 0.58  w3 0.30   → w2, w3          w3 leaves: w2, w1: one replica moves
//
// Tickets are integers, one per GiB of memory: twice the memory, twice the chance.

public struct PlacementMember: Sendable, Equatable {
  public var name: String
  public var zone: String
  /// Memory for slices in bytes; 0 = unknown, taken to be enough.
  public var capacityBytes: UInt64
  public init(name: String, zone: String = "", capacityBytes: UInt64 = 0) {
    self.name = name
    self.zone = zone
    self.capacityBytes = capacityBytes
  }
  var tickets: Int { max(1, min(Placement.ticketsMax, Int(clamping: capacityBytes >> 30))) }
}

public struct PlacedRelease: Sendable, Equatable {
  public var id: ModelVersion
  /// Memory that each shard takes; its count is S.
  public var bytesPerShard: [UInt64]
  /// Per shard the names of the members that should hold it, best first, where that is decided elsewhere (a rollout
  /// without memory for both versions); an empty list says: nobody, let go of it. `nil` = by hashing.
  public var holders: [[String]]?
  public init(id: ModelVersion, bytesPerShard: [UInt64], holders: [[String]]? = nil) {
    self.id = id
    self.bytesPerShard = bytesPerShard
    self.holders = holders
  }
}

public enum Placement {
  /// More would only make the hashing slower.
  static let ticketsMax = 64

  /// For each release, for each shard: the members (by index, best first) that should hold it.
  ///
  /// Releases of one model draw the same numbers, so that versions of a shard lie side by side where there is room.
  /// - Parameter replicas: wanted per shard, at least 1; fewer where room or members lack.
  public static func assign(
    _ releases: [PlacedRelease], to members: [PlacementMember], replicas: Int
  ) -> [[[Int]]] {
    var room = members.map { $0.capacityBytes == 0 ? UInt64.max : $0.capacityBytes }
    let hashes = members.map { StableHash.xxh64($0.name) }
    let tickets = members.map(\.tickets)
    return releases.map { release in
      let model = StableHash.xxh64(release.id.model)
      return release.bytesPerShard.indices.map { shard in
        let bytes = release.bytesPerShard[shard]
        if let holders = release.holders {
          let chosen = (shard < holders.count ? holders[shard] : []).compactMap { name in
            members.firstIndex { $0.name == name }
          }
          for index in chosen where room[index] != .max { room[index] -= min(room[index], bytes) }
          return chosen
        }
        let key = StableHash.mix(model &+ UInt64(shard))
        let draws = members.indices.map { draw(hashes[$0], tickets[$0], key) }
        var chosen: [Int] = []
        while chosen.count < min(replicas, members.count) {
          func best(newZone: Bool) -> Int? {
            var best: Int?
            for index in members.indices where room[index] >= bytes && !chosen.contains(index) {
              if newZone, chosen.contains(where: { members[$0].zone == members[index].zone }) { continue }
              if let other = best, draws[other] >= draws[index] { continue }
              best = index
            }
            return best
          }
          guard let next = best(newZone: true) ?? best(newZone: false) else { break }
          chosen.append(next)
          if room[next] != .max { room[next] -= bytes }
        }
        return chosen
      }
    }
  }

  /// A member's number for a shard: the highest over its tickets.
  static func draw(_ member: UInt64, _ tickets: Int, _ shard: UInt64) -> UInt64 {
    var highest: UInt64 = 0
    for ticket in 0..<tickets {
      highest = max(highest, StableHash.mix(shard ^ StableHash.mix(member &+ UInt64(ticket))))
    }
    return highest
  }
}
