import RankingCore
import Testing
import Wire

@testable import Rollout

@Suite struct TrafficReportTests {
  private static func counts(_ seed: UInt64) -> TrafficCounts {
    var generator = SeededGenerator(seed: seed)
    var counts = TrafficCounts()
    for _ in 0..<200 {
      var outcome = TrafficCounts.Outcome()
      outcome.isError = generator.below(10) == 0
      outcome.coverage = generator.unit()
      outcome.isEmpty = generator.below(9) == 0
      outcome.isShort = generator.below(4) == 0
      outcome.hasNaN = generator.below(30) == 0
      outcome.latency = .microseconds(generator.below(90_000))
      outcome.score = outcome.isEmpty ? nil : generator.unit() * 4 - 2
      counts.record(outcome)
    }
    return counts
  }
  private static func decoded(_ bytes: [UInt8]) throws -> TrafficReport {
    try bytes.withUnsafeBytes { (raw) throws(WireError) in try TrafficReport(decoding: raw) }
  }
  private static var report: TrafficReport {
    var shadow = ShadowCounts()
    shadow.record(old: .init(), new: .init(), overlap: 0.4, correlation: -0.5, times: 7)
    return TrafficReport(
      revision: 77,
      traffic: [
        Observed.Traffic(release: ModelVersion(model: "home", version: "v1"), inFlight: 3, counts: counts(1)),
        Observed.Traffic(release: ModelVersion(model: "home", version: "v2"), counts: counts(2)),
      ], shadows: [Observed.Shadow(rollout: "home-7", counts: shadow)])
  }

  @Test func roundTrip() throws {
    #expect(try Self.decoded(Self.report.encoded()) == Self.report)
    #expect(try Self.decoded([]) == TrafficReport())
  }

  @Test func hostileBytesAreRefusedAndNeverTrap() throws {
    let bytes = Self.report.encoded()
    var generator = SeededGenerator(seed: 9)
    var accepted = 0
    for round in 0..<4000 {
      var broken = bytes
      if round % 3 == 0 { broken.removeLast(generator.below(broken.count)) }
      for _ in 0..<(1 + generator.below(4)) where !broken.isEmpty {
        broken[generator.below(broken.count)] = UInt8(truncatingIfNeeded: generator.next())
      }
      guard let report = try? Self.decoded(broken) else { continue }
      accepted += 1
      for part in report.traffic {
        #expect(part.counts.errors <= part.counts.requests && part.counts.requests <= 1 << 48)
        #expect(part.counts.scoreSum.isFinite && part.counts.coverageLost >= 0)
      }
      // What the driver does with it.
      var sum = report
      sum.traffic.indices.forEach { sum.traffic[$0].counts += Self.counts(3) }
    }
    #expect(accepted > 100)
  }

  @Test func countsThatNoProcessHasAreRefused() {
    var writer = ProtoWriter()
    writer.message(1) { writer in
      writer.string(1, "home")
      writer.message(4) { writer in
        writer.packed(1, [1, 2, 0, 0, 0, 0] as [UInt64])
        writer.packed(2, [0, 0, 0] as [Double])
        writer.packed(3, [UInt64](repeating: 0, count: LatencyCounts.buckets))
      }
    }
    let bytes = writer.bytes
    #expect(throws: WireError.self) { try Self.decoded(bytes) }
  }
}
