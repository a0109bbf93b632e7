import Foundation

// What a process of the cluster is told, as the JSON files that `shortlist coordinator` and `shortlist worker` read.
// Addresses are "host:port"; port 0 asks for a free one. What is nil is left out.

/// Where bundles come from by HTTP.
public struct BundlesFile: Codable, Sendable, Equatable {
  public var url: String
  public var cache: String
  public var cacheMiB: Int?
  public var rateMiB: Int?
  enum CodingKeys: String, CodingKey {
    case url, cache
    case cacheMiB = "cache_mib"
    case rateMiB = "rate_mib"
  }
}

/// Whom a process believes, and what it shows.
public struct TLSFile: Codable, Sendable, Equatable {
  public struct Public: Codable, Sendable, Equatable {
    public var certificate: String
    public var key: String
  }
  public var ca: String
  public var certificate: String
  public var key: String
  public var `public`: Public?
}

/// `coordinator.json`.
public struct CoordinatorFile: Codable, Sendable, Equatable {
  public struct Model: Codable, Sendable, Equatable {
    public var model: String
    public var version: String
  }
  public struct Worker: Codable, Sendable, Equatable {
    public var name: String
    public var address: String
    public init(name: String, address: String) {
      self.name = name
      self.address = address
    }
  }
  public struct Placement: Codable, Sendable, Equatable {
    public var replicas: Int
    /// Per shard who holds it; `nil` = by hashing.
    public var table: [[String]]?
  }
  /// Where the agreed document is kept.
  public struct State: Codable, Sendable, Equatable {
    public var directory: String?
    public var etcd: [String]?
    public var prefix: String?
    public init(directory: String) { self.directory = directory }
    public init(etcd: [String], prefix: String) {
      self.etcd = etcd
      self.prefix = prefix
    }
  }
  public struct Health: Codable, Sendable, Equatable {
    public var replacedAfterMilliseconds: Int
    enum CodingKeys: String, CodingKey { case replacedAfterMilliseconds = "replaced_after_ms" }
  }
  /// What may be switched off to see what it is worth.
  public struct Routing: Codable, Sendable, Equatable {
    public var hedging = true
    public var retries = true
    public var fingerprints = true
    public var slowEjection = true
    public var choice = "power_of_two"
    enum CodingKeys: String, CodingKey {
      case hedging, retries, fingerprints, choice
      case slowEjection = "slow_ejection"
    }
    public init(
      hedging: Bool = true, retries: Bool = true, fingerprints: Bool = true, slowEjection: Bool = true,
      choice: String = "power_of_two"
    ) {
      self.hedging = hedging
      self.retries = retries
      self.fingerprints = fingerprints
      self.slowEjection = slowEjection
      self.choice = choice
    }
    public static let plain = Routing(hedging: false, slowEjection: false, choice: "random")
  }
  public var name: String
  public var listen: String
  public var admin: String
  public var peers: [String]
  public var store: String?
  public var bundles: BundlesFile?
  public var models: [Model]
  public var workers: [Worker]
  public var placement: Placement?
  public var state: State?
  public var health: Health?
  public var routing: Routing?
  public var tls: TLSFile?
  public var tokens: String?
  public var slowMilliseconds: Int?
  public var log: String?

  enum CodingKeys: String, CodingKey {
    case name, listen, admin, peers, store, bundles, models, workers, placement, state, health, routing, tls, tokens
    case log
    case slowMilliseconds = "slow_ms"
  }
}

/// `w1.json`.
public struct WorkerFile: Codable, Sendable, Equatable {
  public struct Holding: Codable, Sendable, Equatable {
    public var model: String
    public var version: String
    public var shards: [Int]
  }
  public var name: String
  public var listen: String
  public var store: String?
  public var bundles: BundlesFile?
  public var holdings: [Holding]
  public var join: [String]
  public var zone: String?
  public var scoringThreads: Int
  public var togetherKiB: Int?
  public var memoryMiB: Int?
  public var loadShare: Double?
  public var allowFaults: Bool
  public var checksums: Bool?
  public var tls: TLSFile?
  public var slowMilliseconds: Int?
  public var log: String?

  enum CodingKeys: String, CodingKey {
    case name, listen, store, bundles, holdings, join, zone, tls, checksums
    case scoringThreads = "scoring_threads"
    case togetherKiB = "together_kib"
    case memoryMiB = "memory_mib"
    case loadShare = "load_share"
    case log
    case slowMilliseconds = "slow_ms"
    case allowFaults = "allow_faults"
  }
}

/// Writes a value as JSON so that a reader sees the old file or the new one, never half of it.
func writeJSON(_ value: some Encodable, to path: String) throws(HarnessError) {
  do {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    var data = try encoder.encode(value)
    data.append(UInt8(ascii: "\n"))
    try data.write(to: URL(fileURLWithPath: path), options: .atomic)
  } catch {
    throw HarnessError("cannot write \(path): \(describe(error))")
  }
}

/// One line for an error of Foundation's, whose own description runs over several.
func describe(_ error: any Error) -> String {
  let cocoa = error as NSError
  if let underlying = cocoa.userInfo[NSUnderlyingErrorKey] as? NSError, underlying.domain == NSPOSIXErrorDomain {
    return systemMessage(Int32(underlying.code))
  }
  return cocoa.localizedDescription
}
