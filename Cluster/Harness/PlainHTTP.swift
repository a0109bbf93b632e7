import Foundation
import HTTP2

#if canImport(Glibc)
  import Glibc
#endif

// A small blocking HTTP/1.1 client over one kept-alive connection: enough for tools and tests that ask a server of ours
// and wait. It knows content-length and nothing else, because that is all our servers send over HTTP/1.1.

/// `http://host:port` or `https://host:port`, and nothing more.
public struct ServerURL: Sendable, Equatable, CustomStringConvertible {
  public var host: String
  public var port: UInt16
  public var isSecure = false
  public var description: String { (isSecure ? "https://" : "http://") + authority }
  public var authority: String { "\(host.contains(":") ? "[\(host)]" : host):\(port)" }

  /// Parses `http[s]://host[:port][/]`.
  public init(_ text: String) throws(HarnessError) {
    let wrong = HarnessError("\"\(text)\" is not a server's URL; it looks like http://127.0.0.1:8080")
    isSecure = text.hasPrefix("https://")
    guard isSecure || text.hasPrefix("http://"), let parts = URLComponents(string: text), let host = parts.host,
      !host.isEmpty, parts.path.isEmpty || parts.path == "/", parts.query == nil
    else { throw wrong }
    guard let port = UInt16(exactly: parts.port ?? (isSecure ? 443 : 80)), port > 0 else { throw wrong }
    self.host = host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host
    self.port = port
  }
}

/// One connection to one server; not shared between threads.
public struct PlainHTTP: ~Copyable {
  public struct Response: Sendable {
    public var status: Int
    public var body: [UInt8]
    public var text: String { String(decoding: body, as: UTF8.self) }
  }
  /// The largest head and body that are read.
  static let headLimit = 64 << 10
  static let bodyLimit = 64 << 20

  public let server: ServerURL
  private let limit: Duration
  private var socket: Int32 = -1
  private var tls: TLSSession?
  private var received: [UInt8] = []

  /// Connects at the first request.
  /// - Parameter limit: how long one step (connect, send, or the next bytes of a reply) may take.
  public init(_ server: ServerURL, limit: Duration = .seconds(60)) {
    self.server = server
    self.limit = limit
  }
  deinit { if socket >= 0 { close(socket) } }

  public mutating func get(_ path: String) throws(HarnessError) -> Response { try request("GET", path, body: []) }
  public mutating func post(_ path: String, _ body: some Collection<UInt8>) throws(HarnessError) -> Response {
    try request("POST", path, body: Array(body))
  }

  private mutating func request(_ method: String, _ path: String, body: [UInt8]) throws(HarnessError) -> Response {
    var head = "\(method) \(path) HTTP/1.1\r\nhost: \(server.host):\(server.port)\r\n"
    if let token = TLSTrust.token(for: server) { head += "authorization: Bearer \(token)\r\n" }
    if method == "POST" { head += "content-type: application/json\r\ncontent-length: \(body.count)\r\n" }
    let message = Array((head + "\r\n").utf8) + body
    let reused = socket >= 0
    do {
      if !reused { try connect() }
      return try exchange(message)
    } catch {
      disconnect()
      // An idle kept-alive connection may have been closed by the other side meanwhile: that is not an answer.
      guard reused else { throw error }
      try connect()
      do { return try exchange(message) } catch {
        disconnect()
        throw error
      }
    }
  }

  private mutating func disconnect() {
    if socket >= 0 { close(socket) }
    socket = -1
    tls = nil
    received.removeAll()
  }

