import Foundation
import RankingCore
import Scoring
import Testing

@testable import Bundles

/// A bundle of thirty items, built anew for each test, in a directory that goes with it.
final class SmallBundle {
  let directory: String
  var options = BundleOptions()
  var path: String { directory + "/store/home/v1" }
  static let items = (0..<30).map { "item-\($0)" }
  static let users = (0..<7).map { "user-\($0)" }

  init() throws {
    directory = FileManager.default.temporaryDirectory.path + "/shortlist-bundle-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    try NumPyFile.write(Self.matrix(30, seed: 1), to: directory + "/items.npy")
    try NumPyFile.write(Self.matrix(7, seed: 2), to: directory + "/users.npy")
    try IDFile.write(Self.items, to: directory + "/items.ids")
    try IDFile.write(Self.users, to: directory + "/users.ids")
    try write("history.csv", "user,item\nuser-1,item-3\nuser-1,item-4\nuser-1,item-3\nghost,item-1\n")
    try write("columns.csv", "item,price,kind\nitem-0,2.5,a\nitem-1,,b\n")
    options.factors = directory
    options.history = directory + "/history.csv"
    options.itemColumns = directory + "/columns.csv"
    options.store = directory + "/store"
    options.release = ModelVersion(model: "home", version: "v1")
    options.shards = 3
  }
  deinit { try? FileManager.default.removeItem(atPath: directory) }
  func write(_ name: String, _ text: String) throws {
    try AtomicFile.write(Array(text.utf8), to: directory + "/" + name)
  }

  static func matrix(_ rows: Int, seed: UInt64) -> Matrix {
    var generator = SeededGenerator(seed: seed)
    return Matrix(rows: rows, columns: 5, values: (0..<rows * 5).map { _ in Float(generator.unit()) })
  }
  /// The refusal of a build, and that it left nothing behind.
  func refusal() -> String {
    do throws(InputError) {
      _ = try BundleBuilder(options).build()
      return "built"
    } catch {
      let left = (try? FileManager.default.contentsOfDirectory(atPath: directory + "/store/home")) ?? []
      return left.isEmpty ? error.reason : "left behind \(left)"
    }
  }
}

@Suite struct BundleTests {
  @Test func whatWasBuiltIsReadBack() throws {
    let small = try SmallBundle()
    let summary = try BundleBuilder(small.options).build()
    #expect(summary.items == 30 && summary.users == 7 && summary.ignored == 1)
    #expect(Bundles.Bundle.verify(small.path) == [])
    let bundle = try Bundles.Bundle.open(small.path)
    let matrix = SmallBundle.matrix(30, seed: 1)
    var seen = 0
    for shard in 0..<3 {
      let slice = try bundle.loadSlice(ShardID(shard))
      for row in 0..<slice.count {
        let ordinal = Int(slice.ordinals[row])
        #expect(String(decoding: slice.id(ofRow: row), as: UTF8.self) == SmallBundle.items[ordinal])
        #expect(ShardID.owner(of: SmallBundle.items[ordinal], shards: 3) == ShardID(shard))
        #expect(Array(slice.vectors[row * 16..<row * 16 + 5]) == Array(matrix.row(ordinal)))
        #expect(slice.vectors[row * 16 + 5..<row * 16 + 16].allSatisfy { $0 == 0 })
        let price = slice.columns.first { $0.column.name == "price" }!.values[row]
        #expect(ordinal == 0 ? price == 2.5 : price.isNaN)
        seen += 1
      }
    }
    #expect(seen == 30)
    let release = try bundle.release()
    let record = try #require(release.users.record(of: "user-1"))
    #expect(record.vector == Array(SmallBundle.matrix(7, seed: 2).row(1)))
    #expect(record.history.ordinals.sorted() == [3, 4])
    for ordinal in [3, 4] as [UInt64] {
      #expect(record.history[ShardID.owner(of: "item-\(ordinal)", shards: 3)].contains(ordinal))
    }
    #expect(release.users.record(of: "ghost") == nil)
  }

  /// The same inputs give the same fingerprint wherever and whenever; one number more or less gives another.
  @Test func aFingerprintTellsContentsApart() throws {
    let (first, same, other) = (try SmallBundle(), try SmallBundle(), try SmallBundle())
    try NumPyFile.write(SmallBundle.matrix(30, seed: 3), to: other.directory + "/items.npy")
    let prints = try [first, same, other].map { small in
      _ = try BundleBuilder(small.options).build()
      let bundle = try Bundles.Bundle.open(small.path)
      #expect(try bundle.release().fingerprint == bundle.manifest.fingerprint)
      return bundle.manifest.fingerprint
    }
    #expect(prints[0] == prints[1] && prints[0] != prints[2] && prints[0] != 0)
  }

  @Test func aVersionIsNeverWrittenAgain() throws {
    let small = try SmallBundle()
    _ = try BundleBuilder(small.options).build()
    #expect(throws: InputError.self) { try BundleBuilder(small.options).build() }
    #expect(Bundles.Bundle.verify(small.path) == [])
  }

