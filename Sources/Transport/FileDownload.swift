import Glibc
import RankingCore
import Synchronization

// One GET of HTTP/1.1 after the other, on a thread that may wait: how files come from a web server or an object store.
// The loop's client speaks HTTP/2 and keeps answers in memory; what these servers speak is HTTP/1.1, and a file is
// handed on as it comes.
//
//     GET /store/home/v2/shard-0003.slice      ──►  206, Content-Range: bytes 1048576-2097151/2097152
//     Range: bytes=1048576-                          body ──256 KiB──► sink ──► …       as fast as the pace allows
//
// Where the server does not do ranges (200), the file comes from its beginning, and the caller is told so.

/// Where files are: `http://host:port/path`.
public struct FileOrigin: Sendable, Equatable, CustomStringConvertible {
  public let host: String
  public let port: UInt16
  /// Without a slash at its end.
  public let path: String

  /// - Throws: what is wrong with the text, as a line for people.
  public init(_ url: String) throws(DownloadError) {
    func wrong(_ what: String) -> DownloadError {
      DownloadError(.refused, "\"\(url)\" \(what); write http://host:port/path")
    }
    guard !url.hasPrefix("https://") else { throw wrong("asks for TLS, which is not there yet") }
    guard url.hasPrefix("http://") else { throw wrong("is not an address of HTTP") }
    let rest = url.dropFirst("http://".count)
    let slash = rest.firstIndex(of: "/") ?? rest.endIndex
    let authority = rest[..<slash]
    var path = rest[slash...]
    while path.hasSuffix("/") { path.removeLast() }
    guard path.utf8.allSatisfy({ $0 > 32 && $0 < 127 && $0 != UInt8(ascii: "?") && $0 != UInt8(ascii: "#") }) else {
      throw wrong("has a path with a space, ?, # or something that is not ASCII")
    }
    var host = authority
    var number: UInt16 = 80
    if let colon = authority.lastIndex(of: ":"), !authority.hasSuffix("]") {
      guard let port = UInt16(authority[authority.index(after: colon)...]), port > 0 else {
        throw wrong("has no port after the colon")
      }
      host = authority[..<colon]
      number = port
    }
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    guard !host.isEmpty, host.utf8.allSatisfy({ $0 > 32 && $0 < 127 && $0 != UInt8(ascii: "@") }) else {
      throw wrong("names no host")
    }
    self.host = String(host)
    port = number
    self.path = String(path)
  }

  var authority: String { (host.contains(":") ? "[\(host)]" : host) + (port == 80 ? "" : ":\(port)") }
  public var description: String { "http://\(authority)\(path)" }
}

/// Why a file did not come, or not whole.
public struct DownloadError: Error, CustomStringConvertible, Sendable {
  public enum Kind: Sendable, Equatable {
    /// Trying again may help: no connection, silence, an early end, a 5xx.
    case passing
    /// It will not: a 404, a redirect, something that is not HTTP.
    case refused
    /// The process is leaving.
    case stopped
  }
  public var kind: Kind
  public let description: String
  public init(_ kind: Kind, _ description: String) {
    self.kind = kind
    self.description = description
  }
}

/// How fast, and until when: shared by the downloads of a process.
public final class DownloadPace: Sendable {
  private let bytesPerSecond: Double
  private let isStopped = Atomic<Bool>(false)
  /// When what has come so far may have come.
  private let paid = Mutex(Instant(nanoseconds: 0))
  /// So long a thread waits before it looks whether it is to end.
  static let step: Duration = .milliseconds(50)

  public init(bytesPerSecond: Double) { self.bytesPerSecond = bytesPerSecond }

  /// Ends every download within a tenth of a second or so.
  public func stop() { isStopped.store(true, ordering: .relaxed) }

  func check() throws(DownloadError) {
    if isStopped.load(ordering: .relaxed) { throw DownloadError(.stopped, "the process is leaving") }
  }

  /// Waits until so much more may come.
  func wait(for bytes: Int) throws(DownloadError) {
    let now = EventLoop.clock()
    let due = paid.withLock { paid in
      paid = max(paid, now) + .nanoseconds(Int64(Double(bytes) / bytesPerSecond * 1e9))
      return paid
    }
    try wait(until: due)
  }

  /// Waits, and ends early with an error when the process leaves.
  public func wait(until due: Instant) throws(DownloadError) {
    while true {
      try check()
      let left = due - EventLoop.clock()
      guard left > .zero else { return }
      _ = poll(nil, 0, Int32(min(left, Self.step).milliseconds) + 1)
    }
  }
}

