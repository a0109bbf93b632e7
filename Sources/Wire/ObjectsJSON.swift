import RankingCore

// The small objects of a request.

extension RequestParser {
  /// `{"lambda": 0.7, "pool": 100}`
  mutating func marginalRelevance() throws(RequestFailure) -> MarginalRelevance {
    let shape = "an object of \"lambda\" and, if it is not \(MarginalRelevance.poolDefault), \"pool\""
    var (lambda, pool): (Double?, Int) = (nil, MarginalRelevance.poolDefault)
    try object("mmr", shape) { (parser, key) throws(RequestFailure) in
      switch key {
      case "lambda": lambda = try parser.number("mmr.lambda", in: 0...1)
      case "pool": pool = try parser.integer("mmr.pool", in: MarginalRelevance.poolRange)
      default: return false
      }
      return true
    }
    guard let lambda else { throw .field("mmr", shape) }
    return MarginalRelevance(lambda: lambda, pool: pool)
  }

  /// `{"field": NAME, "max": N}`
  mutating func diversity() throws(RequestFailure) -> Diversity {
    let shape = "an object of \"field\" and \"max\""
    var (field, max): (String?, Int?) = (nil, nil)
    try object("diversity", shape) { (parser, key) throws(RequestFailure) in
      switch key {
      case "field": field = try parser.text("diversity.field", bytes: 1...255)
      case "max": max = try parser.integer("diversity.max", in: Diversity.maxRange)
      default: return false
      }
      return true
    }
    guard let field, let max else { throw .field("diversity", shape) }
    return Diversity(field: field, max: max)
  }

  /// - Parameter read: reads the value of a key; false = there is no such key.
  private mutating func object(
    _ name: String, _ shape: String, read: (inout RequestParser, String) throws(RequestFailure) -> Bool
  ) throws(RequestFailure) {
    try expect(.object, name, shape)
    try json { (r) throws(JSONError) in try r.beginObject() }
    var keys: [String] = []
    while let key = try json({ [first = keys.isEmpty] (r) throws(JSONError) in try r.nextKey(first: first) }) {
      guard !keys.contains(key) else { throw .field(name, "without \"\(key)\" twice") }
      keys.append(key)
      guard try read(&self, key) else { throw .field(name, "\(shape); \"\(key)\" is neither") }
    }
  }
}
