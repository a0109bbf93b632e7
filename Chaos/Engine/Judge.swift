import ClusterLoad
import Foundation

// Reads the evidence and says what held. Safety is judged always; that nothing failed is judged wherever it could be
// expected:
//
//   w1 away        |--------|                      a shard on w1 and w2 is lost where both are away, or unwell;
//   w2 away             |---------|                a request that was under way then may be degraded,
//   shard 3 lost        |---|                      one under way while its coordinator was away may fail
//
// "Away" is from the moment before something was done until the coordinator itself says that the worker is back.

/// One thing that must hold, and how often it was looked at.
struct Invariant: Codable, Sendable, Equatable {
  var name: String
  var checked: Int
  var violations: Int
  /// The first few.
  var examples: [String]
}

/// What one fault did.
struct FaultStory: Codable, Sendable, Equatable {
  var number: Int
  var what: String
  /// nil = of no scenario.
  var kind: FaultKind?
  /// Seconds from the first request.
  var began: Double
  var ended: Double
  /// Seconds until a coordinator held a victim for down; nil = none did.
  var noticed: Double?
  /// Seconds from its end until all coordinators saw a whole cluster; nil = they had not when the run ended.
  var healed: Double?
  /// Of the requests under way from its beginning to its end.
  var slowestMilliseconds: Double
  var degraded: Int
  var failed: Int
  var outcome: String
  var trouble: String?
}

extension FaultStory {
  /// What is known where nobody watched the cluster.
  init(number: Int, what: String, from: Duration, to: Duration, _ meanwhile: [LoadTrace.Sample]) {
    self.init(
      number: number, what: what, began: rounded(from / .seconds(1)), ended: rounded(to / .seconds(1)),
      slowestMilliseconds: meanwhile.map { inMilliseconds($0.latency) }.max() ?? 0,
      degraded: meanwhile.count { $0.outcome == .degraded }, failed: meanwhile.count { $0.outcome == .failed },
      outcome: "")
  }
}

struct Verdict: Codable, Sendable {
  var invariants: [Invariant]
  var figures: [Figure]
  var faults: [FaultStory]
  var requests: Int
  /// Whether something whose name begins so was found wrong.
  func violates(_ name: String) -> Bool {
    invariants.contains { $0.name.hasPrefix(name) && $0.violations > 0 }
      || figures.contains { $0.name.hasPrefix(name) && !$0.pass }
  }
  var passes: Bool { invariants.allSatisfy { $0.violations == 0 } && figures.allSatisfy(\.pass) }
}

struct Judge {
  typealias Span = ClosedRange<Duration>
  /// What a request is allowed.
  static let timeout: Duration = .milliseconds(500)
  /// The tick of the design, and what a client on the same busy cores needs to hear of it.
  static let slack: Duration = .milliseconds(5 + 95)
  /// In seconds: how long after a fault its victim may be missed, unless the scenario is stricter. One that is never
  /// taken back must not excuse what comes of it.
  static let returnsWithin = 10.0
  /// How long a client takes to find a coordinator again.
  static let clientReturns: Duration = .milliseconds(1500)
  /// Tokens that may be saved up: of hedges; of retries, with what a lost connection owed.
  static let hedgesSaved = 11.0
  static let retriesSaved = 50.0 + 64.0
  private static let examplesMax = 5

  private let evidence: Evidence
  private let check: AnswerReader
  /// By coordinator.
  private let lost: [[Span]]
  private let coordinatorAway: [[Span]]

  /// Says what is wrong with the answer to a request, by its number; nil = nothing.
  typealias AnswerReader = (_ number: Int, _ body: [UInt8]) throws -> String?

  init(_ evidence: Evidence, check: @escaping AnswerReader) {
    self.evidence = evidence
    self.check = check
    let coordinators = 0..<evidence.scenario.cluster.coordinators
    lost = coordinators.map { Self.lost(evidence, $0) }
    coordinatorAway = coordinators.map { Self.coordinatorAway(evidence, $0) }
  }

  /// - Parameter progress: told how many answers of all have been compared.
  func verdict(progress: (Int, Int) -> Void = { _, _ in }) throws -> Verdict {
    var invariants = try answersAreRight(progress)
    invariants += [endsOnce(), inTime(), nothingFailed(), nothingDegraded()]
    invariants += budgets()
    invariants += [countsAgree(), nobodyEnded(), faultsWereDone()]
    if evidence.scenario.cluster.rollouts { invariants += [acknowledgedIsKept(), poisonIsStopped()] }
    if evidence.scenario.limits.flapping { invariants.append(nobodyFlaps()) }
    let stories = evidence.faults.map(story)
    return Verdict(
      invariants: invariants, figures: figures(stories), faults: stories, requests: evidence.requests.count)
  }

