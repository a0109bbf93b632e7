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
  /// Without any byte, without write progress, and within a request's head and body.
  public var idle: Duration = .seconds(60)
  public var writeStall: Duration = .seconds(10)
  public var request: Duration = .seconds(10)
  /// Until TLS stands and the first bytes have come, and until SETTINGS are acknowledged.
  public var handshake: Duration = .seconds(5)
  public var settings: Duration = .seconds(10)
  /// How often the server looks for what takes too long.
  public var sweep: Duration = .seconds(1)
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

extension Duration {
  /// Of limits, which are seconds.
  var limitNanoseconds: UInt64 {
    let (seconds, attoseconds) = components
    return UInt64(max(0, seconds)) * 1_000_000_000 + UInt64(max(0, attoseconds)) / 1_000_000_000
  }
}
