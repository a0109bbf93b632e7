/// Appends JSON to bytes. The caller keeps the grammar; this keeps texts and numbers legal.
public struct JSONWriter: Sendable {
  public var bytes: [UInt8]
  public init(reserving capacity: Int = 1024) {
    bytes = []
    bytes.reserveCapacity(capacity)
  }

  /// Writes at the end of a buffer that the caller keeps; nothing is copied.
  public static func append(to buffer: inout [UInt8], _ body: (inout JSONWriter) -> Void) {
    var writer = JSONWriter(reserving: 0)
    swap(&writer.bytes, &buffer)
    body(&writer)
    swap(&writer.bytes, &buffer)
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
    var isPlain = true
    for byte in utf8 where byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { isPlain = false }
    if isPlain {
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
    append(value.description)
  }
  public mutating func number(_ value: Double) {
    precondition(value.isFinite, "JSON has no \(value)")
    append(value.description)
  }
  public mutating func number(_ value: Int) {
    // Digits from the last to the first; the magnitude of any Int has at most 19.
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { text in
      var start = text.count
      var rest = value.magnitude
      repeat {
        start -= 1
        text[start] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
        rest /= 10
      } while rest > 0
      if value < 0 {
        start -= 1
        text[start] = UInt8(ascii: "-")
      }
      bytes.append(contentsOf: UnsafeBufferPointer(rebasing: text[start...]))
    }
  }
  private mutating func append(_ text: String) {
    var text = text
    text.withUTF8 { bytes.append(contentsOf: $0) }
  }
  public mutating func boolean(_ value: Bool) { value ? literal("true") : literal("false") }
  /// With exactly three decimals.
  public mutating func milliseconds(_ value: Double) {
    let thousandths = Int((max(0, value) * 1000).rounded())
    number(thousandths / 1000)
    bytes.append(UInt8(ascii: "."))
    let rest = thousandths % 1000
    bytes.append(UInt8(ascii: "0") + UInt8(rest / 100))
    bytes.append(UInt8(ascii: "0") + UInt8(rest / 10 % 10))
    bytes.append(UInt8(ascii: "0") + UInt8(rest % 10))
  }
}
