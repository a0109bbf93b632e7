import RankingCore

// How a request goes on when a phase is over, and how it ends.

extension Router {
  /// Moves a settled flight to its next phase or to its end.
  mutating func proceed(_ flight: Flight, now: Instant, into effects: inout [Effect]) {
    guard flight.isOpen else { return }
    guard flight.isSettled || flight.isHopeless else { return arm(flight, now: now) }
    guard flight.phase == .lookingUp else {
      return finish(flight, outcome(flight, now: now), now: now, into: &effects)
    }
    do throws(RankingError) {
      let missing = flight.missing
      guard missing.isEmpty else {
        throw RankingError(
          .unavailable, "the vectors that the request names cannot be had: \(Self.listed(missing))", missing: missing)
      }
      try flight.resolveLookups(catalog[flight.entry].release)
      flight.planTasks()
      launch(flight, now: now, into: &effects)
      proceed(flight, now: now, into: &effects)
    } catch {
      finish(flight, .failure(error), now: now, into: &effects)
    }
  }

  /// With enough of the items answered for, the rest is waited for only a part of what remains. Enough is never less
  /// than what the request insists on: an early end must not turn an answer into an error.
  private mutating func arm(_ flight: Flight, now: Instant) {
    guard let earlyAt = flight.request.earlyAt, !flight.isEarlyArmed, flight.phase == .scoring,
      flight.coveredShare >= max(earlyAt, flight.request.minCoverage)
    else { return }
    flight.isEarlyArmed = true
    let wait = Int64(Double(max(0, (flight.mergeBy - now).nanoseconds)) * policy.earlyWaitShare)
    deadlines.insert(DeadlineHeap.Entry(at: now + .nanoseconds(wait), flight: flight.id, purpose: .merge))
  }

  private mutating func outcome(_ flight: Flight, now: Instant) -> Result<Answer, RankingError> {
    let coverage = flight.coverage
    guard coverage.answered > 0 else {
      let isRefusal = coverage.missing.allSatisfy { $0.reason == .overloaded }
      return .failure(
        RankingError(
          isRefusal ? .overloaded : .unavailable, "no shard answered: \(Self.listed(coverage.missing))",
          missing: coverage.missing))
    }
    guard coverage.items >= flight.request.minCoverage, !flight.isHopeless else {
      return .failure(
        RankingError(
          .unavailable,
          "coverage \(coverage.items) is below min_coverage \(flight.request.minCoverage): "
            + Self.listed(coverage.missing), missing: coverage.missing))
    }
    var unknown = flight.unknown
    if let cap = flight.query.cap { flight.merged.cap(cap, limit: flight.query.k) }
    var (entries, lists) = flight.merged.take()
    if case .rank(let items) = flight.request.kind {
      unknown += Self.unranked(items, flight, coverage, entries, lists)
    }
    rerank(&entries, of: lists, flight)
    var answer = Answer(
      release: flight.release, entries: entries, lists: lists, coldStart: flight.coldStart, coverage: coverage,
      candidates: flight.query.candidates,
      quality: Double(flight.query.candidates) / Double(flight.request.candidatesAsked), unknown: unknown,
      requestID: flight.request.requestID, took: now - flight.start)
    if flight.query.explain {
      answer.contributionNames = ContributionLayout.names(catalog[flight.entry].release)
    }
    return .success(answer)
  }

  /// What is done to the list as a whole, and its end cut off.
  private mutating func rerank(_ entries: inout [Answer.Entry], of lists: [ScoredList], _ flight: Flight) {
    func cut(_ count: Int) { if entries.count > count { entries.removeLast(entries.count - count) } }
    if let ranker = catalog[flight.entry].release.listRanker, !entries.isEmpty {
      cut(max(flight.wanted, ranker.pool))
      let width = flight.query.wantedColumns.count
      var items = MergedItems(
        scores: entries.map(\.item.score), values: [], userValues: flight.query.userValues,
        contextValues: flight.query.contextValues)
      items.values.reserveCapacity(entries.count * width)
      for entry in entries {
        items.values += lists[Int(entry.list)].values[Int(entry.position) * width..<(Int(entry.position) + 1) * width]
      }
      let scores = ranker.scores(of: items)
      for index in entries.indices { entries[index].item.score = scores[index] }
      let count = entries.count
      entries.removeAll { !$0.item.score.isFinite }
      if entries.count < count {
        counters.droppedNaN += UInt64(count - entries.count)
        flight.hasNaN = true
      }
      entries.sort { $0.item.precedes($1.item) }
    }
    if let relevance = flight.request.marginalRelevance {
      cut(max(flight.wanted, relevance.pool))
      let dimension = catalog[flight.entry].release.dimension
      let order = relevance.order(scores: entries.map(\.item.score), k: flight.wanted, dimension: dimension) { index in
        let (list, position) = (Int(entries[index].list), Int(entries[index].position))
        return lists[list].vectors[position * dimension..<(position + 1) * dimension]
      }
      entries = order.map { entries[$0] }
    }
    cut(flight.wanted)
  }

  /// The items to rank that no worker knew, of the shards that answered. Items that were left out for another reason
  /// (`exclude`, `filter`, `min_score`) are not unknown, so workers are asked for no such thing: the difference is made
  /// here.
  private static func unranked(
    _ items: [String], _ flight: Flight, _ coverage: Coverage, _ entries: [Answer.Entry], _ lists: [ScoredList]
  ) -> [String] {
    guard flight.request.minScore == nil, flight.request.filter == nil else { return [] }
    var ranked = Set(entries.map { lists[Int($0.list)].ids[Int($0.position)] })
    ranked.formUnion(flight.request.exclude)
    let missing = Set(coverage.missing.map(\.shard))
    return items.filter {
      !ranked.contains($0) && !missing.contains(ShardID.owner(of: $0, shards: flight.shards.count))
    }
  }

  private mutating func finish(
    _ flight: Flight, _ outcome: Result<Answer, RankingError>, now: Instant, into effects: inout [Effect]
  ) {
    cancelOpenLegs(flight, now: now, isTimeout: now >= flight.mergeBy, into: &effects)
    let origin = flight.origin
    if let tracesFrom, now - flight.start >= tracesFrom || !Self.isComplete(outcome) {
      effects.append(.trace(RequestTrace(flight, now: now)))
    }
    close(flight)
    effects.append(.answer(flight.token, outcome, origin: origin))
  }

  private static func isComplete(_ outcome: Result<Answer, RankingError>) -> Bool {
    if case .success(let answer) = outcome { answer.coverage.missing.isEmpty } else { false }
  }

  static func listed(_ missing: [Coverage.Missing]) -> String {
    missing.map { "shard \($0.shard) (\($0.reason.rawValue))" }.joined(separator: ", ")
  }
}
