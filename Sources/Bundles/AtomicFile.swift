import Glibc
import Foundation
import Synchronization

// A file or a directory that others see whole or not at all.
//
//     .tmp-NAME-PID-n   written, fsynced ──rename──▶ NAME, then the parent directory is fsynced
//
// The temporary is a sibling, so that the rename stays on one file system. It is gone when the owner is dropped without
// `commit()`; a process that is killed leaves it behind under a name that no reader takes for data.

/// The prefix of everything unfinished.
public let temporaryPrefix = ".tmp-"

/// A file being written; `commit()` publishes it, dropping it removes it.
public struct AtomicFile: ~Copyable {
  public let path: String
  let temporary: String
  private var descriptor: Int32
  private var pending: [UInt8] = []
  static let bufferBytes = 1 << 20

  public init(path: String) throws(InputError) {
    let temporary = temporarySibling(of: path)
    guard TemporaryPaths.add(temporary) else { throw InputError(file: path, "not written: the process is stopping") }
    let handle = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
    guard handle >= 0 else {
      let reason = systemError()
      TemporaryPaths.remove(temporary)
      throw InputError(file: path, "cannot be written: \(reason)")
    }
    self.path = path
    self.temporary = temporary
    descriptor = handle
    pending.reserveCapacity(AtomicFile.bufferBytes)
  }

  deinit {
    if descriptor >= 0 {
      close(descriptor)
      unlink(temporary)
      TemporaryPaths.remove(temporary)
    }
  }

  public mutating func write(_ bytes: UnsafeRawBufferPointer) throws(InputError) {
    if bytes.count >= AtomicFile.bufferBytes {
      try flush()
      try AtomicFile.writeAll(bytes, to: descriptor, path: path)
    } else {
      pending.append(contentsOf: bytes)
      if pending.count >= AtomicFile.bufferBytes { try flush() }
    }
  }

  public mutating func write(_ bytes: [UInt8]) throws(InputError) {
    pending.append(contentsOf: bytes)
    if pending.count >= AtomicFile.bufferBytes { try flush() }
  }

  public mutating func write(_ text: String) throws(InputError) {
    pending.append(contentsOf: text.utf8)
    if pending.count >= AtomicFile.bufferBytes { try flush() }
  }

  /// Makes what was written durable and gives it its name, in place of a file that has it already.
  public consuming func commit() throws(InputError) {
    try flush()
    guard fsync(descriptor) == 0 else { throw InputError(file: path, "cannot be synced: \(systemError())") }
    guard rename(temporary, path) == 0 else { throw InputError(file: path, "cannot be renamed: \(systemError())") }
    close(descriptor)
    descriptor = -1
    TemporaryPaths.remove(temporary)
    try syncDirectory(parentDirectory(of: path))
  }

  /// Writes a whole file at once.
  public static func write(_ bytes: [UInt8], to path: String) throws(InputError) {
    var file = try AtomicFile(path: path)
    try file.write(bytes)
    try file.commit()
  }

  private mutating func flush() throws(InputError) {
    guard !pending.isEmpty else { return }
    var failure: InputError?
    pending.withUnsafeBytes { bytes in
      do throws(InputError) { try AtomicFile.writeAll(bytes, to: descriptor, path: path) } catch { failure = error }
    }
    pending.removeAll(keepingCapacity: true)
    if let failure { throw failure }
  }

  static func writeAll(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32, path: String) throws(InputError) {
    var written = 0
    while written < bytes.count {
      let count = Glibc.write(descriptor, bytes.baseAddress.unsafelyUnwrapped + written, bytes.count - written)
      if count >= 0 {
        written += count
      } else if errno != EINTR {
        throw InputError(file: path, "cannot be written: \(systemError())")
      }
    }
  }
}

/// A directory being filled; `commit()` publishes it, dropping it removes it.
public struct AtomicDirectory: ~Copyable {
  /// Where it will be.
  public let path: String
  /// Where to write until then.
  public let temporary: String
  private var finished = false

