import CNGHTTP2

/// A status and headers (or trailers) in the form that the wire needs, made once and used for every response alike.
///
/// The bytes live as long as the head, and a stream keeps its head until it is closed, so nghttp2 is told not to copy.
public final class ResponseHead: @unchecked Sendable {
  let fields: UnsafeMutableBufferPointer<nghttp2_nv>
  private let storage: UnsafeMutableBufferPointer<UInt8>
  /// The same as HTTP/1.1 text, up to and without `content-length`.
  let http1: [UInt8]
  public let status: Int

  /// - Parameter status: 200…599, or 0 for trailers.
  public init(_ status: Int, _ headers: [(String, String)] = []) {
    self.status = status
    var pairs = headers
    if status != 0 { pairs.insert((":status", "\(status)"), at: 0) }
    storage = .allocate(capacity: max(1, pairs.reduce(0) { $0 + $1.0.utf8.count + $1.1.utf8.count }))
    fields = .allocate(capacity: max(1, pairs.count))
    count = pairs.count
    var next = storage.baseAddress!
    func store(_ text: String) -> (UnsafeMutablePointer<UInt8>, Int) {
      let start = next
      for byte in text.utf8 {
        next.pointee = byte
        next += 1
      }
      return (start, next - start)
    }
    for (index, pair) in pairs.enumerated() {
      let (name, nameLength) = store(pair.0)
      let (value, valueLength) = store(pair.1)
      (fields.baseAddress! + index).initialize(
        to: nghttp2_nv(
          name: name, value: value, namelen: nameLength, valuelen: valueLength,
          flags: UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | NGHTTP2_NV_FLAG_NO_COPY_VALUE.rawValue)))
    }
    var text = "HTTP/1.1 \(status) \(Self.reason(status))\r\n"
    for (name, value) in headers { text += "\(name): \(value)\r\n" }
    http1 = Array(text.utf8)
  }
  let count: Int
  deinit {
    fields.deallocate()
    storage.deallocate()
  }

  private static func reason(_ status: Int) -> String {
    switch status {
    case 200: "OK"
    case 400: "Bad Request"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 408: "Request Timeout"
    case 413: "Content Too Large"
    case 431: "Request Header Fields Too Large"
    case 500: "Internal Server Error"
    case 503: "Service Unavailable"
    case 504: "Gateway Timeout"
    case 505: "HTTP Version Not Supported"
    default: "Status"
    }
  }
}
