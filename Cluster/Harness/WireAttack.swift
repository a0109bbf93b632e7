import Foundation
import HTTP2

#if canImport(Glibc)
  import Glibc
#endif

// What a badly behaved client does, as bytes: for tests, and for figures of what it costs the others. Only ever against
// a server of ours on loopback, on one connection, and not for longer than `limit`.

/// One attack: what is said first, and what is said again and again until the server hangs up.
public struct WireAttack: Sendable, CustomStringConvertible {
  public var name: String
  /// What the server should find it guilty of; nil = nghttp2 has a limit of its own.
  public var limit: HTTPLimit?
  public var opening: [UInt8] = []
  /// The bytes of the n-th wave; empty = nothing more is said.
  public var wave: @Sendable (Int) -> [UInt8]
  /// So many waves go out at once, at most; then an answer is waited for.
  public var wavesAtOnce = Int.max
  /// Whether it reads what the server says.
  public var reads = true
  public var description: String { name }

  public struct Outcome: Sendable {
    /// From the first byte until the server hung up; nil = it had not by the limit.
    public var cutAfter: Duration?
    public var sent = 0
    public var heard: [UInt8] = []
  }

  // MARK: Frames

  public static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

  public static func frame(_ type: UInt8, flags: UInt8 = 0, stream: Int = 0, _ payload: [UInt8] = []) -> [UInt8] {
    [UInt8(payload.count >> 16 & 0xFF), UInt8(payload.count >> 8 & 0xFF), UInt8(payload.count & 0xFF), type, flags]
      + number(stream) + payload
  }
  private static func number(_ value: Int) -> [UInt8] { [24, 16, 8, 0].map { UInt8(value >> $0 & 0xFF) } }
  private static let (data, headers, priority, reset, settings, ping, windowUpdate, continuation):
    (
      UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8
    ) = (0, 1, 2, 3, 4, 6, 8, 9)
  private static let (endStream, acknowledge, endHeaders): (UInt8, UInt8, UInt8) = (1, 1, 4)

  /// A literal that is not indexed.
  private static func field(_ name: String, _ value: String) -> [UInt8] {
    func text(_ text: String) -> [UInt8] {
      let bytes = Array(text.utf8)
      guard bytes.count >= 127 else { return [UInt8(bytes.count)] + bytes }
      var (length, rest) = ([UInt8(127)], bytes.count - 127)
      while rest >= 128 { (length, rest) = (length + [UInt8(rest & 127 | 128)], rest >> 7) }
      return length + [UInt8(rest)] + bytes
    }
    return [0] + text(name) + text(value)
  }
  public static func request(_ path: String, method: String = "GET") -> [UInt8] {
    field(":method", method) + [0x86] + field(":path", path) + field(":authority", "x")
  }
  /// Client's stream number n.
  private static func id(_ index: Int) -> Int { 2 * index + 1 }
  private static let hello = preface + frame(settings) + frame(settings, flags: acknowledge)

  /// Attacks that cost bytes, not time.
  /// - Parameters:
  ///   - path: where a request takes a while to be answered, or is not.
  ///   - body: of the request, which is a POST then.
  public static func floods(_ path: String, body: [UInt8] = []) -> [WireAttack] {
    let ask = request(path)
    /// A whole request on a stream.
    @Sendable func whole(_ stream: Int) -> [UInt8] {
      guard !body.isEmpty else { return frame(headers, flags: endHeaders | endStream, stream: stream, ask) }
      return frame(headers, flags: endHeaders, stream: stream, post)
        + frame(data, flags: endStream, stream: stream, body)
    }
    let post = request(path, method: "POST")
    let long = field("x", String(repeating: "a", count: 4000))
    // One entry of some 4 kB in the dynamic table, then named thousands of times.
    let bomb = [UInt8(0x40)] + field("x", String(repeating: "a", count: 4000)).dropFirst()
    return [
      WireAttack(name: "ping flood", limit: .pings, opening: hello) { _ in
        frame(ping, [UInt8](repeating: 0, count: 8))
      },
      WireAttack(name: "settings flood", limit: .settings, opening: hello) { _ in frame(settings) },
      WireAttack(
        name: "empty frames", limit: .emptyData, opening: hello + frame(headers, flags: endHeaders, stream: 1, post)
      ) { _ in frame(data, stream: 1) },
      WireAttack(name: "priority churn", limit: .priorities, opening: hello) {
        frame(priority, stream: id($0 % 50), number(0) + [16])
      },
      WireAttack(name: "rapid reset", limit: .abandoned, opening: hello) {
        whole(id($0)) + frame(reset, stream: id($0), number(8))
      },
      WireAttack(name: "made you reset", limit: .invalid, opening: hello) {
        whole(id($0)) + frame(windowUpdate, stream: id($0), number(0x7FFF_FFFF))
      }.by(20),
      WireAttack(name: "stream flood", limit: .streams, opening: hello) { whole(id($0)) },
      WireAttack(
        name: "continuation flood", limit: nil, opening: hello + frame(headers, stream: 1, ask)
      ) { _ in frame(continuation, stream: 1) },
      WireAttack(name: "long headers", limit: .headerList, opening: hello) {
        frame(headers, flags: endStream, stream: id($0), ask + long + long)
          + frame(continuation, flags: endHeaders, stream: id($0), long + long + long)
      },
      WireAttack(
        name: "header bomb", limit: .headerList,
        opening: hello + frame(headers, flags: endHeaders | endStream, stream: 1, ask + bomb)
      ) {
        frame(
          headers, flags: endHeaders | endStream, stream: id($0 + 1), ask + [UInt8](repeating: 0xBE, count: 10_000))
      },
    ]
  }

