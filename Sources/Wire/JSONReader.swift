import RankingCore

// A strict RFC 8259 pull reader over bytes: no tree, no boxes. The caller asks for what it expects and gets it or an
// error that says where.

public struct JSONError: Error, Sendable, Equatable {
  public var offset: Int
  public var reason: String
  public init(offset: Int, reason: String) {
    self.offset = offset
    self.reason = reason
  }
}

public struct JSONReader {
  public enum Kind: String, Sendable { case object, array, string, number, boolean, null }
  private let bytes: UnsafeRawBufferPointer
  public private(set) var offset = 0
  private var depth = 0

  public init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  private func fail(_ reason: String) -> JSONError { JSONError(offset: offset, reason: reason) }

  private mutating func skipSpace() {
    while offset < bytes.count {
      switch bytes[offset] {
      case 0x20, 0x09, 0x0A, 0x0D: offset += 1
      default: return
      }
    }
  }
  private mutating func peek() throws(JSONError) -> UInt8 {
    skipSpace()
    guard offset < bytes.count else { throw fail("the text ends too early") }
    return bytes[offset]
  }

  /// What comes next, without taking it.
  public mutating func kind() throws(JSONError) -> Kind {
    switch try peek() {
    case UInt8(ascii: "{"): return .object
    case UInt8(ascii: "["): return .array
    case UInt8(ascii: "\""): return .string
    case UInt8(ascii: "t"), UInt8(ascii: "f"): return .boolean
    case UInt8(ascii: "n"): return .null
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return .number
    default: throw fail("this starts no JSON value")
    }
  }

  public mutating func expectEnd() throws(JSONError) {
    skipSpace()
    guard offset == bytes.count else { throw fail("something follows the value") }
  }

  private mutating func enter(_ open: UInt8) throws(JSONError) {
    guard try peek() == open else { throw fail("expected \(Unicode.Scalar(open))") }
    depth += 1
    guard depth <= RequestLimit.jsonDepth else { throw fail("nested deeper than \(RequestLimit.jsonDepth)") }
    offset += 1
  }

  /// Starts an object or an array; then `nextKey` or `nextElement` until it says that there is no more.
  public mutating func beginObject() throws(JSONError) { try enter(UInt8(ascii: "{")) }
  public mutating func beginArray() throws(JSONError) { try enter(UInt8(ascii: "[")) }

  /// The next key of the object that was begun; `nil` at its end. `first` is true for the first call.
  public mutating func nextKey(first: Bool) throws(JSONError) -> String? {
    guard try next(close: UInt8(ascii: "}"), first: first) else { return nil }
    let key = try string()
    guard try peek() == UInt8(ascii: ":") else { throw fail("expected : after the key") }
    offset += 1
    return key
  }
  public mutating func nextElement(first: Bool) throws(JSONError) -> Bool {
    try next(close: UInt8(ascii: "]"), first: first)
  }
  private mutating func next(close: UInt8, first: Bool) throws(JSONError) -> Bool {
    let byte = try peek()
    if byte == close {
      offset += 1
      depth -= 1
      return false
    }
    if first { return true }
    guard byte == UInt8(ascii: ",") else { throw fail("expected , or \(Unicode.Scalar(close))") }
    offset += 1
    guard try peek() != close else { throw fail("a comma before \(Unicode.Scalar(close))") }
    return true
  }

  public mutating func string() throws(JSONError) -> String {
    guard try peek() == UInt8(ascii: "\"") else { throw fail("expected a string") }
    offset += 1
    let start = offset
    while offset < bytes.count {
      let byte = bytes[offset]
      if byte == UInt8(ascii: "\"") {
        let raw = UnsafeRawBufferPointer(rebasing: bytes[start..<offset])
        guard let text = String(text: raw) else { throw fail("not UTF-8") }
        offset += 1
        return text
      }
      if byte == UInt8(ascii: "\\") { return try escapedString(from: start) }
      guard byte >= 0x20 else { throw fail("a control character within a string; escape it") }
      offset += 1
    }
    throw fail("the string does not end")
  }

  private mutating func escapedString(from start: Int) throws(JSONError) -> String {
    var out = [UInt8](bytes[start..<offset])
    while offset < bytes.count {
      let byte = bytes[offset]
      offset += 1
      switch byte {
      case UInt8(ascii: "\""):
        guard let text = String(validating: out, as: UTF8.self) else { throw fail("not UTF-8") }
        return text
      case UInt8(ascii: "\\"): try escape(into: &out)
      case 0..<0x20: throw fail("a control character within a string; escape it")
      default: out.append(byte)
      }
    }
    throw fail("the string does not end")
  }

