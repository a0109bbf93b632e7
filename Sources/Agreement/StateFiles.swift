import Glibc
import RankingCore
import Transport

// The file store's files, and the order in which they are written:
//
//     DIRECTORY/lock            held by the one process that uses it
//     DIRECTORY/state           one line, then the bytes: shortlist-state 1 epoch 3 revision 7 bytes 120 sum 9e07…
//     DIRECTORY/history.jsonl   one line per commit, 1 … revision
//
//     commit:  append line ─► fsync ─► write state.new ─► fsync ─► rename to state ─► fsync of the directory
//                                                                      │
//                                     before it the old state stands ◄─┴─► after it the new one does
//
// The rename decides. A history that goes one line beyond the state is a commit that was not acknowledged: its line is
// cut. That is what `settle` does, when the directory is opened and after any call that failed, so that a full disk and
// kill -9 are the same case. A history that goes further, or less far, is not of our making and is refused: somebody
// put back an older file. Nothing that is refused is ever written to.

/// Why the files cannot be used.
enum FilesError: Error, Equatable, CustomStringConvertible {
  /// A call failed; it may work later.
  case failed(String)
  /// They are damaged, or somebody else's: for people to look at.
  case unusable(String)
  var description: String {
    switch self {
    case .failed(let text), .unusable(let text): text
    }
  }
}

/// Used by one thread at a time; every call may block.
struct StateFiles {
  let directory: String
  private let disk: any Disk
  private(set) var state = StoredState()
  /// With which this process drives; nil until it could be written down.
  private(set) var epoch: UInt64?
  /// What `state` says is what the disk says, durably.
  private(set) var isSettled = false
  /// Why waiting will not help.
  private(set) var damage: String?
  private var writtenEpoch: UInt64 = 0
  private var historyBytes = 0

  private var statePath: String { directory + "/state" }
  private var newPath: String { directory + "/state.new" }
  private var historyPath: String { directory + "/history.jsonl" }
  private static let magic = "shortlist-state 1"
  private static let headerBytesMax = 160

  init(directory: String, disk: any Disk) {
    self.directory = directory
    self.disk = disk
  }

  /// Makes the directory and takes its lock.
  mutating func lock(owner: String) throws(FilesError) {
    let path = directory + "/lock"
    do throws(SystemError) { try disk.makeDirectory(directory) } catch { throw .failed("\(directory): \(error)") }
    let holder: String?
    do throws(SystemError) { holder = try disk.lock(path, owner: owner) } catch { throw .failed("\(path): \(error)") }
    if let holder {
      throw .unusable("\(directory) is in use by \(holder.isEmpty ? "another process" : holder), which holds its lock")
    }
  }
  func unlock() { disk.unlock() }

  // MARK: Finding out what is there

  /// Reads the state, cuts what was not acknowledged from the history, and makes durable what is seen.
  mutating func settle() throws(FilesError) {
    isSettled = false
    do throws(FilesError) { try readAndCut() } catch {
      if case .unusable(let text) = error { damage = text }
      throw error
    }
  }
  private mutating func readAndCut() throws(FilesError) {
    let found = try readState()
    // The rename that is seen here may not have reached the disk.
    do throws(SystemError) { try disk.syncDirectory(directory) } catch { throw .failed("\(directory): \(error)") }
    historyBytes = try settleHistory(found?.state.sequence)
    state = found?.state ?? StoredState()
    writtenEpoch = found?.epoch ?? 0
    if epoch != nil, epoch != writtenEpoch { epoch = nil }
    isSettled = true
  }

  /// Writes down that this process drives from now on, with an epoch above all that the file has seen.
  mutating func takeEpoch() throws(FilesError) {
    if !isSettled { try settle() }
    let wanted = writtenEpoch + 1
    do {
      try replaceState(state, epoch: wanted)
    } catch {
      isSettled = false
      try settle()
      // It failed after all had been done.
      guard writtenEpoch == wanted else { throw error }
    }
    writtenEpoch = wanted
    epoch = wanted
  }

