import RankingCore
import Rollout
import Routing

// Requests of a shadow stage: the client's own, answered by the serving version, and then a copy of it, answered by the
// new one. When both are there they are compared and counted; the copy's answer goes to nobody.
//
//     request 7 ──► v41 ──► the client ──► v42 ──► compared, dropped      the copy's name is 7 with the highest bit set
//
// The copy waits for the client's answer, so that nobody waits for his copy, and the old version's times are what they
// are without one. Copies cost what requests cost, and a slow version is only known to be slow by its copies. So they
// keep a distance of four times what the last ones took: however slow it is, about a quarter of a request is added to
// what is in flight.

struct ShadowPairs: Sendable {
  typealias End = (outcome: Result<Answer, RankingError>, origin: Router.Origin?, at: Instant)
  /// Which two versions answer, for which rollout.
  typealias Versions = (rollout: String, old: ModelVersion, new: String)
  /// What is to be asked when the client has its answer.
  struct Copy: Sendable {
    var token: RequestToken
    var request: RankingRequest
    var version: String
    var timeout: Duration
  }
  private struct Pair {
    var rollout: String
    var old: ModelVersion
    var copy: Copy
    var mine: End?
  }
  /// Names of the cluster's own requests.
  static let copyBit: RequestToken = 1 << 63
  /// More than wait for their copies at any sound time.
  private static let openMax = 4096

  private var pairs: [RequestToken: Pair] = [:]
  private(set) var counts: [(rollout: String, counts: ShadowCounts)] = []
  /// What a copy takes, the last ones counting most; `nil` = none has ended.
  private var took: Duration?
  private var notBefore = Instant(nanoseconds: 0)
  /// In times of what copies take.
  private static let distance = 4

  var isEmpty: Bool { pairs.isEmpty }

  /// - Returns: whether this request is compared.
  @discardableResult
  mutating func open(
    _ token: RequestToken, _ request: RankingRequest, timeout: Duration, _ versions: Versions, now: Instant
  ) -> Bool {
    guard pairs.count < Self.openMax, now >= notBefore, took != nil || pairs.isEmpty else { return false }
    notBefore = now + (took ?? .zero) * Self.distance
    var request = request
    request.priority = .batch
    pairs[token] = Pair(
      rollout: versions.rollout, old: versions.old,
      copy: Copy(token: token | Self.copyBit, request: request, version: versions.new, timeout: timeout))
    return true
  }

  /// The client took it back: it is not compared.
  mutating func cancelled(_ token: RequestToken) { pairs[token] = nil }

  /// A request or a copy was answered; no news for one that has no pair.
  /// - Returns: the copy that is now to be asked for.
  mutating func answered(_ token: RequestToken, _ end: End) -> Copy? {
    let key = token & ~Self.copyBit
    guard var pair = pairs[key] else { return nil }
    guard let mine = pair.mine, token & Self.copyBit != 0 else {
      // Answered by another version after all, or never tried: nothing to compare.
      guard end.origin?.release == pair.old else {
        pairs[key] = nil
        return nil
      }
      pair.mine = end
      pairs[key] = pair
      return pair.copy
    }
    pairs[key] = nil
    let fresh = end.at - mine.at
    took = took.map { $0 + (fresh - $0) / 4 } ?? fresh
    guard let copyOrigin = end.origin, let origin = mine.origin else { return nil }
    if case .failure(let error) = end.outcome, error.code == .overloaded { return nil }
    record(
      pair.rollout, old: TrafficCounts.Outcome(mine, origin), new: TrafficCounts.Outcome(end, copyOrigin),
      mine.outcome, end.outcome)
    return nil
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
    if counts.isEmpty { (took, notBefore) = (nil, Instant(nanoseconds: 0)) }
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
      case .invalidArgument, .unauthenticated, .permissionDenied, .notFound, .methodNotAllowed: return nil
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
