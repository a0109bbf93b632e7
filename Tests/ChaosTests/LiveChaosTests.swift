import ClusterHarness
import Foundation
import FoundationXML
import Testing

@testable import ChaosEngine

/// Whole runs on real processes, short ones: that the engine, the cluster and the judge fit together. Beside all other
/// tests a probe may go unanswered for want of a core, so that flapping is not judged.
@Suite(.serialized) struct LiveChaosTests {
  private func run(_ json: String, seed: UInt64 = 1) throws -> (verdict: Verdict, text: String) {
    let scenario = try Scenario(name: "live", json: Data(json.utf8))
    let directory = try StateDirectory.temporary().path
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let library = try ScenarioLibrary(nil)
    let result = try Run(
      scenario, seed: seed, executable: Self.program, directory: directory, shimSource: library.shimSource
    ).run()
    var report = RunReport(
      scenario: "live", about: "", seed: seed, command: "", seconds: 0, verdict: result.verdict,
      timeline: Timeline(result.evidence))
    report.bites = scenario.bites
    // What was drawn is well formed, whatever it shows.
    #expect(
      XMLParser(
        data: Data(TimelinePicture(Timeline(result.evidence), faults: result.verdict.faults).svg(title: "<&>").utf8)
      ).parse())
    return (result.verdict, report.text)
  }
  /// Built beside the tests.
  private static let program: String = {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().path
    let beside = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path
    let places = [beside + "/chaos", root + "/.build/debug/chaos"]
    return places.first { FileManager.default.isExecutableFile(atPath: $0) } ?? places[1]
  }()

  @Test(.timeLimit(.minutes(3))) func killsAreNotFelt() throws {
    let (verdict, text) = try run(
      #"""
      {"seconds": 6, "baseline_s": 2, "rate": 150, "cluster": {"relays": true},
       "limits": {"flapping": false},
       "faults": [{"kind": "kill", "every_s": 3, "for_ms": 300}]}
      """#)
    #expect(verdict.passes && verdict.faults.count == 2 && verdict.requests > 500, "\(text)")
  }

  @Test(.timeLimit(.minutes(3))) func anotherBundleOfTheSameNameIsNoticedWhereNobodyCompares() throws {
    let swap = #""faults": [{"kind": "swap", "every_s": 5, "for_ms": 3000}]"#
    let (with, withText) = try run(
      #"{"seconds": 5, "baseline_s": 1, "rate": 100, "limits": {"flapping": false}, \#(swap)}"#)
    #expect(with.passes, "\(withText)")
    let (without, text) = try run(
      #"{"seconds": 5, "baseline_s": 1, "rate": 100, "cluster": {"without": ["fingerprints"]}, \#(swap)}"#)
    #expect(without.violates("answer = oracle"), "\(text)")
  }
}
