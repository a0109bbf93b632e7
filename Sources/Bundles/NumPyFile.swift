import Glibc

// A `.npy` file (NumPy enhancement proposal 1): a magic, a header that is a Python dictionary in ASCII, the raw values.
//
//     \x93NUMPY 1 0 | length u16 (version 2: u32) | {'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }␠␠\n | …
//
// What is read and written here is exactly what `numpy.save` makes of a float32 array with two dimensions in C order.
// Everything else is refused with the line of Python that would make it right.

public enum NumPyFile {
  /// Reads a two-dimensional float32 array. Nothing is allocated before the file's size has been found to fit its
  /// header.
  public static func read(_ path: String) throws(InputError) -> Matrix {
    let file = try InputFile(path: path)
    var prefix: [UInt8] = []
    try prefix.append(readingExactly: min(12, file.size), from: file)
    guard prefix.count >= 10, prefix.starts(with: magic) else {
      throw InputError(file: path, "is not a .npy file (it does not start with \\x93NUMPY)")
    }
    let version = prefix[6]
    guard (1...3).contains(version) else {
      throw InputError(file: path, ".npy format version \(version).\(prefix[7]), versions 1 to 3 are read")
    }
    let start = version == 1 ? 10 : 12
    guard prefix.count == 12 else { throw InputError(file: path, "ends inside its header") }
    let length =
      version == 1
      ? Int(prefix[8]) | Int(prefix[9]) << 8
      : Int(prefix[8]) | Int(prefix[9]) << 8 | Int(prefix[10]) << 16 | Int(prefix[11]) << 24
    guard length <= headerBytesMax else {
      throw InputError(file: path, "a header of \(length) bytes, at most \(headerBytesMax) are allowed")
    }
    guard start + length <= file.size else { throw InputError(file: path, "ends inside its header") }
    var header = Array(prefix[start...])
    if length > header.count { try header.append(readingExactly: length - header.count, from: file) }
    // A header shorter than what was read ahead does not exist: the dictionary alone is longer.
    guard length >= header.count else { throw InputError(file: path, "a header of \(length) bytes is too short") }

    let (rows, columns) = try shape(String(decoding: header, as: UTF8.self), path: path)
    let (count, overflow) = rows.multipliedReportingOverflow(by: columns)
    let (bytes, overflowed) = count.multipliedReportingOverflow(by: 4)
    guard !overflow, !overflowed, bytes == file.size - start - length else {
      throw InputError(
        file: path,
        "holds \(file.size - start - length) bytes of values, shape (\(rows), \(columns)) of float32 needs "
          + (overflow || overflowed ? "more than a file can have" : "\(bytes)"))
    }
    return Matrix(rows: rows, columns: columns, values: try readFloats(count, from: file))
  }

  /// Writes it as `numpy.save` would; the file appears whole or not at all.
  public static func write(_ matrix: Matrix, to path: String) throws(InputError) {
    try write("<f4", rows: matrix.rows, columns: matrix.columns, matrix.values, to: path)
  }

  /// Writes rows of one length as an int64 array.
  public static func write(_ rows: [[Int64]], to path: String) throws(InputError) {
    let columns = rows.first?.count ?? 0
    precondition(rows.allSatisfy { $0.count == columns }, "the rows have one length")
    try write("<i8", rows: rows.count, columns: columns, rows.flatMap(\.self), to: path)
  }

  private static func write<Value: BitwiseCopyable>(
    _ type: String, rows: Int, columns: Int, _ values: [Value], to path: String
  ) throws(InputError) {
    var file = try AtomicFile(path: path)
    var header = "{'descr': '\(type)', 'fortran_order': False, 'shape': (\(rows), \(columns)), }"
    let padding = 63 - (magic.count + 4 + header.utf8.count) % 64
    header += String(repeating: " ", count: padding) + "\n"
    let length = header.utf8.count
    try file.write(magic + [1, 0, UInt8(length & 0xFF), UInt8(length >> 8)])
    try file.write(header)
    var failure: InputError?
    values.withUnsafeBytes { bytes in
      do throws(InputError) { try file.write(bytes) } catch { failure = error }
    }
    if let failure { throw failure }
    try file.commit()
  }

  static let magic: [UInt8] = [0x93] + Array("NUMPY".utf8)
  static let headerBytesMax = 64 << 10

  /// Reads the three entries of the header's dictionary.
  private static func shape(_ header: String, path: String) throws(InputError) -> (rows: Int, columns: Int) {
    func value(_ key: String) throws(InputError) -> Substring {
      guard let at = header.range(ofText: "'\(key)':") else {
        throw InputError(file: path, "its header has no '\(key)': \(header.prefix(120))")
      }
      return header[at.upperBound...].drop(while: { $0 == " " })
    }
    let type = try value("descr").prefix(while: { $0 != "," })
    guard type == "'<f4'" else {
      throw InputError(
        file: path, "holds values of type \(type.prefix(40)), '<f4' is read: save array.astype(numpy.float32)")
    }
    guard try value("fortran_order").hasPrefix("False") else {
      throw InputError(file: path, "is in Fortran order: save numpy.ascontiguousarray(array)")
    }
    let tuple = try value("shape")
    guard tuple.first == "(", let close = tuple.firstIndex(of: ")") else {
      throw InputError(file: path, "its header's shape is not a tuple")
    }
    let sizes = tuple[tuple.index(after: tuple.startIndex)..<close].split(separator: ",")
      .map { $0.drop(while: { $0 == " " }) }.filter { !$0.isEmpty }
    guard sizes.count == 2 else {
      throw InputError(file: path, "has \(sizes.count) dimensions; one row per id, two dimensions, are needed")
    }
    guard let rows = Int(sizes[0]), let columns = Int(sizes[1]), rows >= 0, columns >= 0 else {
      throw InputError(file: path, "its shape (\(sizes[0]), \(sizes[1])) is no pair of sizes")
    }
    return (rows, columns)
  }
}

/// Reads `count` float32 that the file is known to have.
func readFloats(_ count: Int, from file: borrowing InputFile) throws(InputError) -> [Float] {
  var failure: InputError?
  let values = [Float](unsafeUninitializedCapacity: count) { buffer, filled in
    do throws(InputError) {
      let bytes = UnsafeMutableRawBufferPointer(buffer)
      try file.readExactly(into: UnsafeMutableRawBufferPointer(rebasing: bytes[0..<count * 4]))
      filled = count
    } catch {
      failure = error
    }
  }
  if let failure { throw failure }
  return values
}

extension [UInt8] {
  mutating func append(readingExactly count: Int, from file: borrowing InputFile) throws(InputError) {
    let start = self.count
    append(contentsOf: repeatElement(0, count: count))
    var failure: InputError?
    withUnsafeMutableBytes { bytes in
      do throws(InputError) {
        try file.readExactly(into: UnsafeMutableRawBufferPointer(rebasing: bytes[start...]))
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
  }
}

extension String {
  func range(ofText text: String) -> Range<String.Index>? {
    var start = startIndex
    while start < endIndex {
      if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
      start = index(after: start)
    }
    return nil
  }
}
