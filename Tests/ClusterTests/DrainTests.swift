import ClusterHarness
import Foundation
import RankingCore
import Synchronization
import Testing
import Wire

#if canImport(Glibc)
  import Glibc
#endif

/// How processes end that are told to, and the faults that tests ask for.
@Suite(.serialized) struct DrainTests {
  @Test func aWorkerThatMayGoEndsWithExitCode0() throws {
    let live = try LiveCluster { $0.joins = true }
    defer { live.cluster.stop() }
    _ = try live.waitUntilPlaced(on: 4)
    let start = ContinuousClock.now
    #expect(try live.cluster.drain("w3") == .code(0), "\(live.cluster.logTails())")
    #expect(ContinuousClock.now - start < .seconds(10))
    // Its shards are placed on the others; nobody waits for its return.
    try live.cluster.waitFor("every shard twice without w3") { $0.replicasMin >= 2 }
    try live.expectOracle()
  }

  @Test func theLastReplicaWaitsAndASecondSignalEndsItAtOnce() throws {
    let live = try LiveCluster {
      $0.joins = true
      $0.workers = 1
      $0.replicas = 1
    }
    defer { live.cluster.stop() }
    let worker = try #require(live.cluster.workers[0].process)
    worker.send(SIGTERM)
    try live.cluster.waitFor("w1 draining") { $0.worker("w1")?.draining == true }
    // Still there, and still asked, as nobody else has its shards.
    try live.expectOracle(requests: 20)
    #expect(worker.isRunning)
    worker.send(SIGTERM)
    #expect(worker.waitForExit(limit: .seconds(2)) == .code(1))
  }

  @Test(arguments: ["kill", "freeze"])
  func aCoordinatorThatDoesNotAnswerHoldsNobody(fault: String) throws {
    let live = try LiveCluster {
      $0.joins = true
      $0.workers = 2
    }
    defer { live.cluster.stop() }
    if fault == "kill" { try live.cluster.kill("c1") } else { try live.cluster.freeze("c1") }
    let start = ContinuousClock.now
    #expect(try live.cluster.drain("w1") == .code(0), "\(live.cluster.logTails())")
    #expect(ContinuousClock.now - start < .seconds(10))
    if fault == "freeze" { try live.cluster.thaw("c1") }
  }

  @Test func aCoordinatorAnswersWhatItHasTakenBeforeItEnds() throws {
    let live = try LiveCluster {
      $0.workers = 2
      $0.allowFaults = true
    }
    defer { live.cluster.stop() }
    for worker in live.cluster.workers {
      var http = PlainHTTP(try ServerURL(worker.url))
      #expect(try http.post("/faults", Array(#"{"delay_ms": 300}"#.utf8)).status == 200)
    }
    let url = try ServerURL(live.cluster.url)
    let answer = Mutex<PlainHTTP.Response?>(nil)
    let done = DispatchSemaphore(value: 0)
    let asking = Thread {
      var http = PlainHTTP(url)
      let response = try? http.post("/v1/recommend", Array(#"{"user":"user-1","timeout_ms":2000}"#.utf8))
      answer.withLock { $0 = response }
      done.signal()
    }
    asking.start()
    var http = PlainHTTP(url)
    let limit = ContinuousClock.now + .seconds(10)
    while try live.metric("shortlist_requests_in_flight", &http) < 1 {
      try #require(ContinuousClock.now < limit, "the request never came\n\(live.cluster.logTails())")
    }
    #expect(try live.cluster.drain("c1") == .code(0), "\(live.cluster.logTails())")
    done.wait()
    let response = try #require(answer.withLock { $0 })
    let parsed = try response.body.withUnsafeBytes { try ParsedAnswer($0) }
    #expect(response.status == 200 && parsed.answered == TestBundle.shards)
  }

  @Test func faultsAreTakenOnlyWhereTheyAreAllowedAndByTheirNames() throws {
    let body = #"{"delay_ms": 5, "share": 0.5, "seed": 3}"#
    let strict = try LiveCluster { $0.workers = 2 }
    defer { strict.cluster.stop() }
    var refusing = PlainHTTP(try ServerURL(strict.cluster.workers[0].url))
    #expect(try refusing.post("/faults", Array(body.utf8)).text != "ok\n")
    let live = try LiveCluster {
      $0.workers = 2
      $0.allowFaults = true
    }
    defer { live.cluster.stop() }
    var http = PlainHTTP(try ServerURL(live.cluster.workers[0].url))
    #expect(try http.post("/faults", Array(body.utf8)).text == "ok\n")
    try live.expectOracle(requests: 30)
    for (wrong, part) in [
      (#"{"delay": 5}"#, "unknown key \"delay\""), (#"{"share": 2}"#, "\"share\" must be a number"), ("x", "not JSON"),
    ] {
      let response = try http.post("/faults", Array(wrong.utf8))
      #expect(response.status == 400 && response.text.contains(part), "\(wrong): \(response.text)")
    }
  }
}
