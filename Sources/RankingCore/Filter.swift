// Which items a request wants to see at all.
//
//     {"all": [{"field": "price", "lte": 5}, {"not": {"field": "brand", "in": ["acme", "zeta"]}}]}
//
// An item without a value passes no comparison: neither `price ≤ 5` nor `price > 5`; `not` turns that round as it turns
// everything round. Numbers are compared as float32, which is what columns hold: an item at 0.1 passes `lte 0.1`.

public indirect enum Filter: Sendable, Equatable {
  public enum Value: Sendable, Equatable {
    case number(Double)
    case text(String)
    case boolean(Bool)
  }
  public enum Comparison: Sendable, Equatable {
    /// Any of these; `eq` is one of one.
    case isIn([Value])
    case less(Double)
    case atMost(Double)
    case greater(Double)
    case atLeast(Double)
    case between(Double, Double)
  }
  case all([Filter])
  case any([Filter])
  case not(Filter)
  case compare(field: String, Comparison)

  /// Nesting, comparisons, and values in all their lists.
  public static let depthMax = 8
  public static let termsMax = 256
  public static let valuesMax = 1000
}

/// A filter bound to a version's item columns, in the order of evaluation: operands before what joins them.
///
///     price ≤ 5 and not brand in (acme)   ─►   range(0, −∞…5)  isIn(1, [3])  not  all(2)
public struct FilterProgram: Sendable, Equatable {
  public enum Step: Sendable, Equatable {
    /// The column's value lies in low…high, both included. Never for a missing value.
    case range(column: Int, low: Float, high: Float)
    /// The column's value is one of these. Never for a missing value.
    case isIn(column: Int, [Float])
    /// Joins so many results before it.
    case all(Int)
    case any(Int)
    case not
  }
  public var steps: [Step]

  public static let stepsMax = 2 * Filter.termsMax + Filter.termsMax * Filter.depthMax

  public init(steps: [Step]) { self.steps = steps }

  /// - Throws: `.invalidArgument` for a field that is no item column, or a value of another type; says which and what
  ///   is allowed. A category that the version does not know is no error: no item has it.
  public init(_ filter: Filter, columns: [Column]) throws(RankingError) {
    steps = []
    try append(filter, columns)
  }

  private mutating func append(_ filter: Filter, _ columns: [Column]) throws(RankingError) {
    switch filter {
    case .all(let parts):
      for part in parts { try append(part, columns) }
      steps.append(.all(parts.count))
    case .any(let parts):
      for part in parts { try append(part, columns) }
      steps.append(.any(parts.count))
    case .not(let part):
      try append(part, columns)
      steps.append(.not)
    case .compare(let field, let comparison):
      guard let index = columns.firstIndex(where: { $0.name == field }) else {
        let names = columns.isEmpty ? "this version has none" : columns.map(\.name).joined(separator: ", ")
        throw RankingError(.invalidArgument, "\"filter\": \"\(field)\" is no item column; allowed: \(names)")
      }
      steps.append(try Self.step(index, columns[index], comparison))
    }
  }

  private static func step(
    _ index: Int, _ column: Column, _ comparison: Filter.Comparison
  ) throws(RankingError) -> Step {
    guard case .isIn(let values) = comparison else {
      guard column.kind == .number else {
        throw RankingError(
          .invalidArgument, "\"filter\": \"\(column.name)\" is a \(column.kind.rawValue); it takes eq and in")
      }
      switch comparison {
      case .isIn: return .isIn(column: index, [])
      case .less(let limit): return .range(column: index, low: -.infinity, high: Float(limit).nextDown)
      case .atMost(let limit): return .range(column: index, low: -.infinity, high: Float(limit))
      case .greater(let limit): return .range(column: index, low: Float(limit).nextUp, high: .infinity)
      case .atLeast(let limit): return .range(column: index, low: Float(limit), high: .infinity)
      case .between(let low, let high): return .range(column: index, low: Float(low), high: Float(high))
      }
    }
    var numbers: [Float] = []
    for value in values {
      switch (column.kind, value) {
      case (.number, .number(let number)): numbers.append(Float(number))
      case (.boolean, .boolean(let flag)): numbers.append(flag ? 1 : 0)
      case (.category, .text(let text)):
        if let category = column.categories.firstIndex(of: text) { numbers.append(Float(category)) }
      default:
        let wanted = column.kind == .number ? "numbers" : column.kind == .boolean ? "true or false" : "texts"
        throw RankingError(
          .invalidArgument, "\"filter\": \"\(column.name)\" is a \(column.kind.rawValue); its values are \(wanted)")
      }
    }
    return .isIn(column: index, numbers)
  }

