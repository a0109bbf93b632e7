import RankingCore

/// For one version: which workers can score each shard right now.
public struct ReplicaTable: Sendable, Equatable {
  /// Per shard, ascending by worker. A worker that is draining stands here only where nobody else does.
  public private(set) var replicas: [[WorkerID]]
  /// How many shards have at least one.
  public private(set) var readyShards: Int

  /// Made from what the members say they hold. A snapshot that speaks of another S than the bundle's, or of another
  /// bundle, is not believed: its shards are other sets of items.
  /// - Parameter fingerprint: of the bundle; 0 = unknown.
  public init(release: ModelVersion, shardCount: Int, fingerprint: UInt64 = 0, members: [Member]) {
    var replicas = [[WorkerID]](repeating: [], count: shardCount)
    func add(where isWanted: (Member, Int) -> Bool) {
      for member in members where member.isUsable {
        for holding in member.status?.holdings ?? []
        where holding.release == release && holding.shardCount == shardCount
          && !Self.isOther(holding.fingerprint, than: fingerprint)
        {
          for shard in holding.ready
          where shard.index < shardCount && isWanted(member, shard.index) && replicas[shard.index].last != member.id {
            replicas[shard.index].append(member.id)
          }
        }
      }
    }
    add { member, _ in !member.isDraining }
    let lacking = replicas.map(\.isEmpty)
    if lacking.contains(true) { add { member, shard in member.isDraining && lacking[shard] } }
    self.replicas = replicas
    readyShards = replicas.count { !$0.isEmpty }
  }

  /// Whether a worker's bundle is certainly not the one that is meant.
  public static func isOther(_ fingerprint: UInt64, than meant: UInt64) -> Bool {
    fingerprint != meant && fingerprint != 0 && meant != 0
  }

  public var isComplete: Bool { readyShards == replicas.count }
  @inlinable public subscript(shard: ShardID) -> [WorkerID] { replicas[shard.index] }
}
