import RankingCore

// Several rankers that decide together:
//
//     score = Float( ((w₁·s₁ + w₂·s₂) + w₃·s₃) + … )          members in the order of the bundle
//
// where s is a member's own float32 score, in float64, each product and each sum rounded by itself, rounded once at the
// end, −0 to +0. A candidate to which any member gives no finite score has none.

public struct RankerEnsemble: Sendable {
  public struct Member: Sendable {
    public var ranker: Ranker
    public var weight: Double
    public init(_ ranker: Ranker, weight: Double) {
      self.ranker = ranker
      self.weight = weight
    }
  }
  public let members: [Member]
  /// Of the schema that all members were bound to.
  let widths: (item: Int, user: Int, context: Int)

  public static let membersMax = 16

  /// - Throws: when there are too few or too many, a weight is not finite, a member is no ranker of its own, or two
  ///   were bound to different schemas; says which.
  public init(_ members: [Member]) throws(RankerError) {
    guard let first = members.first, members.count <= Self.membersMax else {
      throw RankerError("\(members.count) rankers; allowed: 1 to \(Self.membersMax)")
    }
    for (index, member) in members.enumerated() {
      guard member.weight.isFinite else { throw RankerError("ranker \(index): weight \(member.weight) is not finite") }
      if case .ensemble = member.ranker { throw RankerError("ranker \(index) is an ensemble itself") }
      guard let widths = member.ranker.widths, let firsts = first.ranker.widths, widths == firsts else {
        throw RankerError("ranker \(index) was bound to another schema than ranker 0, or to none")
      }
    }
    self.members = members
    widths = first.ranker.widths ?? (0, 0, 0)
  }

  var usesRecent: Bool { members.contains(where: \.ranker.usesRecent) }

  /// - Parameter scores: out; not finite where there is no score.
  func score(
    count: Int, candidates: CandidateFeatures, memory: inout RankerMemory, scores: UnsafeMutablePointer<Float>
  ) {
    let sums = memory.weighted.room(for: max(1, count))
    sums.update(repeating: 0, count: count)
    for member in members {
      member.ranker.score(count: count, candidates: candidates, memory: &memory, scores: scores)
      for index in 0..<count { sums[index] = sums[index] + member.weight * Double(scores[index]) }
    }
    for index in 0..<count { scores[index] = Float(sums[index]) + 0 }
  }
}
