import Bundles
import Foundation

/// Finds the command that the words name, runs it, and turns how it ended into an exit code.
package enum Program {
  package static func run(_ root: Command, words: [String]) -> Int32 {
    var command = root
    var path = [root.name]
    var rest = words[...]
    do {
      while !command.commands.isEmpty {
        guard let word = rest.popFirst() else {
          Console.warn(command.helpText(path: path))
          return 2
        }
        if ["--help", "-h", "help"].contains(word) {
          // `shortlist help cluster up` is `shortlist cluster up --help`.
          if word == "help", let next = rest.first, command.commands.contains(where: { $0.name == next }) {
            return run(root, words: path.dropFirst() + rest + ["--help"])
          }
          Console.print(command.helpText(path: path))
          return 0
        }
        if word.hasPrefix("--"), let standard = command.commands.first(where: { $0.name == command.standardCommand }) {
          rest = [word] + rest
          command = standard
          break
        }
        guard let next = command.commands.first(where: { $0.name == word }) else {
          let names = command.commands.filter { !$0.isHidden }.map(\.name)
          let what = word.hasPrefix("-") ? "option" : "command"
          let hint =
            nearest(to: word, in: names).map { "did you mean \((path + [$0]).joined(separator: " "))?" }
            ?? "it is one of \(names.joined(separator: ", "))"
          throw UsageError("unknown \(what) \"\(word)\"; \(hint)")
        }
        path.append(word)
        command = next
      }
      let invocation = try Invocation(command, words: Array(rest), path: path)
      if invocation.flag("help") {
        Console.print(command.helpText(path: path))
        return 0
      }
      guard let run = command.run else { preconditionFailure("\(command.name) neither runs nor groups") }
      if command.signals == .end { Signals.endProcess() }
      defer { Console.live("") }
      return try run(invocation)
    } catch let error as UsageError {
      return fail(path, "\(error)", 2)
    } catch {
      return fail(path, "\(error)", 1)
    }
  }

  private static func fail(_ path: [String], _ text: String, _ code: Int32) -> Int32 {
    TemporaryPaths.removeAll()
    Console.warn("\(path.joined(separator: " ")): \(text)")
    return code
  }
}
