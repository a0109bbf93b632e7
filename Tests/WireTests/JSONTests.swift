import RankingCore
import Testing
@testable import Wire

@Suite struct RequestJSONTests {
  func parse(_ api: PublicAPI, _ text: String) throws(RankingError) -> RankingRequest {
    let bytes = Array(text.utf8)
    let result = bytes.withUnsafeBytes { raw in
      Result { () throws(RankingError) in try api.parse(raw, requestID: "r1") }
    }
    return try result.get()
  }

  @Test func aFullRequest() throws {
    let request = try parse(
      .recommend,
      #"""
      {"user": "17850", "k": 5, "exclude_seen": true, "exclude": ["85123A"], "model": "home", "version": "v1",
       "min_score": 0.5, "candidates": 300, "priority": "batch", "context": {"device": "app", "hour": 7, "new": false},
       "timeout_ms": 100, "min_coverage": 0.9, "explain": true}
      """#)
    var expected = RankingRequest(subject: .user("17850"), k: 5)
    expected.excludeSeen = true
    expected.exclude = ["85123A"]
    expected.model = "home"
    expected.version = "v1"
    expected.minScore = 0.5
    expected.candidates = 300
    expected.priority = .batch
    expected.context = [("device", .text("app")), ("hour", .number(7)), ("new", .boolean(false))]
    expected.timeout = .milliseconds(100)
    expected.minCoverage = 0.9
    expected.explain = true
    expected.requestID = "r1"
    #expect(request == expected)
  }

  @Test(arguments: [
    (#"{"user":"a","foo":1}"#, "unknown field \"foo\"; allowed: user, vector, recent_items, k,"),
    (#"{"user":"a","k":0}"#, "\"k\" must be a whole number, 1 to 1000"),
    (#"{"user":"a","k":1001}"#, "\"k\" must be a whole number, 1 to 1000"),
    (#"{"user":"a","k":1.5}"#, "\"k\" must be a whole number, 1 to 1000"),
    (#"{"user":"a","k":"5"}"#, "\"k\" must be a whole number, 1 to 1000"),
    (#"{"user":5}"#, "\"user\" must be a text of 1 to 255 bytes"),
    (#"{"user":""}"#, "\"user\" must be a text of 1 to 255 bytes"),
    (#"{}"#, "exactly one of \"user\", \"vector\", \"recent_items\" is needed; none is given"),
    (
      #"{"user":"a","vector":[1]}"#,
      "exactly one of \"user\", \"vector\", \"recent_items\" is needed; given: user, vector"
    ),
    (#"{"vector":[]}"#, "\"vector\" must be a list of 1 to 4096 numbers"),
    (#"{"vector":[1,"x"]}"#, "\"vector[1]\" must be a number"),
    (#"{"vector":[NaN]}"#, "the body is not valid JSON: this starts no JSON value (byte 11)"),
    (#"{"vector":[Infinity]}"#, "the body is not valid JSON: this starts no JSON value (byte 11)"),
    (#"{"vector":[1e39]}"#, "the body is not valid JSON: 1e39 is beyond float32 (byte 15)"),
    (#"{"vector":[1e18,1e18]}"#, "\"vector\" must be of a norm up to 1e+18"),
    (#"{"recent_items":["a",7]}"#, "\"recent_items[1]\" must be a text of 1 to 255 bytes"),
    (#"{"user":"a","min_coverage":1.1}"#, "\"min_coverage\" must be a number, 0.0 to 1.0"),
    (#"{"user":"a","timeout_ms":0}"#, "\"timeout_ms\" must be a number, 1.0 to 60000.0"),
    (#"{"user":"a","diversity":{}}"#, "\"diversity\" must be an object of \"field\" and \"max\""),
    (#"{"user":"a","diversity":{"field":"f","max":0}}"#, "\"diversity.max\" must be a whole number, 1 to 1000"),
    (
      #"{"user":"a","diversity":{"field":"f","min":1}}"#,
      "\"diversity\" must be an object of \"field\" and \"max\"; \"min\" is neither"
    ),
    (#"{"user":"a","mmr":0.5}"#, "\"mmr\" must be an object of \"lambda\" and, if it is not 100, \"pool\""),
    (#"{"user":"a","mmr":{"pool":9}}"#, "\"mmr\" must be an object of \"lambda\" and, if it is not 100, \"pool\""),
    (#"{"user":"a","mmr":{"lambda":1.5}}"#, "\"mmr.lambda\" must be a number, 0.0 to 1.0"),
    (#"{"user":"a","mmr":{"lambda":0.5,"pool":501}}"#, "\"mmr.pool\" must be a whole number, 1 to 500"),
    (#"{"user":"a","explain":1}"#, "\"explain\" must be true or false"),
    (#"{"user":"a","user":"b"}"#, "\"user\" is there twice"),
    (#"{"user":"a"} x"#, "the body is not valid JSON: something follows the value (byte 13)"),
    (#"{"user":"a",}"#, "the body is not valid JSON: a comma before } (byte 12)"),
    (#"[]"#, "the body must be one JSON object"), ("", "the body is not valid JSON: the text ends too early (byte 0)"),
    (#"{"user":"a","context":{"x":[]}}"#, "\"context.x\" must be a number, a text or a boolean"),
    (#"{"user":"a","model":"../x"}"#, "\"model\" must be made of A-Z a-z 0-9 . _ - and not start with a dot"),
    (#"{"user":"\ud800"}"#, "the body is not valid JSON: half a surrogate pair (byte 15)"),
    (#"{"user":"a","k":01}"#, "the body is not valid JSON: a number must not start with 0 (byte 16)"),
  ])
  func refusalsNameTheFieldAndWhatIsAllowed(body: String, message: String) {
    let error = #expect(throws: RankingError.self) { try parse(.recommend, body) }
    #expect(error?.message.hasPrefix(message) == true, "\(error?.message ?? "accepted")")
    #expect(PublicAPI.httpStatus(error?.code ?? .internal) == 400)
  }

  @Test func rankAndSimilar() throws {
    let rank = try parse(.rank, #"{"items":["b","a"],"user":"u"}"#)
    #expect(rank.kind == .rank(["b", "a"]) && rank.subject == .user("u"))
    #expect(throws: RankingError(.invalidArgument, "\"items\" names \"a\" twice")) {
      try parse(.rank, #"{"items":["a","a"],"user":"u"}"#)
    }
    #expect(throws: RankingError(.invalidArgument, "\"items\" is needed: 1 to 1000 item ids")) {
      try parse(.rank, #"{"user":"u"}"#)
    }
    #expect(try parse(.similar, #"{"item":"a","k":3}"#).subject == .item("a"))
    #expect(throws: RankingError(.invalidArgument, "\"item\" is needed: an item id")) { try parse(.similar, "{}") }
  }

  @Test func deepNestingIsRefused() {
    let body = #"{"context":"# + String(repeating: "[", count: 100_000)
    #expect(throws: RankingError.self) { try parse(.recommend, body) }
    let deep = Array(String(repeating: "[", count: 17).utf8)
    deep.withUnsafeBytes { raw in
      var reader = JSONReader(raw)
      #expect(throws: JSONError(offset: 16, reason: "nested deeper than 16")) { try reader.skipValue() }
    }
  }
}

@Suite struct AnswerJSONTests {
  @Test func anAnswerIsWrittenInItsExactShapeAndReadBack() throws {
    var list = ScoredList()
    [UInt8](#"85"123A"#.utf8).withUnsafeBytes {
      list.append(ScoredItem(score: 3.1415925, ordinal: ItemOrdinal(4)), id: $0)
    }
    let answer = Answer(
      release: ModelVersion(model: "home", version: "v42"),
      entries: [.init(item: list[0], list: 0, position: 0)], lists: [list], coldStart: false,
      coverage: Coverage(
        shards: 16, answered: 15, items: 0.9391, missing: [.init(shard: ShardID(7), reason: .timeout)]),
      candidates: 200, quality: 1, unknown: [], requestID: "r1", took: .microseconds(4200))
    var json = JSONWriter()
    PublicAPI.recommend.write(answer, into: &json)
    #expect(
      String(decoding: json.bytes, as: UTF8.self)
        == #"{"items":[{"id":"85\"123A","score":3.1415925}],"model":"home","version":"v42","cold_start":false,"#
        + #""coverage":{"shards":16,"answered":15,"items":0.9391,"missing":[{"shard":7,"reason":"timeout"}]},"#
        + #""candidates":200,"quality":1.0,"request_id":"r1","took_ms":4.200}"#)
    let parsed = try json.bytes.withUnsafeBytes { try ParsedAnswer($0) }
    #expect(parsed.items == [.init(id: #"85"123A"#, score: 3.1415925)])
    #expect(parsed.missing == [7] && parsed.answered == 15 && parsed.version == "v42" && parsed.candidates == 200)
  }

  @Test func explanationsFollowTheirItems() throws {
    var list = ScoredList()
    for (score, id) in [(2, "a"), (1, "b")] as [(Float, String)] {
      Array(id.utf8).withUnsafeBytes {
        list.append(ScoredItem(score: score, ordinal: ItemOrdinal(list.count)), id: $0)
      }
    }
    list.explanations = Explanations(
      items: 2, retrieval: [0.5, 0.25], raw: [0.75, -1], outputs: [2, 1],
      contributions: [0.25, 0.5, 0, -0.0, 0, 1e-30, -1, 0])
    var answer = Answer(
      release: ModelVersion(model: "home", version: "v42"),
      entries: [1, 0].map { .init(item: list[$0], list: 0, position: Int32($0)) }, lists: [list], coldStart: nil,
      coverage: Coverage(shards: 1, answered: 1, items: 1, missing: []), candidates: 200, quality: 1, unknown: [],
      requestID: "r1", took: .zero)
    answer.contributionNames = ["base", "retrieval_score", #"item."x""#, "ranker"]
    for api in PublicAPI.allCases {
      var json = JSONWriter()
      api.write(answer, into: &json)
      #expect(
        String(decoding: json.bytes, as: UTF8.self).hasPrefix(
          #"{"items":[{"id":"b","score":1.0,"explain":{"retrieval_score":0.25,"raw":-1.0,"base":0.0,"#
            + #""contributions":{"retrieval_score":1e-30,"item.\"x\"":-1.0},"rankers":[1.0]}},"#
            + #"{"id":"a","score":2.0,"explain":{"retrieval_score":0.5,"raw":0.75,"base":0.25,"#
            + #""contributions":{"retrieval_score":0.5},"rankers":[2.0]}}],"#))
      let parsed = try json.bytes.withUnsafeBytes { try ParsedAnswer($0) }
      var expected = ParsedAnswer.Explanation()
      (expected.retrievalScore, expected.raw, expected.rankers) = (0.25, -1, [1])
      expected.contributions = ["retrieval_score": 1e-30, #"item."x""#: -1]
      #expect(parsed.items[0].explanation == expected)
    }
  }

  @Test func everyFloatSurvives() throws {
    var generator = SeededGenerator(seed: 3)
    for _ in 0..<20_000 {
      let value = Float(bitPattern: UInt32(truncatingIfNeeded: generator.next()))
      guard value.isFinite else { continue }
      var json = JSONWriter()
      json.number(value)
      let back = try json.bytes.withUnsafeBytes { raw in
        var reader = JSONReader(raw)
        return try reader.float()
      }
      #expect(back.bitPattern == value.bitPattern)
    }
  }

  @Test func controlCharactersAreEscaped() throws {
    let text = "\u{1}\t\"\\é\u{1F600}"
    var json = JSONWriter()
    json.string(text)
    #expect(String(decoding: json.bytes, as: UTF8.self) == #""\u0001\t\"\\é😀""#)
    let back = try json.bytes.withUnsafeBytes { raw in
      var reader = JSONReader(raw)
      return try reader.string()
    }
    #expect(back == text)
  }
}
