import RankingCore

// The public JSON of a request → `RankingRequest`. Everything that is wrong is refused here, by the name of its field.

public enum PublicAPI: String, Sendable, CaseIterable {
  case recommend, rank, similar

  private static let common = [
    "model", "version", "min_score", "candidates", "priority", "context", "timeout_ms", "min_coverage", "early_at",
    "sticky", "session", "filter", "explain",
  ]
  private static let recommendFields =
    ["user", "vector", "recent_items", "k", "exclude_seen", "exclude", "diversity", "mmr"] + common
  private static let rankFields =
    ["items", "user", "vector", "recent_items", "exclude_seen", "exclude"] + common
  private static let similarFields = ["item", "k", "exclude", "diversity", "mmr"] + common
  var fields: [String] {
    switch self {
    case .recommend: Self.recommendFields
    case .rank: Self.rankFields
    case .similar: Self.similarFields
    }
  }

  /// - Throws: `.invalidArgument` that names the field and what is allowed.
  public func parse(_ bytes: [UInt8], requestID: String) throws(RankingError) -> RankingRequest {
    try bytes.withUnsafeBytes { raw in
      Result { () throws(RankingError) in try parse(raw, requestID: requestID) }
    }.get()
  }
  public func parse(_ bytes: UnsafeRawBufferPointer, requestID: String) throws(RankingError) -> RankingRequest {
    var parser = RequestParser(api: self, reader: JSONReader(bytes))
    parser.request.requestID = requestID
    do throws(RequestFailure) {
      try parser.run()
    } catch {
      switch error {
      case .json(let error):
        throw RankingError(.invalidArgument, "the body is not valid JSON: \(error.reason) (byte \(error.offset))")
      case .ranking(let error): throw error
      }
    }
    return parser.request
  }
}

enum RequestFailure: Error {
  case json(JSONError)
  case ranking(RankingError)
  static func field(_ name: String, _ must: String) -> RequestFailure {
    .ranking(RankingError(.invalidArgument, "\"\(name)\" must be \(must)", field: name))
  }
}

struct RequestParser {
  let api: PublicAPI
  var reader: JSONReader
  var request = RankingRequest()
  /// Comparisons and values of the filter so far.
  var (filterTerms, filterValues) = (0, 0)
  private var seen: [String] = []
  private var subjects: [String] = []

  init(api: PublicAPI, reader: JSONReader) {
    self.api = api
    self.reader = reader
  }

  mutating func json<Value>(
    _ body: (inout JSONReader) throws(JSONError) -> Value
  ) throws(RequestFailure)
    -> Value
  {
    do { return try body(&reader) } catch { throw .json(error) }
  }

  mutating func run() throws(RequestFailure) {
    guard try json({ (r) throws(JSONError) in try r.kind() }) == .object else {
      throw .ranking(RankingError(.invalidArgument, "the body must be one JSON object"))
    }
    try json { (r) throws(JSONError) in try r.beginObject() }
    var first = true
    while let key = try json({ [first] (r) throws(JSONError) in try r.nextKey(first: first) }) {
      first = false
      guard !seen.contains(key) else {
        throw .ranking(RankingError(.invalidArgument, "\"\(key)\" is there twice"))
      }
      guard api.fields.contains(key) else {
        throw .ranking(
          RankingError(
            .invalidArgument, "unknown field \"\(key)\"; allowed: \(api.fields.joined(separator: ", "))", field: key))
      }
      seen.append(key)
      try field(key)
    }
    try json { (r) throws(JSONError) in try r.expectEnd() }
    try check()
  }

  private mutating func field(_ key: String) throws(RequestFailure) {
    switch key {
    case "user":
      subjects.append(key)
      request.subject = .user(try text(key, bytes: 1...RequestLimit.userBytes))
    case "vector":
      subjects.append(key)
      request.subject = .vector(try vector(key))
    case "recent_items":
      subjects.append(key)
      request.subject = .recentItems(try ids(key, least: 1, unique: false))
    case "item":
      subjects.append(key)
      request.subject = .item(try text(key, bytes: itemIDLengthRange))
    case "items":
      let items = try ids(key, least: 1, unique: true)
      request.kind = .rank(items)
      request.k = items.count
    case "k": request.k = try integer(key, in: RequestLimit.k)
    case "candidates": request.candidates = try integer(key, in: RequestLimit.candidates)
    case "exclude_seen": request.excludeSeen = try boolean(key)
    case "exclude": request.exclude = try ids(key, least: 0, unique: false)
    case "model": request.model = try name(key)
    case "version": request.version = try name(key)
    case "min_score": request.minScore = Float(try number(key, in: RequestRule.float))
    case "timeout_ms":
      let range = RequestLimit.timeoutMilliseconds
      request.timeout = .nanoseconds(Int64(try number(key, in: range) * 1e6))
    case "min_coverage": request.minCoverage = try number(key, in: 0...1)
    case "early_at": request.earlyAt = try number(key, in: 0...1)
    case "sticky": request.sticky = try boolean(key)
    case "session": request.session = try text(key, bytes: 1...RequestLimit.userBytes)
    case "priority":
      guard let priority = Priority(rawValue: try text(key, bytes: 0...64)) else {
        throw .field(key, "\"interactive\" or \"batch\"")
      }
      request.priority = priority
    case "context": try context(key)
    case "filter": request.filter = try filter()
    case "diversity": request.diversity = try diversity()
    case "mmr": request.marginalRelevance = try marginalRelevance()
    case "explain": request.explain = try boolean(key)
    default: preconditionFailure("\(key) is among the fields of \(api) and is not read")
    }
  }

