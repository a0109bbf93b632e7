// What a coordinator and a worker say to each other. `Wire` turns these into protobuf and back.

/// Which results a leg's shards owe.
public enum ScoreMode: Sendable, Equatable {
  /// Each shard's best `k` after the ranker has seen its `candidates` best by retrieval score.
  case retrieve
  /// Exactly the items named by each task, scored and ranked; ids the shard does not hold are left out.
  case rank
}

/// The part of a request that is the same on every leg, hedge and retry.
public struct ScoreQuery: Sendable, Equatable {
  public var release: ModelVersion
  public var mode: ScoreMode
  /// float32, the release's dimension.
  public var vector: [Float]
  public var k: Int
  /// R, per shard.
  public var candidates: Int
  /// Items scoring below are left out; `nil` = no limit. Compared with the final score.
  public var minScore: Float?
  /// Which items may be among the candidates; `nil` = all.
  public var filter: FilterProgram?
  /// At most so many of a group; the reply's list then says each item's group.
  public var cap: GroupCap?
  /// Whether the reply says what each score is made of.
  public var explain = false
  /// Whether the reply has the items' vectors.
  public var wantsVectors = false
  /// Item columns whose values the reply has.
  public var wantedColumns: [Int] = []
  /// Vectors of the request's recent items, the newest last, where the ranker asks for them.
  public var recent: [Float] = []
  /// `traceparent` for the workers; it goes beside the message, not within.
  public var trace: String?
  /// One per user column of the release; NaN = missing.
  public var userValues: [Float]
  /// One per context column of the release; NaN = missing.
  public var contextValues: [Float]

  public init(
    release: ModelVersion, mode: ScoreMode, vector: [Float], k: Int, candidates: Int, minScore: Float? = nil,
    userValues: [Float] = [], contextValues: [Float] = []
  ) {
    self.release = release
    self.mode = mode
    self.vector = vector
    self.k = k
    self.candidates = candidates
    self.minScore = minScore
    self.userValues = userValues
    self.contextValues = contextValues
  }
}

/// What one shard is asked within a leg.
public struct ShardTask: Sendable, Equatable {
  public var shard: ShardID
  /// Ordinals to leave out (the user's history, the item itself), ascending.
  public var excludedOrdinals: [UInt64]
  /// Ids to leave out; those the shard does not hold mean nothing.
  public var excludedIDs: [String]
  /// `.rank` only: the items to score.
  public var items: [String]
  public init(shard: ShardID, excludedOrdinals: [UInt64] = [], excludedIDs: [String] = [], items: [String] = []) {
    self.shard = shard
    self.excludedOrdinals = excludedOrdinals
    self.excludedIDs = excludedIDs
    self.items = items
  }
}

/// A query that all legs of a request share: one object, however many legs, hedges and retries carry it.
public final class SharedQuery: Sendable {
  public let query: ScoreQuery
  public init(_ query: ScoreQuery) { self.query = query }
}

/// One call from the coordinator to one worker, for one or more shards of one request.
public struct ScoreRequest: Sendable, Equatable {
  public private(set) var shared: SharedQuery
  public var tasks: [ShardTask]
  /// Setting it makes a query of this request's own.
  public var query: ScoreQuery {
    get { shared.query }
    set { shared = SharedQuery(newValue) }
  }

  public init(shared: SharedQuery, tasks: [ShardTask]) {
    self.shared = shared
    self.tasks = tasks
  }
  public init(query: ScoreQuery, tasks: [ShardTask]) { self.init(shared: SharedQuery(query), tasks: tasks) }

  public static func == (a: ScoreRequest, b: ScoreRequest) -> Bool {
    (a.shared === b.shared || a.query == b.query) && a.tasks == b.tasks
  }
}

/// The merged best k of the shards it speaks for; nothing is sent for a shard that was not finished.
public struct ScoreReply: Sendable, Equatable {
  public var release: ModelVersion
  public var shards: [ShardID]
  public var items: ScoredList
  /// Items left out because a ranker gave NaN.
  public var droppedNaN: Int
  public init(release: ModelVersion, shards: [ShardID], items: ScoredList, droppedNaN: Int = 0) {
    self.release = release
    self.shards = shards
    self.items = items
    self.droppedNaN = droppedNaN
  }
}

/// Asks the owners of some items for their vectors.
public struct LookupRequest: Sendable, Equatable {
  public var release: ModelVersion
  public var shards: [ShardID]
  public var ids: [String]
  public init(release: ModelVersion, shards: [ShardID], ids: [String]) {
    self.release = release
    self.shards = shards
    self.ids = ids
  }
}

public struct LookupReply: Sendable, Equatable {
  public struct Found: Sendable, Equatable {
    public var id: String
    public var ordinal: ItemOrdinal
    public var vector: [Float]
    public init(id: String, ordinal: ItemOrdinal, vector: [Float]) {
      self.id = id
      self.ordinal = ordinal
      self.vector = vector
    }
  }
  public var release: ModelVersion
  /// The shards it speaks for: an id of theirs that is not in `found` does not exist in this version.
  public var shards: [ShardID]
  public var found: [Found]
  public init(release: ModelVersion, shards: [ShardID], found: [Found]) {
    self.release = release
    self.shards = shards
    self.found = found
  }
}

/// Why a call to a worker brought no reply.
public enum CallFailure: Error, Sendable, Equatable {
  /// The transport ended before a complete valid reply: nothing is known of the work, and scoring is read-only.
  case connectionLost
  /// The worker refuses work it could not finish in time.
  case overloaded
  /// The worker does not hold the pinned version, or not one of the shards.
  case wrongVersion
  case deadlineExceeded
  /// The order comes from a driver that has been replaced, or is older than one already obeyed.
  case stale
  /// The worker said that the request is wrong, or broke; another replica would say the same.
  case workerError(String)
}
