import RankingCore

// The next step of a rollout, from what is wanted and what is there. It holds nothing and does nothing: the same
// (document, observed, memory) gives the same decision, and a decision that was not stored is simply made again.
//
//     each model with a rollout, in the order of their names; the first that has something to change:
//       the bundle cannot be served, a guard tripped, a worker's answers are wrong   → back
//       the stage's own condition holds                                              → on     (not while paused)
//       the stage's deadline has passed                                              → back   (not while paused)

public enum RolloutPolicy {
  /// How often to look when nothing happens. At every look guards see one more sample: their false-alarm bound counts
  /// looks.
  public static let interval: Duration = .seconds(1)
  /// By then every worker that is there has told a driver so, twice over.
  static let settling: Duration = .seconds(5)
  /// Workers on which a shard must have failed before the bundle is held for broken rather than the worker.
  static let brokenWorkers = 2
  /// The share of the evidence that trips a guard from which on a stage is not left: sound versions seldom show a 16th
  /// of it, and waiting costs them little.
  static let suspicion = 1.0 / 16
  /// A figure of so many that is neither within its limit nor surely beyond lies at the limit: no reason to wait.
  static let settledSample = 5000

  /// What is to be changed now, or nothing. When it has been stored, ask again at once: another model may have its
  /// turn.
  ///
  /// - Parameter atMilliseconds: wall clock, for the history alone.
  public static func step(
    _ document: RolloutDocument, _ observed: Observed, memory: inout RolloutMemory, now: Instant, atMilliseconds: Int
  ) -> Decision? {
    memory.observe(document, observed, now: now)
    for state in document.models {
      guard let rollout = state.rollout, let watch = memory.watch(state.model) else { continue }
      let look = Look(
        document: document, state: state, rollout: rollout, observed: observed, watch: watch, window: watch.window,
        now: now)
      if let change = look.change { return look.decision(change, atMilliseconds: atMilliseconds) }
    }
    return nil
  }

  /// What the guards of a model's rollout see, worst first: for `status` and `watch`. Empty while none are looked at.
  public static func figures(
    _ document: RolloutDocument, model: String, memory: RolloutMemory
  ) -> [GuardFigure] {
    guard let rollout = document[model]?.rollout, let watch = memory.watch(model), watch.entered == rollout.entered
    else { return [] }
    return watch.figures(rollout, watch.window).sorted { $0.evidence > $1.evidence }
  }
}

extension StageWatch {
  /// The guards' figures over one window; empty in stages without real requests.
  func figures(_ rollout: ActiveRollout, _ window: Sums) -> [GuardFigure] {
    let settings = rollout.settings
    switch rollout.stage {
    case .shadow:
      // Compared with all that the old version answered meanwhile, of which the shadowed requests are a fair sample:
      // the larger the sample, the sooner a guard is sure.
      return Comparison(
        new: window.shadow.new, old: window.old, shadow: window.shadow, limits: settings.guards,
        evidence: settings.evidence
      ).figures
    case .canary:
      var old = window.old
      let isLast = rollout.share >= 10_000
      if isLast, let reference, reference.requests > old.requests { old = reference }
      return Comparison(
        new: window.new, old: old, isAlone: isLast && old.requests == 0, limits: settings.guards,
        evidence: settings.evidence
      ).figures
    case .load, .verify, .warm, .retire, .rollingBack: return []
    }
  }
}

/// One model at one instant.
private struct Look {
  let document: RolloutDocument
  let state: ModelState
  let rollout: ActiveRollout
  let observed: Observed
  let watch: StageWatch
  /// What was counted since the driver saw the stage.
  let window: StageWatch.Sums
  let now: Instant

  enum Change {
    case on(RolloutStage, step: Int, why: String)
    case memory(MemoryPlan, why: String)
    case back(why: String)
    case drained(why: String)
    case end(why: String)
  }

  private var new: ModelVersion { ModelVersion(model: state.model, version: rollout.to) }
  private var old: ModelVersion { ModelVersion(model: state.model, version: rollout.from) }
  private var settings: RolloutSettings { rollout.settings }
  private var isTimeUp: Bool { now - watch.since >= rollout.limits.minTime }
  private var isLate: Bool { !rollout.isPaused && now - watch.deadlineFrom >= rollout.limits.deadline }

