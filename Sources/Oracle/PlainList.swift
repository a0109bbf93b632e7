import Foundation
import RankingCore

/// What is done to a merged list as a whole, in plain words.
enum PlainList {
  /// Features of a list by their names; those of the item itself come from `other`.
  static func feature(
    _ name: String, of index: Int, scores: [Float], share: (String) -> [Float], other: (String) -> Float
  ) -> Float {
    switch name {
    case "list.rank": return Float(index)
    case "list.score": return scores[index]
    case "list.gap": return scores[0] - scores[index]
    default: break
    }
    guard name.hasPrefix("list.share.") else { return other(name) }
    let values = share(String(name.dropFirst("list.share.".count)))
    guard !values[index].isNaN else { return .nan }
    return Float(values.filter { $0 == values[index] }.count) / Float(values.count)
  }

  /// Maximal marginal relevance.
  static func marginal(_ rule: MarginalRelevance, k: Int, scores: [Float], vectors: [[Float]]) -> [Int] {
    let norms = vectors.map { dot($0, $0).squareRoot() }
    /// Each item's cosines with those taken so far.
    var cosines = [[Double]](repeating: [], count: scores.count)
    var taken: [Int] = []
    guard let high = scores.first.map({ Double($0) }), let low = scores.last.map({ Double($0) }) else { return [] }
    while taken.count < min(k, scores.count) {
      var best: (index: Int, gain: Double)?
      for index in scores.indices where !taken.contains(index) {
        let relevance = high > low ? (Double(scores[index]) - low) / (high - low) : 1
        let likeness = cosines[index].max() ?? 0
        let gain = rule.lambda * relevance - (1 - rule.lambda) * likeness
        if best == nil || gain > best!.gain { best = (index, gain) }
      }
      let new = best!.index
      taken.append(new)
      for index in scores.indices {
        let product = norms[index] * norms[new]
        cosines[index].append(product > 0 ? dot(vectors[index], vectors[new]) / product : 0)
      }
    }
    return taken
  }

  private static func dot(_ x: [Float], _ y: [Float]) -> Double {
    var lanes = [Double](repeating: 0, count: 8)
    for index in x.indices { lanes[index % 8] += Double(x[index]) * Double(y[index]) }
    for lane in 0..<4 { lanes[lane] += lanes[lane + 4] }
    for lane in 0..<2 { lanes[lane] += lanes[lane + 2] }
    return lanes[0] + lanes[1]
  }
}
