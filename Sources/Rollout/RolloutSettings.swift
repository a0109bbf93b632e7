// What a rollout is held to. Every number can be set per rollout (the `settings` of `start`); the numbers a rollout
// began with stand in the document, so that another release's defaults do not change it half-way.

/// When a stage may end, and when it has taken too long.
public struct StageLimits: Sendable, Equatable {
  /// At least so long, on the driver's clock.
  public var minTime: Duration
  /// At least so many observations: pairs in shadow, requests of the new version in a canary step.
  public var minSample: Int
  /// load, warm: without progress; all others: in the stage, and then more than `minTime`.
  public var deadline: Duration
  public init(minTime: Duration = .zero, minSample: Int = 0, deadline: Duration = .seconds(60)) {
    self.minTime = minTime
    self.minSample = minSample
    self.deadline = deadline
  }
}

/// When one guard trips: beyond the absolute *and* the relative limit, by more than chance explains, on enough
/// requests.
public struct GuardLimit: Sendable, Equatable {
  public var isOn: Bool
  /// In the guard's own unit; see `GuardLimits`.
  public var absolute: Double
  /// As a multiple of what the old version shows.
  public var relative: Double
  /// Fewer observations of the new version than this say nothing.
  public var sample: Int
  public init(absolute: Double = 0, relative: Double = 1, sample: Int = 100, isOn: Bool = true) {
    self.isOn = isOn
    self.absolute = absolute
    self.relative = relative
    self.sample = sample
  }
}

public struct GuardLimits: Sendable, Equatable {
  /// Failed share of requests. 0.5 %: below it nobody is woken; 1.5 ×: a bad day hits both versions alike.
  public var errorRate = GuardLimit(absolute: 0.005, relative: 1.5)
  /// Share of the items that answers do not speak for.
  public var coverage = GuardLimit(absolute: 0.005, relative: 1.5)
  /// Slower than the old p99 by so many milliseconds and by this factor: less is within a histogram's buckets and a
  /// young process's caches.
  public var latencyP99 = GuardLimit(absolute: 5, relative: 1.25)
  /// Share of answers without an item. Filters make some; they do so for both.
  public var emptyAnswers = GuardLimit(absolute: 0.01, relative: 1.5)
  /// Share of answers with fewer items than asked.
  public var shortAnswers = GuardLimit(absolute: 0.05, relative: 1.5)
  /// Share of answers for which the ranker gave NaN: sound models give none.
  public var nanScores = GuardLimit(absolute: 0.002, relative: 1.5)
  /// Distance of the mean scores, in score units and in standard deviations of the old: a model trained anew moves by
  /// fractions of one.
  public var scoreDrift = GuardLimit(absolute: 1e-6, relative: 2)
  /// Least mean overlap@k of the two answers, in shadow. A daily model keeps half of its answers; permuted ids keep
  /// k ÷ N. The old version's overlap with itself is 1, so that the relative limit is a share of 1.
  public var overlap = GuardLimit(absolute: 0.1, relative: 0.1)
  /// Least mean rank correlation of the items both answers have, −1…1. Off: a better order is what many rollouts want.
  public var rankCorrelation = GuardLimit(absolute: 0, relative: 0, isOn: false)
  public init() {}
}

/// Bounds on any metric that the coordinator exports.
public struct MetricGuard: Sendable, Equatable {
  /// As exported, with its labels.
  public var name = ""
  public var min: Double?
  public var max: Double?
  /// Bounds as multiples of what it was when the driver first saw the rollout. Beyond a bound means beyond both the
  /// absolute and the relative one, where both are given.
  public var relativeMin: Double?
  public var relativeMax: Double?
  /// Beyond a bound without a break for so long: the floor that keeps one odd reading from tripping it.
  public var lasting: Duration = .seconds(5)
  public init() {}
  public init(_ name: String, min: Double? = nil, max: Double? = nil, lasting: Duration = .seconds(5)) {
    self.name = name
    self.min = min
    self.max = max
    self.lasting = lasting
  }
}

public struct RolloutSettings: Sendable, Equatable {
  /// 60 s without one more ready replica: a slice of a gigabyte takes a few seconds, a lost worker is replaced after
  /// 30.
  public var load = StageLimits(deadline: .seconds(60))
  /// Golden queries are some dozens.
  public var verify = StageLimits(deadline: .seconds(60))
  /// Replaying until flat takes seconds; 120 s without one more warm worker is a model that never gets flat.
  public var warm = StageLimits(deadline: .seconds(120))
  /// 30 s see three windows of the hedging delay; 400 pairs show 5 % errors and an overlap near its limit.
  public var shadow = StageLimits(minTime: .seconds(30), minSample: 400, deadline: .seconds(600))
  /// Per step. 400 requests show 5 % errors before the share is widened; half an hour without them asks for a person.
  public var canary = StageLimits(minTime: .seconds(60), minSample: 400, deadline: .seconds(1800))
  /// 5 s before anything is unloaded: coordinators that have not heard of it yet do so. After the deadline what is
  /// left on workers is placement's.
  public var retire = StageLimits(minTime: .seconds(5), deadline: .seconds(120))
  /// Traffic leaves at once; 2 s before anything is unloaded, for the same reason.
  public var rollingBack = StageLimits(minTime: .seconds(2), deadline: .seconds(120))

  /// Shares of the users, in hundredths of a percent, ascending; the last is 10 000.
  public var canarySteps = [100, 1000, 5000, 10_000]
  /// Share of the requests that both versions score, in hundredths of a percent; 0 = no shadow stage. 10 %: a tenth
  /// more work.
  public var shadowShare = 1000

  /// Whether the new version's vectors may have another length: requests that carry a vector, or the other version's,
  /// would be refused.
  public var allowsOtherDimension = false

  public var guards = GuardLimits()
  public var metrics: [MetricGuard] = []
  /// How unlikely a finding must be before a guard trips: the chance that one look at a sound version trips one guard
  /// is below (1 + e)·exp(−e), 2 in a million at 16. A rollout of six minutes takes some 6000 looks (ticks × guards ×
  /// two windows), most of them at the same requests: of 2000 sound versions none was turned back (`FalseAlarmTests`).
  public var evidence = 16.0
  /// Besides the whole stage, guards look at what happened this recently, so that a long healthy time does not hide a
  /// fault that begins late.
  public var recent: Duration = .seconds(30)
  public init() {}

  public func limits(of stage: RolloutStage) -> StageLimits {
    switch stage {
    case .load: load
    case .verify: verify
    case .warm: warm
    case .shadow: shadow
    case .canary: canary
    case .retire: retire
    case .rollingBack: rollingBack
    }
  }
}
