import Bundles
import Foundation
import HTTP2
import Oracle
import RankingCore
import Synchronization
import Wire

/// An answer as it came.
package struct SeenAnswer: Sendable {
  /// The request's number.
  package var index: Int
  /// As `Monotonic` counts.
  package var sent: Duration
  package var received: Duration
  package var body: [UInt8]
  /// The shards it says it misses, ascending.
  package var missing: [Int]
}

/// Keeps the answers of a run, or every so manieth of them.
package final class AnswerLog: Sendable {
  private let every: Int
  private let answers = Mutex<[SeenAnswer]>([])
  package init(every: Int = 1) { self.every = every }

  package func add(_ index: Int, sent: Duration, _ response: ClientResponse) {
    guard index % every == 0, response.status == 200 else { return }
    let parsed = try? response.body.withUnsafeBytes { try ParsedAnswer($0) }
    let answer = SeenAnswer(
      index: index, sent: sent, received: Monotonic.now, body: response.body, missing: parsed?.missing.sorted() ?? [-1])
    answers.withLock { $0.append(answer) }
  }
  package var all: [SeenAnswer] { answers.withLock { $0 } }
}

/// Counts why answers were not complete, or not given, as the answers say.
package final class TroubleLog: Sendable {
  private let counts = Mutex<[String: Int]>([:])
  package init() {}

  package func add(_ response: ClientResponse) {
    guard response.status != 200 || LoadGenerator.isComplete(response.body) != true else { return }
    let object = (try? JSONSerialization.jsonObject(with: Data(response.body))) as? [String: Any]
    let missing = (object?["coverage"] as? [String: Any])?["missing"] as? [[String: Any]]
    let error = (object?["error"] as? [String: Any])?["message"] as? String
    let reasons = Set((missing ?? []).compactMap { $0["reason"] as? String }).sorted().joined(separator: " + ")
    counts.withLock { $0[error.map { "\($0.prefix(140))" } ?? "missing: \(reasons)", default: 0] += 1 }
  }
  /// The commonest first.
  package var notes: [String] {
    let sorted = counts.withLock { $0 }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
    return sorted.prefix(6).map { "\($0.value) × \($0.key)" }
  }
}

extension Array {
  /// At most `count` of them, evenly spread.
  package func spread(_ count: Int) -> [Element] {
    self.count <= count ? self : (0..<count).map { self[$0 * self.count / count] }
  }
}

/// Compares answers with what the oracle says of the same request, over the same shards and with the same R.
package final class AnswerCheck {
  /// By version.
  private let oracles: [String: Oracle]
  private let requests: [[UInt8]]
  package private(set) var compared = 0

  package init(_ bundles: String..., mixed: Bool = false) throws {
    oracles = Dictionary(
      uniqueKeysWithValues: try bundles.map {
        (URL(fileURLWithPath: $0).lastPathComponent, try Oracle(bundle: $0))
      })
    requests = SyntheticBundle.requests(mixed: mixed)
  }

  /// - Returns: a line for each answer that is wrong.
  package func wrong(_ answers: [SeenAnswer]) throws -> [String] {
    try answers.compactMap { answer in
      compared += 1
      let body = requests[answer.index % requests.count]
      let text = String(decoding: body.prefix(80), as: UTF8.self)
      let given = try answer.body.withUnsafeBytes { try ParsedAnswer($0) }
      guard let oracle = oracles[given.version] else { return "made from \(given.version), which nobody rolled out" }
      let request = try body.withUnsafeBytes { try PublicAPI.recommend.parse($0, requestID: "oracle") }
      let covered = (0..<given.shards).filter { !given.missing.contains($0) }
      var json = JSONWriter()
      PublicAPI.recommend.write(
        try oracle.answer(request, over: covered, candidates: given.candidates), into: &json)
      let wanted = try json.bytes.withUnsafeBytes { try ParsedAnswer($0) }
      if given.items != wanted.items { return "other items than the oracle's for \(text)" }
      if given.answered != wanted.answered || given.coverageItems != wanted.coverageItems {
        return "coverage \(given.answered), \(given.coverageItems), not \(wanted.coverageItems), for \(text)"
      }
      return nil
    }
  }
}
