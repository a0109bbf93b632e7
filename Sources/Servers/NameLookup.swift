import CLinux
import Glibc
import RankingCore

/// The addresses that a DNS name stands for, such as those of a headless service.
enum NameLookup {
  static let interval: Duration = .seconds(5)

  private final class Job: @unchecked Sendable {
    let name: SocketAddress
    let done: @Sendable ([String]) -> Void
    init(_ name: SocketAddress, _ done: @escaping @Sendable ([String]) -> Void) {
      self.name = name
      self.done = done
    }
  }

  /// Asks on a thread of its own, as a resolver may block for long.
  /// - Parameter done: called on that thread with `host:port` texts in ascending order; none when the lookup failed.
  static func addresses(of name: SocketAddress, done: @escaping @Sendable ([String]) -> Void) {
    var thread = pthread_t()
    let job = Unmanaged.passRetained(Job(name, done))
    let result = pthread_create(
      &thread, nil,
      { context in
        let job = Unmanaged<Job>.fromOpaque(context!).takeRetainedValue()
        job.done(NameLookup.lookUp(job.name))
        return nil
      }, job.toOpaque())
    guard result == 0 else {
      job.release()
      return done([])
    }
    pthread_detach(thread)
  }

  static func lookUp(_ name: SocketAddress) -> [String] {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var found: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(name.host, String(name.port), &hints, &found) == 0 else { return [] }
    defer { freeaddrinfo(found) }
    var addresses: Set<String> = []
    var next = found
    while let entry = next {
      var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
      if getnameinfo(
        entry.pointee.ai_addr, entry.pointee.ai_addrlen, &host, socklen_t(host.count), nil, 0, NI_NUMERICHOST) == 0
      {
        let text = String(decoding: host.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        addresses.insert("\(SocketAddress(host: text, port: name.port))")
      }
      next = entry.pointee.ai_next
    }
    return addresses.sorted()
  }
}
