import Foundation

/// What a coordinator says of the cluster: `GET /v1/cluster` on its admin address.
public struct ClusterReport: Codable, Sendable, Equatable {
  public struct Release: Codable, Sendable, Equatable {
    public var model: String
    public var version: String
    public var shards: Int
    /// Of the bundle the coordinator read, in hexadecimal; 0 = unknown.
    public var fingerprint: String
    public var published: Bool
    /// Ready replicas that may be asked, by shard.
    public var replicas: [Int]
  }
  public struct Holding: Codable, Sendable, Equatable {
    public var model: String
    public var version: String
    public var ready: [Int]
    public var loading: [Int]
    public var failed: [Int]
    /// Of the bundle that the ready ones come from.
    public var fingerprint: String
  }
  public struct Worker: Codable, Sendable, Equatable {
    public var name: String
    public var address: String
    /// joining, alive, suspect, down or gone.
    public var state: String
    public var zone: String
    public var draining: Bool
    public var ejected: Bool
    public var latencyMilliseconds: Double
    public var hedgeDelayMilliseconds: Double?
    public var admits: Int
    public var heldBytes: Int
    public var holdings: [Holding]
    /// The shards it has ready, of all releases.
    public var ready: [Int] { holdings.flatMap(\.ready) }

    enum CodingKeys: String, CodingKey {
      case name, address, state, zone, draining, ejected, admits, holdings
      case latencyMilliseconds = "latency_ms"
      case hedgeDelayMilliseconds = "hedge_delay_ms"
      case heldBytes = "held_bytes"
    }
  }
  public var drives: Bool
  public var releases: [Release]
  public var workers: [Worker]

  public func worker(_ name: String) -> Worker? { workers.first { $0.name == name } }
  /// The ready replicas of the shard that has fewest, of all releases; 0 when there is none.
  public var replicasMin: Int { releases.flatMap(\.replicas).min() ?? 0 }

  /// Asks for it.
  /// - Parameter admin: the URL of a coordinator's admin address.
  public static func fetch(_ admin: String, limit: Duration = .seconds(2)) throws(HarnessError) -> ClusterReport {
    var http = PlainHTTP(try ServerURL(admin), limit: limit)
    let response = try http.get("/v1/cluster")
    guard response.status == 200 else { throw HarnessError("\(admin)/v1/cluster answers \(response.status)") }
    do {
      return try JSONDecoder().decode(ClusterReport.self, from: Data(response.body))
    } catch {
      throw HarnessError("\(admin)/v1/cluster is not what it should be: \(error)")
    }
  }
}
