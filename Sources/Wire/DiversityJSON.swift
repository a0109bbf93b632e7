import RankingCore

extension RequestParser {
  /// `{"lambda": 0.7, "pool": 100}`
  mutating func marginalRelevance() throws(RequestFailure) -> MarginalRelevance {
    let shape = "an object of \"lambda\" and, if it is not \(MarginalRelevance.poolDefault), \"pool\""
    try expect(.object, "mmr", shape)
    try json { (r) throws(JSONError) in try r.beginObject() }
    var keys: [String] = []
    var (lambda, pool): (Double?, Int) = (nil, MarginalRelevance.poolDefault)
    while let key = try json({ [first = keys.isEmpty] (r) throws(JSONError) in try r.nextKey(first: first) }) {
      guard !keys.contains(key) else { throw .field("mmr", "without \"\(key)\" twice") }
      keys.append(key)
      switch key {
      case "lambda": lambda = try number("mmr.lambda", in: 0...1)
      case "pool": pool = try integer("mmr.pool", in: MarginalRelevance.poolRange)
      default: throw .field("mmr", "\(shape); \"\(key)\" is neither")
      }
    }
    guard let lambda else { throw .field("mmr", shape) }
    return MarginalRelevance(lambda: lambda, pool: pool)
  }

  /// `{"field": NAME, "max": N}`
  mutating func diversity() throws(RequestFailure) -> Diversity {
    let shape = "an object of \"field\" and \"max\""
    try expect(.object, "diversity", shape)
    try json { (r) throws(JSONError) in try r.beginObject() }
    var keys: [String] = []
    var (field, max): (String?, Int?) = (nil, nil)
    while let key = try json({ [first = keys.isEmpty] (r) throws(JSONError) in try r.nextKey(first: first) }) {
      guard !keys.contains(key) else { throw .field("diversity", "without \"\(key)\" twice") }
      keys.append(key)
      switch key {
      case "field": field = try text("diversity.field", bytes: 1...255)
      case "max": max = try integer("diversity.max", in: Diversity.maxRange)
      default: throw .field("diversity", "\(shape); \"\(key)\" is neither")
      }
    }
    guard let field, let max else { throw .field("diversity", shape) }
    return Diversity(field: field, max: max)
  }
}
