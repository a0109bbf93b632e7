import RankingCore

// What people may say. Each is a pure function of the document: the change, or a refusal that says why and what would
// do.

public enum RolloutCommand: Sendable, Equatable {
  public enum Promotion: String, Sendable, CaseIterable {
    /// The next stage or step.
    case next
    /// The last step of the canary: all users.
    case full
  }
  /// The first version of a model, which serves at once; there is nothing to roll out from.
  case adopt(model: String, version: String)
  /// - `again`: although the version failed in an earlier rollout.
  case start(model: String, version: String, settings: RolloutSettings, again: Bool = false)
  /// Stays in its stage. Guards go on looking; deadlines wait.
  case pause(model: String)
  /// The stage's time and sample begin anew.
  case resume(model: String)
  /// Rolls back.
  case abort(model: String, why: String)
  /// On from shadow or canary, whatever time and sample are still missing.
  case promote(model: String, to: Promotion)
  /// Keeps a version loaded whatever rollouts do, for requests that name it.
  case pin(model: String, version: String)
  case unpin(model: String, version: String)
}

extension RolloutDocument {
  /// - Parameters:
  ///   - who: a person's name, 1 to 64 bytes; `policy` is taken.
  ///   - atMilliseconds: wall clock, for the history alone.
  public func applying(
    _ command: RolloutCommand, who: String, atMilliseconds: Int
  ) -> Result<Decision, RolloutError> {
    do throws(RolloutError) {
      guard (1...64).contains(who.utf8.count), who != Self.policy else {
        throw FieldRule.wrong("who", "a name of 1 to 64 bytes other than \"\(Self.policy)\"")
      }
      guard FieldLimit.count.contains(atMilliseconds) else { throw FieldRule.wrong("at_ms", "milliseconds since 1970") }
      return .success(try change(command, Author(name: who, atMilliseconds: atMilliseconds)))
    } catch { return .failure(error) }
  }

  private struct Author {
    var name: String
    var atMilliseconds: Int
  }

  private func change(_ command: RolloutCommand, _ author: Author) throws(RolloutError) -> Decision {
    switch command {
    case .adopt(let model, let version): return try adopt(model, version, author)
    case .start(let model, let version, let settings, let again):
      return try start(model, version, settings, again, author)
    case .pause(let model):
      var (state, rollout) = try forward(model, "paused")
      guard !rollout.isPaused else { throw conflict("\(rollout.id) is paused already") }
      rollout.isPaused = true
      state.rollout = rollout
      return tell(state, rollout, author, from: rollout.label, "paused")
    case .resume(let model):
      var (state, rollout) = try forward(model, "resumed")
      guard rollout.isPaused else { throw conflict("\(rollout.id) is not paused") }
      rollout.isPaused = false
      enter(&rollout, author)
      state.rollout = rollout
      return tell(state, rollout, author, from: rollout.label, "resumed")
    case .abort(let model, let why):
      var (state, rollout) = try forward(model, "aborted")
      try FieldRule.text(why, "why")
      let from = rollout.label
      rollout.turnBack("aborted by \(author.name)" + (why.isEmpty ? "" : ": \(why)"))
      rollout.isAborted = true
      enter(&rollout, author)
      state.rollout = rollout
      return tell(state, rollout, author, from: from, rollout.cause)
    case .promote(let model, let promotion): return try promote(model, promotion, author)
    case .pin(let model, let version): return try pin(model, version, author)
    case .unpin(let model, let version): return try unpin(model, version, author)
    }
  }

  // MARK: Single commands

  private func adopt(_ model: String, _ version: String, _ author: Author) throws(RolloutError) -> Decision {
    try FieldRule.name(model, "model", isNeeded: true)
    try FieldRule.name(version, "version", isNeeded: true)
    if let state = self[model] {
      throw conflict("\(model) has a serving version, \(state.serving), already; use start to move from it")
    }
    guard models.count < Self.modelsMax else { throw conflict("there are \(Self.modelsMax) models, the most") }
    var state = ModelState()
    state.model = model
    state.serving = version
    return changing(
      state, who: author.name, atMilliseconds: author.atMilliseconds, rollout: "", version: version, from: "none",
      to: "serving", why: "the first version of \(model)")
  }

  private func start(
    _ model: String, _ version: String, _ settings: RolloutSettings, _ again: Bool, _ author: Author
  ) throws(RolloutError) -> Decision {
    var state = try known(model)
    try FieldRule.name(version, "version", isNeeded: true)
    try settings.check("settings")
    if let rollout = state.rollout {
      throw conflict(
        "\(rollout.id), from \(rollout.from) to \(rollout.to), is under way (\(rollout.label)); wait for it or abort it"
      )
    }
    guard version != state.serving else { throw conflict("\(model)/\(version) is the serving version already") }
    if let failed = state.failed.first(where: { $0.version == version }), !again {
      throw conflict(
        "\(model)/\(version) failed in \(failed.rollout): \(failed.why); say \"again\" to try it once more")
    }
    var rollout = ActiveRollout()
    rollout.id = "\(model)-\(nextSequence)"
    rollout.from = state.serving
    rollout.to = version
    rollout.who = author.name
    rollout.settings = settings
    enter(&rollout, author)
    state.rollout = rollout
    return tell(state, rollout, author, from: "none", "from \(rollout.from) to \(version)")
  }

