import Membership
import RankingCore

// Who should hold what: from the document and the workers' room to the releases that `PlacementDriver` places, in the
// order in which they get room. A function of (document, observed): asked again after any change, it says the same or
// something nearer to the end.
//
//     serving versions      by hashing, so many replicas as always           first: nothing takes their room
//     pinned versions       by hashing
//     the new version       beside: by hashing, in the room that is left
//     old and new           replica by replica: named holders, below
//     all other versions    of models in the document: nobody, once the document says that they are drained
//
// Replica by replica, when memory is short (a shard's bytes are 10 in both versions, every worker has room for 20):
//
//              w1       w2       w3                      w1       w2       w3
//     v41    s0 s1    s0 s2    s1 s2      v41 kept     s0       s2       s1
//            (full)   (full)   (full)     v42 taken    s0       s1       s2
//
// Each shard keeps one ready replica of v41, chosen so that what is kept spreads over the workers; the others are
// unloaded (by the driver, and only while the kept one is ready), and v42 goes where that left room. What v42 has
// already is where it stays. From then on a worker's death leaves shards of both versions without a replica until they
// are placed anew: the price of half the memory.

public enum LoadPlan {
  /// The releases in the order in which they get room, for `PlacementDriver.tick`.
  ///
  /// Versions whose sizes are not known yet are left out, which changes nothing on the workers.
  public static func releases(_ document: RolloutDocument, _ observed: Observed) -> [PlacedRelease] {
    var releases = steady(document, observed)
    var wanted = Set(releases.map(\.id))
    for state in document.models {
      guard let rollout = state.rollout, rollout.stage.isForward else { continue }
      let new = ModelVersion(model: state.model, version: rollout.to)
      // Before it is decided nothing is loaded, but what is there (from a rollout that just ended) stays.
      wanted.insert(new)
      guard let bundle = observed.bundle(new), !bundle.bytesPerShard.isEmpty else { continue }
      switch rollout.memory {
      case .undecided: break
      case .beside:
        if !releases.contains(where: { $0.id == new }) {
          releases.append(beside(bundle, observed))
        }
      case .replicaByReplica:
        let old = ModelVersion(model: state.model, version: state.serving)
        releases.removeAll { $0.id == new }
        guard let index = releases.firstIndex(where: { $0.id == old }) else { continue }
        let oldBytes = releases.remove(at: index).bytesPerShard
        let packed = pack(
          old, oldBytes, new, bundle.bytesPerShard, observed, room: room(besides: releases, observed))
        releases.append(PlacedRelease(id: old, bytesPerShard: oldBytes, holders: packed.old))
        releases.append(PlacedRelease(id: new, bytesPerShard: bundle.bytesPerShard, holders: packed.new))
      }
    }
    return releases + unwanted(document, observed, wanted)
  }

  private static func beside(_ bundle: Observed.Bundle, _ observed: Observed) -> PlacedRelease {
    PlacedRelease(
      id: bundle.release, bytesPerShard: bundle.bytesPerShard,
      holders: observed.holders(shards: bundle.bytesPerShard.count))
  }

  /// What is wanted whatever rollouts do.
  private static func steady(_ document: RolloutDocument, _ observed: Observed) -> [PlacedRelease] {
    func placed(_ model: String, _ version: String) -> PlacedRelease? {
      let id = ModelVersion(model: model, version: version)
      guard let bundle = observed.bundle(id), !bundle.bytesPerShard.isEmpty else { return nil }
      return beside(bundle, observed)
    }
    return document.models.compactMap { placed($0.model, $0.serving) }
      + document.models.flatMap { state in
        state.pinned.filter { $0 != state.serving }.compactMap { placed(state.model, $0) }
      }
  }

