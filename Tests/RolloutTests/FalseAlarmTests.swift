import RankingCore
import Testing

@testable import Rollout

// How often a sound version is turned back by chance, and how soon a bad one is found: whole rollouts from shadow to
// the end of the canary with the default settings, 200 requests a second, the policy asked every second. Outcomes are
// drawn from a table, so that thousands of rollouts take seconds.

/// Outcomes of requests with their weights, out of 4096.
struct OutcomeTable {
  private(set) var outcomes: [TrafficCounts.Outcome] = []
  private var places: [UInt8] = []

  /// Both versions by default: 0.2 % errors, 0.5 % degraded answers, 0.5 % empty and 2 % short ones, a p99 of some 40
  /// ms.
  init(errors: Int = 8, slower: Duration = .zero, givesNaN: Bool = false) {
    let latencies: [(Int, Int)] = [
      (2, 900), (3, 1000), (4, 800), (5, 500), (6, 350), (8, 200), (12, 120), (20, 60), (40, 45), (80, 12),
    ]
    for (index, (milliseconds, weight)) in latencies.enumerated() {
      // Scores differ by request, not by version; more errors take from the fastest.
      add(index == 0 ? weight + 8 - errors : weight, slower + .milliseconds(milliseconds)) {
        $0.score = 1 + Double(index % 5) / 4
      }
    }
    add(errors, slower + .milliseconds(5)) { $0.isError = true }
    add(20, slower + .milliseconds(25)) { ($0.coverage, $0.score) = (0.94, 1.5) }
    add(20, slower + .milliseconds(3)) { ($0.isEmpty, $0.isShort) = (true, true) }
    add(60, slower + .milliseconds(3)) { ($0.isShort, $0.score) = (true, 1.5) }
    add(4096 - places.count, slower + .milliseconds(4)) { $0.score = 1.5 }
    guard givesNaN else { return }
    for index in outcomes.indices where !outcomes[index].isError {
      (outcomes[index].isEmpty, outcomes[index].isShort, outcomes[index].hasNaN) = (true, true, true)
      outcomes[index].score = nil
    }
  }
  private mutating func add(_ weight: Int, _ latency: Duration, _ change: (inout TrafficCounts.Outcome) -> Void) {
    var outcome = TrafficCounts.Outcome()
    outcome.latency = latency
    change(&outcome)
    places += [UInt8](repeating: UInt8(outcomes.count), count: max(0, weight))
    outcomes.append(outcome)
  }
  /// How often each outcome came.
  func draw(_ requests: Int, _ generator: inout SeededGenerator) -> [Int] {
    var counts = [Int](repeating: 0, count: outcomes.count)
    var bits: UInt64 = 0
    for request in 0..<requests {
      if request % 5 == 0 { bits = generator.next() }
      counts[Int(places[Int(bits & 4095)])] += 1
      bits >>= 12
    }
    return counts
  }
}

struct GuardRun {
  var requestsPerSecond = 200
  var old = OutcomeTable()
  var new = OutcomeTable()
  var overlap = 0.5
  var settings = RolloutSettings()
  /// Where it begins.
  var stage = RolloutStage.shadow
  var step = 0
  /// The new version is as sound as the old before this canary step.
  var soundBelow: Int?

  /// Where a rollout was turned back, by which guard, and how long after the stage began; nil = it went all the way.
  struct Trip {
    var stage: String
    var why: String
    var seconds: Int
    var name: String { String(why.dropFirst(6).prefix { $0 != ":" }) }
  }