  private func promote(
    _ model: String, _ promotion: RolloutCommand.Promotion, _ author: Author
  ) throws(RolloutError) -> Decision {
    var (state, rollout) = try forward(model, "promoted")
    guard !rollout.isPaused else { throw conflict("\(rollout.id) is paused; resume it first") }
    let from = rollout.label
    let last = rollout.settings.canarySteps.count - 1
    switch (rollout.stage, promotion) {
    case (.shadow, .next): (rollout.stage, rollout.step) = (.canary, 0)
    case (.canary, .next) where rollout.step < last: rollout.step += 1
    case (.canary, .next):
      rollout.stage = .retire
      state.serving = rollout.to
    case (.canary, .full) where rollout.step == last:
      throw conflict("\(rollout.id) has all users already; the next stage is retire")
    case (.shadow, .full), (.canary, .full): (rollout.stage, rollout.step) = (.canary, last)
    default:
      throw conflict(
        "\(rollout.id) is in \(rollout.label): it cannot be promoted before every shard is loaded, verified and warm "
          + "(that is, before shadow)")
    }
    enter(&rollout, author)
    state.rollout = rollout
    return tell(state, rollout, author, from: from, "promoted by hand")
  }

  private func pin(_ model: String, _ version: String, _ author: Author) throws(RolloutError) -> Decision {
    var state = try known(model)
    try FieldRule.name(version, "version", isNeeded: true)
    guard version != state.rollout?.to || state.serving == version else {
      throw conflict("\(model)/\(version) is being rolled out; pin it when it serves")
    }
    guard !state.pinned.contains(version) else { throw conflict("\(model)/\(version) is pinned already") }
    guard state.pinned.count < Self.pinnedMax else {
      throw conflict("\(model) has \(Self.pinnedMax) pinned versions, the most: \(Figure.listed(state.pinned))")
    }
    state.pinned.append(version)
    state.pinned.sort()
    return changing(
      state, who: author.name, atMilliseconds: author.atMilliseconds, rollout: "", version: version, from: "none",
      to: "pinned", why: "pinned")
  }

  private func unpin(_ model: String, _ version: String, _ author: Author) throws(RolloutError) -> Decision {
    var state = try known(model)
    guard state.pinned.contains(version) else {
      throw RolloutError(
        .notFound,
        "\(model)/\(version) is not pinned; pinned: \(state.pinned.isEmpty ? "none" : Figure.listed(state.pinned))")
    }
    state.pinned.removeAll { $0 == version }
    return changing(
      state, who: author.name, atMilliseconds: author.atMilliseconds, rollout: "", version: version, from: "pinned",
      to: "none", why: "unpinned")
  }

  // MARK: What they share

  private func conflict(_ message: String) -> RolloutError { RolloutError(.conflict, message) }

  private func known(_ model: String) throws(RolloutError) -> ModelState {
    guard let state = self[model] else {
      let names = models.isEmpty ? "none" : Figure.listed(models.map(\.model))
      throw RolloutError(.notFound, "unknown model \"\(Figure.shortened(model))\"; known: \(names)")
    }
    return state
  }

  /// The model's rollout, if it may still turn.
  private func forward(_ model: String, _ verb: String) throws(RolloutError) -> (ModelState, ActiveRollout) {
    let state = try known(model)
    guard let rollout = state.rollout else {
      throw RolloutError(.notFound, "\(model) has no rollout that could be \(verb)")
    }
    switch rollout.stage {
    case .retire:
      throw conflict(
        "\(rollout.id) can no longer be \(verb): \(rollout.to) serves and \(rollout.from) retires; to go back, start a "
          + "rollout to \(rollout.from)")
    case .rollingBack: throw conflict("\(rollout.id) is rolling back (\(rollout.cause)) and cannot be \(verb)")
    default: return (state, rollout)
    }
  }

  private func enter(_ rollout: inout ActiveRollout, _ author: Author) {
    rollout.entered += 1
    rollout.enteredMilliseconds = author.atMilliseconds
  }

  private func tell(
    _ state: ModelState, _ rollout: ActiveRollout, _ author: Author, from: String, _ why: String
  ) -> Decision {
    changing(
      state, who: author.name, atMilliseconds: author.atMilliseconds, rollout: rollout.id, version: rollout.to,
      from: from, to: rollout.label, why: why)
  }
}