  var change: Change? {
    guard rollout.stage.isForward else { return leave() }
    if let why = danger { return .back(why: why) }
    if !rollout.isPaused, let change = forward { return change }
    if isLate { return .back(why: lateness) }
    return nil
  }

  // MARK: Reasons to turn back

  private var danger: String? {
    if let problem = observed.bundle(new)?.problem { return "\(new) cannot be served: \(problem)" }
    if let why = broken ?? wrong ?? tripped { return why }
    guard rollout.stage != .load, let gap = watch.gapSince, now - gap >= settings.load.deadline else { return nil }
    return "\(new) has had no ready replica of \(Figure.listed(unheld)) for \(Figure.seconds(now - gap))"
  }

  /// Shards that several workers cannot load and nobody has: the bundle is at fault.
  private var broken: String? {
    let ready = observed.readyReplicas(new)
    for shard in ready.indices where ready[shard] == 0 {
      let failed = observed.workers.filter {
        $0.isUsable && $0.holding(new)?.failed.contains(ShardID(shard)) == true
      }
      guard failed.count >= min(RolloutPolicy.brokenWorkers, need(shard)) else { continue }
      let reason = failed.compactMap { $0.holding(new)?.failure }.first { !$0.isEmpty } ?? "see their logs"
      return "shard \(shard) of \(new) cannot be loaded by \(Figure.listed(failed.map(\.name))): \(reason)"
    }
    return nil
  }

  private var wrong: String? {
    guard rollout.stage != .load else { return nil }
    for worker in observed.workers where worker.isUsable {
      if case .failed(let why) = worker.holding(new)?.verified { return "wrong on \(worker.name): \(why)" }
    }
    if case .failed(let why) = observed.bundle(new)?.golden { return "a golden query was answered wrongly: \(why)" }
    return nil
  }

  private var tripped: String? {
    for (index, limit) in settings.metrics.enumerated() where index < watch.metrics.count {
      let metric = watch.metrics[index]
      guard let beyond = metric.beyondSince, now - beyond >= limit.lasting, let value = metric.latest,
        let start = metric.start
      else { continue }
      let bounds = [
        limit.lower(start: start).map { "at least \($0)" }, limit.upper(start: start).map { "at most \($0)" },
      ]
      return "guard \(limit.name): \(value) for \(Figure.seconds(now - beyond)), "
        + "\(bounds.compactMap(\.self).joined(separator: " and ")) (\(start) at the start)"
    }
    if let figure = watch.figures(rollout, window).first(where: \.isTripped) {
      return "guard \(figure.name): \(figure.text), over \(Figure.seconds(now - watch.since)) of \(rollout.label)"
    }
    if let recent = watch.recent, let figure = watch.figures(rollout, recent).first(where: \.isTripped) {
      return "guard \(figure.name): \(figure.text), lately in \(rollout.label)"
    }
    return nil
  }

  // MARK: Forward

  /// How many workers must have a shard ready.
  private func need(_ shard: Int) -> Int {
    guard rollout.memory != .replicaByReplica else { return 1 }
    let table = observed.holders(shards: observed.bundle(new)?.bytesPerShard.count ?? 0)
    let workers = observed.workers.filter { $0.isUsable && $0.isEligible }
    return max(
      1,
      table.map { table in workers.count { table[shard].contains($0.name) } } ?? min(observed.replicas, workers.count))
  }
  private func missing(where isMissing: (_ shard: Int, _ ready: Int) -> Bool) -> [String] {
    observed.readyReplicas(new).enumerated().filter { isMissing($0.offset, $0.element) }.map { "shard \($0.offset)" }
  }
  private var unready: [String] { missing { $1 < need($0) } }
  private var unheld: [String] { missing { $1 < 1 } }
  private var isComplete: Bool {
    let ready = observed.readyReplicas(new)
    return !ready.isEmpty && ready.allSatisfy { $0 > 0 }
  }
  /// A figure beyond its limit that chance may still explain: enough to wait for more, not to turn back.
  private var suspect: GuardFigure? {
    watch.figures(rollout, window).first {
      $0.sample < RolloutPolicy.settledSample && $0.evidence >= settings.evidence * RolloutPolicy.suspicion
    }
  }
  /// A metric that is watched must be there: a misspelt name must not look like a healthy figure.
  private var unseenMetrics: [String] {
    zip(settings.metrics, watch.metrics).filter { $1.latest == nil }.map(\.0.name)
  }

