import Foundation
import Synchronization

#if canImport(Glibc)
  import Glibc
#endif

// How another process asks the one that runs a cluster to do something: one line of JSON each way over a Unix socket.
//
//   {"verb":"kill","member":"w1"}  ──►
//                                  ◄──  {"ok":true,"message":"w1 is dead"}
//
// The supervisor does the work, because only the parent of a process can reap it and start its successor.

/// One thing asked of a running cluster.
public struct ControlRequest: Codable, Sendable, Equatable {
  public enum Verb: String, Codable, Sendable { case add, kill, freeze, thaw, restart, down }
  public var verb: Verb
  /// Whom it is about; empty for `add` and `down`.
  public var member: String
  public init(_ verb: Verb, member: String = "") {
    self.verb = verb
    self.member = member
  }
}

public struct ControlReply: Codable, Sendable, Equatable {
  public var ok: Bool
  public var message: String
  public init(ok: Bool, message: String) {
    self.ok = ok
    self.message = message
  }
}

extension StateDirectory {
  /// The address of its control socket. A socket's path holds 107 bytes at most and directories may be deep, so the
  /// directory is named by a descriptor.
  fileprivate func withControlAddress<Result>(
    _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
  ) throws(HarnessError) -> Result {
    let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard directory >= 0 else {
      throw HarnessError("no cluster is up in \(path): start one with `shortlist cluster up`, or name its --state")
    }
    defer { close(directory) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let name = Array("/proc/self/fd/\(directory)/control.sock".utf8)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }

  /// Asks the cluster that is up here, and waits for its answer; for `down`, until it is gone.
  public func ask(_ request: ControlRequest, limit: Duration = .seconds(120)) throws(HarnessError) -> ControlReply {
    let socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { throw HarnessError("cannot make a socket: \(systemMessage(errno))") }
    defer { close(socket) }
    let failure = try withControlAddress { connect(socket, $0, $1) == 0 ? 0 : errno }
    guard failure == 0 else {
      throw HarnessError("no cluster is up in \(path): start one with `shortlist cluster up`, or name its --state")
    }
    var wait = timeval(tv_sec: Int(limit.components.seconds), tv_usec: 0)
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
    guard let line = try? JSONEncoder().encode(request), sendAll(socket, line + [10]),
      let answer = receiveLine(socket), let reply = try? JSONDecoder().decode(ControlReply.self, from: answer)
    else { throw HarnessError("the cluster in \(path) did not answer \"\(request.verb.rawValue)\"") }
    // The supervisor keeps this connection until it ends: its end is the end of the cluster.
    if request.verb == .down, reply.ok { _ = receiveLine(socket) }
    return reply
  }
}

/// The supervisor's end: accepts and answers on threads of its own until the process ends.
public final class ControlServer: Sendable {
  private let socket: Int32
  private let stopped = Mutex(false)

  /// Starts listening. `answer` may block: each connection has a thread.
  public init(
    _ directory: StateDirectory, answer: @escaping @Sendable (ControlRequest) -> ControlReply
  ) throws(HarnessError) {
    let socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { throw HarnessError("cannot make a socket: \(systemMessage(errno))") }
    let failure = try directory.withControlAddress { bind(socket, $0, $1) == 0 && listen(socket, 16) == 0 ? 0 : errno }
    guard failure == 0 else {
      close(socket)
      throw HarnessError("cannot listen in \(directory.path): \(systemMessage(failure))")
    }
    self.socket = socket
    let thread = Thread {
      while true {
        let connection = accept(socket, nil, nil)
        if connection < 0 {
          if errno == EINTR || errno == ECONNABORTED { continue }
          close(socket)
          return
        }
        let conversation = Thread { Self.serve(connection, answer) }
        conversation.start()
      }
    }
    thread.name = "control"
    thread.start()
  }

  private static func serve(_ connection: Int32, _ answer: @Sendable (ControlRequest) -> ControlReply) {
    defer { close(connection) }
    while let line = receiveLine(connection) {
      let request = try? JSONDecoder().decode(ControlRequest.self, from: line)
      let reply = request.map(answer) ?? ControlReply(ok: false, message: "not a control request")
      guard let data = try? JSONEncoder().encode(reply), sendAll(connection, data + [10]) else { return }
    }
  }

  /// Ends the listening; connections that are open stay.
  public func stop() {
    // Once: the thread closes the socket, and its number may belong to somebody else afterwards.
    let first = stopped.withLock { stopped in
      defer { stopped = true }
      return !stopped
    }
    if first { shutdown(socket, Int32(SHUT_RDWR)) }
  }
  deinit { stop() }
}

private func sendAll(_ socket: Int32, _ data: Data) -> Bool {
  var rest = data[...]
  while !rest.isEmpty {
    let sent = rest.withUnsafeBytes { send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    if sent < 0, errno == EINTR { continue }
    guard sent > 0 else { return false }
    rest = rest.dropFirst(sent)
  }
  return true
}

/// One line without its end; `nil` at the end of the stream, on an error, or when it is longer than a request may be.
private func receiveLine(_ socket: Int32) -> Data? {
  var line = Data()
  var byte: UInt8 = 0
  while line.count < 64 << 10 {
    let count = recv(socket, &byte, 1, 0)
    if count < 0, errno == EINTR { continue }
    guard count == 1 else { return nil }
    if byte == 10 { return line }
    line.append(byte)
  }
  return nil
}
