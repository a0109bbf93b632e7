/// A list of ids as text: one per line, UTF-8, 1–255 bytes, none twice. The line is the row of the vectors beside it.
public enum IDFile {
  /// - Throws: `InputError` that names the line of an empty, overlong, malformed or repeated id.
  public static func read(_ path: String) throws(InputError) -> [String] {
    let table = try readTable(path)
    return table.strings
  }

  /// The same as a table that finds an id's line again.
  public static func readTable(_ path: String) throws(InputError) -> IDTable {
    let bytes = try InputFile.readAll(path: path, limit: bytesMax)
    var ids = IDTable()
    var start = 0
    while start < bytes.count {
      var end = bytes[start...].firstIndex(of: UInt8(ascii: "\n")) ?? bytes.count
      let next = end + 1
      if end > start, bytes[end - 1] == UInt8(ascii: "\r") { end -= 1 }
      let line = ids.count + 1
      let problem: String? = bytes.withUnsafeBytes { all in
        let id = UnsafeRawBufferPointer(rebasing: all[start..<end])
        if let bad = UTF8Check.firstInvalidByte(id) { return "invalid UTF-8 (byte 0x\(hex(id[bad])))" }
        if let problem = ExternalID.problem(id) { return problem }
        let (index, inserted) = ids.insert(id)
        if inserted { return nil }
        return "duplicate id \"\(String(decoding: id, as: UTF8.self))\", first on line \(index + 1)"
      }
      if let problem { throw InputError(file: path, line: line, problem) }
      start = next
    }
    return ids
  }

  /// Writes one id per line; the file appears whole or not at all.
  ///
  /// - Throws: also when an id could not be read back, or is there twice.
  public static func write(_ ids: [String], to path: String) throws(InputError) {
    var file = try AtomicFile(path: path)
    var seen = IDTable(minimumCapacity: ids.count)
    for (index, id) in ids.enumerated() {
      var id = id
      if let problem = id.withUTF8({ ExternalID.problem(UnsafeRawBufferPointer($0)) }) {
        throw InputError(file: path, line: index + 1, problem)
      }
      guard seen.insert(id).inserted else { throw InputError(file: path, line: index + 1, "duplicate id \"\(id)\"") }
      try file.write(id)
      try file.write("\n")
    }
    try file.commit()
  }

  static let bytesMax = 64 << 30
}
