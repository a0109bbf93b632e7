import Foundation
import Testing

@testable import ChaosEngine

/// The judge itself: each thing that must hold is broken once, and the judge must say so and nothing else.
@Suite struct JudgeTests {
  /// Ten seconds, 100 requests a second, w1 and w2 hold shard 0, w2 and w3 shard 1; all is well.
  private func evidence(_ cluster: String = "{}", limits: String = "{}") throws -> Evidence {
    let json =
      #"{"seconds": 10, "baseline_s": 2, "cluster": \#(cluster), "faults": [{"kind": "kill"}], "limits": \#(limits)}"#
    var evidence = Evidence(
      scenario: try Scenario(name: "it", json: Data(json.utf8)), holdings: [[0], [0, 1], [1]], shards: 2)
    evidence.end = .seconds(10)
    evidence.requests = (0..<1000).map { number in
      let due = Duration.milliseconds(10 * number)
      return .init(number: number, due: due, sent: due, ended: due + .milliseconds(2), outcome: .ok, body: [1])
    }
    for time in stride(from: 0, to: 10_000, by: 50) {
      evidence.samples.append(.init(at: .milliseconds(time), workers: [.up, .up, .up], isWhole: true))
    }
    for second in 0...10 {
      var counts = Evidence.Counts(at: .seconds(second))
      (counts.requests, counts.answers, counts.primaryLegs) = (Double(100 * second), Double(100 * second), 300)
      counts.primaryLegs *= Double(second)
      evidence.counts.append(counts)
    }
    return evidence
  }

  private func fault(
    _ kind: FaultKind = .kill, _ victims: [String] = ["w1"], at: Double = 5, lasts: Double = 1,
    on: FaultKind.Subject = .worker
  ) -> Evidence.Fault {
    let planned = PlannedFault(
      number: 1, kind: kind, on: on, victims: victims, at: .seconds(at), lasts: .seconds(lasts), parameters: [:])
    return .init(planned: planned, began: .seconds(at), ended: .seconds(at + lasts))
  }

  /// What is violated, by the beginnings of names.
  private func violated(_ evidence: Evidence) throws -> [String] {
    let judge = Judge(evidence) { $1 == [1] ? nil : $1 == [2] ? "made from v9" : "wrong" }
    let verdict = try judge.verdict()
    return verdict.invariants.filter { $0.violations > 0 }.map(\.name) + verdict.figures.filter { !$0.pass }.map(\.name)
  }

  private func set(_ evidence: inout Evidence, _ health: Evidence.Health, of worker: Int, _ span: ClosedRange<Int>) {
    for index in evidence.samples.indices where span.contains(Int(evidence.samples[index].at / .milliseconds(1))) {
      evidence.samples[index].workers?[worker] = health
      evidence.samples[index].isWhole = false
    }
  }

