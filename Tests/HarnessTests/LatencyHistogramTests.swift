import ClusterHarness
import Testing

@Suite struct LatencyHistogramTests {
  @Test func anEmptyOneHasNoQuantiles() {
    #expect(LatencyHistogram().quantile(0.5) == nil)
    #expect(LatencyHistogram().max == .zero)
  }

  @Test func smallValuesAreExact() {
    var histogram = LatencyHistogram()
    for value in 1...100 { histogram.record(.nanoseconds(value)) }
    #expect(histogram.quantile(0.5) == .nanoseconds(50))
    #expect(histogram.quantile(0.99) == .nanoseconds(99))
    #expect(histogram.quantile(1) == .nanoseconds(100))
    #expect(histogram.quantile(0) == .nanoseconds(1))
  }

  /// Against sorting, over twelve orders of magnitude: three significant digits, never below the true value.
  @Test(arguments: [1, 2, 3] as [UInt64])
  func quantilesAgreeWithSorting(seed: UInt64) throws {
    var state = seed
    var values: [Int64] = []
    var histogram = LatencyHistogram()
    for _ in 0..<5000 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      let value = Int64(state >> 24) >> Int64(state >> 58 & 31)
      values.append(value)
      histogram.record(.nanoseconds(value))
    }
    values.sort()
    for fraction in [0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1] {
      let exact = values[Int((fraction * 5000).rounded(.up)) - 1]
      let told = try #require(histogram.quantile(fraction)).components
      let nanoseconds = told.seconds * 1_000_000_000 + told.attoseconds / 1_000_000_000
      #expect(nanoseconds >= exact)
      #expect(Double(nanoseconds - exact) <= Double(exact) / 1000 + 1, "\(fraction): \(nanoseconds) for \(exact)")
    }
  }

  @Test func extremesAreKept() {
    var histogram = LatencyHistogram()
    histogram.record(.seconds(-5))
    histogram.record(.seconds(Int64.max))
    histogram.record(.seconds(Int64.min))
    #expect(histogram.count == 3)
    #expect(histogram.quantile(0.5) == .zero)
    #expect(histogram.max == .seconds(Int64.max))
  }

  @Test func addingIsRecordingBoth() {
    var first = LatencyHistogram()
    var second = LatencyHistogram()
    var both = LatencyHistogram()
    for value in 0..<1000 {
      if value % 3 == 0 { first.record(.microseconds(value)) } else { second.record(.microseconds(value)) }
      both.record(.microseconds(value))
    }
    first.add(second)
    #expect(first == both)
  }
}
