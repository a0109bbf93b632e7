import Glibc

/// The bytes behind a `CSVReader`: a window of the file, and where the current row's cells lie in it.
final class CSVBuffer {
  let path: String
  let fileSize: Int
  /// How many bytes of the file have entered the buffer.
  private(set) var fileOffset = 0
  private(set) var cells: [Range<Int>] = []

  private let file: InputFile
  private var memory: UnsafeMutableRawBufferPointer
  /// Valid bytes are `0..<filled`; the next row starts at `position`, on line `line`.
  private var filled = 0
  private var position = 0
  private var line = 1
  private var atEnd = false

  init(path: String) throws(InputError) {
    self.path = path
    file = try InputFile(path: path)
    fileSize = file.size
    memory = .allocate(byteCount: CSVReader.chunkBytes, alignment: 64)
  }

  deinit { memory.deallocate() }

  func bytes(_ index: Int) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[cells[index]])
  }

  /// Looks at the first bytes: a compressed file is refused, a byte order mark is passed over.
  func start() throws(InputError) {
    try refill()
    if filled >= 2, memory[0] == 0x1F, memory[1] == 0x8B {
      throw InputError(file: path, "is gzip-compressed; unpack it first: gunzip -k \(path)")
    }
    if filled >= 3, memory[0] == 0xEF, memory[1] == 0xBB, memory[2] == 0xBF { position = 3 }
  }

  /// Delimits the next row's cells.
  ///
  /// - Returns: the line it starts on; `nil` at the end of the file.
  func nextRow(columns: Int?) throws(InputError) -> Int? {
    while true {
      switch try scan() {
      case .end: return nil
      case .needsMore: try refill()
      case .row(let lines, let highBits, let escapes, let next):
        let start = line
        let blank =
          next - position <= 2 && memory[position] != UInt8(ascii: "\"") && cells.count == 1 && cells[0].isEmpty
        if highBits { try checkUTF8(position..<next, line: start) }
        if escapes { undoubleQuotes() }
        position = next
        line += lines
        if blank {
          if try onlyLineEndsRemain() { return nil }
          throw InputError(file: path, line: start, "an empty line")
        }
        if let columns, cells.count != columns {
          let found = cells.count == 1 ? "1 column" : "\(cells.count) columns"
          throw InputError(file: path, line: start, "\(found) where the header has \(columns)")
        }
        return start
      }
    }
  }

  private enum Scan {
    case end
    /// The buffer ends inside the row and the file goes on.
    case needsMore
    /// `next`: where the following row starts. `highBits`: some byte is not ASCII.
    case row(lines: Int, highBits: Bool, escapes: Bool, next: Int)
  }

  /// Scans one row from `position`, writing `cells`.
  private func scan() throws(InputError) -> Scan {
    cells.removeAll(keepingCapacity: true)
    guard position < filled else { return atEnd ? .end : .needsMore }
    let comma = UInt8(ascii: ",")
    let quote = UInt8(ascii: "\"")
    let lineFeed = UInt8(ascii: "\n")
    let carriageReturn = UInt8(ascii: "\r")
    let base = UnsafePointer(memory.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self))
    let end = filled
    var index = position
    var lines = 1
    var seen: UInt8 = 0
    var escapes = false

    while true {  // one cell per turn
      var cell = index..<index
      if index < end, base[index] == quote {
        index += 1
        let start = index
        while true {
          while index < end, base[index] != quote {
            seen |= base[index]
            if base[index] == lineFeed { lines += 1 }
            index += 1
          }
          guard index < end else {
            guard atEnd else { return .needsMore }
            throw InputError(file: path, line: line, "a quote that is never closed")
          }
          guard index + 1 < end || atEnd else { return .needsMore }
          if index + 1 < end, base[index + 1] == quote {
            escapes = true
            index += 2
          } else {
            break
          }
        }
        cell = start..<index
        index += 1
        if index < end, base[index] != comma, base[index] != lineFeed, base[index] != carriageReturn {
          throw InputError(
            file: path, line: line + lines - 1, "column \(cells.count + 1): something follows the closing quote")
        }
      } else {
        let start = index
        while index < end {
          let byte = base[index]
          if byte == comma || byte == lineFeed || byte == carriageReturn { break }
          if byte == quote {
            throw InputError(
              file: path, line: line + lines - 1,
              "column \(cells.count + 1): a quote inside an unquoted cell (quote the cell, double its quotes)")
          }
          seen |= byte
          index += 1
        }
        cell = start..<index
      }
      guard index < end || atEnd else { return .needsMore }
      cells.append(cell)
      if index == end { return .row(lines: lines, highBits: seen >= 0x80, escapes: escapes, next: index) }
      switch base[index] {
      case comma: index += 1
      case lineFeed: return .row(lines: lines, highBits: seen >= 0x80, escapes: escapes, next: index + 1)
      default:
        guard index + 1 < end || atEnd else { return .needsMore }
        guard index + 1 < end, base[index + 1] == lineFeed else {
          throw InputError(file: path, line: line + lines - 1, "a carriage return without a line feed after it")
        }
        return .row(lines: lines, highBits: seen >= 0x80, escapes: escapes, next: index + 2)
      }
    }
  }

  /// Moves what is left of the window to its front and reads on behind it.
  private func refill() throws(InputError) {
    let kept = filled - position
    if kept > 0, position > 0 {
      let base = memory.baseAddress.unsafelyUnwrapped
      memmove(base, base + position, kept)
    }
    position = 0
    filled = kept
    if filled == memory.count {
      guard memory.count < CSVReader.rowBytesMax else {
        throw InputError(
          file: path, line: line, "a row of more than \(CSVReader.rowBytesMax >> 20) MiB; is a quote never closed?")
      }
      let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: memory.count * 2, alignment: 64)
      larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: memory[0..<filled]))
      memory.deallocate()
      memory = larger
    }
    let count = try file.read(into: UnsafeMutableRawBufferPointer(rebasing: memory[filled...]))
    filled += count
    fileOffset += count
    if count == 0 { atEnd = true }
  }

  private func onlyLineEndsRemain() throws(InputError) -> Bool {
    while true {
      while position < filled {
        guard memory[position] == UInt8(ascii: "\n") || memory[position] == UInt8(ascii: "\r") else { return false }
        position += 1
      }
      if atEnd { return true }
      try refill()
    }
  }

  private func checkUTF8(_ range: Range<Int>, line: Int) throws(InputError) {
    let row = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[range])
    guard let bad = UTF8Check.firstInvalidByte(row) else { return }
    let inside = line + row[0..<bad].reduce(0) { $0 + ($1 == UInt8(ascii: "\n") ? 1 : 0) }
    throw InputError(file: path, line: inside, "invalid UTF-8 (byte 0x\(hex(row[bad])))")
  }

  private func undoubleQuotes() {
    for index in cells.indices {
      let cell = cells[index]
      var to = cell.lowerBound
      var from = cell.lowerBound
      while from < cell.upperBound {
        let byte = memory[from]
        memory[to] = byte
        to += 1
        from += byte == UInt8(ascii: "\"") ? 2 : 1
      }
      cells[index] = cell.lowerBound..<to
    }
  }
}

func hex(_ byte: UInt8) -> String {
  let text = String(byte, radix: 16)
  return text.count == 1 ? "0" + text : text
}
