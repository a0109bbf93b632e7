import RankingCore
import Routing
import Simulator
import Testing

@Suite struct SimulationTests {
  func run(_ seed: UInt64, seconds: Int = 20, planted: PlantedFaults = []) -> SimulationReport {
    var options = SimulationOptions(seed: seed)
    options.seconds = seconds
    options.planted = planted
    return Simulation(options).run()
  }

  @Test(arguments: UInt64(1)...4)
  func nothingThatIsPromisedBreaks(seed: UInt64) {
    let report = run(seed, seconds: 60)
    let story = report.history.joined(separator: "\n")
    #expect(
      report.violation == nil,
      "\(report.violation ?? "")\n\(story)\nreplay: shortlist simulate --seed \(seed) --trace")
    #expect(report.requests > 300 && report.legs >= 4 * report.requests)
    #expect(report.answered * 10 > report.requests * 8)
  }

  @Test func theSameSeedIsTheSameRunAndAnotherIsNot() {
    let (first, again, other) = (run(5), run(5), run(6))
    #expect(first.traceHash == again.traceHash && first.legs == again.legs)
    #expect(first.traceHash != other.traceHash)
  }

  /// Each bug is found in one of the first two hundred seeds, by something that is in order without it.
  @Test(arguments: PlantedFaults.named.map(\.name))
  func aPlantedBugIsFound(name: String) throws {
    let fault = try #require(PlantedFaults.named.first { $0.name == name }).fault
    let found = try #require(
      (UInt64(1)...200).first { run($0, planted: fault).violation != nil }, "\(name) was not found in 200 seeds")
    let without = run(found)
    #expect(without.violation == nil, "seed \(found) fails without \(name) too: \(without.violation ?? "")")
  }

  /// Every kind of trouble is met in at least a tenth of the runs.
  @Test func noKindOfFaultIsRare() {
    let reports = (UInt64(1)...40).map { run($0, seconds: 60) }
    for kind in FaultKind.allCases {
      let share = Double(reports.count { $0.faults[kind.rawValue] > 0 }) / Double(reports.count)
      #expect(share >= 0.1, "\(kind.name) in \(share) of the runs")
    }
    #expect(reports.allSatisfy { $0.violation == nil })
  }

  /// Every worker answers one leg in a hundred 100 ms late.
  @Test func hedgingCutsAScatteredTailToAThird() {
    var experiment = TailExperiment(.scattered(perMille: 10))
    let defended = experiment.run()
    experiment.isDefended = false
    let bare = experiment.run()
    #expect(defended.requests > 1500 && bare.requests > 1500)
    #expect(bare.p99 >= 100)
    #expect(defended.p99 * 3 <= bare.p99, "p99 \(defended.p99) ms with hedging, \(bare.p99) ms without")
    #expect(defended.extraLegs <= 0.05, "\(defended.extraLegs) extra legs for each primary one")
  }

  /// One worker answers everything 100 ms late.
  @Test func oneSlowWorkerIsAvoidedWithinTwoSeconds() {
    var experiment = TailExperiment(.oneSlow)
    let defended = experiment.run()
    experiment.isDefended = false
    let bare = experiment.run()
    #expect(bare.p99 >= 100)
    #expect(defended.p99 * 3 <= bare.p99, "p99 \(defended.p99) ms with all three, \(bare.p99) ms without")
    #expect(defended.extraLegs <= 0.05)
  }
}
