import RankingCore

// What goes wrong in a run, when, and for how long. Half of the runs are gentle: workers crash one at a time, with time
// to recover, so that every shard keeps a ready replica; there, every request must be answered in full. In the others
// anything may happen to anybody, and only what must hold always is demanded, until the faults stop.

struct Fate {
  let isGentleRun: Bool
  let trafficFrom: Instant
  let faultsUntil: Instant
  /// From then on everything must be complete again.
  let liveFrom: Instant
  let kinds: [FaultKind]
  let reorders: Bool
  /// A worker that dies early and does not come back before the faults stop: for so long that its shards are placed on
  /// others.
  let losesOne: Bool
  var diesOnNextScore: Int?
  /// A second crash is another fault only after the first has been got over: the worker is back and has its shards.
  var lastCrash: Instant?
  static let recovery: Duration = .seconds(4)
  private let start: Instant
  private let times: [Instant]
  private let strikes: [Instant]

  init(_ options: SimulationOptions, start: Instant, end: Instant, generator: inout SeededGenerator) {
    let length = (end - start).nanoseconds
    self.start = start
    isGentleRun = generator.below(3) == 0
    trafficFrom = start + .milliseconds(500)
    // Short runs need their time to heal as well: reconnecting takes up to 2 s, an ejection 2 s and more.
    let second: Int64 = 1_000_000_000
    let quiet = max(length / 4, min(length / 5 * 3, 10 * second))
    let healing = min(6 * second, quiet / 5 * 3)
    faultsUntil = end + .nanoseconds(-quiet)
    liveFrom = faultsUntil + .nanoseconds(healing)
    let all: [FaultKind] = [
      .workerCrash, .workerFreeze, .workerSlow, .workerResets, .linkBreak, .linkClog, .partition, .ringPartition,
      .coordinatorCrash, .coordinatorFreeze, .bothReplicasDown,
    ]
    // A run has four kinds of trouble or so: too many at once hide each other.
    kinds = isGentleRun ? [.workerCrash] : all.filter { _ in generator.below(5) < 2 }
    reorders = generator.below(3) == 0
    losesOne = generator.below(4) == 0 && !isGentleRun
    var times: [Instant] = []
    var at = trafficFrom + .seconds(1)
    while at < faultsUntil + .seconds(-2) {
      times.append(at)
      at = at + .milliseconds(isGentleRun ? 6000 + generator.below(2000) : 500 + generator.below(5000))
    }
    self.times = times
    // The second crash comes when the first has been got over, or not at all.
    let calm = quiet - healing
    let again = calm / 4 + max(calm / 2, 4500 * second / 1000)
    strikes = [calm / 4, again].filter { $0 < calm - second }.map { [liveFrom] in liveFrom + .nanoseconds($0) }
  }

  func scheduleAll(in queue: inout EventQueue<Happening>) {
    for time in times { queue.schedule(.fault, at: time) }
    if losesOne { queue.schedule(.lose, at: trafficFrom + .seconds(2)) }
    queue.schedule(.heal, at: faultsUntil)
    for time in strikes { queue.schedule(.strike, at: time) }
  }

  /// Whether every request must be answered in full although things break.
  func isGentle(_ now: Instant) -> Bool { isGentleRun && now >= trafficFrom + .seconds(1) }
  func mayLosePackets(_ now: Instant) -> Bool { !isGentleRun && now < faultsUntil && now > trafficFrom }
  func mayReorder(_ now: Instant) -> Bool { reorders && now < faultsUntil && now > trafficFrom }
  func mayDuplicate(_ now: Instant) -> Bool { now < liveFrom && now > trafficFrom }
}

