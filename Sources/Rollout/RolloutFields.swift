// What stands in the document, said once: each type lists its fields with their limits, and the reader, the writer and
// the checker all follow that list, so that they cannot drift apart.

protocol FieldVisitor {
  /// A model's or version's name; empty only where `isNeeded` is false.
  mutating func name(_ key: String, _ value: inout String, isNeeded: Bool) throws(RolloutError)
  mutating func text(_ key: String, _ value: inout String) throws(RolloutError)
  mutating func integer(
    _ key: String, _ value: inout Int, in range: ClosedRange<Int>, isNeeded: Bool
  ) throws(RolloutError)
  mutating func number(_ key: String, _ value: inout Double, in range: ClosedRange<Double>) throws(RolloutError)
  mutating func optionalNumber(_ key: String, _ value: inout Double?) throws(RolloutError)
  mutating func milliseconds(_ key: String, _ value: inout Duration) throws(RolloutError)
  mutating func boolean(_ key: String, _ value: inout Bool) throws(RolloutError)
  mutating func choice<Choice: RawRepresentable<String> & CaseIterable>(
    _ key: String, _ value: inout Choice
  ) throws(RolloutError)
  mutating func names(_ key: String, _ value: inout [String], most: Int) throws(RolloutError)
  mutating func integers(
    _ key: String, _ value: inout [Int], in range: ClosedRange<Int>, most: Int
  ) throws(RolloutError)
  mutating func object<Part: Fields>(_ key: String, _ value: inout Part) throws(RolloutError)
  mutating func optional<Part: Fields>(_ key: String, _ value: inout Part?) throws(RolloutError)
  mutating func list<Part: Fields>(_ key: String, _ value: inout [Part], most: Int) throws(RolloutError)
}

protocol Fields: Sendable {
  init()
  mutating func visit<Visitor: FieldVisitor>(_ fields: inout Visitor) throws(RolloutError)
}

enum FieldLimit {
  /// Sequences, counters, wall-clock milliseconds: what a double holds exactly, for readers in other languages.
  static let count = 0...(1 << 53)
  /// A month: longer stages are forgotten ones.
  static let duration: Duration = .seconds(31 * 86_400)
  static let metricsMax = 32
  static let stepsMax = 16
  /// Fields in one object; ours have a dozen.
  static let fieldsMax = 64
}

extension RolloutDocument: Fields {
  mutating func visit<Visitor: FieldVisitor>(_ fields: inout Visitor) throws(RolloutError) {
    try fields.integer("next_sequence", &nextSequence, in: 1...FieldLimit.count.upperBound, isNeeded: true)
    try fields.list("models", &models, most: Self.modelsMax)
  }
}

extension ModelState: Fields {
  mutating func visit<Visitor: FieldVisitor>(_ fields: inout Visitor) throws(RolloutError) {
    try fields.name("model", &model, isNeeded: true)
    try fields.name("serving", &serving, isNeeded: true)
    try fields.names("pinned", &pinned, most: RolloutDocument.pinnedMax)
    try fields.optional("rollout", &rollout)
    try fields.list("failed", &failed, most: RolloutDocument.failedMax)
    try fields.optional("last", &last)
  }
}

extension ActiveRollout: Fields {
  mutating func visit<Visitor: FieldVisitor>(_ fields: inout Visitor) throws(RolloutError) {
    try fields.text("id", &id)
    try fields.name("from", &from, isNeeded: true)
    try fields.name("to", &to, isNeeded: true)
    try fields.choice("stage", &stage)
    try fields.integer("step", &step, in: 0...FieldLimit.stepsMax, isNeeded: true)
    try fields.boolean("paused", &isPaused)
    try fields.choice("memory", &memory)
    try fields.integer("entered", &entered, in: FieldLimit.count, isNeeded: true)
    try fields.integer("entered_at_ms", &enteredMilliseconds, in: FieldLimit.count, isNeeded: true)
    try fields.text("who", &who)
    try fields.text("cause", &cause)
    try fields.boolean("aborted", &isAborted)
    try fields.boolean("drained", &isDrained)
    try fields.object("settings", &settings)
  }
}

extension FailedVersion: Fields {
  mutating func visit<Visitor: FieldVisitor>(_ fields: inout Visitor) throws(RolloutError) {
    try fields.name("version", &version, isNeeded: true)
    try fields.text("rollout", &rollout)
    try fields.text("why", &why)
  }
}

extension FinishedRollout: Fields {
  mutating func visit<Visitor: FieldVisitor>(_ fields: inout Visitor) throws(RolloutError) {
    try fields.text("id", &id)
    try fields.name("from", &from, isNeeded: true)
    try fields.name("to", &to, isNeeded: true)
    try fields.choice("outcome", &outcome)
    try fields.text("why", &why)
    try fields.integer("at_ms", &atMilliseconds, in: FieldLimit.count, isNeeded: true)
  }
}

extension HistoryEntry: Fields {
  mutating func visit<Visitor: FieldVisitor>(_ fields: inout Visitor) throws(RolloutError) {
    try fields.integer("sequence", &sequence, in: 1...FieldLimit.count.upperBound, isNeeded: true)
    try fields.integer("at_ms", &atMilliseconds, in: FieldLimit.count, isNeeded: true)
    try fields.text("who", &who)
    try fields.name("model", &model, isNeeded: true)
    try fields.text("rollout", &rollout)
    try fields.name("version", &version, isNeeded: false)
    try fields.text("from", &from)
    try fields.text("to", &to)
    try fields.text("why", &why)
  }
}

