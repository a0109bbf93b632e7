import ClusterLoad
import Foundation
import FoundationXML
import Testing

@testable import ChaosEngine

/// What is drawn and written is well formed, and says what it was given. (Whole runs are what `Chaos/chaos --suite ci`
/// is for: beside all other tests they would take the cores from both.)
@Suite struct ReportTests {
  private func report() throws -> ChaosReport {
    var evidence = Evidence(
      scenario: try Scenario(name: "it", json: Data(#"{"seconds": 4, "baseline_s": 1, "faults": []}"#.utf8)),
      holdings: [[0], [0]], shards: 1)
    evidence.end = .seconds(4)
    evidence.requests = (0..<400).map { number in
      let due = Duration.milliseconds(10 * number)
      let outcome: LoadTally.Outcome = number == 250 ? .failed("<&>") : number == 251 ? .degraded : .ok
      return .init(
        number: number, due: due, sent: due, ended: due + .milliseconds(number == 100 ? 40 : 2), outcome: outcome)
    }
    evidence.samples = [
      .init(at: .zero, workers: [.up, .up], isWhole: true),
      .init(at: .seconds(2), workers: [.down, .up], isWhole: false),
      .init(at: .seconds(3), workers: [.up, .up], isWhole: true),
    ]
    let fault = PlannedFault(
      number: 1, kind: .kill, on: .worker, victims: ["w<1>"], at: .seconds(1), lasts: .seconds(1), parameters: [:])
    evidence.faults = [.init(planned: fault, began: .seconds(2), ended: .seconds(3), trouble: "a \"b\" & <c>")]
    var run = RunReport(scenario: "it", about: "<about>", seed: 7, command: "chaos run it --seed 7", seconds: 9)
    run.verdict = try Judge(evidence) { _, _ in nil }.verdict()
    run.timeline = Timeline(evidence)
    return ChaosReport(title: "a & b", runs: [run, run])
  }

  @Test func thePictureIsWellFormed() throws {
    let run = try report().runs[0]
    let timeline = try #require(run.timeline)
    let picture = TimelinePicture(timeline, faults: run.verdict?.faults ?? []).svg(title: "<title> & more")
    let parser = XMLParser(data: Data(picture.utf8))
    #expect(parser.parse(), "\(parser.parserError.map { "\($0)" } ?? "")")
    #expect(picture.contains("kill w&lt;1&gt;") && !picture.contains("w<1>"))
  }

  @Test func theTimelineCountsEveryRequestOnce() throws {
    let timeline = try #require(try report().runs[0].timeline)
    #expect(timeline.ok.reduce(0, +) == 398 && timeline.degraded.reduce(0, +) == 1 && timeline.failed.reduce(0, +) == 1)
    #expect(timeline.max.compactMap { $0 }.max() == 40)
    #expect(timeline.lanes.map { $0.spans.map(\.health) } == [["up", "down", "up"], ["up"]])
  }

  @Test func thePageStandsAloneAndEscapesWhatItIsGiven() throws {
    let page = HTMLReport.page(try report())
    #expect(page.components(separatedBy: "<svg").count == 3 && page.contains("&lt;about&gt;"))
    #expect(page.contains("a &quot;b&quot; &amp; &lt;c&gt;") && page.contains(">FAIL<"))
    for outside in ["<script", "<link", "<img", "url("] { #expect(!page.contains(outside)) }
  }

  @Test(arguments: ["out.html", "out.json", "out.txt", "out.svg"]) func aFileIsWrittenInTheFormOfItsName(
    name: String
  ) throws {
    let directory = FileManager.default.temporaryDirectory.path + "/chaos-report-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try ReportFile("\(directory)/\(name)").write(try report())
    let bytes = try #require(FileManager.default.contents(atPath: "\(directory)/\(name)"))
    if name.hasSuffix("json") {
      // Of answers without a body there is no p99: a figure without bound must not cost the whole report.
      let decoder = JSONDecoder()
      decoder.nonConformingFloatDecodingStrategy = .convertFromString(
        positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
      let read = try decoder.decode(ChaosReport.self, from: bytes)
      #expect(read.runs.map(\.seed) == [7, 7] && read.runs[0].verdict?.figures[0].value == .infinity)
    } else {
      let start = ["html": "<!DOCTYPE html>", "txt": "FAIL  it, seed 7", "svg": "<svg "][name.dropFirst(4)]
      #expect(String(decoding: bytes, as: UTF8.self).hasPrefix(try #require(start)))
    }
  }
  @Test func anotherNameIsRefused() {
    #expect { try ReportFile("out.pdf") } throws: { "\($0)".contains("must end in .html, .json, .txt or .svg") }
  }
}