  /// Creates the parents that are missing and the temporary directory beside `path`.
  public init(path: String) throws(InputError) {
    let parent = parentDirectory(of: path)
    let temporary = temporarySibling(of: path)
    do {
      try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
    } catch {
      throw InputError(file: parent, "cannot be created as a directory")
    }
    guard TemporaryPaths.add(temporary) else { throw InputError(file: path, "not written: the process is stopping") }
    guard mkdir(temporary, 0o755) == 0 else {
      let reason = systemError()
      TemporaryPaths.remove(temporary)
      throw InputError(file: path, "cannot be created: \(reason)")
    }
    self.path = path
    self.temporary = temporary
  }

  deinit {
    if !finished {
      try? FileManager.default.removeItem(atPath: temporary)
      TemporaryPaths.remove(temporary)
    }
  }

  /// Makes every file in it durable and gives the directory its name.
  ///
  /// - Parameter replacing: whether a directory that has the name already is taken away; otherwise it is an error.
  public consuming func commit(replacing: Bool = false) throws(InputError) {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: temporary)) ?? []
    for name in names { try syncFile(temporary + "/" + name) }
    try syncDirectory(temporary)

    var status = stat()
    let exists = lstat(path, &status) == 0
    if exists, !replacing { throw InputError(file: path, "exists already") }
    if exists {
      let aside = temporarySibling(of: path)
      _ = TemporaryPaths.add(aside)
      defer { TemporaryPaths.remove(aside) }
      guard rename(path, aside) == 0 else { throw InputError(file: path, "cannot be replaced: \(systemError())") }
      guard rename(temporary, path) == 0 else {
        let reason = systemError()
        _ = rename(aside, path)
        throw InputError(file: path, "cannot be renamed: \(reason)")
      }
      finished = true
      TemporaryPaths.remove(temporary)
      try syncDirectory(parentDirectory(of: path))
      try? FileManager.default.removeItem(atPath: aside)
    } else {
      // rename(2) never replaces a directory that holds anything: a rival that was quicker is kept.
      guard rename(temporary, path) == 0 else {
        let reason = errno == ENOTEMPTY || errno == EEXIST ? "exists already" : "cannot be renamed: \(systemError())"
        throw InputError(file: path, reason)
      }
      finished = true
      TemporaryPaths.remove(temporary)
      try syncDirectory(parentDirectory(of: path))
    }
  }
}

private let temporarySerial = Atomic<UInt64>(0)

private func temporarySibling(of path: String) -> String {
  let serial = temporarySerial.wrappingAdd(1, ordering: .relaxed).newValue
  let name = path.split(separator: "/").last.map(String.init) ?? "file"
  return parentDirectory(of: path) + "/" + temporaryPrefix + name + "-\(getpid())-\(serial)"
}

/// The directory that holds `path`: `a/b/` → `a`, `a` → `.`, `/a` → `/`.
func parentDirectory(of path: String) -> String {
  let trimmed = path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path
  guard let slash = trimmed.lastIndex(of: "/") else { return "." }
  return slash == trimmed.startIndex ? "/" : String(trimmed[..<slash])
}

private func syncFile(_ path: String) throws(InputError) { try sync(path, flags: O_RDONLY | O_CLOEXEC) }

/// Makes the names in a directory durable.
func syncDirectory(_ path: String) throws(InputError) { try sync(path, flags: O_RDONLY | O_DIRECTORY | O_CLOEXEC) }

private func sync(_ path: String, flags: Int32) throws(InputError) {
  let handle = open(path, flags)
  guard handle >= 0 else { throw InputError(file: path, "cannot be synced: \(systemError())") }
  defer { close(handle) }
  guard fsync(handle) == 0 else { throw InputError(file: path, "cannot be synced: \(systemError())") }
}
