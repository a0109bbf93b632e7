import Foundation

/// A JSON object with its place, so that every complaint says where.
package struct ConfigurationFile {
  package let place: String
  package let object: [String: Any]

  package init(_ file: String) throws(ConfigurationError) {
    guard let data = FileManager.default.contents(atPath: file) else {
      throw ConfigurationError("\(file): cannot be read")
    }
    try self.init(place: file, json: data)
  }
  package init(place: String, json data: Data) throws(ConfigurationError) {
    do {
      guard let object = try JSONSerialization.jsonObject(with: data) as? [String: Any] else {
        throw ConfigurationError("\(place): must be one JSON object")
      }
      self.init(place: place, object: object)
    } catch let error as ConfigurationError {
      throw error
    } catch {
      throw ConfigurationError("\(place): not JSON: \(error.localizedDescription)")
    }
  }
  package init(place: String, object: [String: Any]) {
    self.place = place
    self.object = object
  }

  package func allow(_ keys: [String]) throws(ConfigurationError) {
    for key in object.keys.sorted() where !keys.contains(key) {
      throw ConfigurationError("\(place): unknown key \"\(key)\"; allowed: \(keys.joined(separator: ", "))")
    }
  }
  package func text(_ key: String) throws(ConfigurationError) -> String? {
    guard let value = object[key] else { return nil }
    guard let text = value as? String else { throw ConfigurationError("\(place): \"\(key)\" must be a text") }
    return text
  }
  package func needed(_ key: String) throws(ConfigurationError) -> String {
    guard let text = try text(key) else { throw ConfigurationError("\(place): \"\(key)\" is needed") }
    return text
  }
  package func integer(_ key: String, in range: ClosedRange<Int>) throws(ConfigurationError) -> Int? {
    guard let value = object[key] else { return nil }
    guard let number = value as? Int, range.contains(number) else {
      throw ConfigurationError(
        "\(place): \"\(key)\" must be a whole number, \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }
  package func number(_ key: String, in range: ClosedRange<Double>) throws(ConfigurationError) -> Double? {
    guard let value = object[key] else { return nil }
    guard let number = (value as? NSNumber)?.doubleValue, range.contains(number) else {
      throw ConfigurationError("\(place): \"\(key)\" must be a number, \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }
  package func boolean(_ key: String) throws(ConfigurationError) -> Bool? {
    guard let value = object[key] else { return nil }
    guard let boolean = value as? Bool else { throw ConfigurationError("\(place): \"\(key)\" must be true or false") }
    return boolean
  }
  package func integers(_ key: String, in range: ClosedRange<Int>) throws(ConfigurationError) -> [Int] {
    guard let numbers = object[key] as? [Int], numbers.allSatisfy(range.contains) else {
      throw ConfigurationError(
        "\(place): \"\(key)\" must be a list of whole numbers, \(range.lowerBound) to \(range.upperBound)")
    }
    return numbers
  }
  package func texts(_ key: String) throws(ConfigurationError) -> [String] {
    guard let value = object[key] else { return [] }
    guard let texts = value as? [String] else {
      throw ConfigurationError("\(place): \"\(key)\" must be a list of texts")
    }
    return texts
  }
  /// A list of lists of texts.
  package func table(_ key: String) throws(ConfigurationError) -> [[String]]? {
    guard let value = object[key] else { return nil }
    guard let table = value as? [[String]], !table.contains([]) else {
      throw ConfigurationError("\(place): \"\(key)\" must be a list with a list of names for each shard")
    }
    return table
  }
  package func child(_ key: String) throws(ConfigurationError) -> ConfigurationFile? {
    guard let value = object[key] else { return nil }
    guard let object = value as? [String: Any] else {
      throw ConfigurationError("\(place): \"\(key)\" must be an object")
    }
    return ConfigurationFile(place: "\(place): \(key)", object: object)
  }
  package func objects(_ key: String) throws(ConfigurationError) -> [ConfigurationFile] {
    guard let value = object[key] else { return [] }
    guard let list = value as? [[String: Any]] else {
      throw ConfigurationError("\(place): \"\(key)\" must be a list of objects")
    }
    return list.enumerated().map { ConfigurationFile(place: "\(place): \(key)[\($0.offset)]", object: $0.element) }
  }
}
