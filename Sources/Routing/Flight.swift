import RankingCore

// One request on its way: what has been asked of whom, what has come back, what is still owed.
//
// Flights are objects that one Router owns and uses again: a request in steady state allocates what its messages need
// and nothing else.

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
  /// Which of the request's legs it is, from 0 in the order of sending.
  public var number: Int { Int(leg) }
}

/// The caller's name for a request: any number that no other open request has.
public typealias RequestToken = UInt64

struct Leg: Sendable {
  enum Kind: String, Sendable { case primary, retry, hedge }
  var worker: WorkerID
  var kind: Kind
  /// Its shards: a range of the flight's `legShards`.
  var shards: Range<Int>
  var sentAt: Instant
  var isOpen: Bool
  /// A hedge of it was sent, or waits for a token.
  var isHedged = false
  var endedAt = Instant(nanoseconds: 0)
  var end = LegEnd.open
}

/// How far one shard of one request is.
struct ShardProgress: Sendable, Equatable {
  enum State: Sendable, Equatable {
    /// Nothing is owed by this shard (it holds none of the items to rank).
    case notNeeded
    case waiting
    case inFlight
    case answered
    case missing(MissingReason)
  }
  var state = State.notNeeded
  /// Times it was sent out, hedges not counted.
  var attempts: UInt8 = 0
  /// Legs on their way that owe it.
  var legs: UInt8 = 0
  var isHedged = false
  /// It was sent to a worker that had let go of it: news that had not come yet, not a failure.
  var wasStale = false
  /// Who has been asked so far: the last primary or retry, and the hedge.
  var worker: WorkerID?
  var hedgeWorker: WorkerID?

  var isSettled: Bool {
    switch state {
    case .notNeeded, .answered, .missing: true
    case .waiting, .inFlight: false
    }
  }
}

final class Flight: @unchecked Sendable {
  enum Phase: Sendable {
    /// Fetching the vectors of `recent_items` or of the item to be similar to.
    case lookingUp
    case scoring
  }
  var id = FlightID(slot: 0, use: 0)
  var token: RequestToken = 0
  var isOpen = false
  var request = RankingRequest()
  /// Its version's place in the catalogue: the pin. Never changes.
  var entry = 0
  /// Which of each shard's replicas is asked; nil = the best.
  var replica: Int?
  var hasNaN = false
  /// How many items the answer has at most; legs may owe more, to choose from.
  var wanted = 0
  var release: ModelVersion
  var start = Instant(nanoseconds: 0)
  /// When the answer is put together with what is there.
  var mergeBy = Instant(nanoseconds: 0)
  var phase = Phase.scoring
  var query: ScoreQuery
  /// `query` as the legs carry it; made when the first of them is sent.
  var shared: SharedQuery?
  /// One per shard: exclusions and items to rank, made when scoring begins.
  var tasks: [ShardTask] = []
  var legs: [Leg] = []
  var legShards: [ShardID] = []
  var merged = MergedList(limit: 1)
  var found: [LookupReply.Found] = []
  var unknown: [String] = []
  var coldStart: Bool?
  var history = ShardedOrdinals()
  var excludedOrdinal: ItemOrdinal?
  /// Whether there was room enough at admission for extra legs.
  var mayHedge = true
  var isEarlyArmed = false

  private(set) var shards: [ShardProgress] = []
  /// Shards that are neither answered nor given up.
  private(set) var unsettled = 0
  /// Shards and items that the answer speaks for, and items that it cannot speak for any more.
  private(set) var answered = 0
  private(set) var coveredItems: UInt64 = 0
  private(set) var lostItems: UInt64 = 0
  private var itemsPerShard: [UInt64] = []
  private(set) var itemCount: UInt64 = 0

  init() {
    release = ModelVersion(model: "", version: "")
    query = ScoreQuery(release: release, mode: .retrieve, vector: [], k: 1, candidates: 1)
  }

  func begin(
    id: FlightID, token: RequestToken, request: RankingRequest, entry: Int, release: Release, start: Instant,
    mergeBy: Instant
  ) {
    self.id = id
    self.token = token
    self.request = request
    self.entry = entry
    self.release = release.id
    self.start = start
    self.mergeBy = mergeBy
    isOpen = true
    phase = .scoring
    var mode = ScoreMode.retrieve
    var limit = request.k
    if case .rank(let items) = request.kind {
      mode = .rank
      limit = items.count
    }
    query.release = release.id
    query.mode = mode
    query.k = limit
    query.trace = request.trace
    query.wantsVectors = false
    query.recent = []
    query.wantedColumns.removeAll(keepingCapacity: true)
    wanted = limit
    query.candidates = request.candidatesAsked
    query.minScore = request.minScore
    query.explain = request.explain
    shared = nil
    legs.removeAll(keepingCapacity: true)
    legShards.removeAll(keepingCapacity: true)
    merged.begin(limit: limit)
    found.removeAll(keepingCapacity: true)
    unknown.removeAll(keepingCapacity: true)
    coldStart = nil
    history = ShardedOrdinals()
    excludedOrdinal = nil
    mayHedge = true
    replica = nil
    hasNaN = false
    isEarlyArmed = false
    itemsPerShard = release.itemsPerShard
    itemCount = release.itemCount
    beginShards(count: release.shardCount) { _ in false }
  }

