import RankingCore

// The shop of a simulated run: a few hundred items in two versions of one model, some users, and two ways to answer.
//
//     `score`   what a worker computes for a leg: shard by shard, best R by inner product, re-ranked, best k, merged
//     `oracle`  what the answer must be, from all items at once, sharing no line with the other
//
// The ranker is a made-up one that turns the order of retrieval over, so that a wrong R, a wrong version or a list cut
// too early changes the answer.

final class SimulatedUsers: UserDirectory {
  let records: [String: UserRecord]
  init(_ records: [String: UserRecord]) { self.records = records }
  func record(of user: String) -> UserRecord? { records[user] }
}

struct Catalogue {
  static let dimension = 4
  static let itemsPerShard = 8
  static let users = 20

  struct Version {
    var release: Release
    /// By ordinal, one after the other.
    var components: [Float]
    func vector(_ ordinal: Int) -> [Float] {
      Array(components[ordinal * Catalogue.dimension..<(ordinal + 1) * Catalogue.dimension])
    }
    @inline(__always)
    func dot(_ ordinal: Int, _ query: [Float]) -> Float {
      var sum: Float = 0
      let start = ordinal * Catalogue.dimension
      for index in 0..<Catalogue.dimension { sum = sum + components[start + index] * query[index] }
      return sum
    }
    /// Changes the ranker's taste.
    var salt: UInt64
  }
  let shards: Int
  var versions: [Version] = []
  /// By ordinal.
  let ids: [String]
  /// Ordinals of each shard, ascending.
  let members: [[Int]]
  let ordinals: [String: Int]

  init(shards: Int, versions count: Int, generator: inout SeededGenerator) {
    self.shards = shards
    let ids = (0..<shards * Self.itemsPerShard).map { "i\($0)" }
    self.ids = ids
    var members = [[Int]](repeating: [], count: shards)
    for (ordinal, id) in ids.enumerated() { members[ShardID.owner(of: id, shards: shards).index].append(ordinal) }
    self.members = members
    ordinals = Dictionary(uniqueKeysWithValues: ids.enumerated().map { ($0.element, $0.offset) })
    func vector() -> [Float] { (0..<Self.dimension).map { _ in Float(generator.below(9)) - 4 } }
    for number in 0..<count {
      let components = ids.flatMap { _ in vector() }
      var records: [String: UserRecord] = [:]
      for user in 0..<Self.users {
        let seen = (0..<8).map { _ in generator.below(ids.count) }
        var history = ShardedOrdinals()
        for shard in 0..<shards {
          history.ordinals += members[shard].filter(seen.contains).map { UInt64($0) }
          history.ends.append(UInt32(history.ordinals.count))
        }
        records["u\(user)"] = UserRecord(vector: vector(), values: [], history: history)
      }
      let release = Release(
        id: ModelVersion(model: "home", version: "v\(number + 1)"), dimension: Self.dimension,
        itemsPerShard: members.map { UInt64($0.count) }, userColumns: [], contextColumns: [], coldStart: vector(),
        users: SimulatedUsers(records))
      versions.append(Version(release: release, components: components, salt: UInt64(number) &* 977))
    }
  }

  /// Whole numbers: nothing is rounded, ties are common.
  static func rank(_ retrieval: Float, _ ordinal: Int, _ salt: UInt64) -> Float {
    Float((UInt64(ordinal) &* 7919 &+ salt) % 23) - retrieval * 0.25
  }

  // MARK: A worker's way

  func score(_ request: ScoreRequest) -> ScoreReply? {
    guard let version = versions.first(where: { $0.release.id == request.query.release }) else { return nil }
    let query = request.query
    var all: [ScoredItem] = []
    for task in request.tasks {
      var found: [ScoredItem] = []
      switch query.mode {
      case .retrieve:
        var top = TopK(k: query.candidates)
        for ordinal in members[task.shard.index]
        where !task.excludedOrdinals.contains(UInt64(ordinal))
          && (task.excludedIDs.isEmpty || !task.excludedIDs.contains(ids[ordinal]))
        {
          top.offer(
            ScoredItem(score: version.dot(ordinal, query.vector), ordinal: ItemOrdinal(ordinal)))
        }
        found = top.sorted()
      case .rank:
        for id in task.items {
          guard let ordinal = ordinals[id], !task.excludedIDs.contains(id),
            !task.excludedOrdinals.contains(UInt64(ordinal))
          else { continue }
          found.append(
            ScoredItem(score: version.dot(ordinal, query.vector), ordinal: ItemOrdinal(ordinal)))
        }
      }
      for item in found {
        let score = Self.rank(item.score, Int(item.ordinal.rawValue), version.salt)
        if let least = query.minScore, score < least { continue }
        all.append(ScoredItem(score: score, ordinal: item.ordinal))
      }
    }
    all.sort { $0.precedes($1) }
    var list = ScoredList()
    for item in all.prefix(query.k) {
      var id = ids[Int(item.ordinal.rawValue)]
      id.withUTF8 { list.append(item, id: UnsafeRawBufferPointer($0)) }
    }
    return ScoreReply(release: query.release, shards: request.tasks.map(\.shard), items: list)
  }

