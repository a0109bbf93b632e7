import RankingCore

// Figures that a sound version keeps within limits. Each is compared with the old version over the same time; a guard
// has tripped when the figure is beyond its limit, its sample is large enough, and chance does not explain it
// (`Evidence`).
//
//     error_rate      failed requests                        share     coverage   items not spoken for      share
//     latency_p99     requests slower than the old p99 allows: at most 1 % of them may be (a count, not a quantile)
//     empty_answers   short_answers   nan_scores             share of the answers
//     score_drift     distance of the mean scores            score units and standard deviations
//     overlap         rank_correlation                       least mean over the pairs of the shadow stage

public enum GuardName: String, Sendable, CaseIterable {
  case errorRate = "error_rate"
  case coverage
  case latencyP99 = "latency_p99"
  case emptyAnswers = "empty_answers"
  case shortAnswers = "short_answers"
  case nanScores = "nan_scores"
  case scoreDrift = "score_drift"
  case overlap
  case rankCorrelation = "rank_correlation"
}

/// What one guard sees: for people, and for the reason of a rollback.
public struct GuardFigure: Sendable, Equatable {
  /// A `GuardName`, or the metric's.
  public var name: String
  public var new: Double
  /// nil = there is nothing to compare with.
  public var old: Double?
  /// The limit that is compared with, in the unit of `new`.
  public var limit: Double
  public var sample: Int
  public var oldSample: Int
  /// See `RolloutSettings.evidence`.
  public var evidence: Double
  public var isTripped: Bool
  /// Everything above in one sentence, without the name.
  public var text: String
}

/// The same requests, or the same time, by both versions.
struct Comparison {
  var new: TrafficCounts
  var old: TrafficCounts
  /// All traffic goes to the new version and none of the old one's is remembered: absolute limits alone.
  var isAlone = false
  var shadow: ShadowCounts?
  var limits: GuardLimits
  var evidence: Double

  var figures: [GuardFigure] {
    var all: [GuardFigure] = []
    func add(_ figure: GuardFigure?) { if let figure { all.append(figure) } }
    add(
      share(
        .errorRate, limits.errorRate, "requests", new: (Double(new.errors), new.requests),
        old: (Double(old.errors), old.requests)))
    add(
      share(
        .coverage, limits.coverage, "answers' items", new: (new.coverageLost, new.answers),
        old: (old.coverageLost, old.answers)))
    add(latency(limits.latencyP99))
    // How many answers are empty or short is the requests' doing first: alone, that says nothing.
    if !isAlone {
      add(
        share(
          .emptyAnswers, limits.emptyAnswers, "answers", new: (Double(new.empty), new.answers),
          old: (Double(old.empty), old.answers)))
      add(
        share(
          .shortAnswers, limits.shortAnswers, "answers", new: (Double(new.short), new.answers),
          old: (Double(old.short), old.answers)))
    }
    add(
      share(
        .nanScores, limits.nanScores, "answers", new: (Double(new.nan), new.answers),
        old: (Double(old.nan), old.answers)))
    add(drift(limits.scoreDrift))
    if let shadow {
      add(least(.overlap, limits.overlap, shadow.overlapSum, shadow.compared, in: 0...1))
      add(least(.rankCorrelation, limits.rankCorrelation, shadow.correlationSum, shadow.correlated, in: -1...1))
    }
    return all
  }

  private func figure(
    _ name: GuardName, _ limit: GuardLimit, new: Double, old: Double?, bound: Double, sample: Int, oldSample: Int,
    waits: Bool = false, evidence: Double, _ text: String
  ) -> GuardFigure {
    // Below the floor a figure may hold a stage, but turns nothing back.
    let isTripped = !waits && sample >= limit.sample && evidence >= self.evidence
    return GuardFigure(
      name: name.rawValue, new: new, old: old, limit: bound, sample: sample, oldSample: oldSample, evidence: evidence,
      isTripped: isTripped, text: text + "; evidence \(Figure.fixed(evidence, 1)) of \(Figure.fixed(self.evidence, 1))")
  }

  /// Too little of the old version to compare with, where there should be some.
  private func mustWait(_ oldSample: Int, _ limit: GuardLimit) -> Bool { !isAlone && oldSample < limit.sample }

