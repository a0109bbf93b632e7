/// xxHash64 of bytes that arrive in pieces: the same sum as `StableHash.xxh64` of them all.
public struct StreamingXXH64: Sendable {
  private var a: UInt64
  private var b: UInt64
  private var c: UInt64
  private var d: UInt64
  private let seed: UInt64
  private var total: UInt64 = 0
  /// Fewer than 32 bytes that do not yet fill a stripe: four lanes, and how many bytes of them are valid.
  private var tail: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
  private var tailCount = 0

  public init(seed: UInt64 = 0) {
    self.seed = seed
    a = seed &+ StableHash.p1 &+ StableHash.p2
    b = seed &+ StableHash.p2
    c = seed
    d = seed &- StableHash.p1
  }

  public mutating func update(_ bytes: UnsafeRawBufferPointer) {
    guard let start = bytes.baseAddress, bytes.count > 0 else { return }
    total &+= UInt64(bytes.count)
    var offset = 0
    if tailCount > 0 {
      let taken = min(32 - tailCount, bytes.count)
      appendToTail(UnsafeRawBufferPointer(rebasing: bytes[0..<taken]))
      offset = taken
      guard tailCount == 32 else { return }
      withUnsafeBytes(of: tail) { stripe($0.baseAddress.unsafelyUnwrapped, count: 32) }
      tailCount = 0
    }
    let whole = (bytes.count - offset) & ~31
    if whole > 0 { stripe(start + offset, count: whole) }
    offset += whole
    if offset < bytes.count { appendToTail(UnsafeRawBufferPointer(rebasing: bytes[offset...])) }
  }

  /// The sum of everything so far.
  public func digest() -> UInt64 {
    withUnsafeBytes(of: tail) { all in
      let rest = UnsafeRawBufferPointer(rebasing: all[0..<tailCount])
      let start: UInt64
      if total >= 32 {
        let mixed =
          StableHash.rotate(a, 1) &+ StableHash.rotate(b, 7) &+ StableHash.rotate(c, 12) &+ StableHash.rotate(d, 18)
        start = StableHash.merge(StableHash.merge(StableHash.merge(StableHash.merge(mixed, a), b), c), d)
      } else {
        start = seed &+ StableHash.p5
      }
      return StableHash.finish(start &+ total, rest)
    }
  }

  private mutating func appendToTail(_ bytes: UnsafeRawBufferPointer) {
    let start = tailCount
    withUnsafeMutableBytes(of: &tail) { UnsafeMutableRawBufferPointer(rebasing: $0[start...]).copyMemory(from: bytes) }
    tailCount += bytes.count
  }

  private mutating func stripe(_ base: UnsafeRawPointer, count: Int) {
    var (a, b, c, d) = (self.a, self.b, self.c, self.d)
    var offset = 0
    while offset < count {
      a = StableHash.round(a, StableHash.word(base, offset))
      b = StableHash.round(b, StableHash.word(base, offset + 8))
      c = StableHash.round(c, StableHash.word(base, offset + 16))
      d = StableHash.round(d, StableHash.word(base, offset + 24))
      offset += 32
    }
    (self.a, self.b, self.c, self.d) = (a, b, c, d)
  }
}
