import RankingCore

// The one document that coordinators agree on. It says what is wanted and how far it is; never what is there.

public struct RolloutDocument: Sendable, Equatable {
  /// Longer bytes are no document.
  public static let bytesMax = 1 << 20
  public static let modelsMax = 64
  public static let pinnedMax = 8
  /// Failed versions remembered per model; the oldest is forgotten first.
  public static let failedMax = 16
  /// Of a reason, in bytes of UTF-8.
  public static let textMax = 1000

  /// Ascending by name; empty = nothing is configured.
  public var models: [ModelState] = []
  /// Of the next line of history, from 1. Every change of the document writes exactly one, so that the history has
  /// neither gap nor double as long as the two are stored together.
  public var nextSequence = 1
  public init() {}

  public subscript(model: String) -> ModelState? { models.first { $0.model == model } }
}

/// What one model's requests are answered from.
public struct ModelState: Sendable, Equatable {
  public var model = ""
  /// The version that requests get unless a rollout says otherwise.
  public var serving = ""
  /// Versions that stay loaded whatever rollouts do and may be named by requests, ascending.
  public var pinned: [String] = []
  public var rollout: ActiveRollout?
  /// Versions that did not make it: not started again by accident.
  public var failed: [FailedVersion] = []
  /// How the last rollout ended.
  public var last: FinishedRollout?
  public init() {}

  /// The versions a request may name, the serving one first. Each must also have been complete once, which the router
  /// knows.
  public var published: [String] {
    var versions = [serving]
    if let rollout, rollout.stage.isPublished, rollout.to != serving { versions.append(rollout.to) }
    for version in pinned where !versions.contains(version) { versions.append(version) }
    return versions
  }
}

/// A rollout under way.
public struct ActiveRollout: Sendable, Equatable {
  /// Never given twice: the model's name and the sequence of the history's line that began it. It salts the choice of
  /// users.
  public var id = ""
  public var from = ""
  public var to = ""
  public var stage = RolloutStage.load
  /// In `canary` and after it: which of `settings.canarySteps`.
  public var step = 0
  public var isPaused = false
  public var memory = MemoryPlan.undecided
  /// Grows with every stage, step and resumption: what is timed and counted starts again with it.
  public var entered = 0
  /// Wall clock, for people.
  public var enteredMilliseconds = 0
  /// Who started it.
  public var who = ""
  /// Why it rolls back; empty until it does.
  public var cause = ""
  /// A person wanted it to.
  public var isAborted = false
  /// In `retire` and `rollingBack`: nothing is in flight on the version that goes, so that it may be unloaded.
  public var isDrained = false
  public var settings = RolloutSettings()
  public init() {}

  /// The new version's share of the users, in hundredths of a percent.
  public var share: Int {
    switch stage {
    case .canary: settings.canarySteps.indices.contains(step) ? settings.canarySteps[step] : 0
    case .retire: 10_000
    case .load, .verify, .warm, .shadow, .rollingBack: 0
    }
  }
  public var limits: StageLimits { settings.limits(of: stage) }
  /// The stage for people: "canary 1 %".
  public var label: String { Self.label(stage, share: share) }
  static func label(_ stage: RolloutStage, share: Int) -> String {
    stage == .canary
      ? "canary \(share % 100 == 0 ? "\(share / 100)" : Figure.fixed(Double(share) / 100, 2)) %" : stage.rawValue
  }
}

public struct FailedVersion: Sendable, Equatable {
  public var version = ""
  public var rollout = ""
  public var why = ""
  public init() {}
}

public struct FinishedRollout: Sendable, Equatable {
  public enum Outcome: String, Sendable, CaseIterable { case done, failed, aborted }
  public var id = ""
  public var from = ""
  public var to = ""
  public var outcome = Outcome.done
  public var why = ""
  public var atMilliseconds = 0
  public init() {}
}

/// One line of the append-only history: who did what, when, and why, with the figures.
public struct HistoryEntry: Sendable, Equatable {
  public var sequence = 0
  /// Wall clock, for people.
  public var atMilliseconds = 0
  /// `policy`, or a person's name.
  public var who = ""
  public var model = ""
  /// The rollout's id; empty for what concerns none.
  public var rollout = ""
  public var version = ""
  /// Stages as `ActiveRollout.label` says them, besides `none`, `done`, `failed` and `aborted`.
  public var from = ""
  public var to = ""
  public var why = ""
  public init() {}
}

/// A change: store both parts or neither, under the revision that the document was read with.
public struct Decision: Sendable, Equatable {
  public var document: RolloutDocument
  public var entry: HistoryEntry
}

/// Why a command or a document is refused.
public struct RolloutError: Error, Sendable, Equatable, CustomStringConvertible {
  public enum Code: String, Sendable {
    /// What was said is wrong whatever the state (HTTP 400).
    case invalidArgument = "invalid_argument"
    /// A model, version or rollout that is not there (HTTP 404).
    case notFound = "not_found"
    /// Right, but not now (HTTP 409).
    case conflict
    /// The document cannot be read or changed just now (HTTP 503).
    case unavailable
  }
  public var code: Code
  /// One sentence: what is wrong, where, and what is allowed.
  public var message: String
  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }
  public var description: String { "\(code.rawValue): \(message)" }
}

extension RolloutDocument {
  static let policy = "policy"

  /// The document with one model changed, and the line that tells of it.
  func changing(
    _ model: ModelState, who: String, atMilliseconds: Int, rollout: String, version: String, from: String, to: String,
    why: String
  ) -> Decision {
    var document = self
    if let index = document.models.firstIndex(where: { $0.model == model.model }) {
      document.models[index] = model
    } else {
      let index = document.models.firstIndex { $0.model > model.model } ?? document.models.count
      document.models.insert(model, at: index)
    }
    var entry = HistoryEntry()
    entry.sequence = document.nextSequence
    entry.atMilliseconds = atMilliseconds
    entry.who = who
    entry.model = model.model
    entry.rollout = rollout
    entry.version = version
    entry.from = from
    entry.to = to
    entry.why = Figure.shortened(why)
    document.nextSequence += 1
    return Decision(document: document, entry: entry)
  }
}
