import ClusterHarness
import Foundation
import RankingCore
import Testing
import Wire

@testable import ClusterLoad

/// A bundle and a cluster of real processes that serves it.
struct LiveCluster {
  let bundle: TestBundle
  let cluster: LocalCluster

  init(ranked: Bool = false, _ change: (inout LocalCluster.Options) -> Void) throws {
    try self.init(try TestBundle(ranked: ranked), change)
  }
  init(_ bundle: TestBundle, _ change: (inout LocalCluster.Options) -> Void) throws {
    self.bundle = bundle
    var options = LocalCluster.Options(
      executable: Program.path, store: bundle.store, model: "home", version: "v1", shards: TestBundle.shards)
    options.directory = StateDirectory(path: bundle.directory + "/state")
    // An unoptimised program reads slowly enough.
    options.loadShare = 1
    change(&options)
    cluster = try LocalCluster(options)
  }

  /// Compares answers with the oracle's, over all shards.
  func expectOracle(at url: String? = nil, requests: Int = 60, seed: UInt64 = 5) throws {
    var http = PlainHTTP(try ServerURL(url ?? cluster.url))
    for (api, body) in bundle.requests(requests, seed: seed) {
      let response = try http.post("/v1/\(api.rawValue)", Array(body.utf8))
      let answer = try response.body.withUnsafeBytes { try ParsedAnswer($0) }
      let wanted = try bundle.expected(api, body)
      #expect(response.status == 200, "\(body): \(answer.errorMessage ?? "")\n\(cluster.logTails())")
      #expect(answer.items == wanted.items && answer.unknown == wanted.unknown, "\(body)")
      #expect(answer.answered == TestBundle.shards, "\(body): missing \(answer.missing)\n\(cluster.logTails())")
    }
  }

  /// Starts load that goes on until it is stopped.
  func load(rate: Double = 150) throws -> BackgroundLoad {
    let bodies = bundle.requests(120, seed: 9).filter { $0.api == .recommend }.map { Array($0.body.utf8) }
    let load = try BackgroundLoad(
      LoadGenerator(
        server: try ServerURL(cluster.url), endpoint: .recommend, requests: bodies, rate: rate, duration: .seconds(300),
        poisson: false, seed: 1, connections: 2, outstandingMax: 1000, limit: .seconds(5)))
    try waitForAnswers(50)
    return load
  }

  /// Waits until this many more requests have been answered.
  func waitForAnswers(_ more: Int) throws {
    var http = PlainHTTP(try ServerURL(cluster.url))
    let before = try metric("shortlist_answers_total", &http)
    let limit = ContinuousClock.now + .seconds(30)
    while try metric("shortlist_answers_total", &http) < before + Double(more) {
      try #require(ContinuousClock.now < limit, "no answers\n\(cluster.logTails())")
    }
  }
  func metric(_ name: String, _ http: inout PlainHTTP) throws -> Double {
    let text = try http.get("/metrics").text
    let line = text.split(separator: "\n").first { $0.hasPrefix(name + " ") }
    return line.flatMap { Double($0.split(separator: " ")[1]) } ?? 0
  }

  /// Stops load and expects that every request got a complete answer.
  func expectUndisturbed(_ load: BackgroundLoad) throws {
    let tally = try load.stop().tally
    #expect(
      tally.failures == 0 && tally.degraded == 0 && tally.ok > 50,
      "\(tally.ok) ok, \(tally.degraded) degraded, failed: \(tally.failed)\n\(cluster.logTails())")
  }

  /// Every shard is ready on exactly two of this many workers, each of which holds some.
  func waitUntilPlaced(on workers: Int) throws -> ClusterReport {
    try cluster.waitFor("every shard ready twice on \(workers) workers, all of which hold some") { report in
      let serving = report.workers.filter { $0.state == "alive" && !$0.draining && !$0.ejected && !$0.ready.isEmpty }
      return serving.count == workers
        && report.releases.map(\.replicas) == [Array(repeating: 2, count: TestBundle.shards)]
        && serving.allSatisfy { $0.holdings.allSatisfy(\.loading.isEmpty) }
    }
  }
}
