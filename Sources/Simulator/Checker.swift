import RankingCore
import Routing

// Checks what a coordinator does against what the design promises (DESIGN §8), from the effects it gives and the
// replies it gets, never from what it believes itself.

/// One request of a client, as seen from outside.
struct Asked {
  let request: RankingRequest
  /// Its number in the workload, and the shards that owe something.
  var template: Int
  var needed: UInt64
  var coordinator: Int
  var life: UInt32
  var at: Instant
  var deadline: Instant
  var isAnswered = false
  /// It vanished with its coordinator.
  var isGone = false
  /// Its calls, and the shards that at least one and at least two of them still owe.
  var legs: [(leg: LegID, call: Int)] = []
  var open: UInt64 = 0
  var openTwice: UInt64 = 0
  /// Whether the shard was ever sent out.
  var sent: UInt64 = 0
  /// What the first of its legs asked; the others must ask the same.
  var query: ScoreQuery?
  /// The calls that looked its vectors up.
  var lookups: [Int] = []
  /// Shards that a reply to one of its open legs spoke for.
  var replied: UInt64 = 0
  /// Shards that had a ready replica when it came.
  var hadReplica: UInt64 = 0
  var isLookingUp: Bool
  /// It must be answered in full.
  var mustSucceed: Bool
  /// The versions it may get when it names none; `nil` = any.
  var allowed: [String]?
}

struct Checker {
  let catalogue: Catalogue
  var asked: [Asked] = []
  /// Per life of a coordinator.
  var primaryLegs = 0
  var hedgeLegs = 0
  var retryLegs = 0
  var coveredByLoss = 0
  /// Shards that the coordinator's own requests have asked.
  private var own: [OwnPhase: UInt64] = [:]
  private struct OwnPhase: Hashable {
    var key: UInt64
    var isLookup: Bool
  }
  /// What is left of the hedges earned, as an account kept here says.
  var hedgeTokens = 0.0
  var since = Instant(nanoseconds: 0)

  private let oracle: PlainOracle

  init(_ catalogue: Catalogue, _ oracle: PlainOracle) {
    self.catalogue = catalogue
    self.oracle = oracle
  }

  mutating func coordinatorStarted(at now: Instant) {
    primaryLegs = 0
    hedgeLegs = 0
    retryLegs = 0
    coveredByLoss = 0
    hedgeTokens = 0
    own = [:]
    since = now
  }

  /// A leg of scoring was sent.
  mutating func sent(
    _ token: Int, _ request: ScoreRequest, retry tokens: RetryAllowance, now: Instant
  ) throws(Violation) {
    guard !asked[token].isAnswered, !asked[token].isGone else {
      throw Violation(text: "request \(token): a leg after its end")
    }
    if let first = asked[token].query {
      guard first == request.query else {
        throw Violation(text: "request \(token): legs that ask different things: \(first) and \(request.query)")
      }
    } else {
      asked[token].query = request.query
    }
    asked[token].isLookingUp = false
    let shards = request.tasks.reduce(into: UInt64(0)) { $0 |= 1 << UInt64($1.shard.rawValue) }
    let isExtra = asked[token].sent & shards != 0
    let isHedge = asked[token].open & shards == shards
    guard asked[token].openTwice & shards == 0 else {
      throw Violation(text: "request \(token): a third leg for a shard that two still owe")
    }
    asked[token].sent |= shards
    asked[token].openTwice |= asked[token].open & shards
    asked[token].open |= shards
    try count(isExtra: isExtra, isHedge: isHedge, tokens, now)
  }

  /// A leg that looks vectors up was sent.
  mutating func lookedUp(isExtra: Bool, isHedge: Bool, retry tokens: RetryAllowance, now: Instant) throws(Violation) {
    try count(isExtra: isExtra, isHedge: isHedge, tokens, now)
  }

  /// A leg of a request that nobody outside made: it earns and costs what others do.
  mutating func sentOwn(
    _ key: UInt64, _ shards: UInt64, isLookup: Bool, retry tokens: RetryAllowance, now: Instant
  ) throws(Violation) {
    let phase = OwnPhase(key: key, isLookup: isLookup)
    let isExtra = own[phase, default: 0] & shards != 0
    own[phase, default: 0] |= shards
    try count(isExtra: isExtra, isHedge: false, tokens, now)
  }

  struct RetryAllowance {
    var perLeg: Double
    var perSecond: Double
    var saved: Double
    var hedgePerLeg: Double
    var hedgesSaved: Double
  }

  private mutating func count(
    isExtra: Bool, isHedge: Bool, _ tokens: RetryAllowance, _ now: Instant
  ) throws(Violation) {
    if !isExtra {
      primaryLegs += 1
      hedgeTokens = min(tokens.hedgesSaved, hedgeTokens + tokens.hedgePerLeg)
    } else if isHedge {
      hedgeLegs += 1
      // The budget is paid before the legs of the very event that earned it are seen here.
      let allowed = tokens.hedgePerLeg * Double(primaryLegs + catalogue.shards)
      guard Double(hedgeLegs) <= allowed else {
        throw Violation(text: "\(hedgeLegs) hedges for \(primaryLegs) primary legs: over the budget")
      }
      hedgeTokens -= 1
      guard hedgeTokens >= -tokens.hedgePerLeg * Double(catalogue.shards) else {
        throw Violation(text: "more hedges at once than may be saved up: \(hedgeTokens) tokens are left")
      }
    } else {
      retryLegs += 1
      let seconds = Double((now - since).nanoseconds) / 1e9
      let allowed =
        tokens.saved + tokens.perLeg * Double(primaryLegs + catalogue.shards) + tokens.perSecond * (seconds + 1)
        + Double(coveredByLoss)
      guard Double(retryLegs) <= allowed else {
        throw Violation(text: "\(retryLegs) retries for \(primaryLegs) primary legs: over the budget")
      }
    }
  }