  /// What workers hold of the document's models and nobody wants. As long as requests are in flight on it, or it may
  /// still get some, it stays where it is.
  private static func unwanted(
    _ document: RolloutDocument, _ observed: Observed, _ wanted: Set<ModelVersion>
  ) -> [PlacedRelease] {
    var releases: [PlacedRelease] = []
    for worker in observed.workers {
      for holding in worker.holdings {
        let id = holding.release
        guard document[id.model] != nil, !wanted.contains(id), !releases.contains(where: { $0.id == id }) else {
          continue
        }
        // The serving and the pinned ones are wanted even while their sizes are not known.
        guard let state = document[id.model], state.serving != id.version, !state.pinned.contains(id.version) else {
          continue
        }
        let held = observed.workers.flatMap { $0.holding(id).map { $0.ready + $0.loading + $0.failed } ?? [] }
        let shards = max(observed.bundle(id)?.bytesPerShard.count ?? 0, (held.map(\.index).max() ?? -1) + 1)
        guard shards > 0 else { continue }
        let isLeaving = state.rollout.map { !$0.isDrained && (id.version == $0.from || id.version == $0.to) } ?? false
        let isBusy = isLeaving || observed.inFlight(id) > 0
        let holders = (0..<shards).map { shard in
          isBusy ? names(observed.workers) { holds($0, id, shard) } : []
        }
        releases.append(
          PlacedRelease(id: id, bytesPerShard: [UInt64](repeating: 0, count: shards), holders: holders))
      }
    }
    return releases.sorted { $0.id < $1.id }
  }

  private static func names(_ workers: [Observed.Worker], _ isMeant: (Observed.Worker) -> Bool) -> [String] {
    workers.filter(isMeant).map(\.name)
  }
  private static func isReady(_ worker: Observed.Worker, _ release: ModelVersion, _ shard: Int) -> Bool {
    worker.holding(release)?.ready.contains(ShardID(shard)) == true
  }
  private static func holds(_ worker: Observed.Worker, _ release: ModelVersion, _ shard: Int) -> Bool {
    guard let holding = worker.holding(release) else { return false }
    return holding.ready.contains(ShardID(shard)) || holding.loading.contains(ShardID(shard))
  }

  // MARK: Room

  private static func members(_ observed: Observed) -> [PlacementMember] {
    observed.workers.filter(\.isEligible).map {
      PlacementMember(name: $0.name, zone: $0.zone, capacityBytes: $0.capacityBytes)
    }
  }

  /// What every eligible worker has left when these releases have what they want; `.max` = it does not say.
  private static func room(besides releases: [PlacedRelease], _ observed: Observed) -> [UInt64] {
    let members = members(observed)
    var room = members.map { $0.capacityBytes == 0 ? UInt64.max : $0.capacityBytes }
    let placed = Placement.assign(releases, to: members, replicas: observed.replicas)
    for (release, shards) in zip(releases, placed) {
      for (bytes, holders) in zip(release.bytesPerShard, shards) {
        for index in holders where room[index] != .max { room[index] -= min(room[index], bytes) }
      }
    }
    return room
  }

  public enum Fit: Sendable, Equatable {
    /// The bundle's sizes or the workers are not known yet.
    case unknown
    /// With the figures, for the history.
    case beside(String)
    case replicaByReplica(String)
    case tooBig(String)
  }

  /// How the new version of a model could be loaded into the room that there is.
  public static func fit(_ document: RolloutDocument, model: String, _ observed: Observed) -> Fit {
    guard let state = document[model], let rollout = state.rollout else { return .unknown }
    let new = ModelVersion(model: model, version: rollout.to)
    let old = ModelVersion(model: model, version: state.serving)
    let members = members(observed)
    guard !members.isEmpty, let bytes = observed.bundle(new)?.bytesPerShard, !bytes.isEmpty,
      let oldBytes = observed.bundle(old)?.bytesPerShard, !oldBytes.isEmpty
    else { return .unknown }
    // Other rollouts under way have their room already.
    var others = document
    for index in others.models.indices where others.models[index].model == model { others.models[index].rollout = nil }
    let taken = releases(others, observed).filter { $0.id != new }
    let each = min(observed.replicas, members.count)
    let need = sum(bytes) &* UInt64(each)
    let placed = Placement.assign(
      taken + [PlacedRelease(id: new, bytesPerShard: bytes)], to: members, replicas: observed.replicas)
    let free = room(besides: taken, observed)
    let figures = "\(each) replicas of \(new) take \(Figure.bytes(need)), \(describe(free)) beside what must stay"
    if let table = observed.holders(shards: bytes.count) {
      if zip(members, free).allSatisfy({ member, free in free >= share(of: member.name, table, bytes) }) {
        return .beside(figures)
      }
    } else if placed[taken.count].allSatisfy({ $0.count == each }) {
      return .beside(figures)
    }

    let besides = taken.filter { $0.id != old }
    let packed = pack(old, oldBytes, new, bytes, observed, room: room(besides: besides, observed))
    let kept = "one replica of each shard of \(old) kept"
    if packed.fits { return .replicaByReplica("\(figures); with \(kept) one replica of each shard fits") }
    return .tooBig(
      "\(figures); and with \(kept) (\(Figure.bytes(sum(oldBytes)))) one replica of each of its \(bytes.count) shards "
        + "(\(Figure.bytes(sum(bytes))), the largest \(Figure.bytes(bytes.max() ?? 0))) does not fit either: "
        + capacities(members))
  }

