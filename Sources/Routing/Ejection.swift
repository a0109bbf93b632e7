import RankingCore

// A replica that answers badly is left out for a while. Detection and enforcement are apart:
//
//     detected                                         enforced, when a replica is chosen
//       connection lost with legs on it    at once       not for a shard that has nobody else
//       5 failures in a row                at once       not while more than half of all workers are ejected (panic):
//       success below 80 % of 30 s         at a look     then the detector is what is broken
//       median 3 × its siblings', 2 s      at a look
//                    │
//                    ▼
//     ejected for 2 s × (how often so far) + jitter, at most 60 s; then it starts slowly, like a newcomer
//
// "Overloaded" and "wrong version" are no failures: the first lowers admission, the second readiness. A leg that was
// given up early says nothing either, or an impatient client could have every worker ejected.

/// What happened so far, for metrics.
public struct EjectionCounters: Sendable, Equatable {
  public var lost: UInt64 = 0
  public var failures: UInt64 = 0
  public var successRate: UInt64 = 0
  public var slow: UInt64 = 0
  /// Of these, how many began while ejections were being ignored.
  public var ignored: UInt64 = 0
  public var detected: UInt64 { lost + failures + successRate + slow }
}

struct OutlierState: Sendable {
  var failuresInARow = 0
  var until: Instant?
  var ejections = 0
  var lastEnd = Instant(nanoseconds: 0)
  var slowSince: Instant?
  /// Successes and failures of the last slots of time.
  private var good: [UInt32]
  private var bad: [UInt32]
  private var slot: UInt64 = 0
  private let slotNanoseconds: UInt64

  init(policy: RoutingPolicy) {
    good = [UInt32](repeating: 0, count: policy.successSlots)
    bad = good
    slotNanoseconds = UInt64(max(1, policy.successSlot.nanoseconds))
  }

  mutating func count(success: Bool, now: Instant) {
    advance(now)
    let index = Int(slot % UInt64(good.count))
    if success { good[index] += 1 } else { bad[index] += 1 }
  }
  mutating func advance(_ now: Instant) {
    let number = now.nanoseconds / slotNanoseconds
    guard number > slot else { return }
    for step in 0..<min(UInt64(good.count), number - slot) {
      let index = Int((number - step) % UInt64(good.count))
      good[index] = 0
      bad[index] = 0
    }
    slot = number
  }
  mutating func forget() {
    failuresInARow = 0
    slowSince = nil
    for index in good.indices {
      good[index] = 0
      bad[index] = 0
    }
  }
  var outcomes: (good: Int, bad: Int) {
    (good.reduce(0) { $0 + Int($1) }, bad.reduce(0) { $0 + Int($1) })
  }
}

extension WorkerBook {
  @inline(__always)
  func isEjected(_ worker: WorkerID, _ now: Instant) -> Bool {
    guard let until = records[worker.index].outlier.until else { return false }
    return now < until
  }
  /// Too many look bad for it to be true.
  var isPanicking: Bool { ejected > 0 && Double(ejected) > policy.panicShare * Double(workers) }

  mutating func succeeded(_ worker: WorkerID, now: Instant) {
    records[worker.index].outlier.failuresInARow = 0
    records[worker.index].outlier.count(success: true, now: now)
  }

  mutating func failed(_ worker: WorkerID, now: Instant) {
    records[worker.index].outlier.failuresInARow += 1
    records[worker.index].outlier.count(success: false, now: now)
    if records[worker.index].outlier.failuresInARow >= policy.ejectAfterFailures {
      eject(worker, \.failures, now: now)
    }
  }

  /// Its connection ended while legs were on it.
  mutating func connectionLost(_ worker: WorkerID, now: Instant) {
    if records[worker.index].legsInFlight > 0 { eject(worker, \.lost, now: now) }
  }

