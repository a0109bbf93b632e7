import RankingCore
import Testing

@testable import Nodes

// How much a worker takes in, whose orders it obeys, and how it leaves.

@Suite struct WorkerAdmissionTests {
  static let release = ModelVersion(model: "home", version: "v1")

  struct Script {
    var node: WorkerNode
    var now = Instant(nanoseconds: 1_000_000_000)
    var effects: [WorkerEffect] = []
    init(running: Int = 1, cores: Int = 2, shards: Int = 4, bytes: UInt64 = 100) {
      var settings = WorkerSettings(name: "w1", incarnation: 7)
      settings.address = "w1:1"
      node = WorkerNode(settings: settings, policy: WorkerPolicy(running: running, cores: cores))
      for shard in 0..<shards { send(.loaded(release, shardCount: shards, ShardID(shard), bytes: bytes)) }
    }
    mutating func send(_ event: WorkerEvent) {
      effects = []
      node.handle(event, now: now, into: &effects)
    }
    mutating func score(
      _ call: CallToken, shards: Int = 1, mode: ScoreMode = .retrieve, within: Duration = .milliseconds(500)
    ) {
      let query = ScoreQuery(release: release, mode: mode, vector: [1], k: 1, candidates: 1)
      let tasks = (0..<shards).map { ShardTask(shard: ShardID($0)) }
      send(.scoreRequested(call, ScoreRequest(query: query, tasks: tasks), deadline: now + within))
    }
    mutating func finish(_ call: CallToken) {
      send(.scored(call, .success(ScoreReply(release: release, shards: [], items: ScoredList()))))
    }
    /// The calls of each job that began.
    var runs: [[CallToken]] {
      effects.compactMap { if case .run(let runs, _, _) = $0 { runs.map(\.call) } else { nil } }
    }
    var threads: [Int] { effects.compactMap { if case .run(_, _, let threads) = $0 { threads } else { nil } } }
    var expected: Duration? {
      for case .run(_, let expected, _) in effects { return expected }
      return nil
    }
    var refusal: CallFailure? {
      for case .replyScore(_, .failure(let failure)) in effects { return failure }
      return nil
    }
    /// Scores one leg alone, so that the worker learns what a shard costs.
    mutating func learn(_ perShard: Duration, legs: Int = 60) {
      for call in 0..<CallToken(legs) {
        score(9_000_000 + call)
        now = now + perShard
        finish(9_000_000 + call)
      }
    }
  }

  @Test func atMostThirtyTwoWait() {
    var script = Script(running: 2)
    for call in 1...34 as ClosedRange<CallToken> {
      script.score(call)
      #expect(script.refusal == nil, "\(call)")
    }
    script.score(35)
    #expect(script.refusal == .overloaded)
    #expect(script.node.status(now: script.now).queued == 32)
  }

  @Test func nobodyWaitsLongerThanAFifthOfItsTime() {
    // A shard takes 10 ms; with 500 ms left at most 100 ms may be waited: ten shards, half a leg of which is running.
    var script = Script()
    script.learn(.milliseconds(10))
    var taken = 0
    for call in 1...40 as ClosedRange<CallToken> {
      script.score(call)
      if script.refusal == nil { taken += 1 }
    }
    #expect(taken == 11, "one runs, then 0.5 + 9 shards wait: 95 ms; one more would be 105")
    script.score(99, within: .milliseconds(1000))
    #expect(script.refusal == nil, "with more time more may be waited")
  }

  @Test func anIdleWorkerTakesWhatHasLittleTime() {
    var script = Script()
    script.learn(.milliseconds(10))
    script.score(1, within: .milliseconds(1))
    #expect(script.refusal == nil)
    script.score(2, within: .milliseconds(20))
    #expect(script.refusal == .overloaded, "5 ms of waiting are more than a fifth of 20 ms")
    script.score(3, within: .milliseconds(30))
    #expect(script.refusal == nil)
  }

  @Test func theEstimateCountsShardsAndThreads() {
    for (running, shards, expected) in [(1, 4, 4), (2, 4, 6), (1, 1, 11)] {
      var script = Script(running: running)
      script.learn(.milliseconds(10))
      var taken = 0
      for call in 1...40 as ClosedRange<CallToken> {
        script.score(call, shards: shards)
        if script.refusal == nil { taken += 1 }
      }
      #expect(taken == expected, "\(running) threads, legs of \(shards) shards")
    }
  }

