import CLinux
import Dispatch
import Glibc
import HTTP2
import RankingCore
import Synchronization
import Testing

@testable import Transport

/// What a client said of its calls and of itself, in order.
final class Journal: CallHandler, HTTPClientDelegate, @unchecked Sendable {
  let lines = Mutex<[String]>([])
  let downs = Waiter<Bool>()
  var whenEnded: (UInt64) -> Void = { _ in }
  var whenUp: (HTTPClient) -> Void = { _ in }

  func note(_ line: String) { lines.withLock { $0.append(line) } }
  func ended(_ token: UInt64, _ outcome: CallOutcome) {
    switch outcome {
    case .response(let call): note("\(token): \(call.status), \(call.body.count) bytes")
    case .failure(let failure): note("\(token): \(failure)")
    }
    whenEnded(token)
  }
  func clientUp(_ client: HTTPClient) {
    note("up")
    whenUp(client)
  }
  func clientDown(_ client: HTTPClient, reason: String) {
    note("down")
    downs.give(true)
  }
}

/// Runs on the loop and waits for it.
extension EventLoop {
  func run<Value: Sendable>(_ body: @escaping @Sendable () -> Value) -> Value? {
    let waiter = Waiter<Value>()
    execute { waiter.give(body()) }
    return waiter.wait()
  }
}

@Suite struct ClientLifeTests {
  static let park = RequestHead(method: "POST", path: "/park")
  static let echo = RequestHead(method: "POST", path: "/echo", headers: [("te", "trailers")], varying: "grpc-timeout")

  /// A client on a loop of its own; released with the box.
  final class Box: @unchecked Sendable {
    let loop = EventLoop()
    let journal = Journal()
    var client: HTTPClient?
    weak var released: HTTPClient?
    init(port: UInt16, reconnects: Bool = true) {
      let up = Waiter<Bool>()
      journal.whenUp = { _ in up.give(true) }
      loop.start()
      loop.execute { [self] in
        let client = HTTPClient(host: "127.0.0.1", port: port, loop: loop, reconnects: reconnects)
        client.delegate = journal
        self.client = client
        released = client
        client.start()
      }
      #expect(up.wait() == true)
    }
    deinit { loop.stop() }
    func parkThree() -> Bool? {
      loop.run { [self] in
        (1...3).allSatisfy { client!.call(ClientLifeTests.park, handler: journal, token: $0) != nil }
      }
    }
  }

