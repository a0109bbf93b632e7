import RankingCore

// What the policy looks at: the workers, the bundles, the traffic, the metrics. All counts are sums since the process
// began and only grow; the policy itself takes the difference to what they were when it first saw a stage. (When they
// shrink, because a process began anew, it starts counting again.)

public struct Observed: Sendable {
  /// A worker by its name, as its last status says.
  public struct Worker: Sendable, Equatable {
    public var name: String
    public var zone: String
    /// Connected and answering: requests may be sent there.
    public var isUsable: Bool
    /// Shards are placed there: not leaving, not down for so long that it has been given up.
    public var isEligible: Bool
    /// Memory for slices and how much of it is taken, in bytes; a capacity of 0 = it does not say, taken to be enough.
    public var capacityBytes: UInt64
    public var heldBytes: UInt64
    public var holdings: [Holding]
    public init(
      name: String, zone: String = "", isUsable: Bool = true, isEligible: Bool = true, capacityBytes: UInt64 = 0,
      heldBytes: UInt64 = 0, holdings: [Holding] = []
    ) {
      self.name = name
      self.zone = zone
      self.isUsable = isUsable
      self.isEligible = isEligible
      self.capacityBytes = capacityBytes
      self.heldBytes = heldBytes
      self.holdings = holdings
    }
    public func holding(_ release: ModelVersion) -> Holding? { holdings.first { $0.release == release } }
  }

  /// What one worker has of one version.
  public struct Holding: Sendable, Equatable {
    public var release: ModelVersion
    /// Ascending.
    public var ready: [ShardID]
    public var loading: [ShardID]
    public var failed: [ShardID]
    /// Why shards failed, in a few words; empty = it does not say.
    public var failure: String
    /// Whether what is ready gave the right answers to its golden queries.
    public var verified: Check
    /// Whether the warm-up has been replayed until its latency was flat.
    public var isWarm: Bool
    public init(
      release: ModelVersion, ready: [ShardID] = [], loading: [ShardID] = [], failed: [ShardID] = [],
      failure: String = "", verified: Check = .pending, isWarm: Bool = false
    ) {
      self.release = release
      self.ready = ready
      self.loading = loading
      self.failed = failed
      self.failure = failure
      self.verified = verified
      self.isWarm = isWarm
    }
    var isEmpty: Bool { ready.isEmpty && loading.isEmpty }
    /// What could not be loaded is forgotten by an order, as the rest is let go; the next attempt must not see it.
    var isForgotten: Bool { isEmpty && failed.isEmpty }
  }

  public enum Check: Sendable, Equatable {
    case pending
    case passed
    /// With what was expected and what came.
    case failed(String)
  }

  /// What the coordinator knows of a version's bundle.
  public struct Bundle: Sendable, Equatable {
    public var release: ModelVersion
    /// Memory per shard in bytes; its count is S, none = not known yet.
    public var bytesPerShard: [UInt64]
    /// Why it cannot be served at all (not found, refused, damaged); nil = nothing is wrong with it.
    public var problem: String?
    /// Whether the cluster's answers to the bundle's golden queries, over all shards, are right.
    public var golden: Check
    public init(
      release: ModelVersion, bytesPerShard: [UInt64] = [], problem: String? = nil, golden: Check = .pending
    ) {
      self.release = release
      self.bytesPerShard = bytesPerShard
      self.problem = problem
      self.golden = golden
    }
  }

  public struct Traffic: Sendable, Equatable {
    public var release: ModelVersion
    /// Requests pinned to it that are not answered yet, over all coordinators that are known.
    public var inFlight: Int
    public var counts: TrafficCounts
    public init(release: ModelVersion, inFlight: Int = 0, counts: TrafficCounts = TrafficCounts()) {
      self.release = release
      self.inFlight = inFlight
      self.counts = counts
    }
  }

  /// Requests of a rollout's shadow stage, scored by both versions.
  public struct Shadow: Sendable, Equatable {
    public var rollout: String
    public var counts: ShadowCounts
    public init(rollout: String, counts: ShadowCounts = ShadowCounts()) {
      self.rollout = rollout
      self.counts = counts
    }
  }

  public struct Metric: Sendable, Equatable {
    /// As exported, with its labels.
    public var name: String
    public var value: Double
    public init(_ name: String, _ value: Double) {
      self.name = name
      self.value = value
    }
  }

  /// Workers per shard that placement aims at.
  public var replicas = 2
  /// Per shard the names of the workers that hold it, of whatever version, where configured; `nil` = by hashing.
  public var table: [[String]]?
  public var workers: [Worker] = []
  public var bundles: [Bundle] = []
  public var traffic: [Traffic] = []
  public var shadows: [Shadow] = []
  public var metrics: [Metric] = []
  public init() {}

  /// Who holds the shards of a version with so many; `nil` = by hashing.
  func holders(shards: Int) -> [[String]]? { table.flatMap { $0.count == shards ? $0 : nil } }
  func bundle(_ release: ModelVersion) -> Bundle? { bundles.first { $0.release == release } }
  func counts(_ release: ModelVersion) -> TrafficCounts {
    traffic.first { $0.release == release }?.counts ?? TrafficCounts()
  }
  func inFlight(_ release: ModelVersion) -> Int { traffic.first { $0.release == release }?.inFlight ?? 0 }
  func shadow(_ rollout: String) -> ShadowCounts { shadows.first { $0.rollout == rollout }?.counts ?? ShadowCounts() }

