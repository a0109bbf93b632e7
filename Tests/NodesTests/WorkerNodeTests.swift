import Nodes
import RankingCore
import Testing

@Suite struct WorkerNodeTests {
  static let release = ModelVersion(model: "home", version: "v1")

  func request(_ shards: [Int], release: ModelVersion = release) -> ScoreRequest {
    ScoreRequest(
      query: ScoreQuery(release: release, mode: .retrieve, vector: [1], k: 1, candidates: 1),
      tasks: shards.map { ShardTask(shard: ShardID($0)) })
  }

  /// Sends events at growing times and gives the effects as text.
  func run(_ node: inout WorkerNode, at milliseconds: Int, _ events: WorkerEvent...) -> [String] {
    var effects: [WorkerEffect] = []
    let now = Instant(nanoseconds: UInt64(milliseconds) * 1_000_000)
    for event in events { node.handle(event, now: now, into: &effects) }
    return effects.map { effect in
      switch effect {
      case .run(let runs, _, let threads):
        "run " + runs.map { "\($0.call): \($0.request.tasks.map(\.shard.index))" }.joined(separator: ", ")
          + (threads > 1 ? " on \(threads) threads" : "")
      case .abort(let call): "abort \(call)"
      case .lookUp(let call, _): "look up \(call)"
      case .replyScore(let call, .success): "reply \(call)"
      case .replyScore(let call, .failure(let failure)): "refuse \(call): \(failure)"
      case .refuseLookup(let call, let failure): "refuse \(call): \(failure)"
      case .replyOrder(let call, let failure): failure.map { "refuse \(call): \($0)" } ?? "taken \(call)"
      case .load(_, let shard): "load \(shard)"
      case .unload(_, let shard): "unload \(shard)"
      case .join(let coordinator, _): "join \(coordinator)"
      case .leave(let coordinator, _): "leave \(coordinator)"
      case .depart: "depart"
      case .wake(let at): "wake at \(at)"
      case .replyStatus(_, let status): "status queued \(status.queued) running \(status.running)"
      }
    }
  }

  func worker() -> WorkerNode {
    var node = WorkerNode(name: "w1", incarnation: 1, policy: WorkerPolicy(running: 1))
    for shard in 0..<2 {
      _ = run(&node, at: 0, .loaded(Self.release, shardCount: 4, ShardID(shard)))
    }
    return node
  }
  let later = Instant(nanoseconds: 500_000_000)
  let reply = ScoreReply(release: release, shards: [ShardID(0)], items: ScoredList())

  @Test func runsOneAtATimeAndTheRestInOrder() {
    var node = worker()
    #expect(run(&node, at: 1, .scoreRequested(1, request([0, 1]), deadline: later)) == ["run 1: [0, 1]"])
    #expect(run(&node, at: 2, .scoreRequested(2, request([0]), deadline: later)) == [])
    #expect(run(&node, at: 3, .statusRequested(9)) == ["status queued 1 running 1"])
    #expect(run(&node, at: 4, .scored(1, .success(reply))) == ["reply 1", "run 2: [0]"])
  }

  /// An explained leg is never taken for a brief one, and says nothing of how long others take.
  @Test func explainedLegsAreNoMeasure() {
    var node = worker()
    func expected(_ call: CallToken, explain: Bool, from start: Int, to end: Int) -> Duration? {
      var request = request([0])
      request.query.explain = explain
      var effects: [WorkerEffect] = []
      func instant(_ ms: Int) -> Instant { Instant(nanoseconds: UInt64(ms) * 1_000_000) }
      node.handle(.scoreRequested(call, request, deadline: later), now: instant(start), into: &effects)
      node.handle(.scored(call, .success(reply)), now: instant(end), into: &effects)
      guard case .run(_, let expected, _)? = effects.first else { return .seconds(-1) }
      return expected
    }
    #expect(expected(1, explain: false, from: 1, to: 3) == nil)
    #expect(expected(2, explain: false, from: 10, to: 12) == .milliseconds(2))
    #expect(expected(3, explain: true, from: 20, to: 120) == nil)
    #expect(expected(4, explain: false, from: 130, to: 131) == .milliseconds(2))
    #expect(node.counters.scored == 4)
  }

  @Test func refusesWhatItDoesNotHoldAndNeverSubstitutes() {
    var node = worker()
    let other = ModelVersion(model: "home", version: "v2")
    #expect(
      run(&node, at: 1, .scoreRequested(1, request([0], release: other), deadline: later))
        == ["refuse 1: wrongVersion"])
    #expect(run(&node, at: 1, .scoreRequested(2, request([3]), deadline: later)) == ["refuse 2: wrongVersion"])
    #expect(run(&node, at: 1, .scoreRequested(3, request([1, 3]), deadline: later)) == ["run 3: [1]"])
  }

  @Test func expiredWorkIsNotStarted() {
    var node = worker()
    #expect(
      run(&node, at: 501, .scoreRequested(1, request([0]), deadline: later)) == ["refuse 1: deadlineExceeded"])
    _ = run(&node, at: 1, .scoreRequested(2, request([0]), deadline: later))
    _ = run(&node, at: 1, .scoreRequested(3, request([0]), deadline: later))
    #expect(run(&node, at: 600, .scored(2, .success(reply))) == ["reply 2", "refuse 3: deadlineExceeded"])
  }

  @Test func cancelledWorkIsStoppedAndNotAnswered() {
    var node = worker()
    _ = run(&node, at: 1, .scoreRequested(1, request([0]), deadline: later))
    _ = run(&node, at: 1, .scoreRequested(2, request([0]), deadline: later))
    #expect(run(&node, at: 2, .cancelled(2)) == [])
    #expect(run(&node, at: 2, .cancelled(1)) == ["abort 1"])
    #expect(run(&node, at: 3, .scored(1, .failure(.deadlineExceeded))) == [])
    #expect(run(&node, at: 4, .statusRequested(9)) == ["status queued 0 running 0"])
  }

  @Test func theQueueIsBounded() {
    var node = worker()
    for call in 0...32 as ClosedRange<CallToken> {
      _ = run(&node, at: 1, .scoreRequested(call, request([0]), deadline: later))
    }
    #expect(run(&node, at: 1, .scoreRequested(99, request([0]), deadline: later)) == ["refuse 99: overloaded"])
  }
}