  private func share(
    _ name: GuardName, _ limit: GuardLimit, _ what: String, new: (sum: Double, count: Int),
    old: (sum: Double, count: Int)
  ) -> GuardFigure? {
    guard limit.isOn else { return nil }
    let share = new.count > 0 ? new.sum / Double(new.count) : 0
    let oldShare = old.count > 0 ? old.sum / Double(old.count) : nil
    let bound = isAlone ? limit.absolute : max(limit.absolute, limit.relative * (oldShare ?? 0))
    let evidence =
      !isAlone && old.count == 0
      ? 0
      : Evidence.above(new, old: isAlone ? nil : old, absolute: limit.absolute, relative: limit.relative)
    let against = oldShare.map { "\(Figure.percent($0)) of \(old.count)" } ?? "nothing"
    return figure(
      name, limit, new: share, old: oldShare, bound: bound, sample: new.count, oldSample: old.count,
      waits: mustWait(old.count, limit), evidence: evidence,
      "\(Figure.percent(share)) of \(new.count) \(what) against \(against), limit \(Figure.percent(bound))")
  }

  /// The new p99 is beyond a bound exactly when more than 1 % of its requests are slower than that; so they are
  /// counted.
  private func latency(_ limit: GuardLimit) -> GuardFigure? {
    guard limit.isOn, let oldBucket = old.latency.quantileBucket(0.99) else { return nil }
    let oldP99 = LatencyCounts.upperEnd(oldBucket).milliseconds
    let bound = max(oldP99 * limit.relative, oldP99 + limit.absolute)
    // What lies in the bound's own bucket counts as within it.
    let bucket = LatencyCounts.bucket(.nanoseconds(Int64(min(bound, 1e5) * 1e6)))
    let slow = (new: new.latency.above(bucket), old: old.latency.above(bucket))
    let evidence = Evidence.above(
      (Double(slow.new), new.requests), old: (Double(slow.old), old.requests), absolute: 0.01, relative: 1)
    let p99 = new.latency.quantile(0.99)?.milliseconds ?? 0
    return figure(
      .latencyP99, limit, new: p99, old: oldP99, bound: bound, sample: new.requests, oldSample: old.requests,
      waits: mustWait(old.requests, limit), evidence: evidence,
      "p99 \(Figure.fixed(p99, 1)) ms against \(Figure.fixed(oldP99, 1)) ms; \(slow.new) of \(new.requests) requests "
        + "slower than \(Figure.fixed(bound, 1)) ms against \(slow.old) of \(old.requests), limit 1 %")
  }

  private func drift(_ limit: GuardLimit) -> GuardFigure? {
    guard limit.isOn, old.scored > 0, new.scored > 0 else { return nil }
    let deviation = old.scoreVariance.squareRoot()
    let bound = max(limit.absolute, limit.relative * deviation)
    let evidence =
      old.scored < limit.sample || new.scored < limit.sample ? 0 : Evidence.apart(new, old, limit: bound)
    return figure(
      .scoreDrift, limit, new: new.scoreMean, old: old.scoreMean, bound: bound, sample: new.scored,
      oldSample: old.scored, evidence: evidence,
      "mean score \(Figure.fixed(new.scoreMean, 4)) of \(new.scored) answers against "
        + "\(Figure.fixed(old.scoreMean, 4)) of \(old.scored), at most \(Figure.fixed(bound, 4)) apart")
  }

  private func least(
    _ name: GuardName, _ limit: GuardLimit, _ sum: Double, _ count: Int, in range: ClosedRange<Double>
  ) -> GuardFigure? {
    guard limit.isOn else { return nil }
    let width = range.upperBound - range.lowerBound
    let bound = min(limit.absolute, limit.relative)
    let mean = count > 0 ? sum / Double(count) : range.upperBound
    // As a share of what is lost, so that too little of the one is too much of the other.
    let lost = (Double(count) * range.upperBound - sum) / width
    let evidence = Evidence.above(lost, of: count, limit: (range.upperBound - bound) / width)
    return figure(
      name, limit, new: mean, old: nil, bound: bound, sample: count, oldSample: 0, evidence: evidence,
      "mean \(Figure.fixed(mean, 3)) of \(count) pairs, at least \(Figure.fixed(bound, 3))")
  }
}
