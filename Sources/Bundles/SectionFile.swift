import RankingCore

// How a binary file of a bundle is laid out, little-endian throughout. A slice and the user table differ in their magic
// and in the names of their sections.
//
//     0    magic (8)  format u32 · shard u32 · S u32 · dimension u32 · count u64
//     32   table offset u64 (64) · sections u32 · zero u32 · file size u64
//     56   xxh64 of bytes 0..<56 and of the table
//     64   table, 64 bytes per section: name (32, zero padded) · offset u64 · length u64 · xxh64 u64 · zero u64
//     …    sections, each at a multiple of 64, in the table's order, zeros between them
//
// Offsets count from the start of the file. A reader that copies the file to an address that is a multiple of 64 can
// use every section where it lies.

/// A section: what it is called and where it lies.
public struct Section: Sendable, Equatable {
  public var name: String
  public var bytes: Range<Int>
  public var sum: UInt64
}

/// What kind of sectioned file it is.
enum SectionFileKind: String {
  case slice = "SLSLICE1"
  case users = "SLUSERS1"
}

/// The fixed part and the table.
struct SectionFileHeader: Equatable {
  static let formatVersion = 1
  static let fixedBytes = 64
  static let entryBytes = 64
  static let nameBytes = 32
  static let alignment = 64
  /// More than a slice can need: its fixed sections and one per item column.
  static let sectionsMax = 4096 + 64

  var kind: SectionFileKind
  var shard: Int
  var shardCount: Int
  var dimension: Int
  /// Rows: items of a slice, users of the table.
  var count: Int
  var fileSize: Int
  var sections: [Section]

  var tableEnd: Int { SectionFileHeader.fixedBytes + sections.count * SectionFileHeader.entryBytes }

  /// Places sections of these lengths one after the other; their sums are filled in later.
  init(
    kind: SectionFileKind, shard: Int, shardCount: Int, dimension: Int, count: Int,
    sections lengths: [(name: String, length: Int)]
  ) {
    self.kind = kind
    self.shard = shard
    self.shardCount = shardCount
    self.dimension = dimension
    self.count = count
    var end = SectionFileHeader.fixedBytes + lengths.count * SectionFileHeader.entryBytes
    sections = lengths.map { name, length in
      precondition(name.utf8.count < SectionFileHeader.nameBytes, "section name \"\(name)\" is too long")
      let start = SectionFileHeader.aligned(end)
      end = start + length
      return Section(name: name, bytes: start..<end, sum: 0)
    }
    fileSize = SectionFileHeader.aligned(end)
  }

  static func aligned(_ offset: Int) -> Int { (offset + alignment - 1) & ~(alignment - 1) }

  /// Header and table as bytes.
  func encoded() -> [UInt8] {
    var fixed: [UInt8] = Array(kind.rawValue.utf8)
    fixed.append(little: UInt32(SectionFileHeader.formatVersion))
    fixed.append(little: UInt32(shard))
    fixed.append(little: UInt32(shardCount))
    fixed.append(little: UInt32(dimension))
    fixed.append(little: UInt64(count))
    fixed.append(little: UInt64(SectionFileHeader.fixedBytes))
    fixed.append(little: UInt32(sections.count))
    fixed.append(little: UInt32(0))
    fixed.append(little: UInt64(fileSize))
    var table: [UInt8] = []
    for section in sections {
      let name = Array(section.name.utf8)
      table += name + [UInt8](repeating: 0, count: SectionFileHeader.nameBytes - name.count)
      table.append(little: UInt64(section.bytes.lowerBound))
      table.append(little: UInt64(section.bytes.count))
      table.append(little: section.sum)
      table.append(little: UInt64(0))
    }
    let sum = (fixed + table).withUnsafeBytes { StableHash.xxh64($0) }
    fixed.append(little: sum)
    return fixed + table
  }

