import RankingCore
import Testing
import Wire

@testable import Agreement

/// Messages as etcd's own client writes them, byte for byte, and bytes that are none.
@Suite struct EtcdMessageTests {
  private static func watch(_ bytes: [UInt8]) -> Etcd.WatchReply? { bytes.withUnsafeBytes { try? Etcd.WatchReply($0) } }
  private static func lease(_ bytes: [UInt8]) -> Etcd.LeaseReply? { bytes.withUnsafeBytes { try? Etcd.LeaseReply($0) } }

  @Test func aTransactionIsWrittenAsEtcdReadsIt() {
    let transaction = Etcd.Transaction(
      compare: [.modified(key: [0x73], 5), .created(key: [0x68], 0)],
      success: [.put(key: [0x73], value: [1, 2], lease: 9)], failure: [.range(Etcd.Range(key: [0x73]))])
    let wanted: [UInt8] = [
      // compare { target MOD, key "s", mod_revision 5 }
      0x0A, 7, 0x10, 2, 0x1A, 1, 0x73, 0x30, 5,
      // compare { target CREATE, key "h", create_revision 0, which is written }
      0x0A, 7, 0x10, 1, 0x1A, 1, 0x68, 0x28, 0,
      // success { put { key "s", value, lease 9 } }
      0x12, 11, 0x12, 9, 0x0A, 1, 0x73, 0x12, 2, 1, 2, 0x18, 9,
      // failure { range { key "s" } }
      0x1A, 5, 0x0A, 3, 0x0A, 1, 0x73,
    ]
    #expect(transaction.encode() == wanted)
    #expect(Etcd.watch(key: [0x73], from: 300) == [0x0A, 8, 0x0A, 1, 0x73, 0x18, 0xAC, 2, 0x40, 1])
    #expect(Etcd.grant(seconds: 2) == [8, 2] && Etcd.lease(300) == [8, 0xAC, 2])
  }

  /// header { cluster 7, member 8, revision 9 }, two events, of which one is a deletion.
  private static let watchReply: [UInt8] = [
    0x0A, 6, 8, 7, 16, 8, 24, 9, 0x18, 1,
    0x5A, 14, 0x12, 12, 0x0A, 1, 0x73, 0x10, 3, 0x18, 4, 0x20, 2, 0x2A, 1, 0x76,
    0x5A, 9, 8, 1, 0x12, 5, 0x0A, 1, 0x64, 0x18, 6,
  ]

  @Test func aWatchReplyIsRead() throws {
    let reply = try #require(Self.watch(Self.watchReply))
    #expect(
      reply.header
        == {
          var header = Etcd.Header(); header.cluster = 7; header.revision = 9; return header
        }())
    #expect(reply.isCreated && !reply.isCanceled && reply.events.count == 2)
    #expect(EtcdKeys.stored(reply.events[0].value) == StoredState(revision: 4, sequence: 2, bytes: [0x76]))
    #expect(reply.events[0].value.createRevision == 3 && !reply.events[0].isDeletion)
    #expect(reply.events[1].isDeletion && reply.events[1].value.key == [0x64] && reply.events[1].value.modRevision == 6)
  }

  @Test func noBytesTrap() {
    var random = SeededGenerator(seed: 11)
    for count in 0...Self.watchReply.count { _ = Self.watch(Array(Self.watchReply.prefix(count))) }
    for _ in 0..<20_000 {
      var bytes = Self.watchReply
      for _ in 0...random.below(4) { bytes[random.below(bytes.count)] = UInt8(random.below(256)) }
      _ = Self.watch(bytes)
      _ = Self.lease(bytes)
      bytes.withUnsafeBytes { raw in
        _ = try? Etcd.TransactionReply(raw)
        _ = try? Etcd.RangeReply(raw)
      }
    }
    // A lifetime of −1 s, and one of a billion years.
    #expect(Self.lease([0x18] + [UInt8](repeating: 0xFF, count: 9) + [1])?.seconds == 0)
    #expect(Self.lease([0x18] + [UInt8](repeating: 0xFF, count: 8) + [0x7F])?.seconds == 86_400)
  }
}

@Suite struct EtcdKeysTests {
  private let keys = EtcdKeys(prefix: "/p")
  private let commit = EtcdKeys.Commit(
    expecting: 5, state: [1], line: HistoryLine(sequence: 3, id: 77, entry: [9]), authority: .driver(epoch: 4))
  private let driver = DriverKey(lease: 1, createRevision: 4, name: "me")
  private func line(_ id: UInt64) -> Etcd.KeyValue {
    var value = Etcd.KeyValue()
    value.modRevision = 6
    value.value = HistoryLine(sequence: 3, id: id, entry: [9]).bytes
    return value
  }

  @Test func whatFailedSaysWhy() {
    let (same, later) = (StoredState(revision: 5, sequence: 2), StoredState(revision: 8, sequence: 4))
    #expect(keys.outcome(of: commit, state: later, line: line(77), driver: nil) == .committed(revision: 6))
    // The same words from somebody else are somebody else's.
    #expect(keys.outcome(of: commit, state: later, line: line(78), driver: driver) == .conflict(current: later))
    #expect(keys.outcome(of: commit, state: same, line: nil, driver: nil) == .notDriving)
    #expect(
      keys.outcome(of: commit, state: same, line: line(78), driver: driver)
        == .unavailable(why: "/p/history/0000000000000003 is there already, although /p/state has not got so far"))
  }
}

@Suite struct EtcdLinkPartsTests {
  @Test(arguments: [
    ("127.0.0.1:1", "127.0.0.1:1"), ("http://etcd-0.etcd:2/", "etcd-0.etcd:2"), ("[::1]:3", "[::1]:3"),
    ("https://a:1", nil), ("a", nil), (":1", nil), ("a:", nil), ("a:0", nil), ("::1", nil), ("a:99999", nil),
    ("http://a/b:1", nil),
  ])
  func endpointsAreReadOrRefused(text: String, wanted: String?) {
    #expect(EtcdEndpoint(text).map { "\($0)" } == wanted)
  }

  @Test func pausesGrowToTwoSecondsAndAreSpread() {
    var backoff = Backoff(seed: 1)
    var pauses = (0..<12).map { _ in backoff.pause() }
    #expect(pauses[0] >= .milliseconds(40) && pauses[0] <= .milliseconds(60))
    #expect(pauses[3] >= .milliseconds(163) && pauses[3] <= .milliseconds(246))
    #expect(pauses.allSatisfy { $0 <= .seconds(2) } && pauses[11] >= .milliseconds(1600))
    var other = Backoff(seed: 2)
    #expect(pauses != (0..<12).map { _ in other.pause() })
    backoff.reset()
    pauses = [backoff.pause()]
    #expect(pauses[0] <= .milliseconds(60))
  }
}
