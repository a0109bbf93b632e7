import RankingCore

// What an answer must be, from all items at once, in the plainest way: nothing of it is what coordinators or workers
// do. Requests come from a list of templates, so most answers have been computed before.

final class PlainOracle {
  struct Expected {
    var items: [(ordinal: Int, score: Float)]
    var coldStart: Bool?
    var unknown: [String]
  }
  private struct Key: Hashable {
    var template: Int
    var version: Int
    var candidates: Int
    var covered: UInt64
  }
  private let catalogue: Catalogue
  private var known: [Key: Expected?] = [:]

  init(_ catalogue: Catalogue) { self.catalogue = catalogue }

  /// The answer to a template over the shards in `covered`; `nil` = the request must fail.
  func answer(
    _ template: Int, _ request: RankingRequest, version: Int, covered: UInt64, candidates: Int
  ) -> Expected? {
    let key = Key(template: template, version: version, candidates: candidates, covered: covered)
    if let expected = known[key] { return expected }
    let expected = compute(request, version: version, covered: covered, candidates: candidates)
    known[key] = expected
    return expected
  }

  private func compute(
    _ request: RankingRequest, version number: Int, covered: UInt64, candidates: Int
  ) -> Expected? {
    let version = catalogue.versions[number]
    var query: [Float]
    var coldStart: Bool?
    var unknown: [String] = []
    var banned = Set(request.exclude)
    switch request.subject {
    case .user(let user):
      let record = version.release.users.record(of: user)
      query = record?.vector ?? version.release.coldStart
      coldStart = record == nil
      if request.excludeSeen, let record {
        for ordinal in record.history.ordinals { banned.insert(catalogue.ids[Int(ordinal)]) }
      }
    case .vector(let vector): query = vector
    case .anyone:
      query = version.release.coldStart
      coldStart = true
    case .item(let id):
      guard let ordinal = catalogue.ids.firstIndex(of: id) else { return nil }
      query = (0..<Catalogue.dimension).map { version.vectors[ordinal][$0] }
      banned.insert(id)
    case .recentItems(let recent):
      if request.excludeSeen { banned.formUnion(recent) }
      var known: [Int] = []
      for id in recent {
        if let ordinal = catalogue.ids.firstIndex(of: id) {
          known.append(ordinal)
        } else if !unknown.contains(id) {
          unknown.append(id)
        }
      }
      query = [Float](repeating: 0, count: Catalogue.dimension)
      for (place, ordinal) in known.enumerated() {
        var weight: Float = 1
        for _ in 0..<known.count - 1 - place { weight *= 0.85 }
        for k in query.indices {
          let product = weight * version.vectors[ordinal][k]
          query[k] = query[k] + product
        }
      }
      if known.isEmpty {
        query = version.release.coldStart
        coldStart = true
      }
    }
    var results: [(ordinal: Int, score: Float)] = []
    for shard in 0..<catalogue.shards where covered & (1 << UInt64(shard)) != 0 {
      results += scores(shard, request, version, query, banned, candidates)
    }
    results.sort { $0.score != $1.score ? $0.score > $1.score : $0.ordinal < $1.ordinal }
    if case .rank(let items) = request.kind {
      if request.minScore == nil {
        for id in items where !request.exclude.contains(id) {
          let shard = ShardID.owner(of: id, shards: catalogue.shards).index
          guard covered & (1 << UInt64(shard)) != 0 else { continue }
          if !results.contains(where: { catalogue.ids[$0.ordinal] == id }) { unknown.append(id) }
        }
      }
    } else {
      results = Array(results.prefix(request.k))
    }
    return Expected(items: results, coldStart: coldStart, unknown: unknown)
  }

  private func scores(
    _ shard: Int, _ request: RankingRequest, _ version: Catalogue.Version, _ query: [Float], _ banned: Set<String>,
    _ candidates: Int
  ) -> [(ordinal: Int, score: Float)] {
    var retrieved: [(ordinal: Int, score: Float)] = []
    for ordinal in catalogue.members[shard] where !banned.contains(catalogue.ids[ordinal]) {
      if case .rank(let items) = request.kind, !items.contains(catalogue.ids[ordinal]) { continue }
      var sum: Float = 0
      for index in query.indices { sum = sum + version.vectors[ordinal][index] * query[index] }
      retrieved.append((ordinal, sum))
    }
    if case .retrieve = request.kind {
      retrieved.sort { $0.score != $1.score ? $0.score > $1.score : $0.ordinal < $1.ordinal }
      retrieved = Array(retrieved.prefix(candidates))
    }
    return retrieved.compactMap { entry in
      let score = Float((UInt64(entry.ordinal) &* 7919 &+ version.salt) % 23) - entry.score / 4
      if let least = request.minScore, score < least { return nil }
      return (entry.ordinal, score)
    }
  }
}
