import RankingCore
import Testing

@testable import Scoring

// Legs that are scored together, and legs that are scored in parts, give what each gives alone on one thread.

@Suite struct TogetherTests {
  /// Its slices are scanned by heads.
  private static let catalogue = {
    var catalogue = Catalogue(count: 12_000, dimension: 40)
    var generator = SeededGenerator(seed: 8)
    catalogue.vectors = Country.structured.rows(catalogue.count, catalogue.dimension, &generator)
    // Groups for the cap that shards share.
    catalogue.prices = (0..<catalogue.count).map { $0 % 5 == 0 ? .nan : Float($0 % 41) }
    return catalogue
  }()
  private static let never = CancellationFlag()

  private static let linear = Ranker.linear(
    try! LinearRanker(
      intercept: 1, terms: [.init(.retrievalScore, weight: 0.5), .init(.item(0), weight: 0.01, missing: 3)],
      itemColumns: 1, userColumns: 0, contextColumns: 0))

  /// Legs of all kinds, over all or some of the shards.
  private func legs(shards: Int, count: Int) -> [ScoreRequest] {
    let catalogue = Self.catalogue
    return (0..<count).map { number in
      var query = catalogue.query(
        seed: UInt64(number), mode: number % 7 == 6 ? .rank : .retrieve, k: [1, 20, 100, 700][number % 4],
        candidates: [200, 50, 1000][number % 3], minScore: number % 5 == 4 ? 0.1 : nil)
      if number % 4 == 1 { query.filter = FilterProgram(steps: [.range(column: 0, low: 10, high: 40)]) }
      if number % 6 == 5 { query.cap = GroupCap(column: 0, max: 1) }
      var request = catalogue.request(
        query, shards: shards, excluding: Array(stride(from: number, to: 3000, by: 7)),
        excludingIDs: number % 2 == 0 ? ["item-5", "nobody"] : [], items: ["item-1", "item-70", "item-8000"])
      if number % 3 == 2, shards > 1 { request.tasks.removeAll { $0.shard.index % 2 == 0 } }
      return request
    }
  }

  @Test(arguments: [1, 3], [false, true])
  func everyLegGetsWhatItWouldGetAlone(shards: Int, isRanked: Bool) throws {
    let hosted = try Self.catalogue.hosted(shards: shards, ranker: isRanked ? Self.linear : .none)
    #expect(hosted.slice(ShardID(0))?.scanIndex?.plan == .head(bytes: 16))
    let scorer = LegScorer()
    for count in [1, 2, 14, LegScorer.togetherMax] {
      let legs = legs(shards: shards, count: count)
      let together = scorer.scoreTogether(legs.map { ($0, Self.never) }, holding: hosted)
      for (number, leg) in legs.enumerated() {
        let alone = try scorer.score(leg, holding: hosted, cancelled: Self.never).get()
        let same = try together[number].get() == alone
        #expect(same, "leg \(number) of \(count)")
        #expect(leg.query.mode == .rank || alone.items.count > 0)
      }
    }
  }

  @Test func oneThatFailsOrIsCancelledLeavesTheOthersAlone() throws {
    let hosted = try Self.catalogue.hosted(shards: 3)
    let flag = CancellationFlag()
    flag.cancel()
    var legs = legs(shards: 3, count: 5)
    legs[1].query.vector.removeLast()
    legs[4].query.release = ModelVersion(model: "home", version: "other")
    let results = LegScorer().scoreTogether(
      legs.enumerated().map { ($1, $0 == 2 ? flag : Self.never) }, holding: hosted)
    for number in [0, 3] {
      let same =
        try results[number].get() == LegScorer().score(legs[number], holding: hosted, cancelled: Self.never).get()
      #expect(same)
    }
    #expect(results[1] == .failure(.workerError("vector has 39 values, home/v1 has dimension 40")))
    #expect(results[2] == .failure(.deadlineExceeded))
    #expect(results[4] == .failure(.wrongVersion))
  }

