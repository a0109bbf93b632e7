// Rules that a look at the text can see. They look at code: comments and the inside of string literals do not count,
// except for ports, which stand in strings.

enum TextRules {
  static let lineLimit = 120
  static let fileLimit = 600
  static let topLevel: Set<String> = [
    "Package.swift", "Package.resolved", "Sources", "Tests", "Cluster", "Chaos", "README.md", "LICENSE", "NOTICE",
  ]

  /// What pure code never asks: the clock, chance, the order of the process's own hashing, threads, other tasks.
  static let impure = [
    "ContinuousClock", "SuspendingClock", "SystemRandomNumberGenerator", ".randomElement()", ".shuffled()",
    ".shuffle()",
    ".hashValue", "Hasher()", "Task.", "Task {", "await", "async", "Thread", "print", "debugPrint", "readLine", "fputs",
  ]
  static let sleeps = ["Task.sleep", "Thread.sleep", "sleep", "usleep", "nanosleep"]

  static func impurity(in files: [SourceFile]) -> [Violation] {
    let folders = ImportRule.house.filter { $0.kind == .pure }.map { $0.folder + "/" }
    return files.filter { file in file.isSwift && folders.contains { file.path.hasPrefix($0) } }.flatMap { file in
      find(impure, in: file) { "pure code may not use \($0): time, chance and the world come in as arguments" }
        + unseededRandom(in: file)
    }
  }

  /// `Int.random(in: 0..<9)` draws from the system; `Int.random(in: 0..<9, using: &generator)` does not.
  private static func unseededRandom(in file: SourceFile) -> [Violation] {
    code(of: file).enumerated().compactMap { index, line in
      guard line.contains(".random(in:"), !line.contains("using:") else { return nil }
      return Violation(path: file.path, line: index + 1, reason: "a random number without a generator passed in")
    }
  }

  static func sleeping(in files: [SourceFile]) -> [Violation] {
    tests(files).flatMap { file in
      find(sleeps, in: file) { "\($0): a test waits for an event, never for time to pass" }
    }
  }

  static func fixedPorts(in files: [SourceFile]) -> [Violation] {
    tests(files).flatMap { file in
      file.lines.enumerated().compactMap { index, line in
        for marker in ["127.0.0.1:", "localhost:", "[::1]:", "port: "] {
          for place in line.ranges(of: marker) {
            // Ports below 10 are nobody's: they stand for "an address" where nothing listens or connects.
            if line[place.upperBound...].prefix(while: \.isNumber).count > 1 {
              return Violation(
                path: file.path, line: index + 1, reason: "a fixed port; listen on port 0 and ask which it became")
            }
          }
        }
        return nil
      }
    }
  }

  static func longLines(in files: [SourceFile]) -> [Violation] {
    files.flatMap { file in
      file.lines.enumerated().compactMap { index, line in
        guard line.count > lineLimit else { return nil }
        return Violation(path: file.path, line: index + 1, reason: "\(line.count) characters, at most \(lineLimit)")
      }
    }
  }

  static func longFiles(in files: [SourceFile]) -> [Violation] {
    files.compactMap { file in
      let count = file.lines.count
      guard count > fileLimit + 1 else { return nil }
      return Violation(path: file.path, line: count, reason: "\(count) lines; is there a second noun in it?")
    }
  }

  static func strangers(atTopLevel names: [String]) -> [Violation] {
    names.filter { !topLevel.contains($0) && !$0.hasPrefix(".") }.sorted()
      .map { Violation(path: $0, line: 0, reason: "is not one of \(topLevel.sorted().joined(separator: ", "))") }
  }

  private static func tests(_ files: [SourceFile]) -> [SourceFile] {
    // The rules' own tests plant what the rules look for.
    files.filter { $0.isSwift && $0.path.hasPrefix("Tests/") && !$0.path.hasPrefix("Tests/HouseTests/") }
  }

  private static func find(
    _ words: [String], in file: SourceFile, reason: (String) -> String
  ) -> [Violation] {
    code(of: file).enumerated().flatMap { index, line in
      words.filter { contains($0, line) }.map { Violation(path: file.path, line: index + 1, reason: reason($0)) }
    }
  }

  /// Whether `word` stands in `line` as a word of its own; a call of something else's method of that name is not it.
  private static func contains(_ word: String, _ line: Substring) -> Bool {
    func isPart(_ character: Character) -> Bool { character.isLetter || character.isNumber || character == "_" }
    return line.ranges(of: word).contains { range in
      if let first = word.first, isPart(first), range.lowerBound > line.startIndex {
        let before = line[line.index(before: range.lowerBound)]
        if isPart(before) || before == "." { return false }
      }
      if let last = word.last, isPart(last), range.upperBound < line.endIndex {
        return !isPart(line[range.upperBound])
      }
      return true
    }
  }

  /// The lines without their comments and without what stands between quotes.
  static func code(of file: SourceFile) -> [Substring] {
    var inBlockText = false
    return file.lines.map { line in
      let fences = line.ranges(of: "\"\"\"").count
      defer { if fences % 2 == 1 { inBlockText.toggle() } }
      if inBlockText || fences > 0 { return "" }
      var result = ""
      var inText = false
      var escaped = false
      var previous: Character = " "
      for character in line {
        if inText {
          if escaped {
            escaped = false
          } else if character == "\\" {
            escaped = true
          } else if character == "\"" {
            inText = false
          }
          continue
        }
        if character == "\"" { inText = true; continue }
        if character == "/", previous == "/" {
          result.removeLast()
          break
        }
        result.append(character)
        previous = character
      }
      return Substring(result)
    }
  }
}
