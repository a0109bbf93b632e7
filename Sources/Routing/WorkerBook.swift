import RankingCore

// What one coordinator knows of each worker from its own traffic: how busy, how fast, how reliable, how much it takes.
// Choosing a replica (ReplicaChoice.swift) and ejecting one (Ejection.swift) read and write here.

struct WorkerRecord: Sendable {
  // Busy
  /// Shards sent and not yet answered, and the legs they travel in.
  var shardsInFlight = 0
  var legsInFlight = 0
  /// The plan (one request's assignment) that has a leg for this worker already.
  var plan: UInt64 = 0

  // Fast
  /// Moving average of leg latency in nanoseconds; 0 = no sample yet.
  var latency = 0.0
  var sampledAt = Instant(nanoseconds: 0)
  /// Since when it is being used: it gets its full share only after a while.
  var since: Instant
  /// The last seconds, for the hedge delay; the last second, to see that it has become slow.
  var recent: LatencyRing
  var short: LatencyRing
  var hedgeDelay: Duration?

  // Reliable
  var outlier: OutlierState

  // How much it takes
  /// Legs that this coordinator sends at once; grows to what the worker says, shrinks when it refuses.
  var room: Double
  var admits: Double
  var shrunkAt = Instant(nanoseconds: 0)

  init(policy: RoutingPolicy, now: Instant) {
    since = now
    recent = LatencyRing(slots: policy.latencySlots, slot: policy.latencySlot)
    short = LatencyRing(slots: policy.slowSlots, slot: policy.slowSlot)
    outlier = OutlierState(policy: policy)
    room = policy.admitsUnknown
    admits = policy.admitsUnknown
  }
}

struct WorkerBook: Sendable {
  let policy: RoutingPolicy
  var records: [WorkerRecord] = []
  var generator: SeededGenerator
  /// The median of all workers' latencies, as of the last look; 0 = nobody has one.
  var medianLatency = 0.0
  /// Workers in all, and ejected ones, as of the last look.
  var workers = 0
  var ejected = 0
  var plan: UInt64 = 0
  var nextLook: Instant
  var nextHedgeLook: Instant
  /// Moving average of the legs that one hedge takes.
  var legsPerHedge = 1.0
  var counters = EjectionCounters()
  /// Room for `choose`.
  var eligible: [WorkerID] = []
  var medians: [Double] = []

  init(policy: RoutingPolicy, seed: UInt64, now: Instant) {
    self.policy = policy
    generator = SeededGenerator(seed: seed)
    nextLook = now
    nextHedgeLook = now
  }

  /// Makes sure that there are records of the first `count` workers.
  mutating func admit(_ count: Int, now: Instant) {
    while records.count < count { records.append(WorkerRecord(policy: policy, now: now)) }
  }

  // MARK: What happens to legs

  mutating func sent(_ worker: WorkerID, shards: Int) {
    records[worker.index].shardsInFlight += shards
    records[worker.index].legsInFlight += 1
  }
  mutating func ended(_ worker: WorkerID, shards: Int) {
    records[worker.index].shardsInFlight -= shards
    records[worker.index].legsInFlight -= 1
    precondition(
      records[worker.index].shardsInFlight >= 0 && records[worker.index].legsInFlight >= 0,
      "more shards ended than were sent to \(worker): \(records[worker.index])")
  }

  /// A reply came after `latency`.
  mutating func answered(_ worker: WorkerID, after latency: Duration, now: Instant) {
    let sample = Double(max(1, latency.nanoseconds))
    let old = records[worker.index].latency
    records[worker.index].latency = old == 0 ? sample : old + policy.latencyWeight * (sample - old)
    records[worker.index].sampledAt = now
    records[worker.index].recent.record(latency, now: now)
    records[worker.index].short.record(latency, now: now)
    let room = records[worker.index].room
    if room < records[worker.index].admits {
      records[worker.index].room = min(records[worker.index].admits, room + 1 / room)
    }
    succeeded(worker, now: now)
  }