extension RolloutSettings: Fields {
  mutating func visit<Visitor: FieldVisitor>(_ fields: inout Visitor) throws(RolloutError) {
    try fields.object("load", &load)
    try fields.object("verify", &verify)
    try fields.object("warm", &warm)
    try fields.object("shadow", &shadow)
    try fields.object("canary", &canary)
    try fields.object("retire", &retire)
    try fields.object("rolling_back", &rollingBack)
    try fields.integers("canary_steps", &canarySteps, in: 1...10_000, most: FieldLimit.stepsMax)
    try fields.integer("shadow_share", &shadowShare, in: 0...10_000, isNeeded: false)
    try fields.boolean("other_dimension", &allowsOtherDimension)
    try fields.object("guards", &guards)
    try fields.list("metrics", &metrics, most: FieldLimit.metricsMax)
    try fields.number("evidence", &evidence, in: 1...100)
    try fields.milliseconds("recent_ms", &recent)
  }
}

extension StageLimits: Fields {
  init() { self.init(minTime: .zero) }
  mutating func visit<Visitor: FieldVisitor>(_ fields: inout Visitor) throws(RolloutError) {
    try fields.milliseconds("min_time_ms", &minTime)
    try fields.integer("min_sample", &minSample, in: 0...1_000_000_000, isNeeded: false)
    try fields.milliseconds("deadline_ms", &deadline)
  }
}

extension GuardLimits: Fields {
  mutating func visit<Visitor: FieldVisitor>(_ fields: inout Visitor) throws(RolloutError) {
    try fields.object("error_rate", &errorRate)
    try fields.object("coverage", &coverage)
    try fields.object("latency_p99", &latencyP99)
    try fields.object("empty_answers", &emptyAnswers)
    try fields.object("short_answers", &shortAnswers)
    try fields.object("nan_scores", &nanScores)
    try fields.object("score_drift", &scoreDrift)
    try fields.object("overlap", &overlap)
    try fields.object("rank_correlation", &rankCorrelation)
  }
}

extension GuardLimit: Fields {
  init() { self.init(absolute: 0) }
  mutating func visit<Visitor: FieldVisitor>(_ fields: inout Visitor) throws(RolloutError) {
    try fields.boolean("on", &isOn)
    try fields.number("absolute", &absolute, in: -1e9...1e9)
    try fields.number("relative", &relative, in: 0...1e6)
    try fields.integer("sample", &sample, in: 1...1_000_000_000, isNeeded: false)
  }
}

extension MetricGuard: Fields {
  mutating func visit<Visitor: FieldVisitor>(_ fields: inout Visitor) throws(RolloutError) {
    try fields.text("name", &name)
    try fields.optionalNumber("min", &min)
    try fields.optionalNumber("max", &max)
    try fields.optionalNumber("relative_min", &relativeMin)
    try fields.optionalNumber("relative_max", &relativeMax)
    try fields.milliseconds("lasting_ms", &lasting)
  }
}

/// Goes through values that were made in code, or field by field, and refuses what the reader would refuse.
struct FieldChecker: FieldVisitor {
  private var path: String
  init(_ path: String) { self.path = path }

  static func check<Part: Fields>(_ part: Part, _ path: String) throws(RolloutError) {
    var (checker, copy) = (FieldChecker(path), part)
    try copy.visit(&checker)
  }
  private func place(_ key: String) -> String { FieldRule.place(path, key) }

  mutating func name(_ key: String, _ value: inout String, isNeeded: Bool) throws(RolloutError) {
    try FieldRule.name(value, place(key), isNeeded: isNeeded)
  }
  mutating func text(_ key: String, _ value: inout String) throws(RolloutError) {
    try FieldRule.text(value, place(key))
  }
  mutating func integer(
    _ key: String, _ value: inout Int, in range: ClosedRange<Int>, isNeeded: Bool
  ) throws(RolloutError) { try FieldRule.integer(value, place(key), in: range) }
  mutating func number(_ key: String, _ value: inout Double, in range: ClosedRange<Double>) throws(RolloutError) {
    try FieldRule.number(value, place(key), in: range)
  }
  mutating func optionalNumber(_ key: String, _ value: inout Double?) throws(RolloutError) {
    if let value { try FieldRule.number(value, place(key), in: FieldRule.anyNumber) }
  }
  mutating func milliseconds(_ key: String, _ value: inout Duration) throws(RolloutError) {
    try FieldRule.integer(Int(value.milliseconds), place(key), in: FieldRule.milliseconds)
  }
  mutating func boolean(_ key: String, _ value: inout Bool) {}
  mutating func choice<Choice: RawRepresentable<String> & CaseIterable>(_ key: String, _ value: inout Choice) {}
  mutating func names(_ key: String, _ value: inout [String], most: Int) throws(RolloutError) {
    try FieldRule.count(value.count, place(key), most)
    for name in value { try FieldRule.name(name, place(key), isNeeded: true) }
  }
  mutating func integers(
    _ key: String, _ value: inout [Int], in range: ClosedRange<Int>, most: Int
  ) throws(RolloutError) {
    try FieldRule.count(value.count, place(key), most)
    for number in value { try FieldRule.integer(number, place(key), in: range) }
  }
  mutating func object<Part: Fields>(_ key: String, _ value: inout Part) throws(RolloutError) {
    try Self.check(value, place(key))
  }
  mutating func optional<Part: Fields>(_ key: String, _ value: inout Part?) throws(RolloutError) {
    if let value { try Self.check(value, place(key)) }
  }
  mutating func list<Part: Fields>(_ key: String, _ value: inout [Part], most: Int) throws(RolloutError) {
    try FieldRule.count(value.count, place(key), most)
    for (index, part) in value.enumerated() { try Self.check(part, "\(place(key))[\(index)]") }
  }
}
