import Foundation

/// A process that cannot be confused with a later one of the same number: the kernel reuses pids, but not together with
/// their start time.
public struct ProcessIdentity: Codable, Sendable, Equatable {
  public var pid: Int32
  /// Start time in clock ticks since boot (field 22 of `/proc/PID/stat`).
  public var started: UInt64

  public init(pid: Int32, started: UInt64) {
    self.pid = pid
    self.started = started
  }

  /// The identity of a running process, or `nil` when there is none.
  public init?(pid: Int32) {
    guard let stat = Self.stat(of: pid) else { return nil }
    self.init(pid: pid, started: stat.started)
  }

  public static var current: ProcessIdentity {
    ProcessIdentity(pid: getpid()) ?? ProcessIdentity(pid: getpid(), started: 0)
  }

  /// The kernel's letter for what the process is doing (`R`, `S`, `T` for stopped, `Z` …), or `nil` when it is gone.
  public var state: Character? {
    guard let stat = Self.stat(of: pid), stat.started == started else { return nil }
    return stat.state
  }

  /// Whether it runs (stopped counts, dead but not yet reaped does not).
  public var isAlive: Bool { state.map { $0 != "Z" && $0 != "X" } ?? false }
  public var isFrozen: Bool { state == "T" }

  private static func stat(of pid: Int32) -> (state: Character, started: UInt64)? {
    guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/stat") else { return nil }
    let text = String(decoding: data, as: UTF8.self)
    // The second field is the command in parentheses and may hold anything, so count from the last parenthesis.
    guard let close = text.lastIndex(of: ")") else { return nil }
    let fields = text[text.index(after: close)...].split(separator: " ")
    guard fields.count > 19, let state = fields[0].first, let started = UInt64(fields[19]) else { return nil }
    return (state, started)
  }
}
