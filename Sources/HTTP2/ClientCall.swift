/// A response as a value of its own, for callers that keep it.
public struct ClientResponse: Sendable, Equatable {
  public var status = 0
  public var grpcStatus: Int?
  public var grpcMessage = ""
  public var body: [UInt8] = []
}

/// Why a call brought no response.
public enum ClientFailure: Error, Sendable, Equatable {
  /// The connection ended, or was not there.
  case connectionLost
  /// The peer did not take the stream: it has too many, or (after GOAWAY) it is leaving.
  case refused
  case reset(code: UInt32)
  case cancelled
  case responseTooLarge
}

/// How a call ended.
public enum CallOutcome {
  /// The response is lent until the handler returns; then the call's buffers serve another call.
  case response(ClientCall)
  case failure(ClientFailure)
}

/// Is told how calls end.
public protocol CallHandler: AnyObject {
  /// Exactly once for every call that was taken, and never before it was.
  /// - Parameter token: what the caller gave with the call.
  func ended(_ token: UInt64, _ outcome: CallOutcome)
}

/// Is told of a call's response while it comes: for calls whose request and response are streams of messages.
///
///     open ─► send, send … ─► finish        the request, as long as the caller likes
///          ◄─ received … received ◄─ ended  the response, in pieces that follow no message's bounds
public protocol StreamHandler: CallHandler {
  /// Bytes of the response body in the order of sending, lent until this returns; never after `ended`. The call may be
  /// cancelled from within. The `ClientCall` of `ended` has an empty body.
  func received(_ token: UInt64, _ bytes: UnsafeRawBufferPointer)
}

/// One call on a connection, its request and its response; used again for later calls of the connection.
///
/// Only the thread of its connection touches it, and the one access that calls out, to have the body written, is to a
/// call that nobody else has yet: checks for overlapping accesses, twenty a leg, would find nothing. `ServerStream` is
/// alike; it is marked as answered before its body is written.
public final class ClientCall {
  @exclusivity(unchecked) public internal(set) var status = 0
  @exclusivity(unchecked) public internal(set) var grpcStatus: Int?
  @exclusivity(unchecked) var message: [UInt8] = []
  @exclusivity(unchecked) public internal(set) var body: [UInt8] = []

  @exclusivity(unchecked) var id: Int32 = 0
  @exclusivity(unchecked) var openIndex = 0
  @exclusivity(unchecked) var token: UInt64 = 0
  @exclusivity(unchecked) var handler: (any CallHandler)?
  @exclusivity(unchecked) var head: RequestHead?
  @exclusivity(unchecked) var request: [UInt8] = []
  @exclusivity(unchecked) var sent = 0
  @exclusivity(unchecked) var failure: ClientFailure?
  /// Set for a stream: gets the response body as it comes.
  @exclusivity(unchecked) var stream: (any StreamHandler)?
  /// More of the request may follow what is in `request`.
  @exclusivity(unchecked) var isRequestOpen = false
  /// nghttp2 was told to wait until there is more of the request.
  @exclusivity(unchecked) var isWaiting = false

  /// Bytes of buffers that are kept for the next call.
  private static let keptBytesMax = 64 << 10

  init() {}
  public var grpcMessage: String { String(decoding: message, as: UTF8.self) }
  /// The response as a value of its own.
  public var copy: ClientResponse {
    ClientResponse(status: status, grpcStatus: grpcStatus, grpcMessage: grpcMessage, body: body)
  }

  /// Makes the call ready for its next use.
  func reset() {
    status = 0
    grpcStatus = nil
    if !message.isEmpty { message.removeAll(keepingCapacity: true) }
    if body.capacity > Self.keptBytesMax { body = [] } else { body.removeAll(keepingCapacity: true) }
    if request.capacity > Self.keptBytesMax { request = [] } else { request.removeAll(keepingCapacity: true) }
    handler = nil
    head = nil
    sent = 0
    failure = nil
    stream = nil
    isRequestOpen = false
    isWaiting = false
  }

  /// Takes up to `length` bytes of the request for a DATA frame.
  func takeRequest(into buffer: UnsafeMutablePointer<UInt8>, length: Int) -> Int {
    let count = min(length, request.count - sent)
    request.withUnsafeBufferPointer { bytes in
      if count > 0 { buffer.update(from: bytes.baseAddress! + sent, count: count) }
    }
    sent += count
    if isRequestOpen, sent == request.count {
      request.removeAll(keepingCapacity: request.capacity <= Self.keptBytesMax)
      sent = 0
    }
    return count
  }
}
