import Foundation

/// What a process takes of the machine just now, from `/proc`.
public struct ProcessUsage: Sendable, Equatable {
  public var files: Int
  public var threads: Int
  public var residentBytes: Int
  /// Of them, what is of no file: what it would not find on a disk again.
  public var anonymousBytes: Int
  /// User and system time so far.
  public var processor: Duration

  /// `nil` when there is no such process.
  public init?(pid: Int32) {
    let manager = FileManager.default
    guard let names = try? manager.contentsOfDirectory(atPath: "/proc/\(pid)/fd"),
      let status = manager.contents(atPath: "/proc/\(pid)/status"),
      let stat = manager.contents(atPath: "/proc/\(pid)/stat")
    else { return nil }
    files = names.count
    var figures: [Substring: Int] = [:]
    for line in String(decoding: status, as: UTF8.self).split(separator: "\n") {
      let parts = line.split(whereSeparator: { $0 == ":" || $0 == "\t" || $0 == " " })
      if parts.count >= 2, let number = Int(parts[1]) { figures[parts[0]] = number }
    }
    threads = figures["Threads"] ?? 0
    residentBytes = (figures["VmRSS"] ?? 0) << 10
    anonymousBytes = (figures["RssAnon"] ?? 0) << 10
    let text = String(decoding: stat, as: UTF8.self)
    let fields = text[(text.lastIndex(of: ")") ?? text.startIndex)...].split(separator: " ")
    let ticks = fields.count > 13 ? (Int(fields[12]) ?? 0) + (Int(fields[13]) ?? 0) : 0
    processor = .milliseconds(ticks * 1000 / max(1, sysconf(Int32(_SC_CLK_TCK))))
  }
}
