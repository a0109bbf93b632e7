import ClusterHarness
import RankingCore
import Testing
import Transport

@testable import ChaosEngine
@testable import Agreement

/// A real etcd behind a network that loses replies, falls silent, and ends.
@Suite(
  .serialized, .enabled(if: EtcdProcess.executable != nil, "etcd is not on the PATH; apt-get install etcd-server"))
struct EtcdPartitionTests {
  let scratch: ScratchDirectory
  let etcd: EtcdProcess
  init() throws {
    scratch = try ScratchDirectory()
    etcd = try EtcdProcess(directory: scratch.path)
  }
  private func run(_ name: String, _ ports: [UInt16], host: String = "127.0.0.1") -> StoreRun {
    StoreRun { loop in
      EtcdStateStore(
        EtcdStateStore.Options(
          endpoints: ports.map { EtcdEndpoint(host: host, port: $0) }, prefix: "/test", name: name, seed: 3),
        loop: loop)
    }
  }

  /// Commits once, so that the store is in touch for certain.
  /// - Returns: the revision.
  private func settle(_ run: StoreRun) throws -> UInt64 {
    guard case .committed(let revision) = try run.commit(0, [0], "first") else {
      Issue.record("no first commit\n\(run.text)")
      return 0
    }
    return revision
  }

  /// The commit goes in and its reply never comes: it is found by its id, and is there once.
  @Test func aLostReplyIsFoundAgain() throws {
    let proxy = try Relay(to: etcd.port, seed: 1)
    let one = run("one", [proxy.port])
    let epoch = try one.waitDriving().epoch
    let witness = run("witness", [etcd.port])
    _ = try witness.waitState(0)
    var revision = try settle(one)
    for number in 1...5 {
      let start = one.journal.all.count
      proxy.change { $0.isCutIn = true }
      let pending = try one.begin(revision, [UInt8(number)], "\(number)", as: .driver(epoch: epoch))
      let seen = try witness.waitState(revision + 1)
      #expect(seen.state.bytes == [UInt8(number)] && pending.all.isEmpty)
      if number == 5 {
        // And somebody else goes on from it before we ask.
        guard case .committed = try witness.commit(seen.state.revision, [99], "witness") else {
          Issue.record("the witness cannot commit")
          return
        }
      }
      // Only when the connection is gone may replies pass again: this one might still be on its way.
      proxy.reset()
      try one.wait(from: start, "away") { if case .away = $0 { true } else { false } }
      proxy.change { $0 = LinkWeather() }
      let outcome = try #require(pending.wait { $0 }, "\(one.text)").value
      #expect(outcome == .committed(revision: seen.state.revision))
      revision = seen.state.revision
    }
    #expect(try one.history(from: 1) == ["first", "1", "2", "3", "4", "5", "witness"])
    try one.stop()
    try witness.stop()
    proxy.close()
  }

