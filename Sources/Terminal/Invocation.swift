import Foundation

/// Wrong usage: one line that names what is wrong and the nearest right thing. Exit code 2.
package struct UsageError: Error, CustomStringConvertible {
  package var description: String
  package init(_ description: String) { self.description = description }
}

/// Something failed: one line that says what, and what to do. Exit code 1.
package struct CommandError: Error, CustomStringConvertible {
  package var description: String
  package init(_ description: String) { self.description = description }
}

/// A command with the values it was given. Every value has been checked against its option when this exists.
package struct Invocation: Sendable {
  package let command: Command
  private var values: [String: [String]]
  package private(set) var arguments: [String]

  package var json: Bool { flag("json") }

  package func flag(_ name: String) -> Bool { values[name]?.last == "true" }
  package func texts(_ name: String) -> [String] { values[name] ?? option(name).standard.map { [$0] } ?? [] }
  /// The value of an option that may be missing.
  package func optional(_ name: String) -> String? { texts(name).last }
  /// The value of an option that is required or has a default.
  package func text(_ name: String) -> String {
    guard let value = optional(name) else { preconditionFailure("--\(name) of \(command.name) may be missing") }
    return value
  }
  package func optionalInteger(_ name: String) -> Int? { optional(name).flatMap { Int($0) } }
  package func integer(_ name: String) -> Int { Int(text(name)) ?? 0 }
  package func optionalNumber(_ name: String) -> Double? { optional(name).flatMap { Double($0) } }
  package func number(_ name: String) -> Double { Double(text(name)) ?? 0 }
  package func duration(_ name: String) -> Duration { parseDuration(text(name)) ?? .zero }
  package func integers(_ name: String) -> [Int]? {
    optional(name).map { $0.split(separator: ",").compactMap { Int($0) } }
  }

  private func option(_ name: String) -> Option {
    guard let option = command.allOptions.first(where: { $0.name == name }) else {
      preconditionFailure("\(command.name) has no option --\(name)")
    }
    return option
  }

  /// Reads the words after a leaf command's name.
  /// - Throws: `UsageError`; `CommandError` for a configuration file that cannot be read.
  package init(_ command: Command, words: [String], path: [String]) throws {
    self.command = command
    values = [:]
    arguments = []
    let options = command.allOptions
    var rest = words[...]
    var onlyArguments = false
    while let word = rest.popFirst() {
      guard word.hasPrefix("-"), word != "-", !onlyArguments else {
        arguments.append(word)
        continue
      }
      if word == "--" {
        onlyArguments = true
        continue
      }
      let parts = word.drop { $0 == "-" }.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let name = word == "-h" ? "help" : parts.first.map(String.init) ?? ""
      guard let option = options.first(where: { $0.name == name }), word.hasPrefix("--") || word == "-h" else {
        throw Self.unknown(word, options, path)
      }
      if option.kind == .flag {
        if parts.count > 1 { throw UsageError("--\(name) takes no value") }
        values[name] = ["true"]
        continue
      }
      guard let value = parts.count > 1 ? String(parts[1]) : rest.popFirst() else {
        throw UsageError("--\(name) needs a value: --\(name) \(option.placeholder)")
      }
      if values[name] != nil, !option.repeats { throw UsageError("--\(name) is given twice") }
      try option.check(value)
      values[name, default: []].append(value)
    }
    if flag("help") { return }
    // A command with a --config of its own reads it itself.
    if !command.options.contains(where: { $0.name == "config" }), let file = optional("config") {
      try fill(from: file, options)
    }
    if arguments.count > command.arguments.count, command.arguments.last?.repeats != true {
      throw UsageError(
        "unexpected \"\(arguments[command.arguments.count])\"; see \(path.joined(separator: " ")) --help")
    }
    let needed = command.arguments.filter(\.isRequired)
    if arguments.count < needed.count {
      throw UsageError("\(needed[arguments.count].name) is missing, for example: \(command.example)")
    }
    if let missing = options.first(where: { $0.isRequired && values[$0.name] == nil }) {
      throw UsageError("--\(missing.name) \(missing.placeholder) is missing, for example: \(command.example)")
    }
  }

  private static func unknown(_ word: String, _ options: [Option], _ path: [String]) -> UsageError {
    let name = String(word.drop { $0 == "-" }.prefix { $0 != "=" })
    let hint =
      nearest(to: name, in: options.map(\.name)).map { "; did you mean --\($0)?" }
      ?? "; see \(path.joined(separator: " ")) --help"
    return UsageError("unknown option \(word.prefix { $0 != "=" })\(hint)")
  }

  /// Takes the values that were not typed from a JSON object whose keys are option names (`-` may be written `_`).
  private mutating func fill(from file: String, _ options: [Option]) throws {
    guard let data = FileManager.default.contents(atPath: file) else {
      throw CommandError("cannot read the configuration \(file)")
    }
    guard let object = (try? JSONSerialization.jsonObject(with: data)) as? [String: Any] else {
      throw CommandError("\(file) is not a JSON object of options, like {\"workers\": 4}")
    }
    for key in object.keys.sorted() {
      let name = key.replacing("_", with: "-")
      guard let option = options.first(where: { $0.name == name }), !["help", "config"].contains(name) else {
        let hint = nearest(to: name, in: options.map(\.name)).map { "; did you mean \"\($0)\"?" } ?? ""
        throw UsageError("\(file): unknown option \"\(key)\"\(hint)")
      }
      let given = object[key].map { $0 as? [Any] ?? [$0] } ?? []
      var texts = given.map { Self.text(of: $0) }
      if case .integers = option.kind { texts = [texts.joined(separator: ",")] }
      guard texts.count == 1 || option.repeats else {
        throw UsageError("\(file): \"\(key)\" takes one value")
      }
      for text in texts {
        if option.kind == .flag {
          guard ["true", "false"].contains(text) else { throw UsageError("\(file): \"\(key)\" is true or false") }
        } else {
          do { try option.check(text) } catch { throw UsageError("\(file): \(error)") }
        }
      }
      if values[name] == nil { values[name] = texts }
    }
  }

  private static func text(of value: Any) -> String {
    if let number = value as? NSNumber, CFBooleanLike.isBoolean(number) { return number.boolValue ? "true" : "false" }
    return "\(value)"
  }
}

