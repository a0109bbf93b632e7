import RankingCore

// What one item's score is made of. A ranker fills an account for one item, exactly as it scored it:
//
//     none     retrieval_score = the score
//     linear   base = intercept, and each term's product goes to its column; terms in the order of the file
//     trees    TreeAttribution.swift
//     mlp      the output, whole, as `ranker`: no column can be given a share
//     several  each one's account, times its weight
//
// It is for the few items of an answer, and takes its time.

/// The item that a ranker is asked about.
struct ExplainedItem {
  var row: Int
  var retrieval: Float
  var slice: Slice
  var query: ScoreQuery
  /// One per `RecentFeature`, where the ranker looks at them.
  var recent: [Float] = []

  func value(_ source: FeatureSource) -> Float {
    switch source {
    case .retrievalScore: retrieval
    case .item(let column): slice.columns[column].values[row]
    case .user(let column): query.userValues[column]
    case .context(let column): query.contextValues[column]
    case .recent(let feature): recent[feature.rawValue]
    }
  }
}

/// One item's explanation in the making.
package struct ItemAccount {
  package let layout: ContributionLayout
  /// `layout.width` numbers, all 0 at first.
  let places: UnsafeMutablePointer<Double>
  package var raw = 0.0
  package var outputs: [Float] = []

  package init(_ layout: ContributionLayout, places: UnsafeMutablePointer<Double>) {
    self.layout = layout
    self.places = places
  }

  /// Of a ranker that has a score and no more to say.
  mutating func whole(_ output: Float) {
    raw = Double(output)
    outputs.append(output)
    places[layout.ranker] = raw
  }

  /// Contributions that are no numbers (terms near the end of float64 that cancel out) give way to the sum they make.
  mutating func settle() {
    raw = min(.greatestFiniteMagnitude, max(-.greatestFiniteMagnitude, raw))
    guard !(0..<layout.width).allSatisfy({ places[$0].isFinite }) else { return }
    places.update(repeating: 0, count: layout.width)
    places[layout.ranker] = raw
  }
}

extension Ranker {
  /// Fills the account of an item that has a score.
  func explain(_ item: ExplainedItem, memory: inout RankerMemory, into account: inout ItemAccount) {
    switch self {
    case .none:
      account.raw = Double(item.retrieval)
      account.places[ContributionLayout.retrievalScore] = account.raw
    case .linear(let ranker): ranker.explain(item, into: &account)
    case .trees(let ranker):
      ranker.explain(memory: &memory.trees, into: &account) { item.value(ranker.sources[$0]) }
    case .mlp: account.whole(output(of: item, memory: &memory))
    case .ensemble(let ensemble): ensemble.explain(item, memory: &memory, into: &account)
    }
    account.settle()
  }

  private func output(of item: ExplainedItem, memory: inout RankerMemory) -> Float {
    var (row, retrieval, score) = (UInt32(item.row), item.retrieval, Float(0))
    withUnsafePointer(to: &row) { row in
      withUnsafePointer(to: &retrieval) { retrieval in
        item.recent.withUnsafeBufferPointer { recent in
          self.score(
            count: 1,
            candidates: CandidateFeatures(
              rows: row, retrieval: retrieval, slice: item.slice, query: item.query, recent: recent.baseAddress,
              recentCount: 1),
            memory: &memory, scores: &score)
        }
      }
    }
    return score
  }
}

extension RankerEnsemble {
  /// Each member's account, times its weight. One whose output is not what its features add up to (a sigmoid of it,
  /// say) says no more than the output.
  func explain(_ item: ExplainedItem, memory: inout RankerMemory, into account: inout ItemAccount) {
    let width = account.layout.width
    let places = UnsafeMutablePointer<Double>.allocate(capacity: width)
    defer { places.deallocate() }
    for member in members {
      places.initialize(repeating: 0, count: width)
      var part = ItemAccount(account.layout, places: places)
      member.ranker.explain(item, memory: &memory, into: &part)
      let output = part.outputs[0]
      if Float(part.raw) + 0 != output {
        places.update(repeating: 0, count: width)
        part.outputs = []
        part.whole(output)
      }
      for place in 0..<width { account.places[place] += member.weight * places[place] }
      account.raw += member.weight * part.raw
      account.outputs.append(output)
    }
  }
}

extension LinearRanker {
  func explain(_ item: ExplainedItem, into account: inout ItemAccount) {
    account.places[ContributionLayout.base] = intercept
    account.raw = intercept
    for term in terms {
      let input = item.value(term.source)
      let product = term.weight * (input.isNaN ? term.missing : Double(input))
      account.places[account.layout.place(of: term.source)] += product
      account.raw += product
    }
    account.outputs.append(Float(account.raw) + 0)
  }
}

extension ContributionLayout {
  /// Where a feature's contribution goes.
  func place(of source: FeatureSource) -> Int {
    switch source {
    case .retrievalScore: Self.retrievalScore
    case .item(let column): item(column)
    case .user(let column): user(column)
    case .context(let column): context(column)
    case .recent(let feature): recent(feature)
    }
  }
}
