import Agreement
import Foundation
import HTTP2
import RankingCore
import Routing

// The JSON files that `coordinator --config` and `worker --config` read. Unknown keys are refused by name: a misspelt
// setting that is silently ignored is found at 3 a.m.

/// A configuration that cannot be used: one line that says where and what is allowed.
public struct ConfigurationError: Error, CustomStringConvertible, Sendable {
  public let description: String
  public init(_ description: String) { self.description = description }
}

/// Where a process listens or is reached: `host:port`, IPv6 as `[::1]:8080`, port 0 = any free one.
public struct SocketAddress: Sendable, Equatable, CustomStringConvertible {
  public var host: String
  public var port: UInt16
  public init(host: String, port: UInt16) {
    self.host = host
    self.port = port
  }
  public init(_ text: String) throws(ConfigurationError) {
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
      throw ConfigurationError("\"\(text)\" is not an address; write host:port, for example 127.0.0.1:8080")
    }
    var host = text[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    guard !host.isEmpty else {
      throw ConfigurationError("\"\(text)\" names no host; write host:port, for example 127.0.0.1:8080")
    }
    self.init(host: String(host), port: port)
  }
  public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

public struct CoordinatorConfiguration: Sendable {
  public struct Worker: Sendable {
    public var name: String
    public var address: SocketAddress
    public init(name: String, address: SocketAddress) {
      self.name = name
      self.address = address
    }
  }
  public var name = "coordinator"
  public var listen = SocketAddress(host: "127.0.0.1", port: 8080)
  public var store = ""
  /// Where bundles come from instead, by HTTP.
  public var bundles: BundlesConfiguration?
  /// nil = everything is plaintext.
  public var tls: TLSConfiguration?
  /// The file of tokens; nil = everything is open.
  public var tokens: String?
  /// What differs from the usual limits of a port.
  public var connections = ConnectionLimits()
  public var logging = LoggingConfiguration()
  func limits(_ usual: HTTPLimits) -> HTTPLimits { connections.applied(to: usual) }
  /// Of one model, the last is the serving version.
  public var models: [ModelVersion] = []
  public var workers: [Worker] = []
  /// Where workers join and operators look; `nil` = nowhere.
  public var admin: SocketAddress?
  /// The admin addresses of the other coordinators: a worker that joins here is told of them.
  public var peers: [SocketAddress] = []
  /// DNS names whose addresses are workers.
  public var discover: [SocketAddress] = []
  /// Replicas per shard when this coordinator places shards on workers; `nil` = it does not.
  public var replicas: Int?
  /// Per shard the names of the workers that hold it, where that is not left to hashing.
  public var table: [[String]]?
  /// Where the agreed document is kept that says which versions serve; `nil` = nowhere: `models` is all there is.
  public var state: StateConfiguration?
  /// A worker that has been down for so long is given up: its shards are placed on others. `nil` = the usual time.
  public var replacedAfter: Duration?
  /// While a request or two are in flight: how long to look for replies before going to sleep. Sleeping and waking cost
  /// more than a near reply takes; zero where the processor time is paid for by a quota.
  public var busyPoll: Duration = .microseconds(60)
  /// What may be switched off to see what it is worth.
  public var hedging = true
  public var retries = true
  /// Whether a worker whose bundle is another one of the same name is left out.
  public var fingerprints = true
  public var slowEjection = true
  public var choice = RoutingPolicy.Choice.powerOfTwo
  public init() {}

