import RankingCore

// What the values of a request's fields may be, whichever format they come in. Each complaint names its field.

enum RequestRule {
  static func text(
    _ key: @autoclosure () -> String, _ text: String, bytes: ClosedRange<Int>
  ) throws(RequestFailure) -> String {
    guard bytes.contains(text.utf8.count) else {
      throw .field(key(), "a text of \(bytes.lowerBound) to \(bytes.upperBound) bytes")
    }
    return text
  }

  static func name(_ key: String, _ name: String) throws(RequestFailure) -> String {
    let text = try text(key, name, bytes: 1...64)
    guard ModelVersion.isValidName(text) else {
      throw .field(key, "made of A-Z a-z 0-9 . _ - and not start with a dot")
    }
    return text
  }

  /// NaN lies in no range.
  static func number(_ key: String, _ value: Double, in range: ClosedRange<Double>) throws(RequestFailure) -> Double {
    guard range.contains(value) else { throw .field(key, "a number, \(range.lowerBound) to \(range.upperBound)") }
    return value
  }
  static let float: ClosedRange<Double> = -3.4e38...3.4e38

  static func integer(_ key: String, _ value: Double, in range: ClosedRange<Int>) throws(RequestFailure) -> Int {
    guard let whole = Int(exactly: value), range.contains(whole) else {
      throw .field(key, "a whole number, \(range.lowerBound) to \(range.upperBound)")
    }
    return whole
  }

  static func ids(_ key: String, _ ids: [String], least: Int, unique: Bool) throws(RequestFailure) -> [String] {
    guard (least...RequestLimit.ids).contains(ids.count) else {
      throw .field(key, "a list of \(least) to \(RequestLimit.ids) item ids")
    }
    var known = Set<String>()
    for (place, id) in ids.enumerated() {
      _ = try text("\(key)[\(place)]", id, bytes: itemIDLengthRange)
      if unique, !known.insert(id).inserted {
        throw .ranking(RankingError(.invalidArgument, "\"\(key)\" names \"\(id)\" twice", field: key))
      }
    }
    return ids
  }

  static func vector(_ key: String, _ vector: [Float]) throws(RequestFailure) -> [Float] {
    guard (1...RequestLimit.vectorDimension).contains(vector.count) else {
      throw .field(key, "a list of 1 to \(RequestLimit.vectorDimension) numbers")
    }
    var squares = 0.0
    for value in vector { squares += Double(value) * Double(value) }
    guard squares <= RequestLimit.vectorNorm * RequestLimit.vectorNorm else {
      throw .field(key, "of a norm up to \(RequestLimit.vectorNorm)")
    }
    return vector
  }

  static func subject(_ given: [String]) throws(RequestFailure) {
    guard given.count == 1 else {
      let what = given.isEmpty ? "none is given" : "given: \(given.joined(separator: ", "))"
      throw .ranking(
        RankingError(.invalidArgument, "exactly one of \"user\", \"vector\", \"recent_items\" is needed; \(what)"))
    }
  }
}
