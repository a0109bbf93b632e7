import RankingCore
import Testing
import Wire

@Suite struct MessageTests {
  var generator = SeededGenerator(seed: 7)

  mutating func request() -> ScoreRequest {
    var query = ScoreQuery(
      release: ModelVersion(model: "home", version: "v\(generator.below(100))"),
      mode: generator.below(2) == 0 ? .retrieve : .rank,
      vector: (0..<1 + generator.below(20)).map { _ in Float(generator.unit()) - 0.5 }, k: 1 + generator.below(1000),
      candidates: 1 + generator.below(10_000))
    if generator.below(2) == 0 { query.minScore = Float(generator.unit()) }
    query.userValues = (0..<generator.below(4)).map { Float($0) }
    query.explain = generator.below(2) == 0
    if generator.below(2) == 0 { query.cap = GroupCap(column: generator.below(3), max: 1 + generator.below(1000)) }
    if generator.below(2) == 0 {
      query.filter = FilterProgram(steps: [
        .range(column: 0, low: -.infinity, high: 2.5), .isIn(column: generator.below(400), [1, 2]),
        .isIn(column: 3, []), .any(3), .not, .all(1),
      ])
    }
    let tasks = (0..<generator.below(5)).map { shard in
      ShardTask(
        shard: ShardID(shard), excludedOrdinals: (0..<generator.below(9)).map { UInt64($0) << 33 },
        excludedIDs: (0..<generator.below(4)).map { "idé\($0)" }, items: (0..<generator.below(4)).map { "i\($0)" })
    }
    return ScoreRequest(query: query, tasks: tasks)
  }

  mutating func reply(_ count: Int) -> ScoreReply {
    var list = ScoredList()
    for index in 0..<count {
      let item = ScoredItem(score: Float(count - index), ordinal: ItemOrdinal(generator.below(1 << 40)))
      Array("item-\(index)-é".utf8).withUnsafeBytes { list.append(item, id: $0) }
    }
    if generator.below(2) == 0 { list.groups = (0..<count).map { $0 % 3 == 0 ? .nan : Float($0) } }
    if count > 0, generator.below(2) == 0 {
      let (rankers, width) = (generator.below(3), 3 + generator.below(5))
      func numbers(_ count: Int) -> [Double] { (0..<count).map { _ in generator.unit() - 0.5 } }
      list.explanations = Explanations(
        items: count, retrieval: numbers(count).map { Float($0) }, raw: numbers(count),
        outputs: numbers(count * rankers).map { Float($0) }, contributions: numbers(count * width))
    }
    return ScoreReply(
      release: ModelVersion(model: "home", version: "v1"), shards: (0..<generator.below(6)).map { ShardID($0 * 100) },
      items: list, droppedNaN: generator.below(3))
  }

  @Test mutating func everyMessageSurvivesTheRoundTrip() throws {
    for _ in 0..<200 {
      let request = request()
      #expect(try request.encoded().withUnsafeBytes { try ScoreRequest(decoding: $0) } == request)
      let reply = reply(generator.below(50))
      #expect(try reply.encoded().withUnsafeBytes { try ScoreReply(decoding: $0) } == reply)
    }
    let release = ModelVersion(model: "home", version: "v1")
    let lookup = LookupRequest(release: release, shards: [ShardID(3), ShardID(300)], ids: ["a", "é"])
    #expect(try lookup.encoded().withUnsafeBytes { try LookupRequest(decoding: $0) } == lookup)
    let found = LookupReply(
      release: release, shards: [ShardID(3)], found: [.init(id: "a", ordinal: ItemOrdinal(1 << 40), vector: [1, -0.5])])
    #expect(try found.encoded().withUnsafeBytes { try LookupReply(decoding: $0) } == found)
    let status = WorkerStatus(
      name: "w1", incarnation: .max, draining: true,
      holdings: [
        .init(release: release, shardCount: 16, ready: (0..<16).map { ShardID($0) }, fingerprint: .max - 1)
      ], queued: 3, running: 1,
      oldestJob: .milliseconds(12))
    #expect(try status.encoded().withUnsafeBytes { try WorkerStatus(decoding: $0) } == status)
  }

