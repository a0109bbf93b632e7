import CNGHTTP2

/// A list of header fields in the form that nghttp2 takes, with bytes of its own: made once, used many times. Whoever
/// hands it to nghttp2 keeps it for as long, so that nothing needs to be copied.
final class HeaderFields: @unchecked Sendable {
  let fields: UnsafeMutableBufferPointer<nghttp2_nv>
  private let storage: UnsafeMutableBufferPointer<UInt8>

  init(_ pairs: [(name: String, value: String)]) {
    storage = .allocate(capacity: max(1, pairs.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }))
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
    for (index, pair) in pairs.enumerated() {
      let (name, nameLength) = store(pair.name)
      let (value, valueLength) = store(pair.value)
      (fields.baseAddress! + index).initialize(
        to: nghttp2_nv(
          name: name, value: value, namelen: nameLength, valuelen: valueLength,
          flags: UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | NGHTTP2_NV_FLAG_NO_COPY_VALUE.rawValue)))
    }
  }
  deinit {
    fields.deallocate()
    storage.deallocate()
  }
}
