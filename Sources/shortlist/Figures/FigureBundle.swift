import Bundles
import Foundation
import RankingCore

// The catalogue that is measured with: made from a seed, and large enough that scoring it, not moving its answers, is
// what takes the time.

struct FigureBundle: Sendable {
  static let items = 100_000
  static let users = 2_000
  static let dimension = 64
  static let shards = 16
  static let k = 20
  let store: String
  private let items: Matrix
  let release = ModelVersion(model: "home", version: "v1")
  /// Another version of the same size; see `addVersion`.
  static let other = "v2"
  private let directory: String
  var path: String { "\(store)/\(release.model)/\(release.version)" }

  /// Builds it in a directory.
  init(in directory: String) throws {
    self.directory = directory
    store = directory + "/store"
    let factors = directory + "/factors"
    try FileManager.default.createDirectory(atPath: factors, withIntermediateDirectories: true)
    var generator = SeededGenerator(seed: 1)
    func matrix(_ rows: Int) -> Matrix {
      // The sum of three uniform numbers, the later dimensions smaller: like factors, some directions matter more.
      let values = (0..<rows * Self.dimension).map { index in
        let sum = generator.unit() + generator.unit() + generator.unit() - 1.5
        return Float(sum / (1 + Double(index % Self.dimension) / 16))
      }
      return Matrix(rows: rows, columns: Self.dimension, values: values)
    }
    let items = matrix(Self.items)
    try NumPyFile.write(items, to: factors + "/items.npy")
    try NumPyFile.write(matrix(Self.users), to: factors + "/users.npy")
    try IDFile.write((0..<Self.items).map { "item-\($0)" }, to: factors + "/items.ids")
    try IDFile.write((0..<Self.users).map { "user-\($0)" }, to: factors + "/users.ids")
    var history = "user,item\n"
    for user in 0..<Self.users {
      for _ in 0..<generator.below(60) { history += "user-\(user),item-\(generator.below(Self.items))\n" }
    }
    try AtomicFile.write(Array(history.utf8), to: directory + "/history.csv")
    self.items = items
    try build(release, factors)
  }

  /// The same items, each moved a little, as when a model is trained anew.
  func addVersion() throws {
    let factors = directory + "/factors-\(Self.other)"
    try FileManager.default.copyItem(atPath: directory + "/factors", toPath: factors)
    var generator = SeededGenerator(seed: 4)
    var matrix = items
    for index in matrix.values.indices { matrix.values[index] += Float(generator.unit() - 0.5) * 0.05 }
    try NumPyFile.write(matrix, to: factors + "/items.npy")
    try build(ModelVersion(model: release.model, version: Self.other), factors)
  }

  private func build(_ release: ModelVersion, _ factors: String) throws {
    var options = BundleOptions()
    options.factors = factors
    options.history = directory + "/history.csv"
    options.store = store
    options.release = release
    options.shards = Self.shards
    _ = try BundleBuilder(options).build(rehearse: GoldenAnswers().lines)
  }

  /// Requests for customers, every other one without what they have had; with `mixed` some by recent items and some by
  /// vector.
  static func requests(_ count: Int = 1000, mixed: Bool = false) -> [[UInt8]] {
    var generator = SeededGenerator(seed: 2)
    return (0..<count).map { index in
      var subject = "\"user\":\"user-\(generator.below(users))\""
      if mixed, index % 10 == 8 {
        let recent = (0..<5).map { _ in "\"item-\(generator.below(items))\"" }.joined(separator: ",")
        subject = "\"recent_items\":[\(recent)]"
      } else if mixed, index % 10 == 9 {
        let vector = (0..<dimension).map { _ in "\(Float(generator.unit()) - 0.5)" }.joined(separator: ",")
        subject = "\"vector\":[\(vector)]"
      }
      let seen = index % 2 == 0 && subject.hasPrefix("\"user") ? ",\"exclude_seen\":true" : ""
      return Array("{\(subject),\"k\":\(k)\(seen)}".utf8)
    }
  }
}
