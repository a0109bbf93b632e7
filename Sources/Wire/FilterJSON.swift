import RankingCore

// The "filter" of a request:
//
//     {"all": [F, …]}   {"any": [F, …]}   {"not": F}
//     {"field": NAME, "eq": value}         in: [value, …]    lt lte gt gte: number    between: [number, number]
//
// Several comparisons of one field in one object must all hold.

extension RequestParser {
  private static let shape =
    "one of {\"all\": […]}, {\"any\": […]}, {\"not\": {…}} or {\"field\": …} with eq, in, lt, lte, gt, gte or between"

  mutating func filter() throws(RequestFailure) -> Filter { try filter("filter", depth: 1) }

  private mutating func filter(_ path: String, depth: Int) throws(RequestFailure) -> Filter {
    guard depth <= Filter.depthMax else { throw .field(path, "nested at most \(Filter.depthMax) deep") }
    try expect(.object, path, Self.shape)
    try json { (r) throws(JSONError) in try r.beginObject() }
    var field: String?
    var joined: Filter?
    var comparisons: [Filter.Comparison] = []
    var keys: [String] = []
    while let key = try json({ [first = keys.isEmpty] (r) throws(JSONError) in try r.nextKey(first: first) }) {
      guard !keys.contains(key) else { throw .field(path, "without \"\(key)\" twice") }
      keys.append(key)
      let place = "\(path).\(key)"
      switch key {
      case "all": joined = .all(try filters(place, depth: depth))
      case "any": joined = .any(try filters(place, depth: depth))
      case "not": joined = .not(try filter(place, depth: depth + 1))
      case "field": field = try text(place, bytes: 1...255)
      case "eq": comparisons.append(.isIn([try value(place)]))
      case "in": comparisons.append(.isIn(try values(place)))
      case "lt": comparisons.append(.less(try bound(place)))
      case "lte": comparisons.append(.atMost(try bound(place)))
      case "gt": comparisons.append(.greater(try bound(place)))
      case "gte": comparisons.append(.atLeast(try bound(place)))
      case "between":
        let bounds = try values(place)
        guard bounds.count == 2, case .number(let low) = bounds[0], case .number(let high) = bounds[1], low <= high
        else { throw .field(place, "[low, high], two numbers in order") }
        comparisons.append(.between(low, high))
      default: throw .field(path, "\(Self.shape); \"\(key)\" is none of them")
      }
    }
    if let joined {
      guard keys.count == 1 else { throw .field(path, "\(Self.shape), and nothing beside it") }
      return joined
    }
    guard let field, !comparisons.isEmpty else { throw .field(path, Self.shape) }
    filterTerms += comparisons.count
    guard filterTerms <= Filter.termsMax else { throw .field("filter", "of at most \(Filter.termsMax) comparisons") }
    let parts = comparisons.map { Filter.compare(field: field, $0) }
    return parts.count == 1 ? parts[0] : .all(parts)
  }

  private mutating func filters(_ path: String, depth: Int) throws(RequestFailure) -> [Filter] {
    try expect(.array, path, "a list of filters")
    try json { (r) throws(JSONError) in try r.beginArray() }
    var parts: [Filter] = []
    while try json({ [first = parts.isEmpty] (r) throws(JSONError) in try r.nextElement(first: first) }) {
      parts.append(try filter("\(path)[\(parts.count)]", depth: depth + 1))
      guard parts.count <= Filter.termsMax else { throw .field(path, "of at most \(Filter.termsMax) filters") }
    }
    guard !parts.isEmpty else { throw .field(path, "a list of at least one filter") }
    return parts
  }

  private mutating func bound(_ path: String) throws(RequestFailure) -> Double {
    try number(path, in: RequestRule.float)
  }

  private mutating func values(_ path: String) throws(RequestFailure) -> [Filter.Value] {
    try expect(.array, path, "a list of values")
    try json { (r) throws(JSONError) in try r.beginArray() }
    var values: [Filter.Value] = []
    while try json({ [first = values.isEmpty] (r) throws(JSONError) in try r.nextElement(first: first) }) {
      values.append(try value("\(path)[\(values.count)]"))
    }
    guard !values.isEmpty else { throw .field(path, "a list of at least one value") }
    return values
  }

  private mutating func value(_ path: String) throws(RequestFailure) -> Filter.Value {
    filterValues += 1
    guard filterValues <= Filter.valuesMax else { throw .field("filter", "of at most \(Filter.valuesMax) values") }
    switch try json({ (r) throws(JSONError) in try r.kind() }) {
    case .number: return .number(try bound(path))
    case .string: return .text(try text(path, bytes: 0...255))
    case .boolean: return .boolean(try boolean(path))
    case .object, .array, .null: throw .field(path, "a number, a text or a boolean")
    }
  }
}
