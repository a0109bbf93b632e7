import ClusterHarness
import Terminal

/// What became of each request of one run, in the order in which that was known: 24 bytes per request, so that any
/// piece of the run can be looked at afterwards.
package struct LoadTrace: Sendable {
  package enum Outcome: UInt8, Sendable { case ok, degraded, failed }
  package struct Sample: Sendable {
    /// When it was due, counted from the start of the run.
    package var due: Duration { .nanoseconds(dueNanoseconds) }
    package var latency: Duration { .nanoseconds(latencyNanoseconds) }
    /// When the answer had come.
    package var end: Duration { due + latency }
    fileprivate var dueNanoseconds: Int64
    fileprivate var latencyNanoseconds: Int64
    package var outcome: Outcome
  }
  package private(set) var samples: [Sample] = []

  package mutating func add(due: Duration, latency: Duration, _ outcome: LoadTally.Outcome) {
    let kind: Outcome =
      switch outcome {
      case .ok: .ok
      case .degraded: .degraded
      case .failed: .failed
      }
    samples.append(
      Sample(dueNanoseconds: nanoseconds(due), latencyNanoseconds: nanoseconds(latency), outcome: kind))
  }
  private func nanoseconds(_ duration: Duration) -> Int64 {
    duration.components.seconds * 1_000_000_000 + duration.components.attoseconds / 1_000_000_000
  }

  /// The requests that were due from `start` to before `end`.
  package func window(from start: Duration, to end: Duration) -> LoadWindow {
    LoadWindow(samples.filter { $0.due >= start && $0.due < end }, start: start, length: end - start)
  }

  /// The whole run in windows of one length; the last may be cut short.
  package func windows(of length: Duration) -> [LoadWindow] {
    var pieces: [[Sample]] = []
    for sample in samples {
      let index = Int(sample.due / length)
      while pieces.count <= index { pieces.append([]) }
      pieces[index].append(sample)
    }
    return pieces.enumerated().map { LoadWindow($0.element, start: length * $0.offset, length: length) }
  }
}

/// One piece of a run.
package struct LoadWindow: Codable, Sendable, Equatable {
  package var startSeconds: Double
  package var ok = 0
  package var degraded = 0
  package var failed = 0
  /// Milliseconds; null when nothing was answered.
  package var p50: Double?
  package var p99: Double?
  package var max: Double?

  package enum CodingKeys: String, CodingKey {
    case ok, degraded, failed, p50, p99, max
    case startSeconds = "start_s"
  }

  package init(_ samples: some Sequence<LoadTrace.Sample>, start: Duration, length: Duration) {
    startSeconds = start / .seconds(1)
    var answered: [Duration] = []
    for sample in samples {
      switch sample.outcome {
      case .ok: ok += 1
      case .degraded: degraded += 1
      case .failed: failed += 1
      }
      if sample.outcome != .failed { answered.append(sample.latency) }
    }
    answered.sort()
    func quantile(_ fraction: Double) -> Double? {
      guard !answered.isEmpty else { return nil }
      let rank = Swift.max(1, Int((fraction * Double(answered.count)).rounded(.up)))
      return inMilliseconds(answered[rank - 1])
    }
    p50 = quantile(0.5)
    p99 = quantile(0.99)
    max = quantile(1)
  }
}

/// To the microsecond.
package func inMilliseconds(_ duration: Duration) -> Double { (duration / .microseconds(1)).rounded() / 1000 }
