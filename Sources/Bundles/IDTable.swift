import RankingCore

/// Ids numbered `0..<count` in the order of their arrival, found again by their bytes.
///
/// Two ids are one only when their bytes are: Swift's `String` also equates what Unicode calls canonically equivalent
/// ("é" as one code point or as two), which a shop's database does not. Ids lie in one block; a power-of-two table of
/// slots, linear probing over xxHash64, holds their numbers plus one.
public struct IDTable: Sendable {
  private var ids = [UInt8]()
  private var ends = [Int]()
  private var slots: [UInt32]

  public init(minimumCapacity: Int = 0) {
    var capacity = 16
    while capacity < minimumCapacity * 2 { capacity *= 2 }
    slots = [UInt32](repeating: 0, count: capacity)
  }

  public var count: Int { ends.count }

  /// The id numbered `index`, copied.
  public subscript(index: Int) -> String { withBytes(of: index) { String(decoding: $0, as: UTF8.self) } }

  public func withBytes<Result>(of index: Int, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    ids.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[range(index)])) }
  }

  /// All ids, in order.
  public var strings: [String] { (0..<count).map { self[$0] } }

  /// The number of the id with these bytes.
  public func find(_ id: UnsafeRawBufferPointer) -> Int? {
    let slot = place(of: id)
    return slots[slot] == 0 ? nil : Int(slots[slot]) - 1
  }

  public func find(_ id: String) -> Int? {
    var id = id
    return id.withUTF8 { find(UnsafeRawBufferPointer($0)) }
  }

  /// The id's number, given now if it is new.
  @discardableResult
  public mutating func insert(_ id: UnsafeRawBufferPointer) -> (index: Int, inserted: Bool) {
    var slot = place(of: id)
    if slots[slot] != 0 { return (Int(slots[slot]) - 1, false) }
    if (count + 1) * 2 > slots.count {
      grow()
      slot = place(of: id)
    }
    precondition(count < Int(UInt32.max) - 1, "an id table holds fewer than 2^32 ids")
    ids.append(contentsOf: id)
    ends.append(ids.count)
    slots[slot] = UInt32(count)
    return (count - 1, true)
  }

  @discardableResult
  public mutating func insert(_ id: String) -> (index: Int, inserted: Bool) {
    var id = id
    return id.withUTF8 { insert(UnsafeRawBufferPointer($0)) }
  }

  private func range(_ index: Int) -> Range<Int> { (index == 0 ? 0 : ends[index - 1])..<ends[index] }

  /// The slot that holds the id, or the free one where it belongs. There is always a free one: at most half are taken.
  private func place(of id: UnsafeRawBufferPointer) -> Int {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: StableHash.xxh64(id)) & mask
    return ids.withUnsafeBytes { bytes in
      while slots[slot] != 0 {
        let held = UnsafeRawBufferPointer(rebasing: bytes[range(Int(slots[slot]) - 1)])
        if held.count == id.count, held.elementsEqual(id) { break }
        slot = (slot + 1) & mask
      }
      return slot
    }
  }

  private mutating func grow() {
    var larger = [UInt32](repeating: 0, count: slots.count * 2)
    let mask = larger.count - 1
    for index in 0..<count {
      var slot = withBytes(of: index) { Int(truncatingIfNeeded: StableHash.xxh64($0)) } & mask
      while larger[slot] != 0 { slot = (slot + 1) & mask }
      larger[slot] = UInt32(index + 1)
    }
    slots = larger
  }
}
