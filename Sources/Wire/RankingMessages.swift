import RankingCore

// shortlist.v1.Ranking ↔ requests and answers; the field numbers are those of Proto/ranking.proto. The rules are those
// of the JSON, and so are the complaints.

extension PublicAPI {
  /// - Throws: `.invalidArgument` that names the field and what is allowed.
  public func parse(message: UnsafeRawBufferPointer, requestID: String) throws(RankingError) -> RankingRequest {
    var decoder = RequestDecoder(api: self)
    decoder.request.requestID = requestID
    do throws(RequestFailure) {
      try decoder.run(message)
    } catch {
      switch error {
      case .json(let error): throw RankingError(.internal, error.reason)
      case .ranking(let error): throw error
      }
    }
    return decoder.request
  }

  /// Which numbers the request's message has; others are skipped, as protobuf has it.
  fileprivate func has(_ field: UInt32) -> Bool {
    switch field {
    case 1...3: self != .similar
    case 4: self == .rank
    case 5: self == .similar
    case 6, 9, 10: self != .rank
    case 7: self != .similar
    default: true
    }
  }
}

private struct RequestDecoder {
  let api: PublicAPI
  var request = RankingRequest()
  private var items: [String] = []
  private var hasItem = false
  private var subjects: [String] = []
  private var (filterTerms, filterValues) = (0, 0)

  init(api: PublicAPI) { self.api = api }

  private func wire<Value>(_ body: () throws(WireError) -> Value) throws(RequestFailure) -> Value {
    do { return try body() } catch {
      throw .ranking(RankingError(.invalidArgument, "the message is not what it should be: \(error)"))
    }
  }

  mutating func run(_ message: UnsafeRawBufferPointer) throws(RequestFailure) {
    var reader = ProtoReader(message)
    while try wire({ () throws(WireError) in try reader.next() }) {
      if api.has(reader.field) { try field(&reader) } else { try wire { () throws(WireError) in try reader.skip() } }
    }
    request.exclude = try RequestRule.ids("exclude", request.exclude, least: 0, unique: false)
    switch api {
    case .similar: guard hasItem else { throw .ranking(RequestParser.noItem) }
    case .rank:
      guard !items.isEmpty else { throw .ranking(RequestParser.noItems) }
      request.kind = .rank(try RequestRule.ids("items", items, least: 1, unique: true))
      request.k = items.count
      try RequestRule.subject(subjects)
    case .recommend: try RequestRule.subject(subjects)
    }
  }