  @Test func knownBytes() {
    // Field 1 "home", field 2 "v1", field 3 packed [0, 300], field 5 packed [1.0]: by the encoding's own rules.
    var list = ScoredList()
    [UInt8]("a".utf8).withUnsafeBytes { list.append(ScoredItem(score: 1, ordinal: ItemOrdinal(2)), id: $0) }
    let reply = ScoreReply(
      release: ModelVersion(model: "home", version: "v1"), shards: [ShardID(0), ShardID(300)], items: list)
    let expected: [UInt8] =
      [0x0A, 4] + Array("home".utf8) + [0x12, 2] + Array("v1".utf8) + [0x1A, 3, 0x00, 0xAC, 0x02]
      + [0x22, 8, 2, 0, 0, 0, 0, 0, 0, 0] + [0x2A, 4, 0, 0, 0x80, 0x3F] + [0x32, 1, 0x61]
      + [0x42, 4, 1, 0, 0, 0]
    #expect(reply.encoded() == expected)
  }

  @Test mutating func whatIsNotExplainedCostsNothing() {
    var request = request()
    request.query.explain = true
    let length = request.encoded().count
    request.query.explain = false
    #expect(request.encoded().count == length - 2)
    #expect(reply(0).items.explanations == nil)
  }

  /// A reply of two items that carries only these of the explanations' columns.
  @Test(arguments: [
    (retrieval: 2, raw: 2, outputs: 2, contributions: 6, isWhole: true), (2, 2, 0, 8, true), (2, 2, 4, 6, true),
    (1, 2, 2, 6, false), (3, 2, 2, 6, false), (2, 1, 2, 6, false), (2, 2, 3, 6, false), (2, 2, 2, 7, false),
    (2, 2, 2, 5, false), (0, 2, 2, 6, false), (2, 0, 2, 6, false), (0, 0, 0, 6, false), (0, 0, 2, 0, false),
  ])
  func explanationsMustFitTheirItems(
    retrieval: Int, raw: Int, outputs: Int, contributions: Int, isWhole: Bool
  ) throws {
    func bytes(items: Int) -> [UInt8] {
      var writer = ProtoWriter()
      writer.packed(4, (0..<items).map { UInt64($0) })
      writer.packed(5, [Float](repeating: 1, count: items))
      Array("ab".utf8.prefix(items)).withUnsafeBytes { writer.raw(6, $0) }
      writer.packed(8, (0..<items).map { UInt32($0 + 1) })
      writer.packed(10, [Float](repeating: 1, count: retrieval))
      writer.packed(11, [Double](repeating: 2, count: raw))
      writer.packed(12, [Float](repeating: 3, count: outputs))
      writer.packed(13, [Double](repeating: 4, count: contributions))
      return writer.bytes
    }
    func decode(_ items: Int) throws -> ScoreReply {
      try bytes(items: items).withUnsafeBytes { try ScoreReply(decoding: $0) }
    }
    #expect(throws: WireError.outOfRange(field: 13, "not the explanations of 0 items")) { try decode(0) }
    if isWhole {
      let explanations = try #require(try decode(2).items.explanations)
      #expect(explanations.rankers == outputs / 2 && explanations.width == contributions / 2)
    } else {
      #expect(throws: WireError.outOfRange(field: 13, "not the explanations of 2 items")) { try decode(2) }
    }
  }

  @Test mutating func damagedBytesNeverTrap() {
    var decoded = 0
    for round in 0..<3000 {
      var bytes = round % 2 == 0 ? request().encoded() : reply(5).encoded()
      switch round % 3 {
      case 0: bytes.removeLast(1 + generator.below(bytes.count))
      default:
        for _ in 0..<1 + generator.below(4) { bytes[generator.below(bytes.count)] = UInt8(generator.below(256)) }
      }
      bytes.withUnsafeBytes { raw in
        if (try? ScoreRequest(decoding: raw)) != nil { decoded += 1 }
        if (try? ScoreReply(decoding: raw)) != nil { decoded += 1 }
        _ = try? LookupReply(decoding: raw)
        _ = try? LookupRequest(decoding: raw)
        _ = try? WorkerStatus(decoding: raw)
        _ = try? ParsedAnswer(raw)
      }
    }
    #expect(decoded > 0 && decoded < 6000)
  }

