import ClusterHarness
import ClusterLoad
import Foundation
import RankingCore
import Synchronization
import Terminal

// `chaos`: scenarios on a cluster of processes that it starts itself.
//
//     chaos run kill --seed 7 --report out.html      one scenario, or several
//     chaos --suite ci                               those that every change must pass
//     chaos --soak 8                                 the long suite again and again, each time with another seed

extension Command {
  package static let chaos = Command(
    name: "chaos",
    summary: "Hurt a live cluster under load and check every answer",
    discussion: """
      Scenarios are the files of Chaos/Scenarios. Each starts processes of its own on loopback (or in network namespaces
      that go with it), and leaves nothing behind.
      """,
    example: "shortlist chaos run kill --seed 7 --report kill.html", commands: [chaosSuite, chaosRun, chaosList],
    standardCommand: "suite")

  private static let shared: [Option] = [
    .integer("seed", "what the faults are drawn from", in: 0...Int.max, standard: 1),
    .text("report", "FILE", "write the report there: .html, .json, .txt, or .svg for the picture alone"),
    .text("logs", "DIR", "keep the processes' logs there; else they are kept only of a run that failed"),
    .text("scenarios", "DIR", "where scenarios are, instead of Chaos/Scenarios"),
    .flag("short", "cut every scenario short, as suite ci does"),
  ]

  private static let chaosRun = Command(
    name: "run", summary: "Run scenarios, by name or file",
    example: "shortlist chaos run kill cut --seed 7 --report out.html",
    options: shared + [
      .text(
        "attach", "DIR", "hurt the cluster that `shortlist cluster up --state DIR` keeps, instead of one of its own")
    ], arguments: [Argument(name: "SCENARIO", help: "a name or a file", repeats: true)], signals: .own,
    run: { invocation in
      let library = try ScenarioLibrary(invocation.optional("scenarios"))
      return try Suite(invocation, library).run(
        try invocation.arguments.map { try library.scenario($0) }, title: invocation.arguments.joined(separator: ", "))
    })

  private static let chaosSuite = Command(
    name: "suite", summary: "Run a suite of scenarios (what chaos --suite does)",
    example: "shortlist chaos suite --suite ci",
    options: [
      Option(
        name: "suite", kind: .choice(ScenarioLibrary.suites), placeholder: "NAME", help: "which", standard: "ci"),
      .number("soak", "the full suite again and again for so many hours", in: 0.01...1000, placeholder: "HOURS"),
    ] + shared, signals: .own,
    run: { invocation in
      let library = try ScenarioLibrary(invocation.optional("scenarios"))
      let suite = try Suite(invocation, library)
      if let hours = invocation.optionalNumber("soak") { return try suite.soak(hours: hours) }
      let name = invocation.text("suite")
      return try suite.run(try library.suite(name), title: "suite \(name)")
    })

  private static let chaosList = Command(
    name: "list", summary: "Show the scenarios", example: "shortlist chaos list",
    options: [.text("scenarios", "DIR", "where scenarios are, instead of Chaos/Scenarios")],
    run: { invocation in
      let library = try ScenarioLibrary(invocation.optional("scenarios"))
      var table = TextTable(["scenario", "seconds", "what"])
      for name in library.names {
        let scenario = try library.scenario(name)
        table.add([name, "\(Int(scenario.seconds))", scenario.about])
      }
      Console.print(table.text)
      return 0
    })
}

/// The folder of scenarios.
struct ScenarioLibrary {
  let directory: String
  static let suites = ["ci", "full", "teeth"]

  /// - Parameter directory: nil = `Chaos/Scenarios` of the source tree that this program was built in, or of the one
  ///   one stands in.
  init(_ directory: String?) throws {
    if let directory {
      self.directory = directory
    } else {
      let program = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
      var places = [FileManager.default.currentDirectoryPath]
      var place = URL(fileURLWithPath: program).deletingLastPathComponent()
      while place.path != "/" {
        places.append(place.path)
        place.deleteLastPathComponent()
      }
      guard
        let found = places.map({ $0 + "/Chaos/Scenarios" }).first(where: {
          FileManager.default.fileExists(atPath: $0)
        })
      else {
        throw CommandError("there is no Chaos/Scenarios here or above \(program); name it with --scenarios DIR")
      }
      self.directory = found
    }
    guard FileManager.default.fileExists(atPath: self.directory) else {
      throw CommandError("there is no directory \(self.directory)")
    }
  }

  var names: [String] {
    let files = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    return files.filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }.sorted()
  }
  /// Of the preloaded library.
  var shimSource: String { URL(fileURLWithPath: directory + "/../Shim/shim.c").standardizedFileURL.path }

  /// - Parameter name: of one in the folder, or a file.
  func scenario(_ name: String) throws -> Scenario {
    let isFile = name.hasSuffix(".json") || name.contains("/")
    let path = isFile ? name : "\(directory)/\(name).json"
    guard let data = FileManager.default.contents(atPath: path) else {
      let hint =
        nearest(to: name, in: names).map { "did you mean \($0)?" } ?? "there are \(names.joined(separator: ", "))"
      throw UsageError(isFile ? "cannot read \(path)" : "no scenario \"\(name)\"; \(hint)")
    }
    let short = URL(fileURLWithPath: path).deletingPathExtension().lastPathComponent
    return try Scenario(name: short, json: data)
  }

  /// Those whose names stand in `suite-NAME.txt`, one a line.
  func suite(_ name: String) throws -> [Scenario] {
    let path = "\(directory)/suite-\(name).txt"
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
      throw CommandError("cannot read \(path)")
    }
    return try text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map {
      let scenario = try scenario($0.trimmingCharacters(in: .whitespaces))
      return name == "ci" ? scenario.shortened : scenario
    }
  }
}

