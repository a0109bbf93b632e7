import ClusterHarness
import Foundation
import Terminal

// The cluster under test, as the engine takes hold of it: one that it started itself, where everything can be done, or
// one that `shortlist cluster up` started and keeps, where what that can do is done.

/// One process of it.
struct HandleMember: Sendable {
  var name: String
  var url: String
  var admin: String
  /// The shards it was given; none for coordinators.
  var shards: [Int]
}

protocol ClusterHandle: Sendable {
  var coordinators: [HandleMember] { get }
  var workers: [HandleMember] { get }
  /// Of a member's process now; nil = it does not run.
  func pid(of name: String) -> Int32?
  func kill(_ name: String) throws
  func freeze(_ name: String) throws
  func thaw(_ name: String) throws
  /// SIGTERM, and waits for the end.
  func end(_ name: String) throws
  /// Starts a member that has ended and waits until it is ready.
  func bringBack(_ name: String, cancelled: () -> Bool) throws
  /// What ended since this was last asked and had not been told to.
  func unexpectedEnds() -> [String]
}

/// One that the engine started.
struct OwnCluster: ClusterHandle {
  let cluster: LocalCluster

  private static func member(_ member: ClusterMember) -> HandleMember {
    HandleMember(name: member.name, url: member.url, admin: member.admin ?? "", shards: member.shards)
  }
  var coordinators: [HandleMember] { cluster.coordinators.map(Self.member) }
  var workers: [HandleMember] { cluster.workers.map(Self.member) }
  func pid(of name: String) -> Int32? {
    guard let process = (try? cluster.member(name))?.process, process.isRunning else { return nil }
    return process.pid
  }
  func kill(_ name: String) throws { try cluster.kill(name) }
  func freeze(_ name: String) throws { try cluster.freeze(name) }
  func thaw(_ name: String) throws { try cluster.thaw(name) }
  func end(_ name: String) throws {
    let exit = try cluster.drain(name)
    guard exit == .code(0) else {
      throw CommandError("\(name), told to end, ended with \(exit.map(\.description) ?? "nothing in its time")")
    }
  }
  func bringBack(_ name: String, cancelled: () -> Bool) throws { try cluster.restart(name, cancelled: cancelled) }
  func unexpectedEnds() -> [String] { cluster.unexpectedEnds().map(\.message) }
}

/// One that is there.
struct AttachedCluster: ClusterHandle {
  private let directory: ClusterHarness.StateDirectory
  let state: ClusterState
  /// What can be done to it.
  static let kinds: Set<FaultKind> = [.kill, .terminate, .freeze]

  /// - Parameter directory: of `shortlist cluster up`.
  init(_ directory: ClusterHarness.StateDirectory) throws {
    self.directory = directory
    state = try directory.read()
  }

  private func members(_ role: ClusterState.Role) -> [HandleMember] {
    state.members.filter { $0.role == role }.map {
      HandleMember(name: $0.name, url: $0.url, admin: $0.admin ?? "", shards: $0.shards)
    }
  }
  var coordinators: [HandleMember] { members(.coordinator) }
  var workers: [HandleMember] { members(.worker) }
  func pid(of name: String) -> Int32? {
    (try? directory.read())?.members.first { $0.name == name && $0.ended == nil }?.process?.pid
  }
  private func ask(_ verb: ControlRequest.Verb, _ name: String) throws {
    let reply = try directory.ask(.init(verb, member: name))
    guard reply.ok else { throw CommandError(reply.message) }
  }
  func kill(_ name: String) throws { try ask(.kill, name) }
  func freeze(_ name: String) throws { try ask(.freeze, name) }
  func thaw(_ name: String) throws { try ask(.thaw, name) }
  /// There, a member is ended and started in one.
  func end(_ name: String) throws { try ask(.restart, name) }
  func bringBack(_ name: String, cancelled: () -> Bool) throws {
    if pid(of: name) == nil { try ask(.restart, name) }
  }
  /// Whoever runs it is told.
  func unexpectedEnds() -> [String] { [] }
}
