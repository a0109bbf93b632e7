import ClusterHarness
import Foundation
import RankingCore
import Testing

@testable import ClusterLoad

/// Workers that join by themselves and are given their shards.
@Suite(.serialized) struct JoinTests {
  @Test func joinedWorkersAreGivenAllShardsInDifferentZones() throws {
    let live = try LiveCluster(ranked: true) {
      $0.joins = true
      $0.zones = ["north", "south"]
    }
    defer { live.cluster.stop() }
    // The first two that joined were given everything; then it spreads.
    let report = try live.cluster.waitFor("every shard on one worker of each zone") { report in
      report.workers.count == 4
        && (0..<TestBundle.shards).allSatisfy { shard in
          report.workers.filter { $0.ready.contains(shard) }.map(\.zone).sorted() == ["north", "south"]
        }
    }
    #expect(report.drives && report.releases.map(\.published) == [true])
    try live.expectOracle(requests: 120)
  }

  @Test func aWorkerThatIsGoneForGoodIsReplacedAndWelcomedBack() throws {
    let live = try LiveCluster {
      $0.joins = true
      $0.replacedAfter = .milliseconds(300)
    }
    defer { live.cluster.stop() }
    _ = try live.waitUntilPlaced(on: 4)
    let load = try live.load()
    try live.cluster.kill("w2")
    let report = try live.waitUntilPlaced(on: 3)
    #expect(report.worker("w2")?.state == "gone")
    try live.expectOracle()
    try live.cluster.restart("w2")
    let again = try live.waitUntilPlaced(on: 4)
    #expect(again.worker("w2")?.address == report.worker("w2")?.address)
    try live.expectUndisturbed(load)
  }

  @Test func anAddedWorkerTakesItsShareWithoutADip() throws {
    let live = try LiveCluster { $0.joins = true }
    defer { live.cluster.stop() }
    _ = try live.waitUntilPlaced(on: 4)
    let load = try live.load()
    #expect(try live.cluster.add().name == "w5")
    _ = try live.waitUntilPlaced(on: 5)
    try live.expectOracle()
    try live.expectUndisturbed(load)
  }

  @Test func onlyAClusterOfJoiningWorkersTakesOneMore() throws {
    let live = try LiveCluster { $0.workers = 2 }
    defer { live.cluster.stop() }
    let error = #expect(throws: HarnessError.self) { try live.cluster.add() }
    #expect(error?.message.contains("cluster up --join") == true)
  }

  @Test func twoCoordinatorsAnswerTheSame() throws {
    let live = try LiveCluster {
      $0.joins = true
      $0.coordinators = 2
      $0.joinsFirstOnly = true
    }
    defer { live.cluster.stop() }
    #expect(try live.waitUntilPlaced(on: 4).drives)
    let second = try live.cluster.waitFor("c2 sees the same", by: "c2") { second in
      guard let first = try? live.cluster.report() else { return false }
      return second.workers.count == 4 && first.workers.allSatisfy { second.worker($0.name)?.ready == $0.ready }
    }
    #expect(!second.drives)
    for coordinator in live.cluster.coordinators { try live.expectOracle(at: coordinator.url) }
    // The one that does not drive answers on when the driver is dead.
    try live.cluster.kill("c1")
    try live.expectOracle(at: live.cluster.coordinators[1].url, seed: 6)
  }

  @Test(arguments: [false, true])
  func restartsUnderLoadFailNothing(joins: Bool) throws {
    let live = try LiveCluster { $0.joins = joins }
    defer { live.cluster.stop() }
    func settled() throws {
      try live.cluster.waitFor("two replicas of every shard, all workers alive") { report in
        report.replicasMin >= 2 && report.workers.allSatisfy { $0.state == "alive" && !$0.draining && !$0.ejected }
      }
    }
    try settled()
    let load = try live.load()
    for worker in live.cluster.workers {
      #expect(try live.cluster.drain(worker.name) == .code(0), "\(live.cluster.logTails())")
      try live.cluster.restart(worker.name)
      try settled()
    }
    try live.waitForAnswers(50)
    try live.expectUndisturbed(load)
  }
}
