import Foundation
import Terminal

/// A control group of this run, of version 1 or 2, whichever the machine has; needs root.
struct ControlGroup {
  enum Limit {
    /// Of one core.
    case processor(Double)
    /// Bytes.
    case memory(Int)
  }
  /// Microseconds; a share is spent once in each period.
  private static let period = 100_000
  /// The kernel takes no less than a millisecond.
  private static func quota(_ share: Double) -> Int { max(1000, Int(share * Double(period))) }
  let path: String
  /// Where those that were in it go back to.
  private let parent: String

  init(_ limit: Limit, name: String) throws {
    let root = "/sys/fs/cgroup"
    let isSecond = FileManager.default.fileExists(atPath: root + "/cgroup.controllers")
    let kind = if case .memory = limit { "memory" } else { "cpu" }
    parent = isSecond ? root : "\(root)/\(kind)"
    path = "\(parent)/shortlist-chaos-\(getpid())-\(name)"
    if isSecond { try? Self.put("+cpu +memory", in: root + "/cgroup.subtree_control") }
    do { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false) } catch {
      throw CommandError("cannot make the control group \(path): it needs root and a mounted hierarchy")
    }
    do {
      switch (limit, isSecond) {
      case (.processor(let share), true): try Self.put("\(Self.quota(share)) \(Self.period)", in: path + "/cpu.max")
      case (.processor(let share), false):
        try Self.put("\(Self.period)", in: path + "/cpu.cfs_period_us")
        try Self.put("\(Self.quota(share))", in: path + "/cpu.cfs_quota_us")
      case (.memory(let bytes), true):
        try Self.put("\(bytes)", in: path + "/memory.max")
        try? Self.put("0", in: path + "/memory.swap.max")
      case (.memory(let bytes), false):
        try Self.put("\(bytes)", in: path + "/memory.limit_in_bytes")
      }
    } catch {
      rmdir(path)
      throw error
    }
  }

  func add(_ pid: Int32) throws { try Self.put("\(pid)", in: path + "/cgroup.procs") }

  /// Its processes go back to where they came from.
  func remove() {
    let members = (try? String(contentsOfFile: path + "/cgroup.procs", encoding: .utf8)) ?? ""
    for pid in members.split(separator: "\n") { try? Self.put(String(pid), in: parent + "/cgroup.procs") }
    rmdir(path)
  }

  private static func put(_ text: String, in file: String) throws {
    guard let handle = FileHandle(forWritingAtPath: file) else { throw CommandError("cannot write \(file)") }
    defer { try? handle.close() }
    try handle.write(contentsOf: Data(text.utf8))
  }
}
