import Foundation
import FuzzBodies
import RankingCore
import Testing

/// What once was a finding, and a short walk around what is as it should be. The long walk is Tests/fuzz.
@Suite struct FuzzTests {
  @Test(arguments: FuzzBody.allCases)
  func nothingCrashes(body: FuzzBody) throws {
    let findings = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/Findings"
    for name in try FileManager.default.contentsOfDirectory(atPath: findings).sorted()
    where name.hasPrefix(body.rawValue + "-") {
      let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: findings + "/" + name)))
      bytes.withUnsafeBytes { body.run($0) }
    }
    var generator = SeededGenerator(seed: 11)
    for seed in body.seeds {
      seed.withUnsafeBytes { body.run($0) }
      for _ in 0..<400 {
        var bytes = seed
        for _ in 0...generator.below(4) { Self.change(&bytes, &generator) }
        bytes.withUnsafeBytes { body.run($0) }
      }
    }
  }

  private static func change(_ bytes: inout [UInt8], _ generator: inout SeededGenerator) {
    guard !bytes.isEmpty else { return bytes.append(UInt8(generator.below(256))) }
    let place = generator.below(bytes.count)
    switch generator.below(5) {
    case 0: bytes[place] ^= UInt8(1 << generator.below(8))
    case 1: bytes[place] = UInt8(generator.below(256))
    case 2: bytes.removeLast(bytes.count - place)
    case 3: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + generator.below(16))], at: place)
    default: bytes.remove(at: place)
    }
  }
}
