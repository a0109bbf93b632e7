// What a candidate has to do with the items that a request names as recent (`recent_items`).
//
//     recent.count            how many of them this version knows, at most 50
//     recent.last_similarity  the cosine of the candidate's vector and the newest one's
//     recent.max_similarity   the largest
//     recent.mean_similarity  their mean
//
// A cosine is float64 of the float32 kernel's numbers, x·r ÷ (√(x·x) · √(r·r)), rounded to float32; one with a vector
// of norm 0 is missing, and left out of the largest and the mean. The mean is summed in float64 in the order of the
// list, rounded once. A request that names no recent items, or none that is known, has a count of 0 and nothing else.

public enum RecentFeature: Int, Sendable, CaseIterable {
  case count, lastSimilarity, maxSimilarity, meanSimilarity

  public var name: String {
    switch self {
    case .count: "recent.count"
    case .lastSimilarity: "recent.last_similarity"
    case .maxSimilarity: "recent.max_similarity"
    case .meanSimilarity: "recent.mean_similarity"
    }
  }
  public init?(name: some StringProtocol) {
    guard let feature = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = feature
  }
  /// How many there are.
  public static let width = 4

  /// More than the newest so many are not looked at.
  public static let itemsMax = 50
}