  // MARK: Answers

  private func answersAreRight(_ progress: (Int, Int) -> Void) throws -> [Invariant] {
    var (right, versions) = (Finding("answer = oracle over the shards it names"), Finding("one version in an answer"))
    let answered = evidence.requests.filter { !$0.body.isEmpty }
    for (index, request) in answered.enumerated() {
      let wrong = try check(request.number, request.body)
      let isOfNobody = wrong?.hasPrefix("made from") ?? false
      versions.note(isOfNobody ? wrong : nil)
      right.note(isOfNobody ? nil : wrong)
      progress(index, answered.count)
    }
    return [right.invariant, versions.invariant]
  }

  private func endsOnce() -> Invariant {
    var finding = Finding("each request ends once")
    for coordinator in 0..<evidence.scenario.cluster.coordinators {
      let numbers = evidence.requests.filter { $0.coordinator == coordinator }.map(\.number).sorted()
      for (index, number) in numbers.enumerated() {
        finding.note(index == number ? nil : "c\(coordinator + 1): number \(index) is \(number)")
        if index != number { break }
      }
    }
    return finding.invariant
  }

  private func inTime() -> Invariant {
    var finding = Finding("each request ends in time")
    for request in evidence.requests {
      guard let sent = request.sent else { continue }
      let took = request.ended - sent
      let isLate = took > Self.timeout + Self.slack && !isExcused(request, coordinatorAway)
      finding.note(isLate ? "\(place(request)): \(Int(took / .milliseconds(1))) ms" : nil)
    }
    return finding.invariant
  }

  private func nothingFailed() -> Invariant {
    var finding = Finding("no failed request while each shard had a replica in reach")
    for request in evidence.requests {
      guard case .failed(let reason) = request.outcome else {
        finding.note(nil)
        continue
      }
      let excused = isExcused(request, coordinatorAway) || isExcused(request, lost)
      finding.note(excused ? nil : "\(place(request)): \(reason)")
    }
    return finding.invariant
  }

  private func nothingDegraded() -> Invariant {
    var finding = Finding("no degraded answer while each shard had a replica in reach")
    for request in evidence.requests {
      let isBad = request.outcome == .degraded && !isExcused(request, lost) && !isExcused(request, coordinatorAway)
      finding.note(isBad ? place(request) : nil)
    }
    return finding.invariant
  }

  private func place(_ request: Evidence.Request) -> String {
    "request \(request.number) at \(moment(request.due))\(after(request.due))"
  }
  /// The fault that was last begun before some time.
  private func after(_ time: Duration) -> String {
    guard let fault = evidence.faults.last(where: { $0.began <= time }) else { return "" }
    return ", \(moment(time - fault.began)) after \(fault.planned.what)"
  }
  private func isExcused(_ request: Evidence.Request, _ spans: [[Span]]) -> Bool {
    guard spans.indices.contains(request.coordinator) else { return false }
    return spans[request.coordinator].contains {
      $0.overlaps(min(request.sent ?? request.due, request.due)...request.ended)
    }
  }

  // MARK: Budgets and counts

  private func budgets() -> [Invariant] {
    var (hedges, retries) = (Finding("hedges within 5 % in every window"), Finding("retries within their budget"))
    for counts in incarnations() {
      var (leastHedges, leastRetries) = (Double.infinity, Double.infinity)
      for count in counts {
        let hedged = count.hedgeLegs - 0.05 * count.primaryLegs
        let retried = count.retryLegs - 0.10 * count.primaryLegs - 2 * (count.at / .seconds(1))
        leastHedges = min(leastHedges, hedged)
        leastRetries = min(leastRetries, retried)
        let at = "c\(count.coordinator + 1) by \(moment(count.at))"
        hedges.note(
          hedged - leastHedges > Self.hedgesSaved ? "\(at): \(Int(hedged - leastHedges)) more than earned" : nil)
        retries.note(
          retried - leastRetries > Self.retriesSaved ? "\(at): \(Int(retried - leastRetries)) more than earned" : nil)
      }
    }
    return [hedges.invariant, retries.invariant]
  }

