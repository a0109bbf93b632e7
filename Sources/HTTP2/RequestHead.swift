import CNGHTTP2

/// The headers that all calls of one method have in common, made once. What differs from call to call is the authority,
/// which the session knows, and at most one header more, such as the time that a call has left.
///
/// The bytes live as long as the head, and a call keeps its head until it has ended, so nghttp2 is told not to copy.
public final class RequestHead: @unchecked Sendable {
  /// `:method :scheme :authority :path …`; the authority's value is filled in by the session.
  let fields: UnsafeMutableBufferPointer<nghttp2_nv>
  static let authorityPlace = 2
  /// The name of the header that differs from call to call, without a value.
  let varying: nghttp2_nv?
  private let storage: UnsafeMutableBufferPointer<UInt8>

  /// - Parameter varying: the lower-case name of the header whose value each call gives.
  public init(method: String, path: String, headers: [(String, String)] = [], varying: String? = nil) {
    let pairs = [(":method", method), (":scheme", "http"), (":authority", ""), (":path", path)] + headers
    let length = pairs.reduce(varying?.utf8.count ?? 0) { $0 + $1.0.utf8.count + $1.1.utf8.count }
    storage = .allocate(capacity: max(1, length))
    fields = .allocate(capacity: pairs.count)
    var next = storage.baseAddress!
    func store(_ text: String) -> (UnsafeMutablePointer<UInt8>, Int) {
      let start = next
      for byte in text.utf8 {
        next.pointee = byte
        next += 1
      }
      return (start, next - start)
    }
    func field(_ name: String, _ value: String, _ flags: nghttp2_nv_flag) -> nghttp2_nv {
      let (name, nameLength) = store(name)
      let (value, valueLength) = store(value)
      return nghttp2_nv(
        name: name, value: value, namelen: nameLength, valuelen: valueLength,
        flags: UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | flags.rawValue))
    }
    for (index, pair) in pairs.enumerated() {
      (fields.baseAddress! + index).initialize(to: field(pair.0, pair.1, NGHTTP2_NV_FLAG_NO_COPY_VALUE))
    }
    self.varying = varying.map { field($0, "", NGHTTP2_NV_FLAG_NONE) }
  }
  deinit {
    fields.deallocate()
    storage.deallocate()
  }
}