  @Test func legsThatWaitOnLargeSlicesAreScoredTogether() {
    var script = Script(bytes: 2 << 20)
    for call in 1...40 as ClosedRange<CallToken> { script.score(call, shards: call % 2 == 0 ? 2 : 3) }
    #expect(script.runs == [], "the first runs, the others wait or were refused")
    script.finish(1)
    #expect(script.runs == [Array(2...33)], "32 at once, in order")
    #expect(script.node.status(now: script.now).running == 32)
    #expect(script.node.status(now: script.now).queued == 0)
    for call in 2...32 as ClosedRange<CallToken> {
      script.finish(call)
      #expect(script.runs == [])
    }
    script.score(90)
    #expect(script.runs == [], "the thread is free when the last of them has ended")
    script.finish(33)
    #expect(script.runs == [[90]])
    #expect(script.node.counters.together == 32)
  }

  @Test func onlyWhatSharesEnoughGoesTogether() {
    var script = Script(bytes: 2 << 20)
    script.score(1, shards: 4)
    script.score(2, shards: 2)
    script.score(3, shards: 1)
    script.score(4, shards: 4)
    script.score(5, shards: 4, mode: .rank)
    script.score(6, shards: 4)
    script.finish(1)
    #expect(script.runs == [[2, 4, 6]], "3 shares one slice of 2 MiB, and 5 scans nothing")
    var small = Script(bytes: 100)
    for call in 1...3 as ClosedRange<CallToken> { small.score(call, shards: 4) }
    small.finish(1)
    #expect(small.runs == [[2]])
  }

  @Test func whatWaitsIsSharedAmongTheThreadsThatAreIdle() {
    var script = Script(running: 2, bytes: 8 << 20)
    script.score(1)
    script.score(2)
    for call in 3...8 as ClosedRange<CallToken> { script.score(call) }
    script.finish(1)
    #expect(script.runs == [[3, 4, 5, 6, 7, 8]], "one thread is idle")
  }

  @Test func aLargeLegUsesTheThreadsOfAnIdleWorker() throws {
    var script = Script(running: 2)
    script.learn(.milliseconds(10))
    script.score(1, shards: 4)
    #expect(script.threads == [2])
    script.score(2, shards: 4)
    script.score(3, shards: 4)
    #expect(script.runs == [], "both threads are busy")
    script.finish(1)
    #expect(script.runs == [[2], [3]])
    #expect(script.threads == [1, 1], "two wait: nobody takes both")
    script.finish(2)
    script.score(4, shards: 4)
    #expect(script.threads == [1], "one runs")
    script.finish(3)
    script.finish(4)
    script.score(5, shards: 1)
    #expect(script.threads == [1], "one shard is not divided")
    #expect(script.node.counters.split == 1)
    var quick = Script(running: 2)
    quick.learn(.microseconds(70))
    quick.score(1, shards: 4)
    #expect(quick.threads == [1], "280 us are not worth it")
    // What a shard costs is counted in time of threads: a split leg teaches the same as one that was not.
    for call in 2...200 as ClosedRange<CallToken> {
      if call == 2 { quick.finish(1) }
      quick.score(call, shards: 4)
      quick.now = quick.now + .microseconds(400) / quick.threads[0]
      quick.finish(call)
    }
    quick.score(300, shards: 4)
    #expect(quick.threads == [2])
    let error = try #require(quick.expected) - .microseconds(200)
    #expect(abs(error.nanoseconds) < 100, "4 x 100 us on 2 threads")
  }

  @Test func theLimitStartsAtTwiceTheCoresAndEndsAtSixtyFour() {
    #expect(WorkerPolicy(running: 1, cores: 4).limitStart == 8)
    #expect(WorkerPolicy(running: 20, cores: 4).limitStart == 20)
    #expect(WorkerPolicy(running: 1).limitMax == 64)
    var limit = ConcurrencyLimit(start: 8, range: 1...64)
    #expect(limit.value == 8)
    for _ in 0..<500 { limit.observe(.milliseconds(2), busy: 100) }
    #expect(limit.value == 64, "latency flat: it grows, to its end")
  }

