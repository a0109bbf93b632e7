import HTTP2
import RankingCore
import Synchronization
import Testing

@testable import Transport

/// What a stream brought: its bytes, in how many pieces, and how it ended.
private final class StreamJournal: StreamHandler, @unchecked Sendable {
  struct End: Sendable {
    var bytes: [UInt8]
    var pieces: Int
    var text: String
    var bodyBytes: Int?
  }
  private(set) var bytes: [UInt8] = []
  private(set) var pieces = 0
  private(set) var ends: [String] = []
  let end = Waiter<End>()
  var whenReceived: () -> Void = {}

  func received(_ token: UInt64, _ bytes: UnsafeRawBufferPointer) {
    #expect(token == 5 && ends.isEmpty)
    self.bytes += bytes
    pieces += 1
    whenReceived()
  }
  func ended(_ token: UInt64, _ outcome: CallOutcome) {
    switch outcome {
    case .response(let call):
      ends.append("\(call.status) grpc \(call.grpcStatus.map(String.init) ?? "-")")
      end.give(End(bytes: bytes, pieces: pieces, text: ends[0], bodyBytes: call.body.count))
    case .failure(let failure):
      ends.append("\(failure)")
      end.give(End(bytes: bytes, pieces: pieces, text: ends[0], bodyBytes: nil))
    }
  }
}

/// Requests that are streams, against our own server.
@Suite struct StreamTests {
  static let echo = RequestHead(method: "POST", path: "/echo")
  static let big = RequestHead(method: "POST", path: "/big")
  static let park = RequestHead(method: "POST", path: "/park")

  /// Sends `pieces` one a turn, then ends the request; true when every piece was taken.
  private func send(
    _ pieces: [[UInt8]], _ head: RequestHead, _ journal: StreamJournal, _ client: ScriptedClient
  ) -> Bool {
    let done = Waiter<Bool>()
    client.loop.execute {
      guard let call = client.client.open(head, handler: journal, token: 5) else { return done.give(false) }
      @Sendable func next(_ index: Int) {
        let isLast = index == pieces.count
        let isTaken = client.client.send(call, isLast: isLast) { if !isLast { $0 += pieces[index] } }
        guard isTaken, !isLast else { return done.give(isTaken) }
        client.loop.execute { next(index + 1) }
      }
      next(0)
    }
    return done.wait() == true
  }

  @Test func aRequestSentInPiecesArrivesWhole() throws {
    let server = try EchoServer()
    let client = ScriptedClient(port: server.server.port)
    let journal = StreamJournal()
    let pieces = (1...20).map { [UInt8](repeating: UInt8($0), count: $0 * 997) }
    #expect(send(pieces, Self.echo, journal, client))
    let end = try #require(journal.end.wait())
    #expect(end.bytes == pieces.flatMap { $0 } && end.text == "200 grpc -" && end.bodyBytes == 0)
    #expect(server.seen.withLock { $0 } == ["received /echo \(pieces.reduce(0) { $0 + $1.count })"])
  }

  @Test func aResponseLargerThanTheWindowsComesInPieces() throws {
    let server = try EchoServer()
    let client = ScriptedClient(port: server.server.port)
    let journal = StreamJournal()
    #expect(send([], Self.big, journal, client))
    let end = try #require(journal.end.wait())
    #expect(end.bytes == [UInt8](repeating: 7, count: 8 << 20) && end.pieces > 100 && end.bodyBytes == 0)
  }

  /// The server refuses the body in the middle of the request and never reads on.
  @Test func anAnswerBeforeTheRequestIsOverEndsTheStream() throws {
    let server = try EchoServer()
    let client = ScriptedClient(port: server.server.port)
    let journal = StreamJournal()
    let isOver = Waiter<Bool>()
    client.loop.execute {
      guard let call = client.client.open(Self.echo, handler: journal, token: 5) else { return }
      _ = client.client.send(call) { $0 += [UInt8](repeating: 1, count: 1 << 20 | 1) }
      @Sendable func wait() {
        guard journal.ends.isEmpty else { return isOver.give(!client.client.send(call) { $0 += [1] }) }
        client.loop.execute { wait() }
      }
      wait()
    }
    #expect(journal.end.wait()?.text == "413 grpc -")
    #expect(isOver.wait() == true, "nothing is taken after the end")
    #expect(try client.call("/after").wait()?.get().status == 200)
  }

  @Test func aLostConnectionEndsAStreamOnce() throws {
    let server = try EchoServer()
    let client = ScriptedClient(port: server.server.port)
    let journal = StreamJournal()
    #expect(send([[1, 2]], Self.park, journal, client))
    #expect(try client.call("/after").wait()?.get().status == 200)
    server.loop.execute { for connection in server.server.openForTests { connection.end() } }
    #expect(journal.end.wait()?.text == "connectionLost")
    #expect(client.loop.run { journal.ends.count } == 1)
  }
}

