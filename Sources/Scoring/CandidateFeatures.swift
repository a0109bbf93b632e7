import RankingCore

/// A block of candidates, feature by feature: what rankers read.
struct CandidateFeatures {
  /// Their rows in `slice`.
  var rows: UnsafePointer<UInt32>
  /// Their retrieval scores.
  var retrieval: UnsafePointer<Float>
  var slice: Slice
  var query: ScoreQuery
  /// Columns of `recentCount` values each; there where the ranker looks at recent items.
  var recent: UnsafePointer<Float>?
  var recentCount = 0

  /// Writes the feature's values of `count` candidates from `start` on; NaN = missing.
  @inline(__always)
  func read(_ source: FeatureSource, from start: Int, count: Int, into values: UnsafeMutablePointer<Float>) {
    switch source {
    case .retrievalScore: values.update(from: retrieval + start, count: count)
    case .item(let column):
      guard let column = slice.columns[column].values.baseAddress else { return }
      for index in 0..<count { values[index] = column[Int(rows[start + index])] }
    case .user(let column): values.update(repeating: query.userValues[column], count: count)
    case .context(let column): values.update(repeating: query.contextValues[column], count: count)
    case .recent(let feature):
      guard let recent else { return }
      values.update(from: recent + feature.rawValue * recentCount + start, count: count)
    }
  }
}
