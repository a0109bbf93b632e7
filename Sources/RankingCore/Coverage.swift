/// Which of the S shards, and which share of the N items, an answer speaks for. Never overstated.
public struct Coverage: Sendable, Equatable {
  public struct Missing: Sendable, Equatable {
    public var shard: ShardID
    public var reason: MissingReason
    public init(shard: ShardID, reason: MissingReason) {
      self.shard = shard
      self.reason = reason
    }
  }
  /// S, the shards of the bundle.
  public var shards: Int
  /// How many of them the answer speaks for.
  public var answered: Int
  /// The share of the catalogue's items in those shards, 0…1; 1 exactly when all answered.
  public var items: Double
  /// The rest, by shard, ascending.
  public var missing: [Missing]

  public init(shards: Int, answered: Int, items: Double, missing: [Missing]) {
    self.shards = shards
    self.answered = answered
    self.items = items
    self.missing = missing
  }
}

/// Why a shard is not in an answer.
public enum MissingReason: String, Sendable, Equatable {
  case timeout
  case noReadyReplica = "no ready replica"
  case connectionLost = "connection lost"
  case overloaded
  case wrongVersion = "replica lacks the version"
  case workerError = "worker error"
}