/// Streams in frames, where the order of both directions can be told.
@Suite struct StreamFrameTests {
  private static let settings: [UInt8] = [0, 0, 0, 4, 0, 0, 0, 0, 0]
  private static let ok: [UInt8] = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88]
  private static func data(_ bytes: [UInt8], isLast: Bool = false) -> [UInt8] {
    [0, 0, UInt8(bytes.count), 0, isLast ? 1 : 0, 0, 0, 0, 1] + bytes
  }
  private func open(_ journal: StreamJournal) -> HTTP2ClientSession {
    let session = HTTP2ClientSession(authority: "x")
    session.receive(Self.settings)
    #expect(session.open(StreamTests.echo, handler: journal, token: 5) == 1)
    _ = session.frames()
    return session
  }

  @Test func bothDirectionsGoOnSideBySide() {
    let journal = StreamJournal()
    let session = open(journal)
    session.receive(Self.ok + Self.data([1, 2]))
    #expect(journal.bytes == [1, 2] && journal.ends.isEmpty)
    #expect(session.send(1) { $0 += [9, 8] })
    #expect(session.frames() == [Self.data([9, 8])])
    #expect(session.frames() == [], "nothing to send is nothing sent")
    session.receive(Self.data([3]))
    #expect(session.send(1) { $0 += [7] } && session.send(1) { $0 += [6] })
    #expect(session.frames() == [Self.data([7, 6])])
    #expect(session.send(1, isLast: true))
    #expect(session.frames() == [Self.data([], isLast: true)])
    #expect(!session.send(1) { $0 += [5] }, "the request has been ended")
    session.receive(Self.data([4], isLast: true))
    #expect(journal.bytes == [1, 2, 3, 4] && journal.ends == ["200 grpc -"] && session.openCalls == 0)
  }

  @Test func theServersEndWithoutAResetEndsTheRequestToo() {
    let journal = StreamJournal()
    let session = open(journal)
    session.receive(Self.ok + Self.data([1], isLast: true))
    // RST_STREAM with NO_ERROR.
    #expect(session.frames() == [[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0]])
    #expect(journal.ends == ["200 grpc -"] && session.openCalls == 0)
  }

  @Test func cancellingFromWithinStopsWhatStillComes() {
    let journal = StreamJournal()
    let session = open(journal)
    journal.whenReceived = { session.cancel(1) }
    session.receive(Self.ok + Self.data([1]) + Self.data([2]))
    _ = session.frames()
    #expect(journal.bytes == [1] && journal.ends == ["cancelled"])
  }

  @Test func whatAPeerDoesNotReadIsBounded() {
    let journal = StreamJournal()
    let session = open(journal)
    #expect(session.send(1) { $0 += [UInt8](repeating: 0, count: HTTPLimits.unsentStreamBytesMax) })
    #expect(!session.send(1) { $0 += [1] })
    // The peer's window lets 65 535 bytes out, and that much room there is then.
    let out = session.frames().reduce(0) { $0 + $1.count - 9 }
    #expect(out == 65_535)
    #expect(session.send(1) { $0 += [UInt8](repeating: 0, count: out) })
    #expect(!session.send(1) { $0 += [1] })
    session.close()
    #expect(journal.ends == ["connectionLost"] && !session.send(1) { $0 += [1] })
  }

  @Test func aPooledCallForgetsThatItWasAStream() {
    let journal = StreamJournal()
    let session = open(journal)
    session.receive(Self.ok + Self.data([1], isLast: true))
    _ = session.frames()
    let plain = Journal()
    #expect(session.call(StreamTests.echo, handler: plain, token: 6, body: { $0 += [1] }) == 3)
    _ = session.frames()
    session.receive([0, 0, 1, 1, 4, 0, 0, 0, 3, 0x88] + [0, 0, 2, 0, 1, 0, 0, 0, 3, 1, 2])
    #expect(plain.lines.withLock { $0 } == ["6: 200, 2 bytes"] && journal.bytes == [1])
  }
}

extension HTTP2ClientSession {
  fileprivate func receive(_ bytes: [UInt8]) { bytes.withUnsafeBytes { receive($0) } }

  /// What is to be sent, by frame; what opens the connection and WINDOW_UPDATE left out.
  fileprivate func frames() -> [[UInt8]] {
    var out: [UInt8] = []
    output(into: &out, limit: 8 << 20)
    if out.starts(with: "PRI * HTTP/2.0".utf8) { out.removeFirst(24) }
    var frames: [[UInt8]] = []
    var rest = out[...]
    while rest.count >= 9 {
      let bytes = Array(rest.prefix(3))
      let length = 9 + Int(bytes[0]) << 16 + Int(bytes[1]) << 8 + Int(bytes[2])
      let frame = Array(rest.prefix(length))
      rest = rest.dropFirst(length)
      if frame[3] <= 3 { frames.append(frame) }
    }
    return frames
  }
}
