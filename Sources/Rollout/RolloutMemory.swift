import RankingCore

// What one driver has seen of the stages since it drives. Only this knows times: a driver that takes over begins with
// an empty memory, sees every stage as just begun, and waits and counts anew.
//
//     counts of the process   0 ────────────────────────────────────────────────────────► now
//     the stage's window              ├ start ────────────────────────────────────────────┤
//     the recent window                                          ├ 30 to 40 s ago ────────┤

public struct RolloutMemory: Sendable {
  private(set) var watches: [StageWatch] = []
  public init() {}

  func watch(_ model: String) -> StageWatch? { watches.first { $0.model == model } }

  /// Takes in what is seen now; doing so twice at the same instant changes nothing.
  mutating func observe(_ document: RolloutDocument, _ observed: Observed, now: Instant) {
    let before = watches
    watches = document.models.compactMap { state in
      guard let rollout = state.rollout else { return nil }
      let known = before.first { $0.model == state.model && $0.rollout == rollout.id }
      var watch =
        known.flatMap { $0.entered == rollout.entered ? $0 : nil }
        ?? StageWatch(state.model, rollout, observed, after: known, now: now)
      watch.observe(rollout, observed, now: now)
      return watch
    }
  }
}

/// One stage of one rollout as this driver sees it.
struct StageWatch: Sendable {
  /// Counts of both versions, and of the pairs in shadow.
  struct Sums: Sendable {
    var old: TrafficCounts
    var new: TrafficCounts
    var shadow: ShadowCounts

    init(_ model: String, _ rollout: ActiveRollout, _ observed: Observed) {
      old = observed.counts(ModelVersion(model: model, version: rollout.from))
      new = observed.counts(ModelVersion(model: model, version: rollout.to))
      shadow = observed.shadow(rollout.id)
    }
    func isBehind(_ earlier: Sums) -> Bool {
      old.isBehind(earlier.old) || new.isBehind(earlier.new) || shadow.isBehind(earlier.shadow)
    }
    static func - (a: Sums, b: Sums) -> Sums {
      var difference = a
      difference.old = a.old - b.old
      difference.new = a.new - b.new
      difference.shadow = a.shadow - b.shadow
      return difference
    }
  }
  struct MetricWatch: Sendable {
    /// When the rollout was first seen.
    var start: Double?
    var latest: Double?
    var beyondSince: Instant?
  }
  /// The recent window is moved on this often within its own length.
  private static let recentSteps = 3
  /// Requests of the old version in one stage that are enough to stand for it later: a p99 with ten beyond it.
  private static let referenceSample = 1000

  let model: String
  let rollout: String
  let entered: Int
  let since: Instant
  /// What deadlines count from: the last progress, or the stage's beginning.
  private(set) var deadlineFrom: Instant
  /// Since when a shard of the new version has had no ready replica.
  private(set) var gapSince: Instant?
  private(set) var metrics: [MetricWatch]
  private(set) var latest: Sums
  private var start: Sums
  private(set) var marks: [(at: Instant, sums: Sums)] = []
  /// The old version in an earlier stage: for the last step, which leaves it no requests.
  private(set) var reference: TrafficCounts?
  private var progress = -1

  init(_ model: String, _ rollout: ActiveRollout, _ observed: Observed, after before: StageWatch?, now: Instant) {
    self.model = model
    self.rollout = rollout.id
    entered = rollout.entered
    since = now
    deadlineFrom = now
    latest = Sums(model, rollout, observed)
    start = latest
    metrics =
      before?.metrics.map { MetricWatch(start: $0.start) } ?? rollout.settings.metrics.map { _ in MetricWatch() }
    if let before {
      let seen = before.window.old
      reference =
        seen.requests >= min(Self.referenceSample, before.reference?.requests ?? 0) ? seen : before.reference
    }
  }

  /// Since the driver saw the stage.
  var window: Sums { latest - start }
  /// nil = the stage is not older than that.
  var recent: Sums? { marks.first.map { latest - $0.sums } }

  mutating func observe(_ rollout: ActiveRollout, _ observed: Observed, now: Instant) {
    latest = Sums(model, rollout, observed)
    if latest.isBehind(marks.last?.sums ?? start) {
      start = latest
      marks = []
    }
    let length = rollout.settings.recent
    if now - (marks.last?.at ?? since) >= length / Self.recentSteps { marks.append((now, latest)) }
    while marks.count > 1, now - marks[1].at >= length { marks.removeFirst() }

    let release = ModelVersion(model: model, version: rollout.to)
    let progress = progress(rollout, release, observed)
    // Somebody who pauses a rollout has all the time in the world.
    if progress > self.progress || rollout.isPaused { deadlineFrom = now }
    self.progress = max(progress, self.progress)
    let hasGap = !rollout.isPaused && observed.readyReplicas(release).contains(0)
    gapSince = hasGap ? gapSince ?? now : nil

    for (index, limit) in rollout.settings.metrics.enumerated() where index < metrics.count {
      guard let value = observed.metrics.first(where: { $0.name == limit.name })?.value, value.isFinite else {
        metrics[index].latest = nil
        metrics[index].beyondSince = nil
        continue
      }
      metrics[index].latest = value
      let start = metrics[index].start ?? value
      metrics[index].start = start
      metrics[index].beyondSince = limit.isBeyond(value, start: start) ? metrics[index].beyondSince ?? now : nil
    }
  }

  /// What only grows while a stage gets on; constant where the deadline is for the whole stage.
  private func progress(_ rollout: ActiveRollout, _ release: ModelVersion, _ observed: Observed) -> Int {
    switch rollout.stage {
    case .load:
      let ready = observed.readyReplicas(release)
      return ready.reduce(rollout.memory == .undecided ? 0 : 1, +)
    case .warm: return observed.holders(release).count { $0.holding(release)?.isWarm == true }
    case .verify, .shadow, .canary, .retire, .rollingBack: return 0
    }
  }
}

extension MetricGuard {
  func upper(start: Double) -> Double? { Self.joined([max, relativeMax.map { $0 * start }], Swift.max) }
  func lower(start: Double) -> Double? { Self.joined([min, relativeMin.map { $0 * start }], Swift.min) }
  func isBeyond(_ value: Double, start: Double) -> Bool {
    upper(start: start).map { value > $0 } ?? false || lower(start: start).map { value < $0 } ?? false
  }
  private static func joined(_ bounds: [Double?], _ join: (Double, Double) -> Double) -> Double? {
    let given = bounds.compactMap(\.self)
    return given.dropFirst().reduce(given.first) { result, bound in result.map { join($0, bound) } }
  }
}
