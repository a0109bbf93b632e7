import ClusterHarness
import ClusterLoad
import Foundation
import Testing

@testable import ChaosEngine

/// A relay between a client and a server that gives back what it gets, over real sockets.
@Suite struct RelayTests {
  private func withRelay(_ body: (Relay, EchoServer) throws -> Void) throws {
    let server = EchoServer()
    defer { server.close() }
    let relay = try Relay(to: server.port, seed: 1)
    defer { relay.close() }
    try body(relay, server)
  }

  @Test func bytesPassUnchanged() throws {
    try withRelay { relay, _ in
      let client = try EchoClient(relay.port)
      let bytes = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
      #expect(client.exchange(bytes, limit: .seconds(20)) == bytes)
    }
  }

  @Test func slicesAndDripsPassUnchanged() throws {
    try withRelay { relay, _ in
      relay.change { ($0.sliceMax, $0.gap) = (7, .milliseconds(1)) }
      let client = try EchoClient(relay.port)
      let bytes = (0..<200).map { UInt8($0) }
      #expect(client.exchange(bytes, limit: .seconds(20)) == bytes)
      relay.change { ($0.sliceMax, $0.gap, $0.bytesPerSecond) = (nil, .zero, 10_000) }
      #expect(client.exchange(bytes, limit: .seconds(20)) == bytes)
    }
  }

  /// Bytes on their way into a cut arrive when it has healed, as TCP would have it.
  @Test func aCutHoldsUntilItHeals() throws {
    try withRelay { relay, server in
      let client = try EchoClient(relay.port)
      #expect(client.exchange([1], limit: .seconds(20)) == [1])
      relay.change { $0.isCutIn = true }
      client.send([2, 3])
      server.waitForBytes(3)
      #expect(client.receive(1, limit: .milliseconds(50)) == [])
      relay.change { $0.isCutIn = false }
      #expect(client.receive(2, limit: .seconds(20)) == [2, 3])
      relay.change { $0.isCutOut = true }
      client.send([4])
      #expect(client.receive(1, limit: .milliseconds(50)) == [])
      #expect(server.received == 3)
      relay.change { $0.isCutOut = false }
      #expect(client.receive(1, limit: .seconds(20)) == [4])
    }
  }

  @Test func aResetEndsConnectionsAndNewOnesAreTaken() throws {
    try withRelay { relay, _ in
      let client = try EchoClient(relay.port)
      #expect(client.exchange([1], limit: .seconds(20)) == [1])
      relay.reset()
      #expect(client.waitForEnd() == ECONNRESET)
      #expect(try EchoClient(relay.port).exchange([2], limit: .seconds(20)) == [2])
    }
  }

  @Test func halfOpenIsSilentForTheClientAndTheEndForTheServer() throws {
    try withRelay { relay, server in
      let client = try EchoClient(relay.port)
      #expect(client.exchange([1], limit: .seconds(20)) == [1])
      relay.halfOpen()
      server.waitForEnds(1)
      client.send([2])
      #expect(client.receive(1, limit: .milliseconds(50)) == [])
      #expect(try EchoClient(relay.port).exchange([3], limit: .seconds(20)) == [3])
    }
  }

  @Test func anEndIsPassedOn() throws {
    try withRelay { relay, server in
      let client = try EchoClient(relay.port)
      #expect(client.exchange([1], limit: .seconds(20)) == [1])
      client.close()
      server.waitForEnds(1)
    }
  }
}
