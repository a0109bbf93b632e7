import RankingCore
import Testing

@testable import Rollout

@Suite struct RolloutDocumentTests {
  static func read(_ json: String) throws(RolloutError) -> RolloutDocument {
    let bytes = Array(json.utf8)
    let result: Result<RolloutDocument, RolloutError> = bytes.withUnsafeBytes { raw in
      do throws(RolloutError) { return .success(try RolloutDocument(json: raw)) } catch { return .failure(error) }
    }
    return try result.get()
  }
  static func text(_ document: RolloutDocument) -> String { String(decoding: document.json, as: UTF8.self) }

  /// A document with one of everything.
  static func full() -> RolloutDocument {
    var document = RolloutDocument()
    func say(_ command: RolloutCommand) {
      guard case .success(let decision) = document.applying(command, who: "ada", atMilliseconds: 1_700_000_000_000)
      else { return }
      document = decision.document
    }
    var settings = RolloutSettings()
    settings.metrics = [MetricGuard("queue{worker=\"w1\"}", min: -1.5, max: 1e9)]
    settings.metrics[0].relativeMax = 2
    settings.guards.rankCorrelation.isOn = true
    settings.canarySteps = [1, 10_000]
    say(.adopt(model: "home", version: "v41"))
    say(.adopt(model: "a.b", version: "x"))
    say(.pin(model: "home", version: "v40"))
    say(.start(model: "home", version: "v42", settings: settings))
    say(.abort(model: "home", why: "\"no\"\n"))
    document.models[1].failed = [FailedVersion()]
    document.models[1].failed[0].version = "v39"
    document.models[1].last = FinishedRollout()
    document.models[1].last?.from = "v40"
    document.models[1].last?.to = "v41"
    return document
  }

  @Test func emptyMeansThatNothingIsConfigured() throws {
    #expect(Self.text(RolloutDocument()) == #"{"next_sequence":1,"models":[]}"#)
    #expect(try Self.read(#"{"next_sequence":1,"models":[]}"#) == RolloutDocument())
    #expect(try Self.read(#" { "models" : [ ] , "next_sequence" : 1 } "#) == RolloutDocument())
  }

  @Test func everythingSurvivesTheRoundTrip() throws {
    let document = Self.full()
    #expect(document.models[1].rollout?.isAborted == true && document.nextSequence == 6)
    #expect(try Self.read(Self.text(document)) == document)
  }

  @Test func anEntrySurvivesTheRoundTrip() throws {
    guard
      case .success(let decision) = RolloutDocument().applying(
        .adopt(model: "home", version: "v1"), who: "ada \"the\" \u{1F600}", atMilliseconds: 5)
    else {
      Issue.record("refused")
      return
    }
    let json = decision.entry.json
    #expect(
      String(decoding: json, as: UTF8.self)
        == #"{"sequence":1,"at_ms":5,"who":"ada \"the\" 😀","model":"home","rollout":"","version":"v1","from":"none","#
        + #""to":"serving","why":"the first version of home"}"#)
    #expect(try json.withUnsafeBytes { try HistoryEntry(json: $0) } == decision.entry)
  }

