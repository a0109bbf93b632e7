import Nodes
import RankingCore
import Routing
import Transport
import Wire

// Requests that somebody will ask about: those that were slow, failed, or missed shards. Each gets a line in the log,
// JSON whatever the other lines are, as long as there are not too many; the slowest of the last minutes are kept for
// GET /debug/requests. The rest costs a comparison each.
//
//     answered in less than both ─► nothing
//     slower than the quickest of the 32 kept ─► kept, with its legs
//     slower than "slow_ms", or failed        ─► a line

struct RequestJournal {
  static let keptMax = 32
  static let keptFor: Duration = .seconds(600)
  static let slowDefault: Duration = .milliseconds(100)

  private struct Entry {
    var at: Instant
    var took: Duration
    var json: [UInt8]
  }
  private let process: String
  private let slow: Duration
  private var kept: [Entry] = []
  private var limit = LineLimit(perSecond: 50)

  init(process: String, slow: Duration) {
    self.process = process
    self.slow = slow
  }

  /// From where on a request is worth its legs; what is below would neither be kept nor be logged.
  func tracesFrom(now: Instant) -> Duration {
    guard kept.count >= Self.keptMax, let last = kept.last, kept.allSatisfy({ now - $0.at < Self.keptFor }) else {
      return .zero
    }
    return min(slow, last.took)
  }

  /// - Parameter json: writes the request as an object's fields.
  /// - Returns: the line to log, if there is to be one.
  mutating func record(
    took: Duration, isSound: Bool, now: Instant, json fields: (inout JSONWriter) -> Void
  ) -> [UInt8]? {
    let isKept = keep(took, now)
    let line = !isSound || took >= slow ? limit.passes(now) : nil
    guard isKept || line != nil else { return nil }
    let json = Log.object(process) { json in
      fields(&json)
      LineLimit.write(unsaid: line ?? 0, into: &json)
    }
    if isKept { insert(Entry(at: now, took: took, json: json)) }
    return line == nil ? nil : json
  }

  private mutating func keep(_ took: Duration, _ now: Instant) -> Bool {
    kept.removeAll { now - $0.at >= Self.keptFor }
    return kept.count < Self.keptMax || took > (kept.last?.took ?? .zero)
  }
  private mutating func insert(_ entry: Entry) {
    let place = kept.firstIndex { $0.took < entry.took } ?? kept.count
    kept.insert(entry, at: place)
    if kept.count > Self.keptMax { kept.removeLast() }
  }

  /// `GET /debug/requests`: the slowest first.
  func page(now: Instant) -> [UInt8] {
    var json = JSONWriter()
    json.literal("{\"requests\":[")
    for (index, entry) in kept.filter({ now - $0.at < Self.keptFor }).enumerated() {
      if index > 0 { json.literal(",") }
      json.bytes += entry.json
    }
    json.literal("]}\n")
    return json.bytes
  }
}

extension RequestTrace {
  /// `,"legs":[…]`
  func writeLegs(into json: inout JSONWriter, names: (WorkerID) -> String) {
    json.literal(",\"legs\":[")
    for (index, leg) in legs.enumerated() {
      json.literal(index == 0 ? "{\"worker\":" : ",{\"worker\":")
      json.string(names(leg.worker))
      json.literal(",\"kind\":")
      json.string(leg.kind)
      json.literal(",\"shards\":")
      json.number(leg.shards)
      json.literal(",\"sent_after_ms\":")
      json.milliseconds(leg.sentAfter.milliseconds)
      json.literal(",\"took_ms\":")
      json.milliseconds(leg.took.milliseconds)
      json.literal(",\"end\":")
      json.string(leg.end.rawValue)
      json.literal("}")
    }
    json.literal("]")
  }
}