  private func readState() throws(FilesError) -> (state: StoredState, epoch: UInt64)? {
    let bytes = try withFile(statePath) { disk, file throws(SystemError) in
      let most = Self.headerBytesMax + StoreLimit.stateBytes + 1
      return try disk.read(file, at: 0, count: min(most, try disk.size(file)))
    }
    guard let bytes else { return nil }
    let header = bytes.prefix(Self.headerBytesMax).prefix { $0 != UInt8(ascii: "\n") }
    let words = String(decoding: header, as: UTF8.self).split(separator: " ", omittingEmptySubsequences: false)
    guard words.count == 10, words[..<2].joined(separator: " ") == Self.magic, header.count < bytes.count,
      words[2] == "epoch", let epoch = UInt64(words[3]), words[4] == "revision", let revision = UInt64(words[5]),
      words[6] == "bytes", let count = Int(words[7]), words[8] == "sum",
      let sum = number(hex: Array(words[9].utf8)[...])
    else {
      throw .unusable(
        "\(statePath): line 1 is \"\(String(decoding: header.prefix(80), as: UTF8.self))\", expected "
          + "\"\(Self.magic) epoch E revision R bytes N sum S\"; it is left as it is: put back a copy that is whole")
    }
    let content = Array(bytes[(header.count + 1)...])
    guard content.count == count else {
      throw .unusable("\(statePath): \(content.count) bytes after line 1, which says \(count); it is left as it is")
    }
    let actual = Self.sum(Self.head(epoch: epoch, revision: revision, count: count), content)
    guard actual == sum else {
      throw .unusable(
        "\(statePath): checksum expected \(text(sum)), actual \(text(actual)); it is damaged and left as it is")
    }
    return (StoredState(revision: revision, sequence: revision, bytes: content), epoch)
  }

  /// - Parameter sequence: of the state; nil when there is no state.
  /// - Returns: where the next line goes.
  private func settleHistory(_ sequence: UInt64?) throws(FilesError) -> Int {
    let limit = sequence ?? 0
    var end = 0
    var last: UInt64 = 0
    let size = try scanHistory(from: 0) { line, lineEnd in
      guard let line, line.sequence == last + 1, line.sequence <= limit else { return false }
      last = line.sequence
      end = lineEnd
      return true
    }
    guard let size else {
      guard limit == 0 else {
        throw .unusable("\(historyPath) is missing, where \(statePath) is at sequence \(limit)")
      }
      return 0
    }
    guard last == limit else {
      throw .unusable(
        "\(historyPath): line \(last + 1) is damaged or missing (byte \(end)), where \(statePath) is at sequence "
          + "\(limit); both are left as they are")
    }
    guard size > end else { return end }
    guard sequence != nil else {
      throw .unusable("\(statePath) is missing, where \(historyPath) has \(size) bytes; put it back")
    }
    // One commit at most is on its way: more than its line is a history that has outrun an older state.
    guard size - end <= HistoryLine.bytesMax + 1, try isOneLine(from: end, to: size) else {
      throw .unusable(
        "\(historyPath) goes on beyond sequence \(limit), at which \(statePath) is: the state file is older than its "
          + "history; both are left as they are")
    }
    _ = try withFile(historyPath) { disk, file throws(SystemError) in
      // Made durable by the next line's own sync: until then it would be cut again.
      try disk.truncate(file, to: end)
      return [UInt8]()
    }
    return end
  }

  private func isOneLine(from start: Int, to end: Int) throws(FilesError) -> Bool {
    let tail = try withFile(historyPath) { disk, file throws(SystemError) in
      try disk.read(file, at: start, count: end - start)
    }
    return tail?.firstIndex(of: UInt8(ascii: "\n")).map { $0 == end - start - 1 } ?? true
  }

  // MARK: Committing

  mutating func commit(
    expecting revision: UInt64, state bytes: [UInt8], entry: [UInt8], id: UInt64, as authority: CommitAuthority
  ) -> CommitOutcome {
    do throws(FilesError) {
      if !isSettled { try settle() }
      if epoch == nil { try takeEpoch() }
    } catch { return .unavailable(why: "\(error)") }
    if case .driver(let driver) = authority, driver != epoch { return .notDriving }
    guard state.revision == revision else { return .conflict(current: state) }

    let next = StoredState(revision: revision + 1, sequence: revision + 1, bytes: bytes)
    let line = HistoryLine(sequence: next.sequence, id: id, entry: entry).bytes + [UInt8(ascii: "\n")]
    var isReplacing = false
    do throws(FilesError) {
      try append(line)
      isReplacing = true
      try replaceState(next, epoch: writtenEpoch)
      state = next
      historyBytes += line.count
      return .committed(revision: next.revision)
    } catch {
      do throws(FilesError) { try settle() } catch let again {
        let why = "\(error), and then \(again)"
        return isReplacing ? .unknown(why: why) : .unavailable(why: why)
      }
      return state.revision == next.revision ? .committed(revision: next.revision) : .unavailable(why: "\(error)")
    }
  }

