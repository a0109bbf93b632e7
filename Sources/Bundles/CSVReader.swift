import Glibc

// A table in a text file, row after row, in memory that does not grow with the file.
//
//     buffer   …"A,1\n" "B,\"2\n3\"\n" "C,4…          ← one chunk of the file; a row that reaches its end is moved to
//                        └──────────── row (line 2)     the front and read again with more bytes behind it
//     cells     [start, end) per cell, quotes stripped; doubled quotes are undone in place
//
// RFC 4180: a header line; cells separated by commas; a cell may stand in quotes, and then holds commas, line ends and
// doubled quotes; lines end with LF or CRLF. Stricter than many readers where a guess could corrupt data: a quote
// inside an unquoted cell, a lone CR, a row with another number of cells than the header and invalid UTF-8 are refused
// with their line. A UTF-8 byte order mark and empty lines at the very end are passed over.

/// Reads a CSV file row by row.
///
///     var reader = try CSVReader(path: "interactions.csv")
///     let item = try reader.column("item")
///     while let row = try reader.next() { use(row.bytes(item), row.line) }
public struct CSVReader {
  /// A row longer than this is refused: most likely a quote that is never closed.
  public static let rowBytesMax = 16 << 20
  static let chunkBytes = 1 << 20

  public let path: String
  /// The first line's cells. Names are unique; one may be empty.
  public let header: [String]
  /// Bytes of the file, and how many of them have been read: for a progress bar.
  public var bytesTotal: Int { buffer.fileSize }
  public var bytesRead: Int { buffer.fileOffset }
  let buffer: CSVBuffer

  /// Opens the file and reads its header.
  public init(path: String) throws(InputError) {
    self.path = path
    buffer = try CSVBuffer(path: path)
    try buffer.start()
    guard let line = try buffer.nextRow(columns: nil) else {
      throw InputError(file: path, "is empty; a CSV file starts with a header line")
    }
    let first = CSVRow(buffer: buffer, line: line)
    header = (0..<first.count).map { first[$0] }
    var seen = Set<String>()
    for name in header where !seen.insert(name).inserted {
      throw InputError(file: path, line: line, "the header names the column \"\(name)\" twice")
    }
  }

  /// The next row, or `nil` at the end. It is valid until the next call.
  ///
  /// - Throws: `InputError` with the row's line when the number of cells differs from the header's, a quote is
  /// misplaced
  ///   or never closed, or the bytes are not UTF-8.
  public mutating func next() throws(InputError) -> CSVRow? {
    guard let line = try buffer.nextRow(columns: header.count) else { return nil }
    return CSVRow(buffer: buffer, line: line)
  }

  /// The place of the column with this name.
  ///
  /// - Throws: when there is none; names those there are.
  public func column(_ name: String) throws(InputError) -> Int {
    if let index = header.firstIndex(of: name) { return index }
    let names = header.prefix(20).map { "\"\($0)\"" }.joined(separator: ", ")
    throw InputError(file: path, line: 1, "no column \"\(name)\"; the header has \(names)")
  }
}

/// One row of a CSV file, valid until its reader's next `next()`.
public struct CSVRow {
  let buffer: CSVBuffer
  /// The line of the file on which the row starts, counted from 1.
  public let line: Int

  public var count: Int { buffer.cells.count }

  /// The cell's bytes: valid UTF-8, without quotes; valid until the next row is read.
  public func bytes(_ index: Int) -> UnsafeRawBufferPointer { buffer.bytes(index) }

  /// The cell's text, copied.
  public subscript(index: Int) -> String { String(decoding: bytes(index), as: UTF8.self) }

  public func isEmpty(_ index: Int) -> Bool { buffer.cells[index].isEmpty }

  /// The cell as a finite decimal number.
  ///
  /// - Throws: when it is empty or anything else, named by line and column.
  public func double(_ index: Int) throws(InputError) -> Double {
    if let value = DecimalNumber.parse(bytes(index)) { return value }
    throw error("column \(index + 1): \"\(excerpt(index))\" is not a finite decimal number")
  }

  /// The cell as an id: 1–255 bytes without control characters.
  public func id(_ index: Int) throws(InputError) -> String {
    if let problem = ExternalID.problem(bytes(index)) { throw error("column \(index + 1): \(problem)") }
    return self[index]
  }

  /// An error that names this row.
  public func error(_ reason: String) -> InputError { InputError(file: buffer.path, line: line, reason) }

  /// The cell's text, shortened for a message.
  public func excerpt(_ index: Int) -> String {
    let cell = bytes(index)
    let text = String(decoding: cell.prefix(60), as: UTF8.self)
    return cell.count > 60 ? text + "…" : text
  }
}

/// What may be an id of an item or a user.
public enum ExternalID {
  /// What is wrong with these bytes (known to be UTF-8) as an id; `nil` = nothing.
  public static func problem(_ bytes: UnsafeRawBufferPointer) -> String? {
    if bytes.isEmpty { return "empty id; ids have 1–255 bytes" }
    if bytes.count > itemIDBytesMax { return "an id of \(bytes.count) bytes; ids have 1–255 bytes" }
    if bytes.contains(where: { $0 < 0x20 || $0 == 0x7F }) { return "an id with a control character (tab, line end, …)" }
    return nil
  }
  static let itemIDBytesMax = 255
}
