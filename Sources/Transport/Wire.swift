import HTTP2

/// Between a session and its socket: bytes as they are, or as TLS records.
///
///     socket ─► received ─► [TLS] ─► session
///     socket ◄─ unsent ◄── [TLS] ◄─ session
final class Wire {
  let tls: TLSSession?
  private var plain: [UInt8] = []

  init(_ tls: TLSSession?) { self.tls = tls }

  /// Hands on what bytes from the socket say.
  func receive(
    _ bytes: UnsafeRawBufferPointer, room: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Void
  ) {
    guard let tls else { return body(bytes) }
    tls.receive(bytes, room: room, body)
  }

  /// Fills an empty buffer with what is to go to the socket next.
  /// - Parameter output: appends what the session has to say.
  func fill(_ unsent: inout [UInt8], _ output: (inout [UInt8]) -> Void) {
    guard let tls else { return output(&unsent) }
    if tls.state == .open {
      plain.removeAll(keepingCapacity: true)
      output(&plain)
      if !plain.isEmpty { tls.send(plain) }
    }
    tls.output(into: &unsent)
  }

  /// Why TLS came to its end; nil = it did not, or there is none.
  var failure: TLSError? {
    if case .failed(let error)? = tls?.state { error } else { nil }
  }
  var isClosed: Bool { tls?.state == .closed }
}
