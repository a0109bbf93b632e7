import ClusterHarness
import Foundation
import Servers
import Testing
import Wire

@testable import ClusterLoad

/// Who gets in, and what is seen of what happens.
@Suite(.serialized) struct EdgeTests {
  private static let tokens: [(name: String, scopes: AccessScope)] = [
    ("shop", .rank), ("grafana", .metrics), ("ada", [.admin, .rank]),
  ]

  @Test func withoutATokenThereIsNothingButHealth() throws {
    let bundle = try TestBundle(ranked: false)
    let file = bundle.directory + "/tokens"
    try Self.tokens.map { AccessTokens.line(name: $0.name, scopes: $0.scopes, token: "secret-of-" + $0.name) + "\n" }
      .joined().write(toFile: file, atomically: true, encoding: .utf8)
    let live = try LiveCluster(bundle) {
      $0.workers = 2
      $0.tokens = file
    }
    let cluster = live.cluster
    defer { cluster.stop() }
    let (outside, admin) = (try ServerURL(cluster.url), try ServerURL(cluster.admin))
    /// What each sees: nobody, the shop, grafana, ada, and one who guesses.
    func statuses(_ server: ServerURL, _ path: String, _ body: String? = nil) throws -> [Int] {
      try ["", "secret-of-shop", "secret-of-grafana", "secret-of-ada", "secret-of-eve"].map { token in
        TLSTrust.set(token: token.isEmpty ? "x" : token, for: server.authority)
        var http = PlainHTTP(server)
        return try (body.map { try http.post(path, Array($0.utf8)) } ?? http.get(path)).status
      }
    }
    #expect(try statuses(outside, "/healthz") == [200, 200, 200, 200, 200])
    #expect(try statuses(outside, "/readyz") == [200, 200, 200, 200, 200])
    #expect(try statuses(outside, "/v1/recommend", #"{"user":"user-1"}"#) == [401, 200, 403, 200, 401])
    #expect(try statuses(outside, "/v1/models") == [401, 200, 403, 200, 401])
    #expect(try statuses(outside, "/metrics") == [401, 403, 200, 403, 401])
    #expect(try statuses(outside, "/nothing") == [401, 404, 403, 404, 401])
    #expect(try statuses(admin, "/v1/cluster") == [401, 403, 403, 200, 401])
    #expect(try statuses(admin, "/debug/requests") == [401, 403, 403, 200, 401])
    #expect(try statuses(admin, "/metrics") == [401, 403, 200, 200, 401])

    // A token that is taken out of the file opens nothing any more; a file that cannot be read changes nothing.
    try (AccessTokens.line(name: "ada", scopes: [.admin, .metrics], token: "new") + "\n")
      .write(toFile: file, atomically: true, encoding: .utf8)
    cluster.coordinator.reload()
    TLSTrust.set(token: "new", for: outside.authority)
    var http = PlainHTTP(outside)
    let limit = ContinuousClock.now + .seconds(10)
    while try http.get("/metrics").status != 200 {
      try #require(ContinuousClock.now < limit, "\(cluster.logTails())")
    }
    #expect(try statuses(outside, "/v1/models") == [401, 401, 401, 401, 401])
    try "ada admin\n".write(toFile: file, atomically: true, encoding: .utf8)
    cluster.coordinator.reload()
    while cluster.coordinator.process?.logTail(lines: 9).contains("tokens:1: a line is a name") != true {
      try #require(ContinuousClock.now < limit, "\(cluster.logTails())")
    }
    TLSTrust.set(token: "new", for: outside.authority)
    #expect(try http.get("/metrics").text.contains("shortlist_access_refused_total{reason=\"unauthenticated\"} "))
  }

  /// Every request is slow enough: its line says where the time went, and its trace is found at both ends.
  @Test func slowRequestsAreTold() throws {
    let live = try LiveCluster {
      $0.workers = 2
      $0.slowMilliseconds = 0
      $0.log = "json"
      $0.allowFaults = true
    }
    let cluster = live.cluster
    defer { cluster.stop() }
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    let response = try curl(
      [
        "-sS", cluster.url + "/v1/recommend", "-H", "traceparent: 00-\(trace)-00f067aa0ba902b7-01", "-H",
        "x-request-id: basket-17", "-d", #"{"user":"user-1","k":3}"#,
      ])
    #expect(response.contains("basket-17"))
    let line = try find(cluster.coordinator, "basket-17")
    #expect(line["trace_id"] as? String == trace && line["outcome"] as? String == "ok", "\(line)")
    #expect(line["endpoint"] as? String == "recommend" && line["version"] as? String == "v1")
    let legs = try #require(line["legs"] as? [[String: Any]])
    #expect(legs.compactMap { $0["worker"] as? String }.sorted() == ["w1", "w2"], "\(legs)")
    #expect(legs.allSatisfy { $0["end"] as? String == "answered" && $0["kind"] as? String == "primary" }, "\(legs)")
    #expect(legs.reduce(0) { $0 + ($1["shards"] as? Int ?? 0) } == TestBundle.shards)
    for worker in cluster.workers {
      let leg = try find(worker, trace)
      #expect(leg["outcome"] as? String == "ok" && leg["leg_took_ms"] is Double, "\(leg)")
    }
    // All other lines are JSON, too.
    let log = try String(contentsOfFile: cluster.directory.path + "/logs/c1.log", encoding: .utf8)
    for line in log.split(separator: "\n") where !line.hasPrefix("ready ") && !line.hasPrefix("admin ") {
      #expect((try? JSONSerialization.jsonObject(with: Data(line.utf8))) is [String: Any], "\(line)")
    }

    // A slow worker is seen in the slowest requests, and a lost one by how its legs ended.
    var http = PlainHTTP(try ServerURL(cluster.workers[0].url))
    _ = try http.post("/faults", Array(#"{"delay_ms": 120, "share": 1, "seed": 1}"#.utf8))
    var outside = PlainHTTP(try ServerURL(cluster.url))
    _ = try outside.post("/v1/recommend", Array(#"{"user":"user-2","k":3}"#.utf8))
    var admin = PlainHTTP(try ServerURL(cluster.admin))
    let page = try admin.get("/debug/requests")
    let all = try #require(
      (try JSONSerialization.jsonObject(with: Data(page.body)) as? [String: Any])?["requests"] as? [[String: Any]])
    let times = all.compactMap { $0["took_ms"] as? Double }
    #expect(times.count == all.count && times == times.sorted(by: >) && all.count >= 2, "\(times)")
    let slowest = try #require(all.first?["legs"] as? [[String: Any]])
    #expect(slowest.contains { $0["worker"] as? String == "w1" && $0["took_ms"] as? Double ?? 0 >= 100 }, "\(slowest)")
  }

  private func curl(_ arguments: [String]) throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/curl")
    process.arguments = arguments
    let output = Pipe()
    process.standardOutput = output
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return String(decoding: data, as: UTF8.self)
  }

  private func find(_ member: ClusterMember, _ text: String) throws -> [String: Any] {
    let limit = ContinuousClock.now + .seconds(10)
    while true {
      let tail = member.process?.logTail(lines: 200) ?? ""
      for line in tail.split(separator: "\n") where line.contains(text) {
        guard let start = line.firstIndex(of: "{") else { continue }
        if let object = try? JSONSerialization.jsonObject(with: Data(line[start...].utf8)) as? [String: Any] {
          return object
        }
      }
      try #require(ContinuousClock.now < limit, "no line with \(text): \(tail)")
    }
  }
}