  @Test func everyFlippedByteIsFoundInTheFileWhereItIs() throws {
    let small = try SmallBundle()
    _ = try BundleBuilder(small.options).build()
    for name in ["shard-0001.slice", "users.table", "warmup.jsonl"] {
      let file = small.path + "/" + name
      let whole = [UInt8](try Data(contentsOf: URL(fileURLWithPath: file)))
      for offset in stride(from: 0, to: whole.count, by: max(1, whole.count / 97)) {
        var damaged = whole
        damaged[offset] ^= 0x10
        try Data(damaged).write(to: URL(fileURLWithPath: file))
        let problems = Bundles.Bundle.verify(small.path)
        #expect(problems.count == 1 && problems[0].contains(name), "byte \(offset) of \(name): \(problems)")
      }
      for length in [0, 1, 63, 64, 100, whole.count / 2, whole.count - 1] {
        try Data(whole.prefix(length)).write(to: URL(fileURLWithPath: file))
        #expect(Bundles.Bundle.verify(small.path).contains { $0.contains(name) }, "\(name) cut to \(length)")
      }
      try Data(whole + [0]).write(to: URL(fileURLWithPath: file))
      #expect(Bundles.Bundle.verify(small.path).contains { $0.contains(name) }, "\(name) made longer")
      try Data(whole).write(to: URL(fileURLWithPath: file))
    }
    #expect(Bundles.Bundle.verify(small.path) == [])
  }

  @Test func swappedSlicesAreFound() throws {
    let small = try SmallBundle()
    _ = try BundleBuilder(small.options).build()
    let (a, b) = (small.path + "/shard-0000.slice", small.path + "/shard-0001.slice")
    try FileManager.default.moveItem(atPath: a, toPath: small.path + "/x")
    try FileManager.default.moveItem(atPath: b, toPath: a)
    try FileManager.default.moveItem(atPath: small.path + "/x", toPath: b)
    #expect(Bundles.Bundle.verify(small.path).count == 2)
  }

  @Test func inputsThatDoNotFitAreRefusedByNameAndLeaveNothing() throws {
    var small = try SmallBundle()
    try small.write("items.ids", (0..<29).map { "item-\($0)\n" }.joined())
    #expect(small.refusal() == "has 30 rows, items.ids names 29")

    small = try SmallBundle()
    try small.write("items.ids", (0..<30).map { "item-\($0 % 29)\n" }.joined())
    #expect(small.refusal().contains("item-0"))

    small = try SmallBundle()
    var matrix = SmallBundle.matrix(30, seed: 1)
    matrix.values[7 * 5] = .nan
    try NumPyFile.write(matrix, to: small.directory + "/items.npy")
    #expect(small.refusal() == "row 7 (\"item-7\"): not finite, or its norm is above 1e18")

    small = try SmallBundle()
    try NumPyFile.write(
      Matrix(rows: 7, columns: 4, values: [Float](repeating: 1, count: 28)), to: small.directory + "/users.npy")
    #expect(small.refusal() == "the users' vectors have 4 numbers, the items' 5")

    small = try SmallBundle()
    try small.write("schema.json", #"{"item": {"price": "number", "kind": "category"}}"#)
    try small.write(
      "ranker.json",
      #"{"type":"linear","terms":[{"feature":"item.kind","weight":1},{"feature":"item.size","weight":1}]}"#)
    small.options.schema = small.directory + "/schema.json"
    small.options.ranker = small.directory + "/ranker.json"
    #expect(small.refusal() == "features that the schema lacks, or that are categories: item.kind, item.size")

    small = try SmallBundle()
    small.options.release.version = "../v1"
    #expect(small.refusal().hasPrefix("\"../v1\" is no name"))
  }

  @Test func safetensorsGiveTheSameBundle() throws {
    let small = try SmallBundle()
    _ = try BundleBuilder(small.options).build()
    let (items, users) = (SmallBundle.matrix(30, seed: 1), SmallBundle.matrix(7, seed: 2))
    let header = Array(
      (#"{"__metadata__":{},"users":{"dtype":"F32","shape":[7,5],"data_offsets":[600,740]},"#
        + #""items":{"dtype":"F32","shape":[30,5],"data_offsets":[0,600]}}"#).utf8)
    var bytes = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) } + header
    for value in items.values + users.values { withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) } }
    for name in ["items.npy", "users.npy"] { try FileManager.default.removeItem(atPath: small.directory + "/" + name) }
    try AtomicFile.write(bytes, to: small.directory + "/factors.safetensors")
    small.options.release.version = "v2"
    _ = try BundleBuilder(small.options).build()
    let same = small.directory + "/store/home/"
    for name in ["shard-0000.slice", "users.table"] {
      #expect(FileManager.default.contentsEqual(atPath: same + "v1/" + name, andPath: same + "v2/" + name))
    }
    for (from, to) in [("\"F32\"", "\"F16\""), ("[30,5]", "[31,5]"), ("[0,600]", "[1,600]"), ("items", "itemz")] {
      let text = String(decoding: header, as: UTF8.self).replacingOccurrences(of: from, with: to)
      try AtomicFile.write(
        withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) } + Array(text.utf8)
          + bytes[(8 + header.count)...], to: small.directory + "/factors.safetensors")
      #expect(throws: InputError.self, "\(from) → \(to)") {
        try SafetensorsFile.read(small.directory + "/factors.safetensors", tensor: "items")
      }
    }
  }
}
