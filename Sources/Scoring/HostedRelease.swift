import RankingCore

/// One version as a worker holds it: its slices that are in memory, and its ranker. A value: a leg keeps what it
/// started with while slices come and go.
public struct HostedRelease: Sendable {
  public let release: ModelVersion
  /// S of the bundle.
  public let shardCount: Int
  public let dimension: Int
  public let ranker: Ranker
  /// Of the bundle that all of it comes from; 0 = unknown.
  public let fingerprint: UInt64
  /// By shard; `nil` = not held here.
  public private(set) var slices: [Slice?]

  public init(release: ModelVersion, shardCount: Int, dimension: Int, ranker: Ranker = .none, fingerprint: UInt64 = 0) {
    self.fingerprint = fingerprint
    self.release = release
    self.shardCount = shardCount
    self.dimension = dimension
    self.ranker = ranker
    slices = Array(repeating: nil, count: max(0, shardCount))
  }

  /// Takes a slice in, in place of the one it may already hold of that shard.
  ///
  /// - Throws: when the slice is of another release or shape, or damaged; says what differs.
  public mutating func add(_ slice: Slice) throws(HostingError) {
    let name = "\(slice.release) shard \(slice.shard)"
    guard slice.release == release else { throw HostingError("\(name) does not belong to \(release)") }
    guard slice.shardCount == shardCount, slice.shard.index < shardCount else {
      throw HostingError("\(name) of \(slice.shardCount) does not fit a release of \(shardCount) shards")
    }
    guard slice.dimension == dimension else {
      throw HostingError("\(name) has vectors of \(slice.dimension), the release has \(dimension)")
    }
    if let widths = ranker.widths, widths.item != slice.columns.count {
      throw HostingError("\(name) has \(slice.columns.count) item columns, the ranker was bound to \(widths.item)")
    }
    if let fault = slice.fault { throw HostingError("\(name): \(fault)") }
    slices[slice.shard.index] = slice
  }

  public mutating func remove(_ shard: ShardID) {
    if shard.index < slices.count { slices[shard.index] = nil }
  }

  @inline(__always)
  public func slice(_ shard: ShardID) -> Slice? {
    shard.index < slices.count ? slices[shard.index] : nil
  }

  /// The shards held, ascending.
  public var shards: [ShardID] { slices.indices.filter { slices[$0] != nil }.map { ShardID($0) } }

  public var memoryFootprint: Int { slices.reduce(0) { $0 + ($1?.memoryFootprint ?? 0) } }
}

/// Why a slice cannot be held: one line.
public struct HostingError: Error, Sendable, Equatable, CustomStringConvertible {
  public var description: String
  init(_ description: String) { self.description = description }
}
