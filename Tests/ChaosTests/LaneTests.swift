import RankingCore
import Testing

@testable import ChaosEngine

/// Times are in milliseconds: what is taken in when, and what had left by when.
@Suite struct LaneTests {
  private func check(
    _ weather: LinkWeather, _ direction: Lane.Direction = .out, taken: [(at: Int, Int)], until: Int,
    cut: ClosedRange<Int>? = nil, left: [Int: Int], sourceLocation: SourceLocation = #_sourceLocation
  ) {
    var lane = Lane(direction)
    var generator = SeededGenerator(seed: 1)
    var sent = 0
    var seen: [Int: Int] = [:]
    for time in 0...until {
      var weather = weather
      if let cut { weather.isCutOut = cut.contains(time) }
      let now = Duration.milliseconds(time)
      for piece in taken where piece.at == time {
        lane.take([UInt8](repeating: 7, count: piece.1), now: now, weather, &generator)
      }
      while let bytes = lane.next(now: now, weather) {
        sent += bytes.count
        lane.sent(bytes.count, now: now, weather)
      }
      if left[time] != nil { seen[time] = sent }
    }
    #expect(seen == left, sourceLocation: sourceLocation)
    #expect(lane.waiting == taken.reduce(0) { $0 + $1.1 } - sent, sourceLocation: sourceLocation)
  }

  @Test func aClearDayPassesEverythingAtOnce() {
    check(LinkWeather(), taken: [(0, 100), (3, 50)], until: 4, left: [0: 100, 2: 100, 3: 150])
  }
  @Test func aDelayHoldsAndNothingOvertakes() {
    var weather = LinkWeather()
    weather.delay = .milliseconds(5)
    check(weather, taken: [(0, 10), (2, 20)], until: 8, left: [4: 0, 5: 10, 6: 10, 7: 30])
  }
  @Test func whatWasLostHoldsAllBehindIt() {
    var weather = LinkWeather()
    (weather.lossShare, weather.stall) = (1, .milliseconds(10))
    check(weather, taken: [(0, 10), (1, 20)], until: 12, left: [9: 0, 10: 10, 11: 30])
  }
  @Test func aCutHoldsOneDirection() {
    check(LinkWeather(), taken: [(0, 10), (2, 10)], until: 9, cut: 1...6, left: [0: 10, 6: 10, 7: 20])
    check(LinkWeather(), .back, taken: [(0, 10), (2, 10)], until: 9, cut: 1...6, left: [0: 10, 2: 20])
  }
  @Test func aDripHasItsSpeed() {
    var weather = LinkWeather()
    weather.bytesPerSecond = 1000
    check(weather, taken: [(0, 100)], until: 60, left: [0: 10, 9: 10, 10: 20, 50: 60])
  }
  @Test func aSliceComesInPieces() {
    var weather = LinkWeather()
    (weather.sliceMax, weather.gap) = (7, .milliseconds(1))
    check(weather, taken: [(0, 20)], until: 3, left: [0: 7, 1: 14, 2: 20])
  }
  @Test func aFullLaneSaysSo() {
    var lane = Lane(.out)
    var generator = SeededGenerator(seed: 1)
    var weather = LinkWeather()
    weather.isCutOut = true
    lane.take([UInt8](repeating: 0, count: Lane.waitingMax), now: .zero, weather, &generator)
    #expect(lane.isFull && lane.wakeAt(weather) == nil && lane.next(now: .zero, weather) == nil)
  }
}
