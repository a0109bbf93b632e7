import CLinux
import Glibc
import HTTP2
import RankingCore

// One HTTP/2 connection to one address, made again whenever it is lost. Up means: the peer's SETTINGS have come; a TCP
// connection alone proves nothing of a process that is frozen.

public protocol HTTPClientDelegate: AnyObject {
  func clientUp(_ client: HTTPClient)
  /// The connection is lost, or could not be made. Calls in flight fail right after this.
  func clientDown(_ client: HTTPClient, reason: String)
  /// The peer takes no further calls on this connection; those in flight go on. Another connection follows.
  func clientClosing(_ client: HTTPClient)
}

extension HTTPClientDelegate {
  public func clientClosing(_ client: HTTPClient) { clientDown(client, reason: "the peer is leaving") }
}

/// Numbers of one link. Origins: the failure policy, "Coordinator → worker" and "Health and membership".
public struct LinkPolicy: Sendable {
  public var connectTimeout: Duration = .milliseconds(300)
  public var reconnectFirst: Duration = .milliseconds(50)
  public var reconnectFactor = 1.6
  /// With the jitter and two probes this leaves a worker that is back serving again within 2 s of being ready.
  public var reconnectMax: Duration = .seconds(1)
  public var reconnectJitter = 0.2
  public var pingAfterIdle: Duration = .seconds(10)
  public var pingTimeout: Duration = .seconds(1)
  public var userTimeoutMilliseconds: Int32 = 2000
  public init() {}
}

/// A call that can be cancelled.
public struct CallID: Hashable, Sendable {
  let connection: UInt64
  let stream: Int32
}

public final class HTTPClient: DescriptorHandler, Flushable {
  public let loop: EventLoop
  public private(set) var host: String
  public private(set) var port: UInt16
  public weak var delegate: (any HTTPClientDelegate)?
  public private(set) var isUp = false
  private let policy: LinkPolicy
  private var authority: String { "\(host):\(port)" }
  private let reconnects: Bool
  private let tls: TLSContext?
  private var wire = Wire(nil)
  private var generator: SeededGenerator
  private var socket: Link?
  private var session: HTTP2ClientSession?
  private var unsent: [UInt8] = []
  private var sent = 0
  private var interest: UInt32 = 0
  private var isFlushing = false
  private var connection: UInt64 = 0
  private var delay: Duration
  private var isStopped = true
  /// Within `lose`: who is told of it there may stop or move the client.
  private var isLosing = false
  private var lastReceived = Instant(nanoseconds: 0)

  /// A class around the descriptor, as it comes and goes.
  private final class Link {
    let socket: Socket
    init(_ socket: consuming Socket) { self.socket = socket }
  }

  /// - Parameters:
  ///   - tls: nil = plaintext.
  ///   - reconnects: false = give up at the first failure.
  public init(
    host: String, port: UInt16, loop: EventLoop, policy: LinkPolicy = LinkPolicy(), tls: TLSContext? = nil,
    reconnects: Bool = true, seed: UInt64 = 0
  ) {
    self.tls = tls
    self.host = host
    self.port = port
    self.loop = loop
    self.policy = policy
    self.reconnects = reconnects
    delay = policy.reconnectFirst
    generator = SeededGenerator(seed: seed)
  }

  /// Connects, and keeps connecting; on the loop.
  public func start() {
    isStopped = false
    connect()
  }
  /// Ends the connection and every open call, and connects no more: a client that has been stopped may be let go of,
  /// also from within a handler that it called.
  public func stop() {
    guard !isStopped else { return }
    isStopped = true
    if !isLosing { lose("stopped") }
  }
  /// From now on the peer is at this address; what is open at the earlier one fails.
  public func move(to host: String, port: UInt16) {
    guard host != self.host || port != self.port else { return }
    self.host = host
    self.port = port
    delay = policy.reconnectFirst
    guard !isStopped, !isLosing else { return }
    if socket != nil { lose("the peer has moved", reconnectAfter: .zero) } else { connect() }
  }

  /// Sends a request; `handler` is told how it ended exactly once, later.
  /// - Parameters:
  ///   - varying: the value of the head's varying header; nil leaves it out.
  ///   - body: appends the request body to the buffer it is given.
  /// - Returns: nil when there is no connection: then nothing will be told.
  public func call(
    _ head: RequestHead, varying: String? = nil, handler: any CallHandler, token: UInt64 = 0,
    body: (inout [UInt8]) -> Void = { _ in }
  ) -> CallID? {
    guard isUp, let session,
      let stream = session.call(head, varying: varying, handler: handler, token: token, body: body)
    else { return nil }
    flushLater()
    return CallID(connection: connection, stream: stream)
  }

