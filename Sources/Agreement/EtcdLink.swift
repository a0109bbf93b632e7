import HTTP2
import RankingCore
import Transport
import Wire

// The way to etcd: one connection to one of several endpoints, made again, to the next one, whenever it is lost or its
// owner drops it. Calls and streams go over the connection of the moment.
//
//     a ─✗─ 50 ms ─► b ─✗─ 80 ms ─► a ─✗─ … at most 2 s ─► b ─✓─ worked() ─► the next loss begins at 50 ms again
//
// Every endpoint is asked to refuse while it has no leader (`hasleader`), so that one on the wrong side of a partition
// is left for the next.

/// Where an etcd listens for clients.
public struct EtcdEndpoint: Sendable, Equatable, CustomStringConvertible {
  public var host: String
  public var port: UInt16
  public init(host: String, port: UInt16) {
    self.host = host
    self.port = port
  }
  /// `host:port`, also with `http://` before it; nil for anything else (TLS is not supported yet).
  public init?(_ text: String) {
    var rest = text[...]
    if rest.hasPrefix("http://") { rest = rest.dropFirst("http://".count) }
    if rest.hasSuffix("/") { rest = rest.dropLast() }
    guard let colon = rest.lastIndex(of: ":"), let port = UInt16(rest[rest.index(after: colon)...]), port != 0 else {
      return nil
    }
    var host = rest[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") {
      host = host.dropFirst().dropLast()
    } else if host.contains(":") {
      return nil
    }
    guard !host.isEmpty, !host.contains("/") else { return nil }
    self.init(host: String(host), port: port)
  }
  public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// Pauses between attempts that grow, and are not the same for everybody.
struct Backoff {
  static let first: Duration = .milliseconds(50)
  static let factor = 1.6
  static let max: Duration = .seconds(2)
  static let jitter = 0.2
  private var next = Backoff.first
  private var generator: SeededGenerator

  init(seed: UInt64) { generator = SeededGenerator(seed: seed) }

  /// At most `max`, jitter included.
  mutating func pause() -> Duration {
    let spread = 1 + Self.jitter * (2 * generator.unit() - 1)
    let pause = Duration.nanoseconds(Int64(Double(next.nanoseconds) * spread))
    next = min(Self.max, .nanoseconds(Int64(Double(next.nanoseconds) * Self.factor)))
    return min(Self.max, pause)
  }
  mutating func reset() { next = Self.first }
}

protocol EtcdLinkDelegate: AnyObject {
  func linkUp()
  /// It is lost, or could not be made; another attempt follows. Told once for each attempt.
  func linkDown(why: String)
}

final class EtcdLink: HTTPClientDelegate, @unchecked Sendable {
  let loop: EventLoop
  weak var delegate: (any EtcdLinkDelegate)?
  /// Counts connections: what was begun on an earlier one is no longer of interest.
  private(set) var generation: UInt64 = 0
  private let endpoints: [EtcdEndpoint]
  private var next = 0
  /// An attempt is under way, or has succeeded.
  private var isTrying = false
  private var client: HTTPClient?
  /// Made for the first endpoint that is a name.
  private var resolver: StoreThread?
  /// Runs on a thread of its own.
  var lookUp: @Sendable (String) -> Result<[String], HostLookup.LookupError> = HostLookup.addresses
  private var streams: [EtcdStream] = []
  private var backoff: Backoff
  private var isStopped = true
  private let policy = LinkPolicy()

  /// - Parameter endpoints: at least one; tried in this order.
  init(endpoints: [EtcdEndpoint], loop: EventLoop, seed: UInt64) {
    precondition(!endpoints.isEmpty, "etcd without an endpoint")
    self.endpoints = endpoints
    self.loop = loop
    backoff = Backoff(seed: seed)
  }
  deinit { resolver?.stop() }

  /// The endpoint of the present attempt.
  var endpoint: EtcdEndpoint { endpoints[next % endpoints.count] }

