import Glibc
import Synchronization
import Transport

@testable import Agreement

// A disk in memory that fails where it is told to, and that can lose power: what was not synced may then be there, not
// be there, or be there in part.
//
//     name ──► file: what programs see | what is on the platter      names: what programs see | what is on the platter

final class PoweredDisk: Disk, @unchecked Sendable {
  enum Fault: Equatable {
    /// The call fails, nothing done.
    case error(Int32)
    /// A write takes half of what it is given; any other call fails with EIO.
    case short
    /// The call is done, and then reported as failed.
    case errorAfter(Int32)
    /// Power is lost before the call.
    case crash
    /// Power is lost after the call.
    case crashAfter
  }
  enum Loss: CaseIterable { case allUnsynced, nothing, halfOfUnsynced, contentsOnly, namesOnly, stateNameOnly }

  final class File {
    var seen: [UInt8] = []
    var synced: [UInt8] = []
  }
  private var names: [String: File] = [:]
  private var syncedNames: [String: File] = [:]
  private var open: [Int32: File] = [:]
  private var nextFile: Int32 = 3
  private var isLocked = false
  private(set) var calls = 0
  /// What happens at the n-th call from the start, counted from 0.
  var faults: [Int: Fault] = [:]
  /// Every call from this one on fails with this error.
  var failing: (from: Int, code: Int32)?
  /// No write has room from this call on.
  var fullFrom: Int?
  private(set) var isDead = false
  private(set) var log: [String] = []

  static let dead: Int32 = EIO

  /// The same disk after power has come back.
  func afterPowerLoss(_ loss: Loss) -> PoweredDisk {
    let next = PoweredDisk()
    var kept = loss == .nothing || loss == .namesOnly ? names : syncedNames
    if loss == .stateNameOnly { kept["d/state"] = names["d/state"] }
    for (name, file) in kept {
      let copy = File()
      switch loss {
      case .nothing, .contentsOnly: copy.seen = file.seen
      case .allUnsynced, .namesOnly, .stateNameOnly: copy.seen = file.synced
      case .halfOfUnsynced:
        // The beginning of what was appended; of what was cut, all is back.
        let common = zip(file.seen, file.synced).prefix { $0 == $1 }.count
        let half = file.seen.count > common ? (file.seen.count - common + 1) / 2 : 0
        copy.seen = half > 0 ? Array(file.seen[..<(common + half)]) : file.synced
      }
      copy.synced = copy.seen
      next.names[name] = copy
      next.syncedNames[name] = copy
    }
    return next
  }

  func content(_ name: String) -> [UInt8]? { names[name]?.seen }
  func put(_ name: String, _ bytes: [UInt8]?) {
    let file = File()
    file.seen = bytes ?? []
    file.synced = file.seen
    names[name] = bytes == nil ? nil : file
    syncedNames[name] = names[name]
  }

  private func call<Result>(_ name: String, _ body: (Bool) -> Result) throws(SystemError) -> Result {
    guard !isDead else { throw SystemError(name, Self.dead) }
    let number = calls
    calls += 1
    log.append(name)
    if let failing, number >= failing.from { throw SystemError(name, failing.code) }
    if let fullFrom, number >= fullFrom, name == "write" { throw SystemError(name, ENOSPC) }
    switch faults[number] {
    case nil: return body(false)
    case .error(let code): throw SystemError(name, code)
    case .short:
      guard name.hasPrefix("write") else { throw SystemError(name, EIO) }
      return body(true)
    case .errorAfter(let code):
      _ = body(false)
      throw SystemError(name, code)
    case .crash:
      isDead = true
      throw SystemError(name, Self.dead)
    case .crashAfter:
      _ = body(false)
      isDead = true
      throw SystemError(name, Self.dead)
    }
  }

  func makeDirectory(_ path: String) throws(SystemError) { try call("mkdir") { _ in } }
  func lock(_ path: String, owner: String) throws(SystemError) -> String? {
    try call("lock") { _ in
      defer { isLocked = true }
      return isLocked ? "somebody" : nil
    }
  }
  func unlock() { isLocked = false }
  func open(_ path: String, creating: Bool) throws(SystemError) -> Int32? {
    try call("open \(path)") { _ in
      if names[path] == nil, creating { names[path] = File() }
      guard let file = names[path] else { return nil }
      nextFile += 1
      open[nextFile] = file
      return nextFile
    }
  }
  func close(_ file: Int32) { open[file] = nil }
  func size(_ file: Int32) throws(SystemError) -> Int { try call("size") { _ in open[file]!.seen.count } }
  func read(_ file: Int32, at offset: Int, count: Int) throws(SystemError) -> [UInt8] {
    try call("read") { _ in Array(open[file]!.seen.dropFirst(offset).prefix(count)) }
  }
  func write(_ file: Int32, at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(SystemError) -> Int {
    try call("write") { isShort in
      let taken = Array(isShort ? bytes.prefix((bytes.count + 1) / 2)[...] : bytes[...])
      let file = open[file]!
      if file.seen.count < offset { file.seen += [UInt8](repeating: 0, count: offset - file.seen.count) }
      file.seen.replaceSubrange(offset..<min(file.seen.count, offset + taken.count), with: taken)
      return taken.count
    }
  }
  func truncate(_ file: Int32, to size: Int) throws(SystemError) {
    try call("truncate") { _ in open[file]!.seen = Array(open[file]!.seen.prefix(size)) }
  }
  func sync(_ file: Int32) throws(SystemError) {
    try call("fsync") { _ in open[file]!.synced = open[file]!.seen }
  }
  func rename(_ path: String, to other: String) throws(SystemError) {
    try call("rename") { _ in
      names[other] = names[path]
      names[path] = nil
    }
  }
  func syncDirectory(_ path: String) throws(SystemError) { try call("fsync directory") { _ in syncedNames = names } }
}