public enum FileDownload {
  static let connectTimeout: Duration = .seconds(3)
  static let silenceMax: Duration = .seconds(10)
  static let headBytesMax = 16 << 10
  static let chunkBytes = 256 << 10

  /// What the server says of the file before the first byte of it.
  public struct Head: Sendable, Equatable {
    /// Where what comes begins in the file: what was asked for, or 0.
    public var offset: Int
    /// The size of the whole file, bytes.
    public var size: Int
  }

  /// Fetches a file from `offset` on; blocks.
  ///
  /// - Parameters:
  ///   - path: below the origin's, beginning with a slash; of characters that need no escape.
  ///   - begin: told once what will come.
  ///   - sink: told every piece, in order.
  public static func get(
    _ path: String, of origin: FileOrigin, from offset: Int, pace: DownloadPace,
    begin: (Head) throws -> Void, sink: (UnsafeRawBufferPointer) throws -> Void
  ) throws {
    let connection = try Connection(origin, pace: pace)
    let range = offset > 0 ? "Range: bytes=\(offset)-\r\n" : ""
    try connection.send(
      "GET \(origin.path)\(path) HTTP/1.1\r\nHost: \(origin.authority)\r\nUser-Agent: shortlist\r\n"
        + "Accept-Encoding: identity\r\n\(range)Connection: close\r\n\r\n")
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: chunkBytes, alignment: 64)
    defer { buffer.deallocate() }

