import RankingCore

// Unary gRPC over HTTP/2: framing, timeouts, status (the gRPC over HTTP2 protocol description).

public enum GRPC {
  public static let contentType = "application/grpc"
  static let prefixBytes = 5

  public enum Status: Int, Sendable {
    case ok = 0
    case cancelled, unknown, invalidArgument, deadlineExceeded, notFound, alreadyExists, permissionDenied
    case resourceExhausted, failedPrecondition, aborted, outOfRange, unimplemented, `internal`, unavailable, dataLoss
    case unauthenticated
  }

  /// A message with its prefix: one byte "not compressed", four bytes of length.
  public static func frame(_ parts: [UInt8]...) -> [UInt8] {
    let length = parts.reduce(0) { $0 + $1.count }
    var out: [UInt8] = []
    out.reserveCapacity(prefixBytes + length)
    out.append(0)
    for shift in stride(from: 24, through: 0, by: -8) { out.append(UInt8(truncatingIfNeeded: length >> shift)) }
    for part in parts { out.append(contentsOf: part) }
    return out
  }

  /// The same at the end of a buffer that the caller keeps, around what `message` appends.
  public static func frame(into bytes: inout [UInt8], _ message: (inout [UInt8]) -> Void) {
    let start = bytes.count
    for _ in 0..<prefixBytes { bytes.append(0) }
    message(&bytes)
    let length = bytes.count - start - prefixBytes
    for index in 1..<prefixBytes { bytes[start + index] = UInt8(truncatingIfNeeded: length >> (32 - 8 * index)) }
  }

  /// The one message of a unary body.
  public static func message(_ body: UnsafeRawBufferPointer) -> Result<UnsafeRawBufferPointer, StatusError> {
    guard body.count >= prefixBytes else {
      return .failure(StatusError(.internal, "the body ends within a message prefix"))
    }
    guard body[0] == 0 else {
      return .failure(.compressed)
    }
    let length = Int(UInt32(bigEndian: body.loadUnaligned(fromByteOffset: 1, as: UInt32.self)))
    guard body.count == prefixBytes + length else {
      return .failure(
        StatusError(.internal, "the body holds \(body.count - prefixBytes) bytes, its prefix says \(length)"))
    }
    return .success(UnsafeRawBufferPointer(rebasing: body[prefixBytes...]))
  }

  /// The messages that have come whole, taken off the front of a body that grows.
  public static func takeMessages(_ body: inout [UInt8]) -> Result<[[UInt8]], StatusError> {
    var messages: [[UInt8]] = []
    var start = 0
    while body.count - start >= prefixBytes {
      guard body[start] == 0 else { return .failure(.compressed) }
      let length = body[(start + 1)..<(start + prefixBytes)].reduce(0) { $0 << 8 | Int($1) }
      guard length <= messageBytesMax else {
        return .failure(StatusError(.resourceExhausted, "a message of \(length) bytes; allowed: \(messageBytesMax)"))
      }
      guard body.count - start - prefixBytes >= length else { break }
      messages.append(Array(body[(start + prefixBytes)..<(start + prefixBytes + length)]))
      start += prefixBytes + length
    }
    body.removeFirst(start)
    return .success(messages)
  }
  /// Of a stream.
  public static let messageBytesMax = 64 << 10

  public struct StatusError: Error, Sendable, Equatable {
    public static let compressed = StatusError(
      .unimplemented, "compressed messages are not supported; send grpc-encoding identity")
    public var status: Status
    public var message: String
    /// The field of the request that is wrong, where it is one.
    public var field: String?
    public init(_ status: Status, _ message: String, field: String? = nil) {
      self.status = status
      self.message = message
      self.field = field
    }

    /// `grpc-status-details-bin`: a google.rpc.Status with a google.rpc.BadRequest, in base64; nil = nothing to add.
    public var details: String? {
      guard let field else { return nil }
      var writer = ProtoWriter()
      writer.uint(1, UInt64(status.rawValue))
      writer.string(2, message)
      writer.message(3) { any in
        any.string(1, "type.googleapis.com/google.rpc.BadRequest")
        any.message(2) { request in
          request.message(1) {
            $0.string(1, field)
            $0.string(2, message)
          }
        }
      }
      return GRPC.base64(writer.bytes)
    }
  }

