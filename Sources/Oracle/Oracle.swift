import Bundles
import Foundation
import RankingCore
import Wire

// What the cluster must answer, computed in the plainest way from the bundle alone: every item scored by scalar Swift,
// everything sorted, nothing fast. It shares no scoring, routing or merging code with the cluster; only the words
// (RankingCore), the request's JSON (Wire) and the checked bytes of the bundle.
//
//     request ─► query vector ─► per shard: score all, sort, best R ─► ranker ─► best k ─► all shards sorted, best k

public final class Oracle {
  private struct Item {
    var ordinal: UInt64
    var id: String
    var vector: [Float]
    var columns: [Float]
  }
  private struct LinearTerm: Decodable {
    var feature: String
    var weight: Double
    var missing: Double?
  }
  private struct LinearFile: Decodable {
    var intercept: Double?
    var terms: [LinearTerm]
  }

  private let bundle: Bundles.Bundle
  private let release: Release
  private var shards: [[Item]] = []
  private enum Ranker {
    case linear(LinearFile)
    case trees(PlainTrees)
    case xgboost(PlainXGBoost)
    case mlp(PlainMLP)
  }
  /// Whose scores, times their weights, are added; none = the retrieval score.
  private let rankers: [(ranker: Ranker, weight: Double)]
  private let listRanker: (ranker: Ranker, pool: Int)?
  /// Vectors of the recent items of the request that is being answered, the newest last.
  private var recent: [[Float]] = []

  public init(bundle path: String) throws {
    bundle = try Bundles.Bundle.open(path)
    release = try bundle.release()
    func ranker(_ file: String) throws -> Ranker {
      let data = try Data(contentsOf: URL(fileURLWithPath: path + "/" + file))
      if let trees = PlainTrees(String(decoding: data, as: UTF8.self)) { return .trees(trees) }
      if let trees = PlainXGBoost(data) { return .xgboost(trees) }
      if let network = PlainMLP(data) { return .mlp(network) }
      return .linear(try JSONDecoder().decode(LinearFile.self, from: data))
    }
    rankers = try bundle.manifest.weightedRankers.map { (try ranker($0.file), $0.weight) }
    listRanker = try bundle.manifest.listRanker.map { (try ranker($0.file), $0.pool) }
    for shard in 0..<bundle.manifest.shards { shards.append(try items(ShardID(shard))) }
  }

  private func items(_ shard: ShardID) throws -> [Item] {
    let file = try bundle.rawSlice(shard)
    func section(_ name: String) throws -> UnsafeRawBufferPointer {
      guard let section = file.sections.first(where: { $0.name == name }) else {
        throw InputError(file: file.path, "section \(name): is missing")
      }
      return file.bytes(section.bytes)
    }
    let dimension = bundle.manifest.dimension
    let stride = (dimension + 15) / 16 * 16
    let (vectors, ordinals) = (try section("vectors"), try section("ordinals"))
    let (ends, bytes) = (try section("id_ends"), try section("id_bytes"))
    let columns = try bundle.itemColumns.map { try section("column." + $0.name) }
    return withExtendedLifetime(file) {
      (0..<bundle.manifest.itemsPerShard[shard.index]).map { row in
        let start = row == 0 ? 0 : Int(ends.load(fromByteOffset: (row - 1) * 4, as: UInt32.self))
        let end = Int(ends.load(fromByteOffset: row * 4, as: UInt32.self))
        return Item(
          ordinal: ordinals.load(fromByteOffset: row * 8, as: UInt64.self),
          id: String(decoding: bytes[start..<end], as: UTF8.self),
          vector: (0..<stride).map { vectors.load(fromByteOffset: (row * stride + $0) * 4, as: Float.self) },
          columns: columns.map { $0.load(fromByteOffset: row * 4, as: Float.self) })
      }
    }
  }

