// HTTP/1.1 for probes, Prometheus and browsers: GET, HEAD and POST with content-length, keep-alive, one request at a
// time in order. Everything that two parsers could read differently (RFC 9112 §11) is refused and the connection
// closed: two content-lengths, transfer-encoding, a bare LF, a folded line, a space before the colon.

public final class HTTP1ServerSession: ServerSession {
  private unowned let delegate: any ServerSessionDelegate
  private let limits: HTTPLimits
  private var input: [UInt8] = []
  private var out: [UInt8] = []
  private let stream = ServerStream()
  private var bodyLength = 0
  private var keepAlive = true
  private enum State { case head, body, answering, over }
  private var state = State.head
  public var now: UInt64 = 0
  /// When the first byte of a request came that is not whole yet.
  private var beganAt: UInt64?
  public private(set) var sentBytes: UInt64 = 0
  public var bufferedBytes: Int { out.count }

  public init(limits: HTTPLimits, delegate: any ServerSessionDelegate) {
    self.limits = limits
    self.delegate = delegate
  }

  public var openStreams: Int { stream.isOpen ? 1 : 0 }
  public var isOver: Bool { state == .over && out.isEmpty }

  public func receive(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard state != .over else { return false }
    // Pipelined requests wait here; a client that sends more than one request's worth ahead is not one we serve.
    guard input.count + bytes.count <= limits.headerListBytes + limits.bodyBytes + (64 << 10) else {
      delegate.ranInto(.body)
      fail(413)
      return false
    }
    input.append(contentsOf: bytes)
    advance()
    switch state {
    case .head: beganAt = input.isEmpty ? nil : beganAt ?? now
    case .body: beganAt = beganAt ?? now
    case .answering, .over: beganAt = nil
    }
    return state != .over
  }

  public func output(into buffer: inout [UInt8], limit: Int) {
    buffer.append(contentsOf: out)
    sentBytes &+= UInt64(out.count)
    out.removeAll(keepingCapacity: true)
  }

  deinit { stream.end() }

  public func respond(
    _ stream: ServerStream, head: ResponseHead, trailers: ResponseHead?, write: (inout [UInt8]) -> Void
  ) {
    var body: [UInt8] = []
    write(&body)
    respond(stream, head: head, body: body, trailers: trailers)
  }

  public func respond(_ stream: ServerStream, head: ResponseHead, body: [UInt8], trailers: ResponseHead?) {
    guard stream.isOpen, !stream.isAnswered else { return }
    stream.isAnswered = true
    out.append(contentsOf: head.http1)
    out.append(contentsOf: "content-length: \(body.count)\r\n".utf8)
    out.append(contentsOf: keepAlive ? "\r\n".utf8 : "connection: close\r\n\r\n".utf8)
    if !stream.isHead { out.append(contentsOf: body) }
    stream.end()
    state = keepAlive ? .head : .over
    advance()
  }

  public func shutdown(final: Bool) {
    keepAlive = false
    if final, !stream.isOpen { state = .over }
  }

  public func close() {
    state = .over
    guard stream.isOpen else { return }
    let wasOwed = stream.isDelivered && !stream.isAnswered
    stream.end()
    if wasOwed { delegate.cancelled(stream) }
  }

  public func checkTime() -> HTTPLimit? {
    guard let beganAt, now > beganAt &+ limits.request.limitNanoseconds else { return nil }
    delegate.ranInto(.requestTime)
    fail(408)
    return nil
  }

  private func fail(_ status: Int) {
    keepAlive = false
    stream.begin(id: 0)
    respond(stream, head: ResponseHead(status), body: [], trailers: nil)
    state = .over
  }

  private var isAdvancing = false
  private func advance() {
    // Answering may happen within `received`; the loop below then goes on by itself.
    guard !isAdvancing else { return }
    isAdvancing = true
    defer { isAdvancing = false }
    while true {
      switch state {
      case .head:
        guard !input.isEmpty, parseHead() else { return }
      case .body:
        guard input.count >= bodyLength else { return }
        stream.body.append(contentsOf: input[..<bodyLength])
        input.removeFirst(bodyLength)
        state = .answering
        stream.isDelivered = true
        delegate.received(stream)
      case .answering, .over: return
      }
    }
  }

