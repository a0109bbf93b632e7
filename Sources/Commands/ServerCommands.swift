import Servers
import Terminal

// The two long-running roles. Everything they do is in Servers; here their configuration is found.

extension Command {
  static let coordinator = Command(
    name: "coordinator",
    summary: "Answer requests by asking workers",
    discussion: """
      The configuration:
        {"name": "c1", "listen": "127.0.0.1:8080", "store": "/srv/bundles",
         "models": [{"model": "home", "version": "v1"}],
         "workers": [{"name": "w1", "address": "127.0.0.1:9001"}]}
      Instead of "workers", or besides: "admin": "127.0.0.1:8081" (where workers join and GET /v1/cluster shows what it
      sees), "peers": ["host:port"] (the other coordinators' admin addresses), "discover": ["name:port"] (DNS),
      "placement": {"replicas": 2} (on the one that drives), "health": {"replaced_after_ms": 30000}.
      "state": {"directory": "DIR"}, or {"etcd": ["host:2379"], "prefix": "/shortlist/shop"} for several coordinators,
      keeps the agreed document for `shortlist rollout`; "models" is then what it begins with, and "placement" stands on
      all of them; its "table": [["w1", "w2"], …] names each shard's workers instead of hashing.
      Instead of "store": "bundles": {"url": "http://host:port/path", "cache": "DIR", "cache_mib": 16384,
      "rate_mib": 50} fetches what it needs from a web server.
      "tls": {"ca": F, "certificate": F, "key": F} = mutual TLS between nodes, admin port included; in it "public":
      {"certificate": F, "key": F} = TLS on the public port. "tokens": F (`shortlist token`). SIGHUP reads all again.
      "connections": {"max": 1024, "per_address": 64}; "slow_ms": 100, from where on requests are logged with their
      legs; "log": "json".
      "busy_poll_us": 60 (0...1000; 0 = sleep at once, where processor time is paid for by a quota).
      To see what they are worth: "routing": {"hedging": false, "retries": false, "slow_ejection": false,
      "choice": "random"}.
      Prints "ready URL" when it serves.
      """,
    example: "shortlist coordinator --config coordinator.json --listen 127.0.0.1:8080",
    options: serverOptions,
    signals: .own,
    run: {
      try ServerRoles.coordinator(
        config: $0.optional("config"), listen: $0.optional("listen"), store: $0.optional("store"))
    })

  static let worker = Command(
    name: "worker",
    summary: "Hold shards and score them",
    discussion: """
      The configuration:
        {"name": "w1", "listen": "127.0.0.1:9001", "store": "/srv/bundles", "scoring_threads": 1,
         "holdings": [{"model": "home", "version": "v1", "shards": [0, 3]}]}
      Instead of "holdings": "join": ["127.0.0.1:8081"] (coordinators' admin addresses), with "advertise": "host:port",
      "zone", "memory_mib". "load_share": 0.1 = how much of a core reading slices takes while something is served.
      Instead of "store": "bundles": {"url": "http://host:port/path", "cache": "DIR", "cache_mib": 16384,
      "rate_mib": 50} fetches what it needs from a web server into a directory of its own.
      "tls": {"ca": F, "certificate": F, "key": F} = mutual TLS, for coordinators and operators; SIGHUP reads it again.
      "connections": {"max": 1024, "per_address": 64}, "slow_ms": 100, "log": "json".
      For tests only: "allow_faults": true, then POST /faults {"delay_ms": 100, "share": 0.01, "seed": 1} delays that
      share of its replies, with "version": "v2" those of one version.
      Prints "ready URL" when it serves.
      """,
    example: "shortlist worker --config w1.json --listen 127.0.0.1:9001",
    options: serverOptions,
    signals: .own,
    run: {
      try ServerRoles.worker(config: $0.optional("config"), listen: $0.optional("listen"), store: $0.optional("store"))
    })

  private static let serverOptions: [Option] = [
    .text("config", "FILE", "its configuration, JSON (see below)").required,
    .text("listen", "HOST:PORT", "where to listen; wins over the file's"),
    .text("store", "DIR", "the directory that holds the bundles; wins over the file's"),
  ]
}

/// The door to Servers.
enum ServerRoles {
  static func coordinator(config: String?, listen: String?, store: String?) throws -> Int32 {
    var configuration = try CoordinatorConfiguration(file: config ?? "")
    if let listen { configuration.listen = try SocketAddress(listen) }
    if let store { (configuration.store, configuration.bundles) = (store, nil) }
    return try CoordinatorServer.run(configuration)
  }
  static func worker(config: String?, listen: String?, store: String?) throws -> Int32 {
    var configuration = try WorkerConfiguration(file: config ?? "")
    if let listen { configuration.listen = try SocketAddress(listen) }
    if let store { (configuration.store, configuration.bundles) = (store, nil) }
    return try WorkerServer.run(configuration)
  }
}
