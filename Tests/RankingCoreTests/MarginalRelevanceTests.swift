import RankingCore
import Testing

@Suite struct MarginalRelevanceTests {
  private func order(_ lambda: Double, _ items: [(score: Float, vector: [Float])], k: Int) -> [Int] {
    let dimension = items[0].vector.count
    return MarginalRelevance(lambda: lambda).order(scores: items.map(\.score), k: k, dimension: dimension) {
      items[$0].vector[...]
    }
  }

  /// a and b point the same way, c another: 10, 9, 5 are relevance 1, 0.8, 0.
  @Test func theSecondOfAKindWaits() {
    let items: [(Float, [Float])] = [(10, [1, 0]), (9, [2, 0]), (5, [0, 1])]
    // b: 0.5 · 0.8 − 0.5 · 1 = −0.1, c: 0.5 · 0 − 0.5 · 0 = 0
    #expect(order(0.5, items, k: 3) == [0, 2, 1])
    // b: 0.6 · 0.8 − 0.4 · 1 = 0.08
    #expect(order(0.6, items, k: 3) == [0, 1, 2])
    #expect(order(1, items, k: 3) == [0, 1, 2])
    #expect(order(0, items, k: 2) == [0, 2])
  }

  @Test func edges() {
    #expect(
      order(0.3, [(1, [0, 0]), (1, [0, 0]), (1, [1, 1])], k: 5) == [0, 1, 2], "a vector of zeros is like nothing")
    #expect(order(0.3, [(2, [1, 1])], k: 1) == [0])
    #expect(MarginalRelevance(lambda: 0.5).order(scores: [], k: 3, dimension: 2) { _ in [] } == [])
    // An item that points the other way is less like what is taken than one at right angles.
    #expect(order(0, [(3, [1, 0]), (2, [0, 1]), (1, [-1, 0])], k: 3) == [0, 2, 1])
  }

  @Test func whatCostsTooMuchIsRefused() throws {
    try MarginalRelevance(lambda: 0.5, pool: 500).check(k: 20, dimension: 1024)
    let error = #expect(throws: RankingError.self) {
      try MarginalRelevance(lambda: 0.5, pool: 500).check(k: 100, dimension: 1024)
    }
    #expect(error?.message.contains("500 × 100 × 1024 multiplications; allowed: 16777216") == true)
  }
}