  /// - Returns: false while the head is incomplete.
  private func parseHead() -> Bool {
    // A head ended by bare LFs never ends by CRLF CRLF: it is refused instead of waiting for more.
    guard !hasBareEnd else {
      fail(400)
      return true
    }
    guard let end = endOfHead() else {
      if input.count > limits.headerListBytes {
        delegate.ranInto(.headerList)
        fail(431)
      }
      return false
    }
    let head = Array(input[..<end])
    input.removeFirst(end + 4)
    guard end <= limits.headerListBytes else {
      delegate.ranInto(.headerList)
      fail(431)
      return true
    }
    if let status = read(head) {
      fail(status)
    } else {
      state = .body
    }
    return true
  }

  private func endOfHead() -> Int? {
    guard input.count >= 4 else { return nil }
    for index in 0...(input.count - 4)
    where input[index] == 13 && input[index + 1] == 10 && input[index + 2] == 13 && input[index + 3] == 10 {
      return index
    }
    return nil
  }

  /// Whether two LFs in a row come before the head's end.
  private var hasBareEnd: Bool {
    for index in input.indices.dropFirst() where input[index] == 10 {
      if input[index - 1] == 10 { return true }
      if input[index - 1] == 13, index >= 3, input[index - 2] == 10, input[index - 3] == 13 { return false }
    }
    return false
  }

  /// - Returns: the status to refuse with, or nil when the head is fine.
  private func read(_ head: [UInt8]) -> Int? {
    var lines: [ArraySlice<UInt8>] = []
    var start = 0
    var index = 0
    while index < head.count {
      if head[index] == 13 {
        guard index + 1 < head.count, head[index + 1] == 10 else { return 400 }
        lines.append(head[start..<index])
        start = index + 2
        index += 2
        continue
      }
      guard head[index] != 10, head[index] != 0 else { return 400 }
      index += 1
    }
    lines.append(head[start...])
    let parts = lines[0].split(separator: 32, omittingEmptySubsequences: false)
    guard parts.count == 3, parts.allSatisfy({ !$0.isEmpty }) else { return 400 }
    let version = String(decoding: parts[2], as: UTF8.self)
    guard version.hasPrefix("HTTP/") else { return 400 }
    guard version == "HTTP/1.1" || version == "HTTP/1.0" else { return 505 }
    guard ["GET", "HEAD", "POST"].contains(String(decoding: parts[0], as: UTF8.self)) else { return 405 }
    guard parts[1].first == UInt8(ascii: "/"), parts[1].allSatisfy({ $0 > 32 && $0 < 127 }) else { return 400 }
    stream.begin(id: 0)
    append(":method", parts[0])
    append(":path", parts[1])
    stream.isHead = parts[0].first == UInt8(ascii: "H")
    keepAlive = version == "HTTP/1.1"
    bodyLength = 0
    var hasLength = false
    var hosts = 0
    for line in lines.dropFirst() {
      guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon > line.startIndex else { return 400 }
      let rawName = line[..<colon]
      guard rawName.allSatisfy(Self.isToken) else { return 400 }
      let name = String(decoding: rawName, as: UTF8.self).lowercased()
      var value = line[(colon + 1)...]
      while let first = value.first, first == 32 || first == 9 { value.removeFirst() }
      while let last = value.last, last == 32 || last == 9 { value.removeLast() }
      switch name {
      case "transfer-encoding": return 400
      case "content-length":
        guard !hasLength, !value.isEmpty, value.count <= 12, value.allSatisfy({ (48...57).contains($0) }) else {
          return 400
        }
        hasLength = true
        bodyLength = value.reduce(0) { $0 * 10 + Int($1 - 48) }
        guard bodyLength <= limits.bodyBytes else {
          delegate.ranInto(.body)
          return 413
        }
      case "host": hosts += 1
      case "connection":
        let tokens = String(decoding: value, as: UTF8.self).lowercased()
        if tokens.contains("close") { keepAlive = false }
        if tokens.contains("keep-alive"), version == "HTTP/1.0" { keepAlive = true }
      case "expect": return 400
      default: break
      }
      append(name, value)
    }
    guard version == "HTTP/1.0" || hosts == 1 else { return 400 }
    if stream.isMethod("POST"), !hasLength { return 400 }
    return nil
  }

  private func append(_ name: String, _ value: ArraySlice<UInt8>) {
    var name = name
    name.withUTF8 { name in
      value.withUnsafeBytes { stream.headers.append(name: UnsafeRawBufferPointer(name), value: $0) }
    }
  }
  private static func isToken(_ byte: UInt8) -> Bool {
    switch byte {
    case 48...57, 65...90, 97...122: true
    default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
    }
  }
}