  private var forward: Change? {
    switch rollout.stage {
    case .load:
      if rollout.memory == .undecided { return memory }
      let ready = observed.readyReplicas(new)
      guard isComplete, unready.isEmpty else { return nil }
      return .on(.verify, step: 0, why: "\(ready.reduce(0, +)) replicas of \(ready.count) shards are ready")
    case .verify:
      let holders = observed.holders(new)
      guard isComplete, observed.bundle(new)?.golden == .passed,
        holders.allSatisfy({ $0.holding(new)?.verified == .passed })
      else { return nil }
      return .on(.warm, step: 0, why: "checksums and golden queries are right on \(holders.count) workers")
    case .warm:
      let holders = observed.holders(new)
      guard isComplete, holders.allSatisfy({ $0.holding(new)?.isWarm == true }) else { return nil }
      let why = "\(holders.count) workers are warm"
      return settings.shadowShare > 0
        ? .on(.shadow, step: 0, why: why) : .on(.canary, step: 0, why: why + "; nothing is to be shadowed")
    case .shadow:
      let pairs = window.shadow.compared
      guard isComplete, isTimeUp, pairs >= rollout.limits.minSample, unseenMetrics.isEmpty, suspect == nil else {
        return nil
      }
      let shadow = window.shadow
      let overlap = Figure.fixed(shadow.overlapSum / Double(max(1, pairs)), 3)
      return .on(.canary, step: 0, why: "\(pairs) pairs in \(elapsed), mean overlap \(overlap)")
    case .canary:
      let requests = window.new.requests
      guard isComplete, isTimeUp, requests >= rollout.limits.minSample, unseenMetrics.isEmpty, suspect == nil else {
        return nil
      }
      let why = "\(requests) requests in \(elapsed), \(window.new.errors) failed"
      return rollout.step + 1 < settings.canarySteps.count
        ? .on(.canary, step: rollout.step + 1, why: why) : .on(.retire, step: rollout.step, why: why)
    case .retire, .rollingBack: return nil
    }
  }
  private var elapsed: String { Figure.seconds(now - watch.since) }

  private var memory: Change? {
    switch LoadPlan.fit(document, model: state.model, observed) {
    case .unknown: nil
    case .beside(let why): .memory(.beside, why: why)
    // A driver that has just begun may not know all workers yet.
    case .replicaByReplica(let why):
      now - watch.since < RolloutPolicy.settling ? nil : .memory(.replicaByReplica, why: why)
    case .tooBig(let why):
      now - watch.since < RolloutPolicy.settling ? nil : .back(why: "too big for the workers' memory: \(why)")
    }
  }

  private var lateness: String {
    let time = Figure.seconds(rollout.limits.deadline)
    switch rollout.stage {
    case .load:
      if rollout.memory == .undecided {
        return "for \(time) the bundle of \(new) or the workers' room could not be read"
      }
      let failures = observed.workers.compactMap { worker in
        worker.holding(new).flatMap { $0.failure.isEmpty ? nil : "\(worker.name): \($0.failure)" }
      }
      let text = "nothing more was loaded for \(time); not ready: \(Figure.listed(unready))"
      return failures.isEmpty ? text : "\(text) (\(Figure.listed(failures)))"
    case .verify, .warm:
      let waiting = observed.holders(new).filter {
        rollout.stage == .warm ? $0.holding(new)?.isWarm != true : $0.holding(new)?.verified != .passed
      }
      let what = rollout.stage == .warm ? "not warm" : "not verified"
      let golden = rollout.stage == .verify && observed.bundle(new)?.golden != .passed ? "; golden queries open" : ""
      return "\(what) after \(time): \(Figure.listed(waiting.map(\.name)))\(golden)"
    case .shadow, .canary:
      if !unseenMetrics.isEmpty { return "no such metric for \(time): \(Figure.listed(unseenMetrics))" }
      if let suspect { return "guard \(suspect.name) not settled after \(time): \(suspect.text)" }
      if !isComplete { return "not complete after \(time): \(Figure.listed(unheld))" }
      let seen = rollout.stage == .shadow ? window.shadow.compared : window.new.requests
      return "only \(seen) of \(rollout.limits.minSample) \(rollout.stage == .shadow ? "pairs" : "requests") in \(time)"
    case .retire, .rollingBack: return ""
    }
  }

