import CScoring
import Foundation
import RankingCore

// Recall@k, NDCG@k and HR@k over a held-out set of (user, item) pairs: the whole catalogue ranked for every user with
// at least one relevant item, training items left out unless asked otherwise.
//
//     Recall = hits ÷ relevant    NDCG = Σ_hits 1/log2(rank+1) ÷ the best possible over min(k, relevant)    HR = a hit
//
// Beside the model stand two answers that know nothing of the user: the most popular items, and the cold-start vector
// that an unknown user gets.

public struct RankingMetrics: Sendable, Equatable {
  public var recall = 0.0
  public var ndcg = 0.0
  public var hitRate = 0.0
}

public struct EvaluationReport: Sendable {
  public var k: Int
  /// Users with at least one relevant item that the model knows.
  public var users: Int
  /// Users of the test file that the factors do not know: not in the means.
  public var unknownUsers: Int
  /// Relevant pairs whose item the factors do not know: they count as not found.
  public var unknownItemPairs: Int
  public var model: RankingMetrics
  public var popularity: RankingMetrics
  public var coldStart: RankingMetrics
}

public enum Evaluation {
  /// - Parameters:
  ///   - train: pairs to leave out (and to count popularity from), by user id.
  ///   - test: the relevant pairs, by user id; ids the factors do not know stay in the denominators. Unless `keepSeen`,
  ///     pairs of `train` are not relevant: what is left out of the ranking cannot be found in it.
  public static func run(
    factors: Factors, train: [(user: String, item: String)], test: [(user: String, item: String)], k: Int,
    keepSeen: Bool, threads: Int
  ) -> EvaluationReport {
    let userRows = Dictionary(uniqueKeysWithValues: zip(factors.userIDs, 0...))
    let itemRows = Dictionary(uniqueKeysWithValues: zip(factors.itemIDs, 0...))
    var seen = [Set<Int>](repeating: [], count: factors.userIDs.count)
    for pair in train {
      guard let user = userRows[pair.user], let item = itemRows[pair.item] else { continue }
      seen[user].insert(item)
    }
    var popularity = [Float](repeating: 0, count: factors.itemIDs.count)
    for items in seen { for item in items { popularity[item] += 1 } }

    // A user all of whose test pairs were seen has nothing relevant and is not in the means.
    var relevant: [Int: Set<Int>] = [:]
    var unknownItems: [Int: Set<String>] = [:]
    var unknownUsers = Set<String>()
    for pair in test {
      guard let user = userRows[pair.user] else {
        unknownUsers.insert(pair.user)
        continue
      }
      if let item = itemRows[pair.item] {
        if !keepSeen, seen[user].contains(item) { continue }
        relevant[user, default: []].insert(item)
      } else {
        relevant[user, default: []] = relevant[user, default: []]
        unknownItems[user, default: []].insert(pair.item)
      }
    }
    let users = relevant.keys.sorted()
    let cases = users.map { user in
      Case(
        user: user, relevant: relevant[user]!, count: relevant[user]!.count + (unknownItems[user]?.count ?? 0),
        masked: keepSeen ? [] : seen[user])
    }
    let cold = scores(of: factors.coldStart, factors)
    return EvaluationReport(
      k: k, users: users.count, unknownUsers: unknownUsers.count,
      unknownItemPairs: unknownItems.values.reduce(0) { $0 + $1.count },
      model: model(factors, cases, k: k, threads: threads),
      popularity: same(popularity, cases, k: k, threads: threads), coldStart: same(cold, cases, k: k, threads: threads))
  }

  struct Case: Sendable {
    var user: Int
    var relevant: Set<Int>
    /// Relevant items, the unknown ones included.
    var count: Int
    var masked: Set<Int>
  }

  /// One user's figures from the k best items, best first.
  static func metrics(_ best: [Int], relevant: Set<Int>, count: Int, k: Int) -> RankingMetrics {
    var hits = 0
    var gain = 0.0
    for (rank, item) in best.enumerated() where relevant.contains(item) {
      hits += 1
      gain += 1 / log2(Double(rank + 2))
    }
    let ideal = (0..<min(k, count)).reduce(0.0) { $0 + 1 / log2(Double($1 + 2)) }
    return RankingMetrics(recall: Double(hits) / Double(count), ndcg: gain / ideal, hitRate: hits > 0 ? 1 : 0)
  }

