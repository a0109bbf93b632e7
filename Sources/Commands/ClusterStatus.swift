import ClusterHarness
import Foundation
import Terminal

// `cluster status`: the processes as the system sees them, and who holds what as a coordinator sees it.
//
//   home/v1      0  1  2  3  4  5          a column per shard, a row per worker:
//     w1         ●  ●  ·  ·  ◐  ·          ● ready   ◐ loading   ✗ failed   · not there
//     (w2 down)  ●  ·  ●  ●  ·  ·          in brackets: not asked just now, and why
//     replicas   1  1  0  0  1  1          how many may be asked

struct ClusterStatus {
  private struct Report: Encodable {
    let cluster: ClusterState
    /// What the coordinator says; left out when none answers.
    let view: ClusterReport?

    private enum Key: String, CodingKey { case view }
    func encode(to encoder: any Encoder) throws {
      try cluster.encode(to: encoder)
      var container = encoder.container(keyedBy: Key.self)
      try container.encodeIfPresent(view, forKey: .view)
    }
  }
  private let cluster: ClusterState
  private let view: ClusterReport?

  init(_ directory: StateDirectory) throws {
    guard directory.isHeld else { throw HarnessError.noCluster(directory) }
    cluster = try directory.read()
    view = cluster.members.lazy.compactMap(\.admin).compactMap { try? ClusterReport.fetch($0) }.first
  }

  /// - Returns: the exit code.
  func show(json: Bool) throws -> Int32 {
    if json {
      try Console.printJSON(Report(cluster: cluster, view: view))
    } else {
      Console.print(text)
    }
    return cluster.members.allSatisfy { $0.condition == "running" } ? 0 : 1
  }

  private var text: String {
    var table = TextTable(["name", "state", "pid", "address", "admin", "starts"])
    for member in cluster.members {
      table.add([
        member.name, member.condition, member.process.map { "\($0.pid)" } ?? "-", member.url, member.admin ?? "-",
        "\(member.starts)",
      ])
    }
    let head =
      "\(cluster.model)/\(cluster.version) at \(cluster.url), \(cluster.shardCount) shards, "
      + "\(cluster.replicas) replicas\n\(table.text)"
    guard let view else {
      return head + "\n\nno coordinator answers on its admin address: who holds what is not known"
    }
    return head + "\n\n" + Self.matrix(view)
  }

  /// Who holds which shards, release by release.
  static func matrix(_ view: ClusterReport) -> String {
    view.releases.map { release in
      var table = TextTable(["\(release.model)/\(release.version)"] + (0..<release.shards).map(String.init))
      // w2 before w10, in whatever order they joined.
      for worker in view.workers.sorted(by: { ($0.name.count, $0.name) < ($1.name.count, $1.name) }) {
        let holding = worker.holdings.first { $0.model == release.model && $0.version == release.version }
        table.add([title(worker)] + (0..<release.shards).map { mark(holding, $0) })
      }
      table.add(["replicas"] + release.replicas.map(String.init))
      return table.text + (release.published ? "" : "\n  not served yet: no shard may miss the first time")
    }.joined(separator: "\n\n") + "\n\n  ● ready  ◐ loading  ✗ failed  · not there"
  }

  private static func title(_ worker: ClusterReport.Worker) -> String {
    var notes: [String] = []
    if worker.state != "alive" { notes.append(worker.state) }
    if worker.draining { notes.append("draining") }
    if worker.ejected { notes.append("ejected") }
    let zone = worker.zone.isEmpty ? "" : " @\(worker.zone)"
    return notes.isEmpty ? worker.name + zone : "(\(worker.name)\(zone) \(notes.joined(separator: ", ")))"
  }

  private static func mark(_ holding: ClusterReport.Holding?, _ shard: Int) -> String {
    guard let holding else { return "·" }
    if holding.ready.contains(shard) { return "●" }
    if holding.loading.contains(shard) { return "◐" }
    return holding.failed.contains(shard) ? "✗" : "·"
  }
}
