import HTTP2
import RankingCore
import Servers
import Transport
import Wire

/// A unary gRPC method on our own transport that costs next to nothing itself: what is measured is the way of a call.
///
///     rank.Ranker/TopK  { bytes user = 1; uint32 k = 2; }  ─►  { repeated uint32 ids = 1, float scores = 2; }
public final class RPCBenchmark: HTTPServerDelegate {
  private let loop = EventLoop()
  private let server: HTTPServer
  private static let head = ResponseHead(200, [("content-type", GRPC.contentType)])
  private static let ok = ResponseHead(0, [("grpc-status", "0")])
  private static let wrong = ResponseHead(200, [("content-type", GRPC.contentType), ("grpc-status", "3")])

  /// Serves on a port of 127.0.0.1 until the process is ended.
  public static func run(port: UInt16, ready: (UInt16) -> Void) throws {
    let bench = try RPCBenchmark(port: port)
    bench.server.start()
    ready(bench.server.port)
    bench.loop.run()
  }

  private init(port: UInt16) throws {
    var limits = HTTPLimits.publicPort
    limits.concurrentStreams = 1000
    server = try HTTPServer(host: "127.0.0.1", port: port, limits: limits, loop: loop)
    server.delegate = self
  }

  public func received(_ stream: ServerStream, on server: HTTPServer) {
    guard stream.isPath("/rank.Ranker/TopK"), let (first, k) = Self.question(stream.body) else {
      return server.respond(stream, head: Self.wrong, body: [])
    }
    server.respond(stream, head: Self.head, trailers: Self.ok) { body in
      GRPC.frame(into: &body) { body in
        ProtoWriter.append(to: &body) { writer in
          var (x, score) = (UInt32(2_654_435_761) &+ UInt32(first), Float(1))
          var scores: [Float] = []
          scores.reserveCapacity(k)
          writer.packedVarints(1, count: k) { _ in
            x = x &* 1_664_525 &+ 1_013_904_223
            score -= Float(x >> 8) * 1e-9
            scores.append(score)
            return UInt64(x >> 4)
          }
          writer.packed(2, scores)
        }
      }
    }
  }
  public func cancelled(_ stream: ServerStream, on server: HTTPServer) {}

  private static func question(_ body: [UInt8]) -> (first: UInt8, k: Int)? {
    body.withUnsafeBytes { raw in
      guard let message = try? GRPC.message(raw).get() else { return nil }
      var (first, k) = (UInt8(1), 100)
      do {
        var reader = ProtoReader(message)
        while try reader.next() {
          switch reader.field {
          case 1: first = try reader.raw().first ?? 1
          case 2: k = try reader.count(in: 1...10_000)
          default: try reader.skip()
          }
        }
      } catch { return nil }
      return (first, k)
    }
  }
}
