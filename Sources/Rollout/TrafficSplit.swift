import RankingCore

// Which version a request gets: a pure function of who asks. Made once per document and model; choosing reads a few
// words and hashes the key's bytes where they lie, without allocating.
//
//     key    the user, else the session, else the request's id
//     hash   xxHash64(key, seed: xxHash64(rollout's id))          salted, so that it is not the same 1 % every day
//     new    where  hash < share · 2⁶⁴                             the share only moves the bound: widening adds users
//
//     share 1 %   |█·······································|
//     share 10 %  |████····································|      everyone of the 1 % is among the 10 %
//
// The shadow share is drawn by the request's id and another salt: shadowed are requests, not users.

public struct TrafficSplit: Sendable, Equatable {
  public let model: String
  /// The versions that requests may be answered from, the serving one first, the one being rolled out (if any) second.
  public let versions: [String]
  /// The rollout's id while requests are shadowed or split; counts go under it.
  public let rollout: String
  /// The version that shadowed requests are scored by as well; its place in `versions`.
  public let shadowed: Int?
  private let candidate: Int?
  private let share: Bound
  private let shadowShare: Bound
  private let salt: UInt64
  private let shadowSalt: UInt64

  /// Hashes below it; all of them needs a bit more than 64 bits can say.
  private struct Bound: Sendable, Equatable {
    var below: UInt64
    var isAll: Bool
    /// - Parameter share: in hundredths of a percent.
    init(_ share: Int) {
      isAll = share >= 10_000
      below = UInt64(max(0, min(share, 10_000))).multipliedReportingOverflow(by: UInt64.max / 10_000).partialValue
    }
    @inline(__always) func holds(_ hash: UInt64) -> Bool { isAll || hash < below }
  }

  public init(_ state: ModelState) {
    model = state.model
    versions = state.published
    let rollout = state.rollout
    self.rollout = rollout?.id ?? ""
    let index = rollout.flatMap { rollout in
      rollout.stage.isPublished && rollout.to != state.serving ? state.published.firstIndex(of: rollout.to) : nil
    }
    candidate = index
    share = Bound(index == nil ? 0 : rollout?.share ?? 0)
    let isShadowing = index != nil && rollout?.stage == .shadow && rollout?.isPaused == false
    shadowed = isShadowing ? index : nil
    shadowShare = Bound(isShadowing ? rollout?.settings.shadowShare ?? 0 : 0)
    salt = StableHash.xxh64(self.rollout)
    shadowSalt = StableHash.xxh64(self.rollout, seed: 1)
  }

  /// The place in `versions` of what a request that names no version gets.
  public func choice(for request: RankingRequest) -> Int {
    guard let candidate else { return 0 }
    let hash: UInt64
    if case .user(let user) = request.subject {
      hash = StableHash.xxh64(user, seed: salt)
    } else if let session = request.session {
      hash = StableHash.xxh64(session, seed: salt)
    } else {
      hash = StableHash.xxh64(request.requestID, seed: salt)
    }
    return share.holds(hash) ? candidate : 0
  }

  /// The place in `versions` of a version that a request names; nil = it is not published.
  public func named(_ version: String) -> Int? { versions.firstIndex(of: version) }

  /// Whether a request that the serving version answers is to be scored by `shadowed` as well.
  public func isShadowed(_ requestID: String) -> Bool {
    shadowed != nil && shadowShare.holds(StableHash.xxh64(requestID, seed: shadowSalt))
  }
}
