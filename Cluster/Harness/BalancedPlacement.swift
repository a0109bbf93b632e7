// Which worker of a local cluster holds which shards, when all workers are alike and known beforehand.
//
//   6 shards, 4 workers, 2 replicas      w1  0  2  4        w1 shares one shard with each of w2, w3, w4:
//                                        w2  0  3  5        when w1 dies, each of them takes over one,
//                                        w3  1  2  5        not one of them all three.
//                                        w4  1  3  4
//
// One shard at a time takes the least loaded workers, which alone keeps the loads within one of each other. Then two
// shards at a time exchange a worker for as long as that evens out who shares how many shards with whom; an exchange
// changes no load. A cluster whose members come and go uses rendezvous hashing instead; this one is about balance.

/// Balanced placement of shards over workers.
public struct BalancedPlacement {
  /// The workers of each shard.
  private var workersOfShard: [[Int]] = []
  /// How many shards two workers have in common, as a square matrix.
  private var shared: [Int]
  private let workers: Int

  /// The shards of each worker, ascending: every shard on `replicas` different workers, loads that differ by at most
  /// one shard, and the shards of any one worker spread over all the others. The same arguments give the same
  /// placement.
  ///
  /// - Precondition: `shards >= 0`, `1...workers` contains `replicas`.
  public static func holdings(shards: Int, workers: Int, replicas: Int) -> [[Int]] {
    precondition(shards >= 0 && replicas >= 1 && replicas <= workers, "replicas must be in 1...workers")
    var placement = BalancedPlacement(workers: workers)
    placement.fill(shards: shards, replicas: replicas)
    if replicas > 1 { placement.even() }
    var holdings = [[Int]](repeating: [], count: workers)
    for (shard, chosen) in placement.workersOfShard.enumerated() {
      for worker in chosen { holdings[worker].append(shard) }
    }
    return holdings
  }

  private init(workers: Int) {
    self.workers = workers
    shared = [Int](repeating: 0, count: workers * workers)
  }

  private mutating func fill(shards: Int, replicas: Int) {
    var loads = [Int](repeating: 0, count: workers)
    for _ in 0..<shards {
      var chosen: [Int] = []
      for _ in 0..<replicas {
        func burden(_ worker: Int) -> (Int, Int) {
          (loads[worker], chosen.reduce(0) { $0 + shared[worker * workers + $1] })
        }
        let free = (0..<workers).filter { !chosen.contains($0) }
        guard let best = free.min(by: { burden($0) < burden($1) }) else { break }
        _ = pair(best, with: chosen, by: 1)
        chosen.append(best)
        loads[best] += 1
      }
      workersOfShard.append(chosen)
    }
  }

  /// Notes that `worker` now shares one shard more (or fewer) with each of `others`, and tells by how much the sum of
  /// the squares of what pairs share has grown: the smaller that sum, the more even the spread.
  private mutating func pair(_ worker: Int, with others: [Int], by change: Int) -> Int {
    var growth = 0
    for other in others where other != worker {
      let before = shared[worker * workers + other]
      growth += (before + change) * (before + change) - before * before
      shared[worker * workers + other] += change
      shared[other * workers + worker] += change
    }
    return growth
  }

  /// Exchanges workers between shards until no exchange makes the spread more even. It ends, because each step lowers a
  /// sum of squares.
  private mutating func even() {
    var improved = true
    while improved {
      improved = false
      for first in workersOfShard.indices {
        for second in workersOfShard.indices where second > first {
          for i in workersOfShard[first].indices {
            for j in workersOfShard[second].indices { improved = exchange(first, i, second, j) || improved }
          }
        }
      }
    }
  }

  private mutating func exchange(_ first: Int, _ i: Int, _ second: Int, _ j: Int) -> Bool {
    let (a, b) = (workersOfShard[first][i], workersOfShard[second][j])
    guard !workersOfShard[first].contains(b), !workersOfShard[second].contains(a) else { return false }
    let firstOthers = workersOfShard[first].filter { $0 != a }
    let secondOthers = workersOfShard[second].filter { $0 != b }
    var growth = pair(a, with: firstOthers, by: -1) + pair(b, with: secondOthers, by: -1)
    growth += pair(b, with: firstOthers, by: 1) + pair(a, with: secondOthers, by: 1)
    if growth < 0 {
      workersOfShard[first][i] = b
      workersOfShard[second][j] = a
      return true
    }
    _ = pair(b, with: firstOthers, by: -1)
    _ = pair(a, with: secondOthers, by: -1)
    _ = pair(a, with: firstOthers, by: 1)
    _ = pair(b, with: secondOthers, by: 1)
    return false
  }
}
