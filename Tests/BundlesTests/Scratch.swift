import Bundles
import Foundation
import Testing

/// A directory of a test's own, gone when the test is.
final class Scratch {
  let path: String

  init() {
    path = NSTemporaryDirectory() + "shortlist-bundles-" + UUID().uuidString
    do {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    } catch {
      Issue.record("no scratch directory: \(error)")
    }
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String, _ text: String) throws -> String { try file(name, Array(text.utf8)) }

  func file(_ name: String, _ bytes: [UInt8]) throws -> String {
    let file = path + "/" + name
    try Data(bytes).write(to: URL(fileURLWithPath: file))
    return file
  }

  func bytes(_ name: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(fileURLWithPath: path + "/" + name))) }

  /// Names of what lies in it, sorted; hidden ones too.
  func names(_ directory: String = "") throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: path + "/" + directory).sorted()
  }
}

/// The message of the error that `body` throws; records an issue when it throws none.
func message(_ location: SourceLocation = #_sourceLocation, _ body: () throws -> Void) -> String {
  do {
    try body()
    Issue.record("no error was thrown", sourceLocation: location)
    return ""
  } catch {
    return "\(error)"
  }
}
