// What one connection may ask of this process. Origins: the failure policy, "HTTP/2 and TLS limits".

public struct HTTPLimits: Sendable {
  /// Requests open at once on one connection.
  public var concurrentStreams: UInt32
  /// Sum over a header list of name + value + 32.
  public var headerListBytes = 16 << 10
  public var bodyBytes: Int
  /// RST_STREAM frames a peer may send: burst, then per second. nil = the library's own (1000, 33/s). Coordinators
  /// cancel legs all day, so a worker must not take that for an attack.
  public var streamResets: (burst: UInt64, perSecond: UInt64)?
  /// How many requests that were taken back stop counting against `concurrentStreams`, a second.
  public var abandonedPerSecond: Double
  /// While more than this is unsent, nothing is read: a peer that never reads must not make us grow.
  public static let unsentBytesToPause = 64 << 10
  /// Responses that wait for a peer's windows, all of a connection: beyond, further requests are refused.
  public static let bufferedBytesMax = 1 << 20
  /// What may wait to be sent on a request that is a stream; its caller is told when a peer reads too slowly.
  public static let unsentStreamBytesMax = 4 << 20
  /// The same of a response that is a stream.
  public static let unsentResponseBytesMax = 64 << 10
  /// Receive windows: a body of the common size needs no round trip, and a connection's worth stays bounded.
  public static let streamWindow: UInt32 = 256 << 10
  public static let connectionWindow: Int32 = 1 << 20
  /// Seconds without any byte, without write progress, and within a request's head and body.
  public var idleSeconds: UInt64 = 60
  public static let writeStallSeconds: UInt64 = 10
  public static let requestSeconds: UInt64 = 10
  /// Seconds until TLS stands, then until the first bytes have come, and until SETTINGS are acknowledged.
  public static let handshakeSeconds: UInt64 = 5
  public static let settingsSeconds: UInt64 = 10
  public var connections = 1024
  public var connectionsPerPeer = 64

  /// Toward clients.
  public static let publicPort = HTTPLimits(
    concurrentStreams: 100, bodyBytes: 1 << 20, streamResets: nil, abandonedPerSecond: 100)
  /// Toward coordinators.
  public static let workerPort = HTTPLimits(
    concurrentStreams: 1000, bodyBytes: 16 << 20, streamResets: (burst: 20_000, perSecond: 4000),
    abandonedPerSecond: 4000)
}
