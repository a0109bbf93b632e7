import Foundation
import Synchronization

@testable import ClusterHarness

#if canImport(Glibc)
  import Glibc
#endif

/// Gives back what it gets.
final class EchoServer: Sendable {
  private let listener = LoopbackListener()
  private let seen = Mutex((bytes: 0, ends: 0))
  private let news = DispatchSemaphore(value: 0)
  var port: UInt16 { listener.port }
  var received: Int { seen.withLock { $0.bytes } }

  init() {
    listener.serve { [self] client in
      var buffer = [UInt8](repeating: 0, count: 64 << 10)
      while true {
        let count = recv(client, &buffer, buffer.count, 0)
        guard count > 0 else { break }
        seen.withLock { $0.bytes += count }
        news.signal()
        guard sendAll(buffer[..<count], to: client) else { break }
      }
      seen.withLock { $0.ends += 1 }
      news.signal()
    }
  }
  func close() { listener.close() }

  func waitForBytes(_ count: Int) { wait { $0.bytes >= count } }
  func waitForEnds(_ count: Int) { wait { $0.ends >= count } }
  private func wait(_ condition: ((bytes: Int, ends: Int)) -> Bool) {
    while !seen.withLock({ condition($0) }) {
      guard news.wait(timeout: .now() + 20) == .success else { return }
    }
  }
}

final class EchoClient {
  private var socket: Int32

  init(_ port: UInt16) throws {
    socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let result = withUnsafePointer(to: address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard result == 0 else { throw HarnessError("cannot connect: \(String(cString: strerror(errno)))") }
  }
  deinit { close() }
  func close() {
    if socket >= 0 { Glibc.close(socket) }
    socket = -1
  }

  func send(_ bytes: [UInt8]) { _ = sendAll(bytes[...], to: socket) }

  /// What has come when `count` bytes have, or the time is over.
  func receive(_ count: Int, limit: Duration) -> [UInt8] {
    let deadline = ContinuousClock.now + limit
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    while all.count < count {
      let left = ContinuousClock.now.duration(to: deadline) / .milliseconds(1)
      var watched = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
      guard left > 0, poll(&watched, 1, Int32(left.rounded(.up))) > 0 else { return all }
      let got = recv(socket, &buffer, min(buffer.count, count - all.count), 0)
      guard got > 0 else { return all }
      all += buffer[..<got]
    }
    return all
  }

  /// Sends and receives at the same time, as more may be sent than fits into the buffers on the way.
  func exchange(_ bytes: [UInt8], limit: Duration) -> [UInt8] {
    let socket = socket
    let sender = Thread { _ = sendAll(bytes[...], to: socket) }
    sender.start()
    return receive(bytes.count, limit: limit)
  }

  /// - Returns: the error the connection ended with; 0 = an ordinary end.
  func waitForEnd() -> Int32 {
    var watched = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
    guard poll(&watched, 1, 20_000) > 0 else { return ETIMEDOUT }
    var byte: UInt8 = 0
    return recv(socket, &byte, 1, 0) < 0 ? errno : 0
  }
}
