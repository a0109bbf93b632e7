import RankingCore
import Testing

@testable import Rollout

@Suite struct TrafficSplitTests {
  static func split(_ stage: RolloutStage, share: Int = 10_000, id: String = "home-7") -> TrafficSplit {
    var state = ModelState()
    (state.model, state.serving, state.pinned) = ("home", "v41", ["v39"])
    var rollout = ActiveRollout()
    (rollout.id, rollout.from, rollout.to, rollout.stage) = (id, "v41", "v42", stage)
    rollout.settings.canarySteps = [share, 10_000]
    if stage == .retire { state.serving = "v42" }
    state.rollout = rollout
    return TrafficSplit(state)
  }
  static func request(_ user: String) -> RankingRequest { RankingRequest(subject: .user(user)) }

  /// Whoever got the new version at a share gets it at every larger one.
  @Test(arguments: 0..<20 as Range<UInt64>)
  func wideningOnlyAddsUsers(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let id = "home-\(generator.below(1_000_000))"
    let shares = (0..<6).map { _ in 1 + generator.below(10_000) }.sorted()
    let splits = shares.map { Self.split(.canary, share: $0, id: id) }
    var counts = [Int](repeating: 0, count: shares.count)
    for _ in 0..<5000 {
      let request = Self.request("user-\(generator.next())")
      let got = splits.map { $0.choice(for: request) }
      for (index, place) in got.enumerated() where place == 1 { counts[index] += 1 }
      #expect(zip(got, got.dropFirst()).allSatisfy { $0 <= $1 }, "\(shares): \(got)")
    }
    for (share, count) in zip(shares, counts) {
      let expected = 5000 * Double(share) / 10_000
      #expect((Double(count) - expected).magnitude < 5 * expected.squareRoot() + 5, "\(share): \(count)")
    }
  }

  @Test func thePartsAreOfTheStatedSize() {
    for (share, expected) in [(1, 0...40), (100, 900...1100), (1000, 9_600...10_400), (10_000, 100_000...100_000)] {
      let split = Self.split(.canary, share: share)
      let count = (0..<100_000).count { split.choice(for: Self.request("u\($0)")) == 1 }
      #expect(expected.contains(count), "\(share): \(count)")
    }
  }

  @Test func anotherRolloutMeansOtherUsers() {
    let (a, b) = (Self.split(.canary, share: 1000), Self.split(.canary, share: 1000, id: "home-8"))
    let both = (0..<100_000).count {
      a.choice(for: Self.request("u\($0)")) == 1 && b.choice(for: Self.request("u\($0)")) == 1
    }
    #expect((800...1200).contains(both), "10 % of 10 %, not all of them: \(both)")
  }

  @Test func userThenSessionThenRequest() {
    let split = Self.split(.canary, share: 5000)
    var request = RankingRequest(subject: .vector([1]))
    request.requestID = "r1"
    let byRequest = split.choice(for: request)
    #expect(byRequest == split.choice(for: Self.request("r1")), "the same key, whatever it is called")
    // Keys that fall on either side.
    let (old, new) = (
      (0..<100).map { "k\($0)" }.first { split.choice(for: Self.request($0)) == 0 }!,
      (0..<100).map { "k\($0)" }.first { split.choice(for: Self.request($0)) == 1 }!
    )
    (request.requestID, request.session) = (old, new)
    #expect(split.choice(for: request) == 1)
    request.subject = .user(old)
    #expect(split.choice(for: request) == 0)
  }

  @Test(
    arguments: [
      (.load, ["v41", "v39"], 0), (.verify, ["v41", "v39"], 0), (.warm, ["v41", "v39"], 0),
      (.shadow, ["v41", "v42", "v39"], 0), (.canary, ["v41", "v42", "v39"], 1), (.retire, ["v42", "v39"], 0),
      (.rollingBack, ["v41", "v39"], 0),
    ] as [(RolloutStage, [String], Int)])
  func whatIsPublished(stage: RolloutStage, versions: [String], choice: Int) {
    let split = Self.split(stage)
    #expect(split.versions == versions)
    #expect(split.choice(for: Self.request("u")) == choice)
    #expect(split.named("v39") == versions.count - 1)
    #expect(split.named("v38") == nil)
    #expect((split.named("v42") != nil) == stage.isPublished)
    #expect((split.shadowed != nil) == (stage == .shadow))
  }

  @Test func shadowsAreATenthOfTheRequests() {
    let split = Self.split(.shadow)
    let count = (0..<100_000).count { split.isShadowed("r\($0)") }
    #expect((9_600...10_400).contains(count), "\(count)")
    #expect((0..<1000).allSatisfy { !Self.split(.canary).isShadowed("r\($0)") })
  }

  /// The choice is the same in every process, for ever: these stand for all.
  @Test func theHashIsStable() {
    let split = Self.split(.canary, share: 5000)
    let choices = (0..<32).map { split.choice(for: Self.request("user-\($0)")) == 1 ? "n" : "o" }.joined()
    #expect(choices == "nnnonnonnooonnonooonoonnnnnoonon")
  }
}