  /// The counts of one process each.
  private func incarnations() -> [[Evidence.Counts]] {
    let groups = Dictionary(grouping: evidence.counts) { [$0.coordinator, $0.start] }
    return groups.keys.sorted { $0.lexicographicallyPrecedes($1) }.compactMap { groups[$0] }
  }

  private func countsAgree() -> Invariant {
    var finding = Finding("metrics agree with what clients saw")
    for coordinator in 0..<evidence.scenario.cluster.coordinators {
      let mine = incarnations().filter { $0[0].coordinator == coordinator }
      // A process that died took its counts with it.
      guard mine.count == 1, let first = mine[0].first, let last = mine[0].last, mine[0].count > 1 else { continue }
      let requests = evidence.requests.filter { $0.coordinator == coordinator && $0.sent != nil }
      let received = Int(last.requests - first.requests)
      let (answers, errors) = (Int(last.answers - first.answers), Int(last.errors - first.errors))
      let cancelled = Int(last.cancelled - first.cancelled)
      func note(_ what: String, _ metric: Int, _ seen: Int) {
        finding.note(metric == seen ? nil : "c\(coordinator + 1): \(what): \(metric) by its metrics, \(seen) seen")
      }
      note("received = answered + failed + taken back", received, answers + errors + cancelled)
      let isClean = requests.allSatisfy { request in
        guard case .failed(let reason) = request.outcome else { return true }
        return !["connection lost", "timeout", "refused", "not connected"].contains(reason)
      }
      guard isClean else { continue }
      note("requests", received, requests.count)
      note("answers", answers, requests.count { !$0.body.isEmpty })
    }
    return finding.invariant
  }

  // MARK: Processes, faults, versions

  private func nobodyEnded() -> Invariant {
    var finding = Finding("no process ended unasked")
    for end in evidence.unasked {
      let isMeant = evidence.faults.contains { fault in
        [.memory, .restarts, .flip, .truncate, .swap].contains(fault.planned.kind)
          && fault.planned.victims.contains { end.what.hasPrefix($0 + " ") }
          && fault.began <= end.at && end.at <= fault.ended + .seconds(1)
      }
      finding.note(isMeant ? nil : "\(end.what) at \(moment(end.at))\(after(end.at))")
    }
    if evidence.unasked.isEmpty { finding.note(nil) }
    return finding.invariant
  }

  private func faultsWereDone() -> Invariant {
    var finding = Finding("each fault was done and undone")
    for fault in evidence.faults { finding.note(fault.trouble.map { "\(fault.planned.what): \($0)" }) }
    return finding.invariant
  }

  private func acknowledgedIsKept() -> Invariant {
    var finding = Finding("what was acknowledged is in the history, once")
    guard let history = evidence.history else {
      finding.note("the history cannot be read")
      return finding.invariant
    }
    for (index, line) in history.enumerated() {
      finding.note(line.sequence == history[0].sequence + index ? nil : "line \(index + 1) is number \(line.sequence)")
    }
    // No step of a rollout is taken twice.
    let steps = history.filter { $0.from != $0.to && !$0.rollout.isEmpty }
    for (name, lines) in Dictionary(grouping: steps, by: { "\($0.rollout): \($0.from) → \($0.to)" }) {
      finding.note(lines.count == 1 ? nil : "\(name): \(lines.count) times")
    }
    for said in evidence.acknowledged {
      let lines = history.filter { $0.sequence == said.sequence }
      let isThere = lines.count == 1 && lines[0].rollout == said.rollout && lines[0].to == said.to
      finding.note(
        isThere ? nil : "number \(said.sequence), \(said.rollout) to \(said.to), at \(moment(said.at)): \(lines.count)"
      )
    }
    return finding.invariant
  }

  private func poisonIsStopped() -> Invariant {
    var finding = Finding("no bad version served everybody")
    for poison in evidence.poisoned { finding.note(poison.served ? "\(poison.rollout) did" : nil) }
    return finding.invariant
  }