  public init(file: String) throws(ConfigurationError) {
    let json = try ConfigurationFile(file)
    try json.allow([
      "name", "listen", "store", "models", "workers", "admin", "peers", "discover", "placement", "health", "routing",
      "busy_poll_us", "state", "bundles", "tls", "tokens", "connections",
      "log", "slow_ms",
    ])
    name = try json.text("name") ?? name
    tls = try json.tls(isCoordinator: true)
    tokens = try json.text("tokens")
    connections = try ConnectionLimits(json)
    try logging.read(json)
    if let listen = try json.text("listen") { self.listen = try SocketAddress(listen) }
    store = try json.text("store") ?? ""
    bundles = try json.bundles(besides: store)
    for entry in try json.objects("models") {
      try entry.allow(["model", "version"])
      models.append(try entry.release())
    }
    for entry in try json.objects("workers") {
      try entry.allow(["name", "address"])
      workers.append(
        Worker(name: try entry.needed("name"), address: try SocketAddress(try entry.needed("address"))))
    }
    if let admin = try json.text("admin") { self.admin = try SocketAddress(admin) }
    peers = try json.texts("peers").map { (text) throws(ConfigurationError) in try SocketAddress(text) }
    discover = try json.texts("discover").map { (text) throws(ConfigurationError) in try SocketAddress(text) }
    if let busyPoll = try json.integer("busy_poll_us", in: 0...1000) { self.busyPoll = .microseconds(busyPoll) }
    if let placement = try json.child("placement") {
      try placement.allow(["replicas", "table"])
      replicas = try placement.integer("replicas", in: 1...16) ?? 2
      table = try placement.table("table")
    }
    if let state = try json.child("state") { self.state = try Self.state(state) }
    if let health = try json.child("health") {
      try health.allow(["replaced_after_ms"])
      let replacedAfter = try health.integer("replaced_after_ms", in: 1...86_400_000)
      self.replacedAfter = replacedAfter.map { .milliseconds($0) }
    }
    if let routing = try json.child("routing") {
      try routing.allow(["hedging", "retries", "fingerprints", "slow_ejection", "choice"])
      hedging = try routing.boolean("hedging") ?? true
      retries = try routing.boolean("retries") ?? true
      fingerprints = try routing.boolean("fingerprints") ?? true
      slowEjection = try routing.boolean("slow_ejection") ?? true
      switch try routing.text("choice") {
      case nil, "power_of_two": choice = .powerOfTwo
      case "random": choice = .random
      case let other?:
        throw ConfigurationError("\(file): routing: \"choice\" is \"\(other)\"; it is \"power_of_two\" or \"random\"")
      }
    }
  }

  private static func state(_ json: ConfigurationFile) throws(ConfigurationError) -> StateConfiguration {
    try json.allow(["directory", "etcd", "prefix"])
    if let directory = try json.text("directory") {
      guard json.object["etcd"] == nil, !directory.isEmpty else {
        throw ConfigurationError("\(json.place): give \"directory\" or \"etcd\", not both")
      }
      return .directory(directory)
    }
    let endpoints = try json.texts("etcd").map { (text) throws(ConfigurationError) in
      guard let endpoint = EtcdEndpoint(text) else {
        throw ConfigurationError("\(json.place): \"\(text)\" is no endpoint of etcd; write host:port")
      }
      return endpoint
    }
    guard !endpoints.isEmpty else {
      throw ConfigurationError("\(json.place): give \"directory\" (one coordinator) or \"etcd\" (a list of host:port)")
    }
    return .etcd(endpoints: endpoints, prefix: try json.text("prefix") ?? "/shortlist")
  }

  public func validate() throws(ConfigurationError) {
    guard !store.isEmpty || bundles != nil else { throw ConfigurationFile.noStore }
    guard !models.isEmpty || state != nil else {
      throw ConfigurationError("\"models\" is empty: name at least one model and version")
    }
    guard !workers.isEmpty || admin != nil || !discover.isEmpty else {
      throw ConfigurationError(
        "no worker can ever be found: give \"workers\", or \"discover\" (DNS names), or \"admin\" (where workers join)")
    }
    guard Set(workers.map(\.name)).count == workers.count else {
      throw ConfigurationError("\"workers\" names a worker twice")
    }
  }
}

public struct WorkerConfiguration: Sendable {
  public struct Holding: Sendable {
    public var release: ModelVersion
    public var shards: [ShardID]
    public init(release: ModelVersion, shards: [ShardID]) {
      self.release = release
      self.shards = shards
    }
  }
  public var name = "worker"
  public var listen = SocketAddress(host: "127.0.0.1", port: 0)
  public var store = ""
  /// Where bundles come from instead, by HTTP.
  public var bundles: BundlesConfiguration?
  /// nil = everything is plaintext.
  public var tls: TLSConfiguration?
  /// What differs from the usual limits of the port.
  public var connections = ConnectionLimits()
  public var logging = LoggingConfiguration()
  func limits(_ usual: HTTPLimits) -> HTTPLimits { connections.applied(to: usual) }
  public var holdings: [Holding] = []
  /// Compute threads; 0 = one per core.
  public var scoringThreads = 0
  /// Legs that wait are scored together where their slices take at least so much; `nil` = the policy's.
  public var togetherKiB: Int?
  /// Admin addresses of coordinators to join.
  public var join: [SocketAddress] = []
  /// Where coordinators reach this worker, when it is not where it listens.
  public var advertise: SocketAddress?
  /// Replicas of a shard are spread over zones.
  public var zone = ""
  /// Memory for slices; 0 = four fifths of the machine's.
  public var memoryMiB = 0
  /// How much of a core reading slices takes while something is served, 0…1.
  public var loadShare = 0.1
  /// Whether `POST /faults` may make trouble: for tests and measurements only.
  public var allowFaults = false
  /// Whether sums of bundles are checked: false in tests of what they are worth only.
  public var checksums = true
  public init() {}

