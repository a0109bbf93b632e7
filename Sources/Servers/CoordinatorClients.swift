import HTTP2
import Nodes
import RankingCore
import Routing
import Transport
import Wire

// What clients ask of a coordinator, by JSON and by gRPC, and what they get.
//
//     request ─► the door (Access) ─► parsed ─► .requested ─► node ─► .answer ─► JSON or RankingReply

extension CoordinatorServer {
  private static let healthy = Array("ok\n".utf8)

  public func streams(_ stream: ServerStream) -> Bool { standard.streams(stream) }

  public func received(_ stream: ServerStream, on server: HTTPServer) {
    if let scope = scope(stream) {
      do { try access.admit(stream, scope) } catch { return refuse(stream, error) }
    }
    if stream.isMethod("POST") {
      if isGRPC(stream) { return askByGRPC(stream) }
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

  /// What it takes to ask this; nil = anybody may.
  private func scope(_ stream: ServerStream) -> AccessScope? {
    if stream.isPath("/healthz") || stream.isPath("/readyz") || standard.isHealth(stream) { return nil }
    return stream.isPath("/metrics") ? .metrics : .rank
  }

  private func isGRPC(_ stream: ServerStream) -> Bool { stream.headers.hasPrefix("content-type", "application/grpc") }

  private func askByGRPC(_ stream: ServerStream) {
    if standard.takes(stream) { return standard.received(stream) }
    if stream.isPath("/shortlist.v1.Ranking/Recommend") { return ask(stream, .recommend, byGRPC: true) }
    if stream.isPath("/shortlist.v1.Ranking/Rank") { return ask(stream, .rank, byGRPC: true) }
    if stream.isPath("/shortlist.v1.Ranking/Similar") { return ask(stream, .similar, byGRPC: true) }
    server.respond(
      stream, head: Heads.grpcError(GRPC.StatusError(.unimplemented, "no such method")), body: [])
  }

  public func cancelled(_ stream: ServerStream, on server: HTTPServer) {
    standard.cancelled(stream)
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

  private func parse(
    _ stream: ServerStream, _ api: PublicAPI, byGRPC: Bool, requestID: String
  ) throws -> RankingRequest {
    guard byGRPC else { return try api.parse(stream.body, requestID: requestID) }
    var request = try stream.body.withUnsafeBytes {
      try api.parse(message: try GRPC.message($0).get(), requestID: requestID)
    }
    if let timeout = stream.headers["grpc-timeout"].flatMap({ GRPC.timeout($0) }) {
      request.timeout = min(timeout, request.timeout ?? Self.timeoutMax)
    }
    return request
  }
  private static let timeoutMax = Duration.milliseconds(Int(RequestLimit.timeoutMilliseconds.upperBound))

  private func ask(_ stream: ServerStream, _ api: PublicAPI, byGRPC: Bool = false) {
    let now = loop.now
    let id = requestID(stream)
    let endpoint = CoordinatorMetrics.Endpoint(api)
    metrics.received(endpoint)
    do {
      var request = try parse(stream, api, byGRPC: byGRPC, requestID: id)
      let trace = stream.headers["traceparent"].flatMap { TraceContext(traceparent: $0) }
      if let trace { request.trace = trace.traceparent(span: requestIDs.next()) }
      lastToken += 1
      stream.token = lastToken
      pending[lastToken] = Pending(
        stream: stream, api: api, isGRPC: byGRPC, requestID: id, trace: trace, receivedAt: now)
      send(.requested(lastToken, request, deadline: now + (request.timeout ?? RequestLimit.timeoutDefault)))
    } catch let error as RankingError {
      metrics.failed(endpoint, error, took: .zero)
      refuse(stream, error, requestID: id)
    } catch let error as GRPC.StatusError {
      metrics.failed(endpoint, RankingError(.invalidArgument, error.message), took: .zero)
      server.respond(stream, head: Heads.grpcError(error), body: [])
    } catch {
      preconditionFailure("parsing throws nothing else: \(error)")
    }
  }

  private func refuse(_ stream: ServerStream, _ error: RankingError, requestID id: String? = nil) {
    if isGRPC(stream) { return server.respond(stream, head: Heads.grpcError(GRPC.status(of: error)), body: []) }
    var json = JSONWriter()
    PublicAPI.write(error, requestID: id ?? requestID(stream), into: &json)
    json.bytes.append(UInt8(ascii: "\n"))
    server.respond(stream, head: Heads.error(PublicAPI.httpStatus(error.code)), body: json.bytes)
  }

  func answer(_ token: RequestToken, _ outcome: Result<Answer, RankingError>) {
    guard let request = pending.removeValue(forKey: token) else { return }
    let endpoint = CoordinatorMetrics.Endpoint(request.api)
    let took = loop.now - request.receivedAt
    note(request, token, outcome, took)
    switch outcome {
    case .success(let answer):
      metrics.answered(endpoint, answer, took: took)
      if request.isGRPC {
        return server.respond(request.stream, head: Heads.grpc, trailers: Heads.grpcOK) { body in
          GRPC.frame(into: &body) { body in ProtoWriter.append(to: &body) { request.api.write(answer, into: &$0) } }
        }
      }
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

  /// What was slow, failed or missed shards is told where somebody will look.
  private func note(
    _ request: Pending, _ token: RequestToken, _ outcome: Result<Answer, RankingError>, _ took: Duration
  ) {
    let trace = lastTrace.flatMap { $0.token == token ? $0 : nil }
    lastTrace = nil
    let isOurs: Bool
    var isSound = false
    switch outcome {
    case .success(let answer):
      isSound = answer.coverage.missing.isEmpty
      isOurs = true
    case .failure(let error): isOurs = !error.isOfTheClient
    }
    guard isOurs, trace != nil || !isSound else { return }
    let line = journal.record(took: took, isSound: isSound, now: loop.now) { json in
      write(request, outcome, took, trace, into: &json)
    }
    if let line { Log.line(line) }
    node.tracesFrom = journal.tracesFrom(now: loop.now)
  }

  private func write(
    _ request: Pending, _ outcome: Result<Answer, RankingError>, _ took: Duration, _ trace: RequestTrace?,
    into json: inout JSONWriter
  ) {
    func text(_ name: StaticString, _ value: String) {
      json.literal(name)
      json.string(value)
    }
    text(",\"request_id\":", request.requestID)
    if let trace = request.trace { text(",\"trace_id\":", trace.trace) }
    text(",\"endpoint\":", request.api.rawValue)
    json.literal(",\"took_ms\":")
    json.milliseconds(took.milliseconds)
    switch outcome {
    case .success(let answer):
      text(",\"outcome\":", answer.coverage.missing.isEmpty ? "ok" : "degraded")
      json.literal(",\"answered\":")
      json.number(answer.coverage.answered)
      json.literal(",\"shards\":")
      json.number(answer.coverage.shards)
    case .failure(let error):
      text(",\"outcome\":", error.code.rawValue)
      text(",\"message\":", error.message)
    }
    guard let trace else { return }
    text(",\"model\":", trace.release.model)
    text(",\"version\":", trace.release.version)
    trace.writeLegs(into: &json) { node.membership.members[$0.index].name }
  }

  private func readiness(_ stream: ServerStream) {
    let isReady = node.isReady
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
      json.boolean(node.isServing(entry.id))
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

  func metricsText() -> String {
    var text = CoordinatorMetricsPage.text(node: node, metrics: metrics, now: loop.now)
    var ports: [(name: StaticString, server: HTTPServer)] = [("public", server)]
    if let adminServer { ports.append(("admin", adminServer)) }
    EdgeMetrics.write(ports, into: &text)
    access.write(into: &text)
    reader.source.write(into: &text)
    security.write(into: &text)
    return text.text
  }
}