  @Test func stoppingFailsEveryOpenCallOnceAndTheClientMayBeReleased() throws {
    let server = try EchoServer()
    let box = Box(port: server.server.port)
    #expect(box.parkThree() == true)
    #expect(
      box.loop.run {
        let client = box.client!
        client.stop()
        client.stop()
        return client.call(Self.park, handler: box.journal) == nil
      } == true)
    _ = box.loop.run { box.client = nil }
    // A turn later nothing of the loop holds it any more.
    #expect(box.loop.run { box.released == nil } == true)
    #expect(
      box.journal.lines.withLock { $0 }
        == ["up", "down", "1: connectionLost", "2: connectionLost", "3: connectionLost"])
  }

  @Test func stoppingAndReleasingFromWithinACallIsSafe() throws {
    let server = try EchoServer()
    let box = Box(port: server.server.port)
    box.journal.whenEnded = { [unowned box] token in
      guard token == 4 else { return }
      box.client?.stop()
      box.client = nil
    }
    #expect(box.parkThree() == true)
    #expect(box.loop.run { box.client!.call(Self.echo, varying: "1S", handler: box.journal, token: 4) != nil } == true)
    #expect(box.journal.downs.wait() == true)
    #expect(box.loop.run { box.released == nil } == true)
    let ended = box.journal.lines.withLock { $0.filter { $0.contains(":") }.sorted() }
    #expect(ended == ["1: connectionLost", "2: connectionLost", "3: connectionLost", "4: 200, 6 bytes"])
    #expect(box.journal.lines.withLock { $0.filter { $0 == "down" }.count } == 1)
  }

  @Test func stoppingWhileTheConnectionIsBeingLostIsToldOnce() throws {
    let server = try EchoServer()
    let box = Box(port: server.server.port)
    box.journal.whenEnded = { [unowned box] _ in box.client?.stop() }
    #expect(box.parkThree() == true)
    #expect(box.loop.run { box.client!.call(Self.park, handler: box.journal, token: 4) != nil } == true)
    // The server ends the connection once it has all four.
    @Sendable func endWhenSeen() {
      guard server.seen.withLock({ $0.count }) == 4 else { return server.loop.execute { endWhenSeen() } }
      for connection in server.server.openForTests { connection.end() }
    }
    server.loop.execute { endWhenSeen() }
    #expect(box.journal.downs.wait() == true)
    _ = box.loop.run { box.client = nil }
    #expect(box.loop.run { box.released == nil } == true)
    #expect(
      box.journal.lines.withLock { $0 }
        == ["up", "down", "1: connectionLost", "2: connectionLost", "3: connectionLost", "4: connectionLost"])
  }

  /// A peer that is gone without a word, or stands still, keeps its end of the connection as far as we can see.
  @Test func aLinkThatDoesNotAnswerIsMadeAnewAndOneThatDoesIsKept() throws {
    let server = try EchoServer()
    let box = Box(port: server.server.port)
    let later = Waiter<Bool>()
    _ = box.loop.run {
      box.client?.askForLife()
      box.loop.schedule(after: LinkPolicy().pingTimeout + .milliseconds(100)) { later.give(true) }
    }
    #expect(later.wait() == true)
    #expect(box.journal.lines.withLock { $0 } == ["up"])

    let (standsStill, runsOn) = (Waiter<Bool>(), DispatchSemaphore(value: 0))
    server.loop.execute {
      standsStill.give(true)
      runsOn.wait()
    }
    #expect(standsStill.wait() == true)
    let upAgain = Waiter<Bool>()
    box.journal.whenUp = { _ in upAgain.give(true) }
    _ = box.loop.run { box.client?.askForLife() }
    #expect(box.journal.downs.wait() == true)
    runsOn.signal()
    #expect(upAgain.wait() == true)
    #expect(box.journal.lines.withLock { $0 } == ["up", "down", "up"])
  }

  @Test func aClientMovesToANewAddressAndItsOpenCallsFailOnce() throws {
    let (first, second) = (try EchoServer(), try EchoServer())
    let box = Box(port: first.server.port)
    #expect(box.parkThree() == true)
    let up = Waiter<Bool>()
    box.journal.whenUp = { _ in up.give(true) }
    let port = second.server.port
    _ = box.loop.run { box.client!.move(to: "127.0.0.1", port: port) }
    #expect(up.wait() == true)
    let answered = Waiter<Bool>()
    box.journal.whenEnded = { _ in answered.give(true) }
    _ = box.loop.run {
      _ = box.client!.call(Self.echo, handler: box.journal, token: 9) { $0 += [1, 2, 3] }
    }
    #expect(answered.wait() == true)
    #expect(second.seen.withLock { $0 } == ["received /echo 3"])
    #expect(
      box.journal.lines.withLock { $0 }
        == ["up", "down", "1: connectionLost", "2: connectionLost", "3: connectionLost", "up", "9: 200, 3 bytes"])
  }

  @Test func cancellingBeforeTheRequestHasLeftIsTold() throws {
    let server = try EchoServer()
    let box = Box(port: server.server.port)
    let ended = Waiter<Bool>()
    box.journal.whenEnded = { _ in ended.give(true) }
    _ = box.loop.run {
      if let call = box.client!.call(Self.park, handler: box.journal, token: 1, body: { $0 += [1] }) {
        box.client!.cancel(call)
      }
    }
    #expect(ended.wait() == true)
    #expect(box.journal.lines.withLock { $0 } == ["up", "1: cancelled"])
  }
}

