import ClusterHarness
import Foundation
import RankingCore
import Synchronization
import Testing

@testable import HTTP2
@testable import Transport

/// Each attack is cut off by the limit that is meant for it, and an honest client beside it notices nothing.
@Suite struct AttackTests {
  private static let quick: HTTPLimits = {
    var limits = HTTPLimits.publicPort
    // The honest client is held to them, too, on a machine that has much else to do.
    limits.handshake = .seconds(1)
    limits.settings = .seconds(1)
    limits.request = .seconds(1)
    limits.writeStall = .seconds(1)
    limits.sweep = .milliseconds(20)
    return limits
  }()

  private func hits(_ echo: EchoServer) -> [HTTPLimit: UInt64] {
    let counted = Waiter<[UInt64]>()
    echo.loop.execute { counted.give(echo.server.counters.limitsHit) }
    return Dictionary(
      uniqueKeysWithValues: zip(HTTPLimit.allCases, counted.wait() ?? []).filter { $0.1 > 0 })
  }

  private func attack(_ attack: WireAttack, _ echo: EchoServer) throws {
    let honest = ScriptedClient(port: echo.server.port)
    let over = Waiter<WireAttack.Outcome>()
    let port = echo.server.port
    Thread.detachNewThread { over.give(attack.run(port: port, limit: .seconds(15))) }
    var number = UInt8(0)
    var outcome: WireAttack.Outcome?
    while outcome == nil {
      number &+= 1
      #expect(try honest.call("/echo", [number]).wait()?.get().body == [number])
      outcome = over.wait(milliseconds: 1)
    }
    #expect(outcome?.cutAfter != nil, "\(attack): not cut off")
    if let limit = attack.limit { #expect(hits(echo)[limit] ?? 0 > 0, "\(attack): \(hits(echo))") }
    // The server is as it was.
    #expect(try honest.call("/echo", [1, 2]).wait()?.get().body == [1, 2])
  }

  @Test(arguments: WireAttack.floods("/park"))
  func aFloodIsCutOff(flood: WireAttack) throws { try attack(flood, try EchoServer()) }

  @Test(arguments: WireAttack.stalls("/park", large: "/big"))
  func whoMakesUsWaitIsCutOff(stall: WireAttack) throws { try attack(stall, try EchoServer(Self.quick)) }

  @Test func aRequestWhoseBodyDoesNotComeIsAnsweredAndTheConnectionStays() throws {
    let echo = try EchoServer(Self.quick)
    let client = try RawClient(port: echo.server.port)
    client.say(WireAttack.slowBody("/echo"))
    let heard = client.hear { bytes in
      // RST_STREAM for stream 1 with NO_ERROR, after the 408.
      bytes.contains(WireAttack.frame(3, stream: 1, [0, 0, 0, 0]))
    }
    #expect(heard.contains(Array("408".utf8)) || heard.contains([0x48, 0x03]) || heard.contains([0x08, 0x03]))
    #expect(hits(echo)[.requestTime] == 1)
    // PING and its answer: the connection lives.
    client.say(WireAttack.frame(6, [1, 2, 3, 4, 5, 6, 7, 8]))
    _ = client.hear { $0.contains(WireAttack.frame(6, flags: 1, [1, 2, 3, 4, 5, 6, 7, 8])) }
  }

  @Test func oneAddressGetsItsShareOfConnections() throws {
    var limits = HTTPLimits.publicPort
    limits.connectionsPerPeer = 3
    let echo = try EchoServer(limits)
    var clients = (0..<3).map { _ in ScriptedClient(port: echo.server.port) }
    let fourth = try RawClient(port: echo.server.port)
    #expect(fourth.hear() == "")
    #expect(hits(echo) == [.connectionsPerPeer: 1])
    for client in clients { #expect(try client.call("/echo", [1]).wait()?.get().status == 200) }
    // A place that is given up is free again.
    clients.removeLast().stop()
    var again: ScriptedClient?
    while again == nil { again = ScriptedClient.ifTaken(port: echo.server.port) }
    #expect(try again?.call("/echo", [2]).wait()?.get().body == [2])
  }

  @Test func bucketsFillAgain() {
    var bucket = TokenBucket(burst: 2, perSecond: 10)
    let second: UInt64 = 1_000_000_000
    var taken: [Bool] = []
    for now in [5 * second, 5 * second, 5 * second, 5 * second + second / 20, 5 * second + second / 8] {
      taken.append(bucket.take(now: now))
    }
    #expect(taken == [true, true, false, false, true])
    for now in [9 * second, 9 * second, 9 * second] { taken.append(bucket.take(now: now)) }
    #expect(taken.suffix(3) == [true, true, false])
  }

  /// A hundred requests in flight are the limit, and those that were taken back count for a while.
  @Test func whatWasTakenBackStillCounts() {
    var limits = HTTPLimits.publicPort
    limits.concurrentStreams = 4
    limits.abandonedPerSecond = 10
    var conduct = PeerConduct(limits)
    let second: UInt64 = 1_000_000_000
    for _ in 0..<3 { conduct.abandoned(second) }
    let running = [second, second + second / 10, 2 * second].map { conduct.stillRunning($0) }
    #expect(running == [3, 2, 0])
  }
}

extension Array where Element == UInt8 {
  fileprivate func contains(_ part: [UInt8]) -> Bool {
    guard count >= part.count else { return false }
    return (0...(count - part.count)).contains { self[$0..<($0 + part.count)].elementsEqual(part) }
  }
}
