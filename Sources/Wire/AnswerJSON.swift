import RankingCore

// `Answer` and `RankingError` → the public JSON, and back for tools and tests.

extension PublicAPI {
  public func write(_ answer: Answer, into json: inout JSONWriter) {
    json.bytes.reserveCapacity(json.bytes.count + 512 + 64 * answer.entries.count)
    json.literal("{\"items\":[")
    for (index, entry) in answer.entries.enumerated() {
      json.literal(index == 0 ? "{\"id\":" : ",{\"id\":")
      let range = answer.lists[Int(entry.list)].ids.range(Int(entry.position))
      answer.lists[Int(entry.list)].ids.bytes.withUnsafeBytes {
        json.string(utf8: UnsafeRawBufferPointer(rebasing: $0[range]))
      }
      json.literal(",\"score\":")
      json.number(entry.item.score)
      if let explanations = answer.lists[Int(entry.list)].explanations {
        Self.write(explanations, Int(entry.position), names: answer.contributionNames, into: &json)
      }
      json.literal("}")
    }
    json.literal("],\"model\":")
    json.string(answer.release.model)
    json.literal(",\"version\":")
    json.string(answer.release.version)
    if self != .similar {
      json.literal(",\"cold_start\":")
      json.boolean(answer.coldStart ?? false)
    }
    json.literal(",\"coverage\":{\"shards\":")
    json.number(answer.coverage.shards)
    json.literal(",\"answered\":")
    json.number(answer.coverage.answered)
    json.literal(",\"items\":")
    json.number(answer.coverage.items)
    json.literal(",\"missing\":")
    Self.write(answer.coverage.missing, into: &json)
    json.literal("},\"candidates\":")
    json.number(answer.candidates)
    json.literal(",\"quality\":")
    json.number(answer.quality)
    if self == .rank || !answer.unknown.isEmpty {
      json.literal(",\"unknown\":[")
      for (index, id) in answer.unknown.enumerated() {
        if index > 0 { json.literal(",") }
        json.string(id)
      }
      json.literal("]")
    }
    json.literal(",\"request_id\":")
    json.string(answer.requestID)
    json.literal(",\"took_ms\":")
    json.milliseconds(answer.took.milliseconds)
    json.literal("}")
  }

  /// An item's explanation. What contributes nothing is left out.
  private static func write(
    _ explanations: Explanations, _ item: Int, names: [String], into json: inout JSONWriter
  ) {
    let width = explanations.width
    precondition(names.count == width, "\(names.count) names for \(width) contributions")
    json.literal(",\"explain\":{\"retrieval_score\":")
    json.number(explanations.retrieval[item])
    json.literal(",\"raw\":")
    json.number(explanations.raw[item])
    json.literal(",\"base\":")
    json.number(explanations.contributions[item * width + ContributionLayout.base])
    json.literal(",\"contributions\":{")
    var isFirst = true
    for place in 0..<width where place != ContributionLayout.base {
      let value = explanations.contributions[item * width + place]
      guard value != 0 else { continue }
      if !isFirst { json.literal(",") }
      isFirst = false
      json.string(names[place])
      json.literal(":")
      json.number(value)
    }
    json.literal("},\"rankers\":[")
    for ranker in 0..<explanations.rankers {
      if ranker > 0 { json.literal(",") }
      json.number(explanations.outputs[item * explanations.rankers + ranker])
    }
    json.literal("]}")
  }

  public static func write(_ error: RankingError, requestID: String, into json: inout JSONWriter) {
    json.literal("{\"error\":{\"code\":")
    json.string(error.code.rawValue)
    json.literal(",\"message\":")
    json.string(error.message)
    if !error.missing.isEmpty {
      json.literal(",\"missing\":")
      write(error.missing, into: &json)
    }
    json.literal(",\"request_id\":")
    json.string(requestID)
    json.literal("}}")
  }

  private static func write(_ missing: [Coverage.Missing], into json: inout JSONWriter) {
    json.literal("[")
    for (index, shard) in missing.enumerated() {
      json.literal(index == 0 ? "{\"shard\":" : ",{\"shard\":")
      json.number(Int(shard.shard.rawValue))
      json.literal(",\"reason\":")
      json.string(shard.reason.rawValue)
      json.literal("}")
    }
    json.literal("]")
  }

