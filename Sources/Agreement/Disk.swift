import Glibc
import Transport

// The system calls by which the file store touches the disk, each wrapped once. A test puts a disk of its own here, one
// that is full, fails, or loses power at any call.

protocol Disk: AnyObject, Sendable {
  /// Makes it, and the directories above it, unless it is there.
  func makeDirectory(_ path: String) throws(SystemError)
  /// Takes a lock that ends with this process.
  /// - Parameter owner: what somebody who comes too late is told.
  /// - Returns: nil when it was taken, else what its holder said.
  func lock(_ path: String, owner: String) throws(SystemError) -> String?
  func unlock()
  /// - Returns: a file to be closed; nil when there is none and it is not to be made.
  func open(_ path: String, creating: Bool) throws(SystemError) -> Int32?
  func close(_ file: Int32)
  func size(_ file: Int32) throws(SystemError) -> Int
  /// Reads `count` bytes, fewer only at the end.
  func read(_ file: Int32, at offset: Int, count: Int) throws(SystemError) -> [UInt8]
  /// - Returns: how many bytes were written, which may be fewer.
  func write(_ file: Int32, at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(SystemError) -> Int
  func truncate(_ file: Int32, to size: Int) throws(SystemError)
  func sync(_ file: Int32) throws(SystemError)
  func rename(_ path: String, to other: String) throws(SystemError)
  func syncDirectory(_ path: String) throws(SystemError)
}

final class LocalDisk: Disk, @unchecked Sendable {
  /// Touched by the store's own thread only.
  private var lockFile: Int32 = -1
  private static let ownerBytesMax = 256

  deinit { unlock() }

  func makeDirectory(_ path: String) throws(SystemError) {
    var end = path.startIndex
    while end != path.endIndex {
      end = path[end...].dropFirst().firstIndex(of: "/") ?? path.endIndex
      guard mkdir(String(path[..<end]), 0o755) == 0 || errno == EEXIST else { throw SystemError("mkdir") }
    }
    var status = stat()
    guard stat(path, &status) == 0 else { throw SystemError("stat") }
    guard status.st_mode & S_IFMT == S_IFDIR else { throw SystemError("mkdir", ENOTDIR) }
  }

  func lock(_ path: String, owner: String) throws(SystemError) -> String? {
    let file = Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard file >= 0 else { throw SystemError("open") }
    guard retrying({ flock(file, LOCK_EX | LOCK_NB) }) == 0 else {
      defer { Glibc.close(file) }
      guard errno == EWOULDBLOCK else { throw SystemError("flock") }
      let said = try read(file, at: 0, count: Self.ownerBytesMax)
      return String(decoding: said.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
    }
    lockFile = file
    // Who holds it is for people only: a disk that has no room for it still locks.
    _ = ftruncate(file, 0)
    let text = Array("\(owner.prefix(Self.ownerBytesMax / 4))\n".utf8)
    _ = text.withUnsafeBytes { pwrite(file, $0.baseAddress, $0.count, 0) }
    return nil
  }
  func unlock() {
    if lockFile >= 0 { Glibc.close(lockFile) }
    lockFile = -1
  }

  func open(_ path: String, creating: Bool) throws(SystemError) -> Int32? {
    let file = retrying { Glibc.open(path, O_RDWR | O_CLOEXEC | (creating ? O_CREAT : 0), 0o644) }
    if file >= 0 { return file }
    if errno == ENOENT, !creating { return nil }
    throw SystemError("open")
  }
  func close(_ file: Int32) { Glibc.close(file) }

  func size(_ file: Int32) throws(SystemError) -> Int {
    var status = stat()
    guard fstat(file, &status) == 0 else { throw SystemError("fstat") }
    return Int(status.st_size)
  }
  func read(_ file: Int32, at offset: Int, count: Int) throws(SystemError) -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count < count {
      var failure: SystemError?
      let piece = [UInt8](unsafeUninitializedCapacity: min(count - bytes.count, 1 << 20)) { buffer, used in
        let result = retrying { pread(file, buffer.baseAddress, buffer.count, off_t(offset + bytes.count)) }
        if result < 0 { failure = SystemError("read") }
        used = max(0, result)
      }
      if let failure { throw failure }
      if piece.isEmpty { break }
      bytes += piece
    }
    return bytes
  }
  func write(_ file: Int32, at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(SystemError) -> Int {
    let count = retrying { pwrite(file, bytes.baseAddress, bytes.count, off_t(offset)) }
    guard count >= 0 else { throw SystemError("write") }
    return count
  }
  func truncate(_ file: Int32, to size: Int) throws(SystemError) {
    guard retrying({ ftruncate(file, off_t(size)) }) == 0 else { throw SystemError("truncate") }
  }
  func sync(_ file: Int32) throws(SystemError) {
    guard retrying({ fsync(file) }) == 0 else { throw SystemError("fsync") }
  }
  func rename(_ path: String, to other: String) throws(SystemError) {
    guard Glibc.rename(path, other) == 0 else { throw SystemError("rename") }
  }
  func syncDirectory(_ path: String) throws(SystemError) {
    let file = retrying { Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
    guard file >= 0 else { throw SystemError("open") }
    defer { Glibc.close(file) }
    try sync(file)
  }

  private func retrying<Result: SignedInteger>(_ call: () -> Result) -> Result {
    while true {
      let result = call()
      if result >= 0 || errno != EINTR { return result }
    }
  }
}
