import Bundles
import Foundation
import RankingCore
import Scoring
import Wire

/// The way from a bundle to what the nodes work with.
enum ReleaseLoading {
  static func release(_ id: ModelVersion, from source: BundleSource) throws -> Release {
    try source.with(.users, of: id) { bundle in
      var release = try bundle.release()
      release.rehearsals = try rehearsals(try bundle.warmup(), of: bundle.path)
      return release
    }
  }

  /// A version without slices yet; its manifest and ranker are checked.
  static func hosted(_ id: ModelVersion, from source: BundleSource) throws -> HostedRelease {
    try source.with(.rankers, of: id) { bundle in
      HostedRelease(
        release: id, shardCount: bundle.manifest.shards, dimension: bundle.manifest.dimension,
        ranker: try bundle.ranker(), fingerprint: bundle.manifest.fingerprint)
    }
  }

  static func slice(_ id: ModelVersion, _ shard: ShardID, from source: BundleSource) throws -> Slice {
    try source.with(.slice(shard), of: id) { try $0.loadSlice(shard) }
  }

  /// `warmup.jsonl`: requests as clients make them, some with `"expect": [["id", score], …]`.
  private static func rehearsals(_ lines: [UInt8], of path: String) throws -> [Rehearsal] {
    try lines.split(separator: UInt8(ascii: "\n")).enumerated().map { index, line in
      func wrong(_ what: String) -> InputError {
        InputError(file: "\(path)/warmup.jsonl", "line \(index + 1): \(what)")
      }
      guard var object = try? JSONSerialization.jsonObject(with: Data(line)) as? [String: Any] else {
        throw wrong("is not a JSON object")
      }
      let expected = try object.removeValue(forKey: "expect").map { value in
        guard let pairs = value as? [[Any]] else { throw wrong("\"expect\" is not a list of pairs") }
        return try pairs.map { pair in
          guard pair.count == 2, let id = pair[0] as? String, let score = pair[1] as? NSNumber else {
            throw wrong("\"expect\" has something else than [\"id\", score]")
          }
          return Rehearsal.Expected(id: id, score: Float(score.doubleValue))
        }
      }
      let body = [UInt8](try JSONSerialization.data(withJSONObject: object))
      do {
        let request = try PublicAPI.recommend.parse(body, requestID: "rehearsal")
        return Rehearsal(request: request, expected: expected)
      } catch { throw wrong("\(error)") }
    }
  }
}
