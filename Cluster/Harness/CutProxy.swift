import Foundation
import Glibc
import Synchronization

// For tests: a relay before etcd that can be told what to do to the bytes: a lost reply and a partition, exactly when
// the test wants them.
//
//     store ──► proxy ──► etcd     pass | loseReplies: etcd hears us, we hear nothing | silent: nobody hears anybody

public final class CutProxy: @unchecked Sendable {
  public enum Mode: Sendable { case pass, loseReplies, silent }
  private let listener = LoopbackListener()
  public var port: UInt16 { listener.port }
  private let target: UInt16
  private let mode = Mutex(Mode.pass)
  /// Raised to end every connection.
  private let era = Atomic<Int>(0)
  /// Clients' connections.
  private let open = Mutex<Set<Int32>>([])

  public init(to target: UInt16) {
    self.target = target
    listener.serve { [self] in relay($0) }
  }

  public func set(_ mode: Mode) { self.mode.withLock { $0 = mode } }
  /// Ends every connection, at once; new ones are taken.
  public func cut() {
    era.wrappingAdd(1, ordering: .relaxed)
    open.withLock { for client in $0 { shutdown(client, Int32(SHUT_RDWR)) } }
  }
  /// Ends everything: from now on a connection is refused.
  public func close() {
    listener.close()
    cut()
  }

  private func relay(_ client: Int32) {
    open.withLock { _ = $0.insert(client) }
    defer { open.withLock { _ = $0.remove(client) } }
    let mine = era.load(ordering: .relaxed)
    let server = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    defer { Glibc.close(server) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = target.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let isConnected = withUnsafePointer(to: address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(server, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
    guard isConnected else { return }
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    while era.load(ordering: .relaxed) == mine {
      var ready = [
        pollfd(fd: client, events: Int16(POLLIN), revents: 0), pollfd(fd: server, events: Int16(POLLIN), revents: 0),
      ]
      _ = poll(&ready, 2, 5)
      for (index, (from, to)) in [(client, server), (server, client)].enumerated() where ready[index].revents != 0 {
        let count = recv(from, &buffer, buffer.count, 0)
        guard count > 0 else { return }
        let mode = mode.withLock { $0 }
        if mode == .silent || (mode == .loseReplies && index == 1) { continue }
        guard sendAll(buffer[..<count], to: to) else { return }
      }
    }
  }
}
