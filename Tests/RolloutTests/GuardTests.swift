import RankingCore
import Testing

@testable import Rollout

@Suite struct EvidenceTests {
  @Test func logarithmAndDivergence() {
    for x in [1e-12, 0.001, 0.5, 1, 2, 1e6] {
      #expect((Exponential.of(Evidence.log(x)) / x - 1).magnitude < 1e-12)
    }
    #expect(Evidence.divergence(0.3, 0.3) == 0)
    #expect((Evidence.divergence(0, 0.1) - 0.105360515657826).magnitude < 1e-14)
    #expect((Evidence.divergence(1, 0.01) - 4.605170185988091).magnitude < 1e-12)
    #expect(
      Evidence.divergence(0.5, 0) == .infinity && Evidence.divergence(0, 0) == 0 && Evidence.divergence(1, 1) == 0)
  }

  /// The file's own example.
  @Test func theExample() {
    let evidence = Evidence.above((12, 240), old: (0, 2400), absolute: 0.005, relative: 1.5)
    #expect((evidence - 17.1).magnitude < 0.05, "\(evidence)")
  }

  @Test func theLeastOverQIsTheLeastOfAFineGrid() {
    var generator = SeededGenerator(seed: 1)
    for _ in 0..<300 {
      let new = (sum: Double(generator.below(60)), count: 60 + generator.below(500))
      let old = (sum: Double(generator.below(40)), count: 40 + generator.below(2000))
      let (absolute, relative) = (generator.unit() * 0.05, 0.5 + 2 * generator.unit())
      let found = Evidence.above(new, old: old, absolute: absolute, relative: relative)
      let seen = old.sum / Double(old.count)
      let highest = min(1, 1 / relative)
      var least = Double.infinity
      for step in 0...2000 {
        let q = min(seen, highest) + (highest - min(seen, highest)) * Double(step) / 2000
        let limit = max(absolute, min(1, relative * q))
        let against = q > seen ? Double(old.count) * Evidence.divergence(seen, q) : 0
        least = min(least, against + Evidence.above(new.sum, of: new.count, limit: limit))
      }
      let most = max(least + 1e-9, Evidence.negligible)
      #expect(found <= most && found >= least * 0.98 - 0.05, "\(new) \(old): \(found), on the grid \(least)")
    }
  }

  /// Chernoff's bound against the exact binomial tail.
  @Test func theBoundHolds() {
    for (count, share) in [(50, 0.01), (200, 0.005), (400, 0.05), (30, 0.3)] {
      // P(X ≥ k), from the top down.
      var probability = 1.0
      for _ in 0..<count { probability *= share }
      var tail = 0.0
      for k in stride(from: count, through: 1, by: -1) {
        tail += probability
        let bound = Exponential.of(-Evidence.above(Double(k), of: count, limit: share))
        if Double(k) > share * Double(count) { #expect(tail <= bound * (1 + 1e-9), "\(k) of \(count) at \(share)") }
        probability *= Double(k) / Double(count - k + 1) * (1 - share) / share
      }
    }
  }
}

@Suite struct GuardTests {
  static func counts(
    _ requests: Int, errors: Int = 0, _ change: (inout TrafficCounts.Outcome) -> Void = { _ in }
  )
    -> TrafficCounts
  {
    var counts = TrafficCounts()
    var outcome = TrafficCounts.Outcome()
    outcome.latency = .milliseconds(4)
    change(&outcome)
    counts.record(outcome, times: requests - errors)
    outcome.isError = true
    counts.record(outcome, times: errors)
    return counts
  }
  func tripped(
    _ new: TrafficCounts, _ old: TrafficCounts, isAlone: Bool = false, shadow: ShadowCounts? = nil,
    _ change: (inout GuardLimits) -> Void = { _ in }
  ) -> [String] {
    var limits = GuardLimits()
    change(&limits)
    return Comparison(new: new, old: old, isAlone: isAlone, shadow: shadow, limits: limits, evidence: 16).figures
      .filter(\.isTripped).map { "\($0.name): \($0.text)" }
  }