  private static func best(_ scores: UnsafeBufferPointer<Float>, masked: Set<Int>, k: Int) -> [Int] {
    var top = TopK(k: k)
    for index in scores.indices where scores[index] >= top.threshold && !masked.contains(index) {
      top.offer(ScoredItem(score: scores[index], ordinal: ItemOrdinal(index)))
    }
    return top.sorted().map { Int($0.ordinal.rawValue) }
  }

  private static func mean(_ all: [RankingMetrics]) -> RankingMetrics {
    let sum = all.reduce(into: RankingMetrics()) {
      $0.recall += $1.recall
      $0.ndcg += $1.ndcg
      $0.hitRate += $1.hitRate
    }
    let count = Double(max(1, all.count))
    return RankingMetrics(recall: sum.recall / count, ndcg: sum.ndcg / count, hitRate: sum.hitRate / count)
  }

  private static func same(_ scores: [Float], _ cases: [Case], k: Int, threads: Int) -> RankingMetrics {
    var all = [RankingMetrics](repeating: RankingMetrics(), count: cases.count)
    all.withUnsafeMutableBufferPointer { all in
      let all = Shared(all)
      scores.withUnsafeBufferPointer { scores in
        let scores = Shared(scores)
        Parallel.forEach(cases.count, threads: threads) { index in
          let test = cases[index]
          all.pointer[index] = metrics(
            best(scores.pointer, masked: test.masked, k: k), relevant: test.relevant, count: test.count, k: k)
        }
      }
    }
    return mean(all)
  }

  /// Items in blocks of 16, transposed, as the kernel wants them; the last block is padded with zeros.
  private static func transposed(_ factors: Factors) -> [Float] {
    let d = factors.dimension
    let blocks = (factors.itemIDs.count + 15) / 16
    var out = [Float](repeating: 0, count: blocks * 16 * d)
    for item in factors.itemIDs.indices {
      for k in 0..<d { out[(item / 16 * d + k) * 16 + item % 16] = factors.items[item * d + k] }
    }
    return out
  }

  private static func scores(of vector: [Float], _ factors: Factors) -> [Float] {
    let d = factors.dimension
    return factors.itemIDs.indices.map { item in
      (0..<d).reduce(Float(0)) { $0 + vector[$1] * factors.items[item * d + $1] }
    }
  }

  private static func model(_ factors: Factors, _ cases: [Case], k: Int, threads: Int) -> RankingMetrics {
    let d = factors.dimension
    let blocks = (factors.itemIDs.count + 15) / 16
    var all = [RankingMetrics](repeating: RankingMetrics(), count: cases.count)
    all.withUnsafeMutableBufferPointer { all in
      let all = Shared(all)
      transposed(factors).withUnsafeBufferPointer { items in
        let items = Shared(items)
        Parallel.forEach((cases.count + 7) / 8, threads: threads) { group in
          let members = group * 8..<min(cases.count, group * 8 + 8)
          var users = [Float](repeating: 0, count: 8 * d)
          for (slot, index) in members.enumerated() {
            for k in 0..<d { users[slot * d + k] = factors.users[cases[index].user * d + k] }
          }
          let scores = UnsafeMutableBufferPointer<Float>.allocate(capacity: 8 * blocks * 16)
          defer { scores.deallocate() }
          cscoring_scores8(users, items.pointer.baseAddress!, blocks, d, scores.baseAddress!, blocks * 16)
          for (slot, index) in members.enumerated() {
            let row = UnsafeBufferPointer(
              rebasing: scores[slot * blocks * 16..<slot * blocks * 16 + factors.itemIDs.count])
            let test = cases[index]
            all.pointer[index] = metrics(
              best(row, masked: test.masked, k: k), relevant: test.relevant, count: test.count, k: k)
          }
        }
      }
    }
    return mean(all)
  }
}