  // MARK: Leaving: a version that gets no more requests

  private func leave() -> Change? {
    let leaving = rollout.stage == .retire ? old : new
    let stays = state.pinned.contains(leaving.version)
    if !rollout.isDrained {
      let inFlight = observed.inFlight(leaving)
      guard isTimeUp, inFlight == 0 else { return nil }
      return stays
        ? .end(why: "\(leaving) stays, it is pinned") : .drained(why: "nothing is in flight on \(leaving)")
    }
    let holders = observed.remembering(leaving)
    if stays || holders.isEmpty { return .end(why: "no worker holds any of \(leaving)") }
    guard now - watch.deadlineFrom >= rollout.limits.deadline else { return nil }
    return .end(why: "\(Figure.listed(holders.map(\.name))) did not let go of \(leaving) yet; placement goes on")
  }

  // MARK: The document

  func decision(_ change: Change, atMilliseconds: Int) -> Decision {
    var (state, next) = (state, rollout)
    next.entered += 1
    next.enteredMilliseconds = atMilliseconds
    let (to, reason): (String, String)
    switch change {
    case .on(let stage, let step, let why):
      next.stage = stage
      next.step = step
      if stage == .retire { state.serving = next.to }
      (to, reason) = (next.label, why)
    case .memory(let memory, let why):
      next.memory = memory
      (to, reason) = (next.label, "\(memory == .beside ? "beside" : "replica by replica"): \(why)")
    case .back(let why):
      next.turnBack(why)
      (to, reason) = (next.label, why)
    case .drained(let why):
      next.isDrained = true
      (to, reason) = (next.label, why)
    case .end(let why):
      let outcome = state.finish(next, why: why, atMilliseconds: atMilliseconds)
      return document.changing(
        state, who: RolloutDocument.policy, atMilliseconds: atMilliseconds, rollout: next.id, version: next.to,
        from: rollout.label, to: outcome.rawValue, why: rollout.cause.isEmpty ? why : "\(why); cause: \(rollout.cause)")
    }
    state.rollout = next
    return document.changing(
      state, who: RolloutDocument.policy, atMilliseconds: atMilliseconds, rollout: next.id, version: next.to,
      from: rollout.label, to: to, why: reason)
  }
}

extension ActiveRollout {
  mutating func turnBack(_ why: String) {
    stage = .rollingBack
    isPaused = false
    isDrained = false
    cause = Figure.shortened(why)
  }
}

extension ModelState {
  mutating func finish(_ rollout: ActiveRollout, why: String, atMilliseconds: Int) -> FinishedRollout.Outcome {
    var finished = FinishedRollout()
    finished.id = rollout.id
    finished.from = rollout.from
    finished.to = rollout.to
    finished.outcome = rollout.stage == .retire ? .done : rollout.isAborted ? .aborted : .failed
    finished.why = rollout.cause.isEmpty ? why : rollout.cause
    finished.atMilliseconds = atMilliseconds
    last = finished
    self.rollout = nil
    failed.removeAll { $0.version == rollout.to }
    if finished.outcome == .failed {
      var version = FailedVersion()
      version.version = rollout.to
      version.rollout = rollout.id
      version.why = rollout.cause
      failed.append(version)
      failed.removeFirst(max(0, failed.count - RolloutDocument.failedMax))
    }
    return finished.outcome
  }
}