  /// How many usable workers have each shard ready; as long as the bundle's S.
  func readyReplicas(_ release: ModelVersion) -> [Int] {
    var ready = [Int](repeating: 0, count: bundle(release)?.bytesPerShard.count ?? 0)
    for worker in workers where worker.isUsable {
      for shard in worker.holding(release)?.ready ?? [] where shard.index < ready.count { ready[shard.index] += 1 }
    }
    return ready
  }
  /// The usable workers that have some of it in memory, or are reading it.
  func holders(_ release: ModelVersion) -> [Worker] {
    workers.filter { $0.isUsable && $0.holding(release)?.isEmpty == false }
  }
  func remembering(_ release: ModelVersion) -> [Worker] {
    workers.filter { $0.isUsable && $0.holding(release)?.isForgotten == false }
  }
}

/// Counts of requests answered from one version. Recording allocates nothing.
public struct TrafficCounts: Sendable, Equatable {
  /// One request's outcome.
  public struct Outcome: Sendable {
    public var isError = false
    /// Share of the items the answer speaks for, 0…1.
    public var coverage = 1.0
    public var isEmpty = false
    /// Fewer items than asked.
    public var isShort = false
    /// The ranker gave NaN for at least one item.
    public var hasNaN = false
    public var latency: Duration = .zero
    /// The mean score of the answer's items; nil = it has none.
    public var score: Double?
    public init() {}
  }
  public private(set) var requests = 0
  public private(set) var errors = 0
  /// Sum over the answers of the share of the items they do not speak for.
  public private(set) var coverageLost = 0.0
  public private(set) var empty = 0
  public private(set) var short = 0
  public private(set) var nan = 0
  public private(set) var latency = LatencyCounts()
  public private(set) var scored = 0
  public private(set) var scoreSum = 0.0
  public private(set) var scoreSquares = 0.0
  public init() {}
  init(
    requests: Int, errors: Int, coverageLost: Double, empty: Int, short: Int, nan: Int, latency: LatencyCounts,
    scored: Int, scoreSum: Double, scoreSquares: Double
  ) {
    self.requests = requests
    self.errors = errors
    self.coverageLost = coverageLost
    self.empty = empty
    self.short = short
    self.nan = nan
    self.latency = latency
    self.scored = scored
    self.scoreSum = scoreSum
    self.scoreSquares = scoreSquares
  }

  /// - Parameter times: so many requests with the same outcome.
  public mutating func record(_ outcome: Outcome, times: Int = 1) {
    requests += times
    latency.record(outcome.latency, times: times)
    // An error has no answer to speak of.
    guard !outcome.isError else { return errors += times }
    coverageLost += Double(times) * (outcome.coverage > 0 ? 1 - min(1, outcome.coverage) : 1)
    if outcome.isEmpty { empty += times }
    if outcome.isShort { short += times }
    if outcome.hasNaN { nan += times }
    // Beyond 1e150 the square is infinite; such scores are no scores.
    if let score = outcome.score, score.magnitude < 1e150 {
      scored += times
      scoreSum += Double(times) * score
      scoreSquares += Double(times) * score * score
    }
  }

  var answers: Int { requests - errors }
  var scoreMean: Double { scored > 0 ? scoreSum / Double(scored) : 0 }
  /// Of the population; never negative.
  var scoreVariance: Double { scored > 0 ? max(0, scoreSquares / Double(scored) - scoreMean * scoreMean) : 0 }

  public static func += (a: inout TrafficCounts, b: TrafficCounts) { a.combine(b, +, +) }
  static func - (a: TrafficCounts, b: TrafficCounts) -> TrafficCounts {
    var difference = a
    difference.combine(b, -, -)
    return difference
  }
  private mutating func combine(
    _ b: TrafficCounts, _ whole: (Int, Int) -> Int, _ real: (Double, Double) -> Double
  ) {
    requests = whole(requests, b.requests)
    errors = whole(errors, b.errors)
    coverageLost = max(0, real(coverageLost, b.coverageLost))
    empty = whole(empty, b.empty)
    short = whole(short, b.short)
    nan = whole(nan, b.nan)
    latency.combine(b.latency, whole)
    scored = whole(scored, b.scored)
    scoreSum = real(scoreSum, b.scoreSum)
    scoreSquares = real(scoreSquares, b.scoreSquares)
  }
  /// Whether these counts cannot have come after `earlier`.
  func isBehind(_ earlier: TrafficCounts) -> Bool {
    requests < earlier.requests || errors < earlier.errors || empty < earlier.empty || short < earlier.short
      || nan < earlier.nan || scored < earlier.scored || latency.isBehind(earlier.latency)
  }
}

