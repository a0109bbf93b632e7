import Membership
import RankingCore
import Testing

// How workers become known and are forgotten: joins, departures, DNS.

/// Several workers by address. Those that `answering` names are reachable and answer probes as the worker named there.
struct ArrivalScript {
  var membership: Membership
  var now = Instant(nanoseconds: 5_000_000_000)
  /// By address: the process that listens there.
  var answering: [String: (name: String, incarnation: UInt64)] = [:]
  var log: [String] = []
  private var addresses: [WorkerID: String] = [:]

  init(policy: MembershipPolicy = MembershipPolicy()) { membership = Membership(policy: policy, seed: 7) }

  mutating func take(_ effects: [Membership.Effect]) {
    for effect in effects {
      switch effect {
      case .probe(let worker, let token, _):
        guard let address = addresses[worker], let process = answering[address] else { continue }
        var effects: [Membership.Effect] = []
        let status = WorkerStatus(name: process.name, incarnation: process.incarnation)
        membership.probeAnswered(worker, token: token, status: status, now: now, into: &effects)
        take(effects)
      case .connect(let worker, let address):
        log.append("connect \(worker.rawValue) \(address)")
        addresses[worker] = address
        if answering[address] != nil { link(worker) }
      case .disconnect(let worker):
        log.append("disconnect \(worker.rawValue)")
        addresses[worker] = nil
        unlink(worker)
      case .changed: break
      case .renewed(let worker): log.append("renewed \(worker.rawValue)")
      }
    }
  }
  private mutating func run(_ body: (inout Membership, inout [Membership.Effect]) -> Void) {
    var effects: [Membership.Effect] = []
    body(&membership, &effects)
    take(effects)
  }
  mutating func link(_ worker: WorkerID) { run { [now] in $0.linked(worker, now: now, into: &$1) } }
  mutating func unlink(_ worker: WorkerID) { run { [now] in $0.unlinked(worker, now: now, into: &$1) } }
  mutating func join(_ name: String, _ incarnation: UInt64, _ address: String) -> JoinOutcome {
    var outcome = JoinOutcome.accepted
    run { [now] in
      outcome = $0.joined(
        JoinRequest(name: name, incarnation: incarnation, address: address), now: now, into: &$1)
    }
    return outcome
  }
  mutating func resolve(_ addresses: [String], source: String = "workers.example") {
    run { [now] in $0.resolved(source: source, addresses: addresses, now: now, into: &$1) }
  }
  /// The process at this address ends.
  mutating func kill(_ address: String) {
    answering[address] = nil
    for (worker, at) in addresses.sorted(by: { $0.key < $1.key }) where at == address { unlink(worker) }
  }
  mutating func pass(_ duration: Duration) {
    let end = now + duration
    while let due = membership.due, due <= end {
      now = max(now, due)
      run { [now] in $0.tick(now: now, into: &$1) }
    }
    now = end
  }
  var states: [String] { membership.members.map { "\($0.name) \($0.state)" } }
  var used: [String] { membership.members.filter(\.isUsable).map(\.name) }
}

@Suite struct ArrivalTests {
  @Test func aWorkerJoinsAndServesAfterTwoAnswers() {
    var script = ArrivalScript()
    script.answering["a:1"] = ("w1", 1)
    #expect(script.join("w1", 1, "a:1") == .accepted)
    #expect(script.log == ["connect 0 a:1", "renewed 0"])
    script.pass(.milliseconds(120))
    #expect(script.used == ["w1"])
    #expect(script.join("w1", 1, "a:1") == .accepted)
    #expect(script.log.count == 2, "saying it again changes nothing")
  }

