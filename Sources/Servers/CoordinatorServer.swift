import Bundles
import Glibc
import HTTP2
import Nodes
import RankingCore
import Routing
import Transport
import Wire

// A coordinator process: `CoordinatorNode` on one event loop, its effects carried out by HTTP.
//
//     stream ─► PublicAPI.parse ─► .requested ─► node ─► .score ─► HTTPClient of the worker
//     stream ◄─ PublicAPI.write ◄─ .answer    ◄─ node ◄─ .scored ◄─ reply decoded

public final class CoordinatorServer: HTTPServerDelegate, HTTPClientDelegate {
  private struct Pending {
    let stream: ServerStream
    let api: PublicAPI
    let requestID: String
    let receivedAt: Instant
  }

  private let configuration: CoordinatorConfiguration
  private let loop = EventLoop()
  private let server: HTTPServer
  private var clients: [HTTPClient] = []
  private var node: CoordinatorNode
  private var events: [CoordinatorEvent] = []
  private var isDraining = false
  private var isHandling = false
  private var pending: [RequestToken: Pending] = [:]
  private var lastToken: RequestToken = 0
  private var calls: [LegID: CallID] = [:]
  private var queryCache: (key: UInt64, bytes: [UInt8]) = (.max, [])
  private var timer: TimerID?
  private var metrics = CoordinatorMetrics()
  private var requestIDs: SeededGenerator
  private var hasAnnounced = false
  private var shutdown: Shutdown?

  /// Runs a coordinator until it is told to end.
  /// - Returns: the exit status.
  public static func run(_ configuration: CoordinatorConfiguration) throws -> Int32 {
    try configuration.validate()
    let server = try CoordinatorServer(configuration)
    server.start()
    server.loop.run()
    return 0
  }

  init(_ configuration: CoordinatorConfiguration) throws {
    self.configuration = configuration
    server = try HTTPServer(
      host: configuration.listen.host, port: configuration.listen.port, limits: .publicPort, loop: loop)
    var random = SystemRandomNumberGenerator()
    node = CoordinatorNode(
      workers: configuration.workers.map(\.name), seed: random.next(), now: loop.freshNow())
    requestIDs = SeededGenerator(seed: random.next())
    server.delegate = self
    for release in configuration.models {
      send(.loaded(try ReleaseLoading.release(release, store: configuration.store)))
    }
    for (index, worker) in configuration.workers.enumerated() {
      let client = HTTPClient(
        host: worker.address.host, port: worker.address.port, loop: loop, seed: random.next() &+ UInt64(index))
      client.delegate = self
      clients.append(client)
    }
  }

  private func start() {
    shutdown = Shutdown(on: loop) { [unowned self] in
      isDraining = true
      server.stop { self.loop.stop() }
    }
    server.start()
    for client in clients { client.start() }
  }

  // MARK: The node

  private func send(_ event: CoordinatorEvent) {
    events.append(event)
    guard !isHandling else { return }
    isHandling = true
    var effects: [CoordinatorEffect] = []
    var next = 0
    while next < events.count {
      node.handle(events[next], now: loop.freshNow(), into: &effects)
      next += 1
      for effect in effects { carryOut(effect) }
      effects.removeAll(keepingCapacity: true)
    }
    events.removeAll(keepingCapacity: true)
    isHandling = false
    if !hasAnnounced, node.isReady {
      hasAnnounced = true
      Announcement.ready(configuration.listen, port: server.port)
    }
  }

  private func carryOut(_ effect: CoordinatorEffect) {
    switch effect {
    case .probe(let worker, let token, let timeout):
      let id = call(worker, Self.statusPath, timeout, GRPC.frame([])) { [unowned self] result in
        send(.probed(worker, token: token, Self.decode(result, WorkerStatus.init(decoding:))))
      }
      if id == nil { send(.probed(worker, token: token, .failure(.connectionLost))) }
    case .score(let leg, let worker, let request, let timeout):
      if queryCache.key != leg.requestKey {
        queryCache = (leg.requestKey, ScoreRequest.encodeQuery(request.query))
      }
      let body = GRPC.frame(queryCache.bytes, ScoreRequest.encodeTasks(request.tasks))
      calls[leg] = call(worker, Self.scorePath, timeout, body) { [unowned self] result in
        calls[leg] = nil
        send(.scored(leg, Self.decode(result, ScoreReply.init(decoding:))))
      }
      if calls[leg] == nil { send(.scored(leg, .failure(.connectionLost))) }
    case .lookup(let leg, let worker, let request, let timeout):
      calls[leg] = call(worker, Self.lookupPath, timeout, GRPC.frame(request.encoded())) { [unowned self] result in
        calls[leg] = nil
        send(.lookedUp(leg, Self.decode(result, LookupReply.init(decoding:))))
      }
      if calls[leg] == nil { send(.lookedUp(leg, .failure(.connectionLost))) }
    case .cancel(let leg, let worker):
      if let id = calls.removeValue(forKey: leg) { clients[worker.index].cancel(id) }
    case .answer(let token, let outcome): answer(token, outcome)
    case .wake(let at):
      if let timer { loop.cancel(timer) }
      timer = loop.schedule(at: at) { [unowned self] in send(.woke) }
    case .memberChanged(let worker, let state):
      Log.line(configuration.name, "\(configuration.workers[worker.index].name) is \(state.rawValue)")
    }
  }