  /// Begins a request whose body follows by `send`, and whose response is handed over as it comes; `handler` is told
  /// how it ended exactly once, later.
  /// - Returns: nil when there is no connection: then nothing will be told.
  public func open(_ head: RequestHead, handler: any StreamHandler, token: UInt64 = 0) -> CallID? {
    guard isUp, let session, let stream = session.open(head, handler: handler, token: token) else { return nil }
    flushLater()
    return CallID(connection: connection, stream: stream)
  }

  /// Appends to the body of an open request; goes out at the end of the turn.
  /// - Parameter isLast: ends the body; the response goes on.
  /// - Returns: false when nothing was taken: the stream has ended, or too much waits for a peer that does not read.
  public func send(_ call: CallID, isLast: Bool = false, body: (inout [UInt8]) -> Void = { _ in }) -> Bool {
    guard call.connection == connection, let session, session.send(call.stream, isLast: isLast, body: body) else {
      return false
    }
    flushLater()
    return true
  }

  /// The same for callers that want a closure and a response to keep, and make few calls.
  public func call(
    method: StaticString = "POST", path: StaticString, headers: [(StaticString, String)], body: [UInt8],
    completion: @escaping (Result<ClientResponse, ClientFailure>) -> Void
  ) -> CallID? {
    let head = RequestHead(
      method: "\(method)", path: "\(path)", headers: headers.map { ("\($0.0)", $0.1) })
    return call(head, handler: Completion(completion)) { $0 += body }
  }
  private final class Completion: CallHandler {
    let body: (Result<ClientResponse, ClientFailure>) -> Void
    init(_ body: @escaping (Result<ClientResponse, ClientFailure>) -> Void) { self.body = body }
    func ended(_ token: UInt64, _ outcome: CallOutcome) {
      switch outcome {
      case .response(let call): body(.success(call.copy))
      case .failure(let failure): body(.failure(failure))
      }
    }
  }

  public func cancel(_ call: CallID) {
    guard call.connection == connection, let session else { return }
    session.cancel(call.stream)
    flushLater()
  }

  // MARK: Connecting

  private func connect() {
    guard !isStopped, socket == nil else { return }
    connection += 1
    let attempt = connection
    let address: ResolvedAddress
    do { address = try ResolvedAddress(host: host, port: port) } catch { return lose("\(error)") }
    do { wire = Wire(try tls.map { terms in try TLSSession(terms, host: host) }) } catch { return lose("\(error)") }
    wire.tls?.start()
    let descriptor = Glibc.socket(
      address.family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard descriptor >= 0 else { return lose("\(SystemError("socket"))") }
    let link = Link(Socket(adopting: descriptor))
    link.socket.setOption(Int32(IPPROTO_TCP), TCP_NODELAY, 1)
    link.socket.setOption(Int32(IPPROTO_TCP), Int32(TCP_USER_TIMEOUT), policy.userTimeoutMilliseconds)
    socket = link
    let result = address.withSockaddr { Glibc.connect(descriptor, $0, $1) }
    guard result == 0 || errno == EINPROGRESS else { return lose("\(SystemError("connect"))") }
    interest = EPOLLOUT.rawValue | EPOLLIN.rawValue
    loop.add(descriptor, events: interest, handler: self)
    let session = HTTP2ClientSession(authority: authority, memory: loop.sessionMemory)
    self.session = session
    // The preface is written as soon as the socket can be written to.
    loop.schedule(after: policy.connectTimeout) { [weak self] in
      guard let self, connection == attempt, socket != nil, !isUp else { return }
      lose("no HTTP/2 settings within \(policy.connectTimeout.milliseconds) ms")
    }
  }

  private func lose(_ reason: String, reconnectAfter wait: Duration? = nil) {
    let wasUp = isUp
    isLosing = true
    defer { isLosing = false }
    isUp = false
    if let socket, interest != 0 { loop.remove(socket.socket.descriptor) }
    interest = 0
    socket = nil
    unsent.removeAll()
    sent = 0
    let session = session
    self.session = nil
    wire = Wire(nil)
    if wasUp { delay = policy.reconnectFirst }
    delegate?.clientDown(self, reason: reason)
    session?.close()
    guard reconnects, !isStopped else { return }
    let spread = 1 + policy.reconnectJitter * (2 * generator.unit() - 1)
    let pause = wait ?? .nanoseconds(Int64(Double(delay.nanoseconds) * spread))
    loop.schedule(after: pause) { [weak self] in self?.connect() }
    delay = min(policy.reconnectMax, .nanoseconds(Int64(Double(delay.nanoseconds) * policy.reconnectFactor)))
  }

  // MARK: Bytes

  func ready(events: UInt32) {
    if events & (EPOLLIN.rawValue | EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0 { readSome() }
    if events & EPOLLOUT.rawValue != 0, socket != nil { flushLater() }
  }

  private func readSome() {
    guard let link = socket, let session else { return }
    let buffer = loop.receiveBuffer
    switch link.socket.read(into: buffer) {
    case .bytes(let count):
      lastReceived = loop.now
      let bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<count])
      wire.receive(bytes, room: loop.recordBuffer) { if socket === link { session.receive($0) } }
      guard socket === link else { return }
      if let failure = wire.failure { return loseSecurely(link, failure) }
      if session.isUp, !session.isLeaving, !isUp {
        isUp = true
        delegate?.clientUp(self)
        watchIdle(connection)
      }
      if session.isOver || wire.isClosed { return lose("the peer ended the connection") }
      if session.isLeaving, isUp {
        // Calls under way are still answered on this connection; new ones go elsewhere until there is another.
        isUp = false
        delegate?.clientClosing(self)
      }
      flushLater()
    case .wouldBlock: return
    case .end: lose("the peer closed the connection")
    case .failed(let code): lose("\(SystemError("connection to \(authority)", code))")
    }
  }

