import Foundation
import Glibc
import RankingCore

// Files of bundles that lie elsewhere, kept on this machine's disk.
//
//     <cache>/.lock                                   held by the process that owns the cache
//     <cache>/home/v2/manifest.json
//                     shard-0003.slice                whole: its SHA-256 was right when it came
//                     shard-0007.slice.part           on its way; goes on where it is, also after a restart
//
// A version's directory holds what this process needs of it, not the whole bundle. When there is no room, versions that
// nobody needs go, whole, the one that was not used for longest first. What serves or is on its way never goes: rather
// the newcomer is refused.

/// What a process needs of a bundle.
public enum BundlePart: Sendable, Equatable {
  /// To route: the user table, the warm-up queries, the list ranker.
  case users
  /// To rank.
  case rankers
  case slice(ShardID)
}

extension Bundle {
  /// The files of a part, as the manifest lists them.
  public func files(of part: BundlePart) throws(InputError) -> [BundleManifest.File] {
    let names =
      switch part {
      case .users:
        [BundleManifest.usersName, BundleManifest.warmupName] + [manifest.listRanker?.file].compactMap { $0 }
      case .rankers: manifest.weightedRankers.map(\.file)
      case .slice(let shard): [BundleManifest.sliceName(shard)]
      }
    var files: [BundleManifest.File] = []
    for name in names {
      let file = try manifest.file(name, in: path)
      // They become names of files here, and come from elsewhere.
      guard ModelVersion.isValidName(file.name), file.name != BundleManifest.fileName, file.size >= 0 else {
        throw InputError(file: path, "lists a file \"\(file.name)\" of \(file.size) bytes")
      }
      files.append(file)
    }
    return files
  }
}

public final class BundleCache: Sendable {
  public let path: String
  /// Bytes it may take.
  public let limit: Int
  private let lock: Int32
  public static let manifestName = BundleManifest.fileName
  /// More is no manifest.
  public static let manifestBytesMax = 64 << 20
  private static let partSuffix = ".part"

  /// - Throws: also when another process owns the cache.
  public init(path: String, limit: Int) throws(InputError) {
    do {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    } catch {
      throw InputError(file: path, "cannot be created as a directory")
    }
    let lockPath = path + "/.lock"
    let handle = open(lockPath, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard handle >= 0 else { throw InputError(file: lockPath, "cannot be opened: \(systemError())") }
    guard flock(handle, LOCK_EX | LOCK_NB) == 0 else {
      close(handle)
      throw InputError(file: path, "belongs to another process that runs; each needs a cache of its own")
    }
    self.path = path
    self.limit = limit
    lock = handle
  }

  deinit { close(lock) }

  public func directory(of id: ModelVersion) -> String { Store(path).path(of: id) }
  private func place(_ id: ModelVersion, _ name: String) -> String { directory(of: id) + "/" + name }

  /// Whether a file is here, whole; if so it counts as used now.
  public func has(_ id: ModelVersion, _ name: String, size: Int?) -> Bool {
    let place = place(id, name)
    var status = stat()
    guard stat(place, &status) == 0, size.map({ $0 == Int(status.st_size) }) ?? true else { return false }
    Self.touch(place)
    return true
  }

  /// Marks a file as used now: not by the kernel's own clock, which moves in steps of some milliseconds.
  fileprivate static func touch(_ place: String) {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    _ = utimensat(AT_FDCWD, place, [now, now], 0)
  }

  /// Takes a file away that turned out to be wrong.
  public func discard(_ id: ModelVersion, _ name: String) {
    unlink(place(id, name))
    unlink(place(id, name) + Self.partSuffix)
  }

  /// Keeps a small file that came whole.
  public func keep(_ bytes: [UInt8], as name: String, of id: ModelVersion) throws(InputError) {
    try makeDirectory(id)
    try AtomicFile.write(bytes, to: place(id, name))
    Self.touch(place(id, name))
  }

  /// A file to be filled, with what has come of it before.
  public func part(_ file: BundleManifest.File, of id: ModelVersion) throws(InputError) -> PartialFile {
    try makeDirectory(id)
    return try PartialFile(file, place: place(id, file.name), partial: place(id, file.name) + Self.partSuffix)
  }

  private func makeDirectory(_ id: ModelVersion) throws(InputError) {
    do {
      try FileManager.default.createDirectory(atPath: directory(of: id), withIntermediateDirectories: true)
    } catch {
      throw InputError(file: directory(of: id), "cannot be created as a directory")
    }
  }

  // MARK: Room

  private struct Kept {
    var id: ModelVersion
    var bytes = 0
    /// Nanoseconds since 1970.
    var used = 0
  }

  /// What is here, a version each, in the order of names.
  private func kept() -> [Kept] {
    let files = FileManager.default
    func names(_ path: String) -> [String] {
      ((try? files.contentsOfDirectory(atPath: path)) ?? []).filter { !$0.hasPrefix(".") }.sorted()
    }
    return names(path).flatMap { model in
      names(path + "/" + model).map { version in
        var kept = Kept(id: ModelVersion(model: model, version: version))
        let place = directory(of: kept.id)
        for name in (try? files.contentsOfDirectory(atPath: place)) ?? [] {
          var status = stat()
          guard stat(place + "/" + name, &status) == 0 else { continue }
          kept.bytes += Int(status.st_size)
          kept.used = max(kept.used, status.st_mtim.tv_sec * 1_000_000_000 + status.st_mtim.tv_nsec)
        }
        return kept
      }
    }
  }

  /// Bytes that lie here.
  public var bytes: Int { kept().reduce(0) { $0 + $1.bytes } }

  /// Makes room for so many more bytes of a version.
  ///
  /// - Parameter needed: versions that serve or are on their way; `id` is one anyway.
  /// - Throws: when what is needed leaves too little room.
  public func makeRoom(for more: Int, of id: ModelVersion, needed: Set<ModelVersion>) throws(InputError) {
    var kept = kept()
    var total = kept.reduce(0) { $0 + $1.bytes }
    kept.removeAll { $0.id == id || needed.contains($0.id) }
    kept.sort { ($0.used, $0.id.model, $0.id.version) < ($1.used, $1.id.model, $1.id.version) }
    for old in kept where total + more > limit {
      try? FileManager.default.removeItem(atPath: directory(of: old.id))
      total -= old.bytes
    }
    guard total + more <= limit else {
      throw InputError(
        file: path,
        "the cache has no room for \(more) bytes more of \(id): \(limit) are allowed, and what is there, \(total), "
          + "serves or is about to; raise \"cache_mib\"")
    }
  }
}

/// A file of which some may be here already; its sum is followed while it grows.
public final class PartialFile {
  private let file: BundleManifest.File
  private let place: String
  private let partial: String
  private let descriptor: Int32
  private var sum = SHA256()
  /// Bytes that are here.
  public private(set) var count = 0

