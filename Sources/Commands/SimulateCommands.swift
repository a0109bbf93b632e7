import Foundation
import RankingCore
import Simulator
import Synchronization
import Terminal

// `simulate`: whole clusters in virtual time, one per seed.

extension Command {
  static let simulate = Command(
    name: "simulate",
    summary: "Run whole clusters in virtual time, with faults made from a seed, and check every answer",
    discussion: """
      Each seed is a cluster of 8 workers and 1 to 3 coordinators that run the code of the real processes. Workers
      crash, freeze and slow down, links break and stall; every answer is compared with the oracle's, every leg with its
      budget.
      In the last quarter nothing fails any more and everything must be complete and quick.
      A violation prints what was broken, what had happened at each node, and the command that replays it. Exit code 1.
      """,
    example: "shortlist simulate --seeds 1..2000",
    options: [
      .integer("seed", "one seed", in: 0...Int.max),
      .text("seeds", "A..B", "several seeds, both ends included"),
      .integer("seconds", "virtual seconds per seed", in: 10...3600, standard: 60),
      .integer("workers", "workers of each cluster", in: 3...64, standard: 8),
      .integer("threads", "seeds run at once", in: 1...256, standard: 2),
      .flag("scale", "instead: 1 000 workers, 1 000 shards, 3 replicas, and p99 against fan-out"),
      .integer("requests", "requests of --scale", in: 100...1_000_000, standard: 20_000),
      .flag("trace", "print every event (with --seed)"),
      Option(
        name: "plant", kind: .choice(PlantedFaults.named.map(\.name)), placeholder: "BUG",
        help: "switch a bug on, to see that it is found"),
    ],
    run: { try simulate($0) })

  private static func simulate(_ invocation: Invocation) throws -> Int32 {
    if invocation.flag("scale") { return try ScaleCommand.run(invocation) }
    let seeds = try self.seeds(invocation)
    let plant = PlantedFaults.named.first { $0.name == invocation.optional("plant") }?.fault ?? []
    let (length, workers) = (invocation.integer("seconds"), invocation.integer("workers"))
    @Sendable func options(_ seed: UInt64) -> SimulationOptions {
      var options = SimulationOptions(seed: seed)
      options.seconds = length
      options.workers = workers
      options.planted = plant
      return options
    }
    if invocation.flag("trace") {
      guard seeds.count == 1, let seed = seeds.first else { throw UsageError("--trace goes with one --seed") }
      let report = Simulation(options(seed), trace: { Console.print($0) }).run()
      return try finish([report], .zero, invocation)
    }
    let next = Atomic<Int>(0)
    let reports = Mutex<[SimulationReport]>([])
    let start = ContinuousClock.now
    let group = DispatchGroup()
    for _ in 0..<min(invocation.integer("threads"), seeds.count) {
      group.enter()
      let thread = Thread {
        while true {
          let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
          guard index < seeds.count else { break }
          let report = Simulation(options(seeds.lowerBound + UInt64(index))).run()
          reports.withLock { $0.append(report) }
        }
        group.leave()
      }
      thread.stackSize = 8 << 20
      thread.start()
    }
    while group.wait(timeout: .now() + 1) == .timedOut {
      let (done, bad) = reports.withLock { ($0.count, $0.count { $0.violation != nil }) }
      Console.live("\(done) of \(seeds.count) seeds, \(bad) violations")
    }
    Console.live("")
    return try finish(reports.withLock { $0 }.sorted { $0.seed < $1.seed }, ContinuousClock.now - start, invocation)
  }

  private static func seeds(_ invocation: Invocation) throws -> ClosedRange<UInt64> {
    if let text = invocation.optional("seeds") {
      let parts = text.components(separatedBy: "..")
      guard parts.count == 2, let low = UInt64(parts[0]), let high = UInt64(parts[1]), low <= high else {
        throw UsageError("--seeds \(text): write the first and the last, for example 1..2000")
      }
      return low...high
    }
    guard invocation.optional("seed") != nil else { throw UsageError("--seed N or --seeds A..B is needed") }
    let seed = UInt64(invocation.integer("seed"))
    return seed...seed
  }

