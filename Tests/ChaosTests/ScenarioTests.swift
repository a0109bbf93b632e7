import Foundation
import Testing

@testable import ChaosEngine

@Suite struct ScenarioTests {
  private func scenario(_ json: String) throws -> Scenario { try Scenario(name: "it", json: Data(json.utf8)) }

  @Test func aLineIsReadWithItsUsualNumbers() throws {
    let scenario = try scenario(
      #"{"about": "x", "cluster": {"relays": true}, "faults": [{"kind": "stall", "every_s": 3, "loss": 0.2}]}"#)
    let line = try #require(scenario.faults.first)
    #expect(line.kind == .stall && line.on == .link && line.everySeconds == 3 && line.forMilliseconds == 2000...2000)
    #expect(line.parameters == ["loss": 0.2, "ms": 200])
  }

  @Test(arguments: [
    (#"[]"#, "it: must be one JSON object"),
    (#"{"fauls": []}"#, #"it: unknown key "fauls"; allowed: about, seconds"#),
    (#"{"faults": [{"kind": "kil"}]}"#, #"it: faults[0]: "kind" is "kil"; it is one of kill, terminate"#),
    (#"{"faults": [{}]}"#, #"it: faults[0]: "kind" is missing"#),
    (
      #"{"faults": [{"kind": "kill", "ms": 3}]}"#,
      #"it: faults[0]: unknown key "ms"; allowed: kind, on, every_s, for_ms"#
    ),
    (
      #"{"faults": [{"kind": "memory", "on": "etcd"}]}"#,
      #"it: faults[0]: "on" of memory is "etcd"; it is one of worker"#
    ),
    (#"{"faults": [{"kind": "drip"}]}"#, #"it: faults[0]: drip needs "cluster": {"relays": true}"#),
    (#"{"faults": [{"kind": "loss"}]}"#, #"it: faults[0]: loss needs "cluster": {"namespaces": true}"#),
    (#"{"faults": [{"kind": "etcd_kill"}]}"#, #"it: faults[0]: etcd_kill needs "cluster": {"etcd": true}"#),
    (
      #"{"cluster": {"rollouts": true, "etcd": true}, "faults": [{"kind": "disk_full"}]}"#,
      #"disk_full needs "cluster": {"rollouts": true} without "etcd""#
    ),
    (#"{"faults": [{"kind": "kill", "for_ms": [5, 3]}]}"#, #""for_ms" is [shortest, longest] or one number"#),
    (#"{"faults": [{"kind": "kill", "every_s": 0}]}"#, #""every_s" must be a number, 0.1 to 86400.0"#),
    (
      #"{"cluster": {"workers": 2, "replicas": 3}, "faults": []}"#,
      #"it: cluster: "replicas" must be a whole number, 1 to 2"#
    ),
    (
      #"{"cluster": {"rollouts": true, "coordinators": 2}, "faults": []}"#,
      #"several coordinators roll out by "etcd" only"#
    ),
    (#"{"cluster": {"without": ["luck"]}, "faults": []}"#, #""without" is "luck"; it is one of hedging, retries"#),
    (#"{"faults": 3}"#, #"it: "faults" must be a list of objects"#),
  ])
  func whatIsWrongIsSaid(json: String, message: String) {
    #expect { try scenario(json) } throws: { "\($0)".contains(message) }
  }

  /// Every file in the folder can be read, and the suites name them all but teeth that are for themselves.
  @Test func theFolderIsSound() throws {
    let library = try ScenarioLibrary(nil)
    #expect(library.names.count >= 30)
    for name in library.names {
      let scenario = try library.scenario(name)
      #expect(scenario.name == name && !scenario.about.isEmpty && !scenario.faults.isEmpty)
      #expect(name.hasPrefix("tooth-") == (scenario.bites != nil), "\(name)")
    }
    let full = try library.suite("full").map(\.name)
    let teeth = try library.suite("teeth").map(\.name)
    #expect(Set(full + teeth) == Set(library.names))
    #expect(Set(try library.suite("ci").map(\.name)).isSubset(of: full + teeth))
  }

  /// Each fault of the list stands in some scenario.
  @Test func everyFaultIsInflictedSomewhere() throws {
    let library = try ScenarioLibrary(nil)
    let used = Set(try library.suite("full").flatMap { $0.faults.map(\.kind) })
    #expect(Set(FaultKind.allCases).subtracting(used).isEmpty)
  }

  @Test func aWrongNameIsCorrected() throws {
    let library = try ScenarioLibrary(nil)
    #expect { try library.scenario("kil") } throws: { "\($0)" == "no scenario \"kil\"; did you mean kill?" }
  }
}

@Suite struct ScheduleTests {
  private func scenario(_ faults: String, seconds: Int = 60) throws -> Scenario {
    try Scenario(
      name: "it",
      json: Data(
        #"{"seconds": \#(seconds), "cluster": {"relays": true, "coordinators": 2}, "faults": [\#(faults)]}"#.utf8))
  }
  private let holdings = [[0, 1], [0, 2], [1, 3], [2, 3]]

  @Test(arguments: [1, 7, 99] as [UInt64])
  func theSameSeedGivesTheSamePlan(seed: UInt64) throws {
    let scenario = try scenario(#"{"kind": "kill", "every_s": 5, "for_ms": [100, 900]}, {"kind": "cut", "every_s": 9}"#)
    let plan = scenario.schedule(seed: seed, holdings: holdings)
    #expect(plan == scenario.schedule(seed: seed, holdings: holdings))
    #expect(plan != scenario.schedule(seed: seed + 1, holdings: holdings))
    #expect(plan.map(\.number) == Array(1...plan.count))
    #expect(plan.count { $0.kind == .kill } == 12 && plan.count { $0.kind == .cut } == 6)
    #expect(plan.allSatisfy { $0.at >= .zero && $0.at + $0.lasts <= .seconds(60) })
    #expect(zip(plan, plan.dropFirst()).allSatisfy { $0.at <= $1.at })
  }

  /// A line more leaves the others where they were.
  @Test func linesDoNotDisturbEachOther() throws {
    let one = #"{"kind": "kill", "every_s": 5, "for_ms": [100, 900]}"#
    func kills(_ faults: String) throws -> [Duration] {
      try scenario(faults).schedule(seed: 3, holdings: holdings).filter { $0.kind == .kill }.map(\.at)
    }
    #expect(try kills(one) == (try kills(one + #", {"kind": "freeze", "every_s": 2}"#)))
  }

  @Test func victimsAreOfTheKindThatIsAsked() throws {
    let plan = try scenario(
      #"{"kind": "kill", "on": "pair", "every_s": 3}, {"kind": "cut", "on": "one_link", "every_s": 3}"#
    ).schedule(seed: 5, holdings: holdings)
    let pairs = Set(plan.filter { $0.on == .pair }.map(\.victims))
    #expect(pairs.isSubset(of: [["w1", "w2"], ["w1", "w3"], ["w2", "w4"], ["w3", "w4"]]) && pairs.count > 1)
    let links = plan.filter { $0.on == .oneLink }
    #expect(links.allSatisfy { ["c1", "c2"].contains($0.from) && $0.victims.count == 1 })
    #expect(links[0].what == "cut \(links[0].from) → \(links[0].victims[0])")
  }
}