  /// Starts counting anew: the shards that `isNeeded` names are owed.
  func beginShards(count: Int, isNeeded: (Int) -> Bool) {
    shards.removeAll(keepingCapacity: true)
    unsettled = 0
    answered = 0
    coveredItems = 0
    lostItems = 0
    for index in 0..<count {
      var progress = ShardProgress()
      if isNeeded(index) {
        progress.state = .waiting
        unsettled += 1
      } else {
        answered += 1
        coveredItems += itemsPerShard[index]
      }
      shards.append(progress)
    }
  }

  /// Marks one more shard as owed (while the lookups are planned).
  func need(_ shard: Int) {
    guard shards[shard].state == .notNeeded else { return }
    shards[shard].state = .waiting
    unsettled += 1
    answered -= 1
    coveredItems -= itemsPerShard[shard]
  }

  func send(_ shard: ShardID, to worker: WorkerID, as kind: Leg.Kind) {
    shards[shard.index].state = .inFlight
    shards[shard.index].legs += 1
    if kind == .hedge {
      shards[shard.index].isHedged = true
      shards[shard.index].hedgeWorker = worker
    } else {
      shards[shard.index].attempts += 1
      shards[shard.index].worker = worker
    }
  }
  /// A leg that owed this shard is over.
  func legEnded(_ shard: ShardID) {
    if shards[shard.index].legs > 0 { shards[shard.index].legs -= 1 }
  }
  /// A worker did not have this shard: that attempt does not count, once.
  func forgive(_ shard: ShardID) {
    guard !shards[shard.index].wasStale, shards[shard.index].attempts > 0 else { return }
    shards[shard.index].wasStale = true
    shards[shard.index].attempts -= 1
  }
  func answer(_ shard: ShardID, planted: PlantedFaults) {
    let wasSettled = shards[shard.index].isSettled
    if wasSettled, !planted.contains(.coverageCountedTwice) { return }
    shards[shard.index].state = .answered
    answered += 1
    coveredItems += itemsPerShard[shard.index]
    if !wasSettled { unsettled -= 1 }
  }
  func miss(_ shard: ShardID, _ reason: MissingReason) {
    guard !shards[shard.index].isSettled else { return }
    shards[shard.index].state = .missing(reason)
    lostItems += itemsPerShard[shard.index]
    unsettled -= 1
  }
  /// Time is over: whatever has not come counts as missing.
  func giveUpRest() {
    for index in shards.indices where !shards[index].isSettled { miss(ShardID(index), .timeout) }
  }

  var origin: Router.Origin { Router.Origin(release: release, wanted: wanted, hasNaN: hasNaN, startedAt: start) }
  var isSettled: Bool { unsettled == 0 }
  /// The share of the items in `count` of them; 1 exactly for all.
  private func share(_ count: UInt64) -> Double {
    count >= itemCount ? 1 : Double(count) / Double(max(1, itemCount))
  }
  var coveredShare: Double { share(coveredItems) }
  /// Whether what has been lost already makes the coverage asked for impossible.
  var isHopeless: Bool {
    lostItems > 0 && request.minCoverage > 0 && share(itemCount - lostItems) < request.minCoverage
  }

  /// The ids whose vectors phase `.lookingUp` needs.
  var lookupIDs: [String] {
    switch request.subject {
    case .recentItems(let ids): ids
    case .item(let id): [id]
    case .user, .vector, .anyone: []
    }
  }

  /// What is known to be missing, by shard, ascending.
  var missing: [Coverage.Missing] {
    var missing: [Coverage.Missing] = []
    for (index, shard) in shards.enumerated() {
      if case .missing(let reason) = shard.state {
        missing.append(Coverage.Missing(shard: ShardID(index), reason: reason))
      }
    }
    return missing
  }
  var coverage: Coverage {
    let missing = missing
    return Coverage(
      shards: shards.count, answered: answered, items: missing.isEmpty ? 1 : min(1, share(coveredItems)),
      missing: missing)
  }
}
