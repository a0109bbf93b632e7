import Glibc
import HTTP2
import RankingCore
import Synchronization
import Testing

@testable import Transport

/// A server on a loop of its own that answers by path, and hands what it sees to the test.
final class EchoServer: HTTPServerDelegate, @unchecked Sendable {
  let loop = EventLoop()
  private(set) var server: HTTPServer!
  let seen = Mutex<[String]>([])
  private var parked: [ServerStream] = []
  private static let head = ResponseHead(200, [("content-type", "text/plain")])
  private static let grpcHead = ResponseHead(200, [("content-type", "application/grpc")])
  private static let trailers = ResponseHead(0, [("grpc-status", "0")])

  init(_ limits: HTTPLimits = .publicPort) throws {
    server = try HTTPServer(host: "127.0.0.1", port: 0, limits: limits, loop: loop)
    server.delegate = self
    loop.start()
    loop.execute { [self] in server.start() }
  }
  func received(_ stream: ServerStream, on server: HTTPServer) {
    seen.withLock { $0.append("received \(stream.path) \(stream.body.count)") }
    switch stream.path {
    case "/park": parked.append(stream)
    case "/grpc": server.respond(stream, head: Self.grpcHead, body: stream.body, trailers: Self.trailers)
    case "/big": server.respond(stream, head: Self.head, body: [UInt8](repeating: 7, count: 8 << 20))
    default: server.respond(stream, head: Self.head, body: stream.body.isEmpty ? Array("hello\n".utf8) : stream.body)
    }
  }
  func cancelled(_ stream: ServerStream, on server: HTTPServer) {
    seen.withLock { $0.append("cancelled \(stream.path)") }
  }
  deinit { loop.stop() }
}

/// A blocking socket for what a client should not say.
struct RawClient: ~Copyable {
  let socket: Socket
  init(port: UInt16) throws {
    let address = try ResolvedAddress(host: "127.0.0.1", port: port)
    let descriptor = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var limit = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    #expect(address.withSockaddr { connect(descriptor, $0, $1) } == 0)
    socket = Socket(adopting: descriptor)
  }
  func say(_ text: String) { say(Array(text.utf8)) }
  func say(_ bytes: [UInt8]) { bytes.withUnsafeBytes { _ = socket.write($0) } }
  /// What comes until it is enough, or the server closes.
  func hear(until isEnough: ([UInt8]) -> Bool) -> [UInt8] {
    var all: [UInt8] = []
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 8)
    defer { buffer.deallocate() }
    while !isEnough(all) {
      guard case .bytes(let count) = socket.read(into: buffer) else {
        Issue.record("not heard within \(all.count) bytes")
        return all
      }
      all += buffer[..<count]
    }
    return all
  }
  /// What comes until the server closes.
  func hear() -> String {
    var all: [UInt8] = []
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 8)
    defer { buffer.deallocate() }
    while case .bytes(let count) = socket.read(into: buffer) { all += buffer[..<count] }
    return String(decoding: all, as: UTF8.self)
  }
}

@Suite struct HTTP1Tests {
  @Test func keepsTheConnectionAndAnswersPipelinedRequestsInOrder() throws {
    let echo = try EchoServer()
    let client = try RawClient(port: echo.server.port)
    client.say(
      "GET /a HTTP/1.1\r\nhost: x\r\n\r\nPOST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"
        + "GET /c HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    let heard = client.hear()
    #expect(heard.components("HTTP/1.1 200 OK").count == 4)
    #expect(heard.contains("\r\n\r\nabcHTTP/1.1 200 OK"))
    #expect(echo.seen.withLock { $0 } == ["received /a 0", "received /b 3", "received /c 0"])
  }

  @Test(arguments: [
    ("GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nab", 400),
    ("GET / HTTP/1.1\nhost: x\n\n", 400), ("\n\n", 400),
    ("GET /\n\n", 400), ("GET / HTTP/1.1\r\nhost: x\nfoo: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n", 400), ("GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n\r\n", 400), ("GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\na", 400),
    ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999\r\n\r\n", 413), ("PUT / HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    ("GET / HTTP/3.0\r\nhost: x\r\n\r\n", 505), ("nonsense\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: x\r\nlong: \(String(repeating: "a", count: 20_000))\r\n\r\n", 431),
  ])
  func whatTwoParsersCouldReadDifferentlyIsRefusedAndTheConnectionClosed(text: String, status: Int) throws {
    let echo = try EchoServer()
    // It ends with the bytes themselves, or is followed by another request.
    let alone = try RawClient(port: echo.server.port)
    alone.say(text)
    #expect(alone.hear().hasPrefix("HTTP/1.1 \(status) "))
    let client = try RawClient(port: echo.server.port)
    client.say(text + "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n")
    #expect(client.hear().hasPrefix("HTTP/1.1 \(status) "))
    #expect(echo.seen.withLock { $0 } == [])
  }
}

extension String {
  fileprivate func components(_ separator: String) -> [Substring] {
    self.split(separator: separator, omittingEmptySubsequences: false)
  }
}

/// A client on a loop of its own, with answers as values to wait for.
final class ScriptedClient: HTTPClientDelegate, @unchecked Sendable {
  let loop = EventLoop()
  private(set) var client: HTTPClient!
  private let up = Waiter<Bool>()
  let down = Waiter<String>()

