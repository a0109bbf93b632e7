import ClusterHarness
import Testing

@Suite struct BalancedPlacementTests {
  static let sizes: [(shards: Int, workers: Int, replicas: Int)] = (1...8).flatMap { workers in
    (1...min(3, workers)).flatMap { replicas in
      [1, 2, 7, 15, 16, 17, 64].map { ($0, workers, replicas) }
    }
  }

  @Test(arguments: sizes)
  func everyShardIsOnDifferentWorkersAndLoadsAreEven(size: (shards: Int, workers: Int, replicas: Int)) {
    let holdings = BalancedPlacement.holdings(shards: size.shards, workers: size.workers, replicas: size.replicas)
    #expect(holdings.count == size.workers)
    for shard in 0..<size.shards {
      #expect(holdings.filter { $0.contains(shard) }.count == size.replicas)
    }
    #expect(holdings.allSatisfy { Set($0).count == $0.count && $0.sorted() == $0 })
    let loads = holdings.map(\.count)
    #expect((loads.max() ?? 0) - (loads.min() ?? 0) <= 1, "\(loads)")
  }

  @Test(arguments: sizes.filter { $0.replicas == 2 && $0.workers > 2 })
  func aLostWorkersShardsAreSpreadOverAllTheOthers(size: (shards: Int, workers: Int, replicas: Int)) {
    let holdings = BalancedPlacement.holdings(shards: size.shards, workers: size.workers, replicas: 2)
    for lost in holdings.indices {
      let taken = holdings.indices.filter { $0 != lost }.map { other in
        holdings[lost].filter(holdings[other].contains).count
      }
      #expect((taken.max() ?? 0) - (taken.min() ?? 0) <= 2, "w\(lost + 1) of \(size): \(taken)")
    }
  }

  @Test func theDemosClusterIsEven() {
    let holdings = BalancedPlacement.holdings(shards: 16, workers: 4, replicas: 2)
    #expect(holdings.map(\.count) == [8, 8, 8, 8])
    for lost in 0..<4 {
      let taken = (0..<4).filter { $0 != lost }.map { other in holdings[lost].filter(holdings[other].contains).count }
      #expect(taken.sorted() == [2, 3, 3])
    }
  }
}
