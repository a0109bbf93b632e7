import ClusterHarness
import Foundation
import Testing

@testable import ChaosEngine
@testable import ClusterLoad

/// Two coordinators that agree by a real etcd.
@Suite(.serialized, .enabled(if: EtcdProcess.executable != nil, "etcd is not on the PATH (Debian: etcd-server)"))
struct EtcdRolloutTests {
  private func cluster(
    _ etcd: EtcdProcess, _ change: (inout LocalCluster.Options) -> Void = { _ in }
  ) throws -> RollingCluster {
    try RollingCluster {
      $0.coordinators = 2
      $0.etcd = [etcd.address]
      $0.joins = true
      change(&$0)
    }
  }
  /// A real etcd, whose data go with the test.
  private func withEtcd(_ test: (EtcdProcess) throws -> Void) throws {
    let path = FileManager.default.temporaryDirectory.path + "/shortlist-etcd-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: path) }
    let etcd = try EtcdProcess(directory: path)
    defer { etcd.kill() }
    try test(etcd)
  }
  /// The coordinator that drives and the one that does not, each with its admin address.
  private func roles(_ rolling: RollingCluster) throws -> (driver: ClusterMember, other: ClusterMember) {
    let limit = ContinuousClock.now + .seconds(20)
    while true {
      let driving = try rolling.cluster.coordinators.filter { try RolloutReport.fetch($0.admin ?? "").drives }
      if driving.count == 1, let other = rolling.cluster.coordinators.first(where: { $0.name != driving[0].name }) {
        return (driving[0], other)
      }
      try #require(ContinuousClock.now < limit, "\(driving.count) drive\n\(rolling.cluster.logTails())")
    }
  }

  /// Requests go to one coordinator alone: the other drives by what that one tells it.
  @Test func theOtherCoordinatorTakesOver() throws { try withEtcd(theOtherCoordinatorTakesOver) }
  private func theOtherCoordinatorTakesOver(_ etcd: EtcdProcess) throws {
    let rolling = try cluster(etcd)
    defer { rolling.cluster.stop() }
    try rolling.bundle.add("v2")
    let (driver, other) = try roles(rolling)
    // Afterwards the one that is left may get no request.
    let rollout = try rolling.start("v2", ["canary": ["min_time_ms": 1500, "min_sample": 0]])
    let report = try rolling.wait("in canary", at: other.admin) { $0["home"]?.rollout?.stage == "canary" }
    #expect(report["home"]?.rollout?.id == rollout)
    let before = ContinuousClock.now
    try rolling.cluster.kill(driver.name)
    try rolling.wait("driven by the other", at: other.admin, limit: .seconds(20)) { $0.drives }
    print("takeover of a rollout after \(ContinuousClock.now - before)")
    let end = try rolling.wait("the end", at: other.admin) { $0["home"]?.last?.id == rollout }["home"]?.last
    #expect(end?.outcome == "done", "\(String(describing: end))\n\(rolling.cluster.logTails())")
    let history = try RolloutReport.history(other.admin ?? "")
    #expect(history.map(\.sequence) == Array(1...history.count))
    if driver.name == "c1" { _ = try rolling.load.stop() } else { try rolling.expectSound(versions: ["v1", "v2"]) }
  }

  @Test func withoutEtcdTheLastKnownStateIsServed() throws { try withEtcd(withoutEtcdTheLastKnownStateIsServed) }
  private func withoutEtcdTheLastKnownStateIsServed(_ etcd: EtcdProcess) throws {
    let rolling = try cluster(etcd)
    defer { rolling.cluster.stop() }
    try rolling.bundle.add("v2")
    let rollout = try rolling.start("v2", ["canary": ["min_time_ms": 3000, "min_sample": 0]])
    try rolling.wait("in canary") { $0["home"]?.rollout?.stage == "canary" }
    etcd.kill()
    let away = try rolling.wait("away") { $0.problem != nil && !$0.drives }
    #expect(away["home"]?.rollout?.stage == "canary")
    let refused = #expect(throws: HarnessError.self) {
      try RolloutReport.command(rolling.admin, ["action": "abort", "model": "home", "who": "ada"])
    }
    #expect(refused?.message.contains("cannot be reached") == true, "\(refused?.message ?? "")")
    // Twice as long as the step would have taken.
    try rolling.live.waitForAnswers(720)
    #expect(try RolloutReport.fetch(rolling.admin)["home"]?.rollout?.step == 0)
    try etcd.restart()
    let end = try rolling.waitForEnd(rollout)
    #expect(end.outcome == "done", "\(end)\n\(rolling.cluster.logTails())")
    try rolling.expectSound(versions: ["v1", "v2"])
  }

  /// One coordinator no longer reaches etcd: it serves what it knows, and the other drives.
  @Test func aCoordinatorCutOffFromEtcdWidensNothing() throws { try withEtcd(aCoordinatorCutOffFromEtcdWidensNothing) }
  private func aCoordinatorCutOffFromEtcdWidensNothing(_ etcd: EtcdProcess) throws {
    let proxies = ["c1": try Relay(to: etcd.port, seed: 1), "c2": try Relay(to: etcd.port, seed: 1)]
    defer { for proxy in proxies.values { proxy.close() } }
    let rolling = try cluster(etcd) { options in
      options.etcdOf = proxies.mapValues { ["127.0.0.1:\($0.port)"] }
    }
    defer { rolling.cluster.stop() }
    try rolling.bundle.add("v2")
    let (driver, other) = try roles(rolling)
    let rollout = try rolling.start("v2", ["canary": ["min_time_ms": 4000, "min_sample": 0]])
    try rolling.wait("in canary", at: driver.admin) { $0["home"]?.rollout?.stage == "canary" }
    proxies[driver.name]?.change { ($0.isCutOut, $0.isCutIn) = (true, true) }
    try rolling.wait("driven by the other", at: other.admin) { $0.drives }
    try rolling.wait("away", at: driver.admin) { $0.problem != nil && !$0.drives }
    try rolling.wait("in retire", at: other.admin) { $0["home"]?.rollout?.stage == "retire" }
    // Nothing is unloaded that the one which is behind still goes by.
    try rolling.live.waitForAnswers(400)
    let behind = try RolloutReport.fetch(driver.admin ?? "")
    #expect(behind["home"]?.rollout?.stage == "canary" && behind["home"]?.rollout?.step == 0, "\(behind)")
    #expect(try RolloutReport.fetch(other.admin ?? "")["home"]?.rollout?.stage == "retire")
    proxies[driver.name]?.change { $0 = LinkWeather() }
    proxies[driver.name]?.reset()
    try rolling.wait("caught up", at: driver.admin) { $0["home"]?.serving == "v2" }
    let end = try rolling.wait("the end", at: other.admin) { $0["home"]?.last?.id == rollout }["home"]?.last
    #expect(end?.outcome == "done", "\(String(describing: end))\n\(rolling.cluster.logTails())")
    try rolling.expectSound(versions: ["v1", "v2"])
  }
}
