import ClusterHarness
import ClusterLoad
import Foundation
import Synchronization

/// Looks at every coordinator all the time: a thread for each.
final class Watch: Sendable {
  /// How often health is looked at, and how often metrics are.
  static let interval: Duration = .milliseconds(50)
  static let countsInterval: Duration = .seconds(1)

  private let cluster: any ClusterHandle
  private let replicas: Int
  private let state = Mutex(State())
  private let over = DispatchGroup()

  private struct State {
    var start: Duration = Monotonic.now
    var samples: [Evidence.Sample] = []
    var counts: [Evidence.Counts] = []
    var unasked: [(at: Duration, what: String)] = []
    /// By coordinator, the newest.
    var newest: [Int: Evidence.Sample] = [:]
    var isOver = false
  }

  init(_ cluster: any ClusterHandle, replicas: Int) {
    self.cluster = cluster
    self.replicas = replicas
    for index in cluster.coordinators.indices {
      over.enter()
      let thread = Thread { [self] in
        look(at: index)
        over.leave()
      }
      thread.name = "watch"
      thread.start()
    }
  }

  /// From now on time counts from here, and what was seen before is forgotten. No request may be under way.
  func begin() {
    let counts = cluster.coordinators.enumerated().compactMap { self.counts($0.element, $0.offset) }
    state.withLock {
      $0.start = Monotonic.now
      $0.samples = []
      $0.counts = counts.map { counts in
        var counts = counts
        counts.at = .zero
        return counts
      }
    }
  }
  var start: Duration { state.withLock { $0.start } }
  /// Ends the looking.
  func stop(into evidence: inout Evidence) {
    state.withLock { $0.isOver = true }
    over.wait()
    state.withLock {
      evidence.samples = $0.samples
      evidence.counts = $0.counts
      evidence.unasked = $0.unasked
    }
  }

  /// Whether every coordinator has seen a whole cluster since `time`, as the load counts.
  func isWhole(since time: Duration) -> Bool {
    state.withLock { state in
      cluster.coordinators.indices.allSatisfy { index in
        state.newest[index].map { $0.isWhole && $0.at >= time } ?? false
      }
    }
  }
  var now: Duration { Monotonic.now - state.withLock { $0.start } }

  private func look(at index: Int) {
    let coordinator = cluster.coordinators[index]
    var due = Monotonic.now
    var countsDue = due
    while !state.withLock({ $0.isOver }) {
      let report = try? ClusterReport.fetch(coordinator.admin, limit: .milliseconds(400))
      let sample = sample(report, index)
      var counts: Evidence.Counts?
      if Monotonic.now >= countsDue {
        counts = self.counts(coordinator, index)
        countsDue = Monotonic.now + Self.countsInterval
      }
      let ends = index == 0 ? cluster.unexpectedEnds() : []
      state.withLock { state in
        if sample.at <= Monotonic.now - state.start { state.samples.append(sample) }
        state.newest[index] = sample
        // One that was being fetched when time began again is of before.
        if let counts, counts.at <= Monotonic.now - state.start { state.counts.append(counts) }
        state.unasked += ends.map { (Monotonic.now - state.start, $0) }
      }
      due = max(due + Self.interval, Monotonic.now)
      Monotonic.wait(until: due)
    }
    if let counts = counts(coordinator, index) { state.withLock { $0.counts.append(counts) } }
  }

  private func sample(_ report: ClusterReport?, _ index: Int) -> Evidence.Sample {
    let at = now
    guard let report else { return .init(at: at, coordinator: index, workers: nil, isWhole: false) }
    let published = report.releases.filter(\.published)
    let workers = cluster.workers.map { worker -> Evidence.Health in
      guard let seen = report.worker(worker.name) else { return .unknown }
      switch seen.state {
      case "suspect": return .suspect
      case "down": return .down
      case "gone": return .gone
      case "joining": return .joining
      default: break
      }
      if seen.draining { return .draining }
      if seen.ejected { return .ejected }
      let isComplete = published.allSatisfy { release in
        let ready = seen.holdings.filter {
          $0.version == release.version
            && (release.fingerprint == "0" || $0.fingerprint == release.fingerprint)
        }.flatMap(\.ready)
        return Set(worker.shards).isSubset(of: ready)
      }
      return isComplete ? .up : .incomplete
    }
    let replicasMin = published.flatMap(\.replicas).min() ?? 0
    return .init(
      at: at, coordinator: index, workers: workers,
      isWhole: replicasMin >= replicas && workers.allSatisfy { $0 == .up })
  }

  private func counts(_ coordinator: HandleMember, _ index: Int) -> Evidence.Counts? {
    let start = cluster.pid(of: coordinator.name)
    guard let page = try? MetricsPage(coordinator.url, limit: .milliseconds(900)) else { return nil }
    // Its process may have been another one when it was asked.
    guard let start, cluster.pid(of: coordinator.name) == start else { return nil }
    var counts = Evidence.Counts(at: now, coordinator: index, start: Int(start))
    counts.requests = page.sum("shortlist_requests_total", "endpoint=\"recommend\"")
    counts.answers = page.sum("shortlist_answers_total")
    counts.errors = page.sum("shortlist_errors_total")
    counts.cancelled = page.sum("shortlist_http_cancelled_total")
    counts.primaryLegs = page.sum("shortlist_legs_total", "kind=\"primary\"")
    counts.retryLegs = page.sum("shortlist_legs_total", "kind=\"retry\"")
    counts.hedgeLegs = page.sum("shortlist_legs_total", "kind=\"hedge\"")
    return counts
  }
}