  private func append(_ line: [UInt8]) throws(FilesError) {
    let end = historyBytes
    _ = try withFile(historyPath, creating: true) { disk, file throws(SystemError) in
      try Self.writeAll(line, to: file, at: end, disk)
      try disk.sync(file)
      return [UInt8]()
    }
    // The first line also makes the file's name durable; later this costs nothing.
    if end == 0 {
      do throws(SystemError) { try disk.syncDirectory(directory) } catch { throw .failed("\(directory): \(error)") }
    }
  }

  private func replaceState(_ state: StoredState, epoch: UInt64) throws(FilesError) {
    let head = Self.head(epoch: epoch, revision: state.revision, count: state.bytes.count)
    let bytes = Array("\(head) sum \(text(Self.sum(head, state.bytes)))\n".utf8) + state.bytes
    _ = try withFile(newPath, creating: true) { disk, file throws(SystemError) in
      try disk.truncate(file, to: 0)
      try Self.writeAll(bytes, to: file, at: 0, disk)
      try disk.sync(file)
      return [UInt8]()
    }
    do throws(SystemError) {
      try disk.rename(newPath, to: statePath)
      try disk.syncDirectory(directory)
    } catch { throw .failed("\(statePath): \(error)") }
  }

  // MARK: History

  /// - Parameter limit: ≥ 0.
  func history(from sequence: UInt64, limit: Int) throws(FilesError) -> [HistoryEntry] {
    var entries: [HistoryEntry] = []
    guard limit > 0, sequence <= state.sequence else { return [] }
    _ = try scanHistory(from: 0) { line, _ in
      guard let line, line.sequence <= state.sequence else { return false }
      if line.sequence >= sequence { entries.append(HistoryEntry(sequence: line.sequence, bytes: line.entry)) }
      return entries.count < limit
    }
    return entries
  }

  /// Hands over line after line, nil for one that is none, with where it ends, until `body` returns false.
  /// - Returns: the size of the file; nil when there is none.
  private func scanHistory(from start: Int, _ body: (HistoryLine?, Int) -> Bool) throws(FilesError) -> Int? {
    var size = 0
    let pieceBytes = 1 << 18
    let found = try withFile(historyPath) { disk, file throws(SystemError) in
      size = try disk.size(file)
      var pending: [UInt8] = []
      var offset = start
      while offset < size {
        let piece = try disk.read(file, at: offset, count: pieceBytes)
        if piece.isEmpty { break }
        pending += piece
        offset += piece.count
        var lineStart = 0
        while let end = pending[lineStart...].firstIndex(of: UInt8(ascii: "\n")) {
          let lineEnd = offset - pending.count + end + 1
          guard body(HistoryLine(pending[lineStart..<end]), lineEnd) else { return [] }
          lineStart = end + 1
        }
        pending.removeFirst(lineStart)
        guard pending.count <= HistoryLine.bytesMax else {
          _ = body(nil, offset)
          return []
        }
      }
      return [UInt8]()
    }
    return found == nil ? nil : size
  }

  // MARK: Parts

  private static func head(epoch: UInt64, revision: UInt64, count: Int) -> String {
    "\(magic) epoch \(epoch) revision \(revision) bytes \(count)"
  }
  private static func sum(_ head: String, _ content: [UInt8]) -> UInt64 {
    var hash = StreamingXXH64()
    Array(head.utf8).withUnsafeBytes { hash.update($0) }
    content.withUnsafeBytes { hash.update($0) }
    return hash.digest()
  }
  private func text(_ sum: UInt64) -> String { String(decoding: hex(sum), as: UTF8.self) }

  private static func writeAll(_ bytes: [UInt8], to file: Int32, at start: Int, _ disk: any Disk) throws(SystemError) {
    var written = 0
    while written < bytes.count {
      let rest = bytes[written...]
      var failure: SystemError?
      rest.withUnsafeBytes { raw in
        do throws(SystemError) {
          let count = try disk.write(file, at: start + written, raw)
          if count == 0 { failure = SystemError("write", ENOSPC) }
          written += count
        } catch { failure = error }
      }
      if let failure { throw failure }
    }
  }

  /// - Returns: nil when there is no such file and it is not to be made.
  private func withFile(
    _ path: String, creating: Bool = false, _ body: (any Disk, Int32) throws(SystemError) -> [UInt8]
  ) throws(FilesError) -> [UInt8]? {
    do throws(SystemError) {
      guard let file = try disk.open(path, creating: creating) else { return nil }
      defer { disk.close(file) }
      return try body(disk, file)
    } catch { throw .failed("\(path): \(error)") }
  }
}
