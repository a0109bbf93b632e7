import HTTP2
import Transport
import Wire

// What every gRPC port answers beside its own services: health, asked once or watched, and reflection.
//
//     grpc.health.v1.Health/Check                ─► one answer
//     grpc.health.v1.Health/Watch                ─► the state now, and again whenever it changes
//     grpc.reflection.v1[alpha].ServerReflection ◄─► question, answer, question, answer …

/// Of the loop's thread.
final class StandardServices {
  private let server: HTTPServer
  private let services: [String]
  private let isServing: () -> Bool
  private let reflection: Reflection
  private var watchers: [ObjectIdentifier: (stream: ServerStream, isKnown: Bool)] = [:]
  /// What the watchers were told last.
  private var told: Bool?
  /// More than probes and people need; each takes a stream's memory for as long as it likes.
  private static let watchersMax = 256

  static let health = "grpc.health.v1.Health"
  private static let reflections = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]

  /// - Parameter services: full names of the port's own services.
  init(_ server: HTTPServer, services: [String], isServing: @escaping () -> Bool) {
    self.server = server
    self.services = services + [Self.health]
    self.isServing = isServing
    reflection = Reflection(services: services + [Self.health] + Self.reflections)
  }

  /// Whether the request is for one of these.
  func takes(_ stream: ServerStream) -> Bool { stream.headers.hasPrefix(":path", "/grpc.") }
  func streams(_ stream: ServerStream) -> Bool {
    stream.isPath("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
      || stream.isPath("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
  }
  /// Whether it may be asked by anybody: health is what remains when everything else takes a token.
  func isHealth(_ stream: ServerStream) -> Bool { stream.headers.hasPrefix(":path", "/grpc.health.v1.Health/") }

  func received(_ stream: ServerStream) {
    if streams(stream) { return reflect(stream) }
    let isCheck = stream.isPath("/grpc.health.v1.Health/Check")
    guard isCheck || stream.isPath("/grpc.health.v1.Health/Watch") else {
      return refuse(stream, GRPC.StatusError(.unimplemented, "no such method"))
    }
    do {
      let service: String = try stream.body.withUnsafeBytes { raw in try name(in: try GRPC.message(raw).get()) }
      let isKnown = service.isEmpty || services.contains(service)
      if isCheck {
        guard isKnown else { throw GRPC.StatusError(.notFound, "unknown service \"\(service)\"") }
        server.respond(stream, head: Heads.grpc, trailers: Heads.grpcOK) {
          GRPC.frame(into: &$0) { $0 += status(isKnown: true) }
        }
      } else {
        guard watchers.count < Self.watchersMax else {
          throw GRPC.StatusError(.resourceExhausted, "\(Self.watchersMax) watch already")
        }
        watchers[ObjectIdentifier(stream)] = (stream, isKnown)
        server.begin(stream, head: Heads.grpc)
        _ = server.send(stream, GRPC.frame(status(isKnown: isKnown)))
        if told == nil { told = isServing() }
      }
    } catch let error as GRPC.StatusError {
      refuse(stream, error)
    } catch {
      refuse(stream, GRPC.StatusError(.invalidArgument, "\(error)"))
    }
  }

  func cancelled(_ stream: ServerStream) { watchers[ObjectIdentifier(stream)] = nil }

  /// Tells the watchers, if the state has changed.
  func update() {
    guard !watchers.isEmpty else { return told = nil }
    let now = isServing()
    guard told != now else { return }
    told = now
    for (stream, isKnown) in watchers.values where isKnown {
      _ = server.send(stream, GRPC.frame(status(isKnown: true)))
    }
  }

  /// The port closes: who watches is told what there is to tell, and must not hold it up.
  func end() {
    update()
    let trailers = Heads.grpcTrailers(GRPC.StatusError(.unavailable, "leaving"))
    for (stream, _) in watchers.values { server.finish(stream, trailers: trailers) }
    watchers = [:]
  }

  /// HealthCheckResponse: SERVING 1, NOT_SERVING 2, SERVICE_UNKNOWN 3.
  private func status(isKnown: Bool) -> [UInt8] { [0x08, isKnown ? (isServing() ? 1 : 2) : 3] }

  private func name(in message: UnsafeRawBufferPointer) throws(WireError) -> String {
    var service = ""
    var reader = ProtoReader(message)
    while try reader.next() {
      if reader.field == 1 { service = try reader.string(maxBytes: 256) } else { try reader.skip() }
    }
    return service
  }

  private func reflect(_ stream: ServerStream) {
    if !stream.isAnswered { server.begin(stream, head: Heads.grpc) }
    do {
      for question in try stream.withBody({ GRPC.takeMessages(&$0) }).get() {
        guard server.send(stream, GRPC.frame(try reflection.answer(question))) else {
          throw GRPC.StatusError(.resourceExhausted, "too many questions at once, and no answer read")
        }
      }
      if stream.isRequestComplete { server.finish(stream, trailers: Heads.grpcOK) }
    } catch let error as GRPC.StatusError {
      server.finish(stream, trailers: Heads.grpcTrailers(error))
    } catch {
      server.finish(stream, trailers: Heads.grpcTrailers(GRPC.StatusError(.invalidArgument, "\(error)")))
    }
  }

  private func refuse(_ stream: ServerStream, _ error: GRPC.StatusError) {
    server.respond(stream, head: Heads.grpcError(error), body: [])
  }
}
