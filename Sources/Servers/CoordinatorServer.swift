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

public final class CoordinatorServer: HTTPServerDelegate, HTTPClientDelegate, CallHandler {
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
  private var effects: [CoordinatorEffect] = []
  /// The effects being carried out.
  private var carried: [CoordinatorEffect] = []
  private var isDraining = false
  private var isHandling = false
  private var pending: [RequestToken: Pending] = [:]
  private var lastToken: RequestToken = 0
  private enum Purpose {
    case probe(WorkerID, token: UInt64)
    case score(LegID)
    case lookup(LegID)
  }
  private var calls = CallTable<Purpose>()
  private var queryCache: (key: UInt64, bytes: [UInt8]) = (.max, [])
  private lazy var timer = LoopTimer { [unowned self] in send(.woke) }
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
    guard !isHandling else { return events.append(event) }
    isHandling = true
    handle(event)
    // What carrying out the effects brought about at once, such as a call that could not be made.
    var next = 0
    while next < events.count {
      handle(events[next])
      next += 1
    }
    events.removeAll(keepingCapacity: true)
    isHandling = false
    if !hasAnnounced, node.isReady {
      hasAnnounced = true
      Announcement.ready(configuration.listen, port: server.port)
    }
  }

  private func handle(_ event: CoordinatorEvent) {
    node.handle(event, now: loop.freshNow(), into: &effects)
    swap(&effects, &carried)
    for effect in carried { carryOut(effect) }
    carried.removeAll(keepingCapacity: true)
  }

  private func carryOut(_ effect: CoordinatorEffect) {
    switch effect {
    case .probe(let worker, let token, let timeout):
      call(worker, Self.statusHead, timeout, .probe(worker, token: token)) { $0.append(contentsOf: Self.emptyMessage) }
    case .score(let leg, let worker, let request, let timeout):
      if queryCache.key != leg.requestKey {
        queryCache.key = leg.requestKey
        queryCache.bytes.removeAll(keepingCapacity: true)
        ProtoWriter.append(to: &queryCache.bytes) { ScoreRequest.encodeQuery(request.query, into: &$0) }
      }
      call(worker, Self.scoreHead, timeout, .score(leg)) { body in
        GRPC.frame(into: &body) { body in
          body.append(contentsOf: queryCache.bytes)
          ProtoWriter.append(to: &body) { ScoreRequest.encodeTasks(request.tasks, into: &$0) }
        }
      }
    case .lookup(let leg, let worker, let request, let timeout):
      call(worker, Self.lookupHead, timeout, .lookup(leg)) { body in
        GRPC.frame(into: &body) { body in ProtoWriter.append(to: &body) { request.encode(into: &$0) } }
      }
    case .cancel(let leg, let worker):
      let call = calls.call {
        switch $0 {
        case .score(let other), .lookup(let other): leg == other
        case .probe: false
        }
      }
      if let call { clients[worker.index].cancel(call) }
    case .answer(let token, let outcome): answer(token, outcome)
    case .wake(let at): loop.arm(timer, at: at)
    case .memberChanged(let worker, let state):
      Log.line(configuration.name, "\(configuration.workers[worker.index].name) is \(state.rawValue)")
    }
  }

  private static let statusHead = workerHead("Status")
  private static let scoreHead = workerHead("Score")
  private static let lookupHead = workerHead("Lookup")
  private static let emptyMessage = GRPC.frame([])
  private static func workerHead(_ method: String) -> RequestHead {
    RequestHead(
      method: "POST", path: "/shortlist.v1.Worker/\(method)",
      headers: [("content-type", GRPC.contentType), ("te", "trailers")], varying: "grpc-timeout")
  }

  private func call(
    _ worker: WorkerID, _ head: RequestHead, _ timeout: Duration, _ purpose: Purpose, body: (inout [UInt8]) -> Void
  ) {
    let token = calls.open(purpose)
    let id = clients[worker.index].call(
      head, varying: GRPC.timeout(timeout), handler: self, token: token, body: body)
    if let id { calls.started(token, id) } else { ended(token, .failure(.connectionLost)) }
  }

  public func ended(_ token: UInt64, _ outcome: CallOutcome) {
    switch calls.close(token) {
    case .score(let leg): send(.scored(leg, Self.decode(outcome, ScoreReply.init(decoding:))))
    case .lookup(let leg): send(.lookedUp(leg, Self.decode(outcome, LookupReply.init(decoding:))))
    case .probe(let worker, let token):
      send(.probed(worker, token: token, Self.decode(outcome, WorkerStatus.init(decoding:))))
    }
  }

  private static func decode<Message>(
    _ outcome: CallOutcome, _ body: (UnsafeRawBufferPointer) throws(WireError) -> Message
  ) -> Result<Message, CallFailure> {
    switch outcome {
    case .failure(.connectionLost), .failure(.reset): return .failure(.connectionLost)
    case .failure(.refused): return .failure(.overloaded)
    case .failure(.cancelled): return .failure(.deadlineExceeded)
    case .failure(.responseTooLarge): return .failure(.workerError("the reply is too large"))
    case .response(let response):
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
    let number = requestIDs.next()
    return String(unsafeUninitializedCapacity: 16) { text in
      for place in 0..<16 {
        let digit = UInt8(truncatingIfNeeded: number >> UInt64(60 - 4 * place)) & 15
        text[place] = digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10
      }
      return 16
    }
  }

  private func ask(_ stream: ServerStream, _ api: PublicAPI) {
    let now = loop.now
    let id = requestID(stream)
    let endpoint = CoordinatorMetrics.Endpoint(api)
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
    let endpoint = CoordinatorMetrics.Endpoint(request.api)
    let took = loop.now - request.receivedAt
    switch outcome {
    case .success(let answer):
      metrics.answered(endpoint, answer, took: took)
      server.respond(request.stream, head: Heads.json) { body in
        JSONWriter.append(to: &body) { json in
          request.api.write(answer, into: &json)
          json.literal("\n")
        }
      }
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