  @Test func aNewProcessAtAnotherAddressReplacesTheOldOneOnceThatIsNotUsed() {
    var script = ArrivalScript()
    script.answering["a:1"] = ("w1", 1)
    _ = script.join("w1", 1, "a:1")
    script.pass(.milliseconds(120))
    script.answering["b:1"] = ("w1", 2)
    #expect(
      script.join("w1", 2, "b:1")
        == .refused("a worker named \"w1\" is alive at a:1; names must differ within a cluster"))
    #expect(script.used == ["w1"])
    script.kill("a:1")
    script.log = []
    #expect(script.join("w1", 2, "b:1") == .accepted)
    #expect(script.log == ["disconnect 0", "connect 0 b:1", "renewed 0"])
    script.pass(.milliseconds(120))
    #expect(script.membership.members.count == 1)
    #expect(script.membership.members[0].status?.incarnation == 2)
    #expect(script.used == ["w1"])
  }

  @Test func theSameProcessMayMoveWhileItIsAlive() {
    var script = ArrivalScript()
    script.answering["a:1"] = ("w1", 1)
    _ = script.join("w1", 1, "a:1")
    script.pass(.milliseconds(120))
    script.answering["b:1"] = ("w1", 1)
    #expect(script.join("w1", 1, "b:1") == .accepted)
    #expect(script.membership.members[0].address == "b:1")
  }

  @Test func aJoinedWorkerThatIsGoneIsNotConnectedToUntilItJoinsAgain() {
    var script = ArrivalScript()
    script.answering["a:1"] = ("w1", 1)
    _ = script.join("w1", 1, "a:1")
    script.pass(.milliseconds(120))
    script.kill("a:1")
    script.log = []
    script.pass(.milliseconds(29_900))
    #expect(script.log == [])
    script.pass(.milliseconds(100))
    #expect(script.log == ["disconnect 0"])
    #expect(script.states == ["w1 gone"])
    script.answering["a:1"] = ("w1", 2)
    #expect(script.join("w1", 2, "a:1") == .accepted)
    script.pass(.milliseconds(120))
    #expect(script.used == ["w1"])
  }

  @Test func aJoinedWorkerThatCannotBeReachedIsGivenUpAfterThirtySeconds() {
    var script = ArrivalScript()
    _ = script.join("w1", 1, "a:1")
    for _ in 0..<29 {
      script.unlink(WorkerID(0))
      script.pass(.seconds(1))
    }
    #expect(script.states == ["w1 joining"])
    script.pass(.seconds(2))
    #expect(script.states == ["w1 gone"])
    #expect(script.log.last == "disconnect 0")
  }

  @Test func aNumberIsGivenToAnotherTwoMinutesLater() {
    var script = ArrivalScript()
    script.answering["a:1"] = ("w1", 1)
    _ = script.join("w1", 1, "a:1")
    script.pass(.milliseconds(120))
    script.kill("a:1")
    script.pass(.milliseconds(119_999))
    _ = script.join("w2", 1, "b:1")
    #expect(script.states == ["w1 gone", "w2 joining"])
    script.pass(.milliseconds(1))
    script.log = []
    _ = script.join("w3", 1, "c:1")
    #expect(script.membership.members.map(\.name) == ["w3", "w2"])
    #expect(script.log == ["renewed 0", "connect 0 c:1"])
    script.answering["a:1"] = ("w1", 3)
    #expect(script.join("w1", 3, "a:1") == .accepted, "the name is free again")
    #expect(script.membership.members.map(\.name) == ["w3", "w2", "w1"])
  }

  @Test func aConfiguredWorkersNumberIsKeptForIt() {
    var script = ArrivalScript()
    let now = script.now
    var effects: [Membership.Effect] = []
    _ = script.membership.configured(name: "w1", address: "a:1", now: now, into: &effects)
    script.link(WorkerID(0))
    script.pass(.milliseconds(200))
    script.unlink(WorkerID(0))
    script.pass(.seconds(600))
    _ = script.join("w2", 1, "b:1")
    #expect(script.membership.members.map(\.name) == ["w1", "w2"])
  }

  @Test func moreThanTheMostAreRefused() {
    var policy = MembershipPolicy()
    policy.membersMax = 2
    var script = ArrivalScript(policy: policy)
    #expect(script.join("w1", 1, "a:1") == .accepted)
    #expect(script.join("w2", 1, "b:1") == .accepted)
    #expect(script.join("w3", 1, "c:1") == .refused("2 workers are known, the most one coordinator takes"))
    script.resolve(["d:1"])
    #expect(script.membership.members.count == 2)
    #expect(MembershipPolicy().membersMax == 4096)
  }

  @Test func addressesOfANameComeAndGo() {
    var script = ArrivalScript()
    script.answering = ["a:1": ("w1", 1), "b:1": ("w2", 1), "c:1": ("w3", 1)]
    script.resolve(["a:1", "b:1"])
    script.pass(.milliseconds(120))
    #expect(script.used == ["a:1", "b:1"])
    script.resolve([])
    #expect(script.used == ["a:1", "b:1"], "no address at all is the resolver's failure")
    script.log = []
    script.resolve(["b:1", "c:1"])
    script.pass(.milliseconds(120))
    #expect(script.used == ["a:1", "b:1", "c:1"], "one that still answers is kept")
    #expect(script.log == ["connect 2 c:1", "renewed 2"])
    script.kill("a:1")
    #expect(script.states[0] == "a:1 gone", "no longer listed, and it does not answer")
    #expect(script.log.last == "disconnect 0")
    script.kill("b:1")
    #expect(script.states[1] == "b:1 down", "one that is listed may come back")
    script.answering["a:1"] = ("w1", 2)
    script.resolve(["a:1", "b:1", "c:1"])
    script.pass(.milliseconds(120))
    #expect(script.used == ["a:1", "c:1"])
  }

  @Test func oneThatIsListedAgainInTimeIsNotGivenUpWhenItsLinkEnds() {
    var script = ArrivalScript()
    script.answering = ["a:1": ("w1", 1), "b:1": ("w2", 1)]
    script.resolve(["a:1", "b:1"])
    script.pass(.milliseconds(120))
    script.resolve(["b:1"])
    script.resolve(["a:1", "b:1"])
    script.kill("a:1")
    #expect(script.states[0] == "a:1 down")
    script.resolve([])
    script.kill("b:1")
    #expect(script.states[1] == "b:1 down", "no address at all is no news of it")
  }

  /// One process, found by DNS and then joined.
  static func knownTwice() -> ArrivalScript {
    var script = ArrivalScript()
    script.answering["a:1"] = ("w1", 1)
    script.resolve(["a:1"])
    script.pass(.milliseconds(400))
    _ = script.join("w1", 1, "a:1")
    script.pass(.milliseconds(400))
    return script
  }

  @Test func aProcessKnownByNameAndByDNSIsUsedOnce() {
    var script = Self.knownTwice()
    #expect(script.states == ["a:1 alive", "w1 alive"])
    #expect(script.used == ["a:1"])
    script.unlink(WorkerID(0))
    script.pass(.milliseconds(400))
    #expect(script.used == ["w1"], "the other way to it is used when the first is lost")
  }

  @Test func leavingIsOnlyBelievedOfTheSameProcess() {
    var script = ArrivalScript()
    script.answering["a:1"] = ("w1", 1)
    _ = script.join("w1", 1, "a:1")
    script.pass(.milliseconds(400))
    var effects: [Membership.Effect] = []
    _ = script.membership.leaving(LeaveRequest(name: "w1", incarnation: 2), into: &effects)
    #expect(!script.membership.members[0].isDraining)
    _ = script.membership.leaving(LeaveRequest(name: "w1", incarnation: 1), into: &effects)
    #expect(script.membership.members[0].isDraining && script.membership.members[0].isUsable)
    script.kill("a:1")
    script.answering["a:1"] = ("w1", 2)
    script.link(WorkerID(0))
    script.pass(.milliseconds(400))
    #expect(!script.membership.members[0].isDraining, "the next process of the name stays")
  }

  @Test func leavingMarksEveryWayToTheProcess() {
    var script = Self.knownTwice()
    var effects: [Membership.Effect] = []
    _ = script.membership.leaving(LeaveRequest(name: "w1", incarnation: 1), into: &effects)
    #expect(script.membership.members.allSatisfy { $0.isDraining })
  }
}
