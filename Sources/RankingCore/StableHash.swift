// Hashes that are the same in every process, on every machine, for ever. `Hasher` is seeded per process and must never
// reach a decision or a file.

/// xxHash64 (Yann Collet's specification, version 0.1.1), one-shot.
public enum StableHash {
  @usableFromInline static let p1: UInt64 = 0x9E37_79B1_85EB_CA87
  @usableFromInline static let p2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
  @usableFromInline static let p3: UInt64 = 0x1656_67B1_9E37_79F9
  @usableFromInline static let p4: UInt64 = 0x85EB_CA77_C2B2_AE63
  @usableFromInline static let p5: UInt64 = 0x27D4_EB2F_1656_67C5

  @inlinable
  public static func xxh64(_ string: String, seed: UInt64 = 0) -> UInt64 {
    var string = string
    return string.withUTF8 { xxh64(UnsafeRawBufferPointer($0), seed: seed) }
  }

  @inlinable
  public static func xxh64(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) -> UInt64 {
    let count = bytes.count
    var offset = 0
    var hash: UInt64
    if count >= 32 {
      var (a, b, c, d) = (seed &+ p1 &+ p2, seed &+ p2, seed, seed &- p1)
      let base = bytes.baseAddress.unsafelyUnwrapped
      while offset <= count - 32 {
        a = round(a, word(base, offset))
        b = round(b, word(base, offset + 8))
        c = round(c, word(base, offset + 16))
        d = round(d, word(base, offset + 24))
        offset += 32
      }
      hash = rotate(a, 1) &+ rotate(b, 7) &+ rotate(c, 12) &+ rotate(d, 18)
      hash = merge(merge(merge(merge(hash, a), b), c), d)
    } else {
      hash = seed &+ p5
    }
    return finish(hash &+ UInt64(count), UnsafeRawBufferPointer(rebasing: bytes[offset...]))
  }

  /// Folds in the fewer than 32 bytes that fill no stripe, and mixes.
  @inlinable @inline(__always)
  static func finish(_ start: UInt64, _ bytes: UnsafeRawBufferPointer) -> UInt64 {
    var hash = start
    let count = bytes.count
    var offset = 0
    while offset <= count - 8 {
      let lane = round(0, word(bytes.baseAddress.unsafelyUnwrapped, offset))
      hash = rotate(hash ^ lane, 27) &* p1 &+ p4
      offset += 8
    }
    if offset <= count - 4 {
      let lane = UInt64(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
      hash = rotate(hash ^ (lane &* p1), 23) &* p2 &+ p3
      offset += 4
    }
    while offset < count {
      hash = rotate(hash ^ (UInt64(bytes[offset]) &* p5), 11) &* p1
      offset += 1
    }
    return mix(hash)
  }

  /// xxHash64's final avalanche: spreads every input bit over all output bits.
  @inlinable
  public static func mix(_ value: UInt64) -> UInt64 {
    var hash = value
    hash ^= hash >> 33
    hash = hash &* p2
    hash ^= hash >> 29
    hash = hash &* p3
    return hash ^ (hash >> 32)
  }

  @inlinable @inline(__always)
  static func word(_ base: UnsafeRawPointer, _ offset: Int) -> UInt64 {
    UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }
  @inlinable @inline(__always)
  static func rotate(_ value: UInt64, _ bits: UInt64) -> UInt64 { (value << bits) | (value >> (64 - bits)) }
  @inlinable @inline(__always)
  static func round(_ accumulator: UInt64, _ lane: UInt64) -> UInt64 {
    rotate(accumulator &+ lane &* p2, 31) &* p1
  }
  @inlinable @inline(__always)
  static func merge(_ hash: UInt64, _ accumulator: UInt64) -> UInt64 {
    (hash ^ round(0, accumulator)) &* p1 &+ p4
  }
}
