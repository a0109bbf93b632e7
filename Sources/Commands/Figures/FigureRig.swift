import ClusterHarness
import ClusterLoad
import Foundation
import HTTP2
import Synchronization
import Terminal

/// What every row works with: the bundle, the load it uses, clusters to hurt.
struct FigureRig: Sendable {
  let executable: String
  let directory: String
  let bundle: SyntheticBundle
  /// Shorter runs, for a look; the limits are the same.
  let quick: Bool
  /// Workers join and are given their shards, instead of being started with them.
  let joins: Bool
  let soak: Duration
  /// Where the processes' logs are kept; `nil` = nowhere.
  let logs: String?
  /// Requests per second: half the knee.
  var rate = 0.0
  /// The best rate of complete answers that was seen, at any load.
  var peak = 0.0

  static let workers = 4
  static let replicas = 2
  /// What a client that is in no hurry waits.
  static let clientLimit: Duration = .seconds(5)

  func say(_ text: String) { Console.warn("figures: \(text)") }

  // MARK: clusters

  func cluster(
    routing: CoordinatorFile.Routing? = nil, allowFaults: Bool = false, joins: Bool? = nil, rollouts: Bool = false,
    _ change: (inout LocalCluster.Options) -> Void = { _ in }
  ) throws -> LocalCluster {
    var options = LocalCluster.Options(
      executable: executable, store: bundle.store, model: bundle.release.model, version: bundle.release.version,
      shards: SyntheticBundle.shards)
    options.workers = Self.workers
    options.replicas = Self.replicas
    options.routing = routing
    options.allowFaults = allowFaults
    options.rollouts = rollouts
    options.joins = joins ?? self.joins
    options.directory = StateDirectory(path: "\(logs ?? directory)/state-\(UUID().uuidString.prefix(8))")
    options.keepsLogs = logs != nil
    change(&options)
    let cluster = try LocalCluster(options)
    try waitUntilHealthy(cluster)
    return cluster
  }

  /// Every shard has all its replicas, and no worker is anything but alive.
  @discardableResult
  func waitUntilHealthy(_ cluster: LocalCluster, limit: Duration = .seconds(30)) throws -> ClusterReport {
    try cluster.waitFor("\(Self.replicas) replicas of every shard, every worker alive", limit: limit) { report in
      report.replicasMin >= Self.replicas
        && report.workers.allSatisfy { $0.state == "alive" && !$0.draining && !$0.ejected }
    }
  }

  /// The two workers that have most shards in common, and which those are.
  func pair(_ report: ClusterReport) throws -> (first: String, second: String, shards: [Int]) {
    var best: (first: String, second: String, shards: [Int]) = ("", "", [])
    for (index, first) in report.workers.enumerated() {
      for second in report.workers[(index + 1)...] {
        let held = Set(second.ready)
        let common = first.ready.filter(held.contains).sorted()
        if common.count > best.shards.count { best = (first.name, second.name, common) }
      }
    }
    guard !best.shards.isEmpty else { throw CommandError("no two workers have a shard in common") }
    return best
  }

  // MARK: load

  func generator(
    _ cluster: LocalCluster, rate: Double? = nil, for duration: Duration, mixed: Bool = false, connections: Int = 4,
    ended: (@Sendable (LoadGenerator.RequestEnd) -> Void)? = nil
  ) throws -> LoadGenerator {
    var generator = LoadGenerator(
      server: try ServerURL(cluster.url), endpoint: .recommend, requests: bundle.requests(mixed: mixed),
      rate: rate ?? self.rate, duration: duration, poisson: true, seed: 7, connections: connections,
      outstandingMax: 5000, limit: Self.clientLimit)
    generator.traces = true
    generator.ended = ended
    return generator
  }

  /// Runs load to its end.
  func run(_ generator: LoadGenerator) throws -> LoadGenerator.Run { try generator.run(stopped: { false }) }

  /// Latencies must have been seen and slow starts be over before anything is measured.
  func warmUp(_ cluster: LocalCluster) throws { _ = try run(try generator(cluster, for: .seconds(6))) }

  func pause(_ duration: Duration) { Monotonic.wait(until: Monotonic.now + duration) }
}