  public init(file: String) throws(ConfigurationError) {
    let json = try ConfigurationFile(file)
    try json.allow([
      "name", "listen", "store", "holdings", "scoring_threads", "join", "advertise", "zone", "memory_mib",
      "allow_faults", "checksums", "together_kib", "load_share", "bundles", "tls", "connections",
      "log", "slow_ms",
    ])
    name = try json.text("name") ?? name
    tls = try json.tls(isCoordinator: false)
    connections = try ConnectionLimits(json)
    try logging.read(json)
    if let listen = try json.text("listen") { self.listen = try SocketAddress(listen) }
    store = try json.text("store") ?? ""
    bundles = try json.bundles(besides: store)
    scoringThreads = try json.integer("scoring_threads", in: 0...1024) ?? 0
    togetherKiB = try json.integer("together_kib", in: 0...1 << 30)
    join = try json.texts("join").map { (text) throws(ConfigurationError) in try SocketAddress(text) }
    if let advertise = try json.text("advertise") { self.advertise = try SocketAddress(advertise) }
    zone = try json.text("zone") ?? ""
    memoryMiB = try json.integer("memory_mib", in: 0...1 << 30) ?? 0
    allowFaults = try json.boolean("allow_faults") ?? false
    checksums = try json.boolean("checksums") ?? true
    loadShare = try json.number("load_share", in: 0.01...1) ?? loadShare
    for entry in try json.objects("holdings") {
      try entry.allow(["model", "version", "shards"])
      holdings.append(
        Holding(release: try entry.release(), shards: try entry.integers("shards", in: 0...4095).map { ShardID($0) }))
    }
  }

  public func validate() throws(ConfigurationError) {
    guard !store.isEmpty || bundles != nil else { throw ConfigurationFile.noStore }
    guard join.isEmpty || advertise != nil || !["0.0.0.0", "::"].contains(listen.host) else {
      throw ConfigurationError(
        "\"advertise\" is needed: coordinators that are joined cannot reach a worker at \(listen)")
    }
  }
}

/// What is logged, and how.
public struct LoggingConfiguration: Sendable {
  public var isJSON = false
  /// Requests and legs that take so long get a line with where the time went.
  public var slow: Duration = RequestJournal.slowDefault
  public init() {}

  mutating func read(_ json: ConfigurationFile) throws(ConfigurationError) {
    switch try json.text("log") {
    case nil, "text": isJSON = false
    case "json": isJSON = true
    case let other?:
      throw ConfigurationError("\(json.place): \"log\" is \"\(other)\"; it is \"text\" or \"json\"")
    }
    if let slow = try json.integer("slow_ms", in: 0...60_000) { self.slow = .milliseconds(slow) }
  }
}

/// How many connections a port takes; nil = as usual.
public struct ConnectionLimits: Sendable, Equatable {
  public var all: Int?
  public var perPeer: Int?
  public init() {}

  /// `"connections": {"max": 1024, "per_address": 64}`
  init(_ json: ConfigurationFile) throws(ConfigurationError) {
    guard let child = try json.child("connections") else { return }
    try child.allow(["max", "per_address"])
    all = try child.integer("max", in: 1...100_000)
    perPeer = try child.integer("per_address", in: 1...100_000)
  }

  func applied(to usual: HTTPLimits) -> HTTPLimits {
    var limits = usual
    limits.connections = all ?? limits.connections
    limits.connectionsPerPeer = perPeer ?? limits.connectionsPerPeer
    return limits
  }
}

extension ConfigurationFile {
  static let noStore = ConfigurationError(
    "\"store\" is needed, the directory that holds the bundles, or \"bundles\", where to fetch them")
  /// Where bundles come from by HTTP, which cannot be given along with a store.
  func bundles(besides store: String) throws(ConfigurationError) -> BundlesConfiguration? {
    guard let child = try child("bundles") else { return nil }
    guard store.isEmpty else { throw ConfigurationError("\(place): give \"store\" or \"bundles\", not both") }
    return try BundlesConfiguration(child)
  }
  func tls(isCoordinator: Bool) throws(ConfigurationError) -> TLSConfiguration? {
    guard let child = try child("tls") else { return nil }
    return try TLSConfiguration(child, isCoordinator: isCoordinator)
  }
  func release() throws(ConfigurationError) -> ModelVersion {
    let release = ModelVersion(model: try needed("model"), version: try needed("version"))
    for name in [release.model, release.version] where !ModelVersion.isValidName(name) {
      throw ConfigurationError(
        "\(place): \"\(name)\" is not a name; allowed: 1 to 64 of A-Z a-z 0-9 . _ -, not starting with a dot")
    }
    return release
  }
}