  /// The request never arrives: it is made again, and goes in once.
  @Test func aLostRequestIsMadeAgain() throws {
    let proxy = try Relay(to: etcd.port, seed: 1)
    let one = run("one", [proxy.port])
    let first = try settle(one)
    proxy.change { ($0.isCutOut, $0.isCutIn) = (true, true) }
    let pending = try one.begin(first, [1], "a")
    // Our own time limit drops the connection.
    try one.wait("away") { if case .away = $0 { true } else { false } }
    #expect(pending.all.isEmpty)
    proxy.change { $0 = LinkWeather() }
    guard case .committed = try #require(pending.wait { $0 }, "\(one.text)").value else {
      Issue.record("\(pending.all)")
      return
    }
    #expect(try one.history(from: 1) == ["first", "a"])
    try one.stop()
    proxy.close()
  }

  /// While somebody else was first, what was lost on the way says so, and stays out.
  @Test func aLostRequestThatCameTooLateIsAConflict() throws {
    let proxy = try Relay(to: etcd.port, seed: 1)
    let one = run("one", [proxy.port])
    _ = try one.waitDriving()
    let other = run("other", [etcd.port])
    _ = try other.waitState(0)
    try other.wait("notDriving") { $0 == .notDriving(driver: "one") }
    let first = try settle(one)
    _ = try other.waitState(first)
    proxy.change { ($0.isCutOut, $0.isCutIn) = (true, true) }
    let pending = try one.begin(first, [1], "a")
    guard case .committed(let revision) = try other.commit(first, [2], "b") else {
      Issue.record("the other cannot commit\n\(other.text)")
      return
    }
    proxy.change { $0 = LinkWeather() }
    proxy.reset()
    let current = StoredState(revision: revision, sequence: 2, bytes: [2])
    #expect(try #require(pending.wait { $0 }, "\(one.text)").value == .conflict(current: current))
    #expect(try one.history(from: 2) == ["b"])
    try one.stop()
    try other.stop()
    proxy.close()
  }

  /// Whether it went in cannot be learnt in time, and that is what is said.
  @Test func aCommitThatCannotBeAskedAboutIsUnknown() throws {
    let proxy = try Relay(to: etcd.port, seed: 1)
    let one = run("one", [proxy.port])
    let first = try settle(one)
    proxy.change { $0.isCutIn = true }
    let pending = try one.begin(first, [1], "a")
    guard case .unknown(let why) = try #require(pending.wait { $0 }).value else {
      Issue.record("\(pending.all)")
      return
    }
    #expect(why.hasPrefix("127.0.0.1:\(proxy.port): "), "\(why)")
    proxy.change { $0 = LinkWeather() }
    // The next state tells.
    #expect(try one.waitState(first + 1).state.bytes == [1])
    try one.stop()
    proxy.close()
  }

  /// The one that is cut off stops before the other starts, and its last commit is refused.
  @Test func aDriverThatIsCutOffStopsFirst() throws {
    let proxy = try Relay(to: etcd.port, seed: 1)
    let one = run("one", [proxy.port])
    let first = try one.waitDriving()
    let two = run("two", [etcd.port])
    try two.wait("notDriving") { $0 == .notDriving(driver: "one") }
    let base = try settle(one)
    _ = try two.waitState(base)
    let start = one.journal.all.count
    proxy.change { ($0.isCutOut, $0.isCutIn) = (true, true) }
    let silentAt = EventLoop.clock()
    let late = try one.begin(base, [1], "late", as: .driver(epoch: first.epoch))
    let second = try two.waitDriving()
    let lost = try one.wait(from: start, "notDriving") { $0 == .notDriving(driver: nil) }
    let lostAt = one.journal.all[lost - 1].at
    print(
      "cut off: it stops after \((lostAt - silentAt).milliseconds) ms, "
        + "the other drives after \((second.at - silentAt).milliseconds) ms")
    #expect(lostAt < second.at && second.epoch > first.epoch)
    proxy.change { $0 = LinkWeather() }
    let back = try one.wait(from: start, "back") { $0 == .back }
    #expect(one.journal.all[start..<back].contains { $0.event == .notDriving(driver: "two") })
    // Nobody has changed the state: it is who drives that keeps the late commit out.
    let outcome = try #require(late.wait { $0 }).value
    switch outcome {
    case .notDriving, .unknown: break
    default: Issue.record("\(outcome)")
    }
    guard case .committed = try two.commit(base, [2], "two", as: .driver(epoch: second.epoch)) else {
      Issue.record("the new driver cannot commit")
      return
    }
    #expect(try one.history(from: 2) == ["two"])
    try one.stop()
    try two.stop()
    proxy.close()
  }

  /// A dead endpoint and one that never says anything come before the one that works.
  @Test func theNextEndpointIsTried() throws {
    let (dead, silent) = (try Relay(to: etcd.port, seed: 1), try Relay(to: etcd.port, seed: 1))
    dead.close()
    silent.change { ($0.isCutOut, $0.isCutIn) = (true, true) }
    let one = run("one", [dead.port, silent.port, etcd.port])
    _ = try one.waitDriving()
    let why = one.journal.all.compactMap { told in
      if case .away(_, let why) = told.event { why } else { nil }
    }
    #expect(why.count == 1 && why[0].hasPrefix("127.0.0.1:\(dead.port): "), "\(why)")
    guard case .committed = try one.commit(0, [1], "a") else {
      Issue.record("no commit")
      return
    }
    try one.stop()
    silent.close()
  }

  @Test func aNameIsLookedUpAndEachOfItsAddressesTried() throws {
    let asked = Journal<String>()
    let port = etcd.port
    let one = StoreRun { loop in
      let store = EtcdStateStore(
        EtcdStateStore.Options(
          endpoints: [EtcdEndpoint(host: "etcd.example", port: port)], prefix: "/test", name: "one", seed: 3),
        loop: loop)
      store.link.lookUp = { host in
        asked.append(host)
        return asked.all.count == 1
          ? .failure(HostLookup.LookupError(description: "nobody")) : .success(["::1", "127.0.0.1"])
      }
      return store
    }
    _ = try one.waitDriving()
    #expect(Set(asked.all) == ["etcd.example"])
    try one.wait("away") { if case .away(_, let why) = $0 { why == "etcd.example:\(port): nobody" } else { false } }
    try one.stop()
    // The system's own: a name that every machine has.
    #expect(try HostLookup.addresses(of: "localhost").get().contains { $0 == "127.0.0.1" || $0 == "::1" })
    #expect(HostLookup.isNumeric("::1") && HostLookup.isNumeric("10.0.0.1") && !HostLookup.isNumeric("etcd-0"))
  }

  /// What a compacted watch missed is read.
  @Test func aWatchThatIsEndedIsMadeAgainFromWhatIsRead() throws {
    let one = run("one", [etcd.port])
    _ = try one.waitDriving()
    let start = one.journal.all.count
    var ended = Etcd.WatchReply()
    ended.isCanceled = true
    ended.compactRevision = 7
    let reply = ended
    one.loop.execute { (one.store as? EtcdStateStore)?.watched(reply) }
    let away = try one.wait(from: start, "away") {
      if case .away(_, let why) = $0 { why.hasSuffix("revision 7 is compacted") } else { false }
    }
    try one.wait(from: away, "back") { $0 == .back }
    let other = run("other", [etcd.port])
    try other.wait("notDriving") { $0 == .notDriving(driver: "one") }
    guard case .committed(let revision) = try other.commit(0, [5], "x") else {
      Issue.record("no commit")
      return
    }
    #expect(try one.waitState(revision).state.bytes == [5])
    try one.stop()
    try other.stop()
  }
}