  /// A victim goes down once a fault and comes up once; nobody else goes down.
  private func nobodyFlaps() -> Invariant {
    var finding = Finding("no flapping")
    for coordinator in 0..<evidence.scenario.cluster.coordinators {
      let samples = evidence.samples.filter { $0.coordinator == coordinator }
      for worker in evidence.holdings.indices {
        var isDown = false
        var downs: [Int: Int] = [:]
        for sample in samples {
          guard let health = sample.workers?[worker] else { continue }
          let now = health == .down || health == .gone
          if now, !isDown {
            let fault = evidence.faults.last { struck($0, worker, coordinator) && $0.began <= sample.at }
            let number = fault?.planned.number ?? 0
            downs[number, default: 0] += 1
            let allowed = fault.map { Self.downsMax($0.planned.kind) } ?? 0
            finding.note(
              downs[number, default: 0] > allowed
                ? "w\(worker + 1) down at \(moment(sample.at))\(after(sample.at))" : nil)
          }
          isDown = now
        }
      }
      finding.note(nil)
    }
    return finding.invariant
  }

  private static func downsMax(_ kind: FaultKind) -> Int {
    switch kind {
    case .restarts, .memory, .reset: .max
    case .swap, .flip, .truncate: 3
    case .squeeze, .stall, .drip, .loss, .clock: 1
    default: kind.takesAway ? 1 : 0
    }
  }

  // MARK: What was away when

  /// Whether a fault struck a worker in the eyes of a coordinator.
  private static func struck(
    _ fault: Evidence.Fault, _ worker: Int, _ coordinator: Int, of workers: Int
  ) -> Bool {
    let planned = fault.planned
    switch planned.on {
    case .cluster where planned.kind == .split:
      return halfLost(by: coordinator, workers: workers).contains(worker)
    case .coordinator, .etcd, .cluster: return false
    case .worker, .pair, .link: return planned.victims.contains("w\(worker + 1)")
    case .oneLink: return planned.victims.contains("w\(worker + 1)") && planned.from == "c\(coordinator + 1)"
    }
  }
  private func struck(_ fault: Evidence.Fault, _ worker: Int, _ coordinator: Int) -> Bool {
    Self.struck(fault, worker, coordinator, of: evidence.holdings.count)
  }
  /// The workers that a coordinator does not see in a split: the second half for the first, the first for the second.
  static func halfLost(by coordinator: Int, workers: Int) -> Range<Int> {
    coordinator % 2 == 0 ? workers / 2..<workers : 0..<workers / 2
  }

  /// When some shard had no replica in reach of a coordinator.
  static func lost(_ evidence: Evidence, _ coordinator: Int) -> [Span] {
    let samples = evidence.samples.filter { $0.coordinator == coordinator }
    let away = evidence.holdings.indices.map { worker -> [Span] in
      evidence.faults.filter {
        $0.planned.kind.spoils && struck($0, worker, coordinator, of: evidence.holdings.count)
      }.map { fault in
        let back = samples.first { $0.at >= fault.ended && $0.workers?[worker] == .up }
        let returns = fault.ended + .seconds(evidence.scenario.limits.healedSeconds ?? returnsWithin)
        return fault.began...max(fault.ended, min(returns, back?.at ?? evidence.end))
      }
    }
    var lost: [Span] = []
    for shard in 0..<evidence.shards {
      let holders = evidence.holdings.indices.filter { evidence.holdings[$0].contains(shard) }
      guard let first = holders.first else { continue }
      var spans = away[first]
      for holder in holders.dropFirst() {
        spans = spans.flatMap { span in
          away[holder].filter { $0.overlaps(span) }.map { $0.clamped(to: span) }
        }
      }
      lost += spans
    }
    return lost
  }

  static func coordinatorAway(_ evidence: Evidence, _ coordinator: Int) -> [Span] {
    let samples = evidence.samples.filter { $0.coordinator == coordinator }
    let kinds: Set<FaultKind> = [.kill, .terminate, .freeze, .squeeze]
    return evidence.faults.filter {
      $0.planned.on == .coordinator && kinds.contains($0.planned.kind)
        && $0.planned.victims.contains("c\(coordinator + 1)")
    }.map { fault in
      let back = samples.first { $0.at >= fault.ended && $0.isWhole }
      let returns = fault.ended + .seconds(returnsWithin)
      return fault.began...(max(fault.ended, min(returns, back?.at ?? evidence.end)) + clientReturns)
    }
  }

  // MARK: Figures