  init(port: UInt16, expected: Bool = true) {
    client = HTTPClient(host: "127.0.0.1", port: port, loop: loop, reconnects: false)
    client.delegate = self
    loop.start()
    loop.execute { [self] in client.start() }
    if expected { #expect(up.wait() == true) }
  }
  /// One that the server may not take: nil = it did not.
  static func ifTaken(port: UInt16) -> ScriptedClient? {
    let client = ScriptedClient(port: port, expected: false)
    return client.up.wait() == true ? client : nil
  }
  func stop() {
    let stopped = Waiter<Bool>()
    loop.execute { [self] in
      client.stop()
      stopped.give(true)
    }
    _ = stopped.wait()
  }
  deinit { loop.stop() }
  func clientUp(_ client: HTTPClient) { up.give(true) }
  func clientDown(_ client: HTTPClient, reason: String) {
    up.give(false)
    down.give(reason)
  }

  func call(_ path: StaticString, _ body: [UInt8] = []) -> Waiter<Result<ClientResponse, ClientFailure>> {
    start(path, body).result
  }
  func start(
    _ path: StaticString, _ body: [UInt8] = []
  ) -> (result: Waiter<Result<ClientResponse, ClientFailure>>, id: Waiter<CallID?>) {
    let result = Waiter<Result<ClientResponse, ClientFailure>>()
    let id = Waiter<CallID?>()
    loop.execute { [self] in
      id.give(
        client.call(path: path, headers: [("te", "trailers")], body: body) { result.give($0) })
    }
    return (result, id)
  }
  func cancel(_ id: CallID) { loop.execute { [self] in client.cancel(id) } }
}

/// A value that another thread gives once; waiting has a limit.
final class Waiter<Value: Sendable>: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var value: Value?
  init() {
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
  }
  func give(_ value: Value) {
    pthread_mutex_lock(mutex)
    if self.value == nil { self.value = value }
    pthread_mutex_unlock(mutex)
    pthread_cond_broadcast(condition)
  }
  func wait(seconds: Int = 20) -> Value? { wait(milliseconds: seconds * 1000) }
  func wait(milliseconds: Int) -> Value? {
    var limit = timespec()
    clock_gettime(CLOCK_REALTIME, &limit)
    limit.tv_nsec += milliseconds % 1000 * 1_000_000
    limit.tv_sec += milliseconds / 1000 + limit.tv_nsec / 1_000_000_000
    limit.tv_nsec %= 1_000_000_000
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while value == nil { if pthread_cond_timedwait(condition, mutex, &limit) != 0 { break } }
    return value
  }
}

@Suite struct HTTP2Tests {
  @Test func manyCallsOnOneConnection() throws {
    let echo = try EchoServer()
    let client = ScriptedClient(port: echo.server.port)
    let calls = (0..<50).map { client.call("/echo", [UInt8](repeating: UInt8($0), count: 1 + $0 * 100)) }
    for (index, call) in calls.enumerated() {
      let response = try #require(try call.wait()?.get())
      #expect(response.status == 200)
      #expect(response.body == [UInt8](repeating: UInt8(index), count: 1 + index * 100))
    }
  }

  @Test func trailersCarryTheGRPCStatus() throws {
    let echo = try EchoServer()
    let client = ScriptedClient(port: echo.server.port)
    let response = try #require(try client.call("/grpc", [1, 2, 3]).wait()?.get())
    #expect(response.grpcStatus == 0 && response.body == [1, 2, 3])
  }

  @Test func bodiesLargerThanTheWindowsFlowBothWays() throws {
    let echo = try EchoServer()
    let client = ScriptedClient(port: echo.server.port)
    #expect(try client.call("/big").wait()?.get().body.count == 8 << 20)
    let body = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0) }
    #expect(try client.call("/echo", body).wait()?.get().body == body)
    #expect(try client.call("/echo", body + [0]).wait()?.get().status == 413)
  }

  @Test func cancellingReachesTheServer() throws {
    let echo = try EchoServer()
    let client = ScriptedClient(port: echo.server.port)
    let parked = client.start("/park")
    let id = try #require(parked.id.wait() ?? nil)
    #expect(try client.call("/after").wait()?.get().status == 200)
    client.cancel(id)
    #expect(parked.result.wait() == .failure(.cancelled))
    #expect(try client.call("/again").wait()?.get().status == 200)
    #expect(echo.seen.withLock { $0 }.contains("cancelled /park"))
  }

  @Test func everyOpenCallFailsOnceWhenTheConnectionEnds() throws {
    let echo = try EchoServer()
    let client = ScriptedClient(port: echo.server.port)
    let calls = (0..<5).map { _ in client.call("/park") }
    #expect(try client.call("/after").wait()?.get().status == 200)
    echo.loop.execute { for connection in echo.server.openForTests { connection.end() } }
    for call in calls { #expect(call.wait() == .failure(.connectionLost)) }
    #expect(client.down.wait() != nil)
  }

  @Test func stoppingFinishesWhatIsOpenAndTakesNothingNew() throws {
    let echo = try EchoServer()
    let client = ScriptedClient(port: echo.server.port)
    #expect(try client.call("/before").wait()?.get().status == 200)
    let stopped = Waiter<Bool>()
    echo.loop.execute { echo.server.stop { stopped.give(true) } }
    #expect(client.down.wait() != nil)
    #expect(stopped.wait() == true)
  }
}

@Suite struct EventLoopTests {
  @Test func timersRunInTheOrderOfTheirTimesAndNotWhenCancelled() {
    let loop = EventLoop()
    let ran = Waiter<[Int]>()
    loop.execute {
      var order: [Int] = []
      let start = loop.freshNow()
      loop.schedule(at: start + .milliseconds(9)) { ran.give(order + [9]) }
      loop.schedule(at: start + .milliseconds(3)) { order.append(3) }
      let cancelled = loop.schedule(at: start + .milliseconds(2)) { order.append(2) }
      loop.schedule(at: start + .milliseconds(1)) { order.append(1) }
      loop.cancel(cancelled)
    }
    loop.start()
    #expect(ran.wait() == [1, 3, 9])
    loop.stop()
  }
}
