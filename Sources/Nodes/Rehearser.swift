import RankingCore
import Routing

// The rehearsal of a version before anybody gets it: the requests that its bundle brings, answered by the cluster, one
// at a time and by each replica in turn, first to see that they are right, then until they get no faster.
//
//     verify   query 1 by the first replicas, by the second; query 2 …      one wrong answer: failed, with both
//     warm     all queries by all replicas, a round; again, until a round   ──► is warm
//              is not a tenth faster than the one before it
//
// An answer that is incomplete, or was lowered under pressure, says nothing: it is asked for again, a little later.
// Every answer is followed by a rest as long as it took: a rehearsal is half a client, however slow the version is.

struct Rehearser: Sendable {
  enum Check: Sendable, Equatable {
    case pending
    case passed
    case failed(String)
  }
  private enum Phase { case verify, warm }
  struct Turn: Sendable, Equatable {
    var query: Int
    var replica: Int
  }

  /// Asked again after so long.
  static let pause: Duration = .milliseconds(200)
  private static let roundsMin = 3
  /// A round this much faster than the one before it says that the next may be faster still.
  private static let gain = 0.9

  let release: ModelVersion
  private let queries: [Rehearsal]
  private(set) var check = Check.pending
  private(set) var isWarm = false
  /// Rounds of warming up that are done, and the mean latency of the last.
  private(set) var rounds = 0
  private var roundMean: Duration = .zero
  /// How many golden queries there are, and answers of each that were right.
  private(set) var rightAnswers = 0
  private var phase = Phase.verify
  private var next = Turn(query: 0, replica: 0)
  private var sum: Duration = .zero
  private var count = 0
  private(set) var notBefore: Instant
  private var askedAt: Instant
  /// The request whose answer it waits for. That of an earlier rehearsal is not its.
  private(set) var asked: RequestToken?

  init(_ release: Release, now: Instant) {
    self.release = release.id
    queries = release.rehearsals
    notBefore = now
    askedAt = now
    if !queries.contains(where: { $0.expected != nil }) { check = .passed }
    skip()
  }

  /// - Returns: nil = nothing is to be asked just now.
  mutating func ask(
    as token: RequestToken, mayWarm: Bool, now: Instant
  ) -> (request: RankingRequest, replica: Int)? {
    guard asked == nil, now >= notBefore, !isDone(mayWarm: mayWarm), queries.indices.contains(next.query) else {
      return nil
    }
    asked = token
    askedAt = now
    return (queries[next.query].request, next.replica)
  }
  func isDone(mayWarm: Bool) -> Bool {
    switch phase {
    case .verify: check != .pending
    case .warm: isWarm || !mayWarm
    }
  }

  /// - Parameter replicas: how many replicas the best held shard has: as many turns show all of them.
  mutating func answered(
    _ outcome: Result<Answer, RankingError>, hasNaN: Bool, replicas: Int, now: Instant
  ) {
    asked = nil
    guard case .success(let answer) = outcome, answer.coverage.missing.isEmpty, answer.quality == 1 else {
      notBefore = now + Self.pause
      return
    }
    notBefore = now + (now - askedAt)
    switch phase {
    case .verify:
      if let wrong = wrong(answer, hasNaN: hasNaN) {
        check = .failed(wrong)
        return
      }
      rightAnswers += 1
    case .warm:
      sum += answer.took
      count += 1
    }
    advance(replicas)
  }

  private func wrong(_ answer: Answer, hasNaN: Bool) -> String? {
    let query = queries[next.query]
    func of(_ text: String) -> String { "\(Self.subject(query.request)): \(text)" }
    if hasNaN { return of("the ranker gave NaN instead of a score") }
    let expected = query.expected ?? []
    guard answer.entries.count == expected.count else {
      return of("\(answer.entries.count) items instead of \(expected.count)")
    }
    for (place, (entry, item)) in zip(answer.entries, expected).enumerated() {
      let id = answer.id(entry)
      guard id != item.id || entry.item.score.bitPattern != item.score.bitPattern else { continue }
      return of("place \(place + 1) is \(id) with \(entry.item.score), expected was \(item.id) with \(item.score)")
    }
    return nil
  }
  private static func subject(_ request: RankingRequest) -> String {
    if case .user(let user) = request.subject { return "for user \(user)" }
    return "for a request of the bundle"
  }

  private mutating func advance(_ replicas: Int) {
    next.replica += 1
    guard next.replica >= max(1, replicas) else { return }
    next = Turn(query: next.query + 1, replica: 0)
    skip()
  }

  /// To the next query that the phase asks, and at the end to what follows.
  private mutating func skip() {
    if phase == .verify {
      while queries.indices.contains(next.query), queries[next.query].expected == nil { next.query += 1 }
    }
    guard !queries.indices.contains(next.query) else { return }
    next = Turn(query: 0, replica: 0)
    switch phase {
    case .verify:
      if check == .pending { check = .passed }
      phase = .warm
      if queries.isEmpty { isWarm = true }
    case .warm:
      rounds += 1
      let mean = sum / max(1, count)
      let isFlat = Double(mean.nanoseconds) >= Self.gain * Double(roundMean.nanoseconds)
      roundMean = mean
      (sum, count) = (.zero, 0)
      if rounds >= Self.roundsMin, isFlat { isWarm = true }
    }
  }
}
