import RankingCore

// Where a request's time went, leg by leg: made only for requests that somebody will want to look at.

/// How a leg ended.
public enum LegEnd: String, Sendable {
  case open, answered, invalid, overloaded
  /// Another leg was quicker, or nobody waited any more.
  case outrun
  /// The request's time was over.
  case expired
  case connectionLost = "connection_lost"
  case wrongVersion = "wrong_version"
  case deadlineExceeded = "deadline_exceeded"
  case workerError = "worker_error"

  init(_ failure: CallFailure) {
    switch failure {
    case .connectionLost: self = .connectionLost
    case .overloaded: self = .overloaded
    case .wrongVersion: self = .wrongVersion
    case .deadlineExceeded: self = .deadlineExceeded
    case .stale, .workerError: self = .workerError
    }
  }
}

public struct RequestTrace: Sendable {
  public struct Leg: Sendable {
    public var worker: WorkerID
    /// primary, retry or hedge.
    public var kind: String
    public var shards: Int
    /// After the request had come.
    public var sentAfter: Duration
    public var took: Duration
    public var end: LegEnd
  }
  public var token: RequestToken
  public var release: ModelVersion
  public var took: Duration
  public var legs: [Leg]

  init(_ flight: Flight, now: Instant) {
    token = flight.token
    release = flight.release
    took = now - flight.start
    legs = flight.legs.map { leg in
      Leg(
        worker: leg.worker, kind: leg.kind.rawValue, shards: leg.shards.count, sentAfter: leg.sentAt - flight.start,
        took: (leg.isOpen ? now : leg.endedAt) - leg.sentAt, end: leg.end)
    }
  }
}