/// Runs scenarios one after the other.
private struct Suite {
  private let invocation: Invocation
  private let library: ScenarioLibrary
  private let executable: String
  private let interrupted = Interrupt { Console.warn("chaos: stopping; once more ends it at once") }
  private let attached: ClusterHarness.StateDirectory?

  init(_ invocation: Invocation, _ library: ScenarioLibrary) throws {
    self.invocation = invocation
    self.library = library
    attached =
      invocation.command.options.contains { $0.name == "attach" }
      ? invocation.optional("attach").map { ClusterHarness.StateDirectory(path: $0) } : nil
    executable = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    if let report = invocation.optional("report") { _ = try ReportFile(report) }
  }

  func run(_ wanted: [Scenario], title: String) throws -> Int32 {
    let scenarios = invocation.flag("short") ? wanted.map(\.shortened) : wanted
    try enterNamespace(scenarios)
    let seed = UInt64(invocation.integer("seed"))
    var report = ChaosReport(title: "\(title), seed \(seed)", runs: [])
    for scenario in scenarios where !interrupted.isSet {
      report.runs.append(run(scenario, seed: seed))
      try write(report)
    }
    if invocation.json { try Console.printJSON(report) }
    return interrupted.isSet ? 130 : conclusion(report)
  }

  func soak(hours: Double) throws -> Int32 {
    let deadline = Monotonic.now + .seconds(hours * 3600)
    let scenarios = try library.suite("full")
    try enterNamespace(scenarios)
    var seed = UInt64(invocation.integer("seed"))
    // Of rounds that passed only this is kept: a soak lasts for days.
    var (rounds, runs) = (0, 0)
    while Monotonic.now < deadline, !interrupted.isSet {
      var report = ChaosReport(title: "soak, seed \(seed)", runs: [])
      for scenario in scenarios where Monotonic.now < deadline && !interrupted.isSet {
        report.runs.append(run(scenario, seed: seed))
        try write(report)
        guard report.passes else { return conclusion(report) }
        runs += 1
      }
      rounds += 1
      seed += 1
      Console.warn("soak: \(rounds) rounds, \(runs) runs, \(Int((deadline - Monotonic.now) / .seconds(60))) min left")
    }
    Console.say("soak: \(runs) runs, 0 violations", json: invocation.json)
    return interrupted.isSet ? 130 : 0
  }

  /// Where scenarios need it, and before any thread is of use.
  private func enterNamespace(_ scenarios: [Scenario]) throws {
    guard scenarios.contains(where: \.cluster.namespaces) else { return }
    try NamespaceNetwork.enter(Array(CommandLine.arguments.dropFirst()))
    // Inside, even loopback has to be switched on, for the scenarios that use nothing else.
    try NamespaceNetwork.prepare()
  }

  private func conclusion(_ report: ChaosReport) -> Int32 {
    let failed = report.runs.filter { !$0.passes }
    let violations = report.runs.flatMap { $0.verdict?.invariants ?? [] }.reduce(0) { $0 + $1.violations }
    let requests = report.runs.reduce(0) { $0 + ($1.verdict?.requests ?? 0) }
    let faults = report.runs.reduce(0) { $0 + ($1.verdict?.faults.count ?? 0) }
    Console.say(
      "\nchaos: \(report.runs.count) runs, \(faults) faults, \(requests) requests checked, \(violations) violations"
        + (failed.isEmpty ? "" : "; failed: \(failed.map(\.scenario).joined(separator: ", "))"), json: invocation.json)
    if let path = invocation.optional("report") { Console.warn("report: \(path)") }
    return failed.isEmpty ? 0 : 1
  }

  private func run(_ scenario: Scenario, seed: UInt64) -> RunReport {
    let start = Monotonic.now
    var report = RunReport(
      scenario: scenario.name, about: scenario.about, seed: seed,
      command: "Chaos/chaos run \(scenario.name) --seed \(seed)\(scenario.isShortened ? " --short" : "")", seconds: 0,
      bites: scenario.bites)
    let directory = place(scenario, seed)
    do {
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      let flag = interrupted
      var run = Run(
        scenario, seed: seed, executable: executable, directory: directory, shimSource: library.shimSource,
        isOver: { flag.isSet }, say: { Console.warn("chaos: \(scenario.name): \($0)") })
      run.attached = attached
      let result = try run.run()
      report.verdict = result.verdict
      report.timeline = Timeline(result.evidence)
    } catch { report.trouble = "\(error)" }
    report.seconds = rounded((Monotonic.now - start) / .seconds(1))
    if report.passes, invocation.optional("logs") == nil {
      try? FileManager.default.removeItem(atPath: directory)
    } else {
      keep(directory, report)
      report.logs = directory
    }
    Console.say("\n" + report.text, json: invocation.json)
    return report
  }

  private func place(_ scenario: Scenario, _ seed: UInt64) -> String {
    let folder = invocation.optional("logs") ?? FileManager.default.temporaryDirectory.path
    return "\(folder)/chaos-\(scenario.name)-\(seed)-\(getpid())-\(UUID().uuidString.prefix(4))"
  }

  /// Leaves logs and the report of a failed run; what was only built for it goes.
  private func keep(_ directory: String, _ report: RunReport) {
    for name in ["store", "stores", "factors", "factors-v2", "factors-poison", "other", "history.csv"] {
      try? FileManager.default.removeItem(atPath: "\(directory)/\(name)")
    }
    if let data = try? Console.json(report) {
      try? data.write(to: URL(fileURLWithPath: directory + "/report.json"))
    }
  }

  private func write(_ report: ChaosReport) throws {
    if let path = invocation.optional("report") { try ReportFile(path).write(report) }
  }
}