  @Test(arguments: [1, 2, 3, 5], [false, true])
  func partsJoinToTheWhole(parts: Int, isRanked: Bool) throws {
    let hosted = try Self.catalogue.hosted(shards: 5, ranker: isRanked ? Self.linear : .none)
    for (number, leg) in legs(shards: 5, count: 14).enumerated() {
      let scorer = LegScorer()
      let whole = try scorer.score(leg, holding: hosted, cancelled: Self.never).get()
      let split = LegParts.split(leg, holding: hosted, into: parts)
      #expect(split.count == min(parts, leg.tasks.count))
      #expect(split.flatMap(\.self).sorted() == Array(leg.tasks.indices))
      let replies = try split.map {
        try scorer.score(leg, part: $0, holding: hosted, cancelled: Self.never).get()
      }
      let joined = LegParts.join(replies, of: leg)
      #expect(joined.items == whole.items, "leg \(number)")
      #expect(joined.shards.sorted() == whole.shards.sorted())
      #expect(joined.droppedNaN == whole.droppedNaN)
    }
  }

  @Test func aPartSpeaksForItsShardsOnly() throws {
    let hosted = try Self.catalogue.hosted(shards: 3)
    let leg = legs(shards: 3, count: 2)[1]
    let reply = try LegScorer().score(leg, part: [1], holding: hosted, cancelled: Self.never).get()
    #expect(reply.shards == [ShardID(1)])
    #expect(
      reply.items.ordinals.allSatisfy { Self.catalogue.owner(Int($0), shards: 3) == ShardID(1) })
  }

  @Test func partsHoldAboutAsManyRows() throws {
    let hosted = try Self.catalogue.hosted(shards: 7)
    let leg = Self.catalogue.request(Self.catalogue.query(k: 1), shards: 7)
    let rows = LegParts.split(leg, holding: hosted, into: 2).map { part in
      part.reduce(0) { $0 + hosted.slice(leg.tasks[$1].shard)!.count }
    }
    #expect(rows.max()! - rows.min()! < 12_000 / 7 + 200)
  }

  /// The threshold that several slices are sampled for must let every winner through, also when all that was sampled is
  /// excluded and when a shard may give fewer than are wanted.
  @Test func theSampleOfSeveralSlicesLosesNothing() throws {
    let hosted = try Self.catalogue.hosted(shards: 4)
    for (k, candidates) in [(10, 200), (100, 10), (600, 1000)] {
      let query = Self.catalogue.query(k: k, candidates: candidates)
      let first = Self.catalogue.expected(Self.catalogue.request(query, shards: 4), shards: 4).items
      let excluding = first.map { Int($0.ordinal.rawValue) }.sorted()
      for request in [
        Self.catalogue.request(query, shards: 4), Self.catalogue.request(query, shards: 4, excluding: excluding),
      ] {
        let reply = try LegScorer().score(request, holding: hosted, cancelled: Self.never).get()
        let same = reply.items.lines == Self.catalogue.lines(Self.catalogue.expected(request, shards: 4).items)
        #expect(same, "k \(k), candidates \(candidates)")
      }
    }
  }

  /// All of the best lie in one shard, which may give only a few of them: the others' rows are in the answer.
  @Test func theSampleKnowsThatAShardGivesNoMoreThanItsCandidates() throws {
    var catalogue = Self.catalogue
    for item in 0..<catalogue.count where catalogue.owner(item, shards: 3) == ShardID(1) {
      for place in item * 40..<(item + 1) * 40 { catalogue.vectors[place] *= 50 }
    }
    let request = catalogue.request(catalogue.query(k: 100, candidates: 10), shards: 3)
    let reply = try LegScorer().score(request, holding: catalogue.hosted(shards: 3), cancelled: Self.never).get()
    #expect(reply.items.count == 30)
    let same = reply.items.lines == catalogue.lines(catalogue.expected(request, shards: 3).items)
    #expect(same)
  }
}
