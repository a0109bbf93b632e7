import RankingCore
import Testing

@testable import Membership

// Failure detection, one worker and a script: when it is asked, what silence and answers make of it.

/// A worker that answers every probe after `delay`, or not at all.
struct ProbeScript {
  var membership: Membership
  var now = Instant(nanoseconds: 5_000_000_000)
  let worker: WorkerID
  var delay: Duration? = .milliseconds(1)
  var status = WorkerStatus(name: "w1", incarnation: 1)
  var probes: [(token: UInt64, at: Instant)] = []
  var changes = 0
  private var answers: [(token: UInt64, at: Instant)] = []

  init(policy: MembershipPolicy = MembershipPolicy(), seed: UInt64 = 1) {
    membership = Membership(policy: policy, seed: seed)
    worker = membership.add(name: "w1", now: now)
  }
  var state: MemberState { membership.members[0].state }

  mutating func take(_ effects: [Membership.Effect]) {
    for effect in effects {
      switch effect {
      case .probe(_, let token, _):
        probes.append((token, now))
        if let delay { answers.append((token, now + delay)) }
      case .changed: changes += 1
      case .connect, .disconnect, .renewed: break
      }
    }
  }
  mutating func link() {
    var effects: [Membership.Effect] = []
    membership.linked(worker, now: now, into: &effects)
    take(effects)
  }
  mutating func unlink() {
    var effects: [Membership.Effect] = []
    membership.unlinked(worker, now: now, into: &effects)
    take(effects)
  }
  mutating func tick() {
    var effects: [Membership.Effect] = []
    membership.tick(now: now, into: &effects)
    take(effects)
  }
  mutating func fail(_ token: UInt64) {
    var effects: [Membership.Effect] = []
    membership.probeFailed(worker, token: token, now: now, into: &effects)
    take(effects)
  }
  mutating func traffic(sentAt: Instant) {
    var effects: [Membership.Effect] = []
    membership.trafficAnswered(worker, sentAt: sentAt, now: now, into: &effects)
    take(effects)
  }
  mutating func pass(_ duration: Duration) {
    let end = now + duration
    while true {
      let first = answers.indices.min { answers[$0].at < answers[$1].at }
      if let first, answers[first].at <= end, membership.due.map({ answers[first].at <= $0 }) ?? true {
        let answer = answers.remove(at: first)
        now = max(now, answer.at)
        var effects: [Membership.Effect] = []
        membership.probeAnswered(worker, token: answer.token, status: status, now: now, into: &effects)
        take(effects)
      } else if let due = membership.due, due <= end {
        now = max(now, due)
        tick()
      } else {
        break
      }
    }
    now = end
  }
  /// Lets time pass until the state is this one.
  mutating func wait(for wanted: MemberState, atMost limit: Duration = .seconds(60)) -> Duration {
    let start = now
    while state != wanted, now - start < limit { pass(.milliseconds(1)) }
    return now - start
  }
  /// The time between one probe and the next, in milliseconds.
  var intervals: [Double] { zip(probes.dropFirst(), probes).map { ($0.at - $1.at).milliseconds } }
  static func alive(seed: UInt64 = 1) -> ProbeScript {
    var script = ProbeScript(seed: seed)
    script.link()
    script.pass(.seconds(1))
    script.probes = []
    return script
  }
}

@Suite struct ProbeTests {
  @Test func anAliveWorkerIsAskedEvery300MillisecondsSpreadBy10Percent() {
    var script = ProbeScript.alive()
    script.pass(.seconds(120))
    let intervals = script.intervals
    #expect(intervals.allSatisfy { 270...330 ~= $0 })
    #expect(intervals.min()! < 275 && intervals.max()! > 325, "the whole spread is used")
    #expect(abs(intervals.reduce(0, +) / Double(intervals.count) - 300) < 5)
  }

  @Test func itIsAliveAfterTwoAnswers100MillisecondsApart() {
    var script = ProbeScript()
    script.link()
    script.pass(.milliseconds(1))
    #expect(script.state == .joining, "one answer is not enough")
    script.pass(.milliseconds(85))
    #expect(script.state == .joining)
    script.pass(.milliseconds(30))
    #expect(script.state == .alive)
    #expect(script.probes.count == 2)
    #expect(90...110 ~= script.intervals[0])
  }

  @Test func anAnswerCountsUntil300MillisecondsAndNotAfter() {
    for (delay, expected) in [(299, MemberState.alive), (301, .joining)] {
      var script = ProbeScript()
      script.delay = .milliseconds(delay)
      script.link()
      script.pass(.seconds(5))
      #expect(script.state == expected, "answers after \(delay) ms")
    }
  }

  @Test func threeMissesMakeItDownAndTwoDoNot() {
    var script = ProbeScript.alive()
    script.delay = nil
    while script.probes.isEmpty { script.pass(.milliseconds(1)) }
    let sent = script.probes[0].at
    script.pass(sent + .milliseconds(299) - script.now)
    #expect(script.state == .alive)
    script.pass(.milliseconds(1))
    #expect(script.state == .suspect, "the first miss, 300 ms after the probe")
    #expect(script.membership.members[0].isUsable, "a suspect is still used")
    // Asked at once, and every 100 ms from now on: the second miss comes 300 ms after the question at 300 ms (or with
    // the regular one before it), the third 100 ms later.
    let down = script.wait(for: .down)
    #expect(down >= .milliseconds(300) && down <= .milliseconds(411), "\(down)")
    #expect(script.probes.contains { $0.at == sent + .milliseconds(300) })
    #expect(!script.membership.members[0].isUsable)
  }