  /// What the table gives one worker to hold.
  private static func share(of name: String, _ table: [[String]], _ bytes: [UInt64]) -> UInt64 {
    zip(table, bytes).reduce(0) { $1.0.contains(name) ? $0 &+ $1.1 : $0 }
  }
  private static func sum(_ bytes: [UInt64]) -> UInt64 { bytes.reduce(0) { $0 &+ $1 } }
  private static func describe(_ free: [UInt64]) -> String {
    if free.contains(.max) { return "the \(free.count) workers do not all say how much room they have" }
    return "\(free.count) workers have \(Figure.bytes(sum(free))) free"
  }
  private static func capacities(_ members: [PlacementMember]) -> String {
    Figure.listed(members.map { "\($0.name) has \(Figure.bytes($0.capacityBytes)) in all" })
  }

  // MARK: Replica by replica

  private struct Packed {
    var old: [[String]]
    var new: [[String]]
    /// Whether every shard of both has a holder.
    var fits: Bool
  }

  /// One holder for each shard of each version.
  ///
  /// - Parameter room: of the eligible workers, in their order, without what these two versions take.
  private static func pack(
    _ old: ModelVersion, _ oldBytes: [UInt64], _ new: ModelVersion, _ newBytes: [UInt64], _ observed: Observed,
    room: [UInt64]
  ) -> Packed {
    let workers = observed.workers.filter(\.isEligible)
    var room = room
    func take(_ index: Int, _ bytes: UInt64) { if room[index] != .max { room[index] -= min(room[index], bytes) } }
    /// The best of the workers by rank, then by room, then by order.
    func best(_ ranks: [Int?]) -> Int? {
      var best: Int?
      for index in workers.indices {
        guard let rank = ranks[index] else { continue }
        if let other = best, let otherRank = ranks[other] {
          guard rank < otherRank || rank == otherRank && room[index] > room[other] else { continue }
        }
        best = index
      }
      return best
    }
    var (kept, taken) = ([[String]](), [[String]](repeating: [], count: newBytes.count))
    var fits = true
    for (shard, bytes) in oldBytes.enumerated() {
      // A ready replica before everything else; then one that is being read, or may come back; else anybody.
      let ranks = workers.map { worker -> Int? in
        let isNew = holds(worker, new, shard) ? 1 : 0
        if worker.isUsable, isReady(worker, old, shard) { return isNew }
        return holds(worker, old, shard) ? 2 + isNew : 4 + isNew
      }
      guard let holder = best(ranks) else { return Packed(old: [], new: [], fits: false) }
      if room[holder] < bytes { fits = false }
      take(holder, bytes)
      kept.append([workers[holder].name])
    }
    // The largest first: they have the least choice.
    let order = newBytes.indices.sorted { (newBytes[$1], $0) < (newBytes[$0], $1) }
    for (pass, shard) in order.map({ (0, $0) }) + order.map({ (1, $0) }) {
      let bytes = newBytes[shard]
      // What is there already stays; it takes its room before anything new does.
      let ranks = zip(workers, room).map { worker, free -> Int? in
        if pass == 0 { return isReady(worker, new, shard) ? 0 : holds(worker, new, shard) ? 1 : nil }
        return taken[shard].isEmpty && bytes <= free ? 0 : nil
      }
      if let holder = best(ranks) {
        take(holder, bytes)
        taken[shard] = [workers[holder].name]
      } else if pass == 1, taken[shard].isEmpty {
        fits = false
      }
    }
    return Packed(old: kept, new: taken, fits: fits)
  }
}
