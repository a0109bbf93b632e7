import ClusterHarness
import Testing

@testable import ClusterLoad
@testable import Commands
@testable import Terminal

@Suite struct LoadTests {
  @Test func constantArrivalsAreOnTimeHoweverManyCame() {
    var schedule = ArrivalSchedule(rate: 300, poisson: false, seed: 1)
    var last: Duration = .zero
    for _ in 0...30_000 { last = schedule.next() }
    #expect(last == .seconds(100))
  }

  @Test func poissonArrivalsHaveTheRateAndRepeatForASeed() {
    var first = ArrivalSchedule(rate: 100, poisson: true, seed: 7)
    var second = ArrivalSchedule(rate: 100, poisson: true, seed: 7)
    var other = ArrivalSchedule(rate: 100, poisson: true, seed: 8)
    var last: Duration = .zero
    var gaps = LatencyHistogram()
    for _ in 0..<10_000 {
      let next = first.next()
      #expect(next == second.next())
      #expect(next >= last)
      gaps.record(next - last)
      last = next
    }
    #expect(other.next() != ArrivalSchedule(rate: 100, poisson: true, seed: 7).first)
    #expect(abs(last / .seconds(1) - 100) < 4)
    // The median gap of an exponential distribution is ln 2 of the mean.
    #expect(abs((gaps.quantile(0.5) ?? .zero) / .milliseconds(1) - 6.93) < 0.4)
  }

  @Test func everyRequestIsCountedOnce() {
    var tally = LoadTally()
    tally.add(.ok, latency: .milliseconds(2))
    tally.add(.degraded, latency: .milliseconds(4))
    tally.add(.failed("overloaded"), latency: .seconds(9))
    tally.add(.failed("overloaded"), latency: .seconds(9))
    let report = LoadReport(tally, rate: 2, elapsed: .seconds(2))
    #expect(report.sent == 4 && report.ok == 1 && report.degraded == 1)
    #expect(report.failed == ["overloaded": 2])
    #expect(report.max == 4)
    #expect(report.refusedP99 == ["overloaded": 9000] && report.refusedMax == ["overloaded": 9000])
    #expect(report.achievedRate == 1)
    #expect(LoadReport(LoadTally(), rate: 2, elapsed: .zero).p99 == nil)
  }

  @Test func windowsAreByWhenRequestsWereDue() {
    var trace = LoadTrace()
    // Answers come in another order than requests; a failure has no latency worth a percentile.
    trace.add(due: .milliseconds(1900), latency: .milliseconds(3), .ok)
    trace.add(due: .milliseconds(100), latency: .milliseconds(2500), .degraded)
    trace.add(due: .milliseconds(2000), latency: .milliseconds(9), .failed("overloaded"))
    trace.add(due: .milliseconds(999), latency: .milliseconds(7), .ok)
    let windows = trace.windows(of: .seconds(1))
    #expect(windows.map(\.startSeconds) == [0, 1, 2])
    #expect(windows.map(\.ok) == [1, 1, 0])
    #expect(windows.map(\.degraded) == [1, 0, 0] && windows.map(\.failed) == [0, 0, 1])
    #expect(windows.map(\.p50) == [7, 3, nil] && windows.map(\.max) == [2500, 3, nil])
    #expect(trace.window(from: .milliseconds(999), to: .milliseconds(2000)).ok == 2)
  }

  @Test(arguments: [
    (#"{"items":[],"coverage":{"shards":16,"answered":16,"items":1}}"#, true),
    (#"{"items":[],"coverage":{"shards":16,"answered":15,"missing":[{"shard":7}]}}"#, false),
    (#"{"items":[{"id":"\"coverage\":{\"shards\":1"}],"coverage": {"shards": 4, "answered": 4}}"#, true),
    (#"{"error":{"code":"unavailable"}}"#, nil),
    ("", nil),
  ])
  func coverageIsReadFromAnAnswer(body: String, complete: Bool?) {
    #expect(LoadGenerator.isComplete(Array(body.utf8)) == complete)
  }
}

extension ArrivalSchedule {
  /// The first time of a fresh schedule.
  fileprivate var first: Duration {
    var copy = self
    return copy.next()
  }
}
