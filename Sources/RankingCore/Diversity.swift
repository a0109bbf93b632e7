// At most so many items of a group in one answer.
//
//     {"diversity": {"field": "brand", "max": 2}}      a₁ 9  a₂ 8  a₃ 7  b₁ 6  –₁ 5   ─►   a₁ a₂ b₁ –₁
//
// The list is walked from the best item on, and one whose group is full is passed over. An item without a value belongs
// to no group and is never passed over. What is passed over in one shard's list would be in the whole list, so the cap
// of the joined capped lists is the cap of all items: capping loses nothing under sharding.

public struct Diversity: Sendable, Equatable {
  public var field: String
  public var max: Int
  public init(field: String, max: Int) {
    self.field = field
    self.max = max
  }
  public static let maxRange = 1...1000
}

/// A cap bound to a version's item columns.
public struct GroupCap: Sendable, Equatable {
  public var column: Int
  public var max: Int
  public init(column: Int, max: Int) {
    self.column = column
    self.max = max
  }

  /// - Throws: `.invalidArgument` for a field that is no item column; says which are.
  public init(_ diversity: Diversity, columns: [Column]) throws(RankingError) {
    guard let index = columns.firstIndex(where: { $0.name == diversity.field }) else {
      let names = columns.isEmpty ? "this version has none" : columns.map(\.name).joined(separator: ", ")
      throw RankingError(
        .invalidArgument, "\"diversity.field\": \"\(diversity.field)\" is no item column; allowed: \(names)")
    }
    self.init(column: index, max: diversity.max)
  }
}

/// How many of each group were taken so far.
public struct GroupCounts: Sendable {
  private var counts: [UInt32: Int] = [:]
  private let max: Int
  public init(max: Int) { self.max = max }

  public mutating func removeAll() { counts.removeAll(keepingCapacity: true) }

  /// Whether an item of this group may be taken; counts it if so.
  ///
  /// - Parameter group: the column's value; NaN = no group.
  public mutating func takes(_ group: Float) -> Bool {
    if group.isNaN { return true }
    // −0 is 0.
    let key = (group + 0).bitPattern
    let count = counts[key, default: 0]
    guard count < max else { return false }
    counts[key] = count + 1
    return true
  }
}
