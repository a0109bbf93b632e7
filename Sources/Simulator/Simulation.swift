import Membership
import RankingCore

// A whole cluster in one thread of virtual time: the same coordinators and workers as in the processes, a network and a
// fate made from a seed, and somebody who checks every answer.
//
//     clients ─► [coordinator] ══ links that delay, lose, break, stall ══ [worker]     all of it from one generator
//                     │                                                      │
//                     └── every effect and every answer ──► Checker ◄────────┘
//
//     0 s ─────────── safety: faults, what DESIGN §8 promises is checked ───────────┬── liveness: no more faults ──┐
//     warm-up, traffic, crashes, freezes, slow nodes, cuts, resets …                 heal    everything complete    end
//
// The same seed gives the same run: nothing here asks the world. Run one with `Simulation(options).run()`.

public struct SimulationOptions: Sendable {
  public var seed: UInt64
  /// Virtual time in all; the last quarter is the liveness phase.
  public var seconds = 60
  public var workers = 8
  public var requestsPerSecond = 20
  /// Bugs to switch on, to see that they are found.
  public var planted: PlantedFaults = []
  public init(seed: UInt64) { self.seed = seed }
}

/// What goes wrong.
public enum FaultKind: Int, CaseIterable, Sendable {
  case workerCrash, workerFreeze, workerSlow, workerResets, linkBreak, linkClog, partition, ringPartition
  case coordinatorCrash, coordinatorFreeze, duplicatedReplies, lostPackets, bothReplicasDown, reordered, clientGone
  case workerGone
  /// The store of the agreed document, for all or for one coordinator.
  case storeAway
  public var name: String { "\(self)" }
}

public struct SimulationReport: Sendable {
  public var seed: UInt64
  /// Depends on every event of the run.
  public var traceHash: UInt64 = 0
  /// What was broken first, and what had happened at each node before; `nil` = nothing.
  public var violation: String?
  public var history: [String] = []
  public var requests = 0
  public var legs = 0
  public var answered = 0
  /// Milliseconds, of the answers after everything had healed.
  public var quietP50 = 0.0
  public var quietP99 = 0.0
  public var quietMax = 0.0
  public var degraded = 0
  public var refused = 0
  public var primaryLegs: UInt64 = 0
  public var hedges: UInt64 = 0
  public var retries: UInt64 = 0
  public var ejections: UInt64 = 0
  public var loads: UInt64 = 0
  /// Rollouts begun, and those that ended with the new version; those begun after everything had healed.
  public var rollouts = 0
  public var rolloutsDone = 0
  public var rolloutsInPeace = 0
  public var doneInPeace = 0
  /// How often each kind of fault happened, by `FaultKind.rawValue`.
  public var faults = [Int](repeating: 0, count: FaultKind.allCases.count)
  /// How often a worker's state became each one, in the order of `MemberState.allCases`.
  public var transitions = [UInt64](repeating: 0, count: stateNames.count)
  public static var stateNames: [String] { MemberState.allCases.map(\.rawValue) }
}

/// Broken promises end a run.
struct Violation: Error { var text: String }

public final class Simulation {
  public let options: SimulationOptions
  private let trace: ((String) -> Void)?

  /// - Parameter trace: gets a line per event.
  public init(_ options: SimulationOptions, trace: ((String) -> Void)? = nil) {
    self.options = options
    self.trace = trace
  }

  public func run() -> SimulationReport {
    let world = World(options, trace: trace)
    world.run()
    return world.report
  }
}