/// What two versions' answers to the same requests have in common.
public struct ShadowCounts: Sendable, Equatable {
  /// Pairs of answers that could be compared.
  public private(set) var compared = 0
  /// Sum of the share of the k items that both answers have.
  public private(set) var overlapSum = 0.0
  public private(set) var correlated = 0
  /// Sum of the rank correlations (−1…1) of the items both have.
  public private(set) var correlationSum = 0.0
  /// The same requests by each version.
  public private(set) var old = TrafficCounts()
  public private(set) var new = TrafficCounts()
  public init() {}
  init(
    compared: Int, overlapSum: Double, correlated: Int, correlationSum: Double, old: TrafficCounts, new: TrafficCounts
  ) {
    self.compared = compared
    self.overlapSum = overlapSum
    self.correlated = correlated
    self.correlationSum = correlationSum
    self.old = old
    self.new = new
  }

  /// - Parameters:
  ///   - overlap: nil = one of the two failed.
  ///   - correlation: nil = fewer than two items in common.
  public mutating func record(
    old: TrafficCounts.Outcome, new: TrafficCounts.Outcome, overlap: Double?, correlation: Double? = nil,
    times: Int = 1
  ) {
    self.old.record(old, times: times)
    self.new.record(new, times: times)
    if let overlap, overlap.isFinite {
      compared += times
      overlapSum += Double(times) * min(1, max(0, overlap))
    }
    if let correlation, correlation.isFinite {
      correlated += times
      correlationSum += Double(times) * min(1, max(-1, correlation))
    }
  }

  public static func += (a: inout ShadowCounts, b: ShadowCounts) {
    a.compared += b.compared
    a.overlapSum += b.overlapSum
    a.correlated += b.correlated
    a.correlationSum += b.correlationSum
    a.old += b.old
    a.new += b.new
  }
  static func - (a: ShadowCounts, b: ShadowCounts) -> ShadowCounts {
    var difference = a
    difference.compared -= b.compared
    difference.overlapSum -= b.overlapSum
    difference.correlated -= b.correlated
    difference.correlationSum -= b.correlationSum
    difference.old = a.old - b.old
    difference.new = a.new - b.new
    return difference
  }
  func isBehind(_ earlier: ShadowCounts) -> Bool {
    compared < earlier.compared || correlated < earlier.correlated || old.isBehind(earlier.old)
      || new.isBehind(earlier.new)
  }
}

/// Latencies in buckets of at most an eighth of their value, from 16 µs to a minute, so that two versions can be
/// compared above any of them.
///
///     units of 16.384 µs   0 … 15 : one bucket each;   16 … 31 : buckets of 2;   32 … 63 : of 4; …
public struct LatencyCounts: Sendable, Equatable {
  private static let unitBits = 14
  private static let largest: UInt64 = (1 << 22) - 1
  static let buckets = bucket(.nanoseconds(Int64.max)) + 1

  private(set) var counts = [Int](repeating: 0, count: buckets)
  public private(set) var count = 0
  public init() {}
  /// nil = not so many buckets, or counts that no process could have.
  init?(buckets: [UInt64]) {
    let whole = buckets.compactMap(CountRule.whole)
    guard whole.count == Self.buckets, buckets.count == Self.buckets else { return nil }
    counts = whole
    count = whole.reduce(0, +)
  }

  /// Negative durations count as zero, those above 68 s as that.
  public mutating func record(_ duration: Duration, times: Int = 1) {
    counts[Self.bucket(duration)] += times
    count += times
  }

  static func bucket(_ duration: Duration) -> Int {
    let units = min(largest, UInt64(max(0, duration.nanoseconds)) >> UInt64(unitBits))
    let bits = UInt64.bitWidth - units.leadingZeroBitCount
    guard bits > 4 else { return Int(units) }
    let shift = bits - 4
    return shift * 8 + Int(units >> UInt64(shift))
  }
  /// The longest duration that falls into a bucket.
  static func upperEnd(_ bucket: Int) -> Duration {
    let units: UInt64
    if bucket < 16 {
      units = UInt64(bucket) + 1
    } else {
      let shift = UInt64(bucket / 8 - 1)
      units = (UInt64(bucket % 8) + 9) << shift
    }
    return .nanoseconds(Int64(units << UInt64(unitBits)) - 1)
  }

  /// The bucket below whose upper end at least `share` lies; nil when nothing was recorded.
  func quantileBucket(_ share: Double) -> Int? {
    guard count > 0 else { return nil }
    let rank = max(1, Int((share * Double(count)).rounded(.up)))
    var seen = 0
    for (bucket, number) in counts.enumerated() {
      seen += number
      if seen >= rank { return bucket }
    }
    return nil
  }
  /// - Parameter share: 0.99 for the p99.
  public func quantile(_ share: Double) -> Duration? { quantileBucket(share).map(Self.upperEnd) }
  func above(_ bucket: Int) -> Int { counts[min(bucket + 1, counts.count)...].reduce(0, +) }

  mutating func combine(_ b: LatencyCounts, _ whole: (Int, Int) -> Int) {
    for index in counts.indices { counts[index] = whole(counts[index], b.counts[index]) }
    count = whole(count, b.count)
  }
  func isBehind(_ earlier: LatencyCounts) -> Bool { count < earlier.count }
}
