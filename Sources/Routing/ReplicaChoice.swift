import RankingCore

// Which replica of a shard is asked: the better of two drawn at random, by expected latency × (shards in flight + 1).
//
// Two draws avoid both the blind spot of one and the herd of "always the best" (Mitzenmacher 2001). In-flight counts
// grow while one request assigns its shards, so that its own choices spread too.
//
//     replicas of the shard
//       ─► without those tried, without the ejected (unless that leaves nobody, or too many are ejected: panic)
//       ─► without those that have no room for one more leg       nobody left → full
//       ─► draw two ─► the cheaper one; a newcomer only as often as its ramp allows

enum ReplicaChoice: Sendable, Equatable {
  case worker(WorkerID)
  /// Nobody holds it.
  case none
  /// Somebody does, but has no room.
  case full
}

/// What narrows a choice.
struct ChoiceRules: Sendable {
  var priority = Priority.interactive
  /// Replicas that are not drawn (again).
  var tried: (WorkerID?, WorkerID?) = (nil, nil)
  /// Whether one that has no room may be drawn when no other is left.
  var mayOverfill = false
  /// Not 0: always the same replica for the same number, while it can be had.
  var stickiness: UInt64 = 0
}

extension WorkerBook {
  /// Starts the assignment of one request's shards: a worker that gets a second one needs no further leg.
  mutating func beginPlan() { plan += 1 }

  mutating func choose(_ replicas: [WorkerID], _ rules: ChoiceRules, now: Instant) -> ReplicaChoice {
    let panic = isPanicking
    var isAnyone = false
    eligible.removeAll(keepingCapacity: true)
    for pass in 0..<2 {
      for worker in replicas where worker != rules.tried.0 && worker != rules.tried.1 {
        if pass == 0, !panic, isEjected(worker, now) { continue }
        isAnyone = true
        if records[worker.index].plan != plan, isFull(worker, priority: rules.priority) { continue }
        eligible.append(worker)
      }
      // Nobody but ejected ones: the last replicas of a shard are used all the same.
      if isAnyone || policy.planted.contains(.lastReplicaEjected) { break }
    }
    if eligible.isEmpty {
      guard isAnyone else { return .none }
      guard rules.mayOverfill else { return .full }
      let untried = replicas.filter { $0 != rules.tried.0 && $0 != rules.tried.1 }
      return .worker(untried.first { panic || !isEjected($0, now) } ?? untried[0])
    }
    return .worker(draw(rules, now: now))
  }

  private mutating func draw(_ rules: ChoiceRules, now: Instant) -> WorkerID {
    let count = eligible.count
    if count == 1 { return eligible[0] }
    if rules.stickiness != 0 {
      var best = eligible[0]
      var highest: UInt64 = 0
      for worker in eligible {
        let number = StableHash.mix(rules.stickiness ^ StableHash.mix(UInt64(worker.rawValue) &+ 1))
        if number >= highest { (best, highest) = (worker, number) }
      }
      return best
    }
    let first = generator.below(count)
    if policy.choice == .random { return eligible[first] }
    let second = (first + 1 + generator.below(count - 1)) % count
    let (a, b) = (eligible[first], eligible[second])
    let (better, other) = cost(b, now) < cost(a, now) ? (b, a) : (a, b)
    let (mine, theirs) = (ramp(better, now: now), ramp(other, now: now))
    // A newcomer is spared only while the other can take its share: never in favour of one that hangs.
    let otherCanTake = cost(other, now) <= policy.slowStartCostFactor * cost(better, now)
    if mine < theirs, otherCanTake, generator.unit() * theirs >= mine { return other }
    return better
  }

  func cost(_ worker: WorkerID, _ now: Instant) -> Double {
    expectedLatency(worker, now: now) * Double(records[worker.index].shardsInFlight + 1)
  }
}