  @Test func aQuietRunPasses() throws { #expect(try violated(try evidence()) == []) }

  @Test func aWrongAnswerIsFound() throws {
    var evidence = try evidence()
    evidence.requests[3].body = [3]
    #expect(try violated(evidence) == ["answer = oracle over the shards it names"])
    evidence.requests[3].body = [2]
    #expect(try violated(evidence) == ["one version in an answer"])
  }

  @Test func metricsThatTellAnotherStoryAreFound() throws {
    var evidence = try evidence()
    evidence.counts[10].answers -= 1
    #expect(try violated(evidence) == ["metrics agree with what clients saw"])
  }

  @Test func aRequestThatNeverEndedOrEndedTwiceIsFound() throws {
    var missing = try evidence()
    missing.requests.remove(at: 500)
    var twice = try evidence()
    twice.requests.append(twice.requests[500])
    for evidence in [missing, twice] { #expect(try violated(evidence).contains("each request ends once")) }
  }

  @Test func aLateAnswerIsFoundUnlessItsCoordinatorWasAway() throws {
    var evidence = try evidence()
    evidence.requests[520].ended = evidence.requests[520].due + .milliseconds(700)
    #expect(try violated(evidence).contains("each request ends in time"))
    evidence.faults = [fault(.freeze, ["c1"], on: .coordinator)]
    #expect(try !violated(evidence).contains("each request ends in time"))
  }

  @Test func aFailureIsExcusedOnlyWhereAShardWasLost() throws {
    let name = "no failed request while each shard had a replica in reach"
    var evidence = try evidence()
    evidence.requests[550].outcome = .failed("unavailable")
    #expect(try violated(evidence).contains(name))
    // One replica of each shard is left.
    evidence.faults = [fault()]
    #expect(try violated(evidence).contains(name))
    // None is.
    evidence.faults = [fault(.kill, ["w1", "w2"], on: .pair)]
    #expect(try !violated(evidence).contains(name))
    // One is dead and the other is hardly heard: no healthy one is left.
    evidence.faults = [fault(.kill, ["w1"]), fault(.stall, ["w2"], on: .link)]
    #expect(try !violated(evidence).contains(name))
    evidence.faults = [fault(.stall, ["w2"], on: .link)]
    #expect(try violated(evidence).contains(name))
    evidence.faults = [fault(.kill, ["w1", "w2"], on: .pair)]
    // Too late: both have long been back.
    evidence.requests[550].outcome = .ok
    evidence.requests[900].outcome = .failed("unavailable")
    #expect(try violated(evidence).contains(name))
  }

  /// A victim that is never taken back does not excuse what comes of it.
  @Test func anExcuseEnds() throws {
    var evidence = try evidence(limits: #"{"healed_s": 1}"#)
    evidence.faults = [fault(.kill, ["w1", "w2"], on: .pair)]
    set(&evidence, .down, of: 0, 5050...10_000)
    set(&evidence, .down, of: 1, 5050...10_000)
    evidence.requests[650].outcome = .degraded
    #expect(try !violated(evidence).contains { $0.hasPrefix("no degraded") })
    evidence.requests[750].outcome = .degraded
    #expect(try violated(evidence).contains { $0.hasPrefix("no degraded") })
    #expect(try violated(evidence).contains("whole again after a fault, at the latest"))
  }

  @Test func aBudgetThatIsOverdrawnInOneSecondIsFound() throws {
    var hedges = try evidence()
    for index in hedges.counts.indices where index >= 6 { hedges.counts[index].hedgeLegs = 30 }
    #expect(try violated(hedges).contains("hedges within 5 % in every window"))
    var retries = try evidence()
    for index in retries.counts.indices where index >= 6 { retries.counts[index].retryLegs = 200 }
    #expect(try violated(retries).contains("retries within their budget"))
    // Another process begins at 0 again.
    for index in hedges.counts.indices where index < 6 { hedges.counts[index].start = 0 }
    for index in hedges.counts.indices where index >= 6 { hedges.counts[index].hedgeLegs = Double(5 * index) }
    #expect(try !violated(hedges).contains("hedges within 5 % in every window"))
  }

  @Test func aDeathIsFoundUnlessItWasMeant() throws {
    var evidence = try evidence()
    evidence.unasked = [(.seconds(5.5), "w1 ended: signal 11")]
    #expect(try violated(evidence).contains("no process ended unasked"))
    evidence.faults = [fault(.memory)]
    #expect(try !violated(evidence).contains("no process ended unasked"))
  }

  @Test func whatWasAcknowledgedAndIsLostOrDoubledIsFound() throws {
    let name = "what was acknowledged is in the history, once"
    var evidence = try evidence(#"{"rollouts": true}"#)
    let said = Evidence.Acknowledged(at: .seconds(1), sequence: 2, rollout: "r2", from: "none", to: "load")
    let first = Evidence.Acknowledged(at: .zero, sequence: 1, rollout: "r1", from: "none", to: "load")
    evidence.acknowledged = [said]
    evidence.history = [first, said]
    #expect(try !violated(evidence).contains(name))
    for history in [[first], [first, said, said], nil] {
      evidence.history = history
      #expect(try violated(evidence).contains(name))
    }
    var other = said
    other.rollout = "r3"
    evidence.history = [first, other]
    #expect(try violated(evidence).contains(name))
    // A step that is taken twice, under a number of its own.
    var again = said
    again.sequence = 3
    evidence.history = [first, said, again]
    #expect(try violated(evidence).contains(name))
    again.from = "load"
    evidence.history = [first, said, again]
    #expect(try !violated(evidence).contains(name))
  }

  @Test func aBadVersionThatServedIsFound() throws {
    var evidence = try evidence(#"{"rollouts": true}"#)
    evidence.history = []
    evidence.poisoned = [("r1", false)]
    #expect(try !violated(evidence).contains("no bad version served everybody"))
    evidence.poisoned.append(("r2", true))
    #expect(try violated(evidence).contains("no bad version served everybody"))
  }

  @Test func flappingIsFound() throws {
    var evidence = try evidence()
    evidence.faults = [fault()]
    set(&evidence, .down, of: 0, 5050...5900)
    #expect(try !violated(evidence).contains("no flapping"))
    var again = evidence
    set(&again, .down, of: 0, 7000...7200)
    #expect(try violated(again).contains("no flapping"))
    set(&evidence, .down, of: 2, 5050...5200)
    #expect(try violated(evidence).contains("no flapping"))
  }

  @Test func limitsAreJudged() throws {
    var evidence = try evidence(
      limits: #"{"noticed_s": 1.2, "healed_s": 2, "p99_ratio": 2, "slowest_ms": 50}"#)
    evidence.faults = [fault(.freeze, lasts: 2)]
    set(&evidence, .down, of: 0, 6000...7500)
    #expect(try !violated(evidence).contains { $0.contains("latest") })
    for index in evidence.samples.indices where evidence.samples[index].at < .seconds(6.5) {
      evidence.samples[index].workers?[0] = .up
    }
    #expect(try violated(evidence).contains("victim held for down, at the latest"))
    set(&evidence, .down, of: 0, 6500...9500)
    #expect(try violated(evidence).contains("whole again after a fault, at the latest"))
  }

  @Test func aFaultThatCouldNotBeDoneIsFound() throws {
    var evidence = try evidence()
    evidence.faults = [fault()]
    evidence.faults[0].trouble = "w1 does not run"
    #expect(try violated(evidence).contains("each fault was done and undone"))
  }
}
