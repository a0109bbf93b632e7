import ClusterHarness
import ClusterLoad
import Foundation
import HTTP2
import Synchronization
import Terminal

// One run of one scenario.
//
//   stage up ─► warm-up ─► baseline ─► faults, by the plan ─► whole again ─► stage down ─► judge ─► report
//                          └──────────── one load, one clock ───────────┘
//
// Faults that may not overlap are done one after the other on one thread, each when its time has come and the cluster
// is whole; those that may have a thread each, and wait only for what strikes the same member.

struct Run {
  let scenario: Scenario
  let seed: UInt64
  let executable: String
  let directory: String
  let shimSource: String
  /// Where a cluster is that is to be used instead of one of its own.
  var attached: ClusterHarness.StateDirectory?
  /// Whether somebody wants it to end.
  let isOver: @Sendable () -> Bool
  let say: @Sendable (String) -> Void

  struct Result {
    var evidence: Evidence
    var verdict: Verdict
  }

  init(
    _ scenario: Scenario, seed: UInt64, executable: String, directory: String, shimSource: String,
    isOver: @escaping @Sendable () -> Bool = { false }, say: @escaping @Sendable (String) -> Void = { _ in }
  ) {
    self.scenario = scenario
    self.seed = seed
    self.executable = executable
    self.directory = directory
    self.shimSource = shimSource
    self.isOver = isOver
    self.say = say
  }

  static let warmUp: Duration = .seconds(3)
  /// How long a cluster may take to be whole after its last fault.
  static let wholeLimit: Duration = .seconds(90)

  func run() throws -> Result {
    let stage = try stage()
    var evidence: Evidence
    do {
      defer { stage.stop() }
      evidence = try measure(stage)
    }
    let versions = "\(stage.store)/\(stage.model)"
    let bundles = try FileManager.default.contentsOfDirectory(atPath: versions).map { "\(versions)/\($0)" }
    let check = AnswerCheck(bundles: bundles, requests: stage.requests)
    let judge = Judge(evidence, check: check.wrong)
    let progress = ProgressLine("comparing answers with the oracle")
    let verdict = try judge.verdict { progress.update($0, of: $1) }
    progress.finish()
    return Result(evidence: evidence, verdict: verdict)
  }

  private func stage() throws -> Stage {
    if let attached { return try Stage(scenario, attachedTo: attached, directory: directory) }
    say("starting \(scenario.cluster.workers) workers")
    return try Stage(
      scenario, seed: seed, executable: executable, directory: directory, shimSource: shimSource, cancelled: isOver)
  }

  private func measure(_ stage: Stage) throws -> Evidence {
    let watch = Watch(stage.cluster, replicas: scenario.cluster.replicas)
    // An attached cluster has as many as it has.
    var actual = scenario
    actual.cluster.workers = stage.cluster.workers.count
    actual.cluster.coordinators = stage.cluster.coordinators.count
    var evidence = Evidence(
      scenario: actual, holdings: stage.holdings, shards: (stage.holdings.joined().max() ?? -1) + 1)
    do {
      try wait(for: "a whole cluster", limit: Self.wholeLimit) { watch.isWhole(since: .zero) }
      _ = try load(stage, for: Self.warmUp, into: nil).map { try $0.result() }
      try loadAndFaults(stage, watch, &evidence)
    } catch {
      watch.stop(into: &evidence)
      throw error
    }
    return evidence
  }

  private func loadAndFaults(_ stage: Stage, _ watch: Watch, _ evidence: inout Evidence) throws {
    let ends = EndLog()
    let most: Duration = evidence.baseline + .seconds(scenario.seconds * 10 + 600)
    watch.begin()
    let begin = watch.start
    let loads = try load(stage, for: most, into: ends)
    let hand = RolloutHand(stage) { watch.now }
    let injector = Injector(stage: stage, rollouts: hand, isOver: isOver)
    let plan = evidence.scenario.schedule(seed: seed, holdings: stage.holdings)
    let log = FaultLog()
    Monotonic.wait(until: begin + evidence.baseline)
    say("\(plan.count) faults in \(Int(scenario.seconds)) s")
    let doer = FaultDoer(injector: injector, watch: watch, log: log, offset: evidence.baseline, say: say)
    if scenario.together { doer.together(plan, isOver) } else { doer.oneByOne(plan, isOver) }
    // Bounded by when the last fault was to be, so that quiet scenarios last as long as they say.
    while watch.now < evidence.baseline + .seconds(scenario.seconds), !isOver() {
      Monotonic.wait(until: Monotonic.now + .milliseconds(50))
    }
    let last = watch.now
    try? wait(for: "a whole cluster after the last fault", limit: Self.wholeLimit) { watch.isWhole(since: last) }
    Monotonic.wait(until: Monotonic.now + .seconds(1))
    for load in loads { _ = try load.stop() }
    evidence.end = watch.now
    if scenario.cluster.rollouts { evidence.history = try? hand.history() }
    hand.write(into: &evidence)
    watch.stop(into: &evidence)
    evidence.faults = log.all.sorted { $0.began < $1.began }
    evidence.requests = ends.all(since: begin)
    if isOver() { throw CommandError("interrupted") }
  }

