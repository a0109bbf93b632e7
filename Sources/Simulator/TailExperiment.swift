import Nodes
import RankingCore
import Routing

// Two experiments in the manner of "The Tail at Scale" (Dean and Barroso, 2013), without any other fault:
//
//     scattered   every worker answers a random share of its legs 100 ms late
//     oneSlow     one worker answers everything 100 ms late, from an onset on

public struct TailExperiment: Sendable {
  public enum Kind: Sendable { case scattered(perMille: Int), oneSlow }
  public var kind: Kind
  public var seed: UInt64 = 1
  public var seconds = 24
  public var requestsPerSecond = 150
  /// Replica choice by load, ejection of slow workers, hedging: all, or none.
  public var isDefended = true
  public init(_ kind: Kind) { self.kind = kind }

  public struct Result: Sendable {
    /// Milliseconds, of the requests from two seconds after the onset on.
    public var p99: Double
    public var p50: Double
    /// Hedges and retries for each primary leg.
    public var extraLegs: Double
    public var requests: Int
  }

  public func run() -> Result {
    var options = SimulationOptions(seed: seed)
    options.seconds = seconds
    options.requestsPerSecond = requestsPerSecond
    let world = World(options, trace: nil, isExperiment: true)
    world.settings.routing.hedging = isDefended
    if case .oneSlow = kind, !isDefended {
      world.settings.routing.slowEjection = false
      world.settings.routing.choice = .random
    }
    if case .scattered(let perMille) = kind { world.hooks.delayedPerMille = perMille }
    let onset = world.start + .seconds(8)
    var took: [Double] = []
    world.hooks.took = { duration, now in
      if now >= onset + .seconds(2) { took.append(duration.milliseconds) }
    }
    if case .oneSlow = kind { world.queue.schedule(.delayWorker(3), at: onset) }
    world.run()
    took.sort()
    let primary = Double(world.report.primaryLegs)
    let extra = Double(world.report.hedges + world.report.retries)
    func percentile(_ fraction: Double) -> Double {
      took.isEmpty ? 0 : took[min(took.count - 1, Int(fraction * Double(took.count)))]
    }
    return Result(
      p99: percentile(0.99), p50: percentile(0.5), extraLegs: extra / max(1, primary), requests: took.count)
  }
}