  /// What keeps it from being run, in one line: what a worker asks of one that came over the wire.
  public func fault(columns: Int) -> String? {
    var depth = 0
    for step in steps {
      switch step {
      case .range(let column, let low, let high):
        guard 0..<columns ~= column else { return "column \(column) of \(columns)" }
        if low.isNaN || high.isNaN { return "a bound is not a number" }
        depth += 1
      case .isIn(let column, _):
        guard 0..<columns ~= column else { return "column \(column) of \(columns)" }
        depth += 1
      case .all(let count), .any(let count):
        guard count >= 1, count <= depth else { return "joins \(count) of \(depth) results" }
        depth -= count - 1
      case .not: if depth < 1 { return "nothing to turn round" }
      }
      if depth > Self.depthMax { return "more than \(Self.depthMax) results at a time" }
    }
    return depth == 1 ? nil : "\(depth) results where one is wanted"
  }
  /// Results that may wait to be joined: a bit each.
  public static let depthMax = Filter.termsMax + 1

  /// The most results that wait at once.
  public var depth: Int {
    var (depth, most) = (0, 0)
    for step in steps {
      switch step {
      case .range, .isIn: depth += 1
      case .all(let count), .any(let count): depth -= count - 1
      case .not: break
      }
      most = max(most, depth)
    }
    return most
  }

  /// Whether an item passes. For a program without fault.
  ///
  /// - Parameter value: of a column; NaN = missing.
  @inline(__always)
  public func passes(_ value: (Int) -> Float) -> Bool {
    // Most filters are one comparison.
    if steps.count == 1 { return Self.test(steps[0], value) }
    // The results, the latest in bit 0. Filters that need more than 64 at once are rare: `passesDeep`.
    var results: UInt64 = 0
    var depth = 0
    for step in steps {
      switch step {
      case .range, .isIn:
        if depth == 64 { return passesDeep(value) }
        results = results << 1 | (Self.test(step, value) ? 1 : 0)
        depth += 1
      case .all(let count), .any(let count):
        let mask: UInt64 = count == 64 ? .max : 1 << UInt64(count) - 1
        let holds = if case .all = step { results & mask == mask } else { results & mask != 0 }
        results = (count == 64 ? 0 : results >> UInt64(count)) << 1 | (holds ? 1 : 0)
        depth -= count - 1
      case .not: results ^= 1
      }
    }
    return results & 1 == 1
  }

  private func passesDeep(_ value: (Int) -> Float) -> Bool {
    var results: [Bool] = []
    for step in steps {
      switch step {
      case .range, .isIn: results.append(Self.test(step, value))
      case .all(let count):
        let holds = results.suffix(count).allSatisfy { $0 }
        results.removeLast(count)
        results.append(holds)
      case .any(let count):
        let holds = results.suffix(count).contains(true)
        results.removeLast(count)
        results.append(holds)
      case .not: results[results.count - 1].toggle()
      }
    }
    return results[0]
  }

  @inline(__always)
  private static func test(_ step: Step, _ value: (Int) -> Float) -> Bool {
    switch step {
    case .range(let column, let low, let high):
      let value = value(column)
      return value >= low && value <= high
    case .isIn(let column, let numbers):
      let value = value(column)
      for number in numbers where number == value { return true }
      return false
    case .all, .any, .not: return false
    }
  }
}