  private func by(_ waves: Int) -> WireAttack {
    var attack = self
    attack.wavesAtOnce = waves
    return attack
  }

  /// Attacks that wait.
  /// - Parameter large: where a GET gets a long answer.
  public static func stalls(_ path: String, large: String) -> [WireAttack] {
    let nothing: @Sendable (Int) -> [UInt8] = { _ in [] }
    let zeroWindow = frame(settings, [0, 4, 0, 0, 0, 0])
    return [
      WireAttack(name: "silence", limit: .handshakeTime, wave: nothing),
      WireAttack(name: "half a preface", limit: .handshakeTime, opening: Array(preface.prefix(8)), wave: nothing),
      WireAttack(
        name: "settings never acknowledged", limit: .settingsTime, opening: preface + frame(settings), wave: nothing),
      WireAttack(
        name: "windows never opened", limit: .writeStall,
        opening: preface + zeroWindow + frame(settings, flags: acknowledge)
          + frame(headers, flags: endHeaders | endStream, stream: 1, request(large)), wave: nothing),
      WireAttack(
        name: "answers never read", limit: .writeStall,
        opening: hello + frame(windowUpdate, number(1 << 30)) + frame(settings, [0, 4, 0x3F, 0xFF, 0xFF, 0xFF])
          + (0..<20).flatMap { frame(headers, flags: endHeaders | endStream, stream: id($0), request(large)) },
        wave: nothing, reads: false),
      WireAttack(
        name: "HTTP/1.1 head that does not end", limit: .requestTime,
        opening: Array("GET / HTTP/1.1\r\nhost: ".utf8), wave: nothing),
      WireAttack(
        name: "HTTP/1.1 body that does not end", limit: .requestTime,
        opening: Array("POST \(path) HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nab".utf8), wave: nothing),
    ]
  }
  /// A request whose body does not come: it is answered, and the connection stays.
  public static func slowBody(_ path: String) -> [UInt8] {
    hello + frame(headers, flags: endHeaders, stream: 1, request(path, method: "POST")) + frame(data, stream: 1, [1])
  }

  // MARK: Carrying it out

  /// POLLRDHUP, which Glibc's module leaves out.
  private var peerHungUp: Int32 { 0x2000 }

  /// Attacks a server on loopback until it hangs up, or for so long.
  public func run(port: UInt16, limit: Duration) -> Outcome {
    var outcome = Outcome()
    let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { return outcome }
    defer { close(socket) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
    let connected = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard connected == 0, fcntl(socket, F_SETFL, O_NONBLOCK) == 0 else { return outcome }
    let start = ContinuousClock.now
    var unsent = opening
    var waves = 0
    var heard = false
    while ContinuousClock.now - start < limit {
      let before = waves
      let mayGoOn = wavesAtOnce == .max || waves == 0 || heard
      if mayGoOn { heard = false }
      while mayGoOn, unsent.count < 16 << 10, waves - before < wavesAtOnce {
        let more = wave(waves)
        if more.isEmpty { break }
        unsent += more
        waves += 1
      }
      var state = pollfd(
        fd: socket, events: Int16((reads ? POLLIN : 0) | peerHungUp | (unsent.isEmpty ? 0 : POLLOUT)), revents: 0)
      poll(&state, 1, 20)
      if Int32(state.revents) & POLLIN != 0 {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        let count = recv(socket, &buffer, buffer.count, 0)
        if count > 0 { heard = true }
        if count > 0, outcome.heard.count < 1 << 20 { outcome.heard += buffer[..<count] }
        if count == 0 || count < 0 && errno != EAGAIN && errno != EINTR { break }
      }
      if Int32(state.revents) & (POLLHUP | POLLERR | peerHungUp) != 0, Int32(state.revents) & POLLIN == 0 { break }
      if Int32(state.revents) & POLLOUT != 0 {
        let count = send(socket, unsent, unsent.count, Int32(MSG_NOSIGNAL))
        if count > 0 {
          unsent.removeFirst(count)
          outcome.sent += count
        } else if errno != EAGAIN, errno != EINTR {
          break
        }
      }
    }
    let took = ContinuousClock.now - start
    if took < limit { outcome.cutAfter = took }
    return outcome
  }
}
