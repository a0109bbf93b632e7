import Foundation
import Testing

@testable import ClusterLoad
@testable import Commands
@testable import Terminal

/// Words in, values or one line of complaint out.
@Suite struct CommandLineTests {
  static let sample = Command(
    name: "bake", summary: "Bake", example: "shop bake --flour 500 rye",
    options: [
      .integer("flour", "grams", in: 1...9999).required,
      .number("salt", "share", in: 0...1, standard: 0.02),
      .text("oven", "NAME", "which"),
      .text("topping", "NAME", "what goes on it").repeated,
      Option(name: "time", kind: .duration, placeholder: "TIME", help: "how long", standard: "40m"),
      Option(name: "racks", kind: .integers(0...9), placeholder: "N,…", help: "where"),
    ],
    arguments: [Argument(name: "KIND", help: "which bread")])

  func parse(_ line: String) throws -> Invocation {
    try Invocation(Self.sample, words: line.split(separator: " ").map(String.init), path: ["shop", "bake"])
  }
  func complaint(_ line: String) -> String? {
    do {
      _ = try parse(line)
      return nil
    } catch { return "\(error)" }
  }

  @Test func valuesAndDefaults() throws {
    let given = try parse("rye --flour 500 --oven=big --topping seeds --topping oats --racks 1,3 --json")
    #expect(given.integer("flour") == 500)
    #expect(given.number("salt") == 0.02)
    #expect(given.optional("oven") == "big")
    #expect(given.texts("topping") == ["seeds", "oats"])
    #expect(given.duration("time") == .seconds(2400))
    #expect(given.integers("racks") == [1, 3])
    #expect(given.arguments == ["rye"])
    #expect(given.json)
    #expect(try parse("--flour 1 -- --odd").arguments == ["--odd"])
  }

  @Test(arguments: [
    ("rye --flouor 5", "unknown option --flouor; did you mean --flour?"),
    ("rye --qqqqqq 5", "unknown option --qqqqqq; see shop bake --help"),
    ("rye", "--flour N is missing, for example: shop bake --flour 500 rye"),
    ("--flour 5", "KIND is missing, for example: shop bake --flour 500 rye"),
    ("rye --flour", "--flour needs a value: --flour N"),
    ("rye --flour 0", "--flour is \"0\"; it must be a whole number in 1...9999"),
    ("rye --flour 5 --flour 6", "--flour is given twice"),
    ("rye --flour 5 --salt nan", "--salt is \"nan\"; it must be a number in 0.0...1.0"),
    ("rye --flour 5 --time soon", "--time is \"soon\"; it must be a time like 30s, 500ms or 2m"),
    ("rye --flour 5 --racks 1,,2", "--racks is \"1,,2\"; it must be whole numbers in 0...9 with commas between"),
    ("rye --flour 5 --json=yes", "--json takes no value"),
    ("rye wheat --flour 5", "unexpected \"wheat\"; see shop bake --help"),
    ("rye --flour 5 -x", "unknown option -x; see shop bake --help"),
  ])
  func complaints(line: String, expected: String) {
    #expect(complaint(line) == expected)
  }

  @Test func aFilesValuesYieldToFlags() throws {
    let file = NSTemporaryDirectory() + "shortlist-command-\(UUID()).json"
    defer { try? FileManager.default.removeItem(atPath: file) }
    func write(_ text: String) throws { try text.write(toFile: file, atomically: true, encoding: .utf8) }
    try write(#"{"flour": 300, "salt": 0.5, "racks": [1, 2], "topping": ["a", "b"], "json": true}"#)
    let given = try parse("rye --config \(file) --flour 500")
    #expect(given.integer("flour") == 500)
    #expect(given.number("salt") == 0.5)
    #expect(given.integers("racks") == [1, 2])
    #expect(given.texts("topping") == ["a", "b"])
    #expect(given.json)
    try write(#"{"flour": 300, "slat": 0.5}"#)
    #expect(complaint("rye --config \(file)") == "\(file): unknown option \"slat\"; did you mean \"salt\"?")
    try write(#"{"flour": true}"#)
    #expect(
      complaint("rye --config \(file)") == "\(file): --flour is \"true\"; it must be a whole number in 1...9999")
    try write("[1]")
    #expect(complaint("rye --config \(file)") == "\(file) is not a JSON object of options, like {\"workers\": 4}")
  }

  @Test func nearestNames() {
    let names = ["recommend", "rank", "similar", "cluster", "coordinator"]
    #expect(nearest(to: "recomend", in: names) == "recommend")
    #expect(nearest(to: "clutser", in: names) == "cluster")
    #expect(nearest(to: "coord", in: names) == "coordinator")
    #expect(nearest(to: "zzz", in: names) == nil)
    #expect(editDistance("abcd", "acbd") == 1)
    #expect(editDistance("", "abc") == 3)
  }

  @Test func durations() {
    #expect(parseDuration("500ms") == .milliseconds(500))
    #expect(parseDuration("1.5s") == .milliseconds(1500))
    #expect(parseDuration("2m") == .seconds(120))
    #expect(parseDuration("10") == .seconds(10))
    for wrong in ["", "0s", "-1s", "s", "1d", "1e9s", "9999h"] { #expect(parseDuration(wrong) == nil, "\(wrong)") }
  }

  /// The whole tree: every leaf runs, every help shows its example, and every example is one the parser accepts.
  @Test func everyCommandIsWhole() throws {
    func visit(_ command: Command, _ path: [String]) throws {
      let help = command.helpText(path: path)
      #expect(help.contains("example: \(command.example)"), "\(path)")
      #expect(help.split(separator: "\n").allSatisfy { $0.count <= 120 }, "\(path)")
      #expect(Set(command.options.map(\.name)).count == command.options.count, "\(path)")
      if command.commands.isEmpty {
        #expect(command.run != nil, "\(path)")
        let words = command.example.split(separator: " ").map(String.init)
        #expect(Array(words.prefix(path.count)) == path)
        if !command.options.contains(where: { $0.name == "config" }) {
          _ = try Invocation(command, words: Array(words.dropFirst(path.count)), path: path)
        }
      }
      for next in command.commands { try visit(next, path + [next.name]) }
    }
    try visit(.root, ["shortlist"])
  }
}
