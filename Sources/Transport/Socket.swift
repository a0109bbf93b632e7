import CLinux
import Glibc

// Each system call is wrapped once: EINTR is tried again, "would block" is a value.

public struct SystemError: Error, CustomStringConvertible, Sendable {
  public let call: String
  public let code: Int32
  public init(_ call: String, _ code: Int32 = errno) {
    self.call = call
    self.code = code
  }
  public var description: String { "\(call): \(String(cString: strerror(code)))" }
}

enum IOResult { case bytes(Int), wouldBlock, end, failed(Int32) }

/// A file descriptor that is closed with its owner.
struct Socket: ~Copyable {
  let descriptor: Int32
  init(adopting descriptor: Int32) { self.descriptor = descriptor }
  deinit { close(descriptor) }

  func read(into buffer: UnsafeMutableRawBufferPointer) -> IOResult {
    while true {
      let count = recv(descriptor, buffer.baseAddress, buffer.count, 0)
      if count > 0 { return .bytes(count) }
      if count == 0 { return .end }
      if errno == EINTR { continue }
      return errno == EAGAIN ? .wouldBlock : .failed(errno)
    }
  }
  func write(_ bytes: UnsafeRawBufferPointer) -> IOResult {
    while true {
      let count = send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
      if count >= 0 { return .bytes(count) }
      if errno == EINTR { continue }
      return errno == EAGAIN ? .wouldBlock : .failed(errno)
    }
  }
  func setOption(_ level: Int32, _ name: Int32, _ value: Int32) {
    var value = value
    setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<Int32>.size))
  }
  /// Closing it then throws away what has not left, and tells the peer by RST.
  func dropsUnsent() {
    var value = linger(l_onoff: 1, l_linger: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
  }
  /// Who is at the other end.
  var peer: String {
    var address = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    return withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        var host = [CChar](repeating: 0, count: 64)
        var port = [CChar](repeating: 0, count: 8)
        guard getpeername(descriptor, pointer, &length) == 0,
          getnameinfo(pointer, length, &host, 64, &port, 8, NI_NUMERICHOST | NI_NUMERICSERV) == 0
        else { return "a peer that has gone" }
        func text(_ chars: [CChar]) -> String {
          String(decoding: chars.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
        let name = text(host)
        return (name.contains(":") ? "[\(name)]" : name) + ":" + text(port)
      }
    }
  }
  /// The error of a connection attempt that has ended; 0 = connected.
  var pendingError: Int32 {
    var value: Int32 = 0
    var size = socklen_t(MemoryLayout<Int32>.size)
    getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &value, &size)
    return value
  }
}

/// Where a connection comes from, without its port. An IPv6 network of 64 bits is one peer: it is one customer's.
struct PeerAddress: Hashable, Sendable {
  private let high: UInt64
  private let low: UInt64

  init(of descriptor: Int32) {
    var address = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    withUnsafeMutablePointer(to: &address) { pointer in
      _ = pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(descriptor, $0, &length) }
    }
    (high, low) = withUnsafeBytes(of: address) { bytes in
      guard Int32(address.ss_family) == AF_INET6 else {
        return (0, UInt64(bytes.load(fromByteOffset: 4, as: UInt32.self)))
      }
      let (network, host) = (
        bytes.load(fromByteOffset: 8, as: UInt64.self), bytes.load(fromByteOffset: 16, as: UInt64.self)
      )
      // An IPv4 address in IPv6's clothes is told apart by its last bytes.
      return network == 0 ? (0, host) : (network, 0)
    }
  }
}

/// A resolved socket address of either family.
struct ResolvedAddress: @unchecked Sendable {
  var storage = sockaddr_storage()
  var length: socklen_t = 0
  var family: Int32 { Int32(storage.ss_family) }

  /// - Parameter host: a name or a numeric address; names are looked up, which may take time.
  init(host: String, port: UInt16) throws(SystemError) {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var found: UnsafeMutablePointer<addrinfo>?
    let result = getaddrinfo(host, String(port), &hints, &found)
    guard result == 0, let first = found else {
      throw SystemError("\(host): \(String(cString: gai_strerror(result)))", EADDRNOTAVAIL)
    }
    defer { freeaddrinfo(found) }
    length = first.pointee.ai_addrlen
    withUnsafeMutableBytes(of: &storage) { bytes in
      bytes.copyMemory(from: UnsafeRawBufferPointer(start: first.pointee.ai_addr, count: Int(length)))
    }
  }

  func withSockaddr<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
    withUnsafePointer(to: storage) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
    }
  }
}
