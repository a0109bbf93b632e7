import Foundation
import RankingCore
import Testing

@testable import Bundles

@Suite struct BundleCacheTests {
  private let scratch = Scratch()
  private func id(_ version: String) -> ModelVersion { ModelVersion(model: "home", version: version) }
  private func file(_ name: String, _ bytes: [UInt8]) -> BundleManifest.File {
    BundleManifest.File(name: name, size: bytes.count, sha256: bytes.withUnsafeBytes { SHA256.of($0) })
  }
  private func cache(limit: Int = 1 << 20) throws -> BundleCache {
    try BundleCache(path: scratch.path + "/cache", limit: limit)
  }
  private func fill(_ cache: BundleCache, _ version: String, bytes: Int) throws {
    try cache.keep([UInt8](repeating: 7, count: bytes), as: "manifest.json", of: id(version))
  }

  @Test func aFileGoesOnWhereAnEarlierProcessLeftIt() throws {
    let bytes = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    let file = file("shard-0003.slice", bytes)
    do {
      let part = try cache().part(file, of: id("v1"))
      try bytes[..<200_000].withUnsafeBytes { try part.append($0) }
    }
    let cache = try cache()
    #expect(!cache.has(id("v1"), file.name, size: file.size))
    let part = try cache.part(file, of: id("v1"))
    #expect(part.count == 200_000)
    try bytes[200_000...].withUnsafeBytes { try part.append($0) }
    try part.finish()
    #expect(cache.has(id("v1"), file.name, size: file.size))
    #expect(try Data(contentsOf: URL(fileURLWithPath: cache.directory(of: id("v1")) + "/" + file.name)) == Data(bytes))
    #expect(cache.bytes == bytes.count)
  }

  @Test func aWrongSumLeavesNothing() throws {
    let bytes = [UInt8](repeating: 1, count: 1000)
    let file = file("shard-0003.slice", bytes)
    let cache = try cache()
    for wrong in [[UInt8](repeating: 2, count: 1000), [UInt8](bytes[..<999])] {
      let part = try cache.part(file, of: id("v1"))
      #expect(part.count == 0)
      try wrong.withUnsafeBytes { try part.append($0) }
      let error = #expect(throws: InputError.self) { try part.finish() }
      #expect(error?.reason.contains("SHA-256 expected \(file.sha256) of 1000 bytes") == true, "\(error as Any)")
      #expect(!cache.has(id("v1"), file.name, size: nil) && cache.bytes == 0)
    }
    let part = try cache.part(file, of: id("v1"))
    let more = [UInt8](repeating: 1, count: 1001)
    #expect(throws: InputError.self) { try more.withUnsafeBytes { try part.append($0) } }
    try bytes.withUnsafeBytes { try part.append($0) }
    try part.restart()
    try bytes.withUnsafeBytes { try part.append($0) }
    try part.finish()
    #expect(cache.has(id("v1"), file.name, size: 1000))
  }

  /// The least recently used goes first; what is needed never does.
  @Test func makesRoomButNeverOfWhatIsNeeded() throws {
    let cache = try cache(limit: 1000)
    for version in ["v1", "v2", "v3"] { try fill(cache, version, bytes: 300) }
    #expect(cache.has(id("v1"), "manifest.json", size: nil))
    try cache.makeRoom(for: 350, of: id("v4"), needed: [id("v2")])
    #expect(!cache.has(id("v3"), "manifest.json", size: nil))
    #expect(cache.has(id("v1"), "manifest.json", size: nil) && cache.has(id("v2"), "manifest.json", size: nil))
    try cache.makeRoom(for: 400, of: id("v1"), needed: [id("v2")])
    #expect(cache.has(id("v1"), "manifest.json", size: nil))
    let error = #expect(throws: InputError.self) {
      try cache.makeRoom(for: 401, of: id("v4"), needed: [id("v1"), id("v2")])
    }
    #expect(
      error?.reason.contains("no room for 401 bytes more of home/v4: 1000 are allowed") == true, "\(error as Any)")
    #expect(cache.bytes == 600)
  }

  @Test func belongsToOneProcess() throws {
    let first = try cache()
    let error = #expect(throws: InputError.self) { try cache() }
    #expect(error?.reason.contains("belongs to another process") == true)
    _ = first.path
  }

  /// Names in a manifest become names of files here.
  @Test func aManifestCannotNameAFileElsewhere() throws {
    let directory = scratch.path + "/evil"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    for name in ["../../evil.json", ".hidden", "manifest.json"] {
      let manifest = """
        {"format_version": 1, "model": "home", "version": "v1", "shards": 1, "hash": "xxh64", "dimension": 2,
         "items_per_shard": [1], "users": 0, "schema": {"item": [], "user": [], "context": []}, "ranker": "\(name)",
         "files": [{"name": "\(name)", "size": 3, "sha256": "00"}], "lineage": {"inputs": []}, "created_at": ""}
        """
      try Data(manifest.utf8).write(to: URL(fileURLWithPath: directory + "/manifest.json"))
      let bundle = try Bundle.open(directory)
      #expect(throws: InputError.self) { try bundle.files(of: .rankers) }
    }
  }
}