  /// The order of summation that every kernel keeps: 16 lanes of fused multiply-add, then a tree of halves; −0 is +0.
  static func dot(_ x: [Float], _ q: [Float]) -> Float {
    var lanes = [Float](repeating: 0, count: 16)
    for index in x.indices { lanes[index % 16] = lanes[index % 16].addingProduct(x[index], q[index]) }
    var width = 8
    while width > 0 {
      for lane in 0..<width { lanes[lane] = lanes[lane] + lanes[lane + width] }
      width /= 2
    }
    return lanes[0] + 0
  }

  /// The answer to one request over the named shards (all, when nil), as the cluster would give it.
  ///
  /// - Parameter candidates: R instead of the request's own: what a cluster under pressure says it used.
  public func answer(
    _ request: RankingRequest, over covered: [Int]? = nil, candidates: Int? = nil
  ) throws(RankingError) -> Answer {
    if let model = request.model, model != release.id.model {
      throw RankingError(.notFound, "unknown model \"\(model)\"; served here: \"\(release.id.model)\"")
    }
    if let version = request.version, version != release.id.version {
      throw RankingError(.notFound, "unknown version \"\(version)\"; served here: \"\(release.id.version)\"")
    }
    var excluded = Set(request.exclude)
    var excludedOrdinals = Set<UInt64>()
    var userValues = [Float](repeating: .nan, count: release.userColumns.count)
    var coldStart: Bool?
    var unknown: [String] = []
    var query: [Float]
    recent = []
    switch request.subject {
    case .user(let user):
      if let record = release.users.record(of: user) {
        query = record.vector
        userValues = record.values
        if request.excludeSeen { excludedOrdinals.formUnion(record.history.ordinals) }
        coldStart = false
      } else {
        query = release.coldStart
        coldStart = true
      }
    case .vector(let vector):
      guard vector.count == release.dimension else {
        throw RankingError(
          .invalidArgument, "\"vector\" has \(vector.count) numbers; \(release.id) takes \(release.dimension)")
      }
      query = vector
    case .anyone:
      query = release.coldStart
      coldStart = true
    case .item(let id):
      guard let item = find(id) else { throw RankingError(.notFound, "unknown item \"\(id)\" in \(release.id)") }
      query = Array(item.vector.prefix(release.dimension))
      excluded.insert(id)
    case .recentItems(let ids):
      var known: [Item] = []
      for id in ids {
        if let item = find(id) { known.append(item) } else if !unknown.contains(id) { unknown.append(id) }
      }
      if request.excludeSeen { excluded.formUnion(ids) }
      if known.isEmpty {
        query = release.coldStart
        coldStart = true
      } else {
        recent = known.suffix(50).map(\.vector)
        query = [Float](repeating: 0, count: release.dimension)
        for (index, item) in known.enumerated() {
          var weight: Float = 1
          for _ in 0..<known.count - 1 - index { weight *= 0.85 }
          for k in query.indices {
            let product = weight * item.vector[k]
            query[k] = query[k] + product
          }
        }
      }
    }
    let r = candidates ?? request.candidatesAsked
    let context = release.contextValues(request.context)
    query += [Float](repeating: 0, count: (release.dimension + 15) / 16 * 16 - release.dimension)

    let speaking = covered ?? Array(shards.indices)
    var all: [(item: Item, score: Float)] = []
    for shard in speaking {
      var scored: [(item: Item, score: Float)] = []
      for item in shards[shard] where !excluded.contains(item.id) && !excludedOrdinals.contains(item.ordinal) {
        if case .rank(let wanted) = request.kind, !wanted.contains(item.id) { continue }
        if let filter = request.filter, !passes(item, filter) { continue }
        scored.append((item, Self.dot(item.vector, query)))
      }
      if case .retrieve = request.kind {
        scored = Self.sorted(scored)
        // With a ranker the cap is on final scores, among the R best of retrieval.
        if rankers.isEmpty, let diversity = request.diversity { scored = capped(scored, diversity) }
        scored = Array(scored.prefix(r))
      }
      if !rankers.isEmpty {
        scored = scored.compactMap { entry in
          rank(entry.item, entry.score, userValues, context).map { (entry.item, $0) }
        }
      }
      if let least = request.minScore { scored = scored.filter { $0.score >= least } }
      all += scored
    }
    all = Self.sorted(all)
    if let diversity = request.diversity { all = capped(all, diversity) }
    if case .rank(let wanted) = request.kind, request.minScore == nil, request.filter == nil {
      let there = Set(all.map(\.item.id)).union(request.exclude)
      unknown += wanted.filter {
        !there.contains($0) && speaking.contains(ShardID.owner(of: $0, shards: shards.count).index)
      }
    }
    all = reranked(all, request, userValues, context)
    var list = ScoredList()
    for (item, score) in all {
      Array(item.id.utf8).withUnsafeBytes {
        list.append(ScoredItem(score: score, ordinal: ItemOrdinal(rawValue: item.ordinal)), id: $0)
      }
    }
    if request.explain {
      let pool = max(request.k, listRanker?.pool ?? 0, request.marginalRelevance?.pool ?? 0)
      if case .retrieve = request.kind { try ContributionLayout(release).check(items: pool) }
      list.explanations = explained(all.map { (item: $0.item, retrieval: Self.dot($0.item.vector, query)) }) { entry in
        account(entry.item, entry.retrieval, userValues, context)
      }
    }
    var answer = Answer(
      release: release.id,
      entries: all.indices.map { Answer.Entry(item: list[$0], list: 0, position: Int32($0)) }, lists: [list],
      coldStart: coldStart, coverage: coverage(speaking), candidates: r,
      quality: Double(r) / Double(request.candidatesAsked), unknown: unknown, requestID: request.requestID, took: .zero)
    if request.explain { answer.contributionNames = ContributionLayout.names(release) }
    return answer
  }

