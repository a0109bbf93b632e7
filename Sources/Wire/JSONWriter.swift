/// Appends JSON to bytes. The caller keeps the grammar; this keeps texts and numbers legal.
public struct JSONWriter: Sendable {
  public var bytes: [UInt8]
  public init(reserving capacity: Int = 1024) {
    bytes = []
    bytes.reserveCapacity(capacity)
  }

  /// Text that is JSON already.
  @inlinable
  public mutating func literal(_ text: StaticString) {
    bytes.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }
  public mutating func string(_ text: String) {
    var text = text
    text.withUTF8 { string(utf8: UnsafeRawBufferPointer($0)) }
  }
  /// - Parameter utf8: valid UTF-8.
  public mutating func string(utf8: UnsafeRawBufferPointer) {
    bytes.append(UInt8(ascii: "\""))
    if utf8.allSatisfy({ $0 >= 0x20 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }) {
      bytes.append(contentsOf: utf8)
    } else {
      for byte in utf8 { escaped(byte) }
    }
    bytes.append(UInt8(ascii: "\""))
  }
  private mutating func escaped(_ byte: UInt8) {
    switch byte {
    case UInt8(ascii: "\""): literal("\\\"")
    case UInt8(ascii: "\\"): literal("\\\\")
    case 8: literal("\\b")
    case 9: literal("\\t")
    case 10: literal("\\n")
    case 12: literal("\\f")
    case 13: literal("\\r")
    case 0..<0x20:
      literal("\\u00")
      for digit in [byte >> 4, byte & 15] { bytes.append(digit < 10 ? 0x30 + digit : 0x61 + digit - 10) }
    default: bytes.append(byte)
    }
  }
  /// The shortest text that gives back the same float32; finite numbers only.
  public mutating func number(_ value: Float) {
    precondition(value.isFinite, "JSON has no \(value)")
    bytes.append(contentsOf: value.description.utf8)
  }
  public mutating func number(_ value: Double) {
    precondition(value.isFinite, "JSON has no \(value)")
    bytes.append(contentsOf: value.description.utf8)
  }
  public mutating func number(_ value: Int) { bytes.append(contentsOf: value.description.utf8) }
  public mutating func boolean(_ value: Bool) { value ? literal("true") : literal("false") }
  /// With exactly three decimals.
  public mutating func milliseconds(_ value: Double) {
    let thousandths = Int((max(0, value) * 1000).rounded())
    number(thousandths / 1000)
    bytes.append(UInt8(ascii: "."))
    let rest = thousandths % 1000
    for digit in [rest / 100, rest / 10 % 10, rest % 10] { bytes.append(UInt8(ascii: "0") + UInt8(digit)) }
  }
}
