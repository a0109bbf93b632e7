import Membership
import RankingCore

// The versions this coordinator may answer from, and the choice of one per request.
//
//     loaded     its user table and shape are here
//     complete   every shard has been ready at some instant
//     offered    the agreed document says that requests may get it (without a document: everything that is loaded)
//     published  all three
//
// A version that is forgotten stays as long as requests are in flight on it: a pin holds to the end.

/// A version and how much of it can be scored right now.
public struct CatalogEntry: Sendable {
  public let release: Release
  public internal(set) var replicas: ReplicaTable
  /// Whether every shard was ready at some instant: only then may requests be pinned to it.
  public internal(set) var wasComplete: Bool
  /// Whether requests may get it.
  public internal(set) var isOffered: Bool
  /// Requests that are pinned to it and not answered.
  public internal(set) var inFlight = 0
  /// No new request gets it; it goes with its last one.
  var isLeaving = false

  public var isPublished: Bool { wasComplete && isOffered && !isLeaving }
  public var id: ModelVersion { release.id }
  /// The share of its items whose shards have a ready replica.
  var readyShare: Double {
    let ready = zip(release.itemsPerShard, replicas.replicas).reduce(UInt64(0)) { $0 + ($1.1.isEmpty ? 0 : $1.0) }
    return Double(ready) / Double(max(1, release.itemCount))
  }
}

/// What the requests of a model may be answered from.
public struct VersionOffer: Sendable, Equatable {
  public var model: String
  /// The serving version first.
  public var versions: [String]
  public init(model: String, versions: [String]) {
    self.model = model
    self.versions = versions
  }
}

/// Which version a request should get that names none.
public enum VersionWish: Sendable, Equatable {
  case serving
  /// This one; another published one where it is incomplete just now.
  case preferred(String)
  /// This one and no other, published or not, for a request of the cluster's own. With a replica, of each shard's
  /// one in this place, counted round, is asked: so all can be tried.
  case exactly(String, replica: Int?)
}

public struct ReleaseCatalog: Sendable {
  /// `nil` = free. A request keeps its version's place.
  private var places: [CatalogEntry?] = []
  /// `nil` = everything loaded is offered; of one model, the last is the serving version.
  public private(set) var offers: [VersionOffer]?
  public init() {}

  /// What is loaded, in the order of loading.
  public var entries: [CatalogEntry] { places.compactMap { $0.flatMap { $0.isLeaving ? nil : $0 } } }
  public func entry(_ id: ModelVersion) -> CatalogEntry? { place(id).flatMap { places[$0] } }
  /// Requests in flight on a version, loaded or just leaving.
  public func inFlight(_ id: ModelVersion) -> Int {
    places.reduce(0) { $0 + ($1?.id == id ? $1?.inFlight ?? 0 : 0) }
  }

  subscript(place: Int) -> CatalogEntry {
    _read {
      guard places[place] != nil else { preconditionFailure("no version in place \(place)") }
      yield places[place].unsafelyUnwrapped
    }
  }
  private func place(_ id: ModelVersion) -> Int? {
    places.lastIndex { $0.map { $0.id == id && !$0.isLeaving } ?? false }
  }

  // MARK: What is loaded

  /// Loading a version that is loaded changes nothing: versions are immutable.
  public mutating func add(_ release: Release, members: [Member]) {
    guard place(release.id) == nil else { return }
    let entry = CatalogEntry(
      release: release,
      replicas: ReplicaTable(release, members),
      wasComplete: false, isOffered: isOffered(release.id))
    // Without offers the order is what counts.
    if offers != nil, let free = places.firstIndex(where: { $0 == nil }) {
      places[free] = entry
    } else {
      places.append(entry)
    }
    reroute()
    refresh(members: members)
  }

  /// Makes the replica tables anew from what the members say now.
  public mutating func refresh(members: [Member]) {
    for place in places.indices {
      guard var entry = places[place] else { continue }
      entry.replicas = ReplicaTable(entry.release, members)
      if entry.replicas.isComplete { entry.wasComplete = true }
      places[place] = entry
    }
  }

  public mutating func offer(_ offers: [VersionOffer]) {
    self.offers = offers
    for place in places.indices {
      guard let id = places[place]?.id else { continue }
      let isOffered = isOffered(id)
      places[place]?.isOffered = isOffered
    }
    reroute()
  }
  private func isOffered(_ id: ModelVersion) -> Bool {
    guard let offers else { return true }
    return offers.contains { $0.model == id.model && $0.versions.contains(id.version) }
  }

