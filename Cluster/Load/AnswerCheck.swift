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

  package func add(_ end: LoadGenerator.RequestEnd) {
    guard end.number % every == 0, let sent = end.sent, !end.body.isEmpty else { return }
    let parsed = try? end.body.withUnsafeBytes { try ParsedAnswer($0) }
    let answer = SeenAnswer(
      index: end.number, sent: sent, received: end.ended, body: end.body, missing: parsed?.missing.sorted() ?? [-1])
    answers.withLock { $0.append(answer) }
  }
  package var all: [SeenAnswer] { answers.withLock { $0 } }
}

/// Counts why answers were not complete, or not given, as the answers say.
package final class TroubleLog: Sendable {
  private let counts = Mutex<[String: Int]>([:])
  package init() {}

  package func add(_ end: LoadGenerator.RequestEnd) {
    guard let response = end.response else { return }
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
///
/// What the oracle says is remembered: a run asks the same requests again and again.
package final class AnswerCheck {
  /// By version; opened when first needed.
  private var oracles: [String: Oracle] = [:]
  private let bundles: [String: String]
  private let requests: [[UInt8]]
  package private(set) var compared = 0
  private var known: [Asked: ParsedAnswer] = [:]

  private struct Asked: Hashable {
    var version: String
    var request: Int
    var candidates: Int
    var missing: [Int]
  }

  /// - Parameter bundles: directories named like their versions.
  package convenience init(_ bundles: String..., requests: [[UInt8]]) {
    self.init(bundles: bundles, requests: requests)
  }
  package init(bundles: [String], requests: [[UInt8]]) {
    self.bundles = Dictionary(
      bundles.map { (URL(fileURLWithPath: $0).lastPathComponent, $0) }, uniquingKeysWith: { _, last in last })
    self.requests = requests
  }

  /// - Returns: a line for each answer that is wrong.
  package func wrong(_ answers: [SeenAnswer]) throws -> [String] {
    try answers.compactMap { try wrong(number: $0.index, body: $0.body) }
  }

  /// - Parameter number: of the request, as the load counted.
  /// - Returns: what is wrong with this answer; nil = nothing.
  package func wrong(number: Int, body: [UInt8]) throws -> String? {
    compared += 1
    let request = number % requests.count
    var text: String { String(decoding: requests[request].prefix(80), as: UTF8.self) }
    guard let given = try? body.withUnsafeBytes({ try ParsedAnswer($0) }) else { return "not an answer, for \(text)" }
    guard let bundle = bundles[given.version] else { return "made from \(given.version), which nobody rolled out" }
    let missing = given.missing.sorted()
    guard given.missing.allSatisfy((0..<given.shards).contains) else {
      return "misses shards there are not: \(missing)"
    }
    let asked = Asked(version: given.version, request: request, candidates: given.candidates, missing: missing)
    let wanted = try known[asked] ?? answer(asked, shards: given.shards, bundle)
    known[asked] = wanted
    if given.items != wanted.items { return "other items than the oracle's for \(text)" }
    if given.answered != wanted.answered || given.coverageItems != wanted.coverageItems {
      return "coverage \(given.answered), \(given.coverageItems), not \(wanted.coverageItems), for \(text)"
    }
    return nil
  }

  /// The share of the items that an answer speaks for; 0 when it is none.
  package static func itemsShare(of body: [UInt8]) -> Double {
    (try? body.withUnsafeBytes { try ParsedAnswer($0) })?.coverageItems ?? 0
  }

  private func answer(_ asked: Asked, shards: Int, _ bundle: String) throws -> ParsedAnswer {
    let oracle = try oracles[asked.version] ?? Oracle(bundle: bundle)
    oracles[asked.version] = oracle
    let request = try requests[asked.request].withUnsafeBytes {
      try PublicAPI.recommend.parse($0, requestID: "oracle")
    }
    let covered = (0..<shards).filter { !asked.missing.contains($0) }
    var json = JSONWriter()
    PublicAPI.recommend.write(
      try oracle.answer(request, over: covered, candidates: asked.candidates), into: &json)
    return try json.bytes.withUnsafeBytes { try ParsedAnswer($0) }
  }
}
