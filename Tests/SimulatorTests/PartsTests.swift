import RankingCore
import Testing

@testable import Simulator

/// The pieces of a run, each by itself.
@Suite struct PartsTests {
  @Test func theQueueGivesTimesInOrderAndEqualOnesAsTheyCame() {
    var queue = EventQueue<Int>()
    var generator = SeededGenerator(seed: 3)
    var expected: [(at: UInt64, number: Int)] = []
    for number in 0..<500 {
      let at = UInt64(generator.below(50))
      queue.schedule(number, at: Instant(nanoseconds: at))
      expected.append((at, number))
    }
    expected.sort { ($0.at, $0.number) < ($1.at, $1.number) }
    var got: [Int] = []
    // Slots are used again while others wait.
    for _ in 0..<250 { if let next = queue.next() { got.append(next.payload) } }
    queue.schedule(1000, at: Instant(nanoseconds: 60))
    while let next = queue.next() { got.append(next.payload) }
    #expect(got == expected.map(\.number) + [1000])
    #expect(queue.isEmpty)
  }

  @Test func requestsAreReadAsTheyWereMeant() {
    var generator = SeededGenerator(seed: 7)
    let catalogue = Catalogue(shards: 16, versions: 2, generator: &generator)
    let workload = Workload(catalogue, isPlain: false, generator: &generator)
    for index in workload.templates.indices { #expect(workload.parse(index) == workload.templates[index].request) }
    let kinds = Set(workload.templates.map(\.api))
    #expect(kinds.count == 3 && workload.templates.contains { $0.isLookup })
  }

  /// What a worker finds for all shards at once is what the oracle says, whatever is asked, and a part of the shards
  /// has another answer than all of them.
  @Test func aWorkerAndTheOracleAgree() throws {
    var generator = SeededGenerator(seed: 11)
    let catalogue = Catalogue(shards: 16, versions: 2, generator: &generator)
    let workload = Workload(catalogue, isPlain: false, generator: &generator)
    let oracle = PlainOracle(catalogue)
    var scorer = SliceScorer()
    var differing = 0
    for (index, template) in workload.templates.enumerated() where !template.isLookup {
      for version in 0..<2 {
        let leg = self.leg(template.request, catalogue, version)
        let scored = scorer.score(leg, of: catalogue)
        let reply = try #require(scored)
        let all = try #require(
          oracle.answer(
            index, template.request, version: version, covered: 0xFFFF, candidates: template.request.candidatesAsked))
        #expect(reply.items.ordinals == all.items.map { UInt64($0.ordinal) }, "\(template.request)")
        #expect(reply.items.scores == all.items.map(\.score))
        #expect(reply.items.isWellFormed)
        let half = oracle.answer(
          index, template.request, version: version, covered: 0x00FF, candidates: template.request.candidatesAsked)
        if half?.items.map(\.ordinal) != all.items.map(\.ordinal) { differing += 1 }
      }
    }
    #expect(differing > 20)
  }

  private func leg(_ request: RankingRequest, _ catalogue: Catalogue, _ version: Int) -> ScoreRequest {
    let release = catalogue.versions[version].release
    var vector = release.coldStart
    var history = ShardedOrdinals()
    switch request.subject {
    case .user(let user):
      if let record = release.users.record(of: user) {
        vector = record.vector
        if request.excludeSeen { history = record.history }
      }
    case .vector(let given): vector = given
    case .recentItems, .item, .anyone: break
    }
    var mode = ScoreMode.retrieve
    var items: [String] = []
    if case .rank(let named) = request.kind { (mode, items) = (.rank, named) }
    let tasks = (0..<catalogue.shards).map { shard in
      ShardTask(
        shard: ShardID(shard), excludedOrdinals: Array(history[ShardID(shard)]), excludedIDs: request.exclude,
        items: items.filter { ShardID.owner(of: $0, shards: catalogue.shards).index == shard })
    }
    return ScoreRequest(
      query: ScoreQuery(
        release: release.id, mode: mode, vector: vector, k: request.k, candidates: request.candidatesAsked,
        minScore: request.minScore), tasks: tasks)
  }
}
