import Foundation

#if canImport(Glibc)
  import Glibc
#endif

// A port of loopback that is ours as long as this lives, whether or not a process of ours listens on it just now.
//
// The socket is bound and never listens. Linux lets a second socket bind the same port when both say SO_REUSEADDR,
// which is what our server does. Nobody else gets the port by asking for a free one, and no outgoing connection takes
// it as its own end: a member that is dead for a while finds its address free when it comes back.

final class PortReservation: Sendable {
  let port: UInt16
  private let socket: Int32

  /// - Parameter wanted: 0 = any free port.
  init(_ wanted: UInt16 = 0) throws(HarnessError) {
    socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { throw HarnessError("cannot make a socket: \(systemMessage(errno))") }
    var yes: Int32 = 1
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = wanted.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let socket = socket
    let failure = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(socket, $0, length) == 0 && getsockname(socket, $0, &length) == 0 ? 0 : errno
      }
    }
    port = UInt16(bigEndian: address.sin_port)
    guard failure == 0 else {
      close(socket)
      throw HarnessError("cannot have 127.0.0.1:\(wanted): \(systemMessage(failure))")
    }
  }
  deinit { close(socket) }

  var address: String { "127.0.0.1:\(port)" }
}
