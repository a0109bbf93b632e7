import RankingCore

// A worker's compute thread, for slices of a dozen items:
//
//     task ─► exclusions ─► best R by inner product ─► ranker ─► min score ─┐
//     task ─► …                                                             ├─► best k ─► reply with ids
//
// It keeps its memory between legs, as a run scores half a million of them.

struct SliceScorer {
  private var found: [ScoredItem] = []
  private var all: [ScoredItem] = []

  /// - Returns: `nil` when the version does not exist.
  mutating func score(_ request: ScoreRequest, of catalogue: Catalogue) -> ScoreReply? {
    let query = request.query
    guard let number = catalogue.version(of: query.release), query.vector.count == Catalogue.dimension else {
      return nil
    }
    let vector = SIMD4<Float>(query.vector[0], query.vector[1], query.vector[2], query.vector[3])
    all.removeAll(keepingCapacity: true)
    catalogue.versions.withUnsafeBufferPointer { versions in
      for task in request.tasks {
        switch query.mode {
        case .retrieve:
          retrieve(task, vector, versions[number], catalogue)
          if found.count > query.candidates {
            Self.sort(&found)
            found.removeLast(found.count - query.candidates)
          }
        case .rank: named(task, vector, versions[number], catalogue)
        }
        for item in found {
          let score = versions[number].tastes[Int(item.ordinal.rawValue)] - item.score * 0.25
          if let least = query.minScore, score < least { continue }
          all.append(ScoredItem(score: score, ordinal: item.ordinal))
        }
      }
    }
    Self.sort(&all)
    var list = ScoredList()
    for item in all.prefix(query.k) {
      var id = catalogue.ids[Int(item.ordinal.rawValue)]
      id.withUTF8 { list.append(item, id: UnsafeRawBufferPointer($0)) }
    }
    return ScoreReply(release: query.release, shards: request.tasks.map(\.shard), items: list)
  }

  private mutating func retrieve(
    _ task: ShardTask, _ vector: SIMD4<Float>, _ version: Catalogue.Version, _ catalogue: Catalogue
  ) {
    found.removeAll(keepingCapacity: true)
    for ordinal in catalogue.members[task.shard.index] where !isExcluded(ordinal, task, catalogue) {
      found.append(ScoredItem(score: Self.dot(version.vectors[ordinal], vector), ordinal: ItemOrdinal(ordinal)))
    }
  }
  private mutating func named(
    _ task: ShardTask, _ vector: SIMD4<Float>, _ version: Catalogue.Version, _ catalogue: Catalogue
  ) {
    found.removeAll(keepingCapacity: true)
    for id in task.items {
      guard let ordinal = catalogue.ordinals[id], !isExcluded(ordinal, task, catalogue) else { continue }
      found.append(ScoredItem(score: Self.dot(version.vectors[ordinal], vector), ordinal: ItemOrdinal(ordinal)))
    }
  }
  @inline(__always)
  private func isExcluded(_ ordinal: Int, _ task: ShardTask, _ catalogue: Catalogue) -> Bool {
    (!task.excludedOrdinals.isEmpty && task.excludedOrdinals.contains(UInt64(ordinal)))
      || (!task.excludedIDs.isEmpty && task.excludedIDs.contains(catalogue.ids[ordinal]))
  }

  /// In the order of the lanes, multiplication and addition rounded apart.
  @inline(__always)
  private static func dot(_ a: SIMD4<Float>, _ b: SIMD4<Float>) -> Float {
    let products = a * b
    return ((products[0] + products[1]) + products[2]) + products[3]
  }

  /// Insertion: the lists are a dozen to a hundred long, and nearly in order when shards repeat.
  private static func sort(_ items: inout [ScoredItem]) {
    items.withUnsafeMutableBufferPointer { items in
      for index in 1..<max(1, items.count) {
        let item = items[index]
        var place = index
        while place > 0, item.precedes(items[place - 1]) {
          items[place] = items[place - 1]
          place -= 1
        }
        items[place] = item
      }
    }
  }

  /// The vectors of the ids that lie in shards which are held; says for which of the shards it speaks.
  static func look(up request: LookupRequest, held: [ShardID], in catalogue: Catalogue) -> LookupReply? {
    guard let number = catalogue.version(of: request.release) else { return nil }
    let shards = request.shards.filter(held.contains)
    let found = request.ids.compactMap { id -> LookupReply.Found? in
      guard let ordinal = catalogue.ordinals[id],
        shards.contains(ShardID.owner(of: id, shards: catalogue.shards))
      else { return nil }
      let vector = catalogue.versions[number].vectors[ordinal]
      return LookupReply.Found(
        id: id, ordinal: ItemOrdinal(ordinal), vector: (0..<Catalogue.dimension).map { vector[$0] })
    }
    return LookupReply(release: request.release, shards: shards, found: found)
  }
}
