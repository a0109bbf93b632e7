import Bundles
import Foundation
import RankingCore

// The catalogue that is measured with: made from a seed, and large enough that scoring it, not moving its answers, is
// what takes the time.

package struct SyntheticBundle: Sendable {
  /// How large a catalogue is.
  package struct Size: Sendable {
    package var items: Int
    package var users: Int
    package var dimension = 64
    /// Scoring it is what takes the time.
    package static let measured = Size(items: 100_000, users: 2_000)
    /// The oracle can answer every request that was sent.
    package static let checked = Size(items: 12_000, users: 500, dimension: 32)
  }
  package static let shards = 16
  package static let k = 20
  package let size: Size
  package let store: String
  private let items: Matrix
  package let release = ModelVersion(model: "home", version: "v1")
  /// Another version of the same size; see `addVersion`.
  package static let other = "v2"
  private let directory: String
  package var path: String { place(of: release.version) }
  package func place(of version: String) -> String { "\(store)/\(release.model)/\(version)" }

  /// Builds it in a directory.
  package init(in directory: String, _ size: Size = .measured, kind: Kind = .sound) throws {
    self.directory = directory
    self.size = size
    store = directory + "/store"
    let factors = directory + "/factors"
    try FileManager.default.createDirectory(atPath: factors, withIntermediateDirectories: true)
    var generator = SeededGenerator(seed: 1)
    func matrix(_ rows: Int) -> Matrix {
      // The sum of three uniform numbers, the later dimensions smaller: like factors, some directions matter more.
      let values = (0..<rows * size.dimension).map { index in
        let sum = generator.unit() + generator.unit() + generator.unit() - 1.5
        return Float(sum / (1 + Double(index % size.dimension) / 16))
      }
      return Matrix(rows: rows, columns: size.dimension, values: values)
    }
    var items = matrix(size.items)
    if kind == .permuted { Self.permute(&items, &generator) }
    try NumPyFile.write(items, to: factors + "/items.npy")
    try NumPyFile.write(matrix(size.users), to: factors + "/users.npy")
    try IDFile.write((0..<size.items).map { "item-\($0)" }, to: factors + "/items.ids")
    try IDFile.write((0..<size.users).map { "user-\($0)" }, to: factors + "/users.ids")
    var history = "user,item\n"
    for user in 0..<size.users {
      for _ in 0..<generator.below(60) { history += "user-\(user),item-\(generator.below(size.items))\n" }
    }
    try AtomicFile.write(Array(history.utf8), to: directory + "/history.csv")
    self.items = items
    try build(release, factors)
  }

  package enum Kind {
    /// Each item moved a little, as when a model is trained anew.
    case sound
    /// Every vector belongs to another item.
    case permuted
    /// A network that takes some 30 us a row and gives the retrieval score back: right, and slow.
    case slow
  }

  package func addVersion(_ version: String = Self.other, _ kind: Kind = .sound) throws {
    let place = place(of: version)
    guard !FileManager.default.fileExists(atPath: place) else { return }
    let factors = directory + "/factors-\(version)"
    try FileManager.default.copyItem(atPath: directory + "/factors", toPath: factors)
    var generator = SeededGenerator(seed: 4)
    var matrix = items
    var network: String?
    switch kind {
    case .sound:
      for index in matrix.values.indices { matrix.values[index] += Float(generator.unit() - 0.5) * 0.05 }
    case .permuted:
      Self.permute(&matrix, &generator)
    case .slow:
      network = directory + "/slow.safetensors"
      try AtomicFile.write(try Self.slowNetwork(width: 1280), to: network ?? "")
    }
    try NumPyFile.write(matrix, to: factors + "/items.npy")
    try build(ModelVersion(model: release.model, version: version), factors, network: network)
  }

  private static func permute(_ matrix: inout Matrix, _ generator: inout SeededGenerator) {
    for row in stride(from: matrix.rows - 1, to: 0, by: -1) {
      let other = generator.below(row + 1)
      for column in 0..<matrix.columns {
        matrix.values.swapAt(row * matrix.columns + column, other * matrix.columns + column)
      }
    }
  }

  /// x = relu(x) − relu(−x), among many units that are zero.
  private static func slowNetwork(width: Int) throws -> [UInt8] {
    var data: [UInt8] = []
    var header: [String: Any] = [:]
    func tensor(_ name: String, _ shape: [Int], _ values: [Int: Float]) {
      let start = data.count
      for index in 0..<shape.reduce(1, *) {
        withUnsafeBytes(of: (values[index] ?? 0).bitPattern.littleEndian) { data += $0 }
      }
      header[name] = ["dtype": "F32", "shape": shape, "data_offsets": [start, data.count]] as [String: Any]
    }
    tensor("in", [width, 1], [0: 1, 1: -1])
    tensor("middle", [width, width], [0: 1, width + 1: 1])
    tensor("out", [1, width], [0: 1, 1: -1])
    let layers = ["in", "middle", "out"].map { "{\"type\": \"dense\", \"weight\": \"\($0)\"}" }
    let layout = layers.joined(separator: ", {\"type\": \"relu\"}, ")
    header["__metadata__"] = ["shortlist": "{\"features\": [\"retrieval_score\"], \"layers\": [\(layout)]}"]
    let json = try JSONSerialization.data(withJSONObject: header, options: [.sortedKeys])
    return withUnsafeBytes(of: UInt64(json.count).littleEndian) { Array($0) } + json + data
  }

  private func build(_ release: ModelVersion, _ factors: String, network: String? = nil) throws {
    var options = BundleOptions()
    options.factors = factors
    options.history = directory + "/history.csv"
    options.store = store
    options.release = release
    options.shards = Self.shards
    if let network {
      options.schema = directory + "/schema.json"
      try AtomicFile.write(Array("{}".utf8), to: options.schema ?? "")
      options.rankers = [RankerInput(network)]
    }
    _ = try BundleBuilder(options).build(rehearse: GoldenAnswers().lines)
  }

  /// Requests for customers, every other one without what they have had; with `mixed` some by recent items and some by
  /// vector.
  package func requests(_ count: Int = 1000, mixed: Bool = false) -> [[UInt8]] {
    var generator = SeededGenerator(seed: 2)
    return (0..<count).map { index in
      var subject = "\"user\":\"user-\(generator.below(size.users))\""
      if mixed, index % 10 == 8 {
        let recent = (0..<5).map { _ in "\"item-\(generator.below(size.items))\"" }.joined(separator: ",")
        subject = "\"recent_items\":[\(recent)]"
      } else if mixed, index % 10 == 9 {
        let vector = (0..<size.dimension).map { _ in "\(Float(generator.unit()) - 0.5)" }.joined(separator: ",")
        subject = "\"vector\":[\(vector)]"
      }
      let seen = index % 2 == 0 && subject.hasPrefix("\"user") ? ",\"exclude_seen\":true" : ""
      return Array("{\(subject),\"k\":\(Self.k)\(seen)}".utf8)
    }
  }
}
