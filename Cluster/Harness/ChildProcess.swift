import CSpawn
import Foundation
import Synchronization

// One local process of ours, from start to reaped.
//
//   spawn ──► running ⇄ frozen ──► ended (exit code or signal)
//
// Everything goes through a pidfd: a signal can never reach a stranger that got the same number, and waiting is a
// poll() with a limit. The child dies with this process even after kill -9 (see Cluster/Spawn), and is killed and
// reaped when the last reference goes.

/// A child process with a log file of its own.
public final class ChildProcess: Sendable {
  public enum Exit: Sendable, Equatable, CustomStringConvertible {
    case code(Int32)
    case signal(Int32)
    public var description: String {
      switch self {
      case .code(let code): "exit code \(code)"
      case .signal(let number): "signal \(number)"
      }
    }
  }

  public let name: String
  public let identity: ProcessIdentity
  /// Everything it printed, after what earlier processes of this name printed.
  public let logPath: String
  public var pid: Int32 { identity.pid }
  private let pidfd: Int32
  private let logStart: UInt64
  private let end = Mutex<Exit?>(nil)

  /// Starts a process.
  /// - Parameters:
  ///   - executable: a path, not searched for.
  ///   - environment: the whole environment of the child; `nil` = this process's.
  ///   - logPath: created when missing; output and errors are appended.
  public init(
    name: String, executable: String, arguments: [String], environment: [String: String]? = nil, logPath: String
  ) throws(HarnessError) {
    let log = open(logPath, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
    guard log >= 0 else {
      throw HarnessError("\(name): cannot write its log \(logPath): \(systemMessage(errno))")
    }
    defer { close(log) }
    let start = lseek(log, 0, SEEK_END)
    let variables = (environment ?? ProcessInfo.processInfo.environment).map { "\($0.key)=\($0.value)" }
    let command = [executable] + arguments
    let result = Spawner.shared.run { () -> (failure: Int32, pid: Int32, pidfd: Int32) in
      var pid: pid_t = 0
      var pidfd: Int32 = -1
      let failure = withCStrings(command) { argv in
        withCStrings(variables) { envp in cspawn_start(executable, argv, envp, log, &pid, &pidfd) }
      }
      return (failure, pid, pidfd)
    }
    guard result.failure == 0 else {
      throw HarnessError("\(name): cannot start \(executable): \(systemMessage(result.failure))")
    }
    self.name = name
    self.logPath = logPath
    self.logStart = UInt64(max(0, start))
    self.pidfd = result.pidfd
    // It is not reaped before we say so: its number cannot have been reused yet.
    self.identity = ProcessIdentity(pid: result.pid) ?? ProcessIdentity(pid: result.pid, started: 0)
  }

  deinit {
    if exit == nil {
      _ = cspawn_signal(pidfd, SIGKILL)
      _ = waitForExit(limit: .seconds(5))
    }
    close(pidfd)
  }

  /// How it ended, or `nil` while it runs. Reaps it.
  public var exit: Exit? {
    end.withLock { end in
      if end != nil { return end }
      var exited: Int32 = 0
      var status: Int32 = 0
      if cspawn_reap(pidfd, &exited, &status) == 1 { end = exited == 1 ? .code(status) : .signal(status) }
      return end
    }
  }
  public var isRunning: Bool { exit == nil }
  public var isFrozen: Bool { isRunning && identity.isFrozen }

  /// SIGKILL, and waits until it is gone.
  public func kill() {
    send(SIGKILL)
    _ = waitForExit(limit: .seconds(10))
  }
  /// SIGSTOP: it keeps its sockets, and answers nothing.
  public func reload() { send(SIGHUP) }
  public func freeze() { send(SIGSTOP) }
  public func thaw() { send(SIGCONT) }
  /// SIGTERM; a frozen process is thawed so that it can obey.
  public func terminate() {
    send(SIGTERM)
    send(SIGCONT)
  }
  /// SIGTERM, and SIGKILL when it has not ended after `grace`.
  @discardableResult
  public func stop(grace: Duration = .seconds(12)) -> Exit? {
    terminate()
    if let exit = waitForExit(limit: grace) { return exit }
    kill()
    return exit
  }
  public func send(_ signal: Int32) {
    // After it ended this is ESRCH, which is what the caller wanted.
    if exit == nil { _ = cspawn_signal(pidfd, signal) }
  }

  /// Waits until it has ended; `nil` when it still runs after `limit`.
  public func waitForExit(limit: Duration) -> Exit? {
    let deadline = ContinuousClock.now + limit
    while true {
      if let exit { return exit }
      let left = ContinuousClock.now.duration(to: deadline)
      if left <= .zero { return nil }
      waitBriefly(atMost: left)
    }
  }

  /// Waits for a line of its log (written since this process started) for which `match` returns a value.
  /// - Parameter cancelled: asked every few milliseconds; true ends the wait with an error.
  public func waitForLine<Value>(
    limit: Duration, what: String, cancelled: () -> Bool = { false }, match: (Substring) -> Value?
  ) throws(HarnessError) -> Value {
    let deadline = ContinuousClock.now + limit
    while true {
      let ended = exit
      // Asked before the log is read, so that what a dying process wrote last is still seen.
      for line in log().split(separator: "\n") { if let value = match(line) { return value } }
      if let ended {
        throw HarnessError("\(name) ended (\(ended)) before it was \(what)", logTail: logTail())
      }
      if cancelled() { throw HarnessError("interrupted") }
      let left = ContinuousClock.now.duration(to: deadline)
      if left <= .zero {
        throw HarnessError("\(name) was not \(what) after \(limit)", logTail: logTail())
      }
      waitBriefly(atMost: min(left, .milliseconds(5)))
    }
  }

  /// The URL of its `ready URL` line.
  public func waitUntilReady(
    limit: Duration, cancelled: () -> Bool = { false }
  ) throws(HarnessError) -> String {
    try waitForLine(limit: limit, what: "ready", cancelled: cancelled) { line in
      line.hasPrefix("ready http") ? String(line.dropFirst("ready ".count)) : nil
    }
  }

  /// What it has printed so far, whole lines only, up to the last MiB.
  public func log() -> String {
    guard let file = FileHandle(forReadingAtPath: logPath) else { return "" }
    defer { try? file.close() }
    let size = (try? file.seekToEnd()) ?? 0
    let bound: UInt64 = 1 << 20
    try? file.seek(toOffset: max(logStart, size > bound ? size - bound : 0))
    let bytes = (try? file.readToEnd()) ?? Data()
    guard let end = bytes.lastIndex(of: UInt8(ascii: "\n")) else { return "" }
    return String(decoding: bytes[...end], as: UTF8.self)
  }

  /// The last lines of its log, each marked with its name.
  public func logTail(lines: Int = 20) -> String {
    log().split(separator: "\n").suffix(lines).map { "  \(name)| \($0)" }.joined(separator: "\n")
  }

  /// Sleeps until it ends, at most for `limit`.
  private func waitBriefly(atMost limit: Duration) {
    var watched = pollfd(fd: pidfd, events: Int16(POLLIN), revents: 0)
    let (seconds, attoseconds) = limit.components
    let milliseconds = min(1000, seconds * 1000 + attoseconds / 1_000_000_000_000_000)
    _ = poll(&watched, 1, Int32(max(1, milliseconds)))
  }
}

/// The text of an `errno`.
func systemMessage(_ code: Int32) -> String { String(cString: strerror(code)) }

/// Calls `body` with a NULL-terminated array of C strings.
private func withCStrings<Result>(
  _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
  var pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) } + [nil]
  defer { for pointer in pointers { free(pointer) } }
  return pointers.withUnsafeMutableBufferPointer { body(UnsafePointer($0.baseAddress.unsafelyUnwrapped)) }
}
