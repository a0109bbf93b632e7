/// One request and its response, whatever the protocol version. Used again for later requests of its connection.
public final class ServerStream {
  @exclusivity(unchecked) public internal(set) var headers = HeaderBlock()
  /// The whole request body.
  @exclusivity(unchecked) public internal(set) var body: [UInt8] = []
  /// The handler's own; 0 at first.
  @exclusivity(unchecked) public var token: UInt64 = 0
  /// Whether a response may still be given.
  @exclusivity(unchecked) public internal(set) var isOpen = false
  @exclusivity(unchecked) public internal(set) var isAnswered = false
  /// The request is handed over as it comes, and the response goes out as it is written. HTTP/2 only.
  @exclusivity(unchecked) public internal(set) var isStreaming = false
  /// The whole request is there.
  @exclusivity(unchecked) public internal(set) var isRequestComplete = false
  /// The connection that the stream belongs to, from `received` until the stream ends; set by the transport. Not
  /// counted: the owner holds the stream, ends it before it goes, and is looked up for every response.
  @exclusivity(unchecked) public unowned(unsafe) var owner: AnyObject?

  @exclusivity(unchecked) var id: Int32 = 0
  @exclusivity(unchecked) var headerBytes = 0
  @exclusivity(unchecked) var isDelivered = false
  /// Answered before its request was whole: the rest is not wanted.
  @exclusivity(unchecked) var isRefused = false
  /// When its first bytes came, in nanoseconds of the connection's clock. HTTP/2 only.
  @exclusivity(unchecked) public internal(set) var beganAt: UInt64 = 0
  @exclusivity(unchecked) var isHead = false
  @exclusivity(unchecked) var openIndex = 0
  @exclusivity(unchecked) var responseHead: ResponseHead?
  @exclusivity(unchecked) var trailers: ResponseHead?
  @exclusivity(unchecked) var responseBody: [UInt8] = []
  /// The body was written into the stream's own buffer, which is used again.
  @exclusivity(unchecked) var ownsBody = false
  @exclusivity(unchecked) var sent = 0
  /// The response goes on.
  @exclusivity(unchecked) var isResponseOpen = false
  /// nghttp2 waits until there is more to send.
  @exclusivity(unchecked) var isWaiting = false
  private static let keptBytesMax = 64 << 10

  init() {}

  public func isMethod(_ name: StaticString) -> Bool { headers.has(":method", name) }
  public func isPath(_ path: StaticString) -> Bool { headers.has(":path", path) }
  public var path: String { headers[":path"] ?? "" }
  /// Takes what has come of a streaming request so far.
  public func withBody<Result>(_ read: (inout [UInt8]) -> Result) -> Result { read(&body) }

  func begin(id: Int32) {
    self.id = id
    headers.removeAll()
    body.removeAll(keepingCapacity: true)
    token = 0
    isOpen = true
    isAnswered = false
    headerBytes = 0
    isDelivered = false
    isRefused = false
    isHead = false
    sent = 0
    isStreaming = false
    isRequestComplete = false
    isResponseOpen = false
    isWaiting = false
  }
  func end() {
    isOpen = false
    owner = nil
    responseHead = nil
    trailers = nil
    if ownsBody, responseBody.capacity <= Self.keptBytesMax {
      responseBody.removeAll(keepingCapacity: true)
    } else {
      responseBody = []
    }
    ownsBody = false
    if body.capacity > Self.keptBytesMax { body = [] }
  }
}

/// What a server session tells its owner.
public protocol ServerSessionDelegate: AnyObject {
  /// Whether a request is handed over as it comes.
  func streams(_ stream: ServerStream) -> Bool
  /// The whole request is there; of a streaming one its head, and then more of it, the last time with
  /// `isRequestComplete`.
  func received(_ stream: ServerStream)
  /// The client took it back, or the connection ended, before the answer was given.
  func cancelled(_ stream: ServerStream)
  /// The peer has run into a limit; what follows from that is the session's.
  func ranInto(_ limit: HTTPLimit)
}

/// Bytes in, requests out; responses in, bytes out. No I/O.
public protocol ServerSession: AnyObject {
  /// The time, in nanoseconds of a clock that never goes back; to be set before each of the calls below.
  var now: UInt64 { get set }
  /// Looks for what takes too long.
  /// - Returns: the limit that ends the connection now.
  func checkTime() -> HTTPLimit?
  /// Bytes of responses that have left, so far, and that wait to.
  var sentBytes: UInt64 { get }
  var bufferedBytes: Int { get }
  /// - Returns: false when the connection must end after what is unsent has been sent.
  func receive(_ bytes: UnsafeRawBufferPointer) -> Bool
  func respond(_ stream: ServerStream, head: ResponseHead, body: [UInt8], trailers: ResponseHead?)
  /// The same with a body that `write` appends to the stream's own buffer.
  func respond(_ stream: ServerStream, head: ResponseHead, trailers: ResponseHead?, write: (inout [UInt8]) -> Void)
  /// Begins a response that goes on: `send`, then `finish`.
  func begin(_ stream: ServerStream, head: ResponseHead)
  /// - Returns: false when nothing was taken: the stream has ended, or too much waits for a peer that does not read.
  func send(_ stream: ServerStream, _ bytes: [UInt8]) -> Bool
  func finish(_ stream: ServerStream, trailers: ResponseHead)
  /// Appends what is to be sent, about `limit` bytes at most.
  func output(into buffer: inout [UInt8], limit: Int)
  /// Announces the end: first a notice, then (final) no further streams.
  func shutdown(final: Bool)
  /// Gives up every open stream.
  func close()
  var openStreams: Int { get }
  /// Whether the session has come to its end by itself.
  var isOver: Bool { get }
}

extension ServerSessionDelegate {
  public func ranInto(_ limit: HTTPLimit) {}
  public func streams(_ stream: ServerStream) -> Bool { false }
}
extension ServerSession {
  public func begin(_ stream: ServerStream, head: ResponseHead) {}
  public func send(_ stream: ServerStream, _ bytes: [UInt8]) -> Bool { false }
  public func finish(_ stream: ServerStream, trailers: ResponseHead) {}
}
