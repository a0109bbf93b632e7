import RankingCore

// Protocol Buffers wire format (proto3), written and read by hand: a few message types, hot on every leg, and bytes
// from the network that must never trap or allocate beyond their own size.
//
//     key = field number << 3 | wire type      0 varint   1 eight bytes   2 length + bytes   5 four bytes

/// Bytes that are not the message they should be.
public enum WireError: Error, Sendable, Equatable {
  case truncated
  case varintTooLong
  case badKey
  case wrongWireType(field: UInt32)
  case invalidUTF8(field: UInt32)
  case outOfRange(field: UInt32, String)
}

public struct ProtoWriter: Sendable {
  public private(set) var bytes: [UInt8]
  public init(reserving capacity: Int = 256) {
    bytes = []
    bytes.reserveCapacity(capacity)
  }

  /// Writes at the end of a buffer that the caller keeps; nothing is copied.
  public static func append(to buffer: inout [UInt8], _ body: (inout ProtoWriter) -> Void) {
    var writer = ProtoWriter(continuing: [])
    swap(&writer.bytes, &buffer)
    body(&writer)
    swap(&writer.bytes, &buffer)
  }
  private init(continuing bytes: [UInt8]) { self.bytes = bytes }

  @usableFromInline
  mutating func varint(_ value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }
  private mutating func key(_ field: UInt32, _ type: UInt32) { varint(UInt64(field << 3 | type)) }

  /// Zero is proto3's default and is not written.
  public mutating func uint(_ field: UInt32, _ value: UInt64) {
    guard value != 0 else { return }
    key(field, 0)
    varint(value)
  }
  /// A member of a oneof: which one it is must be seen, so that zero is written too.
  public mutating func member(_ field: UInt32, _ value: UInt64) {
    key(field, 0)
    varint(value)
  }
  public mutating func bool(_ field: UInt32, _ value: Bool) { uint(field, value ? 1 : 0) }
  public mutating func string(_ field: UInt32, _ value: String) {
    guard !value.isEmpty else { return }
    element(field, value)
  }
  /// An element of a repeated string: written even when it is empty.
  public mutating func element(_ field: UInt32, _ value: String) {
    key(field, 2)
    varint(UInt64(value.utf8.count))
    bytes.append(contentsOf: value.utf8)
  }
  public mutating func raw(_ field: UInt32, _ value: UnsafeRawBufferPointer) {
    key(field, 2)
    varint(UInt64(value.count))
    bytes.append(contentsOf: value)
  }
  /// Nothing is proto3's default and is not written.
  public mutating func data(_ field: UInt32, _ value: [UInt8]) {
    if !value.isEmpty { value.withUnsafeBytes { raw(field, $0) } }
  }
  public mutating func fixed32(_ field: UInt32, _ value: UInt32) {
    key(field, 5)
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }
  /// Zero is not written.
  public mutating func double(_ field: UInt32, _ value: Double) {
    guard value.bitPattern != 0 else { return }
    key(field, 1)
    withUnsafeBytes(of: value.bitPattern.littleEndian) { bytes.append(contentsOf: $0) }
  }
  /// Zero is not written.
  public mutating func float(_ field: UInt32, _ value: Float) {
    if value.bitPattern != 0 { fixed32(field, value.bitPattern) }
  }
  public mutating func packed(_ field: UInt32, _ values: [Float]) { packedBytes(field, values) }
  public mutating func packed(_ field: UInt32, _ values: [Double]) { packedBytes(field, values) }
  public mutating func packed(_ field: UInt32, _ values: [UInt64]) { packedBytes(field, values) }
  public mutating func packed(_ field: UInt32, _ values: [UInt32]) { packedBytes(field, values) }
  public mutating func packedVarints(_ field: UInt32, _ values: [ShardID]) {
    guard !values.isEmpty else { return }
    message(field) { writer in for value in values { writer.varint(UInt64(value.rawValue)) } }
  }
  /// So many numbers, one after the other.
  public mutating func packedVarints(_ field: UInt32, count: Int, _ value: (Int) -> UInt64) {
    guard count > 0 else { return }
    message(field) { writer in for index in 0..<count { writer.varint(value(index)) } }
  }
  /// Little-endian machines only, which is every one that Swift on Linux runs on.
  private mutating func packedBytes<Value: BitwiseCopyable>(_ field: UInt32, _ values: [Value]) {
    guard !values.isEmpty else { return }
    values.withUnsafeBytes { raw(field, $0) }
  }

  /// A submessage: written after one byte for its length, and moved up when the length needs more.
  public mutating func message(_ field: UInt32, _ body: (inout ProtoWriter) -> Void) {
    key(field, 2)
    let start = bytes.count
    bytes.append(0)
    body(&self)
    let length = bytes.count - start - 1
    var lengthBytes = 1
    while length >> (7 * lengthBytes) != 0 { lengthBytes += 1 }
    for _ in 1..<lengthBytes { bytes.append(0) }
    bytes.withUnsafeMutableBytes { bytes in
      let place = bytes.baseAddress! + start
      if lengthBytes > 1 { (place + lengthBytes).copyMemory(from: place + 1, byteCount: length) }
      for index in 0..<lengthBytes {
        let isLast = index == lengthBytes - 1
        bytes[start + index] = UInt8(truncatingIfNeeded: length >> (7 * index)) & 0x7F | (isLast ? 0 : 0x80)
      }
    }
  }
}

