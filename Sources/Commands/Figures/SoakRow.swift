import ChaosEngine
import ClusterHarness
import ClusterLoad
import Foundation
import RankingCore
import Terminal

// Minutes of everything that may happen while each shard keeps a healthy replica: one fault at a time, drawn by seed.
//
//   warm-up ─► usage ─► faults under load ─► all well again ─► load as in the warm-up ─► usage, within 5 % of before

extension FigureRig {
  private enum Fault: String, CaseIterable { case kill, restart, freeze, pauses, slow, stutter }

  func soakRow() throws -> FigureRow {
    var row = FigureRow("soak", "\(Int((soak / .seconds(1)).rounded())) s of mixed faults")
    let cluster = try cluster(allowFaults: true)
    defer { cluster.stop() }
    let settle: Duration = quick ? .seconds(20) : .seconds(60)
    // The first faults make every process do what it will do again and again; only then is there a "before".
    try warmUp(cluster)
    for worker in cluster.workers {
      try cluster.kill(worker.name)
      try cluster.restart(worker.name)
      try waitUntilHealthy(cluster)
    }
    _ = try run(try generator(cluster, for: settle, mixed: true))
    let before = usage(cluster)

    let answers = AnswerLog(every: max(1, Int(rate * (soak / .seconds(1)) / 400)))
    let trouble = TroubleLog()
    let load = try BackgroundLoad(
      try generator(
        cluster, for: soak + .seconds(120), mixed: true,
        ended: { end in
          answers.add(end)
          trouble.add(end)
        }))
    var generator = SeededGenerator(seed: 3)
    var done: [(what: String, at: Duration)] = []
    while load.now < soak {
      try waitUntilHealthy(cluster)
      let fault = Fault.allCases[generator.below(Fault.allCases.count)]
      let worker = cluster.workers[generator.below(cluster.workers.count)]
      done.append((what: "\(fault.rawValue) \(worker.name)", at: load.now))
      try inflict(fault, on: worker, of: cluster, &generator)
      pause(.milliseconds(500 + generator.below(2500)))
      if done.count % 10 == 0 { say("soak: \(Int(load.now / .seconds(1))) s, \(done.count) faults") }
    }
    try waitUntilHealthy(cluster)
    let run = try load.stop()
    _ = try self.run(try self.generator(cluster, for: settle, mixed: true))
    let after = usage(cluster)

    row.show(run, done.map { ($0.what, $0.at, $0.at + .milliseconds(500)) })
    row.add("requests", run.tally.sent)
    row.add("faults", done.count)
    row.add("failed", run.failures, .equal(0))
    if run.failures > 0 { row.notes.append("failed: \(run.failureText)") }
    row.notes += trouble.notes
    row.add("degraded", run.tally.degraded)
    row.add("p99", run.p99, "ms")
    row.notes += run.troubles(since: done)
    let check = AnswerCheck(bundle.path, requests: bundle.requests(mixed: true))
    let wrong = try check.wrong(answers.all.spread(400))
    row.add("answers compared with the oracle", check.compared)
    row.add("wrong answers", wrong.count, .equal(0))
    row.notes += wrong.prefix(3)
    for (name, now) in after {
      guard let then = before.first(where: { $0.name == name })?.usage else { continue }
      func grown(_ figure: (ProcessUsage) -> Int) -> Double {
        (Double(figure(now)) / Double(max(1, figure(then))) - 1) * 100
      }
      row.add("\(name) files, from \(then.files)", grown(\.files), "%", .atMost(5))
      row.add("\(name) threads, from \(then.threads)", grown(\.threads), "%", .atMost(5))
      row.add("\(name) memory, from \(then.residentBytes >> 20) MiB", grown(\.residentBytes), "%", .atMost(5))
    }
    return row
  }

  private func usage(_ cluster: LocalCluster) -> [(name: String, usage: ProcessUsage)] {
    // The load's connections have just been closed; the other end needs a moment to see it.
    pause(.seconds(2))
    return cluster.members.compactMap { member in
      guard let pid = member.process?.pid, let usage = ProcessUsage(pid: pid) else { return nil }
      return (member.name, usage)
    }
  }

  private func inflict(
    _ fault: Fault, on worker: ClusterMember, of cluster: LocalCluster, _ generator: inout SeededGenerator
  ) throws {
    let name = worker.name
    switch fault {
    case .kill:
      try cluster.kill(name)
      pause(.milliseconds(generator.below(3000)))
      try cluster.restart(name)
    case .restart:
      try cluster.restart(name)
    case .freeze:
      try cluster.freeze(name)
      pause(.milliseconds(1000 + generator.below(4000)))
      try cluster.thaw(name)
    case .pauses:
      for _ in 0..<5 {
        try cluster.freeze(name)
        pause(.milliseconds(20 + generator.below(150)))
        try cluster.thaw(name)
        pause(.milliseconds(200))
      }
    case .slow, .stutter:
      var http = PlainHTTP(try ServerURL(worker.url), limit: .seconds(5))
      let share = fault == .slow ? "1" : "0.02"
      _ = try http.post("/faults", Array(#"{"delay_ms": 50, "share": \#(share)}"#.utf8))
      pause(.seconds(3))
      _ = try http.post("/faults", Array(#"{"delay_ms": 0}"#.utf8))
    }
  }
}
