/// Whether bytes are UTF-8 as the Unicode standard defines it (table 3-7): no overlong forms, no surrogates, nothing
/// above U+10FFFF.
enum UTF8Check {
  /// The place of the first byte that begins no well-formed sequence; `nil` when all is well.
  static func firstInvalidByte(_ bytes: UnsafeRawBufferPointer) -> Int? {
    var index = 0
    let count = bytes.count
    while index < count {
      let lead = bytes[index]
      if lead < 0x80 {
        index += 1
        continue
      }
      let (length, second): (Int, ClosedRange<UInt8>)
      switch lead {
      case 0xC2...0xDF: (length, second) = (2, 0x80...0xBF)
      case 0xE0: (length, second) = (3, 0xA0...0xBF)
      case 0xED: (length, second) = (3, 0x80...0x9F)
      case 0xE1...0xEF: (length, second) = (3, 0x80...0xBF)
      case 0xF0: (length, second) = (4, 0x90...0xBF)
      case 0xF1...0xF3: (length, second) = (4, 0x80...0xBF)
      case 0xF4: (length, second) = (4, 0x80...0x8F)
      default: return index
      }
      guard count - index >= length, second ~= bytes[index + 1] else { return index }
      for tail in 2..<max(2, length) where !(0x80...0xBF ~= bytes[index + tail]) { return index }
      index += length
    }
    return nil
  }
}
