/// The messages of a stream whose bytes come in pieces of any size.
public struct GRPCStream: Sendable {
  private var pending: [UInt8] = []
  /// Where the next message begins.
  private var start = 0
  private let messageBytesMax: Int

  public init(messageBytesMax: Int) { self.messageBytesMax = messageBytesMax }

  /// Hands each message that is whole now to `body`; a message that announces more than the limit ends the stream,
  /// before anything is kept of it.
  public mutating func receive(
    _ bytes: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Void
  ) throws(GRPC.StatusError) {
    pending.append(contentsOf: bytes)
    while pending.count - start >= GRPC.prefixBytes {
      guard pending[start] == 0 else {
        throw GRPC.StatusError(.unimplemented, "compressed messages are not supported; send grpc-encoding identity")
      }
      let length = pending[start + 1..<start + GRPC.prefixBytes].reduce(0) { $0 << 8 | Int($1) }
      guard length <= messageBytesMax else {
        throw GRPC.StatusError(.resourceExhausted, "a message of \(length) bytes, at most \(messageBytesMax) are taken")
      }
      let end = start + GRPC.prefixBytes + length
      guard pending.count >= end else { break }
      pending.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[(start + GRPC.prefixBytes)..<end])) }
      start = end
    }
    // What is left is moved once it is the smaller part, so that each byte is moved a bounded number of times.
    if start == pending.count || start > pending.count / 2 {
      pending.removeFirst(start)
      start = 0
    }
  }
}
