import ClusterLoad
import Foundation

// What was seen of one run, and nothing of what it means: the judge reads it afterwards, when nothing that is measured
// competes for the cores. All times count from the first request of the load.
//
//   |- baseline -|------------- faults ------------|- until whole -|
//   0            baseline                          …               end

package struct Evidence: Sendable {
  /// One request, from its side.
  package struct Request: Sendable {
    package var number: Int
    /// By its index, the coordinator that was asked.
    package var coordinator: Int
    package var due: Duration
    package var sent: Duration?
    package var ended: Duration
    package var outcome: LoadTally.Outcome
    package var body: [UInt8]
    package var latency: Duration { ended - due }
    package init(
      number: Int, coordinator: Int = 0, due: Duration, sent: Duration?, ended: Duration,
      outcome: LoadTally.Outcome, body: [UInt8] = []
    ) {
      self.number = number
      self.coordinator = coordinator
      self.due = due
      self.sent = sent
      self.ended = ended
      self.outcome = outcome
      self.body = body
    }
  }

  /// What became of a planned fault.
  package struct Fault: Sendable {
    package var planned: PlannedFault
    package var began: Duration
    /// When everything that was done had been undone.
    package var ended: Duration
    /// What it came to, for those that come to something; a rollout's outcome.
    package var outcome = ""
    /// Why it could not be done.
    package var trouble: String?
    package init(planned: PlannedFault, began: Duration, ended: Duration, outcome: String = "", trouble: String? = nil)
    {
      self.planned = planned
      self.began = began
      self.ended = ended
      self.outcome = outcome
      self.trouble = trouble
    }
  }

  /// How one coordinator sees one worker.
  package enum Health: UInt8, Sendable, CaseIterable {
    case up, incomplete, joining, suspect, ejected, draining, down, gone, unknown
    /// Whether it may be asked for what it holds.
    package var isUsable: Bool { self == .up || self == .incomplete || self == .joining }
  }
  package struct Sample: Sendable {
    package var at: Duration
    package var coordinator: Int
    /// By worker; nil = the coordinator did not answer.
    package var workers: [Health]?
    /// Every shard of what is published has all its replicas, and every worker is up.
    package var isWhole: Bool
    package init(at: Duration, coordinator: Int = 0, workers: [Health]?, isWhole: Bool) {
      self.at = at
      self.coordinator = coordinator
      self.workers = workers
      self.isWhole = isWhole
    }
  }

  /// A coordinator's own counts.
  package struct Counts: Sendable {
    package var at: Duration
    package var coordinator: Int
    /// Raised whenever its process was started.
    package var start: Int
    package var requests = 0.0
    package var answers = 0.0
    package var errors = 0.0
    package var cancelled = 0.0
    package var primaryLegs = 0.0
    package var retryLegs = 0.0
    package var hedgeLegs = 0.0
    package init(at: Duration, coordinator: Int = 0, start: Int = 1) {
      self.at = at
      self.coordinator = coordinator
      self.start = start
    }
  }

  /// A command about versions that was acknowledged.
  package struct Acknowledged: Sendable, Equatable {
    package var at: Duration
    package var sequence: Int
    package var rollout: String
    package var from: String
    package var to: String
    package init(at: Duration, sequence: Int, rollout: String, from: String, to: String) {
      self.from = from
      self.at = at
      self.sequence = sequence
      self.rollout = rollout
      self.to = to
    }
  }

  package var scenario: Scenario
  package var seed: UInt64
  /// The shards of each worker.
  package var holdings: [[Int]]
  package var shards: Int
  package var baseline: Duration
  package var end: Duration = .zero
  package var requests: [Request] = []
  package var faults: [Fault] = []
  package var samples: [Sample] = []
  package var counts: [Counts] = []
  /// Processes that ended and had not been told to.
  package var unasked: [(at: Duration, what: String)] = []
  package var acknowledged: [Acknowledged] = []
  /// The whole history as it stood at the end; nil = there is none.
  package var history: [Acknowledged]?
  /// Versions and what became of those that guards had to stop: name, whether it ever served everybody.
  package var poisoned: [(rollout: String, served: Bool)] = []

  package init(scenario: Scenario, seed: UInt64, holdings: [[Int]], shards: Int) {
    self.scenario = scenario
    self.seed = seed
    self.holdings = holdings
    self.shards = shards
    baseline = .seconds(scenario.baselineSeconds)
  }
}
