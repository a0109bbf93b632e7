import ClusterHarness
import Foundation
import Testing

@testable import ClusterLoad
@testable import Commands
@testable import Terminal

/// Which bundle `cluster up` takes from a store.
@Suite struct StoredModelTests {
  let store: String
  init() throws {
    store = try StateDirectory.temporary().path
  }

  func publish(_ version: String, _ manifest: String) throws {
    let folder = "\(store)/home/\(version)"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    try manifest.write(toFile: folder + "/manifest.json", atomically: true, encoding: .utf8)
  }
  func complaint(model: String = "home", version: String? = nil) -> String? {
    do {
      _ = try StoredModel.find(store: store, model: model, version: version)
      return nil
    } catch { return "\(error)".replacingOccurrences(of: store, with: "STORE") }
  }

  @Test func theNewestByTheManifestUnlessOneIsNamed() throws {
    defer { try? FileManager.default.removeItem(atPath: store) }
    try publish("v2", #"{"shards": 16, "created_at": "2026-01-01T00:00:00Z"}"#)
    try publish("v10", #"{"shards": 8, "created_at": "2026-02-01T00:00:00Z"}"#)
    try publish(".tmp-v11", "half written")
    let newest = try StoredModel.find(store: store, model: "home", version: nil)
    #expect(newest.version == "v10" && newest.shards == 8)
    #expect(try StoredModel.find(store: store, model: "home", version: "v2").shards == 16)
    #expect(complaint(version: "v3") == "home has no version \"v3\" in STORE; it has v10, v2")
    #expect(complaint(model: "hme") == "STORE has no model \"hme\"; did you mean home?")
    #expect(complaint(model: "search") == "STORE has no model \"search\"; it holds home")
  }

  @Test func whatIsNoBundleIsRefused() throws {
    defer { try? FileManager.default.removeItem(atPath: store) }
    #expect(complaint() == "STORE has no model \"home\"; it is empty")
    try publish("v1", "{")
    #expect(
      complaint() == "STORE/home/v1/manifest.json is not a bundle's manifest; see `shortlist bundle verify`")
  }
}
