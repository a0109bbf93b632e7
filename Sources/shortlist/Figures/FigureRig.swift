import ClusterHarness
import Foundation
import HTTP2
import Synchronization

/// What every row works with: the bundle, the load it uses, clusters to hurt.
struct FigureRig: Sendable {
  let executable: String
  let directory: String
  let bundle: FigureBundle
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
      shards: FigureBundle.shards)
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
    inspect: (@Sendable (Int, Duration, ClientResponse) -> Void)? = nil
  ) throws -> LoadGenerator {
    var generator = LoadGenerator(
      server: try ServerURL(cluster.url), endpoint: .recommend, requests: FigureBundle.requests(mixed: mixed),
      rate: rate ?? self.rate, duration: duration, poisson: true, seed: 7, connections: connections,
      outstandingMax: 5000, limit: Self.clientLimit)
    generator.traces = true
    generator.inspect = inspect
    return generator
  }

  /// Runs load to its end.
  func run(_ generator: LoadGenerator) throws -> LoadGenerator.Run { try generator.run(stopped: { false }) }

  /// Latencies must have been seen and slow starts be over before anything is measured.
  func warmUp(_ cluster: LocalCluster) throws { _ = try run(try generator(cluster, for: .seconds(6))) }

  func pause(_ duration: Duration) { Monotonic.wait(until: Monotonic.now + duration) }
}

/// Load that runs while something else is done.
final class BackgroundLoad: Sendable {
  /// When its first request was due.
  let start: Duration
  private let stopping: Flag
  private let state: Ending

  private final class Flag: Sendable {
    let value = Mutex(false)
  }
  private final class Ending: @unchecked Sendable {
    let begun = DispatchSemaphore(value: 0)
    let over = DispatchSemaphore(value: 0)
    let start = Mutex<Duration>(.zero)
    let result = Mutex<Result<LoadGenerator.Run, any Error>?>(nil)
  }

  /// Returns when the first request is due.
  init(_ generator: LoadGenerator) throws {
    let (stopping, state) = (Flag(), Ending())
    let thread = Thread {
      let result = Result {
        try generator.run(
          stopped: { stopping.value.withLock { $0 } },
          started: { start in
            state.start.withLock { $0 = start }
            state.begun.signal()
          })
      }
      state.result.withLock { $0 = result }
      state.begun.signal()
      state.over.signal()
    }
    thread.name = "load"
    thread.start()
    state.begun.wait()
    self.stopping = stopping
    self.state = state
    start = state.start.withLock { $0 }
  }

  /// The time in the run.
  var now: Duration { Monotonic.now - start }
  /// Sleeps until this time in the run.
  func wait(until time: Duration) { Monotonic.wait(until: start + time) }

  /// Sends no more, waits for what is under way, and tells what became of everything; to be called once.
  func stop() throws -> LoadGenerator.Run {
    stopping.value.withLock { $0 = true }
    return try result()
  }
  /// The same after the whole duration.
  func result() throws -> LoadGenerator.Run {
    state.over.wait()
    guard let result = state.result.withLock({ $0 }) else { throw CommandError("the load ended without a result") }
    return try result.get()
  }
}

/// A coordinator's `/metrics`, added up over everything but the labels that are asked for.
struct MetricsPage {
  private var lines: [(name: Substring, labels: Substring, value: Double)] = []

  init(_ cluster: LocalCluster) throws {
    var http = PlainHTTP(try ServerURL(cluster.url), limit: .seconds(5))
    let text = try http.get("/metrics").text
    for line in text.split(separator: "\n") where !line.hasPrefix("#") {
      guard let space = line.lastIndex(of: " "), let value = Double(line[line.index(after: space)...]) else { continue }
      let key = line[..<space]
      let name = key.prefix { $0 != "{" }
      lines.append((name, key.dropFirst(name.count), value))
    }
  }

  /// - Parameter label: like `kind="hedge"`; empty = all.
  func sum(_ name: String, _ label: String = "") -> Double {
    lines.reduce(0) { $0 + ($1.name == name && (label.isEmpty || $1.labels.contains(label)) ? $1.value : 0) }
  }
}

extension LoadGenerator.Run {
  var p99: Double { tally.latencies.quantile(0.99).map(inMilliseconds) ?? .infinity }
  var failures: Int { tally.failures }
  /// The reasons of failures, for a note.
  var failureText: String {
    tally.failed.sorted { $0.key < $1.key }.map { "\($0.value) × \($0.key)" }.joined(separator: ", ")
  }
  /// When answers were not complete, or not given, counted from the last of some events before each: a line for every
  /// event that was followed by any.
  func troubles(since events: [(what: String, at: Duration)]) -> [String] {
    let bad = trace.samples.filter { $0.outcome != .ok }
    return events.indices.compactMap { index in
      let end = index + 1 < events.count ? events[index + 1].at : .seconds(1 << 30)
      let mine = bad.filter { $0.end >= events[index].at && $0.end < end }.map { $0.end - events[index].at }.sorted()
      guard let first = mine.first, let last = mine.last else { return nil }
      let gap = index > 0 ? Int((events[index].at - events[index - 1].at) / .milliseconds(1)) : 0
      let before = index > 0 ? ", \(gap) ms after \(events[index - 1].what)" : ""
      let at = Int(events[index].at / .milliseconds(1))
      return "\(events[index].what) at \(at) ms\(before): \(mine.count) answers "
        + "\(Int(first / .milliseconds(1))) to \(Int(last / .milliseconds(1))) ms later"
    }
  }
  /// The slowest answer to a request that was under way at some time from `start` to `end`.
  func slowest(from start: Duration, to end: Duration) -> Double {
    trace.samples.lazy.filter { $0.due < end && $0.end > start }.map { inMilliseconds($0.latency) }.max() ?? 0
  }
}
