import ClusterHarness
import Foundation
import HTTP2
import Testing
import Wire

@testable import ClusterLoad

/// Everything over TLS, mutual between nodes: real processes, certificates made for them.
@Suite(.serialized) struct TLSClusterTests {
  /// The answers are the oracle's, a killed worker is nobody's loss, and new certificates are taken up under load.
  @Test func aClusterSpeaksTLSOnly() throws {
    let live = try LiveCluster {
      $0.tls = true
      $0.joins = true
      $0.coordinators = 2
      $0.workers = 3
    }
    let cluster = live.cluster
    defer { cluster.stop() }
    #expect(cluster.url.hasPrefix("https://") && cluster.workers.allSatisfy { $0.url.hasPrefix("https://") })
    try live.expectOracle()

    let load = try live.load()
    try cluster.kill("w2")
    try live.waitForAnswers(50)
    try cluster.restart("w2")
    try cluster.waitFor("w2 is back") { $0.workers.contains { $0.name == "w2" && $0.state == "alive" } }

    let certificates = cluster.directory.certificates
    var http = PlainHTTP(try ServerURL(cluster.url))
    let expiries = try expiry(&http)
    let accepted = try live.metric("shortlist_connections_total{port=\"public\"}", &http)
    try certificates.issue([
      .init("c1", .coordinator, days: 200), .init("w1", .worker, days: 200), .init("public", [], days: 200),
    ])
    for name in ["c1", "w1"] { try cluster.member(name).reload() }
    let limit = ContinuousClock.now + .seconds(20)
    while try expiry(&http) == expiries {
      try #require(ContinuousClock.now < limit, "still the old certificates\n\(cluster.logTails())")
    }
    let later = try expiry(&http)
    #expect(later.count == 2 && zip(later, expiries).allSatisfy { $0 > $1 + 100 * 86_400 }, "\(expiries) \(later)")
    // No connection was dropped for it, the one that asks included.
    #expect(try live.metric("shortlist_connections_total{port=\"public\"}", &http) == accepted)
    // The link that is made now meets the new certificate.
    try cluster.restart("w3")
    try live.waitForAnswers(100)
    try live.expectUndisturbed(load)

    // What cannot be used is said, and changes nothing.
    try Data("rubbish".utf8).write(to: URL(fileURLWithPath: certificates.files(of: "c1").certificate))
    try cluster.member("c1").reload()
    while try live.metric("shortlist_tls_reload_failures_total", &http) < 1 {
      try #require(ContinuousClock.now < limit + .seconds(20), "\(cluster.logTails())")
    }
    #expect(try expiry(&http) == later)
    try live.expectOracle(requests: 10)
  }

  private func expiry(_ http: inout PlainHTTP) throws -> [Int] {
    try http.get("/metrics").text.split(separator: "\n")
      .filter { $0.hasPrefix("shortlist_tls_certificate_expiry_seconds{") }
      .compactMap { $0.split(separator: " ").last.flatMap { Int($0) } }
  }

  /// Each is refused with a reason in the log, once, and hears nothing of the application.
  @Test func strangersAreKeptOutOfEveryPort() throws {
    let live = try LiveCluster {
      $0.tls = true
      $0.workers = 2
    }
    let cluster = live.cluster
    defer { cluster.stop() }
    let own = cluster.directory.certificates
    let others = CertificateDirectory(path: cluster.directory.path + "/others")
    try others.issue([.init("c9", .coordinator)])
    try own.issue([.init("old", .coordinator, days: -1)])
    var foreign = others.files(of: "c9")
    foreign.authority = own.authority
    let strangers: [(files: TLSFiles, reason: String)] = [
      (foreign, "unable to get local issuer certificate"),
      (own.files(of: "old"), "certificate has expired"),
      (own.files(of: "w2"), "its certificate names the role worker, and here it takes coordinator or operator"),
      (own.files(of: "public"), "names the role none"),
      (TLSFiles(authority: own.authority), "it shows no certificate"),
    ]
    let worker = try cluster.member("w1")
    let server = try ServerURL(worker.url)
    for (files, reason) in strangers {
      TLSTrust.set(files, for: server.authority)
      var http = PlainHTTP(server, limit: .seconds(5))
      #expect(throws: HarnessError.self) { try http.get("/healthz") }
      try waitForLog(worker, reason)
    }
    var plain = PlainHTTP(try ServerURL("http://" + worker.address), limit: .seconds(5))
    #expect(throws: HarnessError.self) { try plain.get("/healthz") }
    try waitForLog(worker, "it does not speak TLS")
    let log = try String(contentsOfFile: cluster.directory.path + "/logs/w1.log", encoding: .utf8)
    #expect(log.components(separatedBy: "worker port: ").count - 1 == strangers.count + 1, "\(log)")

    // The admin port takes a worker's certificate for joining, and for nothing else.
    let admin = try ServerURL(cluster.admin)
    TLSTrust.set(own.files(of: "w1"), for: admin.authority)
    var http = PlainHTTP(admin)
    let answer = try http.get("/v1/cluster")
    #expect(
      answer.status == 403 && answer.text.contains("takes a certificate with the role operator"), "\(answer.text)")
    var outside = PlainHTTP(try ServerURL("http://" + cluster.coordinator.address), limit: .seconds(5))
    #expect(throws: HarnessError.self) { try outside.get("/healthz") }
  }

  private func waitForLog(_ member: ClusterMember, _ text: String) throws {
    let limit = ContinuousClock.now + .seconds(10)
    while member.process?.logTail(lines: 50).contains(text) != true {
      try #require(ContinuousClock.now < limit, "no line with \"\(text)\": \(member.process?.logTail() ?? "")")
    }
  }
}