  /// `grpc-timeout`: at most eight digits and a unit.
  public static func timeout(_ text: String) -> Duration? {
    guard let unit = text.utf8.last, (2...9).contains(text.utf8.count), let value = Int64(text.dropLast()), value >= 0,
      text.utf8.dropLast().allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
    else { return nil }
    switch unit {
    case UInt8(ascii: "H"): return .seconds(value * 3600)
    case UInt8(ascii: "M"): return .seconds(value * 60)
    case UInt8(ascii: "S"): return .seconds(value)
    case UInt8(ascii: "m"): return .milliseconds(value)
    case UInt8(ascii: "u"): return .microseconds(value)
    case UInt8(ascii: "n"): return .nanoseconds(value)
    default: return nil
    }
  }

  /// Rounded down, as a hop must not believe it has more than it has; never zero. At most three digits are significant:
  /// what the legs of different requests have left then reads alike, and header compression sends it as one byte.
  public static func timeout(_ duration: Duration) -> String {
    var value = max(1, duration.nanoseconds / 1000)
    var unit = UInt8(ascii: "u")
    if value >= 100_000_000 { (value, unit) = (min(99_999_999, value / 1000), UInt8(ascii: "m")) }
    var step: Int64 = 1
    while value / step >= 1000 { step *= 10 }
    value -= value % step
    return String(unsafeUninitializedCapacity: 9) { text in
      var count = 0
      var power: Int64 = 1
      while value / power >= 10 { power *= 10 }
      while power > 0 {
        text[count] = UInt8(ascii: "0") + UInt8(value / power % 10)
        count += 1
        power /= 10
      }
      text[count] = unit
      return count + 1
    }
  }

  public static func status(of failure: CallFailure) -> StatusError {
    switch failure {
    case .connectionLost: StatusError(.unavailable, "connection lost")
    case .overloaded: StatusError(.resourceExhausted, "the worker's queue is full")
    case .wrongVersion: StatusError(.failedPrecondition, "the version or its shards are not held here")
    case .deadlineExceeded: StatusError(.deadlineExceeded, "the deadline has passed")
    case .stale: StatusError(.aborted, "the order is older than one already obeyed")
    case .workerError(let text): StatusError(.internal, text)
    }
  }
  public static func status(of error: RankingError) -> StatusError {
    let status: Status =
      switch error.code {
      case .invalidArgument: .invalidArgument
      case .unauthenticated: .unauthenticated
      case .permissionDenied: .permissionDenied
      case .notFound: .notFound
      case .methodNotAllowed: .unimplemented
      case .tooLarge, .overloaded: .resourceExhausted
      case .unavailable: .unavailable
      case .deadlineExceeded: .deadlineExceeded
      case .cancelled: .cancelled
      case .internal: .internal
      }
    return StatusError(status, error.message, field: error.field)
  }

  /// Without padding, as headers take it.
  static func base64(_ bytes: [UInt8]) -> String {
    let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var text: [UInt8] = []
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let count = min(3, bytes.count - start)
      var group = 0
      for place in 0..<3 { group = group << 8 | (place < count ? Int(bytes[start + place]) : 0) }
      for place in 0...count { text.append(digits[group >> (18 - 6 * place) & 63]) }
    }
    return String(decoding: text, as: UTF8.self)
  }
  public static func failure(of status: Int, message: String) -> CallFailure {
    switch Status(rawValue: status) {
    case .resourceExhausted: .overloaded
    case .failedPrecondition: .wrongVersion
    case .deadlineExceeded, .cancelled: .deadlineExceeded
    case .unavailable: .connectionLost
    case .aborted: .stale
    default: .workerError(message)
    }
  }

  /// What was percent-encoded, for people; what is not a whole escape stays as it is.
  public static func decodeMessage(_ text: String) -> String {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%"), rest.count >= 2,
        let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
      {
        bytes.append(value)
        rest = rest.dropFirst(2)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// `grpc-message` is percent-encoded: all but printable ASCII, and the percent sign.
  public static func encodeMessage(_ text: String) -> String {
    var out = ""
    for byte in text.utf8 {
      if (0x20...0x7E).contains(byte), byte != UInt8(ascii: "%") {
        out.unicodeScalars.append(Unicode.Scalar(byte))
      } else {
        let hex = String(byte, radix: 16, uppercase: true)
        out += byte < 16 ? "%0\(hex)" : "%\(hex)"
      }
    }
    return out
  }
}
