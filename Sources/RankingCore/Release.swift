// A published version as a coordinator knows it: everything needed to turn a request into legs, and nothing of the
// items.

public enum ColumnKind: String, Sendable { case number, boolean, category }

/// A named column of items, users or request context. Values travel as float32: a number as it is, a boolean as 0 or 1,
/// a category as its index in `categories`; NaN is a missing value.
public struct Column: Sendable, Equatable {
  public var name: String
  public var kind: ColumnKind
  public var categories: [String]
  public init(name: String, kind: ColumnKind, categories: [String] = []) {
    self.name = name
    self.kind = kind
    self.categories = categories
  }
}

/// Ordinals grouped by shard: shard s owns `ordinals[ends[s-1]..<ends[s]]`, ascending.
public struct ShardedOrdinals: Sendable, Equatable {
  public var ordinals: [UInt64]
  public var ends: [UInt32]
  public init(ordinals: [UInt64] = [], ends: [UInt32] = []) {
    self.ordinals = ordinals
    self.ends = ends
  }
  public subscript(shard: ShardID) -> ArraySlice<UInt64> {
    guard shard.index < ends.count else { return [] }
    return ordinals[(shard.index == 0 ? 0 : Int(ends[shard.index - 1]))..<Int(ends[shard.index])]
  }
}

/// What the user table says of one user.
public struct UserRecord: Sendable {
  /// float32, as many as the bundle's dimension.
  public var vector: [Float]
  /// One per user column of the schema; NaN = missing.
  public var values: [Float]
  /// What the user already had, for `exclude_seen`.
  public var history: ShardedOrdinals
  public init(vector: [Float], values: [Float], history: ShardedOrdinals) {
    self.vector = vector
    self.values = values
    self.history = history
  }
}

/// Immutable lookups in a version's user table. Pure for the caller: the same user gives the same record, always.
public protocol UserDirectory: AnyObject, Sendable {
  func record(of user: String) -> UserRecord?
}

/// A request that a bundle brings along: to warm it up with, and to see that its answers are right.
public struct Rehearsal: Sendable {
  public struct Expected: Sendable, Equatable {
    public var id: String
    /// Bit for bit.
    public var score: Float
    public init(id: String, score: Float) {
      self.id = id
      self.score = score
    }
  }
  public var request: RankingRequest
  /// The whole answer, in order; `nil` = for warming up only.
  public var expected: [Expected]?
  public init(request: RankingRequest, expected: [Expected]? = nil) {
    self.request = request
    self.expected = expected
  }
}

public struct Release: Sendable {
  public var id: ModelVersion
  /// d, the length of every vector of this version.
  public var dimension: Int
  /// How many items each shard holds; its count is S.
  public let itemsPerShard: [UInt64]
  /// Memory that each shard's slice takes in a worker; empty = unknown.
  public var bytesPerShard: [UInt64] = []
  /// Of the bundle; 0 = unknown. A worker that says another one holds other items under this name.
  public var fingerprint: UInt64 = 0
  /// The sum of `itemsPerShard`.
  public let itemCount: UInt64
  /// What filters may ask.
  public var itemColumns: [Column] = []
  public var userColumns: [Column]
  public var contextColumns: [Column]
  /// The mean user vector (summed in float64, rounded once): the query of an unknown user.
  public var coldStart: [Float]
  public var users: any UserDirectory
  public var rehearsals: [Rehearsal] = []
  /// Whether a ranker looks at the request's recent items.
  public var wantsRecent = false
  /// What re-ranks merged lists; `nil` = nothing does.
  public var listRanker: (any ListRanker)?

  public init(
    id: ModelVersion, dimension: Int, itemsPerShard: [UInt64], userColumns: [Column], contextColumns: [Column],
    coldStart: [Float], users: any UserDirectory
  ) {
    self.id = id
    self.dimension = dimension
    self.itemsPerShard = itemsPerShard
    itemCount = itemsPerShard.reduce(0, +)
    self.userColumns = userColumns
    self.contextColumns = contextColumns
    self.coldStart = coldStart
    self.users = users
  }
  public var shardCount: Int { itemsPerShard.count }

  /// The request's context as one float32 per context column; what the schema does not know is ignored, what the
  /// request does not say (or says in another type, or an unknown category) is missing (NaN).
  public func contextValues(_ context: [(name: String, value: ContextValue)]) -> [Float] {
    contextColumns.map { column in
      guard let given = context.last(where: { $0.name == column.name })?.value else { return .nan }
      switch (column.kind, given) {
      case (.number, .number(let number)): return Float(number)
      case (.boolean, .boolean(let flag)): return flag ? 1 : 0
      case (.category, .text(let text)):
        return column.categories.firstIndex(of: text).map { Float($0) } ?? .nan
      default: return .nan
      }
    }
  }
}

/// The query vector of `recent_items`: Σ 0.85^i · vector, i counted from the newest (the last), summed in float32 in
/// list order, multiplication and addition rounded apart.
public enum RecentItems {
  public static let decay: Float = 0.85

  /// - Parameter vectors: in list order (oldest first), each of length d; unknown items already left out.
  public static func query(_ vectors: [[Float]], dimension: Int) -> [Float] {
    var weights = [Float](repeating: 1, count: vectors.count)
    for index in stride(from: vectors.count - 2, through: 0, by: -1) { weights[index] = weights[index + 1] * decay }
    var sum = [Float](repeating: 0, count: dimension)
    for (vector, weight) in zip(vectors, weights) {
      for index in 0..<dimension {
        let product = weight * vector[index]
        sum[index] = sum[index] + product
      }
    }
    return sum
  }
}
