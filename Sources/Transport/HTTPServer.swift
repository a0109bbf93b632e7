import CLinux
import Glibc
import HTTP2
import RankingCore

// Listens, and turns connections into requests. The first bytes of a connection say which protocol it speaks:
//
//     socket bytes ─► [TLS] ─►        "PRI * HTTP/2.0…"? ─► HTTP2ServerSession ─┐
//                                  └─ anything else     ─► HTTP1ServerSession ─┴─► HTTPServerDelegate

/// Answers requests, on the server's loop.
public protocol HTTPServerDelegate: AnyObject {
  /// Whether a request is handed over as it comes.
  func streams(_ stream: ServerStream) -> Bool
  func received(_ stream: ServerStream, on server: HTTPServer)
  func cancelled(_ stream: ServerStream, on server: HTTPServer)
}

extension HTTPServerDelegate {
  public func streams(_ stream: ServerStream) -> Bool { false }
}

public struct HTTPServerCounters: Sendable {
  public var accepted: UInt64 = 0
  public var requests: UInt64 = 0
  public var cancelled: UInt64 = 0
  public var refusedConnections: UInt64 = 0
  /// Connections whose TLS handshake failed.
  public var refusedByTLS: UInt64 = 0
  public fileprivate(set) var receivedBytes: UInt64 = 0
  public fileprivate(set) var sentBytes: UInt64 = 0
  /// How often peers ran into a limit, by `HTTPLimit`.
  public fileprivate(set) var limitsHit = [UInt64](repeating: 0, count: HTTPLimit.allCases.count)
  fileprivate mutating func count(_ limit: HTTPLimit) {
    limitsHit[HTTPLimit.allCases.firstIndex(of: limit) ?? 0] += 1
  }
}

public final class HTTPServer: DescriptorHandler {
  public let loop: EventLoop
  public let limits: HTTPLimits
  /// The port that was bound.
  public let port: UInt16
  public fileprivate(set) var counters = HTTPServerCounters()
  public weak var delegate: (any HTTPServerDelegate)?
  /// Told of peers that TLS keeps out, and why.
  public var whenRefused: ((String) -> Void)?
  fileprivate let tls: TLSContext?
  private let listener: Int32
  fileprivate var connections: [ObjectIdentifier: ServerConnection] = [:]
  /// Open connections by the address they come from.
  fileprivate var perPeer: [PeerAddress: Int] = [:]
  private var isStopping = false
  private var whenStopped: (() -> Void)?

  /// - Parameter tls: nil = plaintext.
  public init(
    host: String, port: UInt16, limits: HTTPLimits, tls: TLSContext? = nil, loop: EventLoop
  ) throws(SystemError) {
    self.loop = loop
    self.tls = tls
    self.limits = limits
    let address = try ResolvedAddress(host: host, port: port)
    let descriptor = socket(
      address.family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard descriptor >= 0 else { throw SystemError("socket") }
    var one: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, 4)
    guard address.withSockaddr({ bind(descriptor, $0, $1) }) == 0 else {
      let error = SystemError("cannot listen on \(host):\(port)")
      close(descriptor)
      throw error
    }
    guard listen(descriptor, 1024) == 0 else {
      let error = SystemError("cannot listen on \(host):\(port)")
      close(descriptor)
      throw error
    }
    var bound = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    withUnsafeMutablePointer(to: &bound) { pointer in
      _ = pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
    }
    self.port = withUnsafeBytes(of: bound) { UInt16(bigEndian: $0.load(fromByteOffset: 2, as: UInt16.self)) }
    listener = descriptor
  }

  /// Starts to accept; on the loop.
  public func start() {
    loop.add(listener, events: EPOLLIN.rawValue, handler: self)
    loop.schedule(after: limits.sweep) { [weak self] in self?.sweep() }
  }

  /// Gives the response to a request; dropped when the client has gone.
  public func respond(_ stream: ServerStream, head: ResponseHead, body: [UInt8], trailers: ResponseHead? = nil) {
    connection(of: stream)?.respond(stream, head: head, body: body, trailers: trailers)
  }
  /// The same with a body that `write` appends to the stream's own buffer.
  public func respond(
    _ stream: ServerStream, head: ResponseHead, trailers: ResponseHead? = nil, write: (inout [UInt8]) -> Void
  ) {
    connection(of: stream)?.respond(stream, head: head, trailers: trailers, write: write)
  }
  /// Begins a response that goes on: `send`, then `finish`. HTTP/2 only.
  public func begin(_ stream: ServerStream, head: ResponseHead) {
    connection(of: stream)?.speak { $0.begin(stream, head: head) }
  }
  /// - Returns: false when nothing was taken: the stream has ended, or too much waits for a peer that does not read.
  public func send(_ stream: ServerStream, _ bytes: [UInt8]) -> Bool {
    connection(of: stream)?.speak { $0.send(stream, bytes) } ?? false
  }
  public func finish(_ stream: ServerStream, trailers: ResponseHead) {
    connection(of: stream)?.speak { $0.finish(stream, trailers: trailers) }
  }
  /// What the certificate of a request's sender entitles to; nil = nobody was asked for one.
  public func peerRoles(of stream: ServerStream) -> NodeRole? {
    guard case .nodeServer? = tls?.use else { return nil }
    return connection(of: stream)?.peerRoles ?? []
  }
  /// Only connections own streams, so that no cast needs to be tried.
  private func connection(of stream: ServerStream) -> ServerConnection? {
    stream.owner.map { unsafeDowncast($0, to: ServerConnection.self) }
  }

