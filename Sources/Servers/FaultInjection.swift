import Foundation
import RankingCore

// Trouble made on purpose, for tests and measurements: some of this worker's replies leave late. Only a worker whose
// configuration says "allow_faults" obeys.
//
//     POST /faults   {"delay_ms": 100, "share": 0.01, "seed": 1}     each Score reply: delayed by 100 ms, or at once
//     POST /faults   {"delay_ms": 50, "version": "v42"}              only replies of this version
//
// The reply waits in a timer of the loop when the scoring is done: no compute thread is held, as none is when a network
// or a garbage collector dawdles.

struct FaultInjection {
  let delay: Duration
  /// Of the replies, how many are delayed: 1 = all, 0 = none.
  let share: Double
  /// nil = of all versions.
  let version: String?
  private var generator: SeededGenerator

  init(delay: Duration, share: Double, version: String?, seed: UInt64) {
    self.delay = delay
    self.version = version
    self.share = share
    generator = SeededGenerator(seed: seed)
  }

  /// Reads the body of `POST /faults`.
  init(_ body: [UInt8]) throws(ConfigurationError) {
    let json = try ConfigurationFile(place: "/faults", json: Data(body))
    try json.allow(["delay_ms", "share", "version", "seed"])
    self.init(
      delay: .milliseconds(try json.integer("delay_ms", in: 0...60_000) ?? 0),
      share: try json.number("share", in: 0...1) ?? 1, version: try json.text("version"),
      seed: UInt64(try json.integer("seed", in: 0...Int.max) ?? 1))
  }

  /// For how long the next reply is kept back; `nil` = not at all.
  mutating func next(_ release: ModelVersion?) -> Duration? {
    guard delay > .zero, version == nil || version == release?.version, share >= 1 || generator.unit() < share else {
      return nil
    }
    return delay
  }
}
