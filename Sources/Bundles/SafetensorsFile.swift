import Foundation

// The safetensors format, as far as factors need it:
//
//     header length u64 (little-endian)
//     header, JSON: {"items": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}, …}
//     the tensors' bytes; offsets count from the end of the header
//
// Every number is checked before it is used; a tensor is copied out, nothing is mapped.

public enum SafetensorsFile {
  /// The longest header that is read: room for thousands of tensors.
  static let headerBytesMax = 1 << 20

  /// Reads one two-dimensional float32 tensor.
  ///
  /// - Throws: `InputError` that says which tensor is wrong and how; names those there are when it is missing.
  public static func read(_ path: String, tensor name: String) throws(InputError) -> Matrix {
    let file = try InputFile(path: path)
    guard file.size >= 8 else { throw InputError(file: path, "\(file.size) bytes; a safetensors file has at least 8") }
    var prefix = [UInt8](repeating: 0, count: 8)
    try prefix.filled(from: file)
    let length = prefix.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    guard length <= UInt64(min(headerBytesMax, file.size - 8)) else {
      throw InputError(file: path, "a header of \(length) bytes does not fit, or is longer than \(headerBytesMax)")
    }
    var header = [UInt8](repeating: 0, count: Int(length))
    try header.filled(from: file)
    guard let tensors = (try? JSONSerialization.jsonObject(with: Data(header))) as? [String: Any] else {
      throw InputError(file: path, "its header is not a JSON object")
    }
    guard let entry = tensors[name] as? [String: Any] else {
      let names = tensors.keys.filter { $0 != "__metadata__" }.sorted().prefix(20).joined(separator: ", ")
      throw InputError(file: path, "holds no tensor \"\(name)\"; it has \(names)")
    }
    guard entry["dtype"] as? String == "F32" else {
      throw InputError(file: path, "tensor \"\(name)\" is \(entry["dtype"] ?? "of no type"); allowed: F32")
    }
    guard let shape = entry["shape"] as? [Int], shape.count == 2, shape.allSatisfy({ (0...1 << 32).contains($0) })
    else {
      throw InputError(file: path, "tensor \"\(name)\" must have two dimensions")
    }
    let data = file.size - 8 - Int(length)
    let (count, overflow) = shape[0].multipliedReportingOverflow(by: shape[1])
    guard !overflow, count <= data / 4, let offsets = entry["data_offsets"] as? [Int], offsets.count == 2,
      offsets[0] >= 0, offsets[0] <= data, offsets[1] == offsets[0] + count * 4, offsets[1] <= data
    else { throw InputError(file: path, "tensor \"\(name)\": its place does not fit its shape or the file") }
    var skipped = [UInt8](repeating: 0, count: 1 << 16)
    var toSkip = offsets[0]
    while toSkip > 0 {
      if skipped.count > toSkip { skipped.removeLast(skipped.count - toSkip) }
      try skipped.filled(from: file)
      toSkip -= skipped.count
    }
    var values = [Float](repeating: 0, count: count)
    try values.filled(from: file)
    return Matrix(rows: shape[0], columns: shape[1], values: values)
  }
}

extension Array where Element: BitwiseCopyable {
  /// Overwrites the array with as many bytes of the file as it holds.
  fileprivate mutating func filled(from file: borrowing InputFile) throws(InputError) {
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: count * MemoryLayout<Element>.stride, alignment: 16)
    defer { bytes.deallocate() }
    try file.readExactly(into: bytes)
    withUnsafeMutableBytes { $0.copyMemory(from: UnsafeRawBufferPointer(bytes)) }
  }
}
