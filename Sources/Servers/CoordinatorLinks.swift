import HTTP2
import RankingCore
import Transport
import Wire

/// Connections to coordinators, of a worker that joins them or of another coordinator: made when first needed, kept
/// while the process lives.
final class CoordinatorLinks: HTTPClientDelegate {
  private let loop: EventLoop
  private let tls: TLSContext?
  private var clients: [String: HTTPClient] = [:]
  /// What is to be asked as soon as a connection is up: only the newest question counts.
  private var waiting: [String: (send: () -> Void, fail: () -> Void)] = [:]
  private static let timeout: Duration = .seconds(1)

  init(loop: EventLoop, tls: TLSContext?) {
    self.loop = loop
    self.tls = tls
  }

  /// - Parameter done: called once, later; a question that cannot be sent by the time a connection fails has failed.
  func ask<Reply>(
    _ coordinator: String, _ path: StaticString, _ message: [UInt8],
    _ decode: @escaping (UnsafeRawBufferPointer) throws(WireError) -> Reply,
    done: @escaping (Result<Reply, CallFailure>) -> Void
  ) {
    guard let address = try? SocketAddress(coordinator) else {
      return loop.execute(Later { done(.failure(.workerError("no address"))) }.run)
    }
    let client: HTTPClient
    if let known = clients[coordinator] {
      client = known
    } else {
      client = HTTPClient(
        host: address.host, port: address.port, loop: loop, tls: tls, seed: StableHash.xxh64(coordinator))
      client.delegate = self
      clients[coordinator] = client
      client.start()
    }
    let isSent = send(client, path, message, decode, done)
    guard !isSent else { return }
    waiting[coordinator]?.fail()
    waiting[coordinator] = (
      { [unowned self] in _ = send(client, path, message, decode, done) }, { done(.failure(.connectionLost)) }
    )
  }

  private func send<Reply>(
    _ client: HTTPClient, _ path: StaticString, _ message: [UInt8],
    _ decode: @escaping (UnsafeRawBufferPointer) throws(WireError) -> Reply,
    _ done: @escaping (Result<Reply, CallFailure>) -> Void
  ) -> Bool {
    let headers: [(StaticString, String)] = [
      ("content-type", GRPC.contentType), ("te", "trailers"), ("grpc-timeout", GRPC.timeout(Self.timeout)),
    ]
    let call = client.call(path: path, headers: headers, body: GRPC.frame(message)) { result in
      done(WorkerReply.decode(result, decode))
    }
    if let call { loop.schedule(after: Self.timeout) { [weak client] in client?.cancel(call) } }
    return call != nil
  }

  func clientUp(_ client: HTTPClient) {
    guard let coordinator = clients.first(where: { $0.value === client })?.key else { return }
    waiting.removeValue(forKey: coordinator)?.send()
  }
  func clientDown(_ client: HTTPClient, reason: String) {
    guard let coordinator = clients.first(where: { $0.value === client })?.key else { return }
    waiting.removeValue(forKey: coordinator)?.fail()
  }
}

/// A piece of the loop's own work, put off to its next turn.
private struct Later: @unchecked Sendable {
  let body: () -> Void
  init(_ body: @escaping () -> Void) { self.body = body }
  var run: @Sendable () -> Void { { body() } }
}
