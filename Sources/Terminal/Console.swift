import Bundles
import Foundation
import Synchronization

#if canImport(Glibc)
  import Glibc
#endif

// Two streams with two meanings: standard output carries the answer (text for people, or JSON with --json), standard
// error carries everything else. A live line is drawn on a terminal and erased before anything else is written there.

/// The process's output.
package enum Console {
  private static let liveLine = Mutex("")
  package static let errorIsTerminal = isatty(STDERR_FILENO) == 1
  package static let outputIsTerminal = isatty(STDOUT_FILENO) == 1

  /// A line on standard output, written at once: a reader may be waiting for it.
  package static func print(_ line: String) {
    write(Array((line + "\n").utf8))
  }

  /// Bytes on standard output. When nobody reads them any more the process ends as if by SIGPIPE.
  package static func write(_ bytes: [UInt8]) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress! + sent, $0.count - sent) }
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EPIPE { end(128 + SIGPIPE) }
      guard count > 0 else {
        warn("shortlist: cannot write to standard output: \(String(cString: strerror(errno)))")
        end(1)
      }
      sent += count
    }
  }

  /// Lines for people: on standard output, or on standard error when that carries JSON.
  package static func say(_ text: String, json: Bool) {
    if json { warn(text) } else { print(text) }
  }

  /// A line on standard error.
  package static func warn(_ line: String) {
    liveLine.withLock { live in
      let erase = live.isEmpty ? "" : "\r\u{1B}[K"
      FileHandle.standardError.write(Data((erase + line + "\n" + live).utf8))
    }
  }

  /// Replaces the live line; the empty one erases it. Does nothing where standard error is not a terminal.
  package static func live(_ text: String) {
    guard errorIsTerminal else { return }
    liveLine.withLock { live in
      guard live != text else { return }
      live = text
      FileHandle.standardError.write(Data(("\r\u{1B}[K" + text).utf8))
    }
  }

  /// Prints a value as one line of JSON on standard output.
  package static func printJSON(_ value: some Encodable) throws {
    print(String(decoding: try json(value), as: UTF8.self))
  }

  /// One line of JSON. A figure without bound, such as the time of what never happened, is the text "inf".
  package static func json(_ value: some Encodable) throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    encoder.nonConformingFloatEncodingStrategy = .convertToString(
      positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    return try encoder.encode(value)
  }

  /// Ends the process with temporaries removed.
  package static func end(_ code: Int32) -> Never {
    live("")
    TemporaryPaths.removeAll()
    exit(code)
  }
}

/// Aligned columns for people: numbers to the right, the rest to the left.
package struct TextTable {
  private var rows: [[String]]
  package init(_ header: [String]) { rows = [header] }
  package mutating func add(_ row: [String]) { rows.append(row) }

  package var text: String {
    let columns = rows[0].indices
    let widths = columns.map { column in rows.map { $0[column].count }.max() ?? 0 }
    let isNumber = columns.map { column in
      rows.count > 1 && rows.dropFirst().allSatisfy { Double($0[column]) != nil }
    }
    return rows.map { row in
      let cells = columns.map { column in
        let pad = String(repeating: " ", count: widths[column] - row[column].count)
        return isNumber[column] ? pad + row[column] : row[column] + pad
      }
      var line = "  " + cells.joined(separator: "  ")
      while line.last == " " { line.removeLast() }
      return line
    }.joined(separator: "\n")
  }
}