  /// What may not trip yet may hold a stage: there is evidence from the first observation on, where there is an old
  /// version to compare with.
  @Test func evidenceBelowTheFloor() {
    func evidence(_ name: GuardName, new: TrafficCounts, old: TrafficCounts, pairs: Int = 0) -> Double? {
      var shadow = ShadowCounts()
      shadow.record(
        old: TrafficCounts.Outcome(), new: TrafficCounts.Outcome(), overlap: 0, correlation: 0, times: pairs)
      let figures = Comparison(
        new: new, old: old, shadow: shadow, limits: GuardLimits(), evidence: 16
      ).figures
      #expect(figures.filter(\.isTripped).isEmpty)
      return figures.first { $0.name == name.rawValue }?.evidence
    }
    let few = Self.counts(20, errors: 10)
    #expect(evidence(.errorRate, new: few, old: Self.counts(20)) ?? 0 > 1)
    #expect(evidence(.errorRate, new: few, old: TrafficCounts()) == 0)
    let slow = Self.counts(20) { $0.latency = .milliseconds(54) }
    #expect(evidence(.latencyP99, new: slow, old: Self.counts(20)) ?? 0 > 1)
    #expect(evidence(.overlap, new: few, old: few, pairs: 20) ?? 0 > 1)
  }

  @Test func errors() {
    #expect(
      tripped(Self.counts(240, errors: 12), Self.counts(2400)) == [
        "error_rate: 5.0 % of 240 requests against 0.0 % of 2400, limit 0.5 %; evidence 17.1 of 16.0"
      ])
    #expect(tripped(Self.counts(240, errors: 6), Self.counts(2400)) == [], "chance")
    #expect(tripped(Self.counts(99, errors: 99), Self.counts(2400)) == [], "below the sample floor")
    #expect(tripped(Self.counts(240, errors: 12), Self.counts(2400, errors: 120)) == [], "as bad as the old one")
    #expect(tripped(Self.counts(100_000, errors: 490), Self.counts(100_000)) == [], "below the absolute limit")
    #expect(
      tripped(Self.counts(10_000, errors: 1400), Self.counts(10_000, errors: 1000)) == [], "below the relative one")
    #expect(tripped(Self.counts(10_000, errors: 2000), Self.counts(10_000, errors: 1000)).count == 1)
    #expect(tripped(Self.counts(240, errors: 12), Self.counts(2400)) { $0.errorRate.isOn = false } == [])
  }

  @Test func withoutTheOldVersionItWaitsOrTheAbsoluteLimitRules() {
    #expect(tripped(Self.counts(240, errors: 12), Self.counts(50)) == [])
    #expect(tripped(Self.counts(1000, errors: 1000), Self.counts(50)) == [], "beyond doubt, and yet too few of the old")
    let slow = Self.counts(1000) { $0.latency = .milliseconds(54) }
    #expect(tripped(slow, Self.counts(50)) == [])
    #expect(tripped(Self.counts(240, errors: 12), TrafficCounts(), isAlone: true).count == 1)
  }

  @Test func latency() {
    let slow = Self.counts(100) { $0.latency = .milliseconds(54) }
    #expect(
      tripped(slow, Self.counts(10_000)) == [
        "latency_p99: p99 54.5 ms against 4.2 ms; 100 of 100 requests slower than 9.2 ms against 0 of 10000, limit "
          + "1 %; evidence 460.5 of 16.0"
      ])
    #expect(tripped(Self.counts(100) { $0.latency = .milliseconds(8) }, Self.counts(10_000)) == [], "4 ms more")
    let old = Self.counts(10_000) { $0.latency = .milliseconds(100) }
    #expect(tripped(Self.counts(1000) { $0.latency = .milliseconds(120) }, old) == [], "20 % more")
    #expect(tripped(Self.counts(1000) { $0.latency = .milliseconds(150) }, old).count == 1)
    var tail = Self.counts(980)
    tail += Self.counts(20) { $0.latency = .milliseconds(100) }
    #expect(tripped(tail, Self.counts(100_000)) == [], "2 % above the p99 of a thousand may be chance")
    for _ in 0..<4 { tail += tail }
    #expect(tripped(tail, Self.counts(100_000)).count == 1)
  }

  @Test func coverageEmptyShortAndNaN() {
    let names = { (list: [String]) in list.map { String($0.prefix { $0 != ":" }) } }
    #expect(names(tripped(Self.counts(300) { $0.coverage = 0.93 }, Self.counts(3000))) == ["coverage"])
    #expect(names(tripped(Self.counts(300) { $0.coverage = 0.99 }, Self.counts(3000))) == [])
    #expect(
      names(tripped(Self.counts(300) { ($0.isEmpty, $0.isShort, $0.hasNaN) = (true, true, true) }, Self.counts(3000)))
        == ["empty_answers", "short_answers", "nan_scores"])
    #expect(names(tripped(Self.counts(300) { $0.isShort = true }, Self.counts(3000) { $0.isShort = true })) == [])
  }

  @Test func drift() {
    func scored(_ mean: Double, _ count: Int) -> TrafficCounts {
      var counts = Self.counts(count / 2) { $0.score = mean - 1 }
      counts += Self.counts(count / 2) { $0.score = mean + 1 }
      return counts
    }
    #expect(tripped(scored(12.9, 1000), scored(10, 1000)).count == 1)
    #expect(tripped(scored(11.9, 1000), scored(10, 1000)) == [], "within two standard deviations")
    #expect(tripped(scored(2.9e149, 1000), scored(10, 1000)).count == 1)
    var odd = TrafficCounts.Outcome()
    odd.score = .nan
    var counts = TrafficCounts()
    counts.record(odd, times: 500)
    odd.score = .infinity
    counts.record(odd, times: 500)
    #expect(counts.scored == 0 && tripped(counts, scored(10, 1000)) == [])
  }

  @Test func overlapAndCorrelation() {
    func shadow(_ overlap: Double, _ correlation: Double, _ count: Int) -> ShadowCounts {
      var counts = ShadowCounts()
      counts.record(
        old: TrafficCounts.Outcome(), new: TrafficCounts.Outcome(), overlap: overlap, correlation: correlation,
        times: count)
      return counts
    }
    let sound = Self.counts(1000)
    #expect(
      tripped(sound, sound, shadow: shadow(0, 1, 200)) == [
        "overlap: mean 0.000 of 200 pairs, at least 0.100; evidence 21.1 of 16.0"
      ])
    #expect(tripped(sound, sound, shadow: shadow(0, 1, 99)) == [])
    #expect(tripped(sound, sound, shadow: shadow(0.11, 1, 100_000)) == [])
    #expect(tripped(sound, sound, shadow: shadow(0.5, -0.5, 1000)) == [], "off by default")
    #expect(tripped(sound, sound, shadow: shadow(0.5, -0.5, 1000)) { $0.rankCorrelation.isOn = true }.count == 1)
  }

  @Test func bucketsAreAnEighthWide() {
    var last = Duration.zero
    for bucket in 0..<LatencyCounts.buckets {
      let end = LatencyCounts.upperEnd(bucket)
      #expect(LatencyCounts.bucket(end) == bucket)
      #expect(LatencyCounts.bucket(end + .nanoseconds(1)) == min(bucket + 1, LatencyCounts.buckets - 1))
      if bucket >= 16 { #expect((end - last).nanoseconds * 8 <= end.nanoseconds) }
      last = end
    }
    #expect(LatencyCounts.bucket(.seconds(-1)) == 0)
    #expect(LatencyCounts.bucket(.seconds(1_000_000)) == LatencyCounts.buckets - 1)
  }
}