  /// What is done to the list as a whole, and its end cut off.
  private func reranked(
    _ items: [(item: Item, score: Float)], _ request: RankingRequest, _ user: [Float], _ context: [Float]
  ) -> [(item: Item, score: Float)] {
    var items = items
    var wanted = request.k
    if case .rank = request.kind { wanted = items.count }
    if let (ranker, pool) = listRanker {
      items = Array(items.prefix(max(wanted, pool)))
      let scores = items.map(\.score)
      var columns: [String: [Float]] = [:]
      func share(_ column: String) -> [Float] {
        if columns[column] == nil {
          columns[column] = items.map { value("item." + column, $0.item, 0, user, context) }
        }
        return columns[column]!
      }
      items = Self.sorted(
        items.enumerated().compactMap { index, entry in
          let score = plainScore(ranker) { name in
            PlainList.feature(name, of: index, scores: scores, share: share) {
              value($0, entry.item, 0, user, context)
            }
          }
          return score.map { (entry.item, $0) }
        })
    }
    if let rule = request.marginalRelevance {
      items = Array(items.prefix(max(wanted, rule.pool)))
      let vectors = items.map { Array($0.item.vector.prefix(release.dimension)) }
      items = PlainList.marginal(rule, k: wanted, scores: items.map(\.score), vectors: vectors).map { items[$0] }
    }
    return Array(items.prefix(wanted))
  }

  /// The accounts as columns, each number in the place of its name.
  private func explained(
    _ items: [(item: Item, retrieval: Float)], _ account: ((item: Item, retrieval: Float)) -> PlainAccount
  ) -> Explanations? {
    let names = ContributionLayout.names(release)
    let accounts = items.map(account)
    return Explanations(
      items: items.count, retrieval: items.map(\.retrieval), raw: accounts.map(\.raw),
      outputs: accounts.flatMap(\.outputs),
      contributions: accounts.flatMap { account in
        names.map { $0 == "base" ? account.base : account.contributions[$0] ?? 0 }
      })
  }