  static let model = #"{"model":"home","serving":"v41""#
  static let rollout =
    #"{"id":"home-2","from":"v41","to":"v42","stage":"load","step":0,"memory":"beside","entered":1,"entered_at_ms":5"#
  @Test(arguments: [
    (#"{"models":[]}"#, "\"next_sequence\" is needed"),
    (#"{"next_sequence":0}"#, "\"next_sequence\" must be a whole number, 1 to 9007199254740992"),
    (#"{"next_sequence":1,"models":[],"epoch":3}"#, "unknown field \"epoch\"; allowed: next_sequence, models"),
    (#"{"next_sequence":1,"models":[{}]}"#, "\"models[0].model\" is needed"),
    (
      #"{"next_sequence":1,"models":[\#(model),"color":1}]}"#,
      "unknown field \"models[0].color\"; allowed: model, serving, pinned, rollout, failed, last"
    ),
    (#"{"next_sequence":1,"models":[\#(model)},\#(model)}]}"#, "\"models[1].model\" must be greater than"),
    (#"{"next_sequence":1,"models":[{"model":"../x","serving":"v"}]}"#, "\"models[0].model\" must be 1 to 64 of"),
    (#"{"next_sequence":1,"models":[\#(model),"pinned":["b","a"]}]}"#, "\"models[0].pinned\" must be ascending"),
    (
      #"{"next_sequence":1,"models":[\#(model),"pinned":[7]}]}"#, "\"models[0].pinned\" is not valid: expected a string"
    ),
    (
      #"{"next_sequence":1,"models":[\#(model),"pinned":["1","2","3","4","5","6","7","8","9"]}]}"#,
      "\"models[0].pinned\" is not valid: more than 8"
    ),
    (
      #"{"next_sequence":1,"models":[\#(model),"rollout":\#(rollout.replacing("load", with: "lod"))}}]}"#,
      "\"models[0].rollout.stage\" must be one of \"load\", \"verify\""
    ),
    (
      #"{"next_sequence":1,"models":[\#(model),"rollout":\#(rollout.replacing(#""v41""#, with: #""v40""#))}}]}"#,
      "\"models[0].rollout.from\" must be the serving version, \"v41\""
    ),
    (
      #"{"next_sequence":1,"models":[\#(model),"rollout":\#(rollout.replacing(#""step":0"#, with: #""step":4"#))}}]}"#,
      "\"models[0].rollout.step\" must be the place of a canary step, below 4"
    ),
    (
      #"{"next_sequence":1,"models":[\#(model),"rollout":\#(rollout),"settings":{"evidence":1e999}}}]}"#,
      "\"models[0].rollout.settings.evidence\" is not valid"
    ),
    (#"{"next_sequence":1,"next_sequence":2}"#, "the document is not valid: \"next_sequence\" is there twice"),
    (#"[1]"#, "the document is not valid: an object is needed"), ("", "the document is not valid: the text ends"),
    (#"{"next_sequence":1} x"#, "the document is not valid: something follows the value"),
    (#"{"next_sequence":99999999999999999999}"#, "\"next_sequence\" is not valid"),
  ])
  func refusalsNameTheField(json: String, message: String) {
    let error = #expect(throws: RolloutError.self) { try Self.read(json) }
    #expect(error?.message.hasPrefix(message) == true, "\(error?.message ?? "accepted")")
  }

  @Test func whatTheReaderRefusesAboveIsFineOtherwise() throws {
    #expect(
      try Self.read(#"{"next_sequence":3,"models":[\#(Self.model),"rollout":\#(Self.rollout)}}]}"#)["home"]?.rollout?
        .settings == RolloutSettings())
  }

  /// Whatever the bytes are, they are a document or an error; and what is read can be written and read again.
  @Test(arguments: 0..<8 as Range<UInt64>)
  func hostileBytesNeverTrap(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let sound = Self.full().json
    var read = 0
    for _ in 0..<400 {
      var bytes = sound
      for _ in 0...generator.below(4) {
        let place = generator.below(bytes.count)
        switch generator.below(4) {
        case 0: bytes[place] = UInt8(generator.below(256))
        case 1: bytes.removeSubrange(place..<min(bytes.count, place + 1 + generator.below(20)))
        case 2: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + generator.below(40))], at: place)
        default: bytes[place] = Array("0123456789-.eE{}[],:\"\\nt".utf8)[generator.below(24)]
        }
        if bytes.isEmpty { bytes = sound }
      }
      guard let document = try? bytes.withUnsafeBytes({ try RolloutDocument(json: $0) }) else { continue }
      read += 1
      let again = document.json
      #expect(try again.withUnsafeBytes { try RolloutDocument(json: $0) } == document)
    }
    #expect(read > 0, "not one of them was read: the test looks at refusals alone")
  }

  @Test func depthAndLengthAreBounded() {
    let deep = #"{"models":"# + String(repeating: "[", count: 200_000)
    #expect(throws: RolloutError.self) { try Self.read(deep) }
    let many = "{" + (0..<100_000).map { "\"\($0)\":0" }.joined(separator: ",") + "}"
    #expect(throws: RolloutError(.invalidArgument, "the document is not valid: more than 64 fields")) {
      try Self.read(many.count < RolloutDocument.bytesMax ? many : String(many.prefix(RolloutDocument.bytesMax)))
    }
    let long = String(repeating: " ", count: RolloutDocument.bytesMax + 1)
    let error = #expect(throws: RolloutError.self) { try Self.read(long) }
    #expect(error?.message == "the document has 1048577 bytes, at most 1048576")
  }

  @Test(arguments: [
    (#"{"canary_steps":[100,50,10000]}"#, "\"settings.canary_steps\" must be ascending hundredths"),
    (#"{"canary_steps":[100]}"#, "\"settings.canary_steps\" must be ascending hundredths"),
    (#"{"canary_steps":[]}"#, "\"settings.canary_steps\" must be ascending hundredths"),
    (
      #"{"canary":{"min_time_ms":2000000}}"#,
      "\"settings.canary.deadline_ms\" must be more than its min_time_ms, 2000000"
    ),
    (#"{"canary":{"min_time":5}}"#, "unknown field \"settings.canary.min_time\"; allowed: min_time_ms, min_sample"),
    (#"{"metrics":[{"name":"x"}]}"#, "\"settings.metrics[0]\" must be given a bound"),
    (#"{"metrics":[{"max":1}]}"#, "\"settings.metrics[0].name\" must be the name of a metric"),
    (#"{"guards":{"error_rate":{"sample":0}}}"#, "\"settings.guards.error_rate.sample\" must be a whole number, 1 to"),
  ])
  func settingsAreRefusedByName(json: String, message: String) {
    let bytes = Array(json.utf8)
    let error = #expect(throws: RolloutError.self) { try bytes.withUnsafeBytes { try RolloutSettings(json: $0) } }
    #expect(error?.message.hasPrefix(message) == true, "\(error?.message ?? "accepted")")
  }

  @Test func settingsKeepTheDefaultsThatAreNotNamed() throws {
    let bytes = Array(#"{"canary":{"min_time_ms":5},"guards":{"overlap":{"on":false}}}"#.utf8)
    var expected = RolloutSettings()
    expected.canary.minTime = .milliseconds(5)
    expected.guards.overlap.isOn = false
    #expect(try bytes.withUnsafeBytes { try RolloutSettings(json: $0) } == expected)
  }

  @Test func figuresAsPeopleReadThem() {
    #expect(Figure.fixed(0.05, 1) == "0.1" && Figure.fixed(-0.04, 1) == "0.0" && Figure.fixed(-12.345, 2) == "-12.35")
    #expect(Figure.fixed(.nan, 1) == "nan" && Figure.fixed(7, 0) == "7" && Figure.percent(0.0523) == "5.2 %")
    #expect(Figure.bytes(100) == "100 B" && Figure.bytes(3 << 30) == "3.0 GiB" && Figure.bytes(1 << 20) == "1.0 MiB")
    #expect(Figure.seconds(.milliseconds(1500)) == "1.5 s" && Figure.seconds(.seconds(60)) == "60 s")
    #expect(Figure.shortened(String(repeating: "é", count: 600)).utf8.count <= RolloutDocument.textMax)
  }
}
