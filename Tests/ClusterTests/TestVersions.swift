import Bundles
import Foundation
import Oracle
import RankingCore
import Wire

@testable import ClusterLoad

// Further versions of a test's bundle: sound ones, and each kind of broken one.

extension TestBundle {
  enum Version: Sendable, CaseIterable {
    /// Some items moved a little, as when a model is trained anew.
    case sound
    /// Its ranker gives no item a score.
    case brokenRanker
    /// Every vector belongs to another item.
    case permuted
    /// A bit of a slice is another than when it was built.
    case flippedBit
    case otherDimension
    /// More items than fit into 1 MiB.
    case tooBig
  }

  func add(_ version: String, _ kind: Version = .sound, seed: UInt64 = 3) throws {
    var options = options
    options.release.version = version
    var generator = SeededGenerator(seed: seed)
    let place = directory + "/factors-\(version)"
    try FileManager.default.copyItem(atPath: directory + "/factors", toPath: place)
    options.factors = place
    var matrix = itemVectors
    switch kind {
    case .sound:
      for index in matrix.values.indices where generator.below(40) == 0 { matrix.values[index] += 1 }
    case .permuted:
      let order = (0..<matrix.rows).map { ($0, generator.next()) }.sorted { $0.1 < $1.1 }.map(\.0)
      matrix.values = order.flatMap { row in
        matrix.values[row * matrix.columns..<(row + 1) * matrix.columns]
      }
    case .otherDimension:
      matrix = Matrix(rows: matrix.rows, columns: 2, values: (0..<matrix.rows * 2).map { Float($0 % 7) })
      let users = Matrix(rows: users.count, columns: 2, values: (0..<users.count * 2).map { Float($0 % 5) })
      try NumPyFile.write(users, to: place + "/users.npy")
    case .tooBig:
      let rows = 40_000
      matrix = Matrix(rows: rows, columns: matrix.columns, values: (0..<rows * matrix.columns).map { Float($0 % 9) })
      try IDFile.write((0..<rows).map { "item-\($0)" }, to: place + "/items.ids")
    case .brokenRanker:
      let ranker = directory + "/broken.json"
      let json = #"{"type": "linear", "terms": [{"feature": "retrieval_score", "weight": 1e300}]}"#
      try AtomicFile.write(Array(json.utf8), to: ranker)
      if options.schema == nil {
        options.schema = directory + "/empty.json"
        try AtomicFile.write(Array("{}".utf8), to: options.schema ?? "")
      }
      options.rankers = [RankerInput(ranker)]
    case .flippedBit: break
    }
    try NumPyFile.write(matrix, to: place + "/items.npy")
    _ = try BundleBuilder(options).build(rehearse: Self.rehearsals)
    if kind == .flippedBit {
      let slice = "\(store)/home/\(version)/shard-0003.slice"
      var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: slice)))
      bytes[bytes.count / 2] ^= 4
      try Data(bytes).write(to: URL(fileURLWithPath: slice))
    }
  }
}

/// Every answer of a run, to be compared with its own version's oracle when the run is over.
final class VersionCheck {
  private let bundle: TestBundle
  private var oracles: [String: Oracle] = [:]
  private(set) var compared: [String: Int] = [:]
  init(_ bundle: TestBundle) { self.bundle = bundle }

  /// - Returns: a line for each answer that no single version gives.
  func wrong(_ answers: [SeenAnswer], of requests: [[UInt8]]) throws -> [String] {
    try answers.compactMap { answer in
      let given = try answer.body.withUnsafeBytes { try ParsedAnswer($0) }
      compared[given.version, default: 0] += 1
      let oracle = try oracles[given.version] ?? Oracle(bundle: "\(bundle.store)/home/\(given.version)")
      oracles[given.version] = oracle
      let body = requests[answer.index % requests.count]
      let request = try body.withUnsafeBytes { try PublicAPI.recommend.parse($0, requestID: "oracle") }
      var json = JSONWriter()
      let covered = (0..<given.shards).filter { !given.missing.contains($0) }
      PublicAPI.recommend.write(
        try oracle.answer(request, over: covered, candidates: given.candidates), into: &json)
      let wanted = try json.bytes.withUnsafeBytes { try ParsedAnswer($0) }
      guard given.items == wanted.items, given.coverageItems == wanted.coverageItems else {
        return "\(given.version) answered \(String(decoding: body, as: UTF8.self)) with \(given.items.prefix(3))…"
      }
      return nil
    }
  }
}
