import RankingCore
import Wire

// Document, history and settings as JSON. Hostile bytes never trap and never cost more than their own length:
// unknown fields, wrong types and values out of range are refused by the name of the field.
//
//     {"next_sequence":2,"models":[{"model":"home","serving":"v41","pinned":[],"rollout":null, …}]}

/// What all three visitors hold a value to.
enum FieldRule {
  static let anyNumber = -1e300...1e300
  static let milliseconds = 0...Int(FieldLimit.duration.milliseconds)

  static func place(_ path: String, _ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }
  static func wrong(_ place: String, _ must: String) -> RolloutError {
    RolloutError(.invalidArgument, "\"\(place)\" must be \(must)")
  }
  static func name(_ value: String, _ place: String, isNeeded: Bool) throws(RolloutError) {
    if value.isEmpty, !isNeeded { return }
    guard ModelVersion.isValidName(value) else {
      throw wrong(place, "1 to 64 of A-Z a-z 0-9 . _ - and not start with a dot")
    }
  }
  static func text(_ value: String, _ place: String) throws(RolloutError) {
    guard value.utf8.count <= RolloutDocument.textMax else {
      throw wrong(place, "a text of at most \(RolloutDocument.textMax) bytes")
    }
  }
  static func integer(_ value: Int, _ place: String, in range: ClosedRange<Int>) throws(RolloutError) {
    guard range.contains(value) else {
      throw wrong(place, "a whole number, \(range.lowerBound) to \(range.upperBound)")
    }
  }
  static func number(_ value: Double, _ place: String, in range: ClosedRange<Double>) throws(RolloutError) {
    guard range.contains(value) else { throw wrong(place, "a number, \(range.lowerBound) to \(range.upperBound)") }
  }
  static func count(_ count: Int, _ place: String, _ most: Int) throws(RolloutError) {
    guard count <= most else { throw wrong(place, "a list of at most \(most)") }
  }
}

struct FieldWriter: FieldVisitor {
  private(set) var json = JSONWriter()
  private var isFirst = true

  static func bytes<Part: Fields>(of part: Part) -> [UInt8] {
    var writer = FieldWriter()
    writer.write(part)
    return writer.json.bytes
  }
  private mutating func write<Part: Fields>(_ part: Part) {
    json.literal("{")
    isFirst = true
    var copy = part
    // The writer's own visits throw nothing.
    try? copy.visit(&self)
    json.literal("}")
    isFirst = false
  }
  private mutating func key(_ key: String) {
    if !isFirst { json.literal(",") }
    isFirst = false
    json.string(key)
    json.literal(":")
  }
  private mutating func array<Element>(
    _ name: String, _ elements: [Element], _ body: (inout FieldWriter, Element) -> Void
  ) {
    key(name)
    json.literal("[")
    for (index, element) in elements.enumerated() {
      if index > 0 { json.literal(",") }
      body(&self, element)
    }
    json.literal("]")
  }
  mutating func name(_ key: String, _ value: inout String, isNeeded: Bool) { text(key, &value) }
  mutating func text(_ key: String, _ value: inout String) {
    self.key(key)
    json.string(value)
  }
  mutating func integer(_ key: String, _ value: inout Int, in range: ClosedRange<Int>, isNeeded: Bool) {
    self.key(key)
    json.number(value)
  }
  mutating func number(_ key: String, _ value: inout Double, in range: ClosedRange<Double>) {
    self.key(key)
    json.number(value)
  }
  mutating func optionalNumber(_ key: String, _ value: inout Double?) {
    self.key(key)
    if let value { json.number(value) } else { json.literal("null") }
  }
  mutating func milliseconds(_ key: String, _ value: inout Duration) {
    self.key(key)
    json.number(Int(value.milliseconds))
  }
  mutating func boolean(_ key: String, _ value: inout Bool) {
    self.key(key)
    json.boolean(value)
  }
  mutating func choice<Choice: RawRepresentable<String> & CaseIterable>(_ key: String, _ value: inout Choice) {
    self.key(key)
    json.string(value.rawValue)
  }
  mutating func names(_ key: String, _ value: inout [String], most: Int) {
    array(key, value) { $0.json.string($1) }
  }
  mutating func integers(_ key: String, _ value: inout [Int], in range: ClosedRange<Int>, most: Int) {
    array(key, value) { $0.json.number($1) }
  }
  mutating func object<Part: Fields>(_ key: String, _ value: inout Part) {
    self.key(key)
    write(value)
  }
  mutating func optional<Part: Fields>(_ key: String, _ value: inout Part?) {
    self.key(key)
    if let value { write(value) } else { json.literal("null") }
  }
  mutating func list<Part: Fields>(_ key: String, _ value: inout [Part], most: Int) {
    array(key, value) { $0.write($1) }
  }
}

