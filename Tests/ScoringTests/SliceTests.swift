import RankingCore
import Scoring
import Testing

@Suite struct SliceTests {
  @Test func everyItemIsFoundByIDAndByOrdinal() {
    let catalogue = Catalogue(count: 5000, dimension: 3)
    for shards in [1, 16, 7] {
      let slice = catalogue.slice(ShardID(0), of: shards)
      for item in 0..<catalogue.count {
        let owned = catalogue.owner(item, shards: shards) == ShardID(0)
        let row = slice.row(ofID: catalogue.ids[item])
        #expect((row != nil) == owned)
        #expect(slice.row(ofOrdinal: ItemOrdinal(item)) == row)
        guard let row else { continue }
        #expect(slice.ordinal(ofRow: row) == ItemOrdinal(item))
        #expect(slice.row(ofRank: slice.rank(ofRow: row)) == row)
        #expect(String(decoding: slice.id(ofRow: row), as: UTF8.self) == catalogue.ids[item])
        #expect(Array(slice.vector(ofRow: row)) == Array(catalogue.vectors[item * 3..<item * 3 + 3]))
      }
      #expect(slice.fault == nil)
      #expect(slice.row(ofID: "stranger") == nil)
      #expect(slice.row(ofID: "") == nil)
      #expect(slice.row(ofOrdinal: ItemOrdinal(5000)) == nil)
      #expect(slice.memoryFootprint > slice.count * 64)
    }
  }

  /// Two rows over sections of our own making.
  private func damaged(ordinals: [UInt64], idEnds: [UInt32]) -> Slice {
    let memory = AlignedMemory(byteCount: 512)
    memory.bytes.initializeMemory(as: UInt8.self, repeating: UInt8(ascii: "x"))
    for row in 0..<2 {
      memory.bytes.storeBytes(of: ordinals[row], toByteOffset: 128 + row * 8, as: UInt64.self)
      memory.bytes.storeBytes(of: idEnds[row], toByteOffset: 192 + row * 4, as: UInt32.self)
    }
    return Slice(
      release: Catalogue.release, shard: ShardID(0), shardCount: 1, dimension: 2, count: 2, memory: memory,
      layout: .init(vectors: 0..<128, ordinals: 128..<144, idEnds: 192..<200, idBytes: 256..<266, columns: []))
  }

  @Test func contradictionsAreNamedAndHarmless() throws {
    #expect(damaged(ordinals: [1, 2], idEnds: [4, 10]).fault == nil)
    let cases: [([UInt64], [UInt32], String)] = [
      ([1, 2], [4, 11], "row 1: its id ends at byte 11, after one that ends at 4, of 10"),
      ([1, 2], [4, 3], "row 1: its id ends at byte 3, after one that ends at 4, of 10"),
      ([1, 2], [0, 3], "row 0: its id ends at byte 0, after one that ends at 0, of 10"),
      ([1, 2], [.max, .max], "row 0: its id ends at byte 4294967295, after one that ends at 0, of 10"),
      ([2, 2], [4, 10], "row 1: ordinal 2 follows 2, ordinals ascend"),
    ]
    for (ordinals, ends, fault) in cases {
      let slice = damaged(ordinals: ordinals, idEnds: ends)
      #expect(slice.fault == fault)
      for row in 0..<2 { #expect(slice.id(ofRow: row).count <= 10) }
      _ = slice.row(ofID: "xxxx")
      var hosted = HostedRelease(release: Catalogue.release, shardCount: 1, dimension: 2)
      #expect(throws: HostingError.self) { try hosted.add(slice) }
    }
  }

  @Test func strangersAreNotHosted() throws {
    let slice = Catalogue(count: 10, dimension: 4).slice(ShardID(1), of: 2)
    func message(_ release: HostedRelease) -> String? {
      var release = release
      do throws(HostingError) {
        try release.add(slice)
        return nil
      } catch { return error.description }
    }
    let name = Catalogue.release
    #expect(message(HostedRelease(release: name, shardCount: 2, dimension: 4)) == nil)
    #expect(
      message(HostedRelease(release: .init(model: "home", version: "v2"), shardCount: 2, dimension: 4))
        == "home/v1 shard 1 does not belong to home/v2")
    #expect(
      message(HostedRelease(release: name, shardCount: 3, dimension: 4))
        == "home/v1 shard 1 of 2 does not fit a release of 3 shards")
    #expect(
      message(HostedRelease(release: name, shardCount: 2, dimension: 5))
        == "home/v1 shard 1 has vectors of 4, the release has 5")
    let ranker = try LinearRanker(intercept: 0, terms: [], itemColumns: 2, userColumns: 0, contextColumns: 0)
    #expect(
      message(HostedRelease(release: name, shardCount: 2, dimension: 4, ranker: .linear(ranker)))
        == "home/v1 shard 1 has 1 item columns, the ranker was bound to 2")
  }
}

@Suite struct ItemLookupTests {
  @Test func ownersAnswerInTheOrderOfTheRequest() throws {
    let catalogue = Catalogue(count: 100, dimension: 5)
    let hosted = try catalogue.hosted(shards: 4)
    let ids = ["item-42", "nobody", "item-3", "item-99", "item-0", ""]
    for asked in [[0, 1, 2, 3], [2], [3, 1]] {
      let shards = asked.map { ShardID($0) }
      let reply = try lookup(LookupRequest(release: Catalogue.release, shards: shards, ids: ids), holding: hosted).get()
      let owned = [42, 3, 99, 0].filter { shards.contains(catalogue.owner($0, shards: 4)) }
      #expect(reply.found.map(\.id) == owned.map { catalogue.ids[$0] })
      #expect(reply.found.map(\.ordinal) == owned.map { ItemOrdinal($0) })
      #expect(reply.found.map(\.vector) == owned.map { Array(catalogue.vectors[$0 * 5..<$0 * 5 + 5]) })
      #expect(reply.shards == shards)
    }
  }

  @Test func whatIsNotHeldIsRefused() throws {
    let catalogue = Catalogue(count: 100, dimension: 5)
    var hosted = try catalogue.hosted(shards: 4)
    hosted.remove(ShardID(2))
    func result(_ release: ModelVersion, _ shard: UInt32) -> CallFailure? {
      let request = LookupRequest(release: release, shards: [ShardID(rawValue: shard)], ids: ["item-1"])
      if case .failure(let failure) = lookup(request, holding: hosted) { return failure }
      return nil
    }
    #expect(result(Catalogue.release, 1) == nil)
    #expect(result(Catalogue.release, 2) == .wrongVersion)
    #expect(result(Catalogue.release, 4) == .wrongVersion)
    #expect(result(.init(model: "home", version: "v2"), 1) == .wrongVersion)
  }
}