  private mutating func field(_ reader: inout ProtoReader) throws(RequestFailure) {
    switch reader.field {
    case 1:
      subjects = ["user"]
      request.subject = .user(try RequestRule.text("user", try text(&reader), bytes: 1...RequestLimit.userBytes))
    case 2:
      subjects = ["vector"]
      var values: [Float] = []
      try nested(&reader) { (_, inner) throws(RequestFailure) in
        guard inner.field == 1 else { return false }
        do { try inner.packed(into: &values) } catch {
          throw .ranking(RankingError(.invalidArgument, "\"vector\": \(error)", field: "vector"))
        }
        return true
      }
      request.subject = .vector(try RequestRule.vector("vector", values))
    case 3:
      subjects = ["recent_items"]
      var ids: [String] = []
      try nested(&reader) { (decoder, inner) throws(RequestFailure) in
        guard inner.field == 1 else { return false }
        ids.append(try decoder.text(&inner))
        return true
      }
      request.subject = .recentItems(try RequestRule.ids("recent_items", ids, least: 1, unique: false))
    case 4: items.append(try text(&reader))
    case 5:
      hasItem = true
      request.subject = .item(try RequestRule.text("item", try text(&reader), bytes: itemIDLengthRange))
    case 6: request.k = try integer("k", &reader, in: RequestLimit.k)
    case 7: request.excludeSeen = try boolean(&reader)
    case 8: request.exclude.append(try text(&reader))
    case 9: request.diversity = try diversity(&reader)
    case 10: request.marginalRelevance = try marginalRelevance(&reader)
    case 20: request.model = try name("model", &reader)
    case 21: request.version = try name("version", &reader)
    case 22:
      let value = try wire { () throws(WireError) in try reader.float() }
      request.minScore = Float(try RequestRule.number("min_score", Double(value), in: RequestRule.float))
    case 23: request.candidates = try integer("candidates", &reader, in: RequestLimit.candidates)
    case 24:
      switch try wire({ () throws(WireError) in try reader.uint() }) {
      case 0: request.priority = .interactive
      case 1: request.priority = .batch
      default: throw .field("priority", "INTERACTIVE or BATCH")
      }
    case 25: try context(&reader)
    case 26:
      let milliseconds = try number("timeout_ms", &reader, in: RequestLimit.timeoutMilliseconds)
      request.timeout = .nanoseconds(Int64(milliseconds * 1e6))
    case 27: request.minCoverage = try number("min_coverage", &reader, in: 0...1)
    case 28: request.earlyAt = try number("early_at", &reader, in: 0...1)
    case 29: request.sticky = try boolean(&reader)
    case 30:
      let session = try text(&reader)
      request.session =
        session.isEmpty ? nil : try RequestRule.text("session", session, bytes: 1...RequestLimit.userBytes)
    case 31:
      let given = try filter("filter", &reader, depth: 1)
      request.filter = given
    case 32: request.explain = try boolean(&reader)
    default: try wire { () throws(WireError) in try reader.skip() }
    }
  }

  // MARK: Values

  private func text(_ reader: inout ProtoReader) throws(RequestFailure) -> String {
    try wire { () throws(WireError) in try reader.string() }
  }
  private func boolean(_ reader: inout ProtoReader) throws(RequestFailure) -> Bool {
    try wire { () throws(WireError) in try reader.bool() }
  }
  /// Nothing said is proto3's empty text.
  private func name(_ key: String, _ reader: inout ProtoReader) throws(RequestFailure) -> String? {
    let text = try text(&reader)
    return text.isEmpty ? nil : try RequestRule.name(key, text)
  }
  private func number(
    _ key: String, _ reader: inout ProtoReader, in range: ClosedRange<Double>
  ) throws(RequestFailure) -> Double {
    try RequestRule.number(key, try wire { () throws(WireError) in try reader.double() }, in: range)
  }
  private func integer(
    _ key: String, _ reader: inout ProtoReader, in range: ClosedRange<Int>
  ) throws(RequestFailure) -> Int {
    let value = try wire { () throws(WireError) in try reader.uint() }
    return try RequestRule.integer(key, Double(value), in: range)
  }

  /// Reads a submessage; `read` says whether it took the field, and leaves it to be skipped otherwise.
  private mutating func nested(
    _ reader: inout ProtoReader,
    _ read: (inout RequestDecoder, inout ProtoReader) throws(RequestFailure) -> Bool
  ) throws(RequestFailure) {
    var inner = ProtoReader(try wire { () throws(WireError) in try reader.raw() })
    while try wire({ () throws(WireError) in try inner.next() }) {
      if try !read(&self, &inner) { try wire { () throws(WireError) in try inner.skip() } }
    }
  }

  private mutating func diversity(_ reader: inout ProtoReader) throws(RequestFailure) -> Diversity {
    var (field, max): (String, UInt64) = ("", 0)
    try nested(&reader) { (decoder, inner) throws(RequestFailure) in
      switch inner.field {
      case 1: field = try decoder.text(&inner)
      case 2: max = try decoder.wire { () throws(WireError) in try inner.uint() }
      default: return false
      }
      return true
    }
    return Diversity(
      field: try RequestRule.text("diversity.field", field, bytes: 1...255),
      max: try RequestRule.integer("diversity.max", Double(max), in: Diversity.maxRange))
  }

