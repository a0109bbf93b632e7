// A header list as bytes in one block: nothing is made a String unless somebody asks for it, and the block is used
// again for the next request.

public struct HeaderBlock: Sendable {
  private var bytes: [UInt8] = []
  /// Where each name and each value ends.
  private var ends: [(name: Int, value: Int)] = []

  public init() {}
  public var count: Int { ends.count }

  mutating func removeAll() {
    bytes.removeAll(keepingCapacity: true)
    ends.removeAll(keepingCapacity: true)
  }
  mutating func append(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
    bytes.append(contentsOf: name)
    let nameEnd = bytes.count
    bytes.append(contentsOf: value)
    ends.append((nameEnd, bytes.count))
  }

  private func valueRange(_ name: StaticString) -> Range<Int>? {
    var start = 0
    for end in ends {
      if end.name - start == name.utf8CodeUnitCount, Self.equal(bytes, start, name) { return end.name..<end.value }
      start = end.value
    }
    return nil
  }
  private static func equal(_ bytes: [UInt8], _ start: Int, _ text: StaticString) -> Bool {
    for index in 0..<text.utf8CodeUnitCount where bytes[start + index] != text.utf8Start[index] { return false }
    return true
  }

  /// The first value of a header, by its lower-case name.
  public subscript(name: StaticString) -> String? {
    valueRange(name).map { String(decoding: bytes[$0], as: UTF8.self) }
  }
  /// Whether a header has exactly this value; no String is made.
  public func has(_ name: StaticString, _ value: StaticString) -> Bool {
    guard let range = valueRange(name), range.count == value.utf8CodeUnitCount else { return false }
    return Self.equal(bytes, range.lowerBound, value)
  }
  public func hasPrefix(_ name: StaticString, _ value: StaticString) -> Bool {
    guard let range = valueRange(name), range.count >= value.utf8CodeUnitCount else { return false }
    return Self.equal(bytes, range.lowerBound, value)
  }
}
