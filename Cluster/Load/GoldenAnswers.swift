import Bundles
import Foundation
import Oracle
import RankingCore
import Terminal
import Wire

/// The requests that a bundle brings along: some users' with the right answers, by the oracle, for a cluster to check
/// itself by before anybody gets the version, and some more to warm up with.
///
///     {"user":"17850","k":20,"expect":[["85123A",3.1415925],…]}
///     {"user":"13047","k":20}
package final class GoldenAnswers {
  private static let requestsMax = 32
  private static let goldenMax = 16
  /// For every request the oracle scores every item, and of a network uses every weight for every candidate, at some
  /// ten million numbers a second.
  private static let numbersMax = 200_000_000
  private static let k = 20
  /// Whether no golden answer holds an item.
  package private(set) var isEmpty = false
  package init() {}

  package func lines(of directory: String) throws -> [UInt8] {
    let bundle = try Bundles.Bundle.open(directory)
    let manifest = bundle.manifest
    let text = String(decoding: try bundle.warmup(), as: UTF8.self)
    let users = text.split(separator: "\n").prefix(Self.requestsMax)
    let candidates = min(manifest.items, manifest.shards * RequestLimit.candidatesDefault)
    let networks = manifest.weightedRankers.map(\.file).filter { $0.hasSuffix(".safetensors") }
    let weights = manifest.files.filter { networks.contains($0.name) }.reduce(0) { $0 + $1.size / 4 }
    let work = max(1, manifest.items * manifest.dimension + candidates * weights)
    let golden = min(Self.goldenMax, max(2, Self.numbersMax / work), users.count)
    let oracle = try Oracle(bundle: directory)
    isEmpty = golden > 0
    var bytes: [UInt8] = []
    for (index, line) in users.enumerated() {
      guard var object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any] else { continue }
      object["k"] = Self.k
      if index < golden {
        let body = [UInt8](try JSONSerialization.data(withJSONObject: object))
        let answer = try oracle.answer(try PublicAPI.recommend.parse(body, requestID: "golden"))
        if !answer.entries.isEmpty { isEmpty = false }
        // A float32 is the nearest one to its value as a double.
        object["expect"] = answer.entries.map { [answer.id($0), Double($0.item.score)] as [Any] }
      }
      bytes += [UInt8](try JSONSerialization.data(withJSONObject: object, options: [.sortedKeys]))
      bytes.append(UInt8(ascii: "\n"))
    }
    return bytes
  }
}