  /// No further connections; notice, 600 ms, no further streams, at most `limit` for those that are open, end.
  public func stop(limit: Duration = .seconds(10), then done: @escaping () -> Void) {
    guard !isStopping else { return }
    isStopping = true
    whenStopped = done
    loop.remove(listener)
    close(listener)
    for connection in connections.values { connection.shutdown(final: false) }
    loop.schedule(after: .milliseconds(600)) { [self] in
      for connection in connections.values { connection.shutdown(final: true) }
      finishIfIdle()
    }
    loop.schedule(after: limit) { [self] in
      for connection in Array(connections.values) { connection.end() }
      finishIfIdle()
    }
  }

  fileprivate func finishIfIdle() {
    guard isStopping, connections.isEmpty, let done = whenStopped else { return }
    whenStopped = nil
    done()
  }

  func ready(events: UInt32) {
    while true {
      let descriptor = clinux_accept(listener)
      guard descriptor >= 0 else { return }
      let peer = PeerAddress(of: descriptor)
      let limit: HTTPLimit? =
        connections.count >= limits.connections
        ? .connections : perPeer[peer, default: 0] >= limits.connectionsPerPeer ? .connectionsPerPeer : nil
      if let limit {
        counters.count(limit)
        counters.refusedConnections += 1
        close(descriptor)
        continue
      }
      counters.accepted += 1
      guard let connection = ServerConnection(Socket(adopting: descriptor), peer, server: self) else { continue }
      perPeer[peer, default: 0] += 1
      connections[ObjectIdentifier(connection)] = connection
      connection.start()
    }
  }

  public var openConnections: Int { connections.count }
  var openForTests: [ServerConnection] { Array(connections.values) }

  private func sweep() {
    for connection in Array(connections.values) { connection.checkTime() }
    if !isStopping { loop.schedule(after: limits.sweep) { [weak self] in self?.sweep() } }
  }
}

final class ServerConnection: DescriptorHandler, Flushable, ServerSessionDelegate {
  private let socket: Socket
  private unowned let server: HTTPServer
  private let peer: PeerAddress
  private var session: (any ServerSession)?
  private var wire: Wire
  private var preface: [UInt8] = []
  private var unsent: [UInt8] = []
  private var sent = 0
  private var isEnded = false
  private var isFlushing = false
  private var closesWhenSent = false
  private var interest = EPOLLIN.rawValue
  private var lastActivity: Instant
  private var lastProgress: Instant
  private let startedAt: Instant
  /// What the session had sent when it was last looked at.
  private var sentBefore: UInt64 = 0
  private static let http2Preface = Array("PRI * HTTP/2.0".utf8)

  init?(_ socket: consuming Socket, _ peer: PeerAddress, server: HTTPServer) {
    var tls: TLSSession?
    if let terms = server.tls {
      guard let session = try? TLSSession(terms) else { return nil }
      tls = session
    }
    wire = Wire(tls)
    self.socket = socket
    self.server = server
    self.peer = peer
    startedAt = server.loop.now
    lastActivity = server.loop.now
    lastProgress = server.loop.now
  }

  func start() {
    socket.setOption(Int32(IPPROTO_TCP), TCP_NODELAY, 1)
    server.loop.add(socket.descriptor, events: interest, handler: self)
  }

