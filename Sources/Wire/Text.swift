// Bytes from the network that should be text. Almost all of it is ASCII, which needs no decoding, only a look.

extension UnsafeRawBufferPointer {
  @inline(__always)
  var isASCII: Bool {
    var all: UInt8 = 0
    for byte in self { all |= byte }
    return all < 0x80
  }
}

extension String {
  /// The text of UTF-8 bytes; nil when they are not UTF-8.
  init?(text bytes: UnsafeRawBufferPointer) {
    if bytes.isASCII {
      self.init(unsafeUninitializedCapacity: bytes.count) { text in
        UnsafeMutableRawBufferPointer(text).copyMemory(from: bytes)
        return bytes.count
      }
    } else {
      self.init(validating: bytes, as: UTF8.self)
    }
  }
}