  private mutating func marginalRelevance(_ reader: inout ProtoReader) throws(RequestFailure) -> MarginalRelevance {
    var mmr = MarginalRelevance(lambda: 0)
    try nested(&reader) { (decoder, inner) throws(RequestFailure) in
      switch inner.field {
      case 1: mmr.lambda = try decoder.number("mmr.lambda", &inner, in: 0...1)
      case 2: mmr.pool = try decoder.integer("mmr.pool", &inner, in: MarginalRelevance.poolRange)
      default: return false
      }
      return true
    }
    return mmr
  }

  private mutating func context(_ reader: inout ProtoReader) throws(RequestFailure) {
    var (key, value): (String, Filter.Value?) = ("", nil)
    try nested(&reader) { (decoder, inner) throws(RequestFailure) in
      switch inner.field {
      case 1: key = try decoder.text(&inner)
      case 2: value = try decoder.value("context.\(key)", &inner, in: nil)
      default: return false
      }
      return true
    }
    guard !request.context.contains(where: { $0.name == key }) else {
      throw .ranking(RankingError(.invalidArgument, "\"context.\(key)\" is there twice", field: "context.\(key)"))
    }
    switch value {
    case .number(let number): request.context.append((key, .number(number)))
    case .text(let text): request.context.append((key, .text(text)))
    case .boolean(let flag): request.context.append((key, .boolean(flag)))
    case nil: throw .field("context.\(key)", "a number, a text or a boolean")
    }
    guard request.context.count <= RequestLimit.contextFields else {
      throw .field("context", "an object of at most \(RequestLimit.contextFields) fields")
    }
  }

  /// - Parameter range: of numbers; nil = any that is finite.
  private mutating func value(
    _ key: String, _ reader: inout ProtoReader, in range: ClosedRange<Double>?
  ) throws(RequestFailure) -> Filter.Value? {
    var value: Filter.Value?
    let range = range ?? -Double.greatestFiniteMagnitude...Double.greatestFiniteMagnitude
    try nested(&reader) { (decoder, inner) throws(RequestFailure) in
      switch inner.field {
      case 1: value = .number(try decoder.number(key, &inner, in: range))
      case 2: value = .text(try RequestRule.text(key, try decoder.text(&inner), bytes: 0...255))
      case 3: value = .boolean(try decoder.boolean(&inner))
      default: return false
      }
      return true
    }
    return value
  }

  // MARK: Filters

  private mutating func filter(
    _ path: String, _ reader: inout ProtoReader, depth: Int
  ) throws(RequestFailure) -> Filter {
    guard depth <= Filter.depthMax else { throw .field(path, "nested at most \(Filter.depthMax) deep") }
    var filter: Filter?
    try nested(&reader) { (decoder, inner) throws(RequestFailure) in
      switch inner.field {
      case 1: filter = .all(try decoder.filters("\(path).all", &inner, depth: depth))
      case 2: filter = .any(try decoder.filters("\(path).any", &inner, depth: depth))
      case 3: filter = .not(try decoder.filter("\(path).not", &inner, depth: depth + 1))
      case 4: filter = try decoder.comparison("\(path).compare", &inner)
      default: return false
      }
      return true
    }
    guard let filter else { throw .field(path, "one of all, any, not and compare") }
    return filter
  }

  private mutating func filters(
    _ path: String, _ reader: inout ProtoReader, depth: Int
  ) throws(RequestFailure) -> [Filter] {
    var parts: [Filter] = []
    try nested(&reader) { (decoder, inner) throws(RequestFailure) in
      guard inner.field == 1 else { return false }
      parts.append(try decoder.filter("\(path)[\(parts.count)]", &inner, depth: depth + 1))
      return true
    }
    guard (1...Filter.termsMax).contains(parts.count) else {
      throw .field(path, "a list of 1 to \(Filter.termsMax) filters")
    }
    return parts
  }

