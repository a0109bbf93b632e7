import CNGHTTP2

/// A status and headers (or trailers) in the form that the wire needs, made once and used for every response alike.
///
/// A stream keeps its head until it is closed.
public final class ResponseHead: @unchecked Sendable {
  private let all: HeaderFields
  var fields: UnsafeMutableBufferPointer<nghttp2_nv> { all.fields }
  /// The same as HTTP/1.1 text, up to and without `content-length`.
  let http1: [UInt8]
  public let status: Int
  var count: Int { all.fields.count }

  /// - Parameter status: 200…599, or 0 for trailers.
  public init(_ status: Int, _ headers: [(String, String)] = []) {
    self.status = status
    all = HeaderFields((status != 0 ? [(":status", "\(status)")] : []) + headers)
    var text = "HTTP/1.1 \(status) \(Self.reason(status))\r\n"
    for (name, value) in headers { text += "\(name): \(value)\r\n" }
    http1 = Array(text.utf8)
  }

  private static func reason(_ status: Int) -> String {
    switch status {
    case 200: "OK"
    case 400: "Bad Request"
    case 401: "Unauthorized"
    case 403: "Forbidden"
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
