import RankingCore
import Testing

@testable import Training

@Suite struct ALSTests {
  static let interactions: Interactions = {
    var generator = SeededGenerator(seed: 5)
    var user: [UInt32] = []
    var item: [UInt32] = []
    for u in 0..<60 {
      for i in 0..<40 where generator.below(100) < (u % 2 == i % 2 ? 40 : 3) {
        user.append(UInt32(u))
        item.append(UInt32(i))
      }
    }
    return Interactions(
      users: (0..<60).map { "u\($0)" }, items: (0..<40).map { "i\($0)" }, user: user, item: item,
      weight: user.map { _ in 1 })
  }()

  func options(threads: Int) -> ALSOptions {
    var options = ALSOptions()
    options.factors = 8
    options.iterations = 8
    options.regularization = 1
    options.alpha = 5
    options.threads = threads
    return options
  }

  @Test func theSameBitsForEveryThreadCount() {
    let one = ALSTrainer(options(threads: 1)).train(Self.interactions)
    for threads in 2...3 {
      let more = ALSTrainer(options(threads: threads)).train(Self.interactions)
      #expect(more.users.map(\.bitPattern) == one.users.map(\.bitPattern))
      #expect(more.items.map(\.bitPattern) == one.items.map(\.bitPattern))
    }
    var other = options(threads: 1)
    other.seed = 2
    #expect(ALSTrainer(other).train(Self.interactions).users != one.users)
  }

  /// After many steps of conjugate gradient the last half-step is the exact solution of its linear system.
  @Test func theNormalEquationsHold() {
    var options = options(threads: 1)
    options.conjugateGradientSteps = 50
    let factors = ALSTrainer(options).train(Self.interactions)
    let d = options.factors
    let byItem = Self.interactions.byUser.transposed(columnCount: 40)
    func user(_ row: Int) -> [Double] { (0..<d).map { Double(factors.users[row * d + $0]) } }
    for item in 0..<40 {
      let x = (0..<d).map { Double(factors.items[item * d + $0]) }
      var residual = x.map { $0 * Double(options.regularization) }
      func add(_ y: [Double], _ weight: Double) { for k in 0..<d { residual[k] += weight * y[k] } }
      func dot(_ y: [Double]) -> Double { zip(x, y).reduce(0) { $0 + $1.0 * $1.1 } }
      for row in 0..<60 { add(user(row), dot(user(row))) }
      for index in byItem[item] {
        let y = user(Int(byItem.columns[index]))
        add(y, Double(options.alpha) * dot(y) - (1 + Double(options.alpha)))
      }
      #expect(residual.allSatisfy { abs($0) < 2e-3 }, "item \(item): \(residual)")
    }
  }

  @Test func equalPairsAreOneEntryWithTheSumOfTheirWeights() {
    let rows = SparseRows(rows: 3, row: [2, 0, 2, 2], column: [1, 4, 1, 0], weight: [1, 2, 3, 5])
    #expect(rows.starts == [0, 1, 1, 3])
    #expect(rows.columns == [4, 0, 1])
    #expect(rows.weights == [2, 5, 4])
    #expect(rows.transposed(columnCount: 5).columns == [2, 2, 0])
  }
}

@Suite struct EvaluationTests {
  /// Three items scored 3, 2, 1 for everybody.
  let factors = Factors(
    dimension: 1, userIDs: ["a", "b"], itemIDs: ["x", "y", "z"], users: [1, 1], items: [3, 2, 1])

  @Test func figuresOfAHandMadeCase() {
    // a has seen x: the list is y z, z is relevant at rank 2. b: x y z, relevant x and an unknown item.
    let report = Evaluation.run(
      factors: factors, train: [("a", "x")], test: [("a", "z"), ("b", "x"), ("b", "ghost"), ("nobody", "x")], k: 2,
      keepSeen: false, threads: 2)
    #expect(report.users == 2 && report.unknownUsers == 1 && report.unknownItemPairs == 1)
    #expect(report.model.recall == (1.0 / 1 + 1.0 / 2) / 2)
    #expect(report.model.hitRate == 1)
    let second = 1 / 1.584962500721156
    #expect(abs(report.model.ndcg - (second + 1 / (1 + second)) / 2) < 1e-12)
  }

  @Test func seenPairsAreNotRelevantUnlessKept() {
    let pairs = [(user: "a", item: "x")]
    #expect(Evaluation.run(factors: factors, train: pairs, test: pairs, k: 2, keepSeen: false, threads: 1).users == 0)
    let kept = Evaluation.run(factors: factors, train: pairs, test: pairs, k: 2, keepSeen: true, threads: 1)
    #expect(kept.model.recall == 1)
  }
}
