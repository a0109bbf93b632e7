import RankingCore

/// Answers who asks for items' vectors: those of the ids that the asked shards own, in the order of the request.
///
/// - Returns: `.wrongVersion` when the release is another one or a shard is not held. An id that an asked shard owns
/// and
///   that is not among `found` does not exist in this version.
public func lookup(_ request: LookupRequest, holding: HostedRelease) -> Result<LookupReply, CallFailure> {
  guard request.release == holding.release else { return .failure(.wrongVersion) }
  for shard in request.shards where holding.slice(shard) == nil { return .failure(.wrongVersion) }
  var asked = [Bool](repeating: false, count: holding.shardCount)
  for shard in request.shards { asked[shard.index] = true }
  var reply = LookupReply(release: request.release, shards: request.shards, found: [])
  for id in request.ids where holding.shardCount > 0 {
    let owner = ShardID.owner(of: id, shards: holding.shardCount)
    guard asked[owner.index], let slice = holding.slice(owner), let row = slice.row(ofID: id) else { continue }
    reply.found.append(.init(id: id, ordinal: slice.ordinal(ofRow: row), vector: Array(slice.vector(ofRow: row))))
  }
  return .success(reply)
}
