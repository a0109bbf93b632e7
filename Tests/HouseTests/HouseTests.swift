import Foundation
import Testing

/// The rules of the house, on the project as it is, and each on a violation planted to see it caught.
@Suite struct HouseTests {
  let files: [SourceFile]
  init() throws { files = try SourceTree.files() }

  func none(_ violations: [Violation], _ location: SourceLocation = #_sourceLocation) {
    let text = violations.map(\.description).joined(separator: "\n")
    #expect(violations.isEmpty, "\(text)", sourceLocation: location)
  }

  @Test func theProjectIsFound() {
    #expect(files.contains { $0.path == "Sources/RankingCore/Identifiers.swift" })
    #expect(files.contains { $0.path == "Tests/run" })
    #expect(files.contains { $0.path == "Cluster/Spawn/spawn.c" })
  }

  @Test func importsPointDown() { none(ImportRule.violations(in: files)) }
  @Test func pureCodeAsksNothingOfTheWorld() { none(TextRules.impurity(in: files)) }
  @Test func testsDoNotSleep() { none(TextRules.sleeping(in: files)) }
  @Test func testsUseNoFixedPorts() { none(TextRules.fixedPorts(in: files)) }
  @Test func linesAreShort() { none(TextRules.longLines(in: files)) }
  @Test func filesAreShort() { none(TextRules.longFiles(in: files)) }
  @Test func theTopLevelIsTheHouse() throws {
    none(TextRules.strangers(atTopLevel: try FileManager.default.contentsOfDirectory(atPath: SourceTree.root)))
  }

  @Test func theTableItselfPointsDown() {
    let names = ImportRule.house.map(\.name)
    for (index, target) in ImportRule.house.enumerated() {
      for module in target.imports {
        let place = names.firstIndex(of: module)
        #expect(place.map { $0 < index } ?? false, "\(target.name) imports \(module), which does not stand above it")
      }
      if target.kind == .pure {
        let impure = target.imports.filter { module in
          ImportRule.house.contains { $0.name == module && $0.kind != .pure }
        }
        #expect(impure.isEmpty, "\(target.name) is pure and imports \(impure)")
      }
    }
  }

  // MARK: the rules themselves

  func planted(_ text: String, at path: String = "Sources/Routing/Planted.swift") -> [SourceFile] {
    [SourceFile(path: path, text: text)]
  }

  @Test(arguments: [
    "import Foundation", "import Nodes", "  import Glibc", "@preconcurrency import Dispatch", "public import Servers",
    "import struct Foundation.Date", "@_exported import CLinux", "import class Synchronization.Mutex",
  ])
  func anImportUpwardsIsCaught(line: String) {
    let found = ImportRule.violations(in: planted("import RankingCore\n\(line)\n"))
    #expect(found.map(\.line) == [2])
  }

  @Test func importsDownwardsAndWordsInCommentsAreNot() {
    let text = "import RankingCore\nimport Membership\n// import Foundation\nlet important = 1\n"
    #expect(ImportRule.violations(in: planted(text)).isEmpty)
    #expect(ImportRule.violations(in: planted("import Foundation", at: "Cluster/Harness/A.swift")).isEmpty)
  }

  @Test func aFileOutsideTheHouseIsCaught() {
    #expect(ImportRule.violations(in: planted("", at: "Sources/Helpers/A.swift")).count == 1)
  }

  @Test(arguments: [
    "let now = ContinuousClock.now", "let x = list.shuffled()", "let x = Int.random(in: 0..<3)", "hash.hashValue",
    "var hasher = Hasher()", "Task { }", "await reply()", "func f() async {}", "print(1)",
    "let x = list.randomElement()", "var g = SystemRandomNumberGenerator()", "Thread { }",
  ])
  func impureCodeIsCaught(line: String) {
    #expect(!TextRules.impurity(in: planted("let a = 1\n\(line)\n")).isEmpty)
    #expect(TextRules.impurity(in: planted(line, at: "Sources/Transport/Planted.swift")).isEmpty)
  }

  @Test func pureCodeIsNot() {
    let text = """
      // print(1), await
      let text = "await \\" Task {"
      let x = Int.random(in: 0..<3, using: &generator)
      func hash(into hasher: inout Hasher) { hasher.combine(1) }
      let printable = sprint(1) + node.print(2)
      """
    #expect(TextRules.impurity(in: planted(text)) == [])
  }

  @Test(arguments: [
    "try await Task.sleep(for: .seconds(1))", "usleep(5)", "sleep(1)", "Thread.sleep(forTimeInterval: 1)",
  ])
  func aSleepIsCaught(line: String) {
    #expect(!TextRules.sleeping(in: planted(line, at: "Tests/WireTests/Planted.swift")).isEmpty)
  }

  @Test(arguments: ["connect(\"127.0.0.1:8080\")", "let url = \"http://localhost:99/\"", "listen(port: 9001)"])
  func aFixedPortIsCaught(line: String) {
    #expect(TextRules.fixedPorts(in: planted(line, at: "Tests/WireTests/Planted.swift")).count == 1)
    #expect(TextRules.fixedPorts(in: planted("listen(port: 0)", at: "Tests/WireTests/Planted.swift")).isEmpty)
  }

  @Test func lengthsAreCaught() {
    let limit = String(repeating: "x", count: 120)
    #expect(TextRules.longLines(in: planted("\(limit)\n\(limit)x\n")).map(\.line) == [2])
    #expect(TextRules.longFiles(in: planted(String(repeating: "\n", count: 600))).isEmpty)
    #expect(TextRules.longFiles(in: planted(String(repeating: "\n", count: 601))).count == 1)
  }

  @Test func aStrangerAtTheTopIsCaught() {
    let found = TextRules.strangers(atTopLevel: ["Sources", ".ci", "scripts", "Makefile"])
    #expect(found.map(\.path) == ["Makefile", "scripts"])
  }
}
