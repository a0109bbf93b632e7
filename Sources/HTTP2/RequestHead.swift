import CNGHTTP2

/// The headers that all calls of one method have in common, made once. What differs from call to call is the authority,
/// which the session knows, and at most one header more, such as the time that a call has left.
///
/// A call keeps its head until it has ended.
public final class RequestHead: @unchecked Sendable {
  private let all: HeaderFields
  /// `:method :scheme :authority :path …`; the authority's value is filled in by the session.
  let fields: UnsafeMutableBufferPointer<nghttp2_nv>
  static let authorityPlace = 2
  /// The name of the header that differs from call to call, without a value.
  let varying: nghttp2_nv?

  /// - Parameter varying: the lower-case name of the header whose value each call gives.
  public init(method: String, path: String, headers: [(String, String)] = [], varying: String? = nil) {
    let pairs = [(":method", method), (":scheme", "http"), (":authority", ""), (":path", path)] + headers
    all = HeaderFields(pairs + (varying.map { [($0, "")] } ?? []))
    fields = UnsafeMutableBufferPointer(rebasing: all.fields[..<pairs.count])
    guard varying != nil else {
      self.varying = nil
      return
    }
    // Its value is the caller's and does not outlive the call that is made with it.
    var last = all.fields[pairs.count]
    last.flags = UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue)
    self.varying = last
  }
}
