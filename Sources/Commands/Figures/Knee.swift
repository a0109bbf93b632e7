import ClusterHarness
import Foundation
import Terminal

// The knee: the highest rate at which everything is answered and 99 % of it within 25 ms. Rows use half of it.

extension FigureRig {
  static let kneeP99 = 25.0

  /// Finds the knee, and the best rate of complete answers at any load, on a cluster of its own.
  func findKnee() throws -> (knee: Double, peak: Double) {
    let cluster = try cluster()
    defer { cluster.stop() }
    var peak = 0.0
    func holds(_ rate: Double, for duration: Duration) throws -> Bool {
      let run = try run(try generator(cluster, rate: rate, for: duration, connections: 16))
      peak = max(peak, Double(run.tally.ok) / (run.elapsed / .seconds(1)))
      let isFine = run.failures == 0 && run.tally.degraded == 0 && run.p99 <= Self.kneeP99
      say(
        "knee: \(Int(rate))/s \(isFine ? "holds" : "does not hold"): p99 \(String(format: "%.1f", run.p99)) ms, "
          + "\(run.tally.degraded) degraded, \(run.failures) failed \(run.failureText)")
      return isFine
    }
    let step: Duration = quick ? .seconds(3) : .seconds(5)
    _ = try holds(100, for: .seconds(3))
    var (low, high) = (100.0, 0.0)
    var rate = 200.0
    while high == 0 {
      if try holds(rate, for: step) { (low, rate) = (rate, rate * 1.5) } else { high = rate }
      if rate > 50_000 { break }
    }
    while high / low > 1.12 {
      let middle = (low * high).squareRoot()
      if try holds(middle, for: step) { low = middle } else { high = middle }
    }
    // More than the knee, for the peak of what can be answered in full.
    for factor in [1.3, 1.8] { _ = try holds(low * factor, for: step) }
    return (low, peak)
  }
}
