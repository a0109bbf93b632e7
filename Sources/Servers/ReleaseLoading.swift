import Bundles
import RankingCore
import Scoring

/// The way from a store on disk to what the nodes work with.
enum ReleaseLoading {
  static func release(_ id: ModelVersion, store: String) throws -> Release { fatalError() }
  static func hosted(_ id: ModelVersion, store: String) throws -> HostedRelease { fatalError() }
  static func slice(_ id: ModelVersion, _ shard: ShardID, store: String) throws -> Slice { fatalError() }
}