  private mutating func connect() throws(HarnessError) {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    let found = getaddrinfo(server.host, String(server.port), &hints, &list)
    guard found == 0 else {
      throw HarnessError("cannot resolve \(server.host): \(String(cString: gai_strerror(found)))")
    }
    defer { freeaddrinfo(list) }
    var failure: Int32 = EADDRNOTAVAIL
    var next = list
    while let address = next?.pointee {
      next = address.ai_next
      let candidate = Glibc.socket(address.ai_family, address.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), 0)
      guard candidate >= 0 else { failure = errno; continue }
      var wait = timeval(
        tv_sec: Int(limit.components.seconds), tv_usec: Int(limit.components.attoseconds / 1_000_000_000_000))
      setsockopt(candidate, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
      setsockopt(candidate, SOL_SOCKET, SO_SNDTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
      var yes: Int32 = 1
      setsockopt(candidate, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
      if Glibc.connect(candidate, address.ai_addr, address.ai_addrlen) == 0 {
        socket = candidate
        return try secure()
      }
      failure = errno
      close(candidate)
    }
    throw HarnessError("cannot connect to \(server): \(systemMessage(failure))")
  }

  private mutating func secure() throws(HarnessError) {
    guard server.isSecure else { return }
    do {
      let session = try TLSSession(try TLSTrust.context(for: server), host: server.host)
      tls = session
      session.start()
    } catch { throw HarnessError("\(server): \(error)") }
    while tls?.state == .handshaking {
      try flushTLS()
      try receive()
    }
    try flushTLS()
  }

  /// Sends what TLS has to say of itself.
  private func flushTLS() throws(HarnessError) {
    var bytes: [UInt8] = []
    tls?.output(into: &bytes)
    try sendAll(bytes)
  }

  private func sendAll(_ bytes: [UInt8]) throws(HarnessError) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes { send(socket, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL)) }
      if count < 0, errno == EINTR { continue }
      // A server that has heard enough answers and closes: what it said is still to be read.
      if count < 0, errno == EPIPE || errno == ECONNRESET, sent > 0 { break }
      guard count > 0 else { throw HarnessError("\(server) closed the connection: \(systemMessage(errno))") }
      sent += count
    }
  }

  private mutating func exchange(_ message: [UInt8]) throws(HarnessError) -> Response {
    received.removeAll(keepingCapacity: true)
    if let tls {
      tls.send(message)
      try flushTLS()
    } else {
      try sendAll(message)
    }
    var bodyStart: Int?
    while bodyStart == nil {
      guard received.count <= Self.headLimit else { throw HarnessError("\(server) sent a head without end") }
      try receive()
      bodyStart = endOfHead()
    }
    let head = String(decoding: received[..<(bodyStart ?? 0)], as: UTF8.self)
    let lines = head.split(separator: "\r\n")
    let statusLine = lines.first?.split(separator: " ") ?? []
    guard statusLine.count >= 2, statusLine[0].hasPrefix("HTTP/1."), let status = Int(statusLine[1]) else {
      throw HarnessError("\(server) does not speak HTTP/1.1")
    }
    var length = 0
    var closes = false
    for line in lines.dropFirst() {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2 else { continue }
      let value = parts[1].drop { $0 == " " }
      switch parts[0].lowercased() {
      case "content-length":
        guard let count = Int(value), (0...Self.bodyLimit).contains(count) else {
          throw HarnessError("\(server) sent a content-length of \(value)")
        }
        length = count
      case "connection": closes = value.lowercased() == "close"
      default: break
      }
    }
    let start = bodyStart ?? 0
    while received.count < start + length { try receive() }
    let body = Array(received[start..<(start + length)])
    if closes { disconnect() }
    return Response(status: status, body: body)
  }

  private func endOfHead() -> Int? {
    guard received.count >= 4 else { return nil }
    for index in 3..<received.count where received[index] == 10 && received[index - 2] == 10 {
      if received[index - 1] == 13 && received[index - 3] == 13 { return index + 1 }
    }
    return nil
  }

  private mutating func receive() throws(HarnessError) {
    var chunk = [UInt8](repeating: 0, count: 16 << 10)
    while true {
      let count = recv(socket, &chunk, chunk.count, 0)
      if count > 0 { return try take(chunk[..<count]) }
      if count < 0, errno == EINTR { continue }
      if count == 0 { throw HarnessError("\(server) closed the connection before it had answered") }
      if errno == EAGAIN { throw HarnessError("\(server) did not answer within \(limit)") }
      throw HarnessError("\(server): \(systemMessage(errno))")
    }
  }

  private mutating func take(_ bytes: ArraySlice<UInt8>) throws(HarnessError) {
    guard let tls else { return received.append(contentsOf: bytes) }
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 16 << 10, alignment: 16)
    defer { room.deallocate() }
    var said: [UInt8] = []
    bytes.withUnsafeBytes { raw in tls.receive(raw, room: room) { said.append(contentsOf: $0) } }
    received += said
    if case .failed(let error) = tls.state {
      try? flushTLS()
      throw HarnessError("TLS with \(server): \(error)")
    }
  }
}
