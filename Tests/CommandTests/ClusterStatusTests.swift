import ClusterHarness
import Foundation
import Testing

@testable import ChaosEngine
@testable import ClusterLoad
@testable import Commands
@testable import Terminal

@Suite struct ClusterStatusTests {
  @Test func theMatrixShowsWhoHoldsWhat() throws {
    func worker(_ name: String, _ state: String, _ more: String, ready: String, loading: String = "") -> String {
      """
      {"name": "\(name)", "address": "a", "state": "\(state)", "zone": "", \(more) "latency_ms": 1, "admits": 3,
       "held_bytes": 0, "holdings": [
         {"model": "home", "version": "v1", "ready": [\(ready)], "loading": [\(loading)], "failed": [3],
          "fingerprint": "a"}]}
      """
    }
    let json = """
      {"drives": true, "releases": [
        {"model": "home", "version": "v1", "shards": 4, "fingerprint": "a",
          "published": true, "replicas": [1, 1, 0, 0]}],
        "workers": [
        \(worker("w1", "alive", #""draining": false, "ejected": false,"#, ready: "0, 1", loading: "2")),
        \(worker("w2", "down", #""draining": true, "ejected": true,"#, ready: "0"))]}
      """
    let report = try JSONDecoder().decode(ClusterReport.self, from: Data(json.utf8))
    #expect(
      ClusterStatus.matrix(report) == """
          home/v1                       0  1  2  3
          w1                            ●  ●  ◐  ✗
          (w2 down, draining, ejected)  ●  ·  ·  ✗
          replicas                      1  1  0  0

          ● ready  ◐ loading  ✗ failed  · not there
        """)
  }

  @Test func figuresAreJudgedByTheirLimits() {
    var row = FigureRow("row", "what")
    row.add("failed", 0, .equal(0))
    row.add("p99", 14.999, "ms", .atMost(15))
    row.add("shown only", 1e6)
    #expect(row.pass)
    row.add("slowest", 50, "ms", .below(50))
    #expect(!row.pass && row.text.contains("< 50   FAIL"))
    #expect(Figure("goodput", 95, "/s", .atLeast(90)).pass && !Figure("goodput", 89.99, "/s", .atLeast(90)).pass)
  }
}
