import HTTP2
import Nodes
import RankingCore
import Rollout
import Transport
import Wire

// A coordinator's admin address: workers join and leave here, coordinators ask each other, people look and steer.
//
//     GET  /v1/cluster, /v1/rollouts, /v1/rollouts/history        answered at once, the history when the store has it
//     POST /v1/rollouts, gRPC shortlist.v1.Rollouts/Command       ─► .commanded ─► node ─► store ─► .reply
//     gRPC shortlist.v1.Coordinator/Join, Leave, Traffic          ─► node ─► .replyJoin, .replyLeave

/// Of the loop's thread.
final class AdminAPI: HTTPServerDelegate {
  let server: HTTPServer
  private let node: CoordinatorNode
  private let store: StoreLink?
  private let loop: EventLoop
  private let access: Access
  private let metrics: () -> String
  private let slowest: () -> [UInt8]
  /// Tells the node; what makes history is told with the wall clock.
  private let send: (CoordinatorEvent, _ dated: Bool) -> Void
  private let standard: StandardServices
  private var streams: [CallToken: ServerStream] = [:]
  private var lastToken: CallToken = 0

  init(
    _ server: HTTPServer, node: CoordinatorNode, store: StoreLink?, loop: EventLoop, access: Access,
    metrics: @escaping () -> String, slowest: @escaping () -> [UInt8],
    send: @escaping (CoordinatorEvent, _ dated: Bool) -> Void
  ) {
    self.server = server
    self.node = node
    self.store = store
    self.loop = loop
    self.access = access
    self.metrics = metrics
    self.slowest = slowest
    self.send = send
    standard = StandardServices(server, services: ["shortlist.v1.Coordinator", "shortlist.v1.Rollouts"]) {
      [unowned node] in node.isReady
    }
    server.delegate = self
  }

  func streams(_ stream: ServerStream) -> Bool { standard.streams(stream) }
  /// Readiness may have changed.
  func update() { standard.update() }
  func end() { standard.end() }

  func received(_ stream: ServerStream, on server: HTTPServer) {
    if standard.isHealth(stream) { return standard.received(stream) }
    lastToken += 1
    let call = lastToken
    stream.token = call
    streams[call] = stream
    do {
      try admit(stream)
      if standard.takes(stream) {
        streams[call] = nil
        return standard.received(stream)
      }
      if isGRPC(stream) { return try ask(call, stream) }
      let path = stream.path
      let parts = path.split(separator: "?", maxSplits: 1)
      switch (stream.isMethod("GET"), stream.isMethod("POST")) {
      case (true, _) where path == "/v1/cluster":
        reply(call, Heads.json, ClusterJSON.write(node, now: loop.now))
      case (true, _) where path == "/debug/requests": reply(call, Heads.json, slowest())
      case (true, _) where path == "/metrics": reply(call, Heads.metrics, Array(metrics().utf8))
      case (true, _) where path == RolloutAPI.path: reply(call, Heads.json, RolloutAPI.body(try view()))
      case (true, _) where parts.first == RolloutAPI.historyPath[...]:
        try history(call, try RolloutAPI.range(parts.dropFirst().first ?? ""))
      case (_, true) where path == RolloutAPI.path:
        let command = try RolloutAPI.parse(stream.body)
        send(.commanded(call, command.command, who: command.who), true)
      default:
        throw RolloutError(
          .notFound,
          "no such path; there are GET /v1/cluster, /debug/requests, /metrics, GET and POST \(RolloutAPI.path), "
            + "GET \(RolloutAPI.historyPath), and gRPC shortlist.v1.Coordinator and shortlist.v1.Rollouts")
      }
    } catch let error as RolloutError {
      refuse(call, error)
    } catch let error as RankingError {
      refuse(call, error)
    } catch let error as GRPC.StatusError {
      refuse(call, error)
    } catch {
      refuse(call, GRPC.StatusError(.invalidArgument, "\(error)"))
    }
  }

  func cancelled(_ stream: ServerStream, on server: HTTPServer) {
    standard.cancelled(stream)
    streams[stream.token] = nil
  }

  /// A certificate opens what its role is for; without TLS a token does.
  private func admit(_ stream: ServerStream) throws {
    let needed: NodeRole =
      stream.isPath("/shortlist.v1.Coordinator/Join") || stream.isPath("/shortlist.v1.Coordinator/Leave")
      ? .worker : stream.isPath("/shortlist.v1.Coordinator/Traffic") ? .coordinator : .operator
    guard let roles = server.peerRoles(of: stream) else {
      // Nodes without certificates are as good as the network that the admin port is on.
      guard needed == .operator else { return }
      return try access.admit(stream, stream.isPath("/metrics") ? [.metrics, .admin] : .admin)
    }
    guard roles.isDisjoint(with: needed) else { return }
    let why = "this takes a certificate with the role \(needed), yours has \(roles)"
    throw RankingError(.permissionDenied, why)
  }