/// Reads one object: first where each field's value lies, then the fields in the order of the type.
struct FieldReader: FieldVisitor {
  private let bytes: UnsafeRawBufferPointer
  private let path: String
  private var values: [(key: String, range: Range<Int>, isRead: Bool)] = []
  private var known: [String] = []

  static func read<Part: Fields>(
    _ bytes: UnsafeRawBufferPointer, _ path: String, into part: inout Part
  ) throws(RolloutError) {
    var reader = try FieldReader(bytes, path)
    try part.visit(&reader)
    try reader.end()
  }

  private init(_ bytes: UnsafeRawBufferPointer, _ path: String) throws(RolloutError) {
    self.bytes = bytes
    self.path = path
    do throws(JSONError) {
      var json = JSONReader(bytes)
      guard try json.kind() == .object else { throw JSONError(offset: 0, reason: "an object is needed") }
      try json.beginObject()
      while let key = try json.nextKey(first: values.isEmpty) {
        guard values.count < FieldLimit.fieldsMax else {
          throw JSONError(offset: json.offset, reason: "more than \(FieldLimit.fieldsMax) fields")
        }
        guard !values.contains(where: { $0.key == key }) else {
          throw JSONError(offset: json.offset, reason: "\"\(key)\" is there twice")
        }
        let start = json.offset
        try json.skipValue()
        values.append((key, start..<json.offset, false))
      }
      try json.expectEnd()
    } catch { throw Self.broken(path, error) }
  }
  private static func broken(_ place: String, _ error: JSONError) -> RolloutError {
    RolloutError(
      .invalidArgument, "\(place.isEmpty ? "the document" : "\"\(place)\"") is not valid: \(error.reason)")
  }
  private func end() throws(RolloutError) {
    guard let stranger = values.first(where: { !$0.isRead }) else { return }
    throw RolloutError(
      .invalidArgument,
      "unknown field \"\(FieldRule.place(path, stranger.key))\"; allowed: \(known.joined(separator: ", "))")
  }
  private mutating func value(_ key: String, isNeeded: Bool = false) throws(RolloutError) -> UnsafeRawBufferPointer? {
    known.append(key)
    guard let index = values.firstIndex(where: { $0.key == key }) else {
      if isNeeded { throw RolloutError(.invalidArgument, "\"\(FieldRule.place(path, key))\" is needed") }
      return nil
    }
    values[index].isRead = true
    return UnsafeRawBufferPointer(rebasing: bytes[values[index].range])
  }
  private func take<Value>(
    _ key: String, _ bytes: UnsafeRawBufferPointer, _ body: (inout JSONReader) throws(JSONError) -> Value
  ) throws(RolloutError) -> Value {
    var json = JSONReader(bytes)
    do throws(JSONError) { return try body(&json) } catch { throw Self.broken(FieldRule.place(path, key), error) }
  }
  /// Where each element of an array lies.
  private func elements(
    _ key: String, _ bytes: UnsafeRawBufferPointer, most: Int
  ) throws(RolloutError) -> [UnsafeRawBufferPointer] {
    let ranges = try take(key, bytes) { json throws(JSONError) -> [Range<Int>] in
      var ranges: [Range<Int>] = []
      try json.beginArray()
      while try json.nextElement(first: ranges.isEmpty) {
        guard ranges.count < most else { throw JSONError(offset: json.offset, reason: "more than \(most)") }
        let start = json.offset
        try json.skipValue()
        ranges.append(start..<json.offset)
      }
      return ranges
    }
    return ranges.map { UnsafeRawBufferPointer(rebasing: bytes[$0]) }
  }
  private func isNull(_ key: String, _ bytes: UnsafeRawBufferPointer) throws(RolloutError) -> Bool {
    try take(key, bytes) { json throws(JSONError) in try json.kind() == .null }
  }

