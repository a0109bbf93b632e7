import Foundation

/// One file of the project, or one made up to see a rule fail.
struct SourceFile {
  /// Relative to the root, like `Sources/Wire/Protobuf.swift`.
  var path: String
  var text: String
  var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }
  var isSwift: Bool { path.hasSuffix(".swift") }
}

/// What breaks a rule, where.
struct Violation: Equatable, CustomStringConvertible {
  var path: String
  var line: Int
  var reason: String
  var description: String { "\(path):\(line): \(reason)" }
}

enum SourceTree {
  static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().path

  /// The text files below some folders, data and what the build makes left out.
  static func files(in folders: [String] = ["Sources", "Tests", "Cluster", "Chaos"]) throws -> [SourceFile] {
    var files: [SourceFile] = []
    for folder in folders {
      guard let names = FileManager.default.enumerator(atPath: "\(root)/\(folder)") else { continue }
      for case let name as String in names {
        let kept = [".swift", ".c", ".h", ".proto", ".modulemap"].contains { name.hasSuffix($0) } || isScript(name)
        guard kept, !name.split(separator: "/").contains(where: { $0.hasPrefix(".") }) else { continue }
        let path = "\(folder)/\(name)"
        guard let data = FileManager.default.contents(atPath: "\(root)/\(path)") else { continue }
        files.append(SourceFile(path: path, text: String(decoding: data, as: UTF8.self)))
      }
    }
    return files.sorted { $0.path < $1.path }
  }

  private static func isScript(_ name: String) -> Bool {
    let last = name.split(separator: "/").last ?? ""
    var isFolder: ObjCBool = false
    for folder in ["Tests", "Cluster", "Chaos"]
    where FileManager.default.fileExists(atPath: "\(root)/\(folder)/\(name)", isDirectory: &isFolder) {
      return !last.contains(".") && !isFolder.boolValue
    }
    return false
  }
}
