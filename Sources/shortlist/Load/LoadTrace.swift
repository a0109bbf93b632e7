import ClusterHarness

/// What became of each request of one run, in the order in which that was known: 24 bytes per request, so that any
/// piece of the run can be looked at afterwards.
struct LoadTrace: Sendable {
  enum Outcome: UInt8, Sendable { case ok, degraded, failed }
  struct Sample: Sendable {
    /// When it was due, counted from the start of the run.
    var due: Duration { .nanoseconds(dueNanoseconds) }
    var latency: Duration { .nanoseconds(latencyNanoseconds) }
    /// When the answer had come.
    var end: Duration { due + latency }
    fileprivate var dueNanoseconds: Int64
    fileprivate var latencyNanoseconds: Int64
    var outcome: Outcome
  }
  private(set) var samples: [Sample] = []

  mutating func add(due: Duration, latency: Duration, _ outcome: LoadTally.Outcome) {
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
  func window(from start: Duration, to end: Duration) -> LoadWindow {
    LoadWindow(samples.filter { $0.due >= start && $0.due < end }, start: start, length: end - start)
  }

  /// The whole run in windows of one length; the last may be cut short.
  func windows(of length: Duration) -> [LoadWindow] {
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
struct LoadWindow: Codable, Sendable, Equatable {
  var startSeconds: Double
  var ok = 0
  var degraded = 0
  var failed = 0
  /// Milliseconds; null when nothing was answered.
  var p50: Double?
  var p99: Double?
  var max: Double?

  enum CodingKeys: String, CodingKey {
    case ok, degraded, failed, p50, p99, max
    case startSeconds = "start_s"
  }

  init(_ samples: some Sequence<LoadTrace.Sample>, start: Duration, length: Duration) {
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
func inMilliseconds(_ duration: Duration) -> Double { (duration / .microseconds(1)).rounded() / 1000 }