  /// A reply to a leg that is open.
  mutating func replied(_ token: Int, _ shards: [ShardID]) {
    for shard in shards where shard.index < catalogue.shards { asked[token].replied |= 1 << UInt64(shard.index) }
  }
  mutating func legEnded(_ token: Int, _ shards: UInt64) {
    let twice = asked[token].openTwice & shards
    asked[token].openTwice &= ~shards
    asked[token].open &= ~(shards & ~twice)
  }

  // MARK: Answers

  mutating func answered(
    _ token: Int, _ outcome: Result<Answer, RankingError>, now: Instant, grace: Duration
  ) throws(Violation) {
    guard !asked[token].isAnswered else { throw Violation(text: "request \(token) was answered twice") }
    guard !asked[token].isGone else { throw Violation(text: "request \(token) was answered after it was taken back") }
    asked[token].isAnswered = true
    let asked = asked[token]
    guard now <= asked.deadline + grace else {
      throw Violation(
        text: "request \(token) was answered \((now - asked.deadline).milliseconds) ms after its deadline")
    }
    switch outcome {
    case .success(let answer): try check(answer, asked, token)
    case .failure(let error):
      guard !asked.mustSucceed else { throw Violation(text: "request \(token) had to succeed: \(error)") }
      if asked.replied != 0, asked.request.minCoverage == 0, !asked.isLookingUp {
        throw Violation(text: "request \(token) failed although shards had answered: \(error)")
      }
    }
    if !asked.isLookingUp, asked.hadReplica != 0 { try checkReasons(outcome, asked, token) }
  }

  /// A shard with a ready replica was asked of somebody.
  private func checkReasons(
    _ outcome: Result<Answer, RankingError>, _ asked: Asked, _ token: Int
  ) throws(Violation) {
    let missing: [Coverage.Missing] =
      switch outcome {
      case .success(let answer): answer.coverage.missing
      case .failure(let error): error.missing
      }
    for entry in missing
    where entry.reason == .noReadyReplica && asked.hadReplica & (1 << UInt64(entry.shard.index)) != 0
      && asked.sent & (1 << UInt64(entry.shard.index)) == 0
    {
      throw Violation(text: "request \(token): shard \(entry.shard) had a ready replica and nobody was asked")
    }
  }

  private func check(_ answer: Answer, _ asked: Asked, _ token: Int) throws(Violation) {
    func fail(_ text: String) -> Violation { Violation(text: "request \(token): \(text)") }
    guard let version = catalogue.version(of: answer.release) else {
      throw fail("made from \(answer.release), which does not exist")
    }
    if let wanted = asked.request.version, wanted != answer.release.version {
      throw fail("made from \(answer.release) though \(wanted) was asked for")
    }
    if asked.request.version == nil, let allowed = asked.allowed, !allowed.contains(answer.release.version) {
      throw fail("made from \(answer.release), when \(allowed) were to be had")
    }
    let coverage = answer.coverage
    let missing = coverage.missing.map(\.shard.index)
    guard coverage.shards == catalogue.shards, coverage.answered + missing.count == catalogue.shards,
      zip(missing, missing.dropFirst()).allSatisfy({ $0 < $1 })
    else { throw fail("coverage does not add up: \(coverage)") }
    var covered = UInt64.max >> UInt64(64 - catalogue.shards)
    var items = catalogue.ids.count
    for shard in missing {
      covered &= ~(1 << UInt64(shard))
      items -= catalogue.members[shard].count
    }
    let invented = covered & asked.needed & ~asked.replied
    guard invented == 0 else { throw fail("says that shard \(invented.trailingZeroBitCount) answered; it did not") }
    let share = missing.isEmpty ? 1 : Double(items) / Double(catalogue.ids.count)
    guard coverage.items == share else { throw fail("covers \(share) of the items and says \(coverage.items)") }
    guard coverage.items >= asked.request.minCoverage else { throw fail("below min_coverage") }
    guard !asked.mustSucceed || missing.isEmpty else { throw fail("had to be complete: \(coverage)") }
    guard answer.candidates <= asked.request.candidatesAsked,
      answer.quality == Double(answer.candidates) / Double(asked.request.candidatesAsked)
    else { throw fail("quality \(answer.quality) does not fit R \(answer.candidates)") }
    guard
      let expected = oracle.answer(
        asked.template, asked.request, version: version, covered: covered, candidates: answer.candidates)
    else { throw fail("answered although the item does not exist") }
    let isSame =
      expected.items.count == answer.entries.count
      && zip(expected.items, answer.entries).allSatisfy {
        UInt64($0.ordinal) == $1.item.ordinal.rawValue && $0.score.bitPattern == $1.item.score.bitPattern
      }
    guard isSame else {
      throw fail(
        "differs from the oracle: \(expected.items.map { "\($0.ordinal):\($0.score)" }) and "
          + "\(answer.entries.map { "\($0.item.ordinal.rawValue):\($0.item.score)" }), \(coverage)")
    }
    guard answer.coldStart == expected.coldStart, answer.unknown == expected.unknown else {
      throw fail("says cold start \(String(describing: answer.coldStart)) and unknown \(answer.unknown)")
    }
    for entry in answer.entries where answer.id(entry) != catalogue.ids[Int(entry.item.ordinal.rawValue)] {
      throw fail("item \(entry.item.ordinal.rawValue) carries the id \(answer.id(entry))")
    }
  }
}
