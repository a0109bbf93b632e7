import Foundation
import Glibc
import Synchronization

/// For tests: a web server of files, which does ranges, and trouble when it is told to.
public final class FileServer: Sendable {
  public struct Trouble: Sendable {
    /// Of each response no more than so many bytes of the body are sent; then the connection ends.
    public var cutAfter: Int?
    /// The same, of the first response for each path only.
    public var cutFirstAfter: Int?
    /// Every request gets the whole file.
    public var ignoresRanges = false
    /// What is answered instead.
    public var status: Int?
    /// A bit of the files whose path ends so is another.
    public var flips: String?
    /// It takes requests and says nothing.
    public var isSilent = false
    public init() {}
  }
  /// One request that was answered.
  public struct Request: Sendable, Equatable {
    public var path: String
    /// Where the answer began in the file.
    public var offset: Int
  }
  private let listener = LoopbackListener()
  private let root: String
  private let trouble = Mutex(Trouble())
  private let requests = Mutex<[Request]>([])
  public var url: String { "http://127.0.0.1:\(listener.port)/store" }

  public init(_ root: String) {
    self.root = root
    listener.serve { [self] in serve($0) }
  }
  public func set(_ trouble: Trouble) { self.trouble.withLock { $0 = trouble } }
  public var seen: [Request] { requests.withLock { $0 } }
  public func close() { listener.close() }

  private func serve(_ client: Int32) {
    var text = ""
    var buffer = [UInt8](repeating: 0, count: 4096)
    while !text.hasSuffix("\r\n\r\n") {
      let count = recv(client, &buffer, buffer.count, 0)
      guard count > 0 else { return }
      text += String(decoding: buffer[..<count], as: UTF8.self)
    }
    let trouble = trouble.withLock { $0 }
    if trouble.isSilent {
      _ = recv(client, &buffer, buffer.count, 0)
      return
    }
    let lines = text.split(separator: "\r\n" as Character)
    let path = String(lines[0].split(separator: " ")[1].dropFirst("/store".count))
    guard trouble.status == nil, var bytes = FileManager.default.contents(atPath: root + path).map([UInt8].init) else {
      let head = "HTTP/1.1 \(trouble.status ?? 404) No\r\nContent-Length: 0\r\n\r\n"
      _ = sendAll(Array(head.utf8)[...], to: client)
      return
    }
    if let flips = trouble.flips, path.hasSuffix(flips) { bytes[bytes.count / 2] ^= 1 }
    let range = lines.first { $0.lowercased().hasPrefix("range: bytes=") }
    let asked = range.flatMap { Int($0.dropFirst("range: bytes=".count).dropLast()) } ?? 0
    let offset = trouble.ignoresRanges ? 0 : asked
    let isFirst = requests.withLock { requests in
      defer { requests.append(Request(path: path, offset: offset)) }
      return !requests.contains { $0.path == path }
    }
    let status = offset > 0 ? "206 Partial Content" : "200 OK"
    let place = offset > 0 ? "Content-Range: bytes \(offset)-\(bytes.count - 1)/\(bytes.count)\r\n" : ""
    let head = "HTTP/1.1 \(status)\r\n\(place)Content-Length: \(bytes.count - offset)\r\n\r\n"
    let most = trouble.cutAfter ?? (isFirst ? trouble.cutFirstAfter : nil) ?? bytes.count
    let end = min(bytes.count, offset + most)
    guard sendAll(Array(head.utf8)[...], to: client) else { return }
    _ = sendAll(bytes[offset..<end], to: client)
  }
}
