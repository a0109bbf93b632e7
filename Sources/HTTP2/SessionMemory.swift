import CNGHTTP2
import Glibc

// The memory of nghttp2's sessions. A session allocates some ten small blocks for every stream and frees them a moment
// later; the pool keeps such blocks in lists by size, so that in the steady state a stream costs no allocation. A pool
// belongs to one thread, serves all sessions of that thread, and keeps at most `keptBytesMax` bytes that nobody uses: a
// burst leaves no lasting trace.
//
//     block = | class (16 bytes, keeps alignment) | what the session sees … |     class 0: 32 bytes … class 9: 16 KiB
//               while free: | class | next free  |                                class 10: of malloc, any size

/// The memory of the HTTP/2 sessions of one thread: small blocks are used again instead of going back to the system.
public final class SessionMemory {
  private static let headerBytes = 16
  private static let smallestBytes = 32
  private static let classes = 10
  private static let keptBytesMax = 1 << 20

  /// Per class the first free block.
  private let free: UnsafeMutablePointer<UnsafeMutableRawPointer?>
  private var keptBytes = 0

  public init() {
    free = .allocate(capacity: Self.classes)
    free.initialize(repeating: nil, count: Self.classes)
  }
  deinit {
    for index in 0..<Self.classes {
      while let block = free[index] {
        free[index] = Self.next(of: block)
        Glibc.free(block)
      }
    }
    free.deallocate()
  }

  /// Lives as long as this object, which every session therefore keeps.
  var functions: nghttp2_mem {
    nghttp2_mem(
      mem_user_data: Unmanaged.passUnretained(self).toOpaque(),
      malloc: { size, memory in SessionMemory.from(memory).allocate(size) },
      free: { pointer, memory in if let pointer { SessionMemory.from(memory).release(pointer) } },
      calloc: { count, size, memory in
        let (bytes, overflow) = count.multipliedReportingOverflow(by: size)
        guard !overflow, let pointer = SessionMemory.from(memory).allocate(bytes) else { return nil }
        return memset(pointer, 0, bytes)
      },
      realloc: { pointer, size, memory in
        let memory = SessionMemory.from(memory)
        return pointer.map { memory.resize($0, to: size) } ?? memory.allocate(size)
      })
  }
  @inline(__always)
  private static func from(_ context: UnsafeMutableRawPointer?) -> SessionMemory {
    Unmanaged<SessionMemory>.fromOpaque(context!).takeUnretainedValue()
  }

  // MARK: Blocks

  private static func size(of index: Int) -> Int { smallestBytes << index }
  private static func next(of block: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer? {
    block.load(fromByteOffset: 8, as: UnsafeMutableRawPointer?.self)
  }

  private func allocate(_ size: Int) -> UnsafeMutableRawPointer? {
    guard size >= 0, size <= Int.max - Self.headerBytes else { return nil }
    // The smallest class that holds it: 0 up to 32 bytes, 1 up to 64 …
    let index =
      size <= Self.smallestBytes
      ? 0 : min(Self.classes, Int.bitWidth - (size - 1).leadingZeroBitCount - Self.smallestBytes.trailingZeroBitCount)
    let block: UnsafeMutableRawPointer
    if index < Self.classes, let kept = free[index] {
      free[index] = Self.next(of: kept)
      keptBytes -= Self.size(of: index)
      block = kept
    } else {
      let bytes = index < Self.classes ? Self.size(of: index) : size
      guard let fresh = malloc(Self.headerBytes + bytes) else { return nil }
      block = fresh
    }
    block.storeBytes(of: index, as: Int.self)
    return block + Self.headerBytes
  }

  private func release(_ pointer: UnsafeMutableRawPointer) {
    let block = pointer - Self.headerBytes
    let index = block.load(as: Int.self)
    guard index < Self.classes, keptBytes + Self.size(of: index) <= Self.keptBytesMax else { return Glibc.free(block) }
    block.storeBytes(of: free[index], toByteOffset: 8, as: UnsafeMutableRawPointer?.self)
    free[index] = block
    keptBytes += Self.size(of: index)
  }

  private func resize(_ pointer: UnsafeMutableRawPointer, to size: Int) -> UnsafeMutableRawPointer? {
    let block = pointer - Self.headerBytes
    let index = block.load(as: Int.self)
    if index == Self.classes {
      // A block of malloc stays one, whatever its size becomes.
      guard size >= 0, size <= Int.max - Self.headerBytes else { return nil }
      return realloc(block, Self.headerBytes + size).map { $0 + Self.headerBytes }
    }
    let room = Self.size(of: index)
    if size <= room { return pointer }
    guard let moved = allocate(size) else { return nil }
    moved.copyMemory(from: pointer, byteCount: room)
    release(pointer)
    return moved
  }
}
