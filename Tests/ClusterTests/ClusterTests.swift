import ClusterHarness
import Foundation
import RankingCore
import Synchronization
import Testing
import Wire

/// Real processes on loopback, every answer compared with the oracle's.
@Suite(.serialized) struct ClusterTests {
  func cluster(
    _ bundle: TestBundle, workers: Int, replicas: Int, _ change: (inout LocalCluster.Options) -> Void = { _ in }
  ) throws -> LocalCluster {
    var options = LocalCluster.Options(
      executable: Program.path, store: bundle.store, model: "home", version: "v1", shards: TestBundle.shards)
    options.workers = workers
    options.replicas = replicas
    options.directory = StateDirectory(path: bundle.directory + "/state")
    change(&options)
    return try LocalCluster(options)
  }

  func ask(_ http: inout PlainHTTP, _ api: PublicAPI, _ body: String) throws -> (status: Int, answer: ParsedAnswer) {
    let response = try http.post("/v1/\(api.rawValue)", Array(body.utf8))
    return (response.status, try response.body.withUnsafeBytes { try ParsedAnswer($0) })
  }

  func expectSame(_ answer: ParsedAnswer, _ expected: ParsedAnswer, _ body: String) {
    #expect(answer.items.map(\.id) == expected.items.map(\.id), "\(body)")
    #expect(answer.items.map(\.score.bitPattern) == expected.items.map(\.score.bitPattern), "\(body)")
    #expect(answer.items.map(\.explanation) == expected.items.map(\.explanation), "\(body)")
    #expect(answer.unknown == expected.unknown, "\(body)")
    #expect(answer.coldStart == expected.coldStart && answer.version == expected.version, "\(body)")
    #expect(answer.answered == expected.answered && answer.missing == expected.missing, "\(body)")
    #expect(answer.coverageItems == expected.coverageItems, "\(body)")
  }