    var filled = 0
    var end: Int?
    while end == nil {
      guard filled < headBytesMax else { throw DownloadError(.refused, "its header is over \(headBytesMax) bytes") }
      let room = UnsafeMutableRawBufferPointer(rebasing: buffer[filled..<headBytesMax])
      let count = try connection.read(into: room)
      guard count > 0 else { throw DownloadError(.passing, "the connection ended before a response") }
      filled += count
      end = endOfHead(UnsafeRawBufferPointer(rebasing: buffer[..<filled]))
    }
    let headEnd = end ?? 0
    let response = try ResponseText(UnsafeRawBufferPointer(rebasing: buffer[..<headEnd]))
    let (head, length) = try response.read(asked: offset)
    try begin(head)
    var left = length
    var ready = headEnd..<min(filled, headEnd + length)
    while true {
      if !ready.isEmpty {
        left -= ready.count
        try pace.wait(for: ready.count)
        try sink(UnsafeRawBufferPointer(rebasing: buffer[ready]))
      }
      guard left > 0 else { return }
      let count = try connection.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(left, chunkBytes)]))
      guard count > 0 else { throw DownloadError(.passing, "the connection ended \(left) bytes early") }
      ready = 0..<count
    }
  }

  private static func endOfHead(_ bytes: UnsafeRawBufferPointer) -> Int? {
    guard bytes.count >= 4 else { return nil }
    let mark = Array("\r\n\r\n".utf8)
    return (0...bytes.count - 4).first { start in (0..<4).allSatisfy { bytes[start + $0] == mark[$0] } }.map { $0 + 4 }
  }

  /// A status line and the header fields that matter here.
  struct ResponseText {
    private(set) var status = 0
    private var fields: [String: String] = [:]

    init(_ bytes: UnsafeRawBufferPointer) throws(DownloadError) {
      // CR LF is one Character.
      let lines = String(decoding: bytes, as: UTF8.self).split(
        separator: "\r\n" as Character, omittingEmptySubsequences: false)
      let start = lines[0].split(separator: " ", maxSplits: 2)
      guard start.count >= 2, start[0].hasPrefix("HTTP/1."), start[1].utf8.count == 3, let status = Int(start[1]) else {
        throw DownloadError(.refused, "it does not answer in HTTP/1.1")
      }
      self.status = status
      for line in lines.dropFirst() where !line.isEmpty {
        guard let colon = line.firstIndex(of: ":") else {
          throw DownloadError(.refused, "a header line of its answer has no colon")
        }
        let name = line[..<colon].lowercased()
        var value = line[line.index(after: colon)...]
        while value.first == " " || value.first == "\t" { value.removeFirst() }
        while value.last == " " || value.last == "\t" { value.removeLast() }
        if let other = fields[name], other != value, name == "content-length" {
          throw DownloadError(.refused, "it gives two lengths")
        }
        fields[name] = String(value)
      }
    }

    private func number(_ text: some StringProtocol) -> Int? {
      guard !text.isEmpty, text.utf8.allSatisfy({ $0 >= 48 && $0 <= 57 }) else { return nil }
      return Int(text)
    }

    /// - Returns: what comes of which file, and how many bytes follow.
    func read(asked offset: Int) throws(DownloadError) -> (Head, Int) {
      switch status {
      case 200, 206: break
      case 300..<400: throw DownloadError(.refused, "status \(status), to \(fields["location"] ?? "nowhere")")
      case 416: throw DownloadError(.refused, "status 416: the file ends before byte \(offset)")
      case 408, 429, 500...: throw DownloadError(.passing, "status \(status)")
      default: throw DownloadError(.refused, "status \(status)")
      }
      if let coding = fields["content-encoding"], coding != "identity" {
        throw DownloadError(.refused, "it sends the file encoded (\(coding)), which was not asked for")
      }
      guard fields["transfer-encoding"] == nil, let length = fields["content-length"].flatMap({ number($0) }) else {
        throw DownloadError(.refused, "it does not say how long its answer is (Content-Length)")
      }
      guard status == 206 else { return (Head(offset: 0, size: length), length) }
      let text = fields["content-range"] ?? "none"
      let parts = text.split(whereSeparator: { $0 == " " || $0 == "-" || $0 == "/" })
      guard parts.count == 4, parts[0] == "bytes", let from = number(parts[1]), let last = number(parts[2]),
        let size = number(parts[3]), from == offset, last == size - 1, last >= from, length == last - from + 1
      else { throw DownloadError(.refused, "asked for the bytes from \(offset) on, it sends others: \(text)") }
      return (Head(offset: offset, size: size), length)
    }
  }

  /// A socket that waits in short steps, so that a process that is to end does.
  private final class Connection {
    private let socket: Socket
    private let pace: DownloadPace

    init(_ origin: FileOrigin, pace: DownloadPace) throws(DownloadError) {
      self.pace = pace
      let address: ResolvedAddress
      do { address = try ResolvedAddress(host: origin.host, port: origin.port) } catch {
        throw DownloadError(.passing, "\(error)")
      }
      let descriptor = Glibc.socket(
        address.family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
      guard descriptor >= 0 else { throw DownloadError(.passing, "\(SystemError("socket"))") }
      socket = Socket(adopting: descriptor)
      let result = address.withSockaddr { connect(descriptor, $0, $1) }
      guard result == 0 || errno == EINPROGRESS else { throw DownloadError(.passing, "\(SystemError("connect"))") }
      try ready(POLLOUT, within: FileDownload.connectTimeout, "no connection")
      let code = socket.pendingError
      guard code == 0 else { throw DownloadError(.passing, "\(SystemError("connect", code))") }
    }

    private func ready(_ events: Int32, within limit: Duration, _ what: String) throws(DownloadError) {
      let deadline = EventLoop.clock() + limit
      var waited = pollfd(fd: socket.descriptor, events: Int16(events), revents: 0)
      while true {
        try pace.check()
        if poll(&waited, 1, Int32(DownloadPace.step.milliseconds)) > 0 { return }
        if EventLoop.clock() >= deadline {
          throw DownloadError(.passing, "\(what) for \(Int(limit.milliseconds / 1000)) s")
        }
      }
    }

    func send(_ text: String) throws(DownloadError) {
      let bytes = Array(text.utf8)
      var sent = 0
      while sent < bytes.count {
        switch bytes.withUnsafeBytes({ socket.write(UnsafeRawBufferPointer(rebasing: $0[sent...])) }) {
        case .bytes(let count): sent += count
        case .wouldBlock: try ready(POLLOUT, within: FileDownload.silenceMax, "it reads nothing")
        case .end: throw DownloadError(.passing, "the connection ended")
        case .failed(let code): throw DownloadError(.passing, "\(SystemError("send", code))")
        }
      }
    }

    /// - Returns: 0 at the end.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws(DownloadError) -> Int {
      while true {
        switch socket.read(into: buffer) {
        case .bytes(let count): return count
        case .end: return 0
        case .wouldBlock: try ready(POLLIN, within: FileDownload.silenceMax, "it sends nothing")
        case .failed(let code): throw DownloadError(.passing, "\(SystemError("receive", code))")
        }
      }
    }
  }
}
