import RankingCore

public enum MemberState: String, Sendable, CaseIterable {
  /// Never answered yet.
  case joining
  case alive
  /// Missed a probe or two: still used, watched closely.
  case suspect
  /// Not used; its shards are still kept for it.
  case down
  /// Down for so long that its shards are placed on others. It may still come back.
  case gone
}

/// How a worker became known.
public enum MemberOrigin: Sendable, Equatable {
  /// Named in the configuration.
  case configured
  /// It said so itself, by `Join`.
  case joined
  /// An address of this DNS name.
  case resolved(String)
}

public struct Member: Sendable {
  public let id: WorkerID
  public internal(set) var name: String
  /// host:port; empty where the caller keeps addresses itself.
  public internal(set) var address: String
  public internal(set) var origin: MemberOrigin
  public internal(set) var state: MemberState = .joining
  /// Whether the transport has a live connection that takes calls.
  public internal(set) var isLinked = false
  /// It has asked to leave.
  public internal(set) var isLeaving = false
  /// The same process is known under another member too (by join and by DNS): this one is not used.
  public internal(set) var isDuplicate = false
  /// Its DNS name still lists it; true for all others.
  public internal(set) var isListed = true
  /// The last snapshot it sent; kept while down for people to read, never for routing.
  public internal(set) var status: WorkerStatus?
  /// Since when it has been down or gone.
  public internal(set) var downSince: Instant?
  var misses = 0
  var successes = 0
  var lastMiss = Instant(nanoseconds: 0)
  var probes: ProbeSchedule

  init(id: WorkerID, name: String, address: String, origin: MemberOrigin, now: Instant) {
    self.id = id
    self.name = name
    self.address = address
    self.origin = origin
    probes = ProbeSchedule(next: now)
  }

  /// Whether routing may use it at all. One that is draining may be used too, where nobody else can.
  public var isUsable: Bool {
    isLinked && (state == .alive || state == .suspect) && status != nil && !isDuplicate
  }
  public var isDraining: Bool { isLeaving || status?.draining == true }
}
