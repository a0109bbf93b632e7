import Foundation
import Terminal

/// A published bundle as the local cluster needs to know it: where, which version, how many shards.
struct StoredModel {
  var store: String
  var model: String
  var version: String
  var shards: Int
  private var created: String

  /// Finds a version of a model in a store; without a name the newest.
  static func find(store: String, model: String, version: String?) throws -> StoredModel {
    let root = URL(fileURLWithPath: store).standardizedFileURL.path
    let manager = FileManager.default
    guard let models = try? manager.contentsOfDirectory(atPath: root) else {
      throw CommandError("--store \(store) is not a readable directory; `shortlist bundle build` makes one")
    }
    let visible = models.filter { !$0.hasPrefix(".") }.sorted()
    guard visible.contains(model) else {
      let known =
        nearest(to: model, in: visible).map { "did you mean \($0)?" }
        ?? (visible.isEmpty ? "it is empty" : "it holds \(visible.joined(separator: ", "))")
      throw CommandError("\(store) has no model \"\(model)\"; \(known)")
    }
    let names = try manager.contentsOfDirectory(atPath: "\(root)/\(model)").filter { !$0.hasPrefix(".") }.sorted()
    if let version, !names.contains(version) {
      throw CommandError("\(model) has no version \"\(version)\" in \(store); it has \(names.joined(separator: ", "))")
    }
    let found = try (version.map { [$0] } ?? names).map { try read(root, model, $0) }
    guard let newest = found.max(by: { ($0.created, $0.version) < ($1.created, $1.version) }) else {
      throw CommandError("\(model) has no version in \(store); `shortlist bundle build` publishes one")
    }
    return newest
  }

  private static func read(_ root: String, _ model: String, _ version: String) throws -> StoredModel {
    let path = "\(root)/\(model)/\(version)/manifest.json"
    guard let data = FileManager.default.contents(atPath: path) else { throw CommandError("cannot read \(path)") }
    guard let manifest = (try? JSONSerialization.jsonObject(with: data)) as? [String: Any],
      let shards = manifest["shards"] as? Int, (1...4096).contains(shards)
    else { throw CommandError("\(path) is not a bundle's manifest; see `shortlist bundle verify`") }
    return StoredModel(
      store: root, model: model, version: version, shards: shards, created: manifest["created_at"] as? String ?? "")
  }
}
