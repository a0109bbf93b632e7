import RankingCore

// One line of history as it is kept, in a file or in etcd:
//
//     {"sequence":7,"id":"41c2…","sum":"9e07…","entry":{"who":"ann","what":"promote"}}
//
// The id is drawn for each commit: whoever lost the reply to one finds it again by that. The sum (xxHash64) covers
// sequence, id and entry. Lines are read by exactly this shape, not as JSON: the entry is whatever its writer says.

struct HistoryLine: Equatable {
  var sequence: UInt64
  var id: UInt64
  var entry: [UInt8]

  /// A line without its end, at most.
  static let bytesMax = StoreLimit.entryBytes + 128

  private static let sequenceKey = Array("{\"sequence\":".utf8)
  private static let idKey = Array(",\"id\":\"".utf8)
  private static let sumKey = Array("\",\"sum\":\"".utf8)
  private static let entryKey = Array("\",\"entry\":".utf8)

  private var sum: UInt64 {
    var hash = StreamingXXH64()
    withUnsafeBytes(of: (sequence.littleEndian, id.littleEndian)) { hash.update($0) }
    entry.withUnsafeBytes { hash.update($0) }
    return hash.digest()
  }

  /// Without the end of the line.
  var bytes: [UInt8] {
    Self.sequenceKey + Array("\(sequence)".utf8) + Self.idKey + hex(id) + Self.sumKey + hex(sum) + Self.entryKey + entry
      + [UInt8(ascii: "}")]
  }

  init(sequence: UInt64, id: UInt64, entry: [UInt8]) {
    self.sequence = sequence
    self.id = id
    self.entry = entry
  }

  /// nil when the bytes are not a whole line, or its sum does not match.
  init?(_ bytes: ArraySlice<UInt8>) {
    var rest = bytes
    func take(_ key: [UInt8]) -> Bool {
      guard rest.starts(with: key) else { return false }
      rest = rest.dropFirst(key.count)
      return true
    }
    func takeHex() -> UInt64? {
      let digits = rest.prefix(16)
      rest = rest.dropFirst(16)
      return number(hex: digits)
    }
    guard take(Self.sequenceKey) else { return nil }
    let digits = rest.prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    rest = rest.dropFirst(digits.count)
    guard let sequence = UInt64(String(decoding: digits, as: UTF8.self)), take(Self.idKey), let id = takeHex(),
      take(Self.sumKey), let sum = takeHex(), take(Self.entryKey), rest.last == UInt8(ascii: "}")
    else { return nil }
    self.init(sequence: sequence, id: id, entry: Array(rest.dropLast()))
    guard sum == self.sum else { return nil }
  }
}

/// Sixteen digits.
func hex(_ value: UInt64) -> [UInt8] {
  (0..<16).map { index in
    let digit = UInt8(truncatingIfNeeded: value >> (60 - 4 * index)) & 15
    return digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10
  }
}

/// The value of exactly sixteen lower-case digits.
func number(hex digits: ArraySlice<UInt8>) -> UInt64? {
  guard digits.count == 16 else { return nil }
  var value: UInt64 = 0
  for digit in digits {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | UInt64(digit - UInt8(ascii: "0"))
    case UInt8(ascii: "a")...UInt8(ascii: "f"): value = value << 4 | UInt64(digit - UInt8(ascii: "a") + 10)
    default: return nil
    }
  }
  return value
}
