import Glibc

/// Decimal numbers as tables hold them: `-12`, `3.5`, `1e-9`. No hexadecimal, no `inf`, no `nan`, no spaces.
public enum DecimalNumber {
  /// The number nearest to the text, or `nil` when it is no finite decimal number.
  ///
  /// Up to 15 digits and a power of ten up to 22 are exact in one float64 operation (Clinger 1990); the rest goes to
  /// `strtod`.
  public static func parse(_ bytes: UnsafeRawBufferPointer) -> Double? {
    var index = 0
    let count = bytes.count
    guard count > 0, count <= textBytesMax else { return nil }
    let negative = bytes[0] == UInt8(ascii: "-")
    if negative || bytes[0] == UInt8(ascii: "+") { index = 1 }

    var mantissa: UInt64 = 0
    var digits = 0
    var exponent = 0
    func digit(_ at: Int) -> UInt64? {
      guard at < count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[at]) else { return nil }
      return UInt64(bytes[at] - UInt8(ascii: "0"))
    }
    let wholeStart = index
    while let value = digit(index) {
      mantissa = mantissa &* 10 &+ value
      if mantissa != 0 { digits += 1 }
      index += 1
    }
    var seen = index - wholeStart
    if index < count, bytes[index] == UInt8(ascii: ".") {
      index += 1
      let start = index
      while let value = digit(index) {
        mantissa = mantissa &* 10 &+ value
        if mantissa != 0 { digits += 1 }
        exponent -= 1
        index += 1
      }
      seen += index - start
    }
    guard seen > 0 else { return nil }
    if index < count, bytes[index] | 0x20 == UInt8(ascii: "e") {
      index += 1
      guard index < count else { return nil }
      let minus = bytes[index] == UInt8(ascii: "-")
      if minus || bytes[index] == UInt8(ascii: "+") { index += 1 }
      var power = 0
      guard digit(index) != nil else { return nil }
      while let value = digit(index) {
        power = min(100_000, power * 10 + Int(value))
        index += 1
      }
      exponent += minus ? -power : power
    }
    guard index == count else { return nil }

    if digits <= 15, (-22...22).contains(exponent) {
      let magnitude = exponent < 0 ? Double(mantissa) / powers[-exponent] : Double(mantissa) * powers[exponent]
      return negative ? -magnitude : magnitude
    }
    let value = withUnsafeTemporaryAllocation(of: CChar.self, capacity: count + 1) { text in
      for position in 0..<count { text[position] = CChar(bitPattern: bytes[position]) }
      text[count] = 0
      return strtod(text.baseAddress.unsafelyUnwrapped, nil)
    }
    return value.isFinite ? value : nil
  }

  public static func parse(_ text: String) -> Double? {
    var text = text
    return text.withUTF8 { parse(UnsafeRawBufferPointer($0)) }
  }

  static let textBytesMax = 400
  private static let powers: [Double] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
  ]
}