  private struct Summary: Encodable {
    var seeds: Int
    var violations: Int
    var failed_seeds: [UInt64]
    var requests: Int
    var legs: Int
    var answered: Int
    var degraded: Int
    var refused: Int
    var hedges: UInt64
    var retries: UInt64
    var ejections: UInt64
    var loads: UInt64
    var rollouts: Int
    var rollouts_done: Int
    /// Begun after everything had healed, and done by the end.
    var rollouts_in_peace: Int
    var done_in_peace: Int
    /// Share of the seeds in which each kind happened at least once, and how often in all.
    var fault_seeds: [String: Double]
    var faults: [String: Int]
    var transitions: [String: UInt64]
    var trace_hash: String
    /// The worst of all seeds, after everything had healed.
    var quiet_p50_ms: Double
    var quiet_p99_ms: Double
    var quiet_max_ms: Double
    var seconds: Double
  }

  private static func finish(
    _ reports: [SimulationReport], _ elapsed: Duration, _ invocation: Invocation
  ) throws -> Int32 {
    let broken = reports.filter { $0.violation != nil }
    for report in broken.prefix(5) {
      Console.warn("seed \(report.seed): \(report.violation ?? "")")
      for line in report.history { Console.warn("  \(line)") }
      Console.warn(
        "replay: shortlist simulate --seed \(report.seed) --seconds \(invocation.integer("seconds")) --trace")
    }
    var faults: [String: Int] = [:]
    var shares: [String: Double] = [:]
    for kind in FaultKind.allCases {
      faults[kind.name] = reports.reduce(0) { $0 + $1.faults[kind.rawValue] }
      let seeds = reports.count { $0.faults[kind.rawValue] > 0 }
      shares[kind.name] = (Double(seeds) / Double(max(1, reports.count)) * 1000).rounded() / 1000
    }
    var transitions: [String: UInt64] = [:]
    for (index, state) in SimulationReport.stateNames.enumerated() {
      transitions[state] = reports.reduce(0) { $0 + $1.transitions[index] }
    }
    let summary = Summary(
      seeds: reports.count, violations: broken.count, failed_seeds: broken.map(\.seed),
      requests: reports.reduce(0) { $0 + $1.requests }, legs: reports.reduce(0) { $0 + $1.legs },
      answered: reports.reduce(0) { $0 + $1.answered }, degraded: reports.reduce(0) { $0 + $1.degraded },
      refused: reports.reduce(0) { $0 + $1.refused }, hedges: reports.reduce(0) { $0 + $1.hedges },
      retries: reports.reduce(0) { $0 + $1.retries }, ejections: reports.reduce(0) { $0 + $1.ejections },
      loads: reports.reduce(0) { $0 + $1.loads }, rollouts: reports.reduce(0) { $0 + $1.rollouts },
      rollouts_done: reports.reduce(0) { $0 + $1.rolloutsDone },
      rollouts_in_peace: reports.reduce(0) { $0 + $1.rolloutsInPeace },
      done_in_peace: reports.reduce(0) { $0 + $1.doneInPeace }, fault_seeds: shares, faults: faults,
      transitions: transitions,
      trace_hash: String(reports.reduce(0) { StableHash.mix($0 ^ $1.traceHash) }, radix: 16),
      quiet_p50_ms: reports.map(\.quietP50).max() ?? 0, quiet_p99_ms: reports.map(\.quietP99).max() ?? 0,
      quiet_max_ms: reports.map(\.quietMax).max() ?? 0,
      seconds: (elapsed / .seconds(1) * 100).rounded() / 100)
    if invocation.json {
      try Console.printJSON(summary)
    } else {
      Console.print("requests \(summary.requests), legs \(summary.legs), answered \(summary.answered)")
      Console.print("degraded \(summary.degraded), refused \(summary.refused), trace hash \(summary.trace_hash)")
      Console.print(
        "latency after the faults, worst seed: p50 \(summary.quiet_p50_ms), p99 \(summary.quiet_p99_ms), "
          + "max \(summary.quiet_max_ms) ms")
      Console.print(
        "rollouts \(summary.rollouts), done \(summary.rollouts_done); after the faults \(summary.rollouts_in_peace), "
          + "done \(summary.done_in_peace)")
      Console.print("hedges \(summary.hedges), retries \(summary.retries), ejections \(summary.ejections)")
      var table = TextTable(["fault", "times", "share of seeds"])
      for kind in FaultKind.allCases {
        table.add([kind.name, "\(faults[kind.name] ?? 0)", "\(shares[kind.name] ?? 0)"])
      }
      Console.print(table.text)
      Console.print(
        "transitions to "
          + transitions.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
      Console.print("\(summary.seeds) seeds, \(summary.violations) violations, \(summary.seconds) s")
    }
    return broken.isEmpty ? 0 : 1
  }
}
