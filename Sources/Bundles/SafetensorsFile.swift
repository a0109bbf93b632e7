import Foundation

/// Factors in the safetensors format (Safetensors.swift): one tensor is copied out, however long the file is.
public enum SafetensorsFile {
  /// Reads one two-dimensional float32 tensor.
  ///
  /// - Throws: `InputError` that says which tensor is wrong and how; names those there are when it is missing.
  public static func read(_ path: String, tensor name: String) throws(InputError) -> Matrix {
    let file = try InputFile(path: path)
    guard file.size >= 8 else { throw InputError(file: path, "\(file.size) bytes; a safetensors file has at least 8") }
    var prefix = [UInt8](repeating: 0, count: 8)
    try prefix.filled(from: file)
    guard let length = SafetensorsHeader.length(prefix, fileSize: file.size) else {
      throw InputError(
        file: path, "its header does not fit its \(file.size) bytes, or is longer than \(SafetensorsHeader.bytesMax)")
    }
    var json = [UInt8](repeating: 0, count: length)
    try json.filled(from: file)
    let header = try SafetensorsHeader(Data(json), path: path, dataBytes: file.size - 8 - length)
    let tensor = try header.tensor(name, kinds: [.float32])
    guard tensor.shape.count == 2 else {
      throw InputError(file: path, "tensor \"\(name)\" must have two dimensions")
    }
    var skipped = [UInt8](repeating: 0, count: 1 << 16)
    var toSkip = tensor.offset
    while toSkip > 0 {
      if skipped.count > toSkip { skipped.removeLast(skipped.count - toSkip) }
      try skipped.filled(from: file)
      toSkip -= skipped.count
    }
    var values = [Float](repeating: 0, count: tensor.count)
    try values.filled(from: file)
    return Matrix(rows: tensor.shape[0], columns: tensor.shape[1], values: values)
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
