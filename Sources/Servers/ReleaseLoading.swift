import Bundles
import RankingCore
import Scoring

/// The way from a store on disk to what the nodes work with.
enum ReleaseLoading {
  static func release(_ id: ModelVersion, store: String) throws -> Release {
    try Bundle.open(Store(store).path(of: id)).release()
  }

  /// A version without slices yet; its manifest and ranker are checked.
  static func hosted(_ id: ModelVersion, store: String) throws -> HostedRelease {
    let bundle = try Bundle.open(Store(store).path(of: id))
    return HostedRelease(
      release: id, shardCount: bundle.manifest.shards, dimension: bundle.manifest.dimension,
      ranker: try bundle.ranker())
  }

  static func slice(_ id: ModelVersion, _ shard: ShardID, store: String) throws -> Slice {
    try Bundle.open(Store(store).path(of: id)).loadSlice(shard)
  }
}
