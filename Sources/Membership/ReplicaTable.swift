import RankingCore

/// For one version: which workers can score each shard right now.
public struct ReplicaTable: Sendable, Equatable {
  /// Per shard, ascending by worker.
  public private(set) var replicas: [[WorkerID]]
  /// How many shards have at least one.
  public private(set) var readyShards: Int

  /// Made from what the members say they hold. A snapshot that speaks of another S than the bundle's is not believed:
  /// its shards are other sets of items.
  public init(release: ModelVersion, shardCount: Int, members: [Member]) {
    var replicas = [[WorkerID]](repeating: [], count: shardCount)
    for member in members where member.isUsable {
      for holding in member.status?.holdings ?? []
      where holding.release == release && holding.shardCount == shardCount {
        for shard in holding.ready where shard.index < shardCount && replicas[shard.index].last != member.id {
          replicas[shard.index].append(member.id)
        }
      }
    }
    self.replicas = replicas
    readyShards = replicas.count { !$0.isEmpty }
  }

  public var isComplete: Bool { readyShards == replicas.count }
  public subscript(shard: ShardID) -> [WorkerID] { replicas[shard.index] }
}
