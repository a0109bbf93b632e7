import RankingCore
import Testing

@Suite struct StableHashTests {
  @Test(arguments: [
    ("", UInt64(0), UInt64(0xEF46_DB37_51D8_E999)), ("a", 0, 0xD24E_C4F1_A98C_6E5B),
    ("abc", 0, 0x44BC_2CF5_AD77_0999),
    ("Nobody inspects the spammish repetition", 0, 0xFBCE_A83C_8A37_8BF1),
  ])
  func publishedVectors(text: String, seed: UInt64, expected: UInt64) {
    #expect(StableHash.xxh64(text, seed: seed) == expected)
  }
}

@Suite struct TopKTests {
  @Test(arguments: UInt64(1)...10)
  func equalsSortingWhateverTheOrderOfOffering(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var items = (0..<500).map { ScoredItem(score: Float(generator.below(20)), ordinal: ItemOrdinal($0)) }
    let sorted = items.sorted { $0.precedes($1) }
    items.shuffle(using: &generator)
    for k in [1, 2, 20, 499, 500, 700] {
      var top = TopK(k: k)
      for item in items { top.offer(item) }
      #expect(top.sorted() == Array(sorted.prefix(k)))
    }
  }
}

@Suite struct InstantTests {
  @Test func saturatesAtBothEnds() {
    #expect(Instant(nanoseconds: 5) + .nanoseconds(-9) == Instant(nanoseconds: 0))
    #expect(Instant(nanoseconds: .max) + .seconds(1) == Instant(nanoseconds: .max))
    #expect(Instant(nanoseconds: 1) - Instant(nanoseconds: 4) == .nanoseconds(-3))
  }
}

@Suite struct GeneratorTests {
  @Test func isSplitMix64() {
    var generator = SeededGenerator(seed: 0)
    #expect(generator.next() == 0xE220_A839_7B1D_CDAF)
    #expect(generator.next() == 0x6E78_9E6A_A1B9_65F4)
  }
}

@Suite struct ScoredListTests {
  @Test func disorderNaNAndUnevenColumnsAreSeen() {
    func list(_ items: (Float, UInt64)...) -> ScoredList {
      var list = ScoredList()
      for (score, ordinal) in items {
        list.append(
          ScoredItem(score: score, ordinal: ItemOrdinal(rawValue: ordinal)),
          id: UnsafeRawBufferPointer(start: nil, count: 0))
      }
      return list
    }
    #expect(list().isWellFormed)
    #expect(list((2, 1), (1, 0), (1, 5)).isWellFormed)
    #expect(!list((1, 0), (2, 1)).isWellFormed)
    #expect(!list((1, 5), (1, 5)).isWellFormed)
    #expect(!list((.nan, 1)).isWellFormed)
    var uneven = list((1, 1))
    uneven.scores.append(0)
    #expect(!uneven.isWellFormed)
  }
}

@Suite struct RecentItemsTests {
  @Test func weightsCountFromTheNewest() {
    #expect(RecentItems.query([[1, 0], [0, 1], [2, 2]], dimension: 2) == [0.85 * 0.85 + 2, 0.85 + 2])
  }
}
