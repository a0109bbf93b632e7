import RankingCore

/// For one version: which workers can score each shard right now.
public struct ReplicaTable: Sendable, Equatable {
  /// Per shard, ascending by worker. A worker that is draining stands here only where nobody else does.
  public private(set) var replicas: [[WorkerID]]
  /// How many shards have at least one.
  public private(set) var readyShards: Int

  /// Made from what the members say they hold. A snapshot that speaks of another S than the bundle's is not believed:
  /// its shards are other sets of items.
  public init(release: ModelVersion, shardCount: Int, members: [Member]) {
    var replicas = [[WorkerID]](repeating: [], count: shardCount)
    Self.add(release, shardCount, members, into: &replicas) { member, _ in !member.isDraining }
    let lacking = replicas.map(\.isEmpty)
    if lacking.contains(true) {
      Self.add(release, shardCount, members, into: &replicas) { member, shard in member.isDraining && lacking[shard] }
    }
    self.replicas = replicas
    readyShards = replicas.count { !$0.isEmpty }
  }

  private static func add(
    _ release: ModelVersion, _ shardCount: Int, _ members: [Member], into replicas: inout [[WorkerID]],
    where isWanted: (Member, Int) -> Bool
  ) {
    for member in members where member.isUsable {
      for holding in member.status?.holdings ?? []
      where holding.release == release && holding.shardCount == shardCount {
        for shard in holding.ready
        where shard.index < shardCount && isWanted(member, shard.index) && replicas[shard.index].last != member.id {
          replicas[shard.index].append(member.id)
        }
      }
    }
  }

  public var isComplete: Bool { readyShards == replicas.count }
  @inlinable public subscript(shard: ShardID) -> [WorkerID] { replicas[shard.index] }
}
