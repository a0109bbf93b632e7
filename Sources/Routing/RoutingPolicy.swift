import RankingCore

/// The numbers of one request's way. Origins: the failure policy, "Coordinator → worker" and "Admission".
public struct RoutingPolicy: Sendable {
  public enum Choice: Sendable { case powerOfTwo, random }

  /// Kept back for merging and encoding: the smaller of these two.
  public var reserveMax: Duration = .milliseconds(10)
  public var reserveShare = 0.10
  /// From `early_at` of the items on, this share of what remains is still waited.
  public var earlyWaitShare = 0.25

  // MARK: Retries
  /// How often one shard may be sent out, hedges not counted.
  public var attemptsPerShard = 2
  /// Extra legs for lost connections: this many tokens per primary leg …
  public var retryTokensPerLeg = 0.10
  /// … and per second, so that a quiet service can retry too …
  public var retryTokensPerSecond = 2.0
  /// … and never more than this saved up (or than the shards that a lost connection owed).
  public var retryTokensMax = 50.0

  // MARK: Hedges
  public var hedging = true
  /// A leg is hedged once it is slower than this share of its worker's legs.
  public var hedgeQuantile = 0.95
  /// Later where a hedge takes several legs and the budget would not last, but not later than this.
  public var hedgeQuantileMax = 0.97
  public var hedgeDelayMin: Duration = .milliseconds(1)
  /// … and at the latest after this share of what remains.
  public var hedgeDelayMaxShare = 0.5
  /// Before a worker has shown `hedgeSamples` latencies.
  public var hedgeDelayUnknown: Duration = .milliseconds(10)
  public var hedgeSamples = 20
  /// 5 % extra legs at the most: tokens per primary leg, and how many may be saved up.
  public var hedgeTokensPerLeg = 0.05
  public var hedgeTokensMax = 10.0
  /// Slow legs that wait for a token. More means a cluster with other troubles than stragglers.
  public var hedgesWaitingMax = 1024

  // MARK: Choosing a replica
  public var choice = Choice.powerOfTwo
  /// Weight of a new latency sample in a worker's moving average.
  public var latencyWeight = 0.2
  /// A leg that was outrun is taken to be this many times as slow as it was old.
  public var outrunFactor = 4.0
  /// What is known of an idle worker fades toward what its siblings show.
  public var idleHalfLife: Duration = .seconds(5)
  /// A worker that is new or back gets its full share after this.
  public var slowStart: Duration = .seconds(5)
  /// A newcomer is not spared in favour of a replica that costs more than this many times as much. Several requests'
  /// shards in flight are usual and a factor of their own; legs that pile up at a frozen worker are soon more.
  public var slowStartCostFactor = 16.0
  /// The share a newcomer starts with.
  public var slowStartMin = 0.1
  /// Live latencies: this many slots of this length are remembered.
  public var latencySlots = 4
  public var latencySlot: Duration = .seconds(3)

  // MARK: Ejection
  public var ejectAfterFailures = 5
  public var successRateMin = 0.80
  public var successSamples = 5
  public var successSlots = 10
  public var successSlot: Duration = .seconds(3)
  public var slowEjection = true
  /// Slow: the median of one second is this many times the siblings' …
  public var slowFactor = 3.0
  /// … and more than this beyond it, as medians of a fraction of a millisecond mean nothing …
  public var slowFloor: Duration = .milliseconds(2)
  /// … for another second: two in all.
  public var slowFor: Duration = .seconds(1)
  public var slowSamples = 5
  public var slowSlots = 4
  public var slowSlot: Duration = .milliseconds(250)
  /// A leg that was given up sooner than this says nothing about its worker: the client was in a hurry.
  public var timeoutCountsFrom: Duration = .milliseconds(100)
  /// Times the number of ejections so far, plus jitter.
  public var ejectionTime: Duration = .seconds(2)
  public var ejectionTimeMax: Duration = .seconds(60)
  public var ejectionJitter = 0.2
  /// So long without an ejection, and one is forgiven.
  public var ejectionForgivenAfter: Duration = .seconds(10)
  /// When more than this share of all workers is ejected, the detector is what is broken: everyone is kept.
  public var panicShare = 0.5

  // MARK: Admission
  /// Requests in flight in one coordinator; above it the answer is "overloaded" at once.
  public var requestsInFlightMax = 1024
  /// What a worker that does not say is taken to admit, in legs.
  public var admitsUnknown = 36.0
  /// Batch requests leave the rest of every worker's room to interactive ones.
  public var batchShare = 0.5
  /// Room of a worker after it said "overloaded", and how soon it may shrink again.
  public var overloadFactor = 0.8
  public var overloadPause: Duration = .milliseconds(100)
  public var admitsMin = 2.0
  /// From this share of the scarcest worker's room on, nothing is hedged and R is lowered …
  public var pressureFrom = 0.5
  /// … down to this share of what was asked when there is no room left.
  public var qualityMin = 0.25

  /// Bugs that tests of the simulator switch on.
  public var planted: PlantedFaults = []
  public init() {}

  /// When what is there must be merged so that the answer leaves by the deadline.
  func mergeBy(start: Instant, deadline: Deadline) -> Instant {
    let whole = (deadline - start).nanoseconds
    let reserve = min(reserveMax.nanoseconds, Int64(Double(whole) * reserveShare))
    return deadline + .nanoseconds(-reserve)
  }

  /// The R used of the R asked when the scarcest worker's room is taken to this share. In eighths, so that answers do
  /// not flicker with every leg.
  func candidates(asked: Int, k: Int, pressure: Double) -> Int {
    guard pressure > pressureFrom else { return asked }
    let over = min(1, (pressure - pressureFrom) / (1 - pressureFrom))
    let quality = ((1 - over * (1 - qualityMin)) * 8).rounded(.up) / 8
    return max(min(k, asked), Int((Double(asked) * quality).rounded(.up)))
  }
}
