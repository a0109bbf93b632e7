// The global phase: what re-ranks the merged list of an answer, at the coordinator, by what only the whole list shows.
//
//     legs ──► merged, capped, the best `pool` ──► list ranker: new scores, new order ──► mmr, where asked ──► best k
//
// The list is a pure function of version, request, R and covered shards, and so is what is made of it.

/// A merged list as a list ranker sees it.
public struct MergedItems: Sendable {
  /// Best first.
  public var scores: [Float]
  /// Item after item, the columns that the ranker asks for; NaN = missing.
  public var values: [Float]
  /// One per user column and per context column of the release; NaN = missing.
  public var userValues: [Float]
  public var contextValues: [Float]
  public init(scores: [Float], values: [Float], userValues: [Float], contextValues: [Float]) {
    self.scores = scores
    self.values = values
    self.userValues = userValues
    self.contextValues = contextValues
  }
}

public protocol ListRanker: AnyObject, Sendable {
  /// How many items it is shown, at least as many as the answer has.
  var pool: Int { get }
  /// The item columns whose values it needs.
  var columns: [Int] { get }
  /// One score per item; one that is not finite drops its item.
  func scores(of list: MergedItems) -> [Float]
}

public enum ListRanking {
  public static let poolDefault = 100
  public static let poolRange = 1...1000
}
