import Bundles
import RankingCore

// Versions are fetched and read away from the loop, by threads that stand back. What is here already never waits for
// what must come over the network: a worker that starts while the web server is down has its cache.
//
//     prepare ──► all here? ─┬─ yes ────────────────────────────► done ──► read
//                            └─ no ──► the fetching thread ──┘

final class BundleReader: Sendable {
  let source: BundleSource
  private let reading: ComputePool<Void>
  private let fetching: ComputePool<Void>?

  init(_ source: BundleSource) {
    self.source = source
    reading = Self.thread()
    fetching = source.isRemote ? Self.thread() : nil
  }
  private static func thread() -> ComputePool<Void> {
    Threads.withSignalsBlocked { ComputePool(threads: 1) { Threads.standBack() } }
  }

  /// Has parts of a bundle come, where they are not here.
  /// - Parameter done: called on another thread.
  func prepare(
    _ parts: [BundlePart], of id: ModelVersion, done: @escaping @Sendable (Result<Void, any Error>) -> Void
  ) {
    guard let fetching else { return done(.success(())) }
    reading.submit { [source] in
      if source.has(parts, of: id) { return done(.success(())) }
      fetching.submit { done(Result { try source.fetch(parts, of: id) }) }
    }
  }

  /// Runs a job on the reading thread, after those before it.
  func read(_ job: @escaping @Sendable () -> Void) { reading.submit { job() } }

  /// Waits for what runs; what waits is dropped.
  func stop() {
    source.stop()
    fetching?.stop()
    reading.stop()
  }
}