  @Test func theExampleOfTheLimitsOpeningComment() {
    var limit = ConcurrencyLimit(start: 16, range: 1...64)
    limit.observe(.milliseconds(2), busy: 16)
    #expect(abs(limit.value - 16.8) < 1e-9)
  }

  @Test func itShrinksWhenLatencyGrowsAndRecovers() {
    var limit = ConcurrencyLimit(start: 16, range: 2...64)
    for _ in 0..<300 { limit.observe(.milliseconds(2), busy: 64) }
    let before = limit.value
    for _ in 0..<100 { limit.observe(.milliseconds(20), busy: 64) }
    #expect(limit.value < before / 4, "\(before) → \(limit.value)")
    #expect(limit.value >= 2)
    let low = limit.value
    for _ in 0..<300 { limit.observe(.milliseconds(2), busy: 64) }
    #expect(limit.value > 4 * low)
  }

  @Test func itDoesNotGrowWhileItIsNotUsed() {
    var limit = ConcurrencyLimit(start: 16, range: 1...64)
    for _ in 0..<500 { limit.observe(.milliseconds(2), busy: 7) }
    #expect(limit.value == 16)
    limit.observe(.milliseconds(2), busy: 8)
    #expect(limit.value > 16)
  }

  @Test func itNeverPromisesMoreThanItTakes() {
    for (running, cores) in [(1, 2), (2, 2), (4, 16), (8, 40)] {
      var script = Script(running: running, cores: cores)
      let promised = script.node.status(now: script.now).admits
      for call in 1...CallToken(promised) {
        script.score(call)
        #expect(script.refusal == nil, "leg \(call) of \(promised) that it said it would take")
      }
    }
  }

  @Test func itPromisesLessWhenLegsAreSlow() {
    var script = Script()
    let quick = script.node.status(now: script.now).admits
    script.learn(.milliseconds(20))
    let slow = script.node.status(now: script.now).admits
    #expect(quick == 33 && slow < 10, "\(quick), then \(slow)")
  }

  // MARK: Orders

  func order(_ epoch: UInt64, _ revision: UInt64, _ shard: Int) -> ShardOrder {
    ShardOrder(
      term: DriverTerm(epoch: epoch, revision: revision), release: Self.release, shards: [ShardID(shard)])
  }
  func reply(_ effects: [WorkerEffect]) -> CallFailure?? {
    for case .replyOrder(_, let failure) in effects { return .some(failure) }
    return nil
  }

  @Test func olderOrdersAreRefused() {
    var script = Script(shards: 1)
    for (epoch, revision, isTaken) in [
      (2, 5, true), (2, 5, false), (2, 4, false), (1, 99, false), (2, 6, true), (3, 1, true), (2, 7, false),
    ] {
      script.send(.loadRequested(1, order(UInt64(epoch), UInt64(revision), 0)))
      #expect(reply(script.effects) == .some(isTaken ? nil : .stale), "(\(epoch), \(revision))")
    }
    script.send(.unloadRequested(1, order(3, 1, 0)))
    #expect(reply(script.effects) == .some(.stale))
    #expect(script.node.counters.staleOrders == 5)
  }

  @Test func aStaleUnloadChangesNothing() {
    var script = Script(shards: 1)
    script.send(.loadRequested(1, order(2, 5, 0)))
    script.send(.unloadRequested(1, order(2, 4, 0)))
    let status = script.node.status(now: script.now)
    #expect(status.holdings[0].ready == [ShardID(0)])
    #expect(status.heldBytes == 100)
    script.send(.unloadRequested(1, order(2, 6, 0)))
    #expect(script.node.status(now: script.now).heldBytes == 0)
  }