  private static let statusPath: StaticString = "/shortlist.v1.Worker/Status"
  private static let scorePath: StaticString = "/shortlist.v1.Worker/Score"
  private static let lookupPath: StaticString = "/shortlist.v1.Worker/Lookup"

  private func call(
    _ worker: WorkerID, _ path: StaticString, _ timeout: Duration, _ body: [UInt8],
    completion: @escaping HTTP2ClientSession.Completion
  ) -> CallID? {
    clients[worker.index].call(
      path: path,
      headers: [
        ("content-type", GRPC.contentType), ("te", "trailers"), ("grpc-timeout", GRPC.timeout(timeout)),
      ], body: body, completion: completion)
  }

  private static func decode<Message>(
    _ result: Result<ClientResponse, ClientFailure>,
    _ body: (UnsafeRawBufferPointer) throws(WireError) -> Message
  ) -> Result<Message, CallFailure> {
    switch result {
    case .failure(.connectionLost), .failure(.reset): return .failure(.connectionLost)
    case .failure(.refused): return .failure(.overloaded)
    case .failure(.cancelled): return .failure(.deadlineExceeded)
    case .failure(.responseTooLarge): return .failure(.workerError("the reply is too large"))
    case .success(let response):
      guard response.status == 200, response.grpcStatus == 0 else {
        return .failure(GRPC.failure(of: response.grpcStatus ?? 2, message: response.grpcMessage))
      }
      return response.body.withUnsafeBytes { raw in
        switch GRPC.message(raw) {
        case .failure(let error): return .failure(.workerError(error.message))
        case .success(let message):
          do { return .success(try body(message)) } catch { return .failure(.workerError("\(error)")) }
        }
      }
    }
  }

  // MARK: Workers

  public func clientUp(_ client: HTTPClient) { send(.linked(worker(of: client))) }
  public func clientDown(_ client: HTTPClient, reason: String) {
    send(.unlinked(worker(of: client)))
  }
  private func worker(of client: HTTPClient) -> WorkerID { WorkerID(clients.firstIndex { $0 === client }!) }

  // MARK: Clients

  private static let healthy = Array("ok\n".utf8)

  public func received(_ stream: ServerStream, on server: HTTPServer) {
    if stream.isMethod("POST") {
      if stream.isPath("/v1/recommend") { return ask(stream, .recommend) }
      if stream.isPath("/v1/rank") { return ask(stream, .rank) }
      if stream.isPath("/v1/similar") { return ask(stream, .similar) }
    } else {
      if stream.isPath("/healthz") { return server.respond(stream, head: Heads.text, body: Self.healthy) }
      if stream.isPath("/readyz") { return readiness(stream) }
      if stream.isPath("/metrics") {
        return server.respond(stream, head: Heads.metrics, body: Array(metricsText().utf8))
      }
      if stream.isPath("/v1/models") { return server.respond(stream, head: Heads.json, body: models()) }
    }
    let path = stream.path
    let posts = ["/v1/recommend", "/v1/rank", "/v1/similar"]
    let gets = ["/healthz", "/readyz", "/metrics", "/v1/models"]
    if posts.contains(path) {
      refuse(stream, RankingError(.methodNotAllowed, "\(path) takes POST"))
    } else if gets.contains(path) {
      refuse(stream, RankingError(.methodNotAllowed, "\(path) takes GET"))
    } else {
      refuse(
        stream,
        RankingError(
          .notFound,
          "no such path; there are POST \(posts.joined(separator: ", ")) and GET \(gets.joined(separator: ", "))"))
    }
  }

  public func cancelled(_ stream: ServerStream, on server: HTTPServer) {
    guard pending.removeValue(forKey: stream.token) != nil else { return }
    send(.cancelled(stream.token))
  }

  private func requestID(_ stream: ServerStream) -> String {
    if let given = stream.headers["x-request-id"], !given.isEmpty, given.utf8.count <= RequestLimit.requestIDBytes {
      return given
    }
    let text = String(requestIDs.next(), radix: 16)
    return String(repeating: "0", count: 16 - text.count) + text
  }

  private func ask(_ stream: ServerStream, _ api: PublicAPI) {
    let now = loop.now
    let id = requestID(stream)
    let endpoint = CoordinatorMetrics.Endpoint(rawValue: api.rawValue)!
    metrics.received(endpoint)
    do throws(RankingError) {
      let request = try stream.body.withUnsafeBytes { raw in
        Result { () throws(RankingError) in try api.parse(raw, requestID: id) }
      }.get()
      lastToken += 1
      stream.token = lastToken
      pending[lastToken] = Pending(stream: stream, api: api, requestID: id, receivedAt: now)
      send(.requested(lastToken, request, deadline: now + (request.timeout ?? RequestLimit.timeoutDefault)))
    } catch {
      metrics.failed(endpoint, error, took: .zero)
      refuse(stream, error, requestID: id)
    }
  }