  /// It was given up after `age` because others had answered what it owed: it takes longer than that, nobody knows how
  /// much. Taken as it is, every hedge would make a slow worker look quicker than it is, and worth asking again.
  mutating func outrun(_ worker: WorkerID, after age: Duration, now: Instant) {
    records[worker.index].recent.record(age, now: now)
    records[worker.index].short.record(age, now: now)
    let sample = Double(max(1, age.nanoseconds)) * policy.outrunFactor
    let old = records[worker.index].latency
    if sample > old {
      records[worker.index].latency = old == 0 ? sample : old + policy.latencyWeight * (sample - old)
      records[worker.index].sampledAt = now
    }
  }

  /// It refused for want of room: less is sent to it, and its health is not in doubt.
  mutating func overloaded(_ worker: WorkerID, now: Instant) {
    guard now >= records[worker.index].shrunkAt + policy.overloadPause else { return }
    records[worker.index].shrunkAt = now
    let busy = Double(records[worker.index].legsInFlight + 1)
    records[worker.index].room = max(
      policy.admitsMin, min(records[worker.index].room, busy) * policy.overloadFactor)
  }

  /// What its status says it would take.
  mutating func reported(_ worker: WorkerID, admits: Int) {
    let admits = admits > 0 ? max(policy.admitsMin, Double(admits)) : policy.admitsUnknown
    let before = records[worker.index].admits
    records[worker.index].admits = admits
    // A worker that says it takes less is believed at once; after a refusal, more is tried out reply by reply.
    if records[worker.index].room >= before || records[worker.index].room > admits {
      records[worker.index].room = admits
    }
  }

  /// Another process, or the same one back: what was measured before says nothing, and it starts slowly.
  mutating func renewed(_ worker: WorkerID, now: Instant) {
    records[worker.index].latency = 0
    records[worker.index].recent.removeAll()
    records[worker.index].short.removeAll()
    records[worker.index].hedgeDelay = nil
    records[worker.index].outlier.forget()
    records[worker.index].since = now
    records[worker.index].room = records[worker.index].admits
  }

  // MARK: What is known

  /// Expected latency in nanoseconds: the moving average, fading toward the siblings' median while nothing comes.
  func expectedLatency(_ worker: WorkerID, now: Instant) -> Double {
    let record = records[worker.index]
    guard record.latency > 0 else { return max(1, medianLatency) }
    let idle = now - record.sampledAt
    guard medianLatency > 0, idle > policy.slowSlot else { return record.latency }
    return medianLatency + (record.latency - medianLatency)
      * Decay.remaining(after: idle, halfLife: policy.idleHalfLife)
  }

  /// The share of its full traffic that it gets while it is new, 0…1.
  func ramp(_ worker: WorkerID, now: Instant) -> Double {
    let age = now - records[worker.index].since
    guard age < policy.slowStart else { return 1 }
    return max(policy.slowStartMin, Double(max(0, age.nanoseconds)) / Double(policy.slowStart.nanoseconds))
  }

  /// Whether one more leg is more than it takes.
  func isFull(_ worker: WorkerID, priority: Priority) -> Bool {
    let record = records[worker.index]
    let room = priority == .batch ? max(1, record.room * policy.batchShare) : record.room
    return Double(record.legsInFlight) + 1 > room
  }
  /// How much of its room one more leg would take, 0…1 and beyond.
  func pressure(_ worker: WorkerID) -> Double {
    Double(records[worker.index].legsInFlight + 1) / records[worker.index].room
  }

  /// When a leg sent now deserves a second one.
  func hedgeDelay(_ worker: WorkerID, remaining: Duration) -> Duration {
    let usual = records[worker.index].hedgeDelay ?? policy.hedgeDelayUnknown
    let latest = Duration.nanoseconds(Int64(Double(remaining.nanoseconds) * policy.hedgeDelayMaxShare))
    return min(max(usual, policy.hedgeDelayMin), max(policy.hedgeDelayMin, latest))
  }
}