  @Test func hostileLengthsAreRefused() {
    let cases: [([UInt8], WireError)] = [
      ([0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F], .truncated),
      ([0x0A] + [UInt8](repeating: 0xFF, count: 10) + [1], .varintTooLong),
      ([0x00], .badKey), ([0x83, 0x01], .badKey), ([0x08, 0x01], .wrongWireType(field: 1)),
      ([0x0A, 2, 0xC3, 0x28], .invalidUTF8(field: 1)),
      ([0x1A, 6, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], .outOfRange(field: 3, "68719476735 needs 32 bits")),
    ]
    for (bytes, expected) in cases {
      #expect(throws: expected) { try bytes.withUnsafeBytes { try ScoreReply(decoding: $0) } }
    }
  }

  /// A reply that carries only this block of ids, cut at these places.
  private func decodeIDs(_ text: [UInt8], ends: [UInt32]) throws -> ScoreReply {
    var writer = ProtoWriter()
    text.withUnsafeBytes { writer.raw(6, $0) }
    writer.packed(8, ends)
    return try writer.bytes.withUnsafeBytes { try ScoreReply(decoding: $0) }
  }

  @Test func idsThatSplitACharacterAreRefused() throws {
    #expect(try decodeIDs([0xC3, 0xA9, 0x61], ends: [2, 3]).items.ids[0] == "é")
    #expect(throws: WireError.invalidUTF8(field: 6)) { try decodeIDs([0xC3, 0xA9], ends: [1, 2]) }
    #expect(throws: WireError.invalidUTF8(field: 6)) { try decodeIDs([0xC3], ends: [1]) }
  }

  @Test(arguments: [
    [] as [UInt32], [1], [4], [0, 3], [3, 3], [2, 1, 3], [.max], [1, .max, 3],
  ])
  func idsMustFillTheirBlock(ends: [UInt32]) {
    #expect(throws: WireError.outOfRange(field: 8, "an id's length")) { try decodeIDs(Array("abc".utf8), ends: ends) }
  }
}

@Suite struct GRPCTests {
  @Test(arguments: [
    ("100m", Duration.milliseconds(100)), ("5S", .seconds(5)), ("1H", .seconds(3600)), ("2M", .seconds(120)),
    ("7u", .microseconds(7)), ("9n", .nanoseconds(9)), ("99999999S", .seconds(99_999_999)),
  ])
  func timeouts(text: String, duration: Duration) { #expect(GRPC.timeout(text) == duration) }

  @Test(arguments: ["", "m", "100", "-1m", "+1m", "1x", "123456789m", "1.5S"])
  func badTimeouts(text: String) { #expect(GRPC.timeout(text) == nil) }

  @Test func timeoutsAreRoundedDownButNeverToZero() {
    #expect(GRPC.timeout(Duration.nanoseconds(1)) == "1u")
    #expect(GRPC.timeout(Duration.nanoseconds(1_999)) == "1u")
    #expect(GRPC.timeout(Duration.seconds(200)) == "200000m")
    #expect(GRPC.timeout(Duration.microseconds(449_987)) == "449000u")
    #expect(GRPC.timeout(Duration.microseconds(99_999_999)) == "99900000u")
    #expect(GRPC.timeout(Duration.seconds(1_000_000)) == "99900000m")
  }

  @Test func framesAreChecked() {
    let frame = GRPC.frame([1, 2], [3])
    var buffer: [UInt8] = [9]
    GRPC.frame(into: &buffer) { $0 += [1, 2, 3] }
    #expect(buffer == [9] + frame)
    #expect(frame == [0, 0, 0, 0, 3, 1, 2, 3])
    frame.withUnsafeBytes { #expect((try? GRPC.message($0).get()).map { Array($0) } == [1, 2, 3]) }
    for bad in [[0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 2, 1], [0, 0xFF, 0xFF, 0xFF, 0xFF]] as [[UInt8]] {
      bad.withUnsafeBytes { #expect((try? GRPC.message($0).get()) == nil) }
    }
  }

  @Test func failuresSurviveTheStatus() {
    for failure in [CallFailure.overloaded, .wrongVersion, .deadlineExceeded, .workerError("x"), .connectionLost] {
      let status = GRPC.status(of: failure)
      #expect(GRPC.failure(of: status.status.rawValue, message: status.message) == failure)
    }
    #expect(GRPC.encodeMessage("50 % é\n") == "50 %25 %C3%A9%0A")
  }
}
