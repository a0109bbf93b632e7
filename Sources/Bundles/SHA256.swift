import COpenSSL

/// SHA-256 by OpenSSL, which uses the processor's own instructions.
package struct SHA256: ~Copyable {
  private let context: OpaquePointer?
  private var failed = false

  init() {
    context = EVP_MD_CTX_new()
    failed = context == nil || EVP_DigestInit_ex(context, EVP_sha256(), nil) != 1
  }

  deinit { EVP_MD_CTX_free(context) }

  mutating func update(_ bytes: UnsafeRawBufferPointer) {
    if bytes.count > 0, !failed { failed = EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) != 1 }
  }

  /// The sum as 64 hexadecimal digits; empty, and so equal to no sum, should OpenSSL fail.
  consuming func finish() -> String {
    var digest = [UInt8](repeating: 0, count: 32)
    var length: UInt32 = 0
    guard !failed, EVP_DigestFinal_ex(context, &digest, &length) == 1, length == 32 else { return "" }
    return digest.map(hex).joined()
  }

  package static func of(_ bytes: UnsafeRawBufferPointer) -> String {
    var sum = SHA256()
    sum.update(bytes)
    return sum.finish()
  }

  /// The sum itself, 32 bytes; empty, and so equal to no sum, should OpenSSL fail.
  package static func bytes(of bytes: [UInt8]) -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: 32)
    var length: UInt32 = 0
    guard EVP_Digest(bytes, bytes.count, &digest, &length, EVP_sha256(), nil) == 1, length == 32 else { return [] }
    return digest
  }

  /// The sum and size of a file of any length.
  static func of(file path: String) throws(InputError) -> (size: Int, sum: String) {
    let file = try InputFile(path: path)
    var sum = SHA256()
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 64)
    defer { buffer.deallocate() }
    var size = 0
    while true {
      let count = try file.read(into: buffer)
      if count == 0 { return (size, sum.finish()) }
      size += count
      sum.update(UnsafeRawBufferPointer(rebasing: buffer[0..<count]))
    }
  }
}