  @Test func aLoadIsCarriedOutOnceAndItsFailureIsTold() {
    var script = Script(shards: 0)
    script.send(.loadRequested(1, order(1, 1, 3)))
    #expect(script.effects.contains { if case .load(_, ShardID(3)) = $0 { true } else { false } })
    script.send(.loadRequested(2, order(1, 2, 3)))
    #expect(!script.effects.contains { if case .load = $0 { true } else { false } }, "it is under way")
    #expect(script.node.status(now: script.now).holdings[0].loading == [ShardID(3)])
    script.send(.loadFailed(Self.release, ShardID(3), why: "damaged"))
    var holding = script.node.status(now: script.now).holdings[0]
    #expect(holding.failed == [ShardID(3)] && holding.loading == [] && holding.ready == [])
    script.send(.loadRequested(3, order(1, 3, 3)))
    holding = script.node.status(now: script.now).holdings[0]
    #expect(holding.failed == [] && holding.loading == [ShardID(3)])
    script.send(.loaded(Self.release, shardCount: 4, ShardID(3), bytes: 5))
    holding = script.node.status(now: script.now).holdings[0]
    #expect(holding.ready == [ShardID(3)] && holding.shardCount == 4)
  }

  // MARK: Coming and going

  var joins: (Script) -> [String] {
    { $0.effects.compactMap { if case .join(let to, let request) = $0 { "\(to) \(request.name)" } else { nil } } }
  }
  var leaves: (Script) -> [String] {
    { $0.effects.compactMap { if case .leave(let to, _) = $0 { to } else { nil } } }
  }
  func departs(_ script: Script) -> Bool { script.effects.contains { if case .depart = $0 { true } else { false } } }

  @Test func itJoinsEveryTwoSecondsAndWhomItHearsOf() {
    var script = Script()
    script.send(.join(coordinators: ["c1:1"]))
    #expect(joins(script) == ["c1:1 w1"])
    script.send(.joined(coordinator: "c1:1", .success(JoinReply(coordinators: ["c1:1", "c2:1"]))))
    #expect(joins(script) == ["c2:1 w1"])
    script.now = script.now + .milliseconds(1999)
    script.send(.woke)
    #expect(joins(script) == [])
    script.now = script.now + .milliseconds(1)
    script.send(.woke)
    #expect(joins(script) == ["c1:1 w1", "c2:1 w1"])
  }

  @Test func itKnowsNoMoreThanSixtyFourCoordinators() {
    var script = Script()
    script.send(.join(coordinators: (0..<100).map { "c\($0):1" }))
    #expect(joins(script).count == 64)
  }

  @Test func itAsksEvery200MillisecondsAndDepartsWhenAllSayGo() {
    var script = Script()
    script.send(.join(coordinators: ["c1:1", "c2:1"]))
    script.send(.draining)
    #expect(script.node.status(now: script.now).draining)
    #expect(leaves(script) == ["c1:1", "c2:1"] && !departs(script))
    script.send(.mayLeave(coordinator: "c1:1", .success(LeaveReply(mayGo: true))))
    script.send(.mayLeave(coordinator: "c2:1", .success(LeaveReply(mayGo: false))))
    #expect(!departs(script))
    script.now = script.now + .milliseconds(199)
    script.send(.woke)
    #expect(leaves(script) == [])
    script.now = script.now + .milliseconds(1)
    script.send(.woke)
    #expect(leaves(script) == ["c2:1"], "only who has not said go")
    script.send(.mayLeave(coordinator: "c2:1", .success(LeaveReply(mayGo: true))))
    #expect(departs(script))
    script.send(.woke)
    #expect(!departs(script), "once")
  }

  @Test func itDepartsAfterNineSecondsAllTheSame() {
    var script = Script()
    script.send(.join(coordinators: ["c1:1"]))
    script.send(.draining)
    let start = script.now
    while !departs(script) {
      script.send(.mayLeave(coordinator: "c1:1", .success(LeaveReply(mayGo: false))))
      script.now = script.now + .milliseconds(50)
      script.send(.woke)
      #expect(script.now - start <= .seconds(9))
    }
    #expect(script.now - start == .seconds(9))
  }

  @Test func aCoordinatorThatCannotBeAskedHoldsNobodyBack() {
    var script = Script()
    script.send(.join(coordinators: ["c1:1"]))
    script.send(.draining)
    script.send(.mayLeave(coordinator: "c1:1", .failure(.connectionLost)))
    #expect(departs(script))
    var alone = Script()
    alone.send(.draining)
    #expect(departs(alone), "nobody to ask")
  }

  @Test func whileDrainingItStillScores() {
    var script = Script()
    script.send(.join(coordinators: ["c1:1"]))
    script.send(.draining)
    script.score(1)
    #expect(script.effects.contains { if case .run = $0 { true } else { false } })
  }
}
