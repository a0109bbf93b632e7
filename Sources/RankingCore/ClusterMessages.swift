// What keeps a cluster together: who is there and what it holds, and what the driver wants it to hold.

/// A worker's full snapshot, the same size whatever happens: constant work for both sides.
public struct WorkerStatus: Sendable, Equatable {
  public struct Holding: Sendable, Equatable {
    public var release: ModelVersion
    /// S of the bundle the shards come from.
    public var shardCount: Int
    /// The shards ready to score, ascending.
    public var ready: [ShardID]
    /// Being read into memory, ascending.
    public var loading: [ShardID]
    /// Could not be loaded, ascending.
    public var failed: [ShardID]
    /// Why the last of them could not, at most `failureBytes`; empty where none failed.
    public var failure: String
    public static let failureBytes = 300
    /// Of the bundle that the ready shards come from; 0 = it does not say. A name can be used twice by mistake, and
    /// shards of two bundles do not belong into one answer.
    public var fingerprint: UInt64
    public init(
      release: ModelVersion, shardCount: Int, ready: [ShardID], loading: [ShardID] = [], failed: [ShardID] = [],
      failure: String = "", fingerprint: UInt64 = 0
    ) {
      self.fingerprint = fingerprint
      self.release = release
      self.shardCount = shardCount
      self.ready = ready
      self.loading = loading
      self.failed = failed
      self.failure = failure
    }
  }
  public var name: String
  /// Differs after every start of the process.
  public var incarnation: UInt64
  /// It is leaving: nothing new should be sent where another replica can do it.
  public var draining: Bool
  public var holdings: [Holding]
  /// Legs waiting, legs being scored, and the age of the oldest of them.
  public var queued: Int
  public var running: Int
  public var oldestJob: Duration
  /// How many legs it would take at once just now, running and waiting; 0 = it does not say.
  public var admits: Int
  /// Memory for slices in bytes, and how much of it the ready ones take; 0 = it does not say.
  public var capacityBytes: UInt64
  public var heldBytes: UInt64
  /// Where it stands: replicas of a shard are spread over zones.
  public var zone: String

  public init(
    name: String, incarnation: UInt64, draining: Bool = false, holdings: [Holding] = [], queued: Int = 0,
    running: Int = 0, oldestJob: Duration = .zero, admits: Int = 0, capacityBytes: UInt64 = 0, heldBytes: UInt64 = 0,
    zone: String = ""
  ) {
    self.name = name
    self.incarnation = incarnation
    self.draining = draining
    self.holdings = holdings
    self.queued = queued
    self.running = running
    self.oldestJob = oldestJob
    self.admits = admits
    self.capacityBytes = capacityBytes
    self.heldBytes = heldBytes
    self.zone = zone
  }
}

/// "I am here": sent by a worker to every coordinator it knows, again and again, so that a coordinator that was
/// restarted learns of it too.
public struct JoinRequest: Sendable, Equatable {
  public var name: String
  public var incarnation: UInt64
  /// Where it is reached, host:port.
  public var address: String
  public init(name: String, incarnation: UInt64, address: String) {
    self.name = name
    self.incarnation = incarnation
    self.address = address
  }
}

public struct JoinReply: Sendable, Equatable {
  /// Where every coordinator takes joins, host:port, the one that answers among them.
  public var coordinators: [String]
  public init(coordinators: [String]) { self.coordinators = coordinators }
}

/// "May I go?": asked by a draining worker until the answer is yes or its time is over.
public struct LeaveRequest: Sendable, Equatable {
  public var name: String
  public var incarnation: UInt64
  public init(name: String, incarnation: UInt64) {
    self.name = name
    self.incarnation = incarnation
  }
}

public struct LeaveReply: Sendable, Equatable {
  /// False while it is the last ready replica of a published version's shard.
  public var mayGo: Bool
  public init(mayGo: Bool) { self.mayGo = mayGo }
}

/// Whose order it is and which: a worker obeys no order older than the newest it has seen.
public struct DriverTerm: Sendable, Equatable, Comparable {
  /// Grows with every driver.
  public var epoch: UInt64
  /// Grows with every order of one driver.
  public var revision: UInt64
  public init(epoch: UInt64, revision: UInt64) {
    self.epoch = epoch
    self.revision = revision
  }
  public static func < (a: DriverTerm, b: DriverTerm) -> Bool {
    a.epoch != b.epoch ? a.epoch < b.epoch : a.revision < b.revision
  }
}

/// An order of the driver: load these shards, or let go of them. Taken at once, carried out in the background; how far
/// it is, the worker's status says.
public struct ShardOrder: Sendable, Equatable {
  public var term: DriverTerm
  public var release: ModelVersion
  public var shards: [ShardID]
  public init(term: DriverTerm, release: ModelVersion, shards: [ShardID]) {
    self.term = term
    self.release = release
    self.shards = shards
  }
}
