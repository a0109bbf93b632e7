import RankingCore

// What a relay does to the bytes of one direction of one connection. Bytes are never lost or reordered: below us TCP
// would have sent them again, so that loss is a wait of what was lost and of everything behind it.
//
//     take ──► [ bytes, not before t1 ][ bytes, not before t2 ] … ──► next: what may leave now
//              t1 ≤ t2 ≤ …                                            held while the direction is cut

/// The weather on a link; everything off is a clear day.
struct LinkWeather: Sendable, Equatable {
  var delay: Duration = .zero
  var jitter: Duration = .zero
  /// Of what is read at once, this share waits for `stall`.
  var lossShare = 0.0
  var stall: Duration = .zero
  var bytesPerSecond: Double?
  var sliceMax: Int?
  /// Between two pieces.
  var gap: Duration = .zero
  /// From the coordinator to the worker, and back: nothing leaves.
  var isCutOut = false
  var isCutIn = false
  init() {}
}

/// One direction of one connection.
struct Lane: Sendable {
  enum Direction: Sendable { case out, back }
  /// So much may wait in a relay before it stops reading, as in a router's buffer.
  static let waitingMax = 1 << 20

  private struct Piece {
    var bytes: [UInt8]
    var start = 0
    var from: Duration
    var count: Int { bytes.count - start }
  }
  private let direction: Direction
  private var pieces: [Piece] = []
  private var head = 0
  /// When the next byte may leave, at the speed of the link.
  private var pacedTo: Duration = .zero
  private var lastFrom: Duration = .zero
  private(set) var waiting = 0

  init(_ direction: Direction) { self.direction = direction }

  mutating func take(
    _ bytes: [UInt8], now: Duration, _ weather: LinkWeather, _ generator: inout SeededGenerator
  ) {
    var from = now + weather.delay
    if weather.jitter > .zero { from += weather.jitter * (2 * generator.unit() - 1) }
    if weather.lossShare > 0, generator.unit() < weather.lossShare { from += weather.stall }
    // Nothing overtakes.
    lastFrom = max(lastFrom, from, now)
    pieces.append(Piece(bytes: bytes, from: lastFrom))
    waiting += bytes.count
  }

  /// What may be written now; `sent` says how much of it was.
  func next(now: Duration, _ weather: LinkWeather) -> ArraySlice<UInt8>? {
    guard head < pieces.count, !isCut(weather) else { return nil }
    let piece = pieces[head]
    guard piece.from <= now else { return nil }
    var length = piece.count
    guard pacedTo <= now else { return nil }
    if let slice = weather.sliceMax { length = min(length, max(1, slice)) }
    if let speed = weather.bytesPerSecond {
      // In steps of some 10 ms.
      length = min(length, max(1, Int(speed / 100)))
    }
    return piece.bytes[piece.start..<(piece.start + length)]
  }

  mutating func sent(_ count: Int, now: Duration, _ weather: LinkWeather) {
    guard count > 0 else { return }
    waiting -= count
    pacedTo = now + weather.gap
    if let speed = weather.bytesPerSecond { pacedTo += .seconds(Double(count) / speed) }
    if count == pieces[head].count {
      head += 1
      if head > 64, head * 2 > pieces.count {
        pieces.removeFirst(head)
        head = 0
      }
    } else {
      pieces[head].start += count
    }
  }

  /// When `next` may have something again; nil = not before something else happens.
  func wakeAt(_ weather: LinkWeather) -> Duration? {
    guard head < pieces.count, !isCut(weather) else { return nil }
    return max(pieces[head].from, pacedTo)
  }

  var isFull: Bool { waiting >= Self.waitingMax }
  var isEmpty: Bool { head == pieces.count }

  private func isCut(_ weather: LinkWeather) -> Bool { direction == .out ? weather.isCutOut : weather.isCutIn }
}