  private func isGRPC(_ stream: ServerStream) -> Bool {
    stream.isMethod("POST") && stream.headers.hasPrefix("content-type", "application/grpc")
  }

  private func ask(_ call: CallToken, _ stream: ServerStream) throws {
    try stream.body.withUnsafeBytes { raw in
      let message = try GRPC.message(raw).get()
      if stream.isPath("/shortlist.v1.Coordinator/Join") {
        send(.joinRequested(call, try JoinRequest(decoding: message)), false)
      } else if stream.isPath("/shortlist.v1.Coordinator/Leave") {
        send(.leaveRequested(call, try LeaveRequest(decoding: message)), false)
      } else if stream.isPath("/shortlist.v1.Coordinator/Traffic") {
        reply(call, node.traffic.encoded())
      } else if stream.isPath("/shortlist.v1.Rollouts/Command") {
        let command = try RolloutMessages.command(decoding: message)
        send(.commanded(call, command.command, who: command.who), true)
      } else if stream.isPath("/shortlist.v1.Rollouts/State") {
        reply(call, RolloutMessages.encoded(try view()))
      } else if stream.isPath("/shortlist.v1.Rollouts/History") {
        try history(call, try RolloutMessages.historyRange(decoding: message))
      } else {
        throw GRPC.StatusError(.unimplemented, "no such method")
      }
    }
  }

  private static let noDocument = RolloutError(
    .notFound, "this coordinator has no agreed document: its configuration names no \"state\"")

  private func view() throws -> RolloutView {
    guard let view = node.rollouts(now: loop.now) else { throw Self.noDocument }
    return view
  }

  private func history(_ call: CallToken, _ range: (from: UInt64, limit: Int)) throws {
    guard let store else { throw Self.noDocument }
    store.store.history(from: range.from, limit: range.limit) { [unowned self] result in
      guard let stream = streams[call] else { return }
      do {
        let entries = try result.get()
        if isGRPC(stream) {
          reply(call, try RolloutMessages.history(entries.map(\.bytes)))
        } else {
          reply(call, Heads.json, RolloutAPI.body(entries))
        }
      } catch { refuse(call, RolloutError(.unavailable, "\(error)")) }
    }
  }

  // MARK: Replies

  func reply(_ call: CallToken, _ entry: HistoryEntry) {
    guard let stream = streams[call] else { return }
    if isGRPC(stream) {
      reply(call, RolloutMessages.encoded(entry))
    } else {
      reply(call, Heads.json, RolloutAPI.body(entry))
    }
  }
  private func reply(_ call: CallToken, _ head: ResponseHead, _ body: [UInt8]) {
    guard let stream = streams.removeValue(forKey: call) else { return }
    server.respond(stream, head: head, body: body)
  }
  /// A message of gRPC.
  func reply(_ call: CallToken, _ message: [UInt8]) {
    guard let stream = streams.removeValue(forKey: call) else { return }
    server.respond(stream, head: Heads.grpc, body: GRPC.frame(message), trailers: Heads.grpcOK)
  }
  func refuse(_ call: CallToken, _ error: RolloutError) {
    guard let stream = streams[call] else { return }
    if isGRPC(stream) { return refuse(call, GRPC.StatusError(RolloutAPI.grpcStatus(error.code), error.message)) }
    streams[call] = nil
    server.respond(stream, head: Heads.error(RolloutAPI.status(error.code)), body: RolloutAPI.body(error))
  }
  private func refuse(_ call: CallToken, _ error: RankingError) {
    guard let stream = streams[call] else { return }
    if isGRPC(stream) { return refuse(call, GRPC.status(of: error)) }
    streams[call] = nil
    var json = JSONWriter()
    PublicAPI.write(error, requestID: "", into: &json)
    json.literal("\n")
    server.respond(stream, head: Heads.error(PublicAPI.httpStatus(error.code)), body: json.bytes)
  }
  func refuse(_ call: CallToken, _ error: GRPC.StatusError) {
    guard let stream = streams.removeValue(forKey: call) else { return }
    server.respond(stream, head: Heads.grpcError(error), body: [])
  }
}
