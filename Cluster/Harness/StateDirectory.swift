import Foundation

#if canImport(Glibc)
  import Glibc
#endif

// Where a local cluster keeps what other commands need to find it:
//
//   STATE/lock            held (flock) by the supervisor while it lives: the truth about "is one up?"
//   STATE/cluster.json    who runs: pids with start times, addresses, shards, logs; replaced atomically
//   STATE/control.sock    where kill, restart, down … are asked for
//   STATE/agreed/         what the coordinator keeps of rollouts
//   STATE/cache/w1 …      bundles that it fetched
//   STATE/certs/          its CA and certificates, if it speaks TLS
//   STATE/w1.json …       the configuration each process was started with
//   STATE/logs/w1.log …   what each process printed

/// What `cluster.json` says.
public struct ClusterState: Codable, Sendable, Equatable {
  public enum Role: String, Codable, Sendable { case coordinator, worker }
  public struct Member: Codable, Sendable, Equatable {
    public var name: String
    public var role: Role
    public var process: ProcessIdentity?
    public var url: String
    /// A coordinator's admin address.
    public var admin: String?
    /// The shards it was started with; none for one that joins.
    public var shards: [Int]
    public var config: String
    public var log: String
    /// How often it has been started.
    public var starts: Int
    /// How its last process ended, when it has.
    public var ended: String?

    /// `running`, `frozen`, or how it ended, as the system sees it now.
    public var condition: String {
      guard let process, ended == nil else { return ended.map { "dead (\($0))" } ?? "not started" }
      return process.isAlive ? (process.isFrozen ? "frozen" : "running") : "dead"
    }
  }
  public var format = 1
  public var supervisor: ProcessIdentity
  public var url: String
  public var store: String
  public var model: String
  public var version: String
  public var shardCount: Int
  public var replicas: Int
  public var members: [Member]
}

/// A cluster's state directory.
public struct StateDirectory: Sendable, Equatable {
  public let path: String
  public init(path: String) {
    self.path = URL(fileURLWithPath: path).standardizedFileURL.path
  }

  /// The well-known directory of this user: `$XDG_RUNTIME_DIR/shortlist`, else `shortlist-UID` in the temporary
  /// directory.
  public static var standard: StateDirectory {
    let environment = ProcessInfo.processInfo.environment
    if let runtime = environment["XDG_RUNTIME_DIR"], !runtime.isEmpty,
      FileManager.default.isWritableFile(atPath: runtime)
    {
      return StateDirectory(path: runtime + "/shortlist")
    }
    return StateDirectory(path: "\(environment["TMPDIR"] ?? "/tmp")/shortlist-\(getuid())")
  }

  /// A new directory of its own in the temporary directory.
  public static func temporary() throws(HarnessError) -> StateDirectory {
    let parent = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    var template = Array("\(parent)/shortlist-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else {
      throw HarnessError("cannot make a temporary directory in \(parent): \(systemMessage(errno))")
    }
    return StateDirectory(path: String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
  }

  public var stateFile: String { path + "/cluster.json" }
  var lockFile: String { path + "/lock" }
  var logs: String { path + "/logs" }
  public var agreed: String { path + "/agreed" }
  public var certificates: CertificateDirectory { CertificateDirectory(path: path + "/certs") }
  func cache(of name: String) -> String { "\(path)/cache/\(name)" }
  func config(of name: String) -> String { "\(path)/\(name).json" }
  func log(of name: String) -> String { "\(logs)/\(name).log" }

  /// Makes it (private to this user) and takes its lock. Refuses one that another cluster holds, or another user owns.
  func acquire() throws(HarnessError) -> StateLock {
    do {
      try FileManager.default.createDirectory(
        atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    } catch {
      throw HarnessError("cannot make the state directory \(path): \(describe(error))")
    }
    var info = stat()
    guard lstat(path, &info) == 0, info.st_mode & S_IFMT == S_IFDIR, info.st_uid == getuid() else {
      throw HarnessError("the state directory \(path) is not a directory of this user's; give another with --state")
    }
    let lock = try StateLock(path: lockFile)
    guard let lock else {
      let holder = (try? read()).map { " (pid \($0.supervisor.pid), \($0.url))" } ?? ""
      throw HarnessError(
        "a cluster is already up in \(path)\(holder): stop it with `shortlist cluster down`, or give another --state")
    }
    removeFiles(keepingLogs: false)
    do {
      try FileManager.default.createDirectory(atPath: logs, withIntermediateDirectories: true)
    } catch {
      throw HarnessError("cannot make \(logs): \(describe(error))")
    }
    return lock
  }

  /// Whether a supervisor holds it.
  public var isHeld: Bool {
    let file = open(lockFile, O_RDWR | O_CLOEXEC)
    guard file >= 0 else { return false }
    defer { close(file) }
    return flock(file, LOCK_EX | LOCK_NB) != 0
  }

  /// The cluster that is up here; an error that says what to do when there is none.
  public func read() throws(HarnessError) -> ClusterState {
    guard let data = FileManager.default.contents(atPath: stateFile) else {
      throw HarnessError("no cluster is up in \(path): start one with `shortlist cluster up`, or name its --state")
    }
    do {
      let state = try JSONDecoder().decode(ClusterState.self, from: data)
      for member in state.members {
        for url in [member.url, member.admin ?? ""] { trust(url) }
      }
      return state
    } catch {
      throw HarnessError("\(stateFile) is not a cluster's state: remove it and start the cluster again")
    }
  }

  /// Has a member of this cluster asked as its operator.
  func trust(_ url: String) {
    guard let server = try? ServerURL(url), server.isSecure else { return }
    TLSTrust.set(certificates.files(of: Self.operatorName), for: server.authority)
  }
  static let operatorName = "operator"
  static let publicName = "public"

  /// Removes our own files, and the directory when nothing else is in it.
  func removeFiles(keepingLogs: Bool) {
    let manager = FileManager.default
    let names = (try? manager.contentsOfDirectory(atPath: path)) ?? []
    for name in names where name.hasSuffix(".json") || ["control.sock", "agreed", "cache", "certs"].contains(name) {
      try? manager.removeItem(atPath: "\(path)/\(name)")
    }
    if !keepingLogs { try? manager.removeItem(atPath: logs) }
  }
}

/// The lock file, held until this goes. The kernel lets go of it when the process dies, however it dies.
final class StateLock: Sendable {
  private let file: Int32

  /// `nil` when somebody else holds it.
  init?(path: String) throws(HarnessError) {
    file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw HarnessError("cannot write \(path): \(systemMessage(errno))") }
    guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
      close(file)
      return nil
    }
  }
  deinit { close(file) }

  /// Removes the lock file, and the directory if it is empty now.
  func remove(from directory: StateDirectory) {
    unlink(directory.lockFile)
    rmdir(directory.path)
  }
}
