import RankingCore

// One request on its way: what has been asked of whom, what has come back, what is still owed.

/// A request in flight: a slot and the count of its uses, so that news for an earlier user of the slot is recognised.
struct FlightID: Hashable, Sendable {
  var slot: UInt32
  var use: UInt32
}

/// One call of one request to one worker. Says where to find its flight without a lookup table.
public struct LegID: Hashable, Sendable {
  let flight: FlightID
  let leg: UInt16

  /// The same for all legs of one request, and for no other request that is open.
  public var requestKey: UInt64 { UInt64(flight.slot) << 32 | UInt64(flight.use) }
}

/// The caller's name for a request: any number that no other open request has.
public typealias RequestToken = UInt64

struct Leg: Sendable {
  var worker: WorkerID
  var shards: [ShardID]
  var sentAt: Instant
  var isOpen: Bool
}

enum ShardState: Sendable, Equatable {
  /// Nothing is owed by this shard (it holds none of the items to rank).
  case notNeeded
  case waiting
  /// Sent to `worker`, for the `attempt`-th time.
  case inFlight(WorkerID, attempt: Int)
  case answered
  case missing(MissingReason)

  var isSettled: Bool {
    switch self {
    case .notNeeded, .answered, .missing: true
    case .waiting, .inFlight: false
    }
  }
}

struct Flight: Sendable {
  enum Phase: Sendable {
    /// Fetching the vectors of `recent_items` or of the item to be similar to.
    case lookingUp
    case scoring
  }
  let id: FlightID
  let token: RequestToken
  let request: RankingRequest
  /// Index into the catalogue: the pin. Never changes.
  let entry: Int
  let start: Instant
  /// When the answer is put together with what is there.
  let mergeBy: Instant
  var phase: Phase
  var query: ScoreQuery
  /// One per shard: exclusions and items to rank, made when scoring begins.
  var tasks: [ShardTask] = []
  var shards: [ShardState]
  var legs: [Leg] = []
  var merged: MergedList
  var found: [LookupReply.Found] = []
  var unknown: [String] = []
  var coldStart: Bool?
  var history = ShardedOrdinals()
  var excludedOrdinal: ItemOrdinal?

  var isSettled: Bool { shards.allSatisfy(\.isSettled) }

  /// The ids whose vectors phase `.lookingUp` needs.
  var lookupIDs: [String] {
    switch request.subject {
    case .recentItems(let ids): ids
    case .item(let id): [id]
    case .user, .vector, .anyone: []
    }
  }

  func coverage(_ release: Release) -> Coverage {
    var missing: [Coverage.Missing] = []
    var covered: UInt64 = 0
    for (index, state) in shards.enumerated() {
      switch state {
      case .notNeeded, .answered: covered += release.itemsPerShard[index]
      case .missing(let reason): missing.append(Coverage.Missing(shard: ShardID(index), reason: reason))
      case .waiting, .inFlight: missing.append(Coverage.Missing(shard: ShardID(index), reason: .timeout))
      }
    }
    let share = missing.isEmpty ? 1 : Double(covered) / Double(max(1, release.itemCount))
    return Coverage(
      shards: shards.count, answered: shards.count - missing.count, items: min(1, share), missing: missing)
  }
}
