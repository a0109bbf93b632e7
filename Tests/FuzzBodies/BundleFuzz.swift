import Bundles
import Foundation
import RankingCore

#if canImport(Glibc)
  import Glibc
#endif

/// Files of a bundle, with sums that are right, so that what is in them is looked at: the bundle that the environment
/// names (SHORTLIST_FUZZ_BUNDLE) with one file replaced. Without one only manifests are read.
enum BundleFuzz {
  private struct Template {
    var manifest: String
    var directory: String
  }
  private static let template: Template? = {
    guard let path = ProcessInfo.processInfo.environment["SHORTLIST_FUZZ_BUNDLE"],
      let manifest = try? String(contentsOfFile: path + "/manifest.json", encoding: .utf8)
    else { return nil }
    let directory = Self.directory + "/whole"
    try? FileManager.default.removeItem(atPath: directory)
    guard (try? FileManager.default.copyItem(atPath: path, toPath: directory)) != nil else { return nil }
    return Template(manifest: manifest, directory: directory)
  }()
  private static let directory: String = {
    let path = "/dev/shm/shortlist-fuzz-\(getpid())"
    try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    atexit { try? FileManager.default.removeItem(atPath: "/dev/shm/shortlist-fuzz-\(getpid())") }
    return path
  }()

  static func run(_ bytes: UnsafeRawBufferPointer) {
    guard let kind = bytes.first else { return }
    let rest = Array(bytes.dropFirst())
    guard kind % 3 > 0, let template else {
      write(rest, directory + "/manifest.json")
      guard let bundle = try? Bundle.open(directory) else { return }
      _ = (bundle.itemColumns.count, bundle.userColumns.count, bundle.contextColumns.count)
      return
    }
    let name = kind % 3 == 1 ? "shard-0000.slice" : "users.table"
    write(rest, template.directory + "/" + name)
    write(Array(replaced(template.manifest, name, rest).utf8), template.directory + "/manifest.json")
    guard let bundle = try? Bundle.open(template.directory) else { return }
    if kind % 3 == 1 { _ = try? bundle.loadSlice(ShardID(0)) } else { _ = try? bundle.loadUsers() }
  }

  /// The manifest with this file's size and sum.
  private static func replaced(_ manifest: String, _ name: String, _ bytes: [UInt8]) -> String {
    guard var object = try? JSONSerialization.jsonObject(with: Data(manifest.utf8)) as? [String: Any],
      var files = object["files"] as? [[String: Any]],
      let place = files.firstIndex(where: { $0["name"] as? String == name })
    else { return manifest }
    files[place]["size"] = bytes.count
    files[place]["sha256"] = bytes.withUnsafeBytes { SHA256.of($0) }
    object["files"] = files
    let data = (try? JSONSerialization.data(withJSONObject: object)) ?? Data()
    return String(decoding: data, as: UTF8.self)
  }

  private static func write(_ bytes: [UInt8], _ path: String) {
    let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    guard file >= 0 else { return }
    _ = Glibc.write(file, bytes, bytes.count)
    close(file)
  }
}
