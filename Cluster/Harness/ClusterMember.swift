import Foundation
import Synchronization

/// Where and how one member runs, where that is not simply on this machine.
public struct MemberGround: Sendable {
  /// Its address; anything but loopback is in a network namespace, which `prefix` enters.
  public var host = "127.0.0.1"
  /// Words before its command line.
  public var prefix: [String] = []
  /// Added to the environment.
  public var environment: [String: String] = [:]
  /// A store of its own.
  public var store: String?
  public init() {}
}

/// One process of a local cluster and the processes that came before it under the same name.
public final class ClusterMember: Sendable {
  public let name: String
  public let role: ClusterState.Role
  /// The shards its configuration gives it; empty for coordinators, and for workers that join.
  public let shards: [Int]
  /// Where it listens, from its first start to its last.
  public var address: String { "\(ground.host):\(port.port)" }
  /// A coordinator's admin address, as host:port.
  var adminAddress: String? { adminPort.map { "\(ground.host):\($0.port)" } }
  /// The same as a URL.
  public var admin: String? { adminAddress.map { (isSecure ? "https://" : "http://") + $0 } }
  public let ground: MemberGround
  private let isSecure: Bool
  let port: PortReservation
  let adminPort: PortReservation?
  let config: String
  let log: String
  private let executable: String
  private let arguments: [String]
  private let state = Mutex(State())

  private struct State {
    var process: ChildProcess?
    var url = ""
    var starts = 0
    var starting = false
    /// The pid whose end was asked for or has been reported: not news any more.
    var settled: Int32?
  }

  init(
    name: String, role: ClusterState.Role, shards: [Int], port: PortReservation, adminPort: PortReservation? = nil,
    isSecure: Bool = false, executable: String, ground: MemberGround, config: String, log: String
  ) {
    self.ground = ground
    self.isSecure = isSecure
    self.name = name
    self.role = role
    self.shards = shards
    self.port = port
    self.adminPort = adminPort
    self.executable = executable
    self.config = config
    self.log = log
    arguments = [role.rawValue, "--config", config]
  }

  private static var environment: [String: String] { ProcessInfo.processInfo.environment }

  public var process: ChildProcess? { state.withLock { $0.process } }
  public var url: String { state.withLock { $0.url } }
  public var isRunning: Bool { process?.isRunning ?? false }

  /// Starts it and returns at once; `waitUntilReady` follows.
  public func start() throws(HarnessError) {
    let already = state.withLock { state in
      let busy = state.starting || (state.process?.isRunning ?? false)
      if !busy { state.starting = true }
      return busy
    }
    guard !already else { throw HarnessError("\(name) is running or being started already") }
    defer { state.withLock { $0.starting = false } }
    let words = ground.prefix + [executable] + arguments
    let environment = ground.environment.isEmpty ? nil : Self.environment.merging(ground.environment) { $1 }
    let process = try ChildProcess(
      name: name, executable: words[0], arguments: Array(words.dropFirst()), environment: environment, logPath: log)
    state.withLock {
      $0.process = process
      $0.starts += 1
    }
  }

  /// Waits for its `ready` line.
  public func waitUntilReady(limit: Duration, cancelled: () -> Bool) throws(HarnessError) {
    guard let process else { throw HarnessError("\(name) was not started") }
    let url = try process.waitUntilReady(limit: limit, cancelled: cancelled)
    state.withLock { $0.url = url }
  }

  /// SIGHUP: reads its certificates and tokens again.
  public func reload() { process?.reload() }
  func kill() { settling { $0.kill() } }
  func stop(grace: Duration) { settling { $0.stop(grace: grace) } }
  /// SIGTERM, and waits until it has ended by itself; `nil` = it had not after `limit`.
  func drain(limit: Duration) -> ChildProcess.Exit? {
    terminate()
    return process?.waitForExit(limit: limit)
  }
  func terminate() { settling { $0.terminate() } }

  private func settling(_ end: (ChildProcess) -> Void) {
    let process = state.withLock { state in
      state.settled = state.process?.pid
      return state.process
    }
    if let process { end(process) }
  }

  /// How it ended, told once, and only when nobody asked for it.
  func unexpectedEnd() -> ChildProcess.Exit? {
    state.withLock { state in
      guard let process = state.process, state.settled != process.pid, let exit = process.exit else { return nil }
      state.settled = process.pid
      return exit
    }
  }

  var snapshot: ClusterState.Member {
    state.withLock { state in
      ClusterState.Member(
        name: name, role: role, process: state.process?.identity, url: state.url, admin: admin, shards: shards,
        config: config, log: log, starts: state.starts, ended: state.process?.exit?.description)
    }
  }
}