  /// A share of the load for every coordinator.
  private func load(_ stage: Stage, for duration: Duration, into log: EndLog?) throws -> [BackgroundLoad] {
    let coordinators = stage.cluster.coordinators
    return try coordinators.enumerated().map { index, coordinator in
      var generator = LoadGenerator(
        server: try ServerURL(coordinator.url), endpoint: .recommend, requests: stage.requests,
        rate: scenario.rate / Double(coordinators.count), duration: duration, poisson: true,
        seed: seed &+ UInt64(index), connections: 2, outstandingMax: 5000, limit: .seconds(3))
      if let log { generator.ended = { log.add($0, coordinator: index) } }
      return try BackgroundLoad(generator)
    }
  }

  private func wait(for what: String, limit: Duration, _ condition: () -> Bool) throws {
    let deadline = Monotonic.now + limit
    while !condition() {
      if isOver() { throw CommandError("interrupted") }
      guard Monotonic.now < deadline else { throw CommandError("after \(limit) still not: \(what)") }
      Monotonic.wait(until: Monotonic.now + .milliseconds(20))
    }
  }
}

/// How every request ended.
private final class EndLog: Sendable {
  private let ends = Mutex<[(end: LoadGenerator.RequestEnd, coordinator: Int)]>([])
  func add(_ end: LoadGenerator.RequestEnd, coordinator: Int) { ends.withLock { $0.append((end, coordinator)) } }
  func all(since start: Duration) -> [Evidence.Request] {
    ends.withLock { ends in
      ends.map { end, coordinator in
        Evidence.Request(
          number: end.number, coordinator: coordinator, due: end.due - start, sent: end.sent.map { $0 - start },
          ended: end.ended - start, outcome: end.outcome, body: end.body)
      }
    }
  }
}

private final class FaultLog: Sendable {
  private let faults = Mutex<[Evidence.Fault]>([])
  func add(_ fault: Evidence.Fault) { faults.withLock { $0.append(fault) } }
  var all: [Evidence.Fault] { faults.withLock { $0 } }
}

/// Does the faults of a plan at their times.
private struct FaultDoer: Sendable {
  let injector: Injector
  let watch: Watch
  let log: FaultLog
  let offset: Duration
  let say: @Sendable (String) -> Void

  func oneByOne(_ plan: [PlannedFault], _ isOver: @Sendable () -> Bool) {
    for fault in plan {
      wait(isOver) { watch.now >= offset + fault.at }
      let since = watch.now
      let limit = since + Run.wholeLimit
      wait(isOver) { watch.isWhole(since: since) || watch.now > limit }
      if isOver() { return }
      guard watch.now <= limit else {
        log.add(
          .init(planned: fault, began: watch.now, ended: watch.now, trouble: "the cluster was not whole before it"))
        return
      }
      inflict(fault)
    }
  }

  func together(_ plan: [PlannedFault], _ isOver: @Sendable () -> Bool) {
    let busy = BusyMembers()
    let over = DispatchGroup()
    for fault in plan {
      wait(isOver) { watch.now >= offset + fault.at }
      if isOver() { break }
      over.enter()
      let thread = Thread {
        let struck = fault.victims.isEmpty ? [fault.on.rawValue] : fault.victims
        busy.enter(struck)
        inflict(fault)
        busy.leave(struck)
        over.leave()
      }
      thread.name = "fault \(fault.number)"
      thread.start()
    }
    over.wait()
  }

  private func inflict(_ fault: PlannedFault) {
    say("\(fault.number): \(fault.what)")
    let began = watch.now
    do {
      let outcome = try injector.run(fault)
      log.add(.init(planned: fault, began: began, ended: watch.now, outcome: outcome))
    } catch {
      log.add(.init(planned: fault, began: began, ended: watch.now, trouble: "\(error)"))
    }
  }

  private func wait(_ isOver: () -> Bool, _ condition: () -> Bool) {
    while !condition(), !isOver() { Monotonic.wait(until: Monotonic.now + .milliseconds(5)) }
  }
}

/// Members that something is being done to.
private final class BusyMembers: Sendable {
  private let names = Mutex<Set<String>>([])
  func enter(_ wanted: [String]) {
    while true {
      let isFree = names.withLock { names in
        guard names.isDisjoint(with: wanted) else { return false }
        names.formUnion(wanted)
        return true
      }
      if isFree { return }
      Monotonic.wait(until: Monotonic.now + .milliseconds(10))
    }
  }
  func leave(_ mine: [String]) { names.withLock { $0.subtract(mine) } }
}
