// A sorted list of items with their ids, as columns: what a worker sends and a coordinator merges. Ids stay bytes in
// one block from the worker's slice to the client's socket; only the winners' bytes are ever copied.

/// Many short texts in one block of bytes.
public struct TextColumn: Sendable, Equatable {
  /// All texts, one after the other, UTF-8.
  public var bytes: [UInt8] = []
  /// Where each text ends in `bytes`.
  public var ends: [UInt32] = []

  public init() {}
  public var count: Int { ends.count }

  @inlinable
  public func range(_ index: Int) -> Range<Int> {
    (index == 0 ? 0 : Int(ends[index - 1]))..<Int(ends[index])
  }
  @inlinable
  public mutating func append(_ text: UnsafeRawBufferPointer) {
    bytes.append(contentsOf: text)
    ends.append(UInt32(bytes.count))
  }
  public mutating func append(_ text: String) {
    bytes.append(contentsOf: text.utf8)
    ends.append(UInt32(bytes.count))
  }
  /// The text at `index`, copied.
  public subscript(index: Int) -> String { String(decoding: bytes[range(index)], as: UTF8.self) }
}

/// Items best first: columns of one length.
public struct ScoredList: Sendable, Equatable {
  public var ordinals: [UInt64] = []
  public var scores: [Float] = []
  public var ids = TextColumn()
  /// The items' groups, where a cap was asked for; NaN = none. Else empty.
  public var groups: [Float] = []
  /// Item after item, where they were asked for: vectors, and values of columns (NaN = missing). Else empty.
  public var vectors: [Float] = []
  public var values: [Float] = []
  /// Of all items, where they were asked for.
  public var explanations: Explanations?

  public init() {}
  public var count: Int { ordinals.count }

  @inlinable
  public subscript(index: Int) -> ScoredItem {
    ScoredItem(score: scores[index], ordinal: ItemOrdinal(rawValue: ordinals[index]))
  }
  public mutating func append(_ item: ScoredItem, id: UnsafeRawBufferPointer) {
    ordinals.append(item.ordinal.rawValue)
    scores.append(item.score)
    ids.append(id)
  }

  /// NaN is no group, wherever it comes from: lists are equal when their items' groups are.
  public static func == (a: ScoredList, b: ScoredList) -> Bool {
    func alike(_ a: [Float], _ b: [Float]) -> Bool { a.elementsEqual(b) { $0 == $1 || ($0.isNaN && $1.isNaN) } }
    return a.ordinals == b.ordinals && a.scores == b.scores && a.ids == b.ids && alike(a.groups, b.groups)
      && a.vectors == b.vectors && alike(a.values, b.values) && a.explanations == b.explanations
  }

  /// Whether the columns have one length, no score is NaN and the order is the total order: what a reply from another
  /// process must satisfy before it may be merged.
  public var isWellFormed: Bool {
    guard scores.count == count, ids.count == count, groups.isEmpty || groups.count == count else { return false }
    for index in 0..<count where scores[index].isNaN { return false }
    for index in 1..<max(1, count) where !self[index - 1].precedes(self[index]) { return false }
    return true
  }
}