  private func check() throws(RequestFailure) {
    switch api {
    case .similar:
      guard seen.contains("item") else {
        throw .ranking(Self.noItem)
      }
    case .rank where !seen.contains("items"):
      throw .ranking(Self.noItems)
    case .rank, .recommend: try RequestRule.subject(subjects)
    }
  }
  static let noItem = RankingError(.invalidArgument, "\"item\" is needed: an item id", field: "item")
  static let noItems = RankingError(
    .invalidArgument, "\"items\" is needed: 1 to \(RequestLimit.ids) item ids", field: "items")

  // MARK: Values

  mutating func expect(
    _ kind: JSONReader.Kind, _ key: @autoclosure () -> String, _ must: @autoclosure () -> String
  ) throws(RequestFailure) {
    guard try json({ (r) throws(JSONError) in try r.kind() }) == kind else { throw .field(key(), must()) }
  }
  mutating func text(_ key: @autoclosure () -> String, bytes: ClosedRange<Int>) throws(RequestFailure) -> String {
    try expect(.string, key(), "a text of \(bytes.lowerBound) to \(bytes.upperBound) bytes")
    return try RequestRule.text(key(), try json { (r) throws(JSONError) in try r.string() }, bytes: bytes)
  }
  private mutating func name(_ key: String) throws(RequestFailure) -> String {
    try RequestRule.name(key, try text(key, bytes: 1...64))
  }
  mutating func boolean(_ key: String) throws(RequestFailure) -> Bool {
    try expect(.boolean, key, "true or false")
    return try json { (r) throws(JSONError) in try r.boolean() }
  }
  mutating func number(_ key: String, in range: ClosedRange<Double>) throws(RequestFailure) -> Double {
    try expect(.number, key, "a number, \(range.lowerBound) to \(range.upperBound)")
    return try RequestRule.number(key, try json { (r) throws(JSONError) in try r.double() }, in: range)
  }
  mutating func integer(_ key: String, in range: ClosedRange<Int>) throws(RequestFailure) -> Int {
    try expect(.number, key, "a whole number, \(range.lowerBound) to \(range.upperBound)")
    return try RequestRule.integer(key, try json { (r) throws(JSONError) in try r.double() }, in: range)
  }
  private mutating func ids(_ key: String, least: Int, unique: Bool) throws(RequestFailure) -> [String] {
    try expect(.array, key, "a list of \(least) to \(RequestLimit.ids) item ids")
    try json { (r) throws(JSONError) in try r.beginArray() }
    var ids: [String] = []
    while try json({ [first = ids.isEmpty] (r) throws(JSONError) in try r.nextElement(first: first) }) {
      ids.append(try text("\(key)[\(ids.count)]", bytes: itemIDLengthRange))
    }
    return try RequestRule.ids(key, ids, least: least, unique: unique)
  }
  private mutating func vector(_ key: String) throws(RequestFailure) -> [Float] {
    try expect(.array, key, "a list of 1 to \(RequestLimit.vectorDimension) numbers")
    try json { (r) throws(JSONError) in try r.beginArray() }
    var vector: [Float] = []
    while try json({ [first = vector.isEmpty] (r) throws(JSONError) in try r.nextElement(first: first) }) {
      try expect(.number, "\(key)[\(vector.count)]", "a number")
      vector.append(try json { (r) throws(JSONError) in try r.float() })
    }
    return try RequestRule.vector(key, vector)
  }
  private mutating func context(_ key: String) throws(RequestFailure) {
    try expect(.object, key, "an object of numbers, texts and booleans")
    try json { (r) throws(JSONError) in try r.beginObject() }
    while let name = try json({ [first = request.context.isEmpty] (r) throws(JSONError) in try r.nextKey(first: first) }
    ) {
      guard !request.context.contains(where: { $0.name == name }) else {
        throw .ranking(RankingError(.invalidArgument, "\"\(key).\(name)\" is there twice"))
      }
      let value: ContextValue
      switch try json({ (r) throws(JSONError) in try r.kind() }) {
      case .number: value = .number(try json { (r) throws(JSONError) in try r.double() })
      case .string: value = .text(try text("\(key).\(name)", bytes: 0...255))
      case .boolean: value = .boolean(try json { (r) throws(JSONError) in try r.boolean() })
      case .object, .array, .null: throw .field("\(key).\(name)", "a number, a text or a boolean")
      }
      request.context.append((name, value))
      guard request.context.count <= RequestLimit.contextFields else {
        throw .field(key, "an object of at most \(RequestLimit.contextFields) fields")
      }
    }
  }
}