  private func refuse(_ stream: ServerStream, _ error: RankingError, requestID id: String? = nil) {
    var json = JSONWriter()
    PublicAPI.write(error, requestID: id ?? requestID(stream), into: &json)
    json.bytes.append(UInt8(ascii: "\n"))
    server.respond(stream, head: Heads.error(PublicAPI.httpStatus(error.code)), body: json.bytes)
  }

  private func answer(_ token: RequestToken, _ outcome: Result<Answer, RankingError>) {
    guard let request = pending.removeValue(forKey: token) else { return }
    let endpoint = CoordinatorMetrics.Endpoint(rawValue: request.api.rawValue)!
    let took = loop.now - request.receivedAt
    switch outcome {
    case .success(let answer):
      metrics.answered(endpoint, answer, took: took)
      var json = JSONWriter(reserving: 512 + 64 * answer.entries.count)
      request.api.write(answer, into: &json)
      json.bytes.append(UInt8(ascii: "\n"))
      server.respond(request.stream, head: Heads.json, body: json.bytes)
    case .failure(let error):
      metrics.failed(endpoint, error, took: took)
      refuse(request.stream, error, requestID: request.requestID)
    }
  }

  private func readiness(_ stream: ServerStream) {
    let isReady = node.isReady && !isDraining
    server.respond(
      stream, head: isReady ? Heads.text : Heads.unready, body: Array((isReady ? "ready\n" : "not ready\n").utf8))
  }

  private func models() -> [UInt8] {
    var json = JSONWriter()
    json.literal("{\"models\":[")
    let entries = node.router.catalog.entries
    for (index, entry) in entries.enumerated() {
      json.literal(index == 0 ? "{\"model\":" : ",{\"model\":")
      json.string(entry.release.id.model)
      json.literal(",\"version\":")
      json.string(entry.release.id.version)
      json.literal(",\"serving\":")
      json.boolean(!entries[(index + 1)...].contains { $0.release.id.model == entry.release.id.model })
      json.literal(",\"published\":")
      json.boolean(entry.isPublished)
      json.literal(",\"items\":")
      json.number(Int(entry.release.itemCount))
      json.literal(",\"dimension\":")
      json.number(entry.release.dimension)
      json.literal(",\"shards\":")
      json.number(entry.release.shardCount)
      json.literal(",\"shards_ready\":")
      json.number(entry.replicas.readyShards)
      json.literal("}")
    }
    json.literal("]}\n")
    return json.bytes
  }

  private func metricsText() -> String {
    var text = MetricsText()
    metrics.write(into: &text)
    let counters = node.router.counters
    text.family("shortlist_legs_total", "counter", "Calls to workers, by kind.")
    text.line("shortlist_legs_total", "kind=\"primary\"", "\(counters.primaryLegs)")
    text.line("shortlist_legs_total", "kind=\"retry\"", "\(counters.retryLegs)")
    text.counter("shortlist_retries_refused_total", "Retries that the budget did not allow.", counters.retriesRefused)
    text.counter("shortlist_late_replies_total", "Replies to legs that nobody waited for.", counters.lateReplies)
    text.counter("shortlist_invalid_replies_total", "Replies that broke the protocol.", counters.invalidReplies)
    text.counter("shortlist_dropped_nan_total", "Items left out because a ranker gave NaN.", counters.droppedNaN)
    text.gauge("shortlist_requests_in_flight", "Requests being answered.", Double(node.router.inFlight))
    text.family("shortlist_shards_ready", "gauge", "Shards with a ready replica, by version.")
    for entry in node.router.catalog.entries {
      text.line("shortlist_shards_ready", Self.labels(entry.release.id), "\(entry.replicas.readyShards)")
    }
    text.family("shortlist_shards", "gauge", "Shards, by version.")
    for entry in node.router.catalog.entries {
      text.line("shortlist_shards", Self.labels(entry.release.id), "\(entry.release.shardCount)")
    }
    text.family("shortlist_worker_up", "gauge", "1 when the worker may be asked.")
    for member in node.membership.members {
      text.line("shortlist_worker_up", "worker=\"\(MetricsText.escaped(member.name))\"", member.isUsable ? "1" : "0")
    }
    text.gauge("shortlist_connections", "Open client connections.", Double(server.openConnections))
    text.counter("shortlist_connections_total", "Client connections accepted.", server.counters.accepted)
    text.counter("shortlist_http_requests_total", "HTTP requests of any kind.", server.counters.requests)
    text.counter("shortlist_http_cancelled_total", "Requests that the client took back.", server.counters.cancelled)
    ProcessFigures().write(into: &text)
    return text.text
  }
  private static func labels(_ id: ModelVersion) -> String { "model=\"\(id.model)\",version=\"\(id.version)\"" }
}
