// What a peer may do to us beside asking: every kind of cheap frame that makes work has a budget, and whoever exceeds
// one is told to calm down and cut off. An honest client comes nowhere near any of them.
//
//     tokens ── taken one a frame ──► 0: cut off
//       ▲ so many a second, never more than the burst
//
// Origins: the failure policy, "HTTP/2 and TLS limits"; the attacks have names, such as rapid reset (CVE-2023-44487),
// MadeYouReset (CVE-2025-8671), ping, settings and empty-frames flood (CVE-2019-9512, -9515, -9518).

/// A limit by the name that metrics and logs use.
public enum HTTPLimit: String, Sendable, CaseIterable {
  case headerList = "header_list"
  case body
  case streams
  /// Requests that were taken back still count for a while.
  case abandoned
  /// Streams that we had to reset, and frames that are none.
  case invalid
  case pings
  case settings
  case emptyData = "empty_data"
  case priorities
  case buffered
  case handshakeTime = "handshake_time"
  case settingsTime = "settings_time"
  case requestTime = "request_time"
  case writeStall = "write_stall"
  case connections
  case connectionsPerPeer = "connections_per_peer"
}

/// Of one thread; `now` in nanoseconds of any clock that never goes back.
struct TokenBucket {
  let burst: Double
  let perSecond: Double
  private var tokens: Double
  private var last: UInt64 = 0

  init(burst: Double, perSecond: Double) {
    self.burst = burst
    self.perSecond = perSecond
    tokens = burst
  }

  /// - Returns: false when there is none left.
  mutating func take(now: UInt64) -> Bool {
    fill(now)
    guard tokens >= 1 else { return false }
    tokens -= 1
    return true
  }
  /// How many are taken.
  mutating func spent(now: UInt64) -> Double {
    fill(now)
    return burst - tokens
  }
  private mutating func fill(_ now: UInt64) {
    guard now > last else { return }
    // The first time finds it full.
    if last > 0 { tokens = min(burst, tokens + Double(now - last) * perSecond / 1e9) }
    last = now
  }
}

/// What one connection's peer has done so far.
struct PeerConduct {
  private var invalid = TokenBucket(burst: 100, perSecond: 10)
  private var pings = TokenBucket(burst: 10, perSecond: 5)
  private var settings = TokenBucket(burst: 10, perSecond: 1)
  private var abandoned: TokenBucket
  private var priorities = 0
  private var streamsOpened = 0
  private var emptyInARow = 0
  private var longHeaders = 0
  private static let emptyInARowMax = 10
  private static let prioritiesPerStream = 100
  private static let longHeadersMax = 1

  init(_ limits: HTTPLimits) {
    abandoned = TokenBucket(burst: Double(limits.concurrentStreams), perSecond: limits.abandonedPerSecond)
  }

  mutating func opened() { streamsOpened += 1 }

  // Each says which limit is exceeded now, if one is.

  /// A frame that is none, or a stream that we have to reset.
  mutating func invalid(_ now: UInt64) -> HTTPLimit? { invalid.take(now: now) ? nil : .invalid }
  mutating func ping(_ now: UInt64) -> HTTPLimit? { pings.take(now: now) ? nil : .pings }
  mutating func settings(_ now: UInt64) -> HTTPLimit? { settings.take(now: now) ? nil : .settings }
  mutating func priority() -> HTTPLimit? {
    priorities += 1
    return priorities > Self.prioritiesPerStream * (1 + streamsOpened) ? .priorities : nil
  }
  mutating func data(isEmpty: Bool) -> HTTPLimit? {
    emptyInARow = isEmpty ? emptyInARow + 1 : 0
    return emptyInARow > Self.emptyInARowMax ? .emptyData : nil
  }
  mutating func headersTooLong() -> HTTPLimit? {
    longHeaders += 1
    return longHeaders > Self.longHeadersMax ? .headerList : nil
  }

  /// A request was taken back while it was being answered.
  mutating func abandoned(_ now: UInt64) { _ = abandoned.take(now: now) }
  /// How many requests that were taken back count as running still.
  mutating func stillRunning(_ now: UInt64) -> Int { Int(abandoned.spent(now: now)) }
}
