import Foundation
import Glibc
import Synchronization

/// For tests: a port on loopback whose every connection gets a thread.
final class LoopbackListener: Sendable {
  private let descriptor: Int32
  let port: UInt16
  private let isOver = Atomic<Bool>(false)

  init() {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let descriptor = descriptor
    withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        _ = bind(descriptor, $0, length)
        _ = listen(descriptor, 16)
        _ = getsockname(descriptor, $0, &length)
      }
    }
    port = UInt16(bigEndian: address.sin_port)
  }

  /// - Parameter body: called with a connection, which is closed when it returns.
  func serve(_ body: @escaping @Sendable (Int32) -> Void) {
    Thread { [self] in
      while !isOver.load(ordering: .relaxed) {
        let client = Glibc.accept(descriptor, nil, nil)
        guard client >= 0 else { break }
        Thread {
          body(client)
          Glibc.close(client)
        }.start()
      }
      Glibc.close(descriptor)
    }.start()
  }

  /// From now on a connection is refused.
  func close() {
    isOver.store(true, ordering: .relaxed)
    shutdown(descriptor, Int32(SHUT_RDWR))
  }
}

/// Sends all of it.
/// - Returns: whether the peer took it.
func sendAll(_ bytes: ArraySlice<UInt8>, to descriptor: Int32) -> Bool {
  var sent = bytes.startIndex
  while sent < bytes.endIndex {
    let count = bytes[sent...].withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    guard count > 0 else { return false }
    sent += count
  }
  return true
}
