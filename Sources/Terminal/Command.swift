// The command line as data: a tree of commands, each with its options, its help and what it does.
//
//   shortlist cluster up --store STORE --model home --workers 4
//   └─ root   └─ group └─ leaf ── options ────────────────────

/// One command: a leaf that runs, or a group of others.
package struct Command: Sendable {
  /// Who deals with SIGINT and SIGTERM while the command runs.
  package enum SignalPolicy: Sendable {
    /// Temporaries are removed and the process ends with 128 + the signal's number.
    case end
    /// The command itself: it stays blocked in every thread until the command asks for it.
    case own
  }

  package var name: String
  /// One line, without a full stop.
  package var summary: String
  /// What is worth knowing beyond the options; lines of at most 100 characters.
  package var discussion = ""
  /// A whole command line that works, shown by `--help`.
  package var example: String
  package var options: [Option] = []
  package var arguments: [Argument] = []
  package var commands: [Command] = []
  /// Of a group: which of its commands is meant when an option comes instead of a name.
  package var standardCommand: String?
  package var signals = SignalPolicy.end
  /// Not shown in the help of its group.
  package var isHidden = false
  /// The exit code: 0 done, 1 the answer is "no".
  package var run: (@Sendable (Invocation) throws -> Int32)?

  package init(
    name: String, summary: String, discussion: String = "", example: String, options: [Option] = [],
    arguments: [Argument] = [], commands: [Command] = [], standardCommand: String? = nil,
    signals: SignalPolicy = .end, isHidden: Bool = false,
    run: (@Sendable (Invocation) throws -> Int32)? = nil
  ) {
    self.name = name
    self.summary = summary
    self.discussion = discussion
    self.example = example
    self.options = options
    self.arguments = arguments
    self.commands = commands
    self.standardCommand = standardCommand
    self.signals = signals
    self.isHidden = isHidden
    self.run = run
  }
}

/// A flag (`--json`) or an option with a value (`--workers 4`).
package struct Option: Sendable {
  package enum Kind: Sendable, Equatable {
    case flag
    case text
    case integer(ClosedRange<Int>)
    case number(ClosedRange<Double>)
    /// "30s", "500ms", "2m"; a bare number is seconds.
    case duration
    /// Numbers separated by commas.
    case integers(ClosedRange<Int>)
    case choice([String])
  }
  package var name: String
  package var kind: Kind
  /// What stands for the value in the help.
  package var placeholder: String
  package var help: String
  /// As it would be typed; `nil` = none.
  package var standard: String?
  package var isRequired = false
  /// May be given several times.
  package var repeats = false

  package init(
    name: String, kind: Kind, placeholder: String, help: String, standard: String? = nil, isRequired: Bool = false,
    repeats: Bool = false
  ) {
    self.name = name
    self.kind = kind
    self.placeholder = placeholder
    self.help = help
    self.standard = standard
    self.isRequired = isRequired
    self.repeats = repeats
  }

  package static func flag(_ name: String, _ help: String) -> Option {
    Option(name: name, kind: .flag, placeholder: "", help: help)
  }
  package static func text(_ name: String, _ placeholder: String, _ help: String, standard: String? = nil) -> Option {
    Option(name: name, kind: .text, placeholder: placeholder, help: help, standard: standard)
  }
  package static func integer(
    _ name: String, _ help: String, in range: ClosedRange<Int>, standard: Int? = nil, placeholder: String = "N"
  ) -> Option {
    Option(
      name: name, kind: .integer(range), placeholder: placeholder, help: help, standard: standard.map(String.init))
  }
  package static func number(
    _ name: String, _ help: String, in range: ClosedRange<Double>, standard: Double? = nil, placeholder: String = "X"
  ) -> Option {
    Option(name: name, kind: .number(range), placeholder: placeholder, help: help, standard: standard.map(numberText))
  }
  package var required: Option {
    var copy = self
    copy.isRequired = true
    return copy
  }
  package var repeated: Option {
    var copy = self
    copy.repeats = true
    return copy
  }

  private static func numberText(_ value: Double) -> String {
    Int(exactly: value).map(String.init) ?? "\(value)"
  }
}

/// A word without dashes.
package struct Argument: Sendable {
  package var name: String
  package var help: String
  package var isRequired = true
  /// The last one of a command may be given several times.
  package var repeats = false

  package init(name: String, help: String, isRequired: Bool = true, repeats: Bool = false) {
    self.name = name
    self.help = help
    self.isRequired = isRequired
    self.repeats = repeats
  }
}

extension Option {
  package static let json = flag("json", "print JSON on standard output; people's text goes to standard error")
  package static let help = flag("help", "show this")
  package static let config = text(
    "config", "FILE", "JSON object with values for these options; what is typed here wins")
  /// What every leaf command understands besides its own.
  package static let common = [json, config, help]
}

extension Command {
  /// The command's own options and the common ones it does not define itself.
  package var allOptions: [Option] {
    options + Option.common.filter { common in !options.contains { $0.name == common.name } }
  }

  /// The help text.
  /// - Parameter path: the words that lead here, the program's name first.
  package func helpText(path: [String]) -> String {
    let line = path.joined(separator: " ")
    var text = "\(summary).\n\nusage: \(line)"
    if !commands.isEmpty {
      text += " COMMAND …\n\n"
      text += Self.columns(commands.filter { !$0.isHidden }.map { ($0.name, $0.summary) })
    } else {
      for argument in arguments {
        let name = argument.repeats ? argument.name + "…" : argument.name
        text += argument.isRequired ? " \(name)" : " [\(name)]"
      }
      for option in options where option.isRequired { text += " --\(option.name) \(option.placeholder)" }
      text += " [options]\n\n"
      var rows = arguments.map { ($0.name, $0.help) }
      rows += allOptions.map { option in
        var help = option.help
        if let standard = option.standard { help += " (default \(standard))" }
        if option.isRequired { help += " (required)" }
        if option.repeats { help += " (may be repeated)" }
        return (option.kind == .flag ? "--\(option.name)" : "--\(option.name) \(option.placeholder)", help)
      }
      text += Self.columns(rows)
    }
    if !discussion.isEmpty { text += "\n\(discussion)\n" }
    return text + "\nexample: \(example)\n"
  }

  private static func columns(_ rows: [(String, String)]) -> String {
    let width = rows.map(\.0.count).max() ?? 0
    return rows.map { "  \($0.0)\(String(repeating: " ", count: width - $0.0.count))  \($0.1)\n" }.joined()
  }
}
