import Membership
import RankingCore

// The versions this coordinator may answer from, and the choice of one per request.

/// A version and how much of it can be scored right now.
public struct CatalogEntry: Sendable {
  public let release: Release
  public internal(set) var replicas: ReplicaTable
  /// Whether every shard was ready at some instant: only then may requests be pinned to it.
  public internal(set) var isPublished: Bool
  /// Sum of the items of the shards that have a ready replica.
  var readyItems: UInt64 {
    zip(release.itemsPerShard, replicas.replicas).reduce(0) { $0 + ($1.1.isEmpty ? 0 : $1.0) }
  }
}

public struct ReleaseCatalog: Sendable {
  /// In the order of configuration: of one model, the last is the serving version.
  public private(set) var entries: [CatalogEntry] = []
  public init() {}

  public mutating func add(_ release: Release, members: [Member]) {
    entries.append(
      CatalogEntry(
        release: release,
        replicas: ReplicaTable(release: release.id, shardCount: release.shardCount, members: members),
        isPublished: false))
    refresh(members: members)
  }

  /// Makes the replica tables anew from what the members say now.
  public mutating func refresh(members: [Member]) {
    for index in entries.indices {
      let release = entries[index].release
      entries[index].replicas = ReplicaTable(release: release.id, shardCount: release.shardCount, members: members)
      if entries[index].replicas.isComplete { entries[index].isPublished = true }
    }
  }

  /// Whether every model has a version that could be answered from.
  public var isReady: Bool {
    !entries.isEmpty
      && entries.allSatisfy { entry in
        entries.contains {
          $0.release.id.model == entry.release.id.model && $0.isPublished && $0.replicas.readyShards > 0
        }
      }
  }

  /// Pins the version of one request: the one it names, else the serving version; when that is incomplete just now, a
  /// complete published one; when none is complete, the one that covers most items, ties to the serving version.
  func pin(model: String?, version: String?) throws(RankingError) -> Int {
    let name: String
    if let model { name = model } else { name = try onlyModel() }
    let candidates = entries.indices.filter { entries[$0].release.id.model == name }
    guard let serving = candidates.last else {
      throw RankingError(
        .notFound, "unknown model \"\(name)\"; served here: \(listed(entries.map(\.release.id.model)))")
    }
    if let version {
      guard let index = candidates.last(where: { entries[$0].release.id.version == version }) else {
        let versions = candidates.map { entries[$0].release.id.version }
        throw RankingError(
          .notFound, "unknown version \"\(version)\" of model \"\(name)\"; served here: \(listed(versions))")
      }
      guard entries[index].isPublished else { throw notPublished(entries[index].release.id) }
      return index
    }
    let published = candidates.filter { entries[$0].isPublished }
    guard !published.isEmpty else { throw notPublished(entries[serving].release.id) }
    if let complete = published.last(where: { entries[$0].replicas.isComplete }) { return complete }
    return published.reduce(published[published.count - 1]) { best, index in
      let share = { (index: Int) in
        Double(entries[index].readyItems) / Double(max(1, entries[index].release.itemCount))
      }
      return share(index) > share(best) ? index : best
    }
  }

  private func onlyModel() throws(RankingError) -> String {
    guard let first = entries.first?.release.id.model else {
      throw RankingError(.unavailable, "no model is loaded yet")
    }
    guard entries.allSatisfy({ $0.release.id.model == first }) else {
      throw RankingError(
        .invalidArgument, "\"model\" is needed, as several are served: \(listed(entries.map(\.release.id.model)))")
    }
    return first
  }
  private func notPublished(_ id: ModelVersion) -> RankingError {
    RankingError(.unavailable, "\(id) is not published yet: not all of its shards have been ready")
  }
  private func listed(_ names: [String]) -> String {
    var unique: [String] = []
    for name in names where !unique.contains(name) { unique.append(name) }
    return unique.map { "\"\($0)\"" }.joined(separator: ", ")
  }
}
