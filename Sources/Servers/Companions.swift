import HTTP2
import RankingCore
import Transport
import Wire

/// A worker's connections to the coordinators it joins: made when first needed, kept while the worker lives.
final class Companions: HTTPClientDelegate {
  private let loop: EventLoop
  private var clients: [String: HTTPClient] = [:]
  /// What is to be asked as soon as a connection is up: only the newest question counts.
  private var waiting: [String: (ask: () -> Void, fail: () -> Void)] = [:]
  /// Whose last connection was lost or could not be made.
  private var unreachable: Set<String> = []
  private static let timeout: Duration = .seconds(1)

  init(loop: EventLoop) { self.loop = loop }

  /// - Parameter done: called later: with the reply, and before that with `connectionLost` for every attempt to connect
  ///   that failed meanwhile, so that nobody waits for a coordinator that is not there. Not called when a newer
  ///   question to the same coordinator takes this one's place before there is a connection.
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
        host: address.host, port: address.port, loop: loop, seed: StableHash.xxh64(coordinator))
      client.delegate = self
      clients[coordinator] = client
      client.start()
    }
    let isSent = send(client, path, message, decode, done)
    guard !isSent else { return }
    waiting[coordinator] = (
      ask: { [unowned self] in _ = send(client, path, message, decode, done) },
      fail: { done(.failure(.connectionLost)) }
    )
    if unreachable.contains(coordinator) { loop.execute(Later { done(.failure(.connectionLost)) }.run) }
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
      done(CoordinatorServer.decode(result, decode))
    }
    if let call { loop.schedule(after: Self.timeout) { [weak client] in client?.cancel(call) } }
    return call != nil
  }

  func clientUp(_ client: HTTPClient) {
    guard let coordinator = name(of: client) else { return }
    unreachable.remove(coordinator)
    waiting.removeValue(forKey: coordinator)?.ask()
  }
  func clientDown(_ client: HTTPClient, reason: String) {
    guard let coordinator = name(of: client) else { return }
    unreachable.insert(coordinator)
    waiting[coordinator]?.fail()
  }
  private func name(of client: HTTPClient) -> String? { clients.first { $0.value === client }?.key }
}

/// A piece of the loop's own work, put off to its next turn.
private struct Later: @unchecked Sendable {
  let body: () -> Void
  init(_ body: @escaping () -> Void) { self.body = body }
  var run: @Sendable () -> Void { { body() } }
}
