import Foundation

// A real etcd of one member on this machine, at an address that it keeps: it can be killed, frozen, and started again
// on the same data.

public final class EtcdProcess {
  /// The program; nil when there is none on the PATH (Debian: the package `etcd-server`).
  public static var executable: String? {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
    return path.split(separator: ":").map { "\($0)/etcd" }.first { FileManager.default.isExecutableFile(atPath: $0) }
  }

  /// Where clients connect.
  public var address: String { client.address }
  public var port: UInt16 { client.port }
  public private(set) var process: ChildProcess
  private let executable: String
  private let directory: String
  private let client: PortReservation
  private let peer: PortReservation

  /// Starts it and waits until it serves.
  /// - Parameter directory: for its data and its log; it must be there.
  public init(directory: String) throws(HarnessError) {
    guard let executable = Self.executable else {
      throw HarnessError("etcd is not on the PATH; on Debian: apt-get install etcd-server")
    }
    self.executable = executable
    self.directory = directory
    client = try PortReservation()
    peer = try PortReservation()
    process = try Self.start(executable, directory, client, peer)
    try waitUntilReady()
  }

  private static func start(
    _ executable: String, _ directory: String, _ client: PortReservation, _ peer: PortReservation
  ) throws(HarnessError) -> ChildProcess {
    try ChildProcess(
      name: "etcd", executable: executable,
      arguments: [
        "--name", "one", "--data-dir", "\(directory)/etcd",
        "--listen-client-urls", "http://\(client.address)", "--advertise-client-urls", "http://\(client.address)",
        "--listen-peer-urls", "http://\(peer.address)", "--initial-advertise-peer-urls", "http://\(peer.address)",
        "--initial-cluster", "one=http://\(peer.address)",
      ], logPath: "\(directory)/etcd.log")
  }

  private func waitUntilReady() throws(HarnessError) {
    _ = try process.waitForLine(limit: .seconds(30), what: "ready") { $0.contains("ready to serve") ? true : nil }
  }

  /// SIGKILL; its address stays ours.
  public func kill() { process.kill() }
  public func freeze() { process.freeze() }
  public func thaw() { process.thaw() }

  /// Starts it again on its data, and waits until it serves.
  public func restart() throws(HarnessError) {
    process.kill()
    process = try Self.start(executable, directory, client, peer)
    try waitUntilReady()
  }
}
