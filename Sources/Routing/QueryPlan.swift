import RankingCore

// From a request to a query: whose vector, what is left out, which shards are asked. Done once per request, at the
// coordinator, so that every leg, hedge and retry carries the same.

extension Flight {
  /// What the request's subject means in `release`, as far as it can be said without asking workers.
  func resolveSubject(_ release: Release) throws(RankingError) {
    try planPool(release)
    if query.explain { try ContributionLayout(release).check(items: query.k) }
    query.contextValues = release.contextValues(request.context)
    query.cap =
      if let diversity = request.diversity {
        try GroupCap(diversity, columns: release.itemColumns)
      } else {
        nil
      }
    // What another leg's items push over a cap makes room for more: nothing is cut before all is joined.
    if query.cap != nil { merged.begin(limit: .max) }
    query.filter =
      if let filter = request.filter { try FilterProgram(filter, columns: release.itemColumns) } else { nil }
    query.userValues =
      release.userColumns.isEmpty ? [] : [Float](repeating: .nan, count: release.userColumns.count)
    switch request.subject {
    case .user(let user):
      if let record = release.users.record(of: user) {
        query.vector = record.vector
        query.userValues = record.values
        if request.excludeSeen { history = record.history }
        coldStart = false
      } else {
        query.vector = release.coldStart
        coldStart = true
      }
    case .vector(let vector):
      guard vector.count == release.dimension else {
        throw RankingError(
          .invalidArgument, "\"vector\" has \(vector.count) numbers; \(release.id) takes \(release.dimension)")
      }
      query.vector = vector
    case .anyone:
      query.vector = release.coldStart
      coldStart = true
    case .recentItems, .item:
      phase = .lookingUp
      for id in lookupIDs { need(ShardID.owner(of: id, shards: shards.count).index) }
    }
  }

  /// Phases over the merged list choose from more than the answer has, and look at more than scores.
  private func planPool(_ release: Release) throws(RankingError) {
    var pool = wanted
    if let ranker = release.listRanker {
      query.wantedColumns = ranker.columns
      pool = max(pool, ranker.pool)
    }
    if let relevance = request.marginalRelevance {
      try relevance.check(k: wanted, dimension: release.dimension)
      query.wantsVectors = true
      pool = max(pool, relevance.pool)
    }
    guard case .retrieve = request.kind, pool > wanted else { return }
    query.k = pool
    merged.begin(limit: pool)
  }

  /// All vectors are there (or do not exist): makes the query of them.
  func resolveLookups(_ release: Release) throws(RankingError) {
    switch request.subject {
    case .item(let id):
      guard let item = found.first(where: { $0.id == id }) else {
        throw RankingError(.notFound, "unknown item \"\(id)\" in \(release.id)")
      }
      query.vector = item.vector
      excludedOrdinal = item.ordinal
    case .recentItems(let ids):
      var vectors: [[Float]] = []
      for id in ids {
        if let item = found.first(where: { $0.id == id }) {
          vectors.append(item.vector)
        } else if !unknown.contains(id) {
          unknown.append(id)
        }
      }
      if vectors.isEmpty {
        query.vector = release.coldStart
        coldStart = true
      } else {
        query.vector = RecentItems.query(vectors, dimension: release.dimension)
        if release.wantsRecent { query.recent = vectors.suffix(RecentFeature.itemsMax).flatMap { $0 } }
      }
    case .user, .vector, .anyone: break
    }
  }

  /// Turns to scoring: one task per shard, with what that shard has to leave out or to rank.
  func planTasks() {
    phase = .scoring
    let count = shards.count
    tasks.removeAll(keepingCapacity: true)
    for index in 0..<count {
      let excluded = history[ShardID(index)]
      tasks.append(ShardTask(shard: ShardID(index), excludedOrdinals: excluded.isEmpty ? [] : Array(excluded)))
    }
    func owner(_ id: String) -> Int { ShardID.owner(of: id, shards: count).index }
    for id in request.exclude { tasks[owner(id)].excludedIDs.append(id) }
    switch request.subject {
    case .item(let id):
      if case .retrieve = request.kind { tasks[owner(id)].excludedIDs.append(id) }
    case .recentItems(let ids):
      if request.excludeSeen { for id in ids { tasks[owner(id)].excludedIDs.append(id) } }
    case .user, .vector, .anyone: break
    }
    switch request.kind {
    case .retrieve: beginShards(count: count) { _ in true }
    case .rank(let items):
      for id in items { tasks[owner(id)].items.append(id) }
      beginShards(count: count) { !tasks[$0].items.isEmpty }
    }
  }
}
