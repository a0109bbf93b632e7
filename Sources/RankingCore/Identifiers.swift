// The names of things, each its own type so that a shard is never handed where a worker is meant.

/// An item's position in the catalogue, `0..<N`, the same whatever the sharding.
public struct ItemOrdinal: RawRepresentable, Hashable, Comparable, Sendable {
  public let rawValue: UInt64
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable public init(_ value: Int) { self.rawValue = UInt64(value) }
  @inlinable public static func < (a: ItemOrdinal, b: ItemOrdinal) -> Bool { a.rawValue < b.rawValue }
}

/// One of the S item slices of a bundle, `0..<S`.
public struct ShardID: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
  @inlinable public init(_ value: Int) { self.rawValue = UInt32(value) }
  @inlinable public var index: Int { Int(rawValue) }
  @inlinable public static func < (a: ShardID, b: ShardID) -> Bool { a.rawValue < b.rawValue }
  public var description: String { "\(rawValue)" }

  /// The shard that owns an item: xxHash64 of its id's UTF-8 bytes, seed 0, modulo S. The manifest names this hash
  /// (`xxh64`), because a slice file is only right under the hash it was built with.
  @inlinable
  public static func owner(of itemID: String, shards: Int) -> ShardID {
    ShardID(rawValue: UInt32(StableHash.xxh64(itemID) % UInt64(shards)))
  }
}

/// A worker as this process numbers it: dense, given in the order of arrival, never sent over the wire.
public struct WorkerID: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
  @inlinable public init(_ value: Int) { self.rawValue = UInt32(value) }
  @inlinable public var index: Int { Int(rawValue) }
  @inlinable public static func < (a: WorkerID, b: WorkerID) -> Bool { a.rawValue < b.rawValue }
  public var description: String { "worker#\(rawValue)" }
}

/// A model and one of its versions: what every answer is made from exactly one of.
public struct ModelVersion: Hashable, Comparable, Sendable, CustomStringConvertible {
  public var model: String
  public var version: String
  public init(model: String, version: String) {
    self.model = model
    self.version = version
  }
  public static func < (a: ModelVersion, b: ModelVersion) -> Bool {
    a.model != b.model ? a.model < b.model : a.version < b.version
  }
  public var description: String { "\(model)/\(version)" }

  /// Whether `name` may be a model's or version's name: 1–64 of `A–Z a–z 0–9 . _ -`, not starting with a dot, so that
  /// it is a directory name on every file system and a label value in every metric.
  public static func isValidName(_ name: String) -> Bool {
    let bytes = name.utf8
    guard (1...64).contains(bytes.count), bytes.first != UInt8(ascii: ".") else { return false }
    return bytes.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
        true
      default: false
      }
    }
  }
}

/// An item id's length, in UTF-8 bytes.
public let itemIDLengthRange = 1...255