  fileprivate init(_ file: BundleManifest.File, place: String, partial: String) throws(InputError) {
    self.file = file
    self.place = place
    self.partial = partial
    descriptor = open(partial, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw InputError(file: partial, "cannot be opened: \(systemError())") }
    try sumUp()
  }

  deinit { close(descriptor) }

  /// Reads what an earlier process has left.
  private func sumUp() throws(InputError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 64)
    defer { buffer.deallocate() }
    while true {
      let read = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
      if read < 0, errno == EINTR { continue }
      guard read >= 0 else { throw InputError(file: partial, "cannot be read: \(systemError())") }
      if read == 0 { break }
      sum.update(UnsafeRawBufferPointer(rebasing: buffer[..<read]))
      count += read
    }
    if count > file.size { try restart() }
  }

  /// Forgets what is here.
  public func restart() throws(InputError) {
    guard ftruncate(descriptor, 0) == 0, lseek(descriptor, 0, SEEK_SET) == 0 else {
      throw InputError(file: partial, "cannot be emptied: \(systemError())")
    }
    sum = SHA256()
    count = 0
  }

  public func append(_ bytes: UnsafeRawBufferPointer) throws(InputError) {
    guard count + bytes.count <= file.size else {
      throw InputError(file: partial, "more comes than the \(file.size) bytes that the manifest says")
    }
    try AtomicFile.writeAll(bytes, to: descriptor, path: partial)
    sum.update(bytes)
    count += bytes.count
  }

  /// Gives the whole file its name.
  ///
  /// - Throws: when its sum is not the manifest's; then nothing of it is left.
  public func finish() throws(InputError) {
    var whole = SHA256()
    swap(&whole, &sum)
    let actual = whole.finish()
    guard count == file.size, actual == file.sha256 else {
      unlink(partial)
      throw InputError(
        file: place, "SHA-256 expected \(file.sha256) of \(file.size) bytes, actual \(actual) of \(count)")
    }
    guard fsync(descriptor) == 0 else { throw InputError(file: partial, "cannot be synced: \(systemError())") }
    guard rename(partial, place) == 0 else { throw InputError(file: partial, "cannot be renamed: \(systemError())") }
    BundleCache.touch(place)
    try syncDirectory(parentDirectory(of: place))
  }
}