  /// The list without the items whose group is full when their turn comes.
  private func capped(
    _ items: [(item: Item, score: Float)], _ diversity: Diversity
  ) -> [(item: Item, score: Float)] {
    guard let column = bundle.itemColumns.firstIndex(where: { $0.name == diversity.field }) else { return items }
    var counts: [Float: Int] = [:]
    return items.filter { entry in
      let group = entry.item.columns[column]
      guard !group.isNaN else { return true }
      counts[group, default: 0] += 1
      return counts[group]! <= diversity.max
    }
  }

  /// Whether an item passes, by the filter's own words.
  private func passes(_ item: Item, _ filter: Filter) -> Bool {
    switch filter {
    case .all(let parts): return parts.allSatisfy { passes(item, $0) }
    case .any(let parts): return parts.contains { passes(item, $0) }
    case .not(let part): return !passes(item, part)
    case .compare(let field, let comparison):
      guard let index = bundle.itemColumns.firstIndex(where: { $0.name == field }) else { return false }
      let (column, value) = (bundle.itemColumns[index], item.columns[index])
      guard !value.isNaN else { return false }
      switch comparison {
      case .less(let limit): return value < Float(limit)
      case .atMost(let limit): return value <= Float(limit)
      case .greater(let limit): return value > Float(limit)
      case .atLeast(let limit): return value >= Float(limit)
      case .between(let low, let high): return value >= Float(low) && value <= Float(high)
      case .isIn(let values):
        return values.contains {
          switch $0 {
          case .number(let number): value == Float(number)
          case .boolean(let flag): value == (flag ? 1 : 0)
          case .text(let text): column.categories[Int(value)] == text
          }
        }
      }
    }
  }

  private func coverage(_ speaking: [Int]) -> Coverage {
    let missing = shards.indices.filter { !speaking.contains($0) }
    let items = speaking.reduce(0) { $0 + shards[$1].count }
    return Coverage(
      shards: shards.count, answered: speaking.count,
      items: missing.isEmpty ? 1 : Double(items) / Double(shards.reduce(0) { $0 + $1.count }),
      missing: missing.map { Coverage.Missing(shard: ShardID($0), reason: .noReadyReplica) })
  }

  private func find(_ id: String) -> Item? {
    shards[ShardID.owner(of: id, shards: shards.count).index].first { $0.id == id }
  }

  private static func sorted(_ items: [(item: Item, score: Float)]) -> [(item: Item, score: Float)] {
    items.sorted { $0.score != $1.score ? $0.score > $1.score : $0.item.ordinal < $1.item.ordinal }
  }

  private func value(
    _ feature: String, _ item: Item, _ retrieval: Float, _ user: [Float], _ context: [Float]
  ) -> Float {
    func column(_ prefix: String, _ columns: [Column], _ values: [Float]) -> Float? {
      guard feature.hasPrefix(prefix) else { return nil }
      return columns.firstIndex { $0.name == feature.dropFirst(prefix.count) }.map { values[$0] }
    }
    if feature == "retrieval_score" { return retrieval }
    if feature.hasPrefix("recent.") { return likeness(feature, item) }
    return column("item.", bundle.itemColumns, item.columns) ?? column("user.", release.userColumns, user)
      ?? column("context.", release.contextColumns, context) ?? .nan
  }

  private func likeness(_ feature: String, _ item: Item) -> Float {
    func cosine(_ other: [Float]) -> Float {
      let norm = Double(Self.dot(item.vector, item.vector)).squareRoot()
      let otherNorm = Double(Self.dot(other, other)).squareRoot()
      return norm > 0 && otherNorm > 0 ? Float(Double(Self.dot(item.vector, other)) / (norm * otherNorm)) : .nan
    }
    let all = recent.map(cosine)
    let known = all.filter { !$0.isNaN }
    switch feature {
    case "recent.count": return Float(recent.count)
    case "recent.last_similarity": return all.last ?? .nan
    case "recent.max_similarity": return known.max() ?? .nan
    default: return known.isEmpty ? .nan : Float(known.reduce(0) { $0 + Double($1) } / Double(known.count))
    }
  }