extension World {
  func strikeFault() {
    guard !fate.kinds.isEmpty else { return }
    let kind = fate.kinds[generator.below(fate.kinds.count)]
    report.faults[kind.rawValue] += 1
    let worker = generator.below(workers.count)
    let coordinator = generator.below(coordinators.count)
    func worst(_ limit: Int) -> Duration { .milliseconds(50 + generator.below(limit)) }
    switch kind {
    case .workerCrash:
      if fate.isGentleRun {
        if let last = fate.lastCrash, now < last + Fate.recovery { return }
        fate.diesOnNextScore = worker
      } else {
        crashWorker(worker)
        queue.schedule(.startWorker(worker), at: now + worst(6000))
      }
    case .bothReplicasDown:
      for offset in 0..<3 {
        let victim = (worker + offset) % workers.count
        crashWorker(victim)
        queue.schedule(.startWorker(victim), at: now + worst(4000))
      }
    case .workerFreeze:
      workers[worker].frozenUntil = now + worst(5000)
      note(workerNode(worker), "freezes", Int((workers[worker].frozenUntil - now).milliseconds))
    case .workerSlow:
      workers[worker].slowUntil = now + worst(5000)
      workers[worker].slowness = 5 + generator.below(150)
      note(workerNode(worker), "is slow", workers[worker].slowness)
    case .workerResets:
      workers[worker].resetsUntil = now + worst(4000)
      workers[(worker + 1) % workers.count].resetsUntil = now + worst(4000)
      note(workerNode(worker), "resets streams")
    case .linkBreak:
      if links[coordinator][worker].isUp {
        linkDown(
          coordinator, worker, links[coordinator][worker].connection,
          .linkDown(
            coordinator: coordinator, worker: worker, connection: links[coordinator][worker].connection))
      }
    case .linkClog:
      links[coordinator][worker].clogUntil = now + worst(5000)
      note(coordinator, "is clogged toward", worker)
    case .partition: cut(coordinator, worker, until: now + worst(5000), direction: generator.below(3))
    case .ringPartition:
      let until = now + worst(4000)
      for step in 0..<workers.count / 2 {
        cut(coordinator, (worker + step) % workers.count, until: until, direction: 2)
      }
    case .coordinatorCrash:
      crashCoordinator(coordinator)
      queue.schedule(.startCoordinator(coordinator), at: now + worst(2000))
    case .coordinatorFreeze:
      let length = worst(1500)
      coordinators[coordinator].frozenUntil = now + length
      coordinators[coordinator].frozeFor = coordinators[coordinator].frozeFor + length
      note(coordinator, "freezes", Int(length.milliseconds))
    case .duplicatedReplies, .lostPackets, .reordered, .clientGone, .workerGone, .storeAway: break
    }
  }

  /// - Parameter direction: 0 = to the worker, 1 = from it, 2 = both.
  private func cut(_ c: Int, _ w: Int, until: Instant, direction: Int) {
    note(c, "is cut off from", w, direction)
    if direction != 1 { links[c][w].cutToWorkerUntil = until }
    if direction != 0 { links[c][w].cutToCoordinatorUntil = until }
    // The kernel gives a connection up on which nothing is acknowledged for two seconds.
    if links[c][w].isUp, until > now + .seconds(2) {
      queue.schedule(
        .linkDown(coordinator: c, worker: w, connection: links[c][w].connection), at: now + .seconds(2))
    }
  }

  func loseWorker() {
    let worker = generator.below(workers.count)
    report.faults[FaultKind.workerGone.rawValue] += 1
    crashWorker(worker)
    workers[worker].isLost = true
  }

  func healAll() {
    fate.diesOnNextScore = nil
    for w in workers.indices {
      workers[w].isLost = false
      workers[w].slowUntil = now
      workers[w].resetsUntil = now
      workers[w].frozenUntil = min(workers[w].frozenUntil, now)
      queue.schedule(.startWorker(w), at: now)
    }
    store.awayUntil = min(store.awayUntil, now)
    for c in coordinators.indices {
      coordinators[c].store.cutUntil = min(coordinators[c].store.cutUntil, now)
      coordinators[c].frozenUntil = min(coordinators[c].frozenUntil, now)
      queue.schedule(.startCoordinator(c), at: now)
      for w in workers.indices {
        links[c][w].clogUntil = now
        links[c][w].cutToWorkerUntil = min(links[c][w].cutToWorkerUntil, now)
        links[c][w].cutToCoordinatorUntil = min(links[c][w].cutToCoordinatorUntil, now)
      }
    }
  }

  /// One crash with a leg on its way, long after everything has healed: it must cost nobody anything.
  func strikeInPeace() {
    guard !hooks.isExperiment else { return }
    if let last = fate.lastCrash, now < last + Fate.recovery { return }
    guard fate.diesOnNextScore == nil else { return }
    report.faults[FaultKind.workerCrash.rawValue] += 1
    fate.diesOnNextScore = generator.below(workers.count)
  }
}