  @Test(arguments: [
    (1, TestBundle.Ranking.none, 1500), (3, .linear, 1500), (4, .none, 40_000), (7, .linear, 1500), (2, .trees, 1500),
    (3, .trees, 40_000), (3, .plain, 1500), (2, .plain, 40_000), (3, .mlp, 1500), (2, .mlp, 40_000),
    (3, .ensemble, 1500), (3, .recent, 1500), (3, .listLinear, 1500), (2, .listTrees, 1500),
  ])
  func answersEqualTheOraclesBitForBit(workers: Int, ranking: TestBundle.Ranking, items: Int) throws {
    let bundle = try TestBundle(ranking, itemCount: items)
    let cluster = try cluster(bundle, workers: workers, replicas: min(2, workers))
    defer { cluster.stop() }
    var http = PlainHTTP(try ServerURL(cluster.url))
    var explained = 0
    let large = (PublicAPI.recommend, #"{"user":"user-1","k":1000,"explain":true}"#)
    for (api, body) in bundle.requests(items > 10_000 ? 15 : 120, seed: UInt64(workers)) + [large] {
      let (status, answer) = try ask(&http, api, body)
      #expect(status == 200, "\(body): \(answer.errorMessage ?? "")\n\(cluster.logTails())")
      expectSame(answer, try bundle.expected(api, body), body)
      let isAsked = body.contains("\"explain\":true")
      #expect(answer.items.allSatisfy { ($0.explanation != nil) == isAsked }, "\(body)")
      if isAsked { explained += answer.items.count }
    }
    #expect(explained > 700)
  }

  /// Requests that come at once, so that legs wait and are scored together, or are shared out among threads.
  @Test(arguments: [(TestBundle.Ranking.none, 1), (.linear, 1), (.plain, 2)])
  func requestsAtOnceGetTheirOwnAnswers(ranking: TestBundle.Ranking, threads: Int) throws {
    let bundle = try TestBundle(ranking, itemCount: 40_000)
    let cluster = try cluster(bundle, workers: 2, replicas: 1) {
      $0.scoringThreads = threads
      $0.togetherKiB = 0
    }
    defer { cluster.stop() }
    let requests = bundle.requests(32, seed: 77).filter { $0.api == .recommend }
    let url = try ServerURL(cluster.url)
    let answers = Mutex([Int: Result<(status: Int, answer: ParsedAnswer), any Error>]())
    let lanes = threads == 1 ? 16 : 1
    let done = DispatchSemaphore(value: 0)
    for lane in 0..<lanes {
      Thread.detachNewThread {
        var http = PlainHTTP(url)
        for number in stride(from: lane, to: requests.count, by: lanes) {
          let result = Result { try ask(&http, requests[number].api, requests[number].body) }
          answers.withLock { $0[number] = result }
        }
        done.signal()
      }
    }
    for _ in 0..<lanes { try #require(done.wait(timeout: .now() + 60) == .success, "\(cluster.logTails())") }
    for (number, request) in requests.enumerated() {
      let (status, answer) = try #require(answers.withLock { $0[number] }).get()
      #expect(status == 200, "\(request.body): \(answer.errorMessage ?? "")\n\(cluster.logTails())")
      expectSame(answer, try bundle.expected(request.api, request.body), request.body)
    }
    var (together, split) = (0.0, 0.0)
    for worker in cluster.workers {
      var http = PlainHTTP(try ServerURL("http://\(worker.address)"))
      together += try metric("shortlist_worker_together_total", &http)
      split += try metric("shortlist_worker_split_total", &http)
    }
    #expect(threads > 1 || together > 0)
    #expect(threads == 1 || split > 0)
  }

  private func metric(_ name: String, _ http: inout PlainHTTP) throws -> Double {
    let text = try http.get("/metrics").text
    let line = text.split(separator: "\n").first { $0.hasPrefix(name + " ") }
    return line.flatMap { Double($0.split(separator: " ")[1]) } ?? 0
  }

  @Test func bothReplicasDeadIsToldExactly() throws {
    let bundle = try TestBundle(ranked: false)
    let cluster = try cluster(bundle, workers: 4, replicas: 2)
    defer { cluster.stop() }
    let dead = cluster.workers.prefix(2)
    let lost = Set(dead[0].shards).intersection(dead[1].shards).sorted()
    try #require(!lost.isEmpty, "w1 and w2 share no shard")
    for worker in dead { try cluster.kill(worker.name) }
    let living = (0..<TestBundle.shards).filter { !lost.contains($0) }
    var http = PlainHTTP(try ServerURL(cluster.url))
    for (api, body) in bundle.requests(60, seed: 3) where api == .recommend && !body.contains("recent_items") {
      let (status, answer) = try ask(&http, api, body)
      #expect(status == 200, "\(answer.errorMessage ?? "")\n\(cluster.logTails())")
      expectSame(answer, try bundle.expected(api, body, over: living), body)
      let strict = body.dropLast() + ",\"min_coverage\":1}"
      let (refused, error) = try ask(&http, api, String(strict))
      #expect(refused == 503)
      for shard in lost { #expect(error.errorMessage?.contains("shard \(shard) (") == true) }
    }
  }

  @Test func killingAnyWorkerUnderLoadFailsNothing() throws {
    let bundle = try TestBundle(ranked: true)
    let cluster = try cluster(bundle, workers: 4, replicas: 2)
    defer { cluster.stop() }
    let bodies = bundle.requests(50, seed: 9).filter { $0.api == .recommend }.map(\.body)
    let requests = bundle.directory + "/requests.jsonl"
    try Data((bodies.joined(separator: "\n") + "\n").utf8).write(to: URL(fileURLWithPath: requests))
    let victim = try #require(cluster.workers.randomElement())
    let load = try ChildProcess(
      name: "load", executable: Program.path,
      arguments: ["load", "--url", cluster.url, "--requests", requests, "--rate", "200", "--duration", "3s"],
      logPath: bundle.directory + "/load.log")
    defer { load.kill() }
    // Once some hundred have been answered, the load is under way.
    var http = PlainHTTP(try ServerURL(cluster.url))
    let limit = Date().addingTimeInterval(30)
    while try answered(&http) < 200, Date() < limit, load.isRunning {}
    try cluster.kill(victim.name)
    #expect(load.waitForExit(limit: .seconds(60)) == .code(0), "\(load.log())\n\(cluster.logTails())")
    let text = load.log()
    let start = try #require(text.firstIndex(of: "{"))
    let report = try #require(
      try JSONSerialization.jsonObject(with: Data(text[start...].utf8)) as? [String: Any], "\(text)")
    #expect(report["sent"] as? Int == 600 && report["ok"] as? Int == 600, "\(victim.name) killed: \(text)")
  }

  private func answered(_ http: inout PlainHTTP) throws -> Int { Int(try metric("shortlist_answers_total", &http)) }

  @Test func wrongRequestsAreRefusedByName() throws {
    let bundle = try TestBundle(ranked: false)
    let cluster = try cluster(bundle, workers: 1, replicas: 1)
    defer { cluster.stop() }
    var http = PlainHTTP(try ServerURL(cluster.url))
    for (api, body, status, part) in [
      (PublicAPI.recommend, #"{"user":"a","foo":1}"#, 400, "unknown field \"foo\""),
      (.recommend, #"{"vector":[1,2]}"#, 400, "\"vector\" has 2 numbers; home/v1 takes 24"),
      (.recommend, #"{"user":"a","model":"shop"}"#, 404, "unknown model \"shop\""),
      (.recommend, #"{"user":"a","version":"v9"}"#, 404, "unknown version \"v9\""),
      (.similar, #"{"item":"ghost"}"#, 404, "unknown item \"ghost\""),
    ] {
      let (code, answer) = try ask(&http, api, body)
      #expect(code == status && answer.errorMessage?.contains(part) == true, "\(body): \(answer.errorMessage ?? "")")
    }
    #expect(try http.get("/healthz").text == "ok\n")
    #expect(try http.get("/readyz").status == 200)
    #expect(try http.get("/v1/models").text.contains("\"shards_ready\":16"))
    #expect(try http.get("/v1/recommend").status == 405)
    #expect(try http.get("/nowhere").status == 404)
    #expect(try http.post("/v1/recommend", [UInt8](repeating: 32, count: 2 << 20)).status == 413)
  }
}