  public static func httpStatus(_ code: RankingError.Code) -> Int {
    switch code {
    case .invalidArgument: 400
    case .unauthenticated: 401
    case .permissionDenied: 403
    case .notFound: 404
    case .methodNotAllowed: 405
    case .tooLarge: 413
    case .cancelled: 499
    case .internal: 500
    case .overloaded, .unavailable: 503
    case .deadlineExceeded: 504
    }
  }
}

/// An answer read back from its JSON: for the command line, the load generator and tests.
public struct ParsedAnswer: Sendable, Equatable {
  public struct Item: Sendable, Equatable {
    public var id: String
    public var score: Float
    public var explanation: Explanation?
    public init(id: String, score: Float, explanation: Explanation? = nil) {
      self.id = id
      self.score = score
      self.explanation = explanation
    }
  }
  public struct Explanation: Sendable, Equatable {
    public var retrievalScore: Float = 0
    public var raw = 0.0
    public var base = 0.0
    public var contributions: [String: Double] = [:]
    public var rankers: [Float] = []
    public init() {}
  }
  public var items: [Item] = []
  public var model = ""
  public var version = ""
  public var coldStart = false
  public var shards = 0
  public var answered = 0
  public var coverageItems = 0.0
  public var missing: [Int] = []
  public var candidates = 0
  public var unknown: [String] = []
  public var errorCode: String?
  public var errorMessage: String?

  public init(_ bytes: UnsafeRawBufferPointer) throws(JSONError) {
    var reader = JSONReader(bytes)
    try Self.object(&reader) { (reader, key) throws(JSONError) in
      switch key {
      case "items":
        try Self.list(&reader) { (reader) throws(JSONError) in
          var item = Item(id: "", score: 0)
          try Self.object(&reader) { (reader, key) throws(JSONError) in
            switch key {
            case "id": item.id = try reader.string()
            case "score": item.score = try reader.float()
            case "explain": item.explanation = try Self.explanation(&reader)
            default: try reader.skipValue()
            }
          }
          self.items.append(item)
        }
      case "model": self.model = try reader.string()
      case "version": self.version = try reader.string()
      case "cold_start": self.coldStart = try reader.boolean()
      case "coverage":
        try Self.object(&reader) { (reader, key) throws(JSONError) in
          switch key {
          case "shards": self.shards = try reader.integer()
          case "answered": self.answered = try reader.integer()
          case "items": self.coverageItems = try reader.double()
          case "missing":
            try Self.list(&reader) { (reader) throws(JSONError) in
              try Self.object(&reader) { (reader, key) throws(JSONError) in
                if key == "shard" { self.missing.append(try reader.integer()) } else { try reader.skipValue() }
              }
            }
          default: try reader.skipValue()
          }
        }
      case "candidates": self.candidates = try reader.integer()
      case "unknown":
        try Self.list(&reader) { (reader) throws(JSONError) in self.unknown.append(try reader.string()) }
      case "error":
        try Self.object(&reader) { (reader, key) throws(JSONError) in
          switch key {
          case "code": self.errorCode = try reader.string()
          case "message": self.errorMessage = try reader.string()
          default: try reader.skipValue()
          }
        }
      default: try reader.skipValue()
      }
    }
    try reader.expectEnd()
  }

  private static func explanation(_ reader: inout JSONReader) throws(JSONError) -> Explanation {
    var explanation = Explanation()
    try object(&reader) { (reader, key) throws(JSONError) in
      switch key {
      case "retrieval_score": explanation.retrievalScore = try reader.float()
      case "raw": explanation.raw = try reader.double()
      case "base": explanation.base = try reader.double()
      case "contributions":
        try object(&reader) { (reader, key) throws(JSONError) in
          explanation.contributions[key] = try reader.double()
        }
      case "rankers":
        try list(&reader) { (reader) throws(JSONError) in explanation.rankers.append(try reader.float()) }
      default: try reader.skipValue()
      }
    }
    return explanation
  }

  private static func object(
    _ reader: inout JSONReader, _ field: (inout JSONReader, String) throws(JSONError) -> Void
  ) throws(JSONError) {
    try reader.beginObject()
    var first = true
    while let key = try reader.nextKey(first: first) {
      first = false
      try field(&reader, key)
    }
  }
  private static func list(
    _ reader: inout JSONReader, _ element: (inout JSONReader) throws(JSONError) -> Void
  ) throws(JSONError) {
    try reader.beginArray()
    var first = true
    while try reader.nextElement(first: first) {
      first = false
      try element(&reader)
    }
  }
}