  public mutating func forget(_ id: ModelVersion) {
    guard let place = place(id) else { return }
    places[place]?.isLeaving = true
    reroute()
    letGo(place)
  }
  private mutating func letGo(_ place: Int) {
    if let entry = places[place], entry.isLeaving, entry.inFlight == 0 { places[place] = nil }
  }

  /// A request is on its way, or answered.
  mutating func began(_ place: Int) { places[place]?.inFlight += 1 }
  mutating func ended(_ place: Int) {
    places[place]?.inFlight -= 1
    letGo(place)
  }

  /// Whether every model has a version that could be answered from.
  public var isReady: Bool {
    let entries = entries
    let models = offers?.map(\.model) ?? entries.map(\.id.model)
    return !models.isEmpty
      && models.allSatisfy { model in
        entries.contains { $0.id.model == model && $0.isPublished && $0.replicas.readyShards > 0 }
      }
  }

  // MARK: One per request

  /// The versions of one model that requests may get and that are loaded, as places, the serving version first. Made
  /// when something changes: choosing among them allocates nothing.
  private struct Route: Sendable {
    var model: String
    var serving: String
    var versions: [String]
    var places: [Int]
  }
  private var routes: [Route] = []

  private mutating func reroute() {
    let loaded = places.indices.filter { places[$0].map { !$0.isLeaving } ?? false }
    if let offers {
      routes = offers.map { offer in
        let places = offer.versions.compactMap { version in
          loaded.last { self[$0].id == ModelVersion(model: offer.model, version: version) }
        }
        return Route(
          model: offer.model, serving: offer.versions.first ?? "", versions: offer.versions, places: places)
      }
      return
    }
    routes = []
    for place in loaded {
      let id = self[place].id
      guard let index = routes.firstIndex(where: { $0.model == id.model }) else {
        routes.append(Route(model: id.model, serving: id.version, versions: [id.version], places: [place]))
        continue
      }
      routes[index].serving = id.version
      routes[index].versions.append(id.version)
      routes[index].places.insert(place, at: 0)
    }
  }

  /// Pins the version of one request: the one it names, else the one wished for; when that is incomplete just now, a
  /// complete published one; when none is complete, the one that covers most items, ties to the serving version.
  func pin(model: String?, version: String?, wish: VersionWish) throws(RankingError) -> Int {
    let route = try route(model)
    if case .exactly(let version, _) = wish {
      let id = ModelVersion(model: routes[route].model, version: version)
      guard let place = place(id) else { throw RankingError(.unavailable, "\(id) is not loaded") }
      return place
    }
    if let version { return try named(version, routes[route]) }
    if case .preferred(let version) = wish {
      for place in routes[route].places where self[place].isPublished && self[place].id.version == version {
        if self[place].replicas.isComplete { return place }
      }
    }
    var best: Int?
    for place in routes[route].places where self[place].isPublished {
      if self[place].replicas.isComplete { return place }
      guard let other = best, self[place].readyShare <= self[other].readyShare else {
        best = place
        continue
      }
    }
    guard let best else { throw notPublished(routes[route].model, routes[route].serving) }
    return best
  }

  private func route(_ model: String?) throws(RankingError) -> Int {
    guard let model else {
      guard !routes.isEmpty else { throw RankingError(.unavailable, "no model is loaded yet") }
      guard routes.count == 1 else {
        throw RankingError(.invalidArgument, "\"model\" is needed, as several are served: \(models)")
      }
      return 0
    }
    guard let index = routes.firstIndex(where: { $0.model == model }) else {
      throw RankingError(.notFound, "unknown model \"\(model)\"; served here: \(models)")
    }
    return index
  }

  /// The model of a request, when there is one.
  public func model(of request: RankingRequest) -> String? {
    request.model ?? (routes.count == 1 ? routes[0].model : nil)
  }

  private func named(_ version: String, _ route: Route) throws(RankingError) -> Int {
    guard route.versions.contains(version) else {
      throw RankingError(
        .notFound,
        "unknown version \"\(version)\" of model \"\(route.model)\"; served here: \(listed(route.versions))")
    }
    guard let place = route.places.first(where: { self[$0].id.version == version }), self[place].isPublished else {
      throw notPublished(route.model, version)
    }
    return place
  }

  private var models: String { listed(routes.map(\.model)) }
  private func notPublished(_ model: String, _ version: String) -> RankingError {
    RankingError(.unavailable, "\(model)/\(version) is not published yet: not all of its shards have been ready")
  }
  private func listed(_ names: [String]) -> String { names.map { "\"\($0)\"" }.joined(separator: ", ") }
}

extension ReplicaTable {
  fileprivate init(_ release: Release, _ members: [Member]) {
    self.init(
      release: release.id, shardCount: release.shardCount, fingerprint: release.fingerprint, members: members)
  }
}
