import Glibc

/// A file open for reading, closed with its owner. Each system call once, EINTR retried.
public struct InputFile: ~Copyable {
  public let path: String
  /// Its size when it was opened, in bytes.
  public let size: Int
  let descriptor: Int32

  /// - Throws: when it cannot be opened or is not a regular file (a pipe has no size to check a header against).
  public init(path: String) throws(InputError) {
    var handle: Int32
    repeat { handle = open(path, O_RDONLY | O_CLOEXEC) } while handle < 0 && errno == EINTR
    guard handle >= 0 else { throw InputError(file: path, "cannot be opened: \(systemError())") }
    var status = stat()
    guard fstat(handle, &status) == 0 else {
      let reason = systemError()
      close(handle)
      throw InputError(file: path, "cannot be opened: \(reason)")
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      close(handle)
      throw InputError(file: path, "is not a regular file")
    }
    self.path = path
    self.size = Int(status.st_size)
    self.descriptor = handle
  }

  deinit { close(descriptor) }

  /// Reads up to the buffer's length; 0 = the end of the file.
  public func read(into buffer: UnsafeMutableRawBufferPointer) throws(InputError) -> Int {
    while true {
      let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
      if count >= 0 { return count }
      if errno != EINTR { throw InputError(file: path, "cannot be read: \(systemError())") }
    }
  }

  /// Fills the whole buffer.
  ///
  /// - Throws: also when the file ends before the buffer is full.
  public func readExactly(into buffer: UnsafeMutableRawBufferPointer) throws(InputError) {
    var filled = 0
    while filled < buffer.count {
      let count = try read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
      guard count > 0 else {
        throw InputError(file: path, "ends \(buffer.count - filled) bytes early (it is \(size) bytes long)")
      }
      filled += count
    }
  }

  /// The whole of a small file.
  ///
  /// - Parameter limit: the most bytes it may have; a larger one is refused unread.
  public static func readAll(path: String, limit: Int) throws(InputError) -> [UInt8] {
    let file = try InputFile(path: path)
    guard file.size <= limit else {
      throw InputError(file: path, "is \(file.size) bytes, at most \(limit) are allowed")
    }
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, file.size), alignment: 16)
    defer { buffer.deallocate() }
    let whole = UnsafeMutableRawBufferPointer(rebasing: buffer[0..<file.size])
    try file.readExactly(into: whole)
    return Array(whole)
  }
}

/// What `errno` says, in words.
func systemError(_ code: Int32 = errno) -> String { String(cString: strerror(code)) }
