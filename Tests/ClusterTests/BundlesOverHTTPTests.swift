import ClusterHarness
import Foundation
import RankingCore
import Testing

@testable import ClusterLoad

/// Clusters whose members see no store: bundles come from a web server.
@Suite(.serialized) struct BundlesOverHTTPTests {
  private func worker(_ rolling: RollingCluster, _ name: String) -> String {
    "\(rolling.bundle.directory)/state/cache/\(name)"
  }
  private func versions(_ rolling: RollingCluster, _ name: String) -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: worker(rolling, name) + "/home")) ?? []).sorted()
  }

  /// Every connection breaks after some bytes; three versions roll, of which a cache holds two.
  @Test func versionsComeInPiecesAndTheCacheKeepsWhatServes() throws {
    let bundle = try TestBundle(.linear, itemCount: 5600)
    let server = FileServer(bundle.store)
    defer { server.close() }
    var trouble = FileServer.Trouble()
    trouble.cutAfter = 25_000
    server.set(trouble)
    let rolling = try RollingCluster(bundle, rate: 60) {
      $0.rollouts = true
      $0.bundles = (server.url, cacheMiB: 1)
    }
    defer { rolling.cluster.stop() }
    for version in ["v2", "v3"] {
      try bundle.add(version)
      let end = try rolling.waitForEnd(try rolling.start(version))
      #expect(end.outcome == "done", "\(end)\n\(rolling.cluster.logTails())")
    }
    #expect(server.seen.contains { $0.offset > 0 && $0.path.hasPrefix("/home/v3/shard-") })
    #expect(!server.seen.contains { $0.path.hasPrefix("/home/v3/") && $0.offset > 0 && $0.offset % 25_000 != 0 })
    for name in ["w1", "w2", "w3", "w4"] {
      #expect(versions(rolling, name) == ["v2", "v3"], "\(name)")
      var http = PlainHTTP(try ServerURL(try rolling.cluster.member(name).url))
      let text = try http.get("/metrics").text
      let kept = text.split(separator: "\n").first { $0.hasPrefix("shortlist_bundle_cache_bytes ") }
      let bytes = kept.flatMap { Double($0.split(separator: " ")[1]) } ?? 0
      #expect(bytes > 600_000 && bytes <= 1_048_576, "\(name): \(bytes)")
    }
    // What serves is here: a worker comes back without the server.
    server.close()
    try rolling.cluster.kill("w1")
    try rolling.cluster.member("w1").start()
    try rolling.cluster.waitFor("w1 holds v3 again") { report in
      report.workers.contains { $0.name == "w1" && $0.holdings.contains { $0.version == "v3" && $0.ready.count == 8 } }
    }
    try rolling.expectSound(versions: ["v1", "v2", "v3"])
  }

  /// What the server has is damaged: the version is turned back while it is loaded, and can be tried again. The server
  /// does no ranges: what has broken off comes again from its beginning.
  @Test func aDamagedFileIsRefusedAndAMendedOneTaken() throws {
    let bundle = try TestBundle(.none)
    let server = FileServer(bundle.store)
    defer { server.close() }
    var trouble = FileServer.Trouble()
    trouble.ignoresRanges = true
    trouble.cutFirstAfter = 4000
    server.set(trouble)
    let rolling = try RollingCluster(bundle) {
      $0.rollouts = true
      $0.bundles = (server.url, cacheMiB: 64)
    }
    defer { rolling.cluster.stop() }
    // By two workers, one of which was cut off once.
    #expect(server.seen.count { $0.path == "/home/v1/shard-0003.slice" } == 3)
    try bundle.add("v2")
    trouble.flips = "v2/shard-0003.slice"
    server.set(trouble)
    let end = try rolling.waitForEnd(try rolling.start("v2"))
    #expect(
      end.outcome == "failed" && end.why.contains("shard-0003.slice: fetched twice, and wrong both times: SHA-256"),
      "\(end)\n\(rolling.cluster.logTails())")
    trouble.flips = nil
    server.set(trouble)
    let again = try rolling.waitForEnd(try rolling.start("v2", again: true))
    #expect(again.outcome == "done", "\(again)\n\(rolling.cluster.logTails())")
    // A disk that aged: what is wrong in the cache is fetched once more.
    try rolling.cluster.kill("w1")
    let place = worker(rolling, "w1") + "/home/v2"
    let names = try FileManager.default.contentsOfDirectory(atPath: place).filter { $0.hasSuffix(".slice") }.sorted()
    var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: place + "/" + names[0])))
    bytes[bytes.count / 2] ^= 8
    try Data(bytes).write(to: URL(fileURLWithPath: place + "/" + names[0]))
    try Data("{".utf8).write(to: URL(fileURLWithPath: place + "/manifest.json"))
    try rolling.cluster.restart("w1")
    try rolling.cluster.waitFor("w1 holds v2 again") { report in
      report.workers.contains { $0.name == "w1" && $0.holdings.contains { $0.version == "v2" && $0.ready.count == 8 } }
    }
    try rolling.expectSound(versions: ["v1", "v2"])
  }
}