  private func story(_ fault: Evidence.Fault) -> FaultStory {
    let coordinators = 0..<evidence.scenario.cluster.coordinators
    var noticed: [Duration?] = []
    var healed: [Duration?] = []
    for coordinator in coordinators {
      let samples = evidence.samples.filter { $0.coordinator == coordinator }
      for worker in evidence.holdings.indices where struck(fault, worker, coordinator) {
        noticed.append(
          samples.first { sample in
            guard sample.at >= fault.began, sample.at <= fault.ended + .seconds(1) else { return false }
            return [.down, .gone, .draining].contains(sample.workers?[worker] ?? .unknown)
          }.map { $0.at - fault.began })
      }
      healed.append(samples.first { $0.at >= fault.ended && $0.isWhole }.map { max(.zero, $0.at - fault.ended) })
    }
    let meanwhile = evidence.requests.filter { $0.due <= fault.ended && $0.ended >= fault.began }
    func latest(_ times: [Duration?]) -> Double? {
      guard !times.isEmpty, times.allSatisfy({ $0 != nil }) else { return nil }
      return times.compactMap { $0 }.max().map { rounded($0 / .seconds(1)) }
    }
    return FaultStory(
      number: fault.planned.number, what: fault.planned.what, kind: fault.planned.kind,
      began: rounded(fault.began / .seconds(1)), ended: rounded(fault.ended / .seconds(1)), noticed: latest(noticed),
      healed: latest(healed), slowestMilliseconds: meanwhile.map { inMilliseconds($0.latency) }.max() ?? 0,
      degraded: meanwhile.count { $0.outcome == .degraded },
      failed: meanwhile.count { if case .failed = $0.outcome { true } else { false } }, outcome: fault.outcome,
      trouble: fault.trouble)
  }

  private func figures(_ stories: [FaultStory]) -> [Figure] {
    let limits = evidence.scenario.limits
    func p99(_ requests: some Sequence<Evidence.Request>) -> Double {
      let latencies = requests.filter { !$0.body.isEmpty }.map { inMilliseconds($0.latency) }.sorted()
      return latencies.isEmpty ? .infinity : latencies[latencies.count * 99 / 100]
    }
    let healthy = p99(evidence.requests.filter { $0.due < evidence.baseline })
    let during = p99(evidence.requests.filter { $0.due >= evidence.baseline })
    var figures = [Figure("R, p99 when healthy", healthy, "ms"), Figure("p99 under faults", during, "ms")]
    if let ratio = limits.p99Ratio { figures.append(Figure("p99 ÷ R", during / healthy, "", .atMost(ratio))) }
    if let plus = limits.p99Plus { figures.append(Figure("p99 − R", during - healthy, "ms", .atMost(plus))) }
    let taking = stories.filter { ($0.kind?.takesAway ?? false) && $0.trouble == nil }
    let slowest = taking.map(\.slowestMilliseconds).max()
    if let slowest {
      figures.append(
        Figure(
          "slowest request around a fault", slowest, "ms", limits.slowestMilliseconds.map { .atMost($0) } ?? .none))
    }
    // A fault that was over sooner need not have been noticed.
    let noticeable = taking.filter { $0.ended - $0.began >= 1.5 && ($0.kind.map(Self.isNoticed) ?? false) }
    if !noticeable.isEmpty {
      let worst = noticeable.map { $0.noticed ?? .infinity }.max() ?? 0
      figures.append(
        Figure("victim held for down, at the latest", worst, "s", limits.noticedSeconds.map { .atMost($0) } ?? .none))
    }
    if !stories.isEmpty {
      let worst = stories.map { $0.healed ?? .infinity }.max() ?? 0
      figures.append(
        Figure(
          "whole again after a fault, at the latest", worst, "s", limits.healedSeconds.map { .atMost($0) } ?? .none))
    }
    return figures
  }
  private static func isNoticed(_ kind: FaultKind) -> Bool {
    switch kind {
    case .kill, .terminate, .freeze, .cut, .cutOut, .cutIn, .halfOpen, .split: true
    default: false
    }
  }

  private struct Finding {
    var invariant: Invariant
    init(_ name: String) { invariant = Invariant(name: name, checked: 0, violations: 0, examples: []) }
    /// - Parameter violation: what was found; nil = all is well.
    mutating func note(_ violation: String?) {
      invariant.checked += 1
      guard let violation else { return }
      invariant.violations += 1
      if invariant.examples.count < Judge.examplesMax { invariant.examples.append(violation) }
    }
  }
}

func rounded(_ value: Double) -> Double { (value * 1000).rounded() / 1000 }
private func moment(_ duration: Duration) -> String { String(format: "%.3f s", duration / .seconds(1)) }