  /// How many sections the fixed part announces.
  ///
  /// - Throws: when the fixed part cannot be the start of a file of this kind and size.
  static func sectionCount(
    in fixed: UnsafeRawBufferPointer, kind: SectionFileKind, size: Int, path: String
  ) throws(InputError) -> Int {
    let magic = String(decoding: fixed[0..<8], as: UTF8.self)
    guard magic == kind.rawValue else {
      throw InputError(file: path, "header: starts with \(printable(fixed[0..<8])), expected \"\(kind.rawValue)\"")
    }
    let format = fixed.little(UInt32.self, at: 8)
    guard format == formatVersion else {
      throw InputError(file: path, "header: format version \(format), this program reads \(formatVersion)")
    }
    let tableOffset = fixed.little(UInt64.self, at: 32)
    let count = fixed.little(UInt32.self, at: 40)
    guard tableOffset == UInt64(fixedBytes), (1...UInt32(sectionsMax)).contains(count) else {
      throw InputError(file: path, "header: a table of \(count) sections at byte \(tableOffset) is not possible")
    }
    guard fixedBytes + Int(count) * entryBytes <= size else {
      throw InputError(file: path, "header: a table of \(count) sections does not fit a file of \(size) bytes")
    }
    return Int(count)
  }

  /// Reads and checks header and table.
  ///
  /// - Parameter bytes: exactly the fixed part and the table.
  init(
    _ bytes: UnsafeRawBufferPointer, kind: SectionFileKind, size: Int, path: String
  ) throws(InputError) {
    let claimed = bytes.little(UInt64.self, at: 56)
    var hash = StreamingXXH64()
    hash.update(UnsafeRawBufferPointer(rebasing: bytes[0..<56]))
    hash.update(UnsafeRawBufferPointer(rebasing: bytes[64...]))
    guard hash.digest() == claimed else {
      throw InputError(
        file: path, "section header: xxh64 expected \(hexadecimal(claimed)), actual \(hexadecimal(hash.digest()))")
    }
    self.kind = kind
    shard = Int(bytes.little(UInt32.self, at: 12))
    shardCount = Int(bytes.little(UInt32.self, at: 16))
    dimension = Int(bytes.little(UInt32.self, at: 20))
    guard let count = Int(exactly: bytes.little(UInt64.self, at: 24)), count <= UInt32.max else {
      throw InputError(file: path, "header: \(bytes.little(UInt64.self, at: 24)) rows, at most 2^32 − 1 are possible")
    }
    self.count = count
    let claimedSize = bytes.little(UInt64.self, at: 48)
    guard claimedSize == UInt64(size) else {
      throw InputError(file: path, "header: says the file has \(claimedSize) bytes, it has \(size)")
    }
    fileSize = size
    sections = []
    var end = bytes.count
    for entry in stride(from: SectionFileHeader.fixedBytes, to: bytes.count, by: SectionFileHeader.entryBytes) {
      let nameBytes = bytes[entry..<entry + SectionFileHeader.nameBytes].prefix(while: { $0 != 0 })
      let name = String(decoding: nameBytes, as: UTF8.self)
      guard let start = Int(exactly: bytes.little(UInt64.self, at: entry + 32)),
        let length = Int(exactly: bytes.little(UInt64.self, at: entry + 40)),
        start >= end, start % SectionFileHeader.alignment == 0, start <= size, length <= size - start
      else {
        throw InputError(file: path, "section \(name): its place does not fit the file")
      }
      end = start + length
      sections.append(Section(name: name, bytes: start..<end, sum: bytes.little(UInt64.self, at: entry + 48)))
    }
  }
}

extension [UInt8] {
  mutating func append<Number: FixedWidthInteger>(little value: Number) {
    Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
  }
}

extension UnsafeRawBufferPointer {
  func little<Number: FixedWidthInteger>(_ type: Number.Type, at offset: Int) -> Number {
    Number(littleEndian: loadUnaligned(fromByteOffset: offset, as: type))
  }
}

func hexadecimal(_ sum: UInt64) -> String {
  let text = String(sum, radix: 16)
  return String(repeating: "0", count: 16 - text.count) + text
}

private func printable(_ bytes: Slice<UnsafeRawBufferPointer>) -> String {
  "\"" + bytes.map { (0x20..<0x7F).contains($0) ? String(UnicodeScalar($0)) : "\\x" + hex($0) }.joined() + "\""
}