  func run(seed: UInt64) -> Trip? {
    var generator = SeededGenerator(seed: StableHash.mix(seed &+ 1))
    var document = RolloutDocument()
    let (old, new) = (World.id("home/v41"), World.id("home/v42"))
    for command in [
      RolloutCommand.adopt(model: "home", version: "v41"),
      .start(model: "home", version: "v42", settings: settings),
    ] {
      if case .success(let decision) = document.applying(command, who: "ada", atMilliseconds: 0) {
        document = decision.document
      }
    }
    document.models[0].rollout?.stage = stage
    document.models[0].rollout?.step = step
    document.models[0].rollout?.memory = .beside
    var observed = Observed()
    observed.replicas = 1
    observed.bundles = [
      .init(release: old, bytesPerShard: [1]), .init(release: new, bytesPerShard: [1], golden: .passed),
    ]
    observed.workers = [
      .init(
        name: "w1",
        holdings: [
          .init(release: old, ready: [ShardID(0)]),
          .init(release: new, ready: [ShardID(0)], verified: .passed, isWarm: true),
        ])
    ]
    observed.traffic = [.init(release: old), .init(release: new)]
    observed.shadows = [.init(rollout: "home-2")]
    var memory = RolloutMemory()
    var (seconds, began) = (0, 0)
    while let rollout = document.models[0].rollout, rollout.stage.isForward {
      let now = Instant(nanoseconds: UInt64(seconds) * 1_000_000_000)
      if let decision = RolloutPolicy.step(document, observed, memory: &memory, now: now, atMilliseconds: 0) {
        if decision.entry.to == "rolling_back" {
          return Trip(stage: decision.entry.from, why: decision.entry.why, seconds: seconds - began)
        }
        document = decision.document
        began = seconds
        continue
      }
      seconds += 1
      let wanted = (requestsPerSecond * rollout.share + generator.below(10_000)) / 10_000
      record(self.old, requestsPerSecond - wanted, into: &observed.traffic[0].counts, &generator)
      let isSound = soundBelow.map { rollout.stage != .canary || rollout.step < $0 } ?? false
      record(isSound ? self.old : self.new, wanted, into: &observed.traffic[1].counts, &generator)
      if rollout.stage == .shadow {
        let pairs = requestsPerSecond * rollout.settings.shadowShare / 10_000
        for (outcome, times) in zip(self.new.outcomes, self.new.draw(pairs, &generator)) where times > 0 {
          observed.shadows[0].counts.record(
            old: TrafficCounts.Outcome(), new: outcome,
            overlap: outcome.isError || outcome.isEmpty ? nil : overlap, times: times)
        }
      }
    }
    return nil
  }
  private func record(
    _ table: OutcomeTable, _ requests: Int, into counts: inout TrafficCounts, _ generator: inout SeededGenerator
  ) {
    for (outcome, times) in zip(table.outcomes, table.draw(requests, &generator)) where times > 0 {
      counts.record(outcome, times: times)
    }
  }
}

/// Measured with `swift test -c release -Xswiftc -enable-testing --filter FalseAlarmTests`: of 2000 sound versions
/// none was turned back. A debug build, which is slow, looks at fewer.
@Suite struct FalseAlarmTests {
  #if DEBUG
    static let perBlock: UInt64 = 2
  #else
    static let perBlock: UInt64 = 250
  #endif
  static func tripped(_ run: GuardRun, _ seeds: Range<UInt64>) -> [String] {
    seeds.compactMap { seed in run.run(seed: seed).map { "seed \(seed): \($0.stage) \($0.why)" } }
  }
  static func seeds(_ block: UInt64) -> Range<UInt64> { block * perBlock..<(block + 1) * perBlock }

  @Test(arguments: 0..<8 as Range<UInt64>)
  func aSoundVersionIsNotTurnedBack(block: UInt64) {
    #expect(Self.tripped(GuardRun(), Self.seeds(block)) == [])
  }

  /// The hardest sound version: as bad as the limits just allow, which leaves chance alone to tell.
  static func atTheLimit(evidence: Double) -> GuardRun {
    var run = GuardRun()
    run.settings.evidence = evidence
    for limit in [\GuardLimits.errorRate, \.coverage, \.emptyAnswers, \.shortAnswers] {
      run.settings.guards[keyPath: limit].absolute = 0
      run.settings.guards[keyPath: limit].relative = 1
    }
    return run
  }
  @Test(arguments: 8..<16 as Range<UInt64>)
  func norOneAtTheLimit(block: UInt64) {
    #expect(Self.tripped(Self.atTheLimit(evidence: 16), Self.seeds(block)) == [])
  }
  /// That these rollouts are noisy enough to tell anything: with a laxer bound they do trip.
  @Test func withLittleEvidenceItWouldBe() {
    #expect(Self.tripped(Self.atTheLimit(evidence: 2), 0..<Self.perBlock).count >= Int(Self.perBlock) / 2)
  }
}