  mutating func name(_ key: String, _ value: inout String, isNeeded: Bool) throws(RolloutError) {
    guard let bytes = try self.value(key, isNeeded: isNeeded) else { return }
    value = try take(key, bytes) { json throws(JSONError) in try json.string() }
    try FieldRule.name(value, FieldRule.place(path, key), isNeeded: isNeeded)
  }
  mutating func text(_ key: String, _ value: inout String) throws(RolloutError) {
    guard let bytes = try self.value(key) else { return }
    value = try take(key, bytes) { json throws(JSONError) in try json.string() }
    try FieldRule.text(value, FieldRule.place(path, key))
  }
  mutating func integer(
    _ key: String, _ value: inout Int, in range: ClosedRange<Int>, isNeeded: Bool
  ) throws(RolloutError) {
    guard let bytes = try self.value(key, isNeeded: isNeeded) else { return }
    value = try take(key, bytes) { json throws(JSONError) in try json.integer() }
    try FieldRule.integer(value, FieldRule.place(path, key), in: range)
  }
  mutating func number(_ key: String, _ value: inout Double, in range: ClosedRange<Double>) throws(RolloutError) {
    guard let bytes = try self.value(key) else { return }
    value = try take(key, bytes) { json throws(JSONError) in try json.double() }
    try FieldRule.number(value, FieldRule.place(path, key), in: range)
  }
  mutating func optionalNumber(_ key: String, _ value: inout Double?) throws(RolloutError) {
    guard let bytes = try self.value(key) else { return }
    if try isNull(key, bytes) { return value = nil }
    let number = try take(key, bytes) { json throws(JSONError) in try json.double() }
    try FieldRule.number(number, FieldRule.place(path, key), in: FieldRule.anyNumber)
    value = number
  }
  mutating func milliseconds(_ key: String, _ value: inout Duration) throws(RolloutError) {
    guard let bytes = try self.value(key) else { return }
    let count = try take(key, bytes) { json throws(JSONError) in try json.integer() }
    try FieldRule.integer(count, FieldRule.place(path, key), in: FieldRule.milliseconds)
    value = .milliseconds(count)
  }
  mutating func boolean(_ key: String, _ value: inout Bool) throws(RolloutError) {
    guard let bytes = try self.value(key) else { return }
    value = try take(key, bytes) { json throws(JSONError) in try json.boolean() }
  }
  mutating func choice<Choice: RawRepresentable<String> & CaseIterable>(
    _ key: String, _ value: inout Choice
  ) throws(RolloutError) {
    guard let bytes = try self.value(key, isNeeded: true) else { return }
    let text = try take(key, bytes) { json throws(JSONError) in try json.string() }
    guard let choice = Choice(rawValue: text) else {
      let all = Choice.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
      throw FieldRule.wrong(FieldRule.place(path, key), "one of \(all)")
    }
    value = choice
  }
  mutating func names(_ key: String, _ value: inout [String], most: Int) throws(RolloutError) {
    guard let bytes = try self.value(key) else { return }
    value = []
    for element in try elements(key, bytes, most: most) {
      let name = try take(key, element) { json throws(JSONError) in try json.string() }
      try FieldRule.name(name, FieldRule.place(path, key), isNeeded: true)
      value.append(name)
    }
  }
  mutating func integers(
    _ key: String, _ value: inout [Int], in range: ClosedRange<Int>, most: Int
  ) throws(RolloutError) {
    guard let bytes = try self.value(key) else { return }
    value = []
    for element in try elements(key, bytes, most: most) {
      let number = try take(key, element) { json throws(JSONError) in try json.integer() }
      try FieldRule.integer(number, FieldRule.place(path, key), in: range)
      value.append(number)
    }
  }
  mutating func object<Part: Fields>(_ key: String, _ value: inout Part) throws(RolloutError) {
    guard let bytes = try self.value(key) else { return }
    try Self.read(bytes, FieldRule.place(path, key), into: &value)
  }
  mutating func optional<Part: Fields>(_ key: String, _ value: inout Part?) throws(RolloutError) {
    guard let bytes = try self.value(key) else { return }
    if try isNull(key, bytes) { return value = nil }
    var part = Part()
    try Self.read(bytes, FieldRule.place(path, key), into: &part)
    value = part
  }
  mutating func list<Part: Fields>(_ key: String, _ value: inout [Part], most: Int) throws(RolloutError) {
    guard let bytes = try self.value(key) else { return }
    value = []
    for (index, element) in try elements(key, bytes, most: most).enumerated() {
      var part = Part()
      try Self.read(element, "\(FieldRule.place(path, key))[\(index)]", into: &part)
      value.append(part)
    }
  }
}