/// Foundation's JSON gives true and 1 the same class; their Objective-C type differs.
private enum CFBooleanLike {
  package static func isBoolean(_ number: NSNumber) -> Bool { String(cString: number.objCType) == "c" }
}

extension Option {
  /// Refuses a value that this option does not take.
  package func check(_ value: String) throws {
    switch kind {
    case .flag: break
    case .text:
      if value.isEmpty { throw UsageError("--\(name) is empty; it takes \(placeholder)") }
    case .integer(let range):
      guard let number = Int(value), range.contains(number) else {
        throw UsageError("--\(name) is \"\(value)\"; it must be a whole number \(Self.text(range))")
      }
    case .number(let range):
      guard let number = Double(value), range.contains(number) else {
        throw UsageError("--\(name) is \"\(value)\"; it must be a number \(Self.text(range))")
      }
    case .duration:
      guard parseDuration(value) != nil else {
        throw UsageError("--\(name) is \"\(value)\"; it must be a time like 30s, 500ms or 2m")
      }
    case .integers(let range):
      let parts = value.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
      guard parts.allSatisfy({ $0.map(range.contains) ?? false }) else {
        throw UsageError("--\(name) is \"\(value)\"; it must be whole numbers \(Self.text(range)) with commas between")
      }
    case .choice(let names):
      guard names.contains(value) else {
        let hint = nearest(to: value, in: names).map { "; did you mean \($0)?" } ?? ""
        throw UsageError("--\(name) is \"\(value)\"; it must be one of \(names.joined(separator: ", "))\(hint)")
      }
    }
  }

  private static func text(_ range: ClosedRange<Int>) -> String {
    range.upperBound == .max ? "of at least \(range.lowerBound)" : "in \(range.lowerBound)...\(range.upperBound)"
  }
  private static func text(_ range: ClosedRange<Double>) -> String {
    range.upperBound == .infinity || range.upperBound == .greatestFiniteMagnitude
      ? "of at least \(range.lowerBound)" : "in \(range.lowerBound)...\(range.upperBound)"
  }
}

/// "1.5s", "500ms", "2m", "10" (seconds); positive, at most a week.
package func parseDuration(_ text: String) -> Duration? {
  let digits = text.prefix { $0.isNumber || $0 == "." }
  let scale: Double? =
    switch text.dropFirst(digits.count) {
    case "", "s": 1
    case "ms": 1e-3
    case "m": 60
    case "h": 3600
    default: nil
    }
  guard let scale, let value = Double(digits), value > 0, value * scale <= 7 * 86400 else { return nil }
  return .nanoseconds(Int64((value * scale * 1e9).rounded()))
}