  @Test func anAnswerBetweenMissesStartsTheCountAgain() {
    var script = ProbeScript.alive()
    for _ in 0..<3 {
      script.delay = nil
      _ = script.wait(for: .suspect)
      script.pass(.milliseconds(250))
      #expect(script.state == .suspect)
      script.delay = .milliseconds(1)
      script.pass(.milliseconds(112))
      #expect(script.state == .alive)
      script.pass(.seconds(1))
      #expect(script.state == .alive)
    }
  }

  @Test func probesGoOutOnScheduleWhateverIsOutstanding() {
    var script = ProbeScript.alive()
    script.delay = nil
    _ = script.wait(for: .suspect)
    script.probes = []
    script.pass(.milliseconds(290))
    #expect(script.probes.count >= 2, "no answer is waited for: \(script.intervals)")
    #expect(script.intervals.allSatisfy { 90...110 ~= $0 })
  }

  @Test func aDownWorkerIsAskedEverySecond() {
    var script = ProbeScript.alive()
    script.delay = nil
    _ = script.wait(for: .down)
    script.pass(.seconds(1))
    script.probes = []
    script.pass(.seconds(25))
    #expect(script.intervals.allSatisfy { 900...1100 ~= $0 }, "\(script.intervals)")
    #expect(script.probes.count >= 22)
  }

  @Test func afterOneAnswerTheSecondQuestionFollowsWithin110Milliseconds() {
    var script = ProbeScript.alive()
    script.delay = nil
    _ = script.wait(for: .down)
    script.pass(.seconds(3))
    script.delay = .milliseconds(1)
    script.probes = []
    let back = script.wait(for: .alive)
    #expect(back <= .milliseconds(1100 + 112))
    #expect(script.probes.count == 2 && script.intervals[0] <= 111)
  }

  @Test func anErrorIsAMissAtOnce() {
    var script = ProbeScript.alive()
    script.delay = nil
    while script.probes.isEmpty { script.pass(.milliseconds(1)) }
    script.fail(script.probes[0].token)
    #expect(script.state == .suspect)
    #expect(script.probes.count == 2, "the next one went out at once")
    script.fail(script.probes[0].token)
    #expect(script.state == .suspect, "an answer to a closed question says nothing")
    script.fail(script.probes[1].token)
    script.pass(.milliseconds(110))
    script.fail(script.probes[2].token)
    #expect(script.state == .down)
  }

  @Test func trafficCountsWhenItWasSentAfterTheLastMiss() {
    var script = ProbeScript.alive()
    script.delay = nil
    _ = script.wait(for: .suspect)
    let miss = script.membership.members[0].lastMiss
    script.pass(.milliseconds(50))
    script.traffic(sentAt: miss + .milliseconds(-1))
    #expect(script.state == .suspect, "may have been answered before the freeze")
    script.traffic(sentAt: miss)
    #expect(script.state == .suspect)
    script.traffic(sentAt: miss + .nanoseconds(1))
    #expect(script.state == .alive)
  }

  @Test func aWorkerThatAnswersTrafficButNoProbeStaysUsed() {
    var script = ProbeScript.alive()
    script.delay = nil
    for _ in 0..<300 {
      script.pass(.milliseconds(20))
      script.traffic(sentAt: script.now + .milliseconds(-10))
      #expect(script.state != .down)
    }
  }

  @Test func trafficDoesNotBringBackWhoIsDown() {
    var script = ProbeScript.alive()
    script.delay = nil
    _ = script.wait(for: .down)
    script.pass(.milliseconds(10))
    script.traffic(sentAt: script.now)
    #expect(script.state == .down, "two answered probes do")
  }

  @Test func aScoringJobOlderThanASecondMeansNotReady() {
    for (age, ready) in [(1000, 1), (1001, 0)] {
      var script = ProbeScript.alive()
      script.status.holdings = [.init(release: ClusterScript.release, shardCount: 1, ready: [ShardID(0)])]
      script.status.oldestJob = .milliseconds(age)
      script.pass(.milliseconds(400))
      #expect(script.membership.members[0].status?.holdings[0].ready.count == ready, "\(age) ms")
      #expect(script.state == .alive, "its loop answers")
    }
  }

  @Test func itIsGoneAfterThirtySecondsDownAndMayComeBack() {
    var script = ProbeScript.alive()
    script.unlink()
    #expect(script.state == .down, "a lost link is acted on at once")
    script.pass(.milliseconds(29_999))
    #expect(script.state == .down)
    script.pass(.milliseconds(1))
    #expect(script.state == .gone)
    script.link()
    script.pass(.milliseconds(2))
    #expect(script.state == .gone, "one answer is not enough")
    script.pass(.milliseconds(112))
    #expect(script.state == .alive)
  }

  @Test func aFrozenWorkerIsGoneThirtySecondsAfterItWasDown() {
    var script = ProbeScript.alive()
    script.delay = nil
    _ = script.wait(for: .down)
    let gone = script.wait(for: .gone)
    #expect(gone >= .milliseconds(29_999) && gone <= .milliseconds(30_001), "\(gone)")
  }

  @Test func answersOfALostLinkAreNotBelieved() {
    var script = ProbeScript.alive()
    script.delay = .milliseconds(200)
    script.probes = []
    while script.probes.isEmpty { script.pass(.milliseconds(1)) }
    script.unlink()
    script.pass(.milliseconds(250))
    #expect(script.state == .down)
  }

  /// A coordinator that was stopped itself finds its probes expired: that alone brings nobody down.
  @Test(arguments: [500, 1000, 10_000, 100_000])
  func aPauseOfTheCoordinatorItselfBringsNobodyDown(milliseconds: Int) {
    var script = ProbeScript.alive()
    script.pass(.milliseconds(777))
    script.now = script.now + .milliseconds(milliseconds)
    script.tick()
    #expect(script.state != .down)
    script.pass(.milliseconds(120))
    #expect(script.state == .alive)
  }
}
