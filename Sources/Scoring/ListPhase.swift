import RankingCore

// A list ranker as teams train them: linear, or trees, over what an item is and where it stands in the list.
//
//     list.rank     0, 1, 2 …                            list.share.COLUMN  the share of the list's items with the
//     list.score    the score so far                                        item's value; NaN where it has none
//     list.gap      the first item's score less its own  item.* user.* context.*  as everywhere
//
// Linear terms are added in float64 in the order of the file, rounded once; trees as their library adds them.

public final class ListPhase: ListRanker {
  public enum Source: Sendable, Equatable {
    case rank
    case score
    case gap
    /// Places in `columns`.
    case share(Int)
    case item(Int)
    /// Places among the release's columns.
    case user(Int)
    case context(Int)
  }
  public struct Term: Sendable {
    public var source: Source
    public var weight: Double
    public var missing: Double
    public init(_ source: Source, weight: Double, missing: Double) {
      self.source = source
      self.weight = weight
      self.missing = missing
    }
  }
  public enum Model: Sendable {
    case linear(intercept: Double, [Term])
    /// With the source of each of its features.
    case trees(TreeEnsemble, [Source])
  }
  /// Trees times items: some milliseconds of a coordinator's loop.
  public static let workMax = 20_000

  public let pool: Int
  public let columns: [Int]
  private let model: Model

  /// - Parameter columns: the item columns that sources of kind `share` and `item` point into.
  /// - Throws: when it would hold up a coordinator for too long.
  public init(_ model: Model, columns: [Int], pool: Int) throws(RankerError) {
    if case .trees(let trees, _) = model, trees.trees.count * pool > Self.workMax {
      throw RankerError(
        "\(trees.trees.count) trees for each of \(pool) items; allowed for a whole list: \(Self.workMax) in all")
    }
    self.model = model
    self.columns = columns
    self.pool = pool
  }

  public func scores(of list: MergedItems) -> [Float] {
    let count = list.scores.count
    switch model {
    case .linear(let intercept, let terms):
      var sums = [Double](repeating: intercept, count: count)
      for term in terms {
        for (index, value) in values(term.source, list).enumerated() {
          sums[index] += term.weight * (value.isNaN ? term.missing : Double(value))
        }
      }
      return sums.map { Float($0) + 0 }
    case .trees(let trees, let sources):
      let columns = sources.map { values($0, list) }
      var row = [Float](repeating: .nan, count: columns.count)
      return (0..<count).map { index in
        for place in columns.indices { row[place] = columns[place][index] }
        return trees.score(row) ?? .nan
      }
    }
  }

  /// A feature of every item.
  private func values(_ source: Source, _ list: MergedItems) -> [Float] {
    let (count, width) = (list.scores.count, columns.count)
    switch source {
    case .rank: return (0..<count).map { Float($0) }
    case .score: return list.scores
    case .gap: return list.scores.map { list.scores[0] - $0 }
    case .item(let place): return (0..<count).map { list.values[$0 * width + place] }
    case .share(let place):
      var counts: [UInt32: Int] = [:]
      let groups = (0..<count).map { list.values[$0 * width + place] }
      // −0 is 0.
      for group in groups where !group.isNaN { counts[(group + 0).bitPattern, default: 0] += 1 }
      return groups.map { $0.isNaN ? .nan : Float(counts[($0 + 0).bitPattern] ?? 0) / Float(count) }
    case .user(let column): return [Float](repeating: list.userValues[column], count: count)
    case .context(let column): return [Float](repeating: list.contextValues[column], count: count)
    }
  }
}
