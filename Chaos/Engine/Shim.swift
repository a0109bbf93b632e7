import ClusterHarness
import Foundation
import Terminal

#if canImport(Glibc)
  import Glibc
#endif

// The engine's side of Chaos/Shim: the library is compiled once a run, and each process has a page of its own in which
// it is told what to believe.

/// The preloaded library.
struct ShimLibrary: Sendable {
  let path: String

  /// Compiles it.
  /// - Throws: `CommandError` when there is no C compiler; the Swift toolchain brings one, `clang`.
  init(source: String, in directory: String) throws {
    path = directory + "/chaos-shim.so"
    let compiler = try Tool.find(["clang", "cc", "gcc"])
    try Tool.run([compiler, "-O2", "-shared", "-fPIC", "-o", path, source, "-ldl"])
  }
}

/// What one process believes of time and disks.
final class ShimOrders: Sendable {
  let environment: [String: String]
  private let file: Int32

  /// - Parameter disk: the directory whose disk can be made odd.
  init(_ library: ShimLibrary, page: String, disk: String) throws {
    environment = ["LD_PRELOAD": library.path, "CHAOS_SHIM": page, "CHAOS_SHIM_DIRECTORY": disk]
    file = open(page, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard file >= 0, ftruncate(file, 4096) == 0 else {
      throw CommandError("cannot write \(page): \(String(cString: strerror(errno)))")
    }
  }
  deinit { close(file) }

  func wallClock(ahead seconds: Double) { put(Int64(seconds * 1e9), at: 0) }
  /// Time is counted by the wall clock.
  func countsByWallClock(_ yes: Bool) { put(Int32(yes ? 1 : 0), at: 8) }
  func syncFails(_ error: Int32) { put(error, at: 12) }
  func syncTakes(_ milliseconds: Double) { put(Int32(milliseconds), at: 16) }
  /// Nothing is written, and the disk says so (ENOSPC), or lies.
  func diskFails(lies: Bool) {
    put(lies ? 0 : ENOSPC, at: 20)
    put(Int32(lies ? 1 : 0), at: 24)
  }
  func diskIsWell() {
    put(Int32(0), at: 20)
    put(Int32(0), at: 24)
  }

  private func put(_ value: some FixedWidthInteger, at offset: off_t) {
    var value = value.littleEndian
    withUnsafeBytes(of: &value) { _ = pwrite(file, $0.baseAddress, $0.count, offset) }
  }
}

/// Programs that the engine needs of the machine.
enum Tool {
  static func find(_ names: [String]) throws -> String {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
    let folders = path.split(separator: ":").map(String.init) + ["/usr/sbin", "/sbin"]
    for name in names {
      for folder in folders where FileManager.default.isExecutableFile(atPath: "\(folder)/\(name)") {
        return "\(folder)/\(name)"
      }
    }
    throw CommandError("\(names[0]) is not on the PATH")
  }

  /// Runs a program to its end. (Not by Foundation's Process: that needs a network, which a new namespace has not.)
  /// - Throws: `CommandError` with what it said when it does not end with 0, or not within half a minute.
  @discardableResult
  static func run(_ words: [String]) throws -> String {
    let log = "\(FileManager.default.temporaryDirectory.path)/chaos-tool-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: log) }
    let program = words[0].hasPrefix("/") ? words[0] : try find([words[0]])
    let process = try ChildProcess(
      name: words[0], executable: program, arguments: Array(words.dropFirst()), logPath: log)
    let exit = process.waitForExit(limit: .seconds(30))
    let text = process.log().trimmingCharacters(in: .whitespacesAndNewlines)
    guard exit == .code(0) else {
      throw CommandError("\(words.joined(separator: " ")): \(exit?.description ?? "does not end"): \(text)")
    }
    return text
  }
}
