import Bundles
import ChaosEngine
import ClusterHarness
import ClusterLoad
import Foundation
import Terminal

// `figures`: what the failure policy says that a machine of two cores should show, row by row, on a live cluster.

extension Command {
  static let figures = Command(
    name: "figures",
    summary: "Measure the figures of the failure policy on a live local cluster",
    discussion: """
      Rows: all, or
      \(FigureTable.names.joined(separator: " ")).
      Each starts clusters of its own (1 coordinator, 4 workers, 2 replicas; 100 000 items from a seed) under half of
      the knee: the highest rate of which 99 % is answered within 25 ms. Exit code 1 when a figure misses its limit.
      """,
    example: "shortlist figures kill freeze --quick",
    options: [
      .flag("quick", "shorter runs, for a look; the limits are the same"),
      .flag("join", "in every row workers join and are given their shards"),
      .number("knee", "requests per second, instead of looking for the knee", in: 10...1e6),
      .number("peak", "the best rate of complete answers, with --knee (for overload)", in: 10...1e6),
      .text("report", "FILE", "write a report with pictures there: .html, .json or .txt"),
      .text("logs", "DIR", "keep the processes' logs there"),
      Option(name: "soak", kind: .duration, placeholder: "TIME", help: "how long soak lasts", standard: "10m"),
    ],
    arguments: [Argument(name: "ROW", help: "which; several may be named", repeats: true)],
    run: { try FigureTable($0).run() })
}

struct FigureTable {
  typealias Row = @Sendable (FigureRig) throws -> FigureRow
  static let rows: [(name: String, measure: Row)] = [
    ("kill", { try $0.kill() }), ("both-dead", { try $0.bothDead() }), ("freeze", { try $0.freeze() }),
    ("tail-a", { try $0.tailA() }), ("tail-b", { try $0.tailB() }), ("overload", { try $0.overload() }),
    ("shard-down", { try $0.shardDown() }), ("restarts", { try $0.restarts() }), ("soak", { try $0.soakRow() }),
    ("rollouts", { try $0.rollouts() }), ("rollout-load", { try $0.rolloutLoad() }),
    ("guards", { try $0.guards() }), ("etcd-away", { try $0.etcdAway() }),
    ("attacks", { try $0.attacks() }),
  ]
  static var names: [String] { rows.map(\.name) }

  private let invocation: Invocation
  private let wanted: [(name: String, measure: Row)]

  init(_ invocation: Invocation) throws {
    self.invocation = invocation
    for name in invocation.arguments where name != "all" && !Self.names.contains(name) {
      let all = "it is one of \(Self.names.joined(separator: ", ")) or all"
      throw UsageError(
        "unknown row \"\(name)\"; \(nearest(to: name, in: Self.names).map { "did you mean \($0)?" } ?? all)")
    }
    let names = invocation.arguments
    wanted = names.contains("all") ? Self.rows : Self.rows.filter { names.contains($0.name) }
  }

  func run() throws -> Int32 {
    let directory = try scratchDirectory()
    defer {
      try? FileManager.default.removeItem(atPath: directory)
      TemporaryPaths.remove(directory)
    }
    Console.warn("figures: making a bundle of \(SyntheticBundle.Size.measured.items) items")
    var rig = FigureRig(
      executable: try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"), directory: directory,
      bundle: try SyntheticBundle(in: directory), quick: invocation.flag("quick"), joins: invocation.flag("join"),
      soak: invocation.duration("soak"), logs: invocation.optional("logs"))
    var knee = invocation.optionalNumber("knee") ?? 0
    rig.peak = invocation.optionalNumber("peak") ?? 0
    if knee == 0 { (knee, rig.peak) = try rig.findKnee() }
    rig.rate = knee / 2
    Console.say(
      "knee \(Int(knee))/s, peak \(Int(rig.peak))/s; every row under \(Int(rig.rate))/s", json: invocation.json)
    let report = try invocation.optional("report").map { try ReportFile($0) }
    var results: [FigureRow] = []
    for (name, measure) in wanted {
      Console.warn("figures: \(name) …")
      let start = Monotonic.now
      var row: FigureRow
      do { row = try measure(rig) } catch {
        row = FigureRow(name, "did not run to its end")
        row.notes = ["\(error)"]
      }
      row.seconds = ((Monotonic.now - start) / .seconds(1)).rounded()
      results.append(row)
      try report?.write(
        ChaosReport(
          title: "figures under \(Int(rig.rate)) requests/s",
          runs: results.map { $0.report(command: "Cluster/figures \($0.row)") }))
      Console.say("\n" + row.text, json: invocation.json)
    }
    if invocation.json { try Console.printJSON(results) }
    return results.allSatisfy(\.pass) ? 0 : 1
  }

  private func scratchDirectory() throws -> String {
    let path = FileManager.default.temporaryDirectory.path + "/shortlist-figures-\(UUID().uuidString)"
    guard TemporaryPaths.add(path) else { throw CommandError("the process is stopping") }
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    return path
  }
}