  /// The peer is told why, if TLS has a word for it.
  private func loseSecurely(_ link: Link, _ failure: TLSError) {
    wire.tls?.output(into: &unsent)
    _ = unsent.withUnsafeBytes { link.socket.write(UnsafeRawBufferPointer(rebasing: $0[sent...])) }
    lose("TLS with \(authority): \(failure)")
  }

  private func flushLater() {
    guard !isFlushing else { return }
    isFlushing = true
    loop.flushLater(self)
  }

  func flush() {
    isFlushing = false
    guard let link = socket, let session else { return }
    var isBlocked = false
    while !isBlocked {
      if sent == unsent.count {
        unsent.removeAll(keepingCapacity: true)
        sent = 0
        wire.fill(&unsent) { session.output(into: &$0, limit: HTTPLimits.unsentBytesToPause) }
        if unsent.isEmpty { break }
      }
      switch unsent.withUnsafeBytes({ link.socket.write(UnsafeRawBufferPointer(rebasing: $0[sent...])) }) {
      case .bytes(let count): sent += count
      case .wouldBlock: isBlocked = true
      case .end: return lose("the peer closed the connection")
      case .failed(let code): return lose("\(SystemError("connection to \(authority)", code))")
      }
    }
    if session.isOver { return lose("the peer ended the connection") }
    let wanted = isBlocked ? EPOLLIN.rawValue | EPOLLOUT.rawValue : EPOLLIN.rawValue
    if wanted != interest {
      interest = wanted
      loop.modify(link.socket.descriptor, events: wanted)
    }
  }

  /// A quiet link is asked for a sign of life.
  private func watchIdle(_ attempt: UInt64) {
    loop.schedule(after: policy.pingAfterIdle) { [weak self] in
      guard let self, connection == attempt, isUp, let session else { return }
      guard loop.now - lastReceived >= policy.pingAfterIdle else { return watchIdle(attempt) }
      ping(session) { [unowned self] in watchIdle(attempt) }
    }
  }

  /// For a link whose other end is taken to be down: whether it is still a link. One that does not answer a PING is
  /// made anew: its other end may be gone without a word, and would be asked in vain until it had been idle for long.
  public func askForLife() {
    if isUp, let session { ping(session) {} }
  }

  /// - Parameter answered: called when the answer has come in time; the link is lost when it has not.
  private func ping(_ session: HTTP2ClientSession, answered: @escaping () -> Void) {
    let (attempt, before) = (connection, session.pongs)
    session.ping()
    flushLater()
    loop.schedule(after: policy.pingTimeout) { [weak self] in
      guard let self, connection == attempt, isUp else { return }
      if session.pongs == before { lose("no answer to a PING") } else { answered() }
    }
  }
}
