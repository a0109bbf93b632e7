import ChaosEngine
import ClusterHarness
import ClusterLoad
import Foundation
import Terminal

// One attacker on one connection, again as soon as it is cut off, beside honest load.

extension FigureRig {
  func attacks() throws -> FigureRow {
    var row = FigureRow("attacks", "HTTP/2 attacks on the coordinator, one attacker, beside half the knee")
    let cluster = try cluster()
    defer { cluster.stop() }
    try warmUp(cluster)
    let each: Duration = .seconds(quick ? 4 : 10)
    let healthy = try run(try generator(cluster, for: each, mixed: true))
    row.add("R, p99 when healthy", healthy.p99, "ms")
    let port = try ServerURL(cluster.url).port
    guard let process = cluster.coordinator.process?.identity.pid else { throw CommandError("no coordinator") }
    let body = Array(#"{"recent_items": ["i1", "i2"], "k": 100}"#.utf8)
    for attack in WireAttack.floods("/v1/recommend", body: body) {
      let load = try BackgroundLoad(try generator(cluster, for: .seconds(60), mixed: true))
      load.wait(until: .milliseconds(500))
      let before = residentBytes(process)
      var (most, rounds, worst) = (before, 0, Duration.zero)
      var isCut = true
      while load.now < .milliseconds(500) + each {
        let outcome = attack.run(port: port, limit: .seconds(2))
        most = max(most, residentBytes(process))
        rounds += 1
        if let cut = outcome.cutAfter { worst = max(worst, cut) } else { isCut = false }
        pause(.milliseconds(200))
      }
      let run = try load.stop()
      if run.failures > 0 { row.notes.append("\(attack.name): failed: \(run.failureText)") }
      if !isCut { row.notes.append("\(attack.name): was not cut off") }
      row.add("\(attack.name) (\(rounds) ×): cut after, worst", worst / .milliseconds(1), "ms", .atMost(1000))
      row.add("\(attack.name): memory", Double(most - before) / 1e6, "MB", .atMost(4))
      row.add("\(attack.name): honest p99", run.p99, "ms", .atMost(1.5 * healthy.p99))
      say("attacks: \(attack.name)")
    }
    return row
  }

  private func residentBytes(_ process: Int32) -> Int {
    guard let text = try? String(contentsOfFile: "/proc/\(process)/statm", encoding: .utf8),
      let pages = text.split(separator: " ").dropFirst().first.flatMap({ Int($0) })
    else { return 0 }
    return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
  }
}