  func start() {
    isStopped = false
    connect()
  }
  /// Ends the connection and tells nothing more; calls under way fail.
  func stop() {
    isStopped = true
    letGo()
  }
  /// The connection has shown what it is for: the next loss is a new one.
  func worked() { backoff.reset() }

  /// Gives the connection up for another.
  func drop(_ why: String) {
    guard isTrying else { return }
    let endpoint = endpoint
    letGo()
    next += 1
    delegate?.linkDown(why: "\(endpoint): \(why)")
    guard !isStopped else { return }
    let attempt = generation
    loop.schedule(after: backoff.pause()) { [weak self] in
      guard let self, generation == attempt, !isStopped else { return }
      connect()
    }
  }

  private func connect() {
    guard !isTrying else { return }
    isTrying = true
    generation += 1
    let (attempt, host) = (generation, endpoint.host)
    if HostLookup.isNumeric(host) { return connect(to: host) }
    let resolver = resolver ?? StoreThread()
    self.resolver = resolver
    let found = OnLoop<Result<[String], HostLookup.LookupError>> { [weak self] result in
      guard let self, generation == attempt else { return }
      switch result {
      // A name with several addresses is tried at another one each time.
      case .success(let addresses): connect(to: addresses[next / endpoints.count % addresses.count])
      case .failure(let error): drop("\(error)")
      }
    }
    resolver.run { [loop, lookUp] in
      let result = lookUp(host)
      loop.execute { found.body(result) }
    }
  }

  /// - Parameter host: numeric, as looking up a name would block the loop.
  private func connect(to host: String) {
    let client = HTTPClient(
      host: host, port: endpoint.port, loop: loop, policy: policy, reconnects: false, seed: generation)
    self.client = client
    client.delegate = self
    client.start()
  }

  private func letGo() {
    guard isTrying else { return }
    isTrying = false
    generation += 1
    for stream in streams { stream.isOpen = false }
    streams.removeAll()
    guard let client else { return }
    self.client = nil
    client.delegate = nil
    // Not from within a call that the client has made.
    loop.execute { [client = OnLoop<Void>({ client.stop() })] in client.body(()) }
  }

  func clientUp(_ client: HTTPClient) { if client === self.client { delegate?.linkUp() } }
  func clientDown(_ client: HTTPClient, reason: String) { if client === self.client { drop(reason) } }

  // MARK: Calls

  private static func head(_ method: StaticString) -> RequestHead {
    RequestHead(
      method: "POST", path: "/etcdserverpb.\(method)",
      headers: [("content-type", GRPC.contentType), ("te", "trailers"), ("hasleader", "true")], varying: "grpc-timeout")
  }
  static let range = head("KV/Range")
  static let transaction = head("KV/Txn")
  static let grant = head("Lease/LeaseGrant")
  static let revoke = head("Lease/LeaseRevoke")
  static let keepAlive = head("Lease/LeaseKeepAlive")
  static let watch = head("Watch/Watch")

  /// Makes a unary call. `completion` is called exactly once, later, with the reply's message or why there is none; a
  /// reply that does not come within `timeout` is a failure.
  func call(
    _ head: RequestHead, _ message: [UInt8], timeout: Duration,
    completion: @escaping (Result<[UInt8], GRPC.StatusError>) -> Void
  ) {
    let handler = UnaryCall(completion)
    let id = client?.call(head, varying: GRPC.timeout(timeout), handler: handler) { $0 += GRPC.frame(message) }
    guard let client, let id else {
      return loop.execute { handler.end(.failure(GRPC.StatusError(.unavailable, "no connection"))) }
    }
    handler.timer = loop.schedule(after: timeout) { [weak client] in
      handler.isLate = true
      client?.cancel(id)
    }
    handler.loop = loop
  }

