import CNGHTTP2

/// The memory of the HTTP/2 sessions of one thread: small blocks are used again instead of going back to the system.
public final class SessionMemory {
  private let pool: UnsafeMutablePointer<cnghttp2_pool>

  public init() {
    pool = .allocate(capacity: 1)
    pool.initialize(to: cnghttp2_pool())
  }
  deinit {
    cnghttp2_pool_drain(pool)
    pool.deallocate()
  }

  /// Lives as long as this object, which every session therefore keeps.
  var functions: nghttp2_mem { cnghttp2_pool_mem(pool) }
}