extension RolloutDocument {
  public var json: [UInt8] { FieldWriter.bytes(of: self) }

  /// - Throws: `.invalidArgument` that names the field and what is allowed.
  public init(json bytes: UnsafeRawBufferPointer) throws(RolloutError) {
    guard bytes.count <= Self.bytesMax else {
      throw RolloutError(.invalidArgument, "the document has \(bytes.count) bytes, at most \(Self.bytesMax)")
    }
    self.init()
    try FieldReader.read(bytes, "", into: &self)
    try check()
  }

  /// What no single field can say.
  func check() throws(RolloutError) {
    for (index, model) in models.enumerated() {
      let place = "models[\(index)]"
      if index > 0, models[index - 1].model >= model.model {
        throw FieldRule.wrong("\(place).model", "greater than the one before it, \"\(models[index - 1].model)\"")
      }
      guard zip(model.pinned, model.pinned.dropFirst()).allSatisfy({ $0 < $1 }) else {
        throw FieldRule.wrong("\(place).pinned", "ascending")
      }
      try model.rollout?.check("\(place).rollout", serving: model.serving)
    }
  }
}

extension ActiveRollout {
  func check(_ place: String, serving: String) throws(RolloutError) {
    guard !id.isEmpty else { throw FieldRule.wrong("\(place).id", "a text") }
    guard from != to else { throw FieldRule.wrong("\(place).to", "another version than \"from\"") }
    guard serving == (stage == .retire ? to : from) else {
      throw FieldRule.wrong("\(place).\(stage == .retire ? "to" : "from")", "the serving version, \"\(serving)\"")
    }
    try settings.check("\(place).settings")
    guard settings.canarySteps.indices.contains(step) else {
      throw FieldRule.wrong("\(place).step", "the place of a canary step, below \(settings.canarySteps.count)")
    }
  }
}

extension RolloutSettings {
  public var json: [UInt8] { FieldWriter.bytes(of: self) }

  /// The settings of a `start`: what the object does not name keeps its default.
  public init(json bytes: UnsafeRawBufferPointer) throws(RolloutError) {
    self.init()
    try FieldReader.read(bytes, "settings", into: &self)
    try check("settings")
  }

  func check(_ path: String) throws(RolloutError) {
    try FieldChecker.check(self, path)
    guard zip(canarySteps, canarySteps.dropFirst()).allSatisfy({ $0 < $1 }), canarySteps.last == 10_000 else {
      throw FieldRule.wrong("\(path).canary_steps", "ascending hundredths of a percent that end with 10000")
    }
    for stage in RolloutStage.allCases where limits(of: stage).deadline <= limits(of: stage).minTime {
      throw FieldRule.wrong(
        "\(path).\(stage.rawValue).deadline_ms",
        "more than its min_time_ms, \(Int(limits(of: stage).minTime.milliseconds))")
    }
    for (index, metric) in metrics.enumerated() {
      let place = "\(path).metrics[\(index)]"
      guard !metric.name.isEmpty else { throw FieldRule.wrong("\(place).name", "the name of a metric") }
      guard metric.min != nil || metric.max != nil || metric.relativeMin != nil || metric.relativeMax != nil else {
        throw FieldRule.wrong(place, "given a bound: min, max, relative_min or relative_max")
      }
    }
  }
}

/// Bytes in an array, for those who have no pointer.
private func reading<Value>(
  _ bytes: [UInt8], _ read: (UnsafeRawBufferPointer) throws(RolloutError) -> Value
) throws(RolloutError) -> Value {
  try bytes.withUnsafeBytes { raw in Result { () throws(RolloutError) in try read(raw) } }.get()
}
extension RolloutDocument {
  public init(json bytes: [UInt8]) throws(RolloutError) { self = try reading(bytes, Self.init(json:)) }
}
extension RolloutSettings {
  public init(json bytes: [UInt8]) throws(RolloutError) { self = try reading(bytes, Self.init(json:)) }
}

extension HistoryEntry {
  public var json: [UInt8] { FieldWriter.bytes(of: self) }
  public init(json bytes: UnsafeRawBufferPointer) throws(RolloutError) {
    self.init()
    try FieldReader.read(bytes, "entry", into: &self)
  }
}
