import RankingCore
import Scoring

/// A sectioned file in the making: its whole image in memory, sections filled in place, then sealed with their sums.
final class SectionImage {
  private var header: SectionFileHeader
  private let memory: AlignedMemory
  private let path: String

  init(_ header: SectionFileHeader, path: String) {
    self.header = header
    self.path = path
    memory = AlignedMemory(byteCount: header.fileSize)
    memory.bytes.initializeMemory(as: UInt8.self, repeating: 0)
  }

  /// The bytes of a section, zero until filled.
  func section(_ name: String) -> UnsafeMutableRawBufferPointer {
    guard let section = header.sections.first(where: { $0.name == name }) else {
      preconditionFailure("\(path): no section \(name) was placed")
    }
    return UnsafeMutableRawBufferPointer(rebasing: memory.bytes[section.bytes])
  }

  func section<Element>(_ name: String, of type: Element.Type) -> UnsafeMutableBufferPointer<Element> {
    section(name).assumingMemoryBound(to: type)
  }

  /// Sums every section, writes the file, makes it durable.
  ///
  /// - Returns: its size and SHA-256.
  func write() throws(InputError) -> (size: Int, sum: String) {
    for index in header.sections.indices {
      header.sections[index].sum = StableHash.xxh64(
        UnsafeRawBufferPointer(rebasing: memory.bytes[header.sections[index].bytes]))
    }
    memory.bytes.copyBytes(from: header.encoded())
    let whole = UnsafeRawBufferPointer(rebasing: memory.bytes[0..<header.fileSize])
    var file = try AtomicFile(path: path)
    try file.write(whole)
    try file.commit()
    return (header.fileSize, SHA256.of(whole))
  }
}
