import RankingCore
import Rollout
import Routing

// Requests of a shadow stage: the client's own, answered by the serving version, and a copy of it, answered by the new
// one. When both are there they are compared and counted; the copy's answer goes to nobody.
//
//     request 7 ─┬─► v41 ──► the client          the copy's name is 7 with the highest bit set
//                └─► v42 ──► compared, dropped

struct ShadowPairs: Sendable {
  typealias End = (outcome: Result<Answer, RankingError>, origin: Router.Origin?, at: Instant)
  private struct Pair {
    var rollout: String
    var old: ModelVersion
    var mine: End?
    var copy: End?
  }
  /// Names of the cluster's own requests.
  static let copyBit: RequestToken = 1 << 63
  /// More than wait for their copies at any sound time.
  private static let openMax = 4096

  private var pairs: [RequestToken: Pair] = [:]
  private(set) var counts: [(rollout: String, counts: ShadowCounts)] = []

  var isEmpty: Bool { pairs.isEmpty }

  mutating func open(_ token: RequestToken, rollout: String, old: ModelVersion) -> RequestToken? {
    guard pairs.count < Self.openMax else { return nil }
    pairs[token] = Pair(rollout: rollout, old: old)
    return token | Self.copyBit
  }

  /// The client took it back: its copy is not worth anything either.
  /// - Returns: whether there was one.
  mutating func cancelled(_ token: RequestToken) -> Bool { pairs.removeValue(forKey: token) != nil }

  /// A request or a copy was answered; no news for one that has no pair.
  mutating func answered(_ token: RequestToken, _ end: End) {
    let isCopy = token & Self.copyBit != 0
    let key = token & ~Self.copyBit
    guard var pair = pairs[key] else { return }
    if isCopy { pair.copy = end } else { pair.mine = end }
    guard let mine = pair.mine, let copy = pair.copy else {
      pairs[key] = pair
      return
    }
    pairs[key] = nil
    // Answered by another version after all, or never tried: nothing to compare.
    guard mine.origin?.release == pair.old, let copyOrigin = copy.origin, let origin = mine.origin else { return }
    if case .failure(let error) = copy.outcome, error.code == .overloaded { return }
    record(
      pair.rollout, old: TrafficCounts.Outcome(mine, origin), new: TrafficCounts.Outcome(copy, copyOrigin),
      mine.outcome, copy.outcome)
  }

  private mutating func record(
    _ rollout: String, old: TrafficCounts.Outcome?, new: TrafficCounts.Outcome?,
    _ mine: Result<Answer, RankingError>, _ copy: Result<Answer, RankingError>
  ) {
    guard let old, let new else { return }
    let index: Int
    if let known = counts.firstIndex(where: { $0.rollout == rollout }) {
      index = known
    } else {
      index = counts.count
      counts.append((rollout, ShadowCounts()))
    }
    guard case .success(let a) = mine, case .success(let b) = copy else {
      return counts[index].counts.record(old: old, new: new, overlap: nil)
    }
    let agreement = ListAgreement(a, b)
    counts[index].counts.record(old: old, new: new, overlap: agreement.overlap, correlation: agreement.correlation)
  }

  /// Forgets the counts of rollouts that are over.
  mutating func keep(_ rollouts: [String]) {
    counts.removeAll { !rollouts.contains($0.rollout) }
  }
}

/// What two lists have in common.
struct ListAgreement: Sendable, Equatable {
  /// Items in both, as a share of the longer list; nil = both are empty.
  var overlap: Double?
  /// Kendall's tau of the items in both, −1…1; nil = fewer than two.
  var correlation: Double?
  /// Pairs of items are counted: only the first so many common ones.
  private static let comparedMax = 64

  init(overlap: Double?, correlation: Double?) {
    self.overlap = overlap
    self.correlation = correlation
  }

  init(_ a: Answer, _ b: Answer) {
    var places: [String: Int] = [:]
    for (place, entry) in b.entries.enumerated() { places[b.id(entry)] = place }
    let common = a.entries.compactMap { places[a.id($0)] }
    let longer = max(a.entries.count, b.entries.count)
    overlap = longer == 0 ? nil : Double(common.count) / Double(longer)
    let compared = common.prefix(Self.comparedMax)
    guard compared.count > 1 else { return }
    var sum = 0
    for i in compared.indices { for j in compared.indices where j > i { sum += compared[i] < compared[j] ? 1 : -1 } }
    correlation = Double(sum) / Double(compared.count * (compared.count - 1) / 2)
  }
}

extension TrafficCounts.Outcome {
  /// nil = says nothing of the version: the request itself was wrong.
  init?(_ end: ShadowPairs.End, _ origin: Router.Origin) {
    self.init()
    latency = end.at - origin.startedAt
    hasNaN = origin.hasNaN
    switch end.outcome {
    case .failure(let error):
      switch error.code {
      case .invalidArgument, .notFound, .methodNotAllowed: return nil
      default: isError = true
      }
    case .success(let answer):
      coverage = answer.coverage.items
      isEmpty = answer.entries.isEmpty
      isShort = answer.entries.count < origin.wanted
      guard !isEmpty else { return }
      var sum = 0.0
      for entry in answer.entries { sum += Double(entry.item.score) }
      score = sum / Double(answer.entries.count)
    }
  }
}