  func ready(events: UInt32) {
    if events & (EPOLLIN.rawValue | EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0 { readSome() }
    if !isEnded, events & EPOLLOUT.rawValue != 0 { flushLater() }
  }

  /// One read a turn: a short one has emptied the socket, and after a full one others get their turn first.
  private func readSome() {
    let buffer = server.loop.receiveBuffer
    switch socket.read(into: buffer) {
    case .bytes(let count):
      lastActivity = server.loop.now
      server.counters.receivedBytes &+= UInt64(count)
      let bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<count])
      wire.receive(bytes, room: server.loop.recordBuffer) {
        if !closesWhenSent, !isEnded, !receive($0) { closesWhenSent = true }
      }
      if let failure = wire.failure { refuse(failure) }
      if wire.isClosed { closesWhenSent = true }
      flushLater()
    case .wouldBlock: return
    case .end, .failed: end()
    }
  }

  /// What TLS itself has to say of it is sent, and nothing else.
  private func refuse(_ failure: TLSError) {
    closesWhenSent = true
    guard session == nil else { return }
    server.counters.refusedByTLS += 1
    server.whenRefused?("\(socket.peer) is refused: \(failure)")
  }
  var peerRoles: NodeRole { wire.tls?.peerRoles ?? [] }

  private func receive(_ bytes: UnsafeRawBufferPointer) -> Bool {
    if let session {
      session.now = server.loop.now.nanoseconds
      return session.receive(bytes)
    }
    preface.append(contentsOf: bytes)
    let known = min(preface.count, Self.http2Preface.count)
    let isHTTP2 = preface[..<known].elementsEqual(Self.http2Preface[..<known])
    if isHTTP2, known < Self.http2Preface.count { return true }
    let session: any ServerSession =
      isHTTP2
      ? HTTP2ServerSession(limits: server.limits, delegate: self, memory: server.loop.sessionMemory)
      : HTTP1ServerSession(limits: server.limits, delegate: self)
    self.session = session
    session.now = server.loop.now.nanoseconds
    let first = preface
    preface = []
    return first.withUnsafeBytes { session.receive($0) }
  }

  func respond(_ stream: ServerStream, head: ResponseHead, body: [UInt8], trailers: ResponseHead?) {
    guard !isEnded else { return }
    session?.respond(stream, head: head, body: body, trailers: trailers)
    flushLater()
  }

  func respond(
    _ stream: ServerStream, head: ResponseHead, trailers: ResponseHead?, write: (inout [UInt8]) -> Void
  ) {
    guard !isEnded else { return }
    session?.respond(stream, head: head, trailers: trailers, write: write)
    flushLater()
  }

  func speak<Result>(_ body: (any ServerSession) -> Result) -> Result? {
    guard !isEnded, let session else { return nil }
    defer { flushLater() }
    return body(session)
  }

  func shutdown(final: Bool) {
    session?.shutdown(final: final)
    if session == nil || (final && session?.openStreams == 0) { closesWhenSent = true }
    flushLater()
  }

  private func flushLater() {
    guard !isFlushing, !isEnded else { return }
    isFlushing = true
    server.loop.flushLater(self)
  }

  func flush() {
    isFlushing = false
    guard !isEnded else { return }
    var isBlocked = false
    while !isBlocked {
      if sent == unsent.count {
        unsent.removeAll(keepingCapacity: true)
        sent = 0
        wire.fill(&unsent) { session?.output(into: &$0, limit: HTTPLimits.unsentBytesToPause) }
        if unsent.isEmpty { break }
      }
      let result = unsent.withUnsafeBytes { socket.write(UnsafeRawBufferPointer(rebasing: $0[sent...])) }
      switch result {
      case .bytes(let count):
        sent += count
        server.counters.sentBytes &+= UInt64(count)
        lastProgress = server.loop.now
      case .wouldBlock: isBlocked = true
      case .end, .failed: return end()
      }
    }
    if !isBlocked, closesWhenSent || session?.isOver == true { return sayGoodbye() }
    // While the peer does not read, nothing more is read from it.
    let wanted = isBlocked ? EPOLLOUT.rawValue : EPOLLIN.rawValue
    if wanted != interest {
      interest = wanted
      server.loop.modify(socket.descriptor, events: wanted)
    }
  }

  /// Everything has been sent: TLS says so, which a peer that has not got the whole answer can tell from an attack.
  private func sayGoodbye() {
    if let tls = wire.tls {
      tls.close()
      tls.output(into: &unsent)
      _ = unsent.withUnsafeBytes { socket.write($0) }
    }
    end()
  }

  func checkTime() {
    let now = server.loop.now
    guard let session else {
      if now - startedAt > server.limits.handshake { cut(.handshakeTime) }
      return
    }
    // A socket that takes nothing, or a peer whose windows do not open.
    let isBlocked = interest == EPOLLOUT.rawValue
    if session.sentBytes != sentBefore { lastProgress = now }
    sentBefore = session.sentBytes
    if !isBlocked, session.bufferedBytes == 0 { lastProgress = now }
    if now - lastProgress > server.limits.writeStall { return cut(.writeStall) }
    session.now = now.nanoseconds
    if let limit = session.checkTime() { return cut(limit) }
    flushLater()
    // HTTP/2 peers keep their connection with PINGs; within a request the handler's deadline rules.
    if session.openStreams == 0, now - lastActivity > server.limits.idle { end() }
  }

  private func cut(_ limit: HTTPLimit) {
    server.counters.count(limit)
    // What it never read would wait for it in the kernel.
    socket.dropsUnsent()
    end()
  }

  func end() {
    guard !isEnded else { return }
    isEnded = true
    server.loop.remove(socket.descriptor)
    session?.close()
    Glibc.shutdown(socket.descriptor, Int32(SHUT_RDWR))
    server.connections[ObjectIdentifier(self)] = nil
    server.perPeer[peer].map { server.perPeer[peer] = $0 > 1 ? $0 - 1 : nil }
    server.finishIfIdle()
  }

  // MARK: ServerSessionDelegate

  func ranInto(_ limit: HTTPLimit) { server.counters.count(limit) }
  func streams(_ stream: ServerStream) -> Bool { server.delegate?.streams(stream) ?? false }
  func received(_ stream: ServerStream) {
    if stream.owner == nil {
      stream.owner = self
      server.counters.requests += 1
    }
    server.delegate?.received(stream, on: server)
  }
  func cancelled(_ stream: ServerStream) {
    server.counters.cancelled += 1
    server.delegate?.cancelled(stream, on: server)
  }
}