  /// A unary call on its way; released when it has ended.
  private final class UnaryCall: CallHandler, @unchecked Sendable {
    private var completion: ((Result<[UInt8], GRPC.StatusError>) -> Void)?
    var timer: LoopTimer?
    var loop: EventLoop?
    var isLate = false
    init(_ completion: @escaping (Result<[UInt8], GRPC.StatusError>) -> Void) { self.completion = completion }

    func ended(_ token: UInt64, _ outcome: CallOutcome) {
      switch outcome {
      case .response(let call):
        if let error = statusError(of: call) { return end(.failure(error)) }
        call.body.withUnsafeBytes { end(GRPC.message($0).map(Array.init)) }
      case .failure(let failure):
        end(
          .failure(
            isLate
              ? GRPC.StatusError(.deadlineExceeded, "no reply in time") : GRPC.StatusError(.unavailable, "\(failure)")))
      }
    }
    func end(_ result: Result<[UInt8], GRPC.StatusError>) {
      if let timer { loop?.cancel(timer) }
      timer = nil
      completion?(result)
      completion = nil
    }
  }

  /// Opens a stream; nil without a connection.
  /// - Parameters:
  ///   - received: called with each message, lent until it returns.
  ///   - ended: called when the stream ends by itself, not when the connection is let go.
  func open(
    _ head: RequestHead, received: @escaping (UnsafeRawBufferPointer) -> Void,
    ended: @escaping (GRPC.StatusError) -> Void
  ) -> EtcdStream? {
    let stream = EtcdStream(received: received, ended: ended)
    guard let client, let id = client.open(head, handler: stream) else { return nil }
    stream.client = client
    stream.id = id
    streams.append(stream)
    return stream
  }
}

/// A stream of messages in both directions, as long as its connection lasts.
final class EtcdStream: StreamHandler {
  /// A watch's reply is cut into fragments of at most 2 MiB, or one event.
  private static let messageBytesMax = 4 << 20
  fileprivate weak var client: HTTPClient?
  fileprivate var id: CallID?
  fileprivate(set) var isOpen = true
  private let receivedMessage: (UnsafeRawBufferPointer) -> Void
  private let endedStream: (GRPC.StatusError) -> Void
  private var messages = GRPCStream(messageBytesMax: messageBytesMax)

  fileprivate init(
    received: @escaping (UnsafeRawBufferPointer) -> Void, ended: @escaping (GRPC.StatusError) -> Void
  ) {
    receivedMessage = received
    endedStream = ended
  }

  /// - Returns: false when nothing was taken.
  func send(_ message: [UInt8]) -> Bool {
    guard isOpen, let client, let id else { return false }
    return client.send(id) { $0 += GRPC.frame(message) }
  }

  func received(_ token: UInt64, _ bytes: UnsafeRawBufferPointer) {
    guard isOpen else { return }
    do throws(GRPC.StatusError) {
      try messages.receive(bytes) { if isOpen { receivedMessage($0) } }
    } catch { end(error) }
  }
  func ended(_ token: UInt64, _ outcome: CallOutcome) {
    switch outcome {
    case .response(let call): end(statusError(of: call) ?? GRPC.StatusError(.unavailable, "the stream was ended"))
    case .failure(let failure): end(GRPC.StatusError(.unavailable, "\(failure)"))
    }
  }
  private func end(_ error: GRPC.StatusError) {
    guard isOpen else { return }
    isOpen = false
    endedStream(error)
  }
}

/// Why a response is none; nil when it is one.
private func statusError(of call: ClientCall) -> GRPC.StatusError? {
  guard call.status == 200 else { return GRPC.StatusError(.unavailable, "HTTP status \(call.status)") }
  guard let status = call.grpcStatus else { return GRPC.StatusError(.unavailable, "the reply has no grpc-status") }
  guard status != 0 else { return nil }
  return GRPC.StatusError(GRPC.Status(rawValue: status) ?? .unknown, GRPC.decodeMessage(call.grpcMessage))
}
