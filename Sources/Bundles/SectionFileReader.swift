import RankingCore
import Scoring
import Synchronization

// Copying and checking are one pass over the file, so that what was checked is what serves:
//
//     file ──read 256 KiB──▶ own memory ──while in cache──▶ SHA-256 of all, xxh64 of the section it belongs to
//
// Nothing is mapped: whatever happens to the file later, this process's copy stays what it was.

/// A sectioned file in this process's own memory, every sum checked.
public final class SectionFile: Sendable {
  public let path: String
  let header: SectionFileHeader
  public let memory: AlignedMemory

  static let chunkBytes = 256 << 10
  /// Checks nothing from now on, in the whole process: for tests that show what the sums are worth.
  public static func trustEverything() { isTrusting.store(true, ordering: .relaxed) }
  private static let isTrusting = Atomic<Bool>(false)

  /// Copies the file into own memory and checks every sum.
  ///
  /// - Parameter size, sum: what the manifest says of it.
  /// - Throws: `InputError` that names the file, the section, and the expected and actual sums.
  init(
    path: String, kind: SectionFileKind, size: Int, sum expectedSum: String,
    check: (SectionFileHeader) throws(InputError) -> Void
  ) throws(InputError) {
    let file = try InputFile(path: path)
    guard file.size == size else {
      throw InputError(
        file: path, "\(file.size < size ? "truncated" : "too long"): \(file.size) bytes, the manifest says \(size)")
    }
    guard size >= SectionFileHeader.fixedBytes else {
      throw InputError(file: path, "header: \(size) bytes, a header has \(SectionFileHeader.fixedBytes)")
    }
    // Header and table first, apart: no memory is taken for a file that is not what it should be.
    var start: [UInt8] = []
    try start.append(readingExactly: SectionFileHeader.fixedBytes, from: file)
    let count = try start.checked { bytes throws(InputError) in
      try SectionFileHeader.sectionCount(in: bytes, kind: kind, size: size, path: path)
    }
    try start.append(readingExactly: count * SectionFileHeader.entryBytes, from: file)
    header = try start.checked { bytes throws(InputError) in
      try SectionFileHeader(bytes, kind: kind, size: size, path: path)
    }
    try check(header)

    memory = AlignedMemory(byteCount: size)
    self.path = path
    memory.bytes.copyBytes(from: start)
    var sha = SHA256()
    let isTrusting = Self.isTrusting.load(ordering: .relaxed)
    var sections = SectionSums(isTrusting ? [] : header.sections)
    let bytes = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[0..<size])
    sha.update(UnsafeRawBufferPointer(rebasing: bytes[0..<start.count]))
    var filled = start.count
    while filled < size {
      let room = bytes[filled..<min(size, filled + SectionFile.chunkBytes)]
      let read = try file.read(into: UnsafeMutableRawBufferPointer(rebasing: room))
      guard read > 0 else { throw InputError(file: path, "truncated while it was read: \(filled) of \(size) bytes") }
      sha.update(UnsafeRawBufferPointer(rebasing: bytes[filled..<filled + read]))
      filled += read
      try sections.advance(to: filled, in: UnsafeRawBufferPointer(bytes), path: path)
    }
    try sections.advance(to: size, in: UnsafeRawBufferPointer(bytes), path: path)
    let actual = sha.finish()
    guard actual == expectedSum || isTrusting else {
      throw InputError(
        file: path, "SHA-256 expected \(expectedSum), actual \(actual) (every section's own sum is right)")
    }
  }

  public var sections: [Section] { header.sections }

  /// The place of a section that must be there with this length.
  func range(_ name: String, length: Int? = nil) throws(InputError) -> Range<Int> {
    guard let section = header.sections.first(where: { $0.name == name }) else {
      throw InputError(file: path, "section \(name): is missing")
    }
    if let length, section.bytes.count != length {
      throw InputError(file: path, "section \(name): \(section.bytes.count) bytes, expected \(length)")
    }
    return section.bytes
  }

  /// A section's bytes, valid while this object lives.
  public func bytes(_ range: Range<Int>) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory.bytes)[range])
  }
}

/// The sums of sections, followed while the file comes in.
private struct SectionSums {
  private let sections: [Section]
  private var index = 0
  private var done = 0
  private var hash = StreamingXXH64()

  init(_ sections: [Section]) { self.sections = sections }

  mutating func advance(to filled: Int, in bytes: UnsafeRawBufferPointer, path: String) throws(InputError) {
    while index < sections.count {
      let section = sections[index]
      let from = max(done, section.bytes.lowerBound)
      let to = min(filled, section.bytes.upperBound)
      if from < to {
        hash.update(UnsafeRawBufferPointer(rebasing: bytes[from..<to]))
        done = to
      }
      guard filled >= section.bytes.upperBound else { return }
      guard hash.digest() == section.sum else {
        throw InputError(
          file: path,
          "section \(section.name): xxh64 expected \(hexadecimal(section.sum)), actual \(hexadecimal(hash.digest()))")
      }
      hash = StreamingXXH64()
      index += 1
    }
  }
}

extension [UInt8] {
  /// `withUnsafeBytes` that keeps the type of what is thrown.
  func checked<Result>(
    _ body: (UnsafeRawBufferPointer) throws(InputError) -> Result
  ) throws(InputError) -> Result {
    var outcome: Swift.Result<Result, InputError>?
    withUnsafeBytes { bytes in
      do throws(InputError) { outcome = .success(try body(bytes)) } catch { outcome = .failure(error) }
    }
    guard let outcome else { preconditionFailure("withUnsafeBytes calls its body") }
    return try outcome.get()
  }
}
