// Why items have their scores: for each item what phase 1 said, what the ranker said, and how much of that came from
// which feature.
//
//     raw = base + Σ contributions        score = the ranker's output transform of raw (sigmoid, exp, …), often none
//
// As columns, like the list whose items they explain; an item's contributions stand in the order of a layout:
//
//     base  retrieval_score  item columns …  user columns …  context columns …  recent items  ranker
//       0          1          2 …                                                             width − 1
//
// (Recent items have four places where a ranker looks at them, and else none.)
//
// Several features of a model that read one column add up to one contribution. The last place, `ranker`, takes what no
// feature can be given: the whole output of a ranker that knows no attribution. Without a ranker the retrieval score is
// all there is.
//
// Worked example, price = 3 and a retrieval score of 2, ranker 0.5 + 2 · retrieval_score − 0.1 · item.price:
//
//     contributions [0.5, 4, −0.3, 0]        raw 4.2

/// Where each number of an item's contributions stands.
public struct ContributionLayout: Sendable, Equatable {
  public let itemColumns: Int
  public let userColumns: Int
  public let contextColumns: Int
  public let hasRecent: Bool

  public init(itemColumns: Int, userColumns: Int, contextColumns: Int, hasRecent: Bool = false) {
    self.itemColumns = itemColumns
    self.userColumns = userColumns
    self.contextColumns = contextColumns
    self.hasRecent = hasRecent
  }
  public init(_ release: Release) {
    self.init(
      itemColumns: release.itemColumns.count, userColumns: release.userColumns.count,
      contextColumns: release.contextColumns.count, hasRecent: release.wantsRecent)
  }

  public static let base = 0
  public static let retrievalScore = 1
  public func item(_ column: Int) -> Int { 2 + column }
  public func user(_ column: Int) -> Int { 2 + itemColumns + column }
  public func context(_ column: Int) -> Int { 2 + itemColumns + userColumns + column }
  public func recent(_ feature: RecentFeature) -> Int { context(contextColumns) + feature.rawValue }
  public var ranker: Int { context(contextColumns) + (hasRecent ? RecentFeature.width : 0) }
  /// Numbers per item.
  public var width: Int { ranker + 1 }

  /// What the places are called in answers: as features are in models.
  public static func names(_ release: Release) -> [String] {
    ["base", "retrieval_score"] + release.itemColumns.map { "item." + $0.name }
      + release.userColumns.map { "user." + $0.name } + release.contextColumns.map { "context." + $0.name }
      + (release.wantsRecent ? RecentFeature.allCases.map(\.name) : []) + ["ranker"]
  }

  /// - Throws: `.invalidArgument` when the explanations of so many items are more numbers than an answer may hold.
  public func check(items: Int) throws(RankingError) {
    let limit = RequestLimit.explainedNumbers
    guard items * width > limit else { return }
    throw RankingError(
      .invalidArgument,
      "\"explain\" gives \(width) numbers an item here, for \(items) items more than the \(limit) of one answer; at "
        + "most \(limit / width) items can be explained at once")
  }
}

/// The explanations of a list's items: columns in the order of the items, all numbers finite. Never of an empty list.
public final class Explanations: Sendable, Equatable {
  /// The inner products of phase 1.
  public let retrieval: [Float]
  /// What an item's base and contributions add up to: the score before the ranker's output transform and its rounding.
  public let raw: [Double]
  /// Item after item, each ranker's output; none without a ranker.
  public let outputs: [Float]
  /// Item after item, as many as the layout is wide.
  public let contributions: [Double]

  /// - Returns: `nil` when these are not the columns of so many items.
  public init?(
    items: Int, retrieval: [Float], raw: [Double], outputs: [Float], contributions: [Double]
  ) {
    guard items > 0, retrieval.count == items, raw.count == items, outputs.count % items == 0,
      contributions.count % items == 0
    else { return nil }
    self.retrieval = retrieval
    self.raw = raw
    self.outputs = outputs
    self.contributions = contributions
  }

  /// Contributions per item.
  public var width: Int { contributions.count / raw.count }
  /// Outputs per item.
  public var rankers: Int { outputs.count / raw.count }

  /// What a reply from another process must satisfy before it is written out: JSON has no NaN.
  public func isWellFormed(items: Int, width: Int) -> Bool {
    raw.count == items && self.width == width && retrieval.allSatisfy(\.isFinite) && raw.allSatisfy(\.isFinite)
      && outputs.allSatisfy(\.isFinite) && contributions.allSatisfy(\.isFinite)
  }

  public static func == (a: Explanations, b: Explanations) -> Bool {
    a === b
      || a.retrieval == b.retrieval && a.raw == b.raw && a.outputs == b.outputs && a.contributions == b.contributions
  }
}
