import Foundation
import Synchronization
import Terminal

/// Load that runs while something else is done.
package final class BackgroundLoad: Sendable {
  /// When its first request was due.
  package let start: Duration
  private let stopping: Flag
  private let state: Ending

  private final class Flag: Sendable {
    package let value = Mutex(false)
  }
  private final class Ending: @unchecked Sendable {
    package let begun = DispatchSemaphore(value: 0)
    package let over = DispatchSemaphore(value: 0)
    package let start = Mutex<Duration>(.zero)
    package let result = Mutex<Result<LoadGenerator.Run, any Error>?>(nil)
  }

  /// Returns when the first request is due.
  package init(_ generator: LoadGenerator) throws {
    let (stopping, state) = (Flag(), Ending())
    let thread = Thread {
      let result = Result {
        try generator.run(
          stopped: { stopping.value.withLock { $0 } },
          started: { start in
            state.start.withLock { $0 = start }
            state.begun.signal()
          })
      }
      state.result.withLock { $0 = result }
      state.begun.signal()
      state.over.signal()
    }
    thread.name = "load"
    thread.start()
    state.begun.wait()
    self.stopping = stopping
    self.state = state
    start = state.start.withLock { $0 }
  }

  /// The time in the run.
  package var now: Duration { Monotonic.now - start }
  /// Sleeps until this time in the run.
  package func wait(until time: Duration) { Monotonic.wait(until: start + time) }

  /// Sends no more, waits for what is under way, and tells what became of everything; to be called once.
  package func stop() throws -> LoadGenerator.Run {
    stopping.value.withLock { $0 = true }
    return try result()
  }
  /// The same after the whole duration.
  package func result() throws -> LoadGenerator.Run {
    state.over.wait()
    guard let result = state.result.withLock({ $0 }) else { throw CommandError("the load ended without a result") }
    return try result.get()
  }
}

extension LoadGenerator.Run {
  package var p99: Double { tally.latencies.quantile(0.99).map(inMilliseconds) ?? .infinity }
  package var failures: Int { tally.failures }
  /// The reasons of failures, for a note.
  package var failureText: String {
    tally.failed.sorted { $0.key < $1.key }.map { "\($0.value) × \($0.key)" }.joined(separator: ", ")
  }
  /// When answers were not complete, or not given, counted from the last of some events before each: a line for every
  /// event that was followed by any.
  package func troubles(since events: [(what: String, at: Duration)]) -> [String] {
    let bad = trace.samples.filter { $0.outcome != .ok }
    return events.indices.compactMap { index in
      let end = index + 1 < events.count ? events[index + 1].at : .seconds(1 << 30)
      let mine = bad.filter { $0.end >= events[index].at && $0.end < end }.map { $0.end - events[index].at }.sorted()
      guard let first = mine.first, let last = mine.last else { return nil }
      let gap = index > 0 ? Int((events[index].at - events[index - 1].at) / .milliseconds(1)) : 0
      let before = index > 0 ? ", \(gap) ms after \(events[index - 1].what)" : ""
      let at = Int(events[index].at / .milliseconds(1))
      return "\(events[index].what) at \(at) ms\(before): \(mine.count) answers "
        + "\(Int(first / .milliseconds(1))) to \(Int(last / .milliseconds(1))) ms later"
    }
  }
  /// The slowest answer to a request that was under way at some time from `start` to `end`.
  package func slowest(from start: Duration, to end: Duration) -> Double {
    trace.samples.lazy.filter { $0.due < end && $0.end > start }.map { inMilliseconds($0.latency) }.max() ?? 0
  }
}