  /// What an item's score is made of. Of several rankers each says its own, times its weight; one whose output is not
  /// what its features add up to (a sigmoid of it, say) says no more than that.
  private func account(_ item: Item, _ retrieval: Float, _ user: [Float], _ context: [Float]) -> PlainAccount {
    if rankers.isEmpty {
      var account = PlainAccount()
      account.raw = Double(retrieval)
      account.add(account.raw, to: "retrieval_score")
      return account
    }
    let accounts = rankers.map { account(item, retrieval, $0.ranker, user, context) }
    if rankers.count == 1, rankers[0].weight == 1 { return accounts[0] }
    var sum = PlainAccount()
    for (var account, weight) in zip(accounts, rankers.map(\.weight)) {
      let output = account.outputs[0]
      if Float(account.raw) + 0 != output {
        account = PlainAccount()
        account.raw = Double(output)
        account.add(account.raw, to: "ranker")
      }
      account.scale(weight)
      sum.base += account.base
      sum.raw += weight * account.raw
      for (feature, value) in account.contributions { sum.add(value, to: feature) }
      sum.outputs.append(output)
    }
    return sum
  }

  private func account(
    _ item: Item, _ retrieval: Float, _ ranker: Ranker, _ user: [Float], _ context: [Float]
  ) -> PlainAccount {
    func value(_ feature: String) -> Float { self.value(feature, item, retrieval, user, context) }
    var account = PlainAccount()
    switch ranker {
    case .trees(let trees): return trees.explain(value)
    case .xgboost(let trees): return trees.explain(value)
    case .mlp:
      let output = rank(item, retrieval, ranker, user, context) ?? .nan
      account.raw = Double(output)
      account.add(account.raw, to: "ranker")
      account.outputs = [output]
    case .linear(let file):
      account.base = file.intercept ?? 0
      account.raw = account.base
      for term in file.terms {
        let x = value(term.feature)
        let product = term.weight * (x.isNaN ? term.missing ?? 0 : Double(x))
        account.add(product, to: term.feature)
        account.raw += product
      }
      account.outputs = [Float(account.raw) + 0]
    }
    return account
  }

  /// The rankers' scores, times their weights, added in float64; nil when one of them has none.
  private func rank(_ item: Item, _ retrieval: Float, _ user: [Float], _ context: [Float]) -> Float? {
    var sum = 0.0
    for (ranker, weight) in rankers {
      guard let score = rank(item, retrieval, ranker, user, context) else { return nil }
      sum = sum + weight * Double(score)
    }
    let score = Float(sum)
    return score.isFinite ? score + 0 : nil
  }

  private func rank(
    _ item: Item, _ retrieval: Float, _ ranker: Ranker, _ user: [Float], _ context: [Float]
  ) -> Float? {
    plainScore(ranker) { value($0, item, retrieval, user, context) }
  }

  private func plainScore(_ ranker: Ranker, _ value: (String) -> Float) -> Float? {
    let linear: LinearFile
    switch ranker {
    case .trees(let trees): return trees.score(value)
    case .xgboost(let trees): return trees.score(value)
    case .mlp(let network):
      return network.score(value) { feature in
        let columns = [
          ("item.", bundle.itemColumns), ("user.", release.userColumns), ("context.", release.contextColumns),
        ]
        let column = columns.lazy.flatMap { prefix, columns in columns.map { (prefix + $0.name, $0) } }
          .first { $0.0 == feature }
        let place = value(feature)
        guard let column, !place.isNaN else { return nil }
        return column.1.categories[Int(place)]
      }
    case .linear(let file): linear = file
    }
    var sum = linear.intercept ?? 0
    for term in linear.terms {
      let x = value(term.feature)
      let product = term.weight * (x.isNaN ? term.missing ?? 0 : Double(x))
      sum = sum + product
    }
    let score = Float(sum)
    return score.isFinite ? score + 0 : nil
  }
}