  func look(up request: LookupRequest, held: [ShardID]) -> LookupReply? {
    guard let version = versions.first(where: { $0.release.id == request.release }) else { return nil }
    let shards = request.shards.filter(held.contains)
    let found = request.ids.compactMap { id -> LookupReply.Found? in
      guard let ordinal = ordinals[id], shards.contains(ShardID.owner(of: id, shards: self.shards)) else { return nil }
      return LookupReply.Found(id: id, ordinal: ItemOrdinal(ordinal), vector: version.vector(ordinal))
    }
    return LookupReply(release: request.release, shards: shards, found: found)
  }

  // MARK: The oracle

  /// The (id, score) pairs that the answer must have; `nil` = the request must fail.
  func oracle(
    _ request: RankingRequest, version number: Int, covered: (Int) -> Bool, candidates: Int
  ) -> [(ordinal: Int, score: Float)]? {
    let version = versions[number]
    var query: [Float]
    var banned = Set(request.exclude.compactMap { ordinals[$0] })
    switch request.subject {
    case .user(let user):
      let record = version.release.users.record(of: user)
      query = record?.vector ?? version.release.coldStart
      if request.excludeSeen, let record { for ordinal in record.history.ordinals { banned.insert(Int(ordinal)) } }
    case .vector(let vector): query = vector
    case .anyone: query = version.release.coldStart
    case .item(let id):
      guard let ordinal = ordinals[id] else { return nil }
      query = version.vector(ordinal)
      banned.insert(ordinal)
    case .recentItems(let recent):
      let known = recent.compactMap { ordinals[$0] }
      if request.excludeSeen { banned.formUnion(known) }
      if known.isEmpty {
        query = version.release.coldStart
      } else {
        query = [Float](repeating: 0, count: Self.dimension)
        for (place, ordinal) in known.enumerated() {
          var weight: Float = 1
          for _ in 0..<known.count - 1 - place { weight *= 0.85 }
          for k in query.indices {
            let product = weight * version.vector(ordinal)[k]
            query[k] = query[k] + product
          }
        }
      }
    }
    var results: [UInt64] = []
    results.reserveCapacity(ids.count)
    var limit = request.k
    var scored: [UInt64] = []
    for shard in 0..<shards where covered(shard) {
      scored.removeAll(keepingCapacity: true)
      for ordinal in members[shard] where banned.isEmpty || !banned.contains(ordinal) {
        if case .rank(let items) = request.kind, !items.contains(ids[ordinal]) { continue }
        scored.append(Self.key(version.dot(ordinal, query), ordinal))
      }
      if case .rank(let items) = request.kind {
        limit = items.count
      } else if scored.count > candidates {
        scored.sort()
        scored.removeLast(scored.count - candidates)
      }
      for key in scored {
        let ordinal = Int(key & 0xFFFF_FFFF)
        let score = Self.rank(Self.score(of: key), ordinal, version.salt)
        if let least = request.minScore, score < least { continue }
        results.append(Self.key(score, ordinal))
      }
    }
    results.sort()
    return results.prefix(limit).map { (Int($0 & 0xFFFF_FFFF), Self.score(of: $0)) }
  }

  /// A number that is smaller the earlier (score, ordinal) stands in the total order: numbers are quickly sorted.
  static func key(_ score: Float, _ ordinal: Int) -> UInt64 {
    let bits = (score + 0).bitPattern
    let ascending = bits & 0x8000_0000 == 0 ? bits | 0x8000_0000 : ~bits
    return UInt64(~ascending) << 32 | UInt64(ordinal)
  }
  static func score(of key: UInt64) -> Float {
    let ascending = ~UInt32(key >> 32)
    return Float(bitPattern: ascending & 0x8000_0000 != 0 ? ascending & 0x7FFF_FFFF : ~ascending)
  }

  // MARK: Requests

  func request(_ number: Int, generator: inout SeededGenerator) -> RankingRequest {
    func item() -> String { ids[generator.below(ids.count)] }
    var request: RankingRequest
    switch generator.below(10) {
    case 0..<5: request = RankingRequest(subject: .user("u\(generator.below(Self.users + 2))"))
    case 5, 6:
      request = RankingRequest(subject: .vector((0..<Self.dimension).map { _ in Float(generator.below(9)) - 4 }))
    case 7:
      request = RankingRequest(subject: .recentItems((0..<1 + generator.below(3)).map { _ in item() }))
    case 8: request = RankingRequest(subject: .item(item()))
    default:
      var items: [String] = []
      for _ in 0..<12 {
        let id = item()
        if !items.contains(id) { items.append(id) }
      }
      request = RankingRequest(kind: .rank(items), subject: .user("u\(generator.below(Self.users))"))
    }
    if case .retrieve = request.kind { request.k = 1 + generator.below(10) }
    request.candidates = 10 + generator.below(3)
    if generator.below(3) == 0 { request.excludeSeen = true }
    if generator.below(4) == 0 { request.exclude = [item(), item()] }
    if generator.below(8) == 0 { request.minScore = Float(generator.below(12)) }
    if generator.below(6) == 0 { request.minCoverage = generator.below(2) == 0 ? 1 : 0.5 }
    if generator.below(10) == 0 { request.earlyAt = 0.75 }
    if generator.below(10) == 0 { request.sticky = true }
    if versions.count > 1, generator.below(2) == 0 {
      request.version = versions[generator.below(versions.count)].release.id.version
    }
    request.requestID = "r\(number)"
    return request
  }
}
