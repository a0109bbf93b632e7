/// A complete answer, before it is written as JSON or protobuf.
public struct Answer: Sendable {
  /// A winner: its score, and where its id's bytes lie.
  public struct Entry: Sendable, Equatable {
    public var item: ScoredItem
    /// Index into `lists`.
    public var list: Int32
    /// Index within that list.
    public var position: Int32
    public init(item: ScoredItem, list: Int32, position: Int32) {
      self.item = item
      self.list = list
      self.position = position
    }
  }
  public var release: ModelVersion
  public var entries: [Entry]
  /// The workers' lists, kept for the winners' ids.
  public var lists: [ScoredList]
  /// What the contributions of explained items are called; empty = nothing is explained.
  public var contributionNames: [String] = []
  /// True when the user was unknown and the bundle's cold-start vector was used; `nil` where no user was asked about.
  public var coldStart: Bool?
  public var coverage: Coverage
  /// The R each shard was asked for, and its share of what the request wanted.
  public var candidates: Int
  public var quality: Double
  /// Ids of the request that this version does not know (`/v1/rank` items, `recent_items`).
  public var unknown: [String]
  public var requestID: String
  public var took: Duration

  public init(
    release: ModelVersion, entries: [Entry], lists: [ScoredList], coldStart: Bool?, coverage: Coverage, candidates: Int,
    quality: Double, unknown: [String], requestID: String, took: Duration
  ) {
    self.release = release
    self.entries = entries
    self.lists = lists
    self.coldStart = coldStart
    self.coverage = coverage
    self.candidates = candidates
    self.quality = quality
    self.unknown = unknown
    self.requestID = requestID
    self.took = took
  }

  public func id(_ entry: Entry) -> String { lists[Int(entry.list)].ids[Int(entry.position)] }
}
