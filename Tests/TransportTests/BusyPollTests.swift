import RankingCore
import Testing

@testable import Transport

@Suite struct BusyPollTests {
  /// How many of `waits` sleeps come after a look, when looks find something or not.
  private func looks(_ poll: inout BusyPoll, waits: Int, found: Bool) -> Int {
    var looks = 0
    for _ in 0..<waits where poll.begins() {
      looks += 1
      poll.ended(found: found)
    }
    return looks
  }

  @Test func neverLooksWithoutALimit() {
    var poll = BusyPoll()
    #expect(looks(&poll, waits: 100, found: true) == 0)
  }

  @Test func looksAsLongAsItPaysAndNoticesWhenItPaysAgain() {
    var poll = BusyPoll()
    poll.limit = .microseconds(60)
    #expect(looks(&poll, waits: 1000, found: true) == 1000)
    // 0.95^28 is the first power below a quarter; from there on one wait in 16.
    #expect(looks(&poll, waits: 28 + 160, found: false) == 28 + 10)
    #expect(looks(&poll, waits: 160, found: false) == 10)
    #expect(looks(&poll, waits: 160, found: true) > 10)
    #expect(looks(&poll, waits: 100, found: true) == 100)
  }
}