/// Reads fields one after the other; the caller switches on the number and skips what it does not know.
public struct ProtoReader {
  @usableFromInline let bytes: UnsafeRawBufferPointer
  @usableFromInline var offset = 0
  public private(set) var field: UInt32 = 0
  private var type: UInt32 = 0

  public init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }
  var remaining: Int { bytes.count - offset }

  /// Moves to the next field; false at the end.
  public mutating func next() throws(WireError) -> Bool {
    guard remaining > 0 else { return false }
    let key = try varint()
    guard key <= UInt64(UInt32.max), key >> 3 != 0 else { throw .badKey }
    field = UInt32(key) >> 3
    type = UInt32(key) & 7
    return true
  }

  @inline(__always)
  mutating func varint() throws(WireError) -> UInt64 {
    // Keys, lengths and small numbers are one byte.
    if offset < bytes.count, bytes[offset] < 0x80 {
      offset += 1
      return UInt64(bytes[offset - 1])
    }
    return try longVarint()
  }
  private mutating func longVarint() throws(WireError) -> UInt64 {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while true {
      guard offset < bytes.count else { throw .truncated }
      let byte = bytes[offset]
      offset += 1
      guard shift < 63 || byte <= 1 else { throw .varintTooLong }
      value |= UInt64(byte & 0x7F) << shift
      if byte < 0x80 { return value }
      shift += 7
    }
  }

  public mutating func uint() throws(WireError) -> UInt64 {
    guard type == 0 else { throw .wrongWireType(field: field) }
    return try varint()
  }
  public mutating func count(in range: ClosedRange<Int>) throws(WireError) -> Int {
    let value = try uint()
    guard let number = Int(exactly: value), range.contains(number) else {
      throw .outOfRange(field: field, "\(value) is not in \(range)")
    }
    return number
  }
  public mutating func bool() throws(WireError) -> Bool { try uint() != 0 }
  public mutating func fixed32() throws(WireError) -> UInt32 {
    guard type == 5 else { throw .wrongWireType(field: field) }
    guard remaining >= 4 else { throw .truncated }
    defer { offset += 4 }
    return UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }
  public mutating func float() throws(WireError) -> Float { Float(bitPattern: try fixed32()) }
  public mutating func double() throws(WireError) -> Double {
    guard type == 1 else { throw .wrongWireType(field: field) }
    guard remaining >= 8 else { throw .truncated }
    defer { offset += 8 }
    return Double(bitPattern: UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
  }
  public mutating func raw() throws(WireError) -> UnsafeRawBufferPointer {
    guard type == 2 else { throw .wrongWireType(field: field) }
    let length = try varint()
    guard length <= UInt64(remaining) else { throw .truncated }
    defer { offset += Int(length) }
    return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + Int(length)])
  }
  public mutating func string(maxBytes: Int = .max) throws(WireError) -> String {
    let raw = try raw()
    guard raw.count <= maxBytes else { throw .outOfRange(field: field, "longer than \(maxBytes) bytes") }
    guard let text = String(text: raw) else { throw .invalidUTF8(field: field) }
    return text
  }
  /// Appends packed (or single) little-endian numbers.
  public mutating func packed(into values: inout [Float]) throws(WireError) { try packed(into: &values, zero: 0) }
  public mutating func packed(into values: inout [Double]) throws(WireError) { try packed(into: &values, zero: 0) }
  public mutating func packed(into values: inout [UInt64]) throws(WireError) { try packed(into: &values, zero: 0) }
  public mutating func packed(into values: inout [UInt32]) throws(WireError) { try packed(into: &values, zero: 0) }
  @inline(__always)
  private mutating func packed<Value: BitwiseCopyable>(into values: inout [Value], zero: Value) throws(WireError) {
    let size = MemoryLayout<Value>.size
    if type == (size == 4 ? 5 : 1) {
      guard remaining >= size else { throw .truncated }
      values.append(bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
      offset += size
      return
    }
    let raw = try raw()
    guard raw.count % size == 0 else { throw .truncated }
    guard values.isEmpty else {
      for position in stride(from: 0, to: raw.count, by: size) {
        values.append(raw.loadUnaligned(fromByteOffset: position, as: Value.self))
      }
      return
    }
    guard !raw.isEmpty else { return }
    values = [Value](repeating: zero, count: raw.count / size)
    values.withUnsafeMutableBytes { $0.copyMemory(from: raw) }
  }
  /// Appends packed (or single) varints.
  public mutating func packedVarints(into values: inout [ShardID]) throws(WireError) {
    let field = field
    func narrow(_ value: UInt64) throws(WireError) -> ShardID {
      guard let number = UInt32(exactly: value) else { throw .outOfRange(field: field, "\(value) needs 32 bits") }
      return ShardID(rawValue: number)
    }
    if type == 0 {
      values.append(try narrow(try varint()))
      return
    }
    var inner = ProtoReader(try raw())
    // A number takes a byte at least, so that this reserves no more than the message's own size.
    if values.isEmpty { values.reserveCapacity(min(inner.remaining, WireLimit.shards)) }
    while inner.remaining > 0 { values.append(try narrow(try inner.varint())) }
  }

  public mutating func skip() throws(WireError) {
    switch type {
    case 0: _ = try varint()
    case 1: try advance(8)
    case 2: _ = try raw()
    case 5: try advance(4)
    default: throw .badKey
    }
  }
  private mutating func advance(_ count: Int) throws(WireError) {
    guard remaining >= count else { throw .truncated }
    offset += count
  }
}
