import ClusterLoad
import Foundation

// What was seen of one run, and nothing of what it means: the judge reads it afterwards, when nothing that is measured
// competes for the cores. All times count from the first request of the load.
//
//   |- baseline -|------------- faults ------------|- until whole -|
//   0            baseline                          …               end

struct Evidence: Sendable {
  /// One request, from its side.
  struct Request: Sendable {
    var number: Int
    /// By its index, the coordinator that was asked.
    var coordinator = 0
    var due: Duration
    var sent: Duration?
    var ended: Duration
    var outcome: LoadTally.Outcome
    var body: [UInt8] = []
    var latency: Duration { ended - due }
  }

  /// What became of a planned fault.
  struct Fault: Sendable {
    var planned: PlannedFault
    var began: Duration
    /// When everything that was done had been undone.
    var ended: Duration
    /// What it came to, for those that come to something; a rollout's outcome.
    var outcome = ""
    /// Why it could not be done.
    var trouble: String?
  }

  /// How one coordinator sees one worker.
  enum Health: UInt8, Sendable, CaseIterable {
    case up, incomplete, joining, suspect, ejected, draining, down, gone, unknown
  }
  struct Sample: Sendable {
    var at: Duration
    var coordinator = 0
    /// By worker; nil = the coordinator did not answer.
    var workers: [Health]?
    /// Every shard of what is published has all its replicas, and every worker is up.
    var isWhole: Bool
  }

  /// A coordinator's own counts.
  struct Counts: Sendable {
    var at: Duration
    var coordinator = 0
    /// Another number after each start of its process.
    var start = 1
    var requests = 0.0
    var answers = 0.0
    var errors = 0.0
    var cancelled = 0.0
    var primaryLegs = 0.0
    var retryLegs = 0.0
    var hedgeLegs = 0.0
  }

  /// A command about versions that was acknowledged.
  struct Acknowledged: Sendable, Equatable {
    var at: Duration
    var sequence: Int
    var rollout: String
    var from: String
    var to: String
  }

  var scenario: Scenario
  /// The shards of each worker.
  var holdings: [[Int]]
  var shards: Int
  var baseline: Duration
  var end: Duration = .zero
  var requests: [Request] = []
  var faults: [Fault] = []
  var samples: [Sample] = []
  var counts: [Counts] = []
  /// Processes that ended and had not been told to.
  var unasked: [(at: Duration, what: String)] = []
  var acknowledged: [Acknowledged] = []
  /// The whole history as it stood at the end; nil = there is none.
  var history: [Acknowledged]?
  /// Versions and what became of those that guards had to stop: name, whether it ever served everybody.
  var poisoned: [(rollout: String, served: Bool)] = []

  init(scenario: Scenario, holdings: [[Int]], shards: Int) {
    self.scenario = scenario
    self.holdings = holdings
    self.shards = shards
    baseline = .seconds(scenario.baselineSeconds)
  }
}