  private mutating func comparison(_ path: String, _ reader: inout ProtoReader) throws(RequestFailure) -> Filter {
    var field = ""
    var values: [Filter.Value] = []
    var comparisons: [Filter.Comparison] = []
    try nested(&reader) { (decoder, inner) throws(RequestFailure) in
      func bound(_ name: String) throws(RequestFailure) -> Double {
        try decoder.number("\(path).\(name)", &inner, in: RequestRule.float)
      }
      switch inner.field {
      case 1: field = try decoder.text(&inner)
      case 2:
        let place = "\(path).in[\(values.count)]"
        guard let value = try decoder.value(place, &inner, in: RequestRule.float) else {
          throw .field(place, "a number, a text or a boolean")
        }
        values.append(value)
      case 3: comparisons.append(.less(try bound("lt")))
      case 4: comparisons.append(.atMost(try bound("lte")))
      case 5: comparisons.append(.greater(try bound("gt")))
      case 6: comparisons.append(.atLeast(try bound("gte")))
      default: return false
      }
      return true
    }
    _ = try RequestRule.text("\(path).field", field, bytes: 1...255)
    if !values.isEmpty { comparisons.insert(.isIn(values), at: 0) }
    guard !comparisons.isEmpty else { throw .field(path, "given at least one of in, lt, lte, gt and gte") }
    filterValues += values.count
    filterTerms += comparisons.count
    guard filterValues <= Filter.valuesMax else { throw .field("filter", "of at most \(Filter.valuesMax) values") }
    guard filterTerms <= Filter.termsMax else { throw .field("filter", "of at most \(Filter.termsMax) comparisons") }
    let parts = comparisons.map { Filter.compare(field: field, $0) }
    return parts.count == 1 ? parts[0] : .all(parts)
  }
}

// MARK: Answers

extension PublicAPI {
  /// `RankingReply`
  public func write(_ answer: Answer, into writer: inout ProtoWriter) {
    for entry in answer.entries {
      let list = answer.lists[Int(entry.list)]
      let place = Int(entry.position)
      writer.message(1) { item in
        list.ids.bytes.withUnsafeBytes {
          item.raw(1, UnsafeRawBufferPointer(rebasing: $0[list.ids.range(place)]))
        }
        item.float(2, entry.item.score)
        if let explanations = list.explanations {
          item.message(3) { Self.write(explanations, place, names: answer.contributionNames, into: &$0) }
        }
      }
    }
    writer.string(2, answer.release.model)
    writer.string(3, answer.release.version)
    writer.bool(4, answer.coldStart ?? false)
    writer.message(5) { coverage in
      coverage.uint(1, UInt64(answer.coverage.shards))
      coverage.uint(2, UInt64(answer.coverage.answered))
      coverage.double(3, answer.coverage.items)
      for missing in answer.coverage.missing {
        coverage.message(4) {
          $0.uint(1, UInt64(missing.shard.rawValue))
          $0.string(2, missing.reason.rawValue)
        }
      }
    }
    writer.uint(6, UInt64(answer.candidates))
    writer.double(7, answer.quality)
    for id in answer.unknown { writer.element(8, id) }
    writer.string(9, answer.requestID)
    writer.double(10, answer.took.milliseconds)
  }

  private static func write(
    _ explanations: Explanations, _ item: Int, names: [String], into writer: inout ProtoWriter
  ) {
    let width = explanations.width
    precondition(names.count == width, "\(names.count) names for \(width) contributions")
    writer.float(1, explanations.retrieval[item])
    writer.double(2, explanations.raw[item])
    writer.double(3, explanations.contributions[item * width + ContributionLayout.base])
    for place in 0..<width where place != ContributionLayout.base {
      let value = explanations.contributions[item * width + place]
      guard value != 0 else { continue }
      writer.message(4) {
        $0.string(1, names[place])
        $0.double(2, value)
      }
    }
    let outputs = explanations.outputs[(item * explanations.rankers)..<((item + 1) * explanations.rankers)]
    writer.packed(5, Array(outputs))
  }
}
