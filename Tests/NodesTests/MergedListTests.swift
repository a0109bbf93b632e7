import RankingCore
import Testing

@testable import Routing

@Suite struct MergedListTests {
  func list(_ items: [(Float, Int)]) -> ScoredList {
    var list = ScoredList()
    for (score, ordinal) in items {
      let item = ScoredItem(score: score, ordinal: ItemOrdinal(ordinal))
      Array("i\(ordinal)".utf8).withUnsafeBytes { list.append(item, id: $0) }
    }
    return list
  }
  func joined(_ lists: [ScoredList], limit: Int) -> [ScoredItem] {
    var merged = MergedList(limit: limit)
    for list in lists { merged.join(list) }
    for entry in merged.entries {
      #expect(merged.lists[Int(entry.list)].ids[Int(entry.position)] == "i\(entry.item.ordinal.rawValue)")
    }
    return merged.entries.map(\.item)
  }

  @Test func theExampleOfItsOpeningComment() {
    let items = joined([list([(9, 1), (5, 2)]), list([(7, 3), (5, 2), (1, 4)])], limit: 10)
    #expect(items.map(\.ordinal.rawValue) == [1, 3, 2, 4])
  }

  /// A hedge and its leg say the same of the same item: whichever came first speaks.
  @Test func explanationsStayWithTheirItems() throws {
    func explained(_ items: [(Float, Int)]) -> ScoredList {
      var list = list(items)
      list.explanations = Explanations(
        items: items.count, retrieval: items.map(\.0), raw: items.map { Double($0.0) }, outputs: [],
        contributions: items.flatMap { [Double($0.1), 0, 0] })
      return list
    }
    let lists = [explained([(9, 1), (5, 2)]), explained([(7, 3), (5, 2), (1, 4)]), explained([(9, 1), (5, 2)])]
    for lists in [lists, lists.reversed()] {
      var merged = MergedList(limit: 3)
      for list in lists { merged.join(list) }
      #expect(merged.entries.map(\.item.ordinal.rawValue) == [1, 3, 2])
      for entry in merged.entries {
        let explanations = try #require(merged.lists[Int(entry.list)].explanations)
        #expect(explanations.contributions[3 * Int(entry.position)] == Double(entry.item.ordinal.rawValue))
        #expect(explanations.retrieval[Int(entry.position)] == entry.item.score)
      }
    }
  }

  /// Capped lists, joined in any order and capped again, are the capped list of all items.
  @Test(arguments: UInt64(1)...20)
  func cappingLosesNothing(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let (most, limit) = (1 + generator.below(3), 1 + generator.below(15))
    let groups = (0..<60).map { _ in generator.below(6) == 0 ? Float.nan : Float(generator.below(5)) }
    func capped(_ items: [ScoredItem]) -> [ScoredItem] {
      var counts = GroupCounts(max: most)
      return Array(
        items.sorted { $0.precedes($1) }.filter { counts.takes(groups[Int($0.ordinal.rawValue)]) }.prefix(limit))
    }
    let all = (0..<60).map { ScoredItem(score: Float(generator.below(9)), ordinal: ItemOrdinal($0)) }
    let shards = (0..<4).map { shard in all.filter { $0.ordinal.rawValue % 4 == shard } }
    var lists = shards.map { shard -> ScoredList in
      var list = list(capped(shard).map { ($0.score, Int($0.ordinal.rawValue)) })
      list.groups = list.ordinals.map { groups[Int($0)] }
      return list
    }
    for _ in 0..<3 {
      lists.shuffle(using: &generator)
      var merged = MergedList(limit: .max)
      for list in lists + [lists[0]] { merged.join(list) }
      merged.cap(GroupCap(column: 0, max: most), limit: limit)
      #expect(merged.entries.map(\.item) == capped(all))
    }
  }

  @Test(arguments: UInt64(1)...20)
  func joiningIsCommutativeAssociativeAndIdempotent(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let pool = (0..<40).map { ScoredItem(score: Float(generator.below(6)), ordinal: ItemOrdinal($0)) }
    let lists = (0..<4).map { _ in
      list(
        pool.filter { _ in generator.below(3) == 0 }.sorted { $0.precedes($1) }
          .map { ($0.score, Int($0.ordinal.rawValue)) })
    }
    let everything = Set(lists.flatMap { list in (0..<list.count).map { list[$0] } }).sorted { $0.precedes($1) }
    for limit in [1, 7, 100] {
      let expected = Array(everything.prefix(limit))
      #expect(joined(lists, limit: limit) == expected)
      #expect(joined(lists.reversed(), limit: limit) == expected)
      #expect(joined(lists + lists, limit: limit) == expected)
    }
  }
}
