import Bundles
import Foundation
import HTTP2
import RankingCore
import Rollout
import Wire

// Bytes from the network and from files must never crash a process. Each body takes any bytes; the fuzzer (Tests/fuzz)
// makes them up, and an ordinary test gives it those that once were findings.

public enum FuzzBody: String, CaseIterable, Sendable {
  case protobuf, json, http1, http2, bundle, model

  public func run(_ bytes: UnsafeRawBufferPointer) {
    switch self {
    case .protobuf: Self.protobuf(bytes)
    case .json: Self.json(bytes)
    case .http1: Self.session(bytes) { HTTP1ServerSession(limits: .publicPort, delegate: $0) }
    case .http2: Self.session(bytes) { HTTP2ServerSession(limits: .publicPort, delegate: $0) }
    case .bundle: BundleFuzz.run(bytes)
    case .model: Self.model(bytes)
    }
  }

  // MARK: Messages

  private static func protobuf(_ bytes: UnsafeRawBufferPointer) {
    guard let kind = bytes.first else { return }
    let rest = UnsafeRawBufferPointer(rebasing: bytes.dropFirst())
    switch kind % 14 {
    case 0:
      again(try? ScoreRequest(decoding: rest)) {
        $0.encoded()
      } decode: {
        try? ScoreRequest(decoding: $0)
      }
    case 1: _ = (try? ScoreReply(decoding: rest)).map { $0.items.isWellFormed }
    case 2: _ = try? LookupRequest(decoding: rest)
    case 3: _ = try? LookupReply(decoding: rest)
    case 4:
      again(try? WorkerStatus(decoding: rest)) {
        $0.encoded()
      } decode: {
        try? WorkerStatus(decoding: $0)
      }
    case 5:
      again(try? JoinRequest(decoding: rest)) {
        $0.encoded()
      } decode: {
        try? JoinRequest(decoding: $0)
      }
    case 6:
      again(try? LeaveRequest(decoding: rest)) {
        $0.encoded()
      } decode: {
        try? LeaveRequest(decoding: $0)
      }
    case 7:
      again(try? ShardOrder(decoding: rest)) {
        $0.encoded()
      } decode: {
        try? ShardOrder(decoding: $0)
      }
    case 8: _ = try? TrafficReport(decoding: rest)
    case 9: _ = try? PublicAPI.recommend.parse(message: rest, requestID: "f")
    case 10: _ = try? PublicAPI.rank.parse(message: rest, requestID: "f")
    case 11: _ = try? PublicAPI.similar.parse(message: rest, requestID: "f")
    case 12: _ = try? reflection.answer(Array(rest))
    default:
      var body = Array(rest)
      _ = GRPC.takeMessages(&body)
      _ = try? GRPC.message(rest).get()
      _ = GRPC.timeout(String(decoding: rest, as: UTF8.self))
      _ = GRPC.decodeMessage(String(decoding: rest, as: UTF8.self))
      _ = TraceContext(traceparent: String(decoding: rest, as: UTF8.self))
    }
  }
  private static let reflection = Reflection(services: ["shortlist.v1.Ranking", "shortlist.v1.Worker"])

  /// What was understood is understood the same way when it has been written and read again.
  private static func again<Value: Equatable>(
    _ value: Value?, _ encode: (Value) -> [UInt8], decode: (UnsafeRawBufferPointer) -> Value?
  ) {
    guard let value else { return }
    let first = encode(value)
    guard let once = first.withUnsafeBytes(decode) else { preconditionFailure("what was written cannot be read") }
    precondition(encode(once) == first, "written twice, it differs")
  }

  private static func json(_ bytes: UnsafeRawBufferPointer) {
    guard let kind = bytes.first else { return }
    let rest = UnsafeRawBufferPointer(rebasing: bytes.dropFirst())
    switch kind % 6 {
    case 0: _ = try? PublicAPI.recommend.parse(rest, requestID: "f")
    case 1: _ = try? PublicAPI.rank.parse(rest, requestID: "f")
    case 2: _ = try? PublicAPI.similar.parse(rest, requestID: "f")
    case 3: _ = try? ParsedAnswer(rest)
    case 4: _ = try? RolloutSettings(json: Array(rest))
    default: _ = try? RolloutDocument(json: Array(rest))
    }
  }

  private static func model(_ bytes: UnsafeRawBufferPointer) {
    guard let model = try? RankerModel.parse(Array(bytes), path: "fuzz") else { return }
    if case .trees(let trees) = model { _ = trees.features.count }
  }

  // MARK: Sessions

  /// Answers what it is told, sometimes late, sometimes not at all.
  private final class Peer: ServerSessionDelegate {
    var session: (any ServerSession)!
    var parked: [ServerStream] = []
    var count = 0
    private static let head = ResponseHead(200, [("content-type", "text/plain")])
    private static let trailers = ResponseHead(0, [("grpc-status", "0")])

    func streams(_ stream: ServerStream) -> Bool { stream.isPath("/s") }
    func received(_ stream: ServerStream) {
      count += 1
      if stream.isStreaming {
        if !stream.isAnswered { session.begin(stream, head: Self.head) }
        _ = session.send(stream, stream.withBody { body in body })
        stream.withBody { $0.removeAll() }
        if stream.isRequestComplete { session.finish(stream, trailers: Self.trailers) }
      } else if count % 3 == 0 {
        parked.append(stream)
      } else {
        session.respond(stream, head: Self.head, body: stream.body, trailers: count % 2 == 0 ? Self.trailers : nil)
      }
    }
    func cancelled(_ stream: ServerStream) { parked.removeAll { $0 === stream } }
  }

  /// The first byte says how the rest is cut into pieces.
  private static func session(_ bytes: UnsafeRawBufferPointer, _ make: (Peer) -> any ServerSession) {
    guard let first = bytes.first else { return }
    let peer = Peer()
    let session = make(peer)
    peer.session = session
    defer { peer.session = nil }
    var rest = UnsafeRawBufferPointer(rebasing: bytes.dropFirst())
    var now: UInt64 = 1
    var piece = max(1, Int(first))
    var out: [UInt8] = []
    while !rest.isEmpty {
      now += 1_000_000_000
      session.now = now
      let isAlive = session.receive(UnsafeRawBufferPointer(rebasing: rest.prefix(piece)))
      rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(piece))
      piece = piece % 61 + 1
      if let stream = peer.parked.popLast(), piece % 2 == 0 {
        session.respond(stream, head: ResponseHead(200), body: [1, 2, 3], trailers: nil)
      }
      _ = session.checkTime()
      out.removeAll(keepingCapacity: true)
      session.output(into: &out, limit: 1 << 16)
      precondition(session.bufferedBytes >= 0, "less than nothing waits")
      if !isAlive || session.isOver { break }
    }
    session.shutdown(final: false)
    session.shutdown(final: true)
    session.output(into: &out, limit: 1 << 16)
    session.close()
    precondition(session.openStreams == 0, "streams outlive their session")
  }
}
