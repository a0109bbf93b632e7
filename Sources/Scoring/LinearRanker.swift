import RankingCore

// A weighted sum:
//
//     score = Float( ((intercept + w₁·x₁) + w₂·x₂) + … )        terms in the order of the file
//
// in float64, each product and each sum rounded by itself (no fused multiply-add), rounded once to float32 at the end,
// −0 to +0. A NaN input is replaced by the term's `missing`. A result that is NaN, or infinite in float32, is no score:
// the item is dropped and counted.

public struct LinearRanker: Sendable {
  public struct Term: Sendable, Equatable {
    public var source: FeatureSource
    public var weight: Double
    /// Stands in for an input that is missing (NaN).
    public var missing: Double
    public init(_ source: FeatureSource, weight: Double, missing: Double = 0) {
      self.source = source
      self.weight = weight
      self.missing = missing
    }
  }

  public let intercept: Double
  public let terms: [Term]
  public let itemColumns: Int
  public let userColumns: Int
  public let contextColumns: Int

  /// - Parameters: the column counts of the schema the terms were bound to.
  /// - Throws: when a number is not finite or a term points past its columns; says which term.
  public init(
    intercept: Double, terms: [Term], itemColumns: Int, userColumns: Int, contextColumns: Int
  ) throws(RankerError) {
    guard intercept.isFinite else { throw RankerError("linear ranker: intercept \(intercept) is not a finite number") }
    for (index, term) in terms.enumerated() {
      guard term.weight.isFinite, term.missing.isFinite else {
        throw RankerError(
          "linear ranker: term \(index): weight \(term.weight) and missing \(term.missing) must be finite numbers")
      }
      if let fault = term.source.fault(
        itemColumns: itemColumns, userColumns: userColumns, contextColumns: contextColumns)
      {
        throw RankerError("linear ranker: term \(index): \(fault)")
      }
    }
    self.intercept = intercept
    self.terms = terms
    self.itemColumns = itemColumns
    self.userColumns = userColumns
    self.contextColumns = contextColumns
  }

  /// Adds the terms up for each candidate, one pass per term.
  ///
  /// - Parameter sums: their unrounded scores, out.
  func sum(count: Int, candidates: CandidateFeatures, sums: UnsafeMutablePointer<Double>) {
    let (rows, retrieval, slice, query) = (
      candidates.rows, candidates.retrieval, candidates.slice, candidates.query
    )
    for index in 0..<count { sums[index] = intercept }
    for term in terms {
      let weight = term.weight
      let missing = term.missing
      @inline(__always)
      func product(_ input: Float) -> Double { weight * (input.isNaN ? missing : Double(input)) }
      switch term.source {
      case .retrievalScore:
        for index in 0..<count { sums[index] = sums[index] + product(retrieval[index]) }
      case .item(let column):
        guard let values = slice.columns[column].values.baseAddress else { continue }
        for index in 0..<count { sums[index] = sums[index] + product(values[Int(rows[index])]) }
      case .user(let column):
        let constant = product(query.userValues[column])
        for index in 0..<count { sums[index] = sums[index] + constant }
      case .context(let column):
        let constant = product(query.contextValues[column])
        for index in 0..<count { sums[index] = sums[index] + constant }
      case .recent(let feature):
        guard let values = candidates.recent.map({ $0 + feature.rawValue * candidates.recentCount }) else { continue }
        for index in 0..<count { sums[index] = sums[index] + product(values[index]) }
      }
    }
  }
}