  private mutating func escape(into out: inout [UInt8]) throws(JSONError) {
    guard offset < bytes.count else { throw fail("the string does not end") }
    let byte = bytes[offset]
    offset += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): out.append(byte)
    case UInt8(ascii: "b"): out.append(8)
    case UInt8(ascii: "f"): out.append(12)
    case UInt8(ascii: "n"): out.append(10)
    case UInt8(ascii: "r"): out.append(13)
    case UInt8(ascii: "t"): out.append(9)
    case UInt8(ascii: "u"):
      var code = try hex4()
      if (0xD800...0xDBFF).contains(code) {
        guard offset + 1 < bytes.count, bytes[offset] == UInt8(ascii: "\\"), bytes[offset + 1] == UInt8(ascii: "u")
        else {
          throw fail("half a surrogate pair")
        }
        offset += 2
        let low = try hex4()
        guard (0xDC00...0xDFFF).contains(low) else { throw fail("half a surrogate pair") }
        code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
      }
      guard let scalar = Unicode.Scalar(code) else { throw fail("half a surrogate pair") }
      out.append(contentsOf: UTF8.encode(scalar)!)
    default: throw fail("unknown escape")
    }
  }
  private mutating func hex4() throws(JSONError) -> UInt32 {
    guard offset + 4 <= bytes.count else { throw fail("\\u needs four hex digits") }
    var value: UInt32 = 0
    for _ in 0..<4 {
      let digit: UInt8
      switch bytes[offset] {
      case let byte where (0x30...0x39).contains(byte): digit = byte - 0x30
      case let byte where (0x41...0x46).contains(byte): digit = byte - 0x41 + 10
      case let byte where (0x61...0x66).contains(byte): digit = byte - 0x61 + 10
      default: throw fail("\\u needs four hex digits")
      }
      value = value << 4 | UInt32(digit)
      offset += 1
    }
    return value
  }

  /// The text of a number, checked against the grammar.
  private mutating func numberText() throws(JSONError) -> Substring {
    _ = try peek()
    let start = offset
    func digit(_ at: Int) -> Bool { at < bytes.count && (0x30...0x39).contains(bytes[at]) }
    var at = offset
    if at < bytes.count, bytes[at] == UInt8(ascii: "-") { at += 1 }
    guard digit(at) else { throw fail("expected a number") }
    if bytes[at] == UInt8(ascii: "0") {
      at += 1
    } else {
      while digit(at) { at += 1 }
    }
    if at < bytes.count, bytes[at] == UInt8(ascii: ".") {
      at += 1
      guard digit(at) else { throw fail("a digit must follow the point") }
      while digit(at) { at += 1 }
    }
    if at < bytes.count, bytes[at] | 0x20 == UInt8(ascii: "e") {
      at += 1
      if at < bytes.count, bytes[at] == UInt8(ascii: "+") || bytes[at] == UInt8(ascii: "-") { at += 1 }
      guard digit(at) else { throw fail("a digit must follow the exponent") }
      while digit(at) { at += 1 }
    }
    guard !digit(at) else { throw fail("a number must not start with 0") }
    guard at - start <= 400 else { throw fail("a number of \(at - start) characters") }
    offset = at
    return Substring(decoding: UnsafeRawBufferPointer(rebasing: bytes[start..<at]), as: UTF8.self)
  }
  public mutating func double() throws(JSONError) -> Double {
    let text = try numberText()
    guard let value = Double(text), value.isFinite else { throw fail("\(text) is beyond what a number can be") }
    return value
  }
  /// Rounded once, straight to float32.
  public mutating func float() throws(JSONError) -> Float {
    let text = try numberText()
    guard let value = Float(text), value.isFinite else { throw fail("\(text) is beyond float32") }
    return value
  }
  public mutating func integer() throws(JSONError) -> Int {
    let text = try numberText()
    guard let value = Int(text) else { throw fail("\(text) is not a whole number") }
    return value
  }
  public mutating func boolean() throws(JSONError) -> Bool {
    if try literal("true") { return true }
    if try literal("false") { return false }
    throw fail("expected true or false")
  }
  public mutating func null() throws(JSONError) {
    guard try literal("null") else { throw fail("expected null") }
  }
  private mutating func literal(_ word: StaticString) throws(JSONError) -> Bool {
    _ = try peek()
    let count = word.utf8CodeUnitCount
    guard offset + count <= bytes.count else { return false }
    for index in 0..<count where bytes[offset + index] != word.utf8Start[index] { return false }
    offset += count
    return true
  }

  /// Passes over one value of any kind, checking it.
  public mutating func skipValue() throws(JSONError) {
    switch try kind() {
    case .object:
      try beginObject()
      var first = true
      while try nextKey(first: first) != nil {
        first = false
        try skipValue()
      }
    case .array:
      try beginArray()
      var first = true
      while try nextElement(first: first) {
        first = false
        try skipValue()
      }
    case .string: _ = try string()
    case .number: _ = try numberText()
    case .boolean: _ = try boolean()
    case .null: try null()
    }
  }
}