  private mutating func eject(
    _ worker: WorkerID, _ reason: WritableKeyPath<EjectionCounters, UInt64>, now: Instant
  ) {
    guard !isEjected(worker, now) else { return }
    counters[keyPath: reason] += 1
    let isCounted = records[worker.index].outlier.until != nil
    let times = records[worker.index].outlier.ejections + 1
    let base = min(policy.ejectionTimeMax.nanoseconds, policy.ejectionTime.nanoseconds * Int64(times))
    let jitter = Int64(Double(base) * policy.ejectionJitter * generator.unit())
    records[worker.index].outlier.forget()
    records[worker.index].outlier.ejections = times
    records[worker.index].outlier.until = now + .nanoseconds(min(policy.ejectionTimeMax.nanoseconds, base + jitter))
    if !isCounted { ejected += 1 }
    if isPanicking { counters.ignored += 1 }
  }

  /// Looks at all workers: who is back, who fails too often, who is slow; and what is usual.
  mutating func look(now: Instant) {
    nextLook = now + policy.slowSlot
    medians.removeAll(keepingCapacity: true)
    ejected = 0
    for index in records.indices {
      if records[index].latency > 0 { medians.append(records[index].latency) }
      if let until = records[index].outlier.until {
        if now < until {
          ejected += 1
        } else {
          // What its last legs brought while it was out was paid for by that.
          records[index].outlier.forget()
          records[index].outlier.until = nil
          records[index].outlier.lastEnd = until
          records[index].latency = 0
          records[index].short.removeAll()
          records[index].since = now
        }
      } else if records[index].outlier.ejections > 0,
        now >= records[index].outlier.lastEnd + policy.ejectionForgivenAfter
      {
        records[index].outlier.ejections -= 1
        records[index].outlier.lastEnd = now
      }
      records[index].outlier.advance(now)
      let (good, bad) = records[index].outlier.outcomes
      if bad > 0, good + bad >= policy.successSamples,
        Double(good) < policy.successRateMin * Double(good + bad)
      {
        eject(WorkerID(index), \.successRate, now: now)
      }
    }
    medians.sort()
    medianLatency = medians.isEmpty ? 0 : medians[medians.count / 2]
    if policy.slowEjection { findSlow(now: now) }
    if now >= nextHedgeLook {
      nextHedgeLook = now + policy.latencySlot
      for index in records.indices { refreshHedgeDelay(index, now: now) }
    } else {
      for index in records.indices where records[index].hedgeDelay == nil { refreshHedgeDelay(index, now: now) }
    }
  }

  private mutating func refreshHedgeDelay(_ index: Int, now: Instant) {
    records[index].recent.advance(now)
    guard records[index].recent.count >= policy.hedgeSamples else { return }
    // A hedge that takes three legs may be sent a third as often within the same budget: later, to those that need it.
    let affordable = 1 - policy.hedgeTokensPerLeg / max(1, legsPerHedge)
    records[index].hedgeDelay = records[index].recent.quantile(
      min(policy.hedgeQuantileMax, max(policy.hedgeQuantile, affordable)))
  }

  /// Compares the median of the last second with the median of all siblings' medians.
  private mutating func findSlow(now: Instant) {
    medians.removeAll(keepingCapacity: true)
    for index in records.indices {
      records[index].short.advance(now)
      guard records[index].short.count >= policy.slowSamples,
        let median = records[index].short.quantile(0.5)
      else { continue }
      medians.append(Double(median.nanoseconds))
    }
    guard medians.count >= 2 else { return }
    medians.sort()
    for index in records.indices {
      guard records[index].short.count >= policy.slowSamples,
        let median = records[index].short.quantile(0.5).map({ Double($0.nanoseconds) })
      else {
        records[index].outlier.slowSince = nil
        continue
      }
      // The lower middle of the others: with two workers, the other one.
      let place = medians.firstIndex(of: median) ?? 0
      let middle = (medians.count - 2) / 2
      let siblings = medians[middle >= place ? middle + 1 : middle]
      let isSlow =
        median > policy.slowFactor * siblings && median > siblings + Double(policy.slowFloor.nanoseconds)
      guard isSlow else {
        records[index].outlier.slowSince = nil
        continue
      }
      let since = records[index].outlier.slowSince ?? now
      records[index].outlier.slowSince = since
      if now - since >= policy.slowFor { eject(WorkerID(index), \.slow, now: now) }
    }
  }
}