/// A peer that speaks in frames: what stock servers do on their way out.
@Suite struct RefusedStreamTests {
  /// SETTINGS, then (after the client's request is there) what the test wants said.
  private func failure(of frames: [UInt8]) throws -> ClientFailure? {
    let session = HTTP2ClientSession(authority: "x")
    let journal = FailureBox()
    session.receive([0, 0, 0, 4, 0, 0, 0, 0, 0])
    #expect(session.isUp)
    #expect(session.call(ClientLifeTests.park, handler: journal, token: 7, body: { $0 += [1] }) == 1)
    var out: [UInt8] = []
    session.output(into: &out, limit: 1 << 16)
    session.receive(frames)
    return journal.failure
  }
  private final class FailureBox: CallHandler {
    var failure: ClientFailure?
    func ended(_ token: UInt64, _ outcome: CallOutcome) {
      #expect(token == 7 && failure == nil)
      if case .failure(let failure) = outcome { self.failure = failure }
    }
  }
  private static let refused: [UInt8] = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7]
  private static let goAwayZero: [UInt8] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
  private static let goAwayMax: [UInt8] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]

  @Test func aRefusedStreamMeansOverloadBeforeGOAWAYAndALeavingPeerAfter() throws {
    #expect(try failure(of: Self.refused) == .refused)
    #expect(try failure(of: Self.goAwayMax + Self.refused) == .connectionLost)
    // Streams beyond the last one that the peer takes are refused by GOAWAY itself.
    #expect(try failure(of: Self.goAwayZero) == .connectionLost)
    #expect(try failure(of: [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2]) == .reset(code: 2))
  }

  @Test func closingASessionFailsItsCallsOnceEvenIfBytesStillCome() {
    let session = HTTP2ClientSession(authority: "x")
    let box = FailureBox()
    session.receive([0, 0, 0, 4, 0, 0, 0, 0, 0])
    #expect(session.call(ClientLifeTests.park, handler: box, token: 7, body: { _ in }) == 1)
    session.close()
    #expect(box.failure == .connectionLost && session.openCalls == 0)
    var out: [UInt8] = []
    session.output(into: &out, limit: 1 << 16)
    session.receive(Self.refused)
    #expect(session.call(ClientLifeTests.park, handler: box, token: 7, body: { _ in }) == nil)
  }
}

extension HTTP2ClientSession {
  fileprivate func receive(_ bytes: [UInt8]) { bytes.withUnsafeBytes { receive($0) } }
}

@Suite struct LoopTimerTests {
  @Test func aTimerThatIsSetAgainRunsAtItsLastInstantOnly() {
    let loop = EventLoop()
    let ran = Waiter<[String]>()
    loop.execute {
      var order: [String] = []
      let start = loop.freshNow()
      let kept = LoopTimer { order.append("kept") }
      for later in [20, 9, 15, 1, 4] { loop.arm(kept, at: start + .milliseconds(later)) }
      loop.schedule(at: start + .milliseconds(3)) { order.append("3") }
      loop.schedule(at: start + .milliseconds(5)) {
        order.append("5")
        loop.arm(kept, at: start + .milliseconds(7))
      }
      loop.schedule(at: start + .milliseconds(25)) { ran.give(order) }
    }
    loop.start()
    #expect(ran.wait() == ["3", "kept", "5", "kept"])
    loop.stop()
  }

  @Test(arguments: 1...20)
  func timersRunInOrderWhateverIsCancelledInBetween(seed: UInt64) {
    var heap = TimerHeap()
    var random = SeededGenerator(seed: seed)
    var order: [Int] = []
    var due: [Int: UInt64] = [:]
    let timers = (0..<100).map { number in LoopTimer { order.append(number) } }
    for _ in 0..<400 {
      let number = Int(random.next() % 100)
      if random.next() % 4 == 0 {
        heap.disarm(timers[number])
        due[number] = nil
      } else {
        // Distinct instants, so that one order is right.
        due[number] = random.next() % 1000 * 100 + UInt64(number)
        heap.arm(timers[number], at: Instant(nanoseconds: due[number]!))
      }
    }
    while let timer = heap.popDue(Instant(nanoseconds: .max)) { timer.fire() }
    let isInOrder = order == due.sorted { $0.value < $1.value }.map(\.key)
    #expect(isInOrder && heap.earliest == nil)
  }

  /// The shortest of several waits: a busy machine makes a wait longer, never shorter.
  @Test func waitsAreFinerThanAMillisecond() {
    let loop = EventLoop()
    let waited = Waiter<Duration>()
    loop.execute {
      var best = Duration.seconds(1)
      func measure(_ left: Int) {
        guard left > 0 else { return waited.give(best) }
        let start = EventLoop.clock()
        loop.schedule(at: start + .microseconds(200)) {
          best = min(best, EventLoop.clock() - start)
          measure(left - 1)
        }
      }
      measure(50)
    }
    loop.start()
    let best = waited.wait()
    #expect(best.map { $0 >= .microseconds(200) && $0 < .microseconds(900) } == true, "\(String(describing: best))")
    loop.stop()
  }
}
