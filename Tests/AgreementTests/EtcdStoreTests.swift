import ClusterHarness
import Foundation
import RankingCore
import Testing
import Transport

@testable import Agreement

/// The store on a real etcd. Without one on the PATH these tests are skipped: Debian's package is `etcd-server`.
@Suite(
  .serialized, .enabled(if: EtcdProcess.executable != nil, "etcd is not on the PATH; apt-get install etcd-server"))
struct EtcdStoreTests {
  let scratch: ScratchDirectory
  let etcd: EtcdProcess
  init() throws {
    scratch = try ScratchDirectory()
    etcd = try EtcdProcess(directory: scratch.path)
  }
  private func ready(_ name: String, drives: Bool = true) throws -> StoreRun {
    let run = StoreRun.etcd(etcd, name, drives: drives)
    _ = try run.waitState(0)
    try run.wait("driver") {
      switch $0 {
      case .driving, .notDriving: true
      default: false
      }
    }
    return run
  }
  @Test func oneOfTwoWritersWins() throws {
    let (one, two) = (try ready("one"), try ready("two"))
    let first = try one.commit(0, [1], "a")
    guard case .committed(let revision) = first else {
      Issue.record("\(first)")
      return
    }
    let seen = try two.waitState(revision)
    #expect(seen.state == StoredState(revision: revision, sequence: 1, bytes: [1]))
    #expect(try two.commit(0, [9], "late") == .conflict(current: seen.state))
    guard case .committed(let second) = try two.commit(revision, [2], "b") else {
      Issue.record("the winner lost")
      return
    }
    #expect(second > revision)
    #expect(try one.waitState(second).state.bytes == [2])
    #expect(try one.history(from: 1) == ["a", "b"])
    #expect(try two.history(from: 2) == ["b"])
    try one.stop()
    try two.stop()
  }

  /// Both hand in many at once: of each round exactly one goes in.
  @Test func writersAtTheSameInstant() throws {
    let runs = [try ready("one"), try ready("two")]
    var revision: UInt64 = 0
    for round in 0..<30 {
      let outcomes = Journal<(run: Int, outcome: CommitOutcome)>()
      for (index, run) in runs.enumerated() {
        let (store, loop) = (run.store, run.loop)
        let (expected, entry) = (revision, Array("\(round) \(index)".utf8))
        let later = OnLoop { (_: Void) in
          store.commit(expecting: expected, state: [UInt8(index)], entry: entry, as: .anyone) {
            outcomes.append((index, $0))
          }
        }
        loop.execute { later.body(()) }
      }
      for index in 0..<2 { _ = try #require(outcomes.wait(from: index) { _ in true }) }
      let committed = outcomes.all.compactMap { pair -> UInt64? in
        if case .committed(let revision) = pair.outcome { revision } else { nil }
      }
      try #require(committed.count == 1, "round \(round): \(outcomes.all)")
      revision = committed[0]
      for run in runs { _ = try run.waitState(revision) }
    }
    #expect(try runs[0].history(from: 1).count == 30)
    for run in runs { try run.stop() }
  }

  @Test func aChangeIsToldAtOnce() throws {
    let (one, two) = (try ready("one"), try ready("two"))
    var revision: UInt64 = 0
    var delays: [Duration] = []
    for number in 1...50 {
      guard case .committed(let next) = try one.commit(revision, [UInt8(number)], "\(number)") else { break }
      let (a, b) = (try one.waitState(next), try two.waitState(next))
      #expect(a.state == b.state)
      delays.append(b.at - a.at)
      revision = next
    }
    #expect(delays.count == 50)
    let sorted = delays.map(\.milliseconds).sorted()
    print("watch: the other store hears \(sorted[25]) ms (median), \(sorted[49]) ms (most) after the committer")
    try one.stop()
    try two.stop()
  }

  @Test func whatIsTooLongIsRefusedByNameAndWhatIsJustNotGoesIn() throws {
    let run = try ready("one")
    let state = [UInt8](repeating: 7, count: StoreLimit.stateBytes)
    let entry = String(repeating: "e", count: StoreLimit.entryBytes)
    #expect(
      try run.commit(0, state + [1], "a")
        == .refused(why: "the state is 1048577 bytes, at most 1048576 are kept"))
    #expect(
      try run.commit(0, state, entry + "e")
        == .refused(why: "the history entry is 16385 bytes, at most 16384 are kept"))
    #expect(try run.commit(0, state, "a\nb") == .refused(why: "the history entry is more than one line"))
    let other = try ready("two")
    guard case .committed(let revision) = try run.commit(0, state, entry) else {
      Issue.record("the longest state is not taken")
      return
    }
    #expect(try other.waitState(revision).state.bytes == state)
    #expect(try other.history(from: 1) == [entry])
    try run.stop()
    try other.stop()
  }

  // MARK: Who drives

  @Test func aCleanStopHandsOverAtOnce() throws {
    let one = try ready("one")
    let first = try one.waitDriving()
    let two = try ready("two")
    try two.wait("notDriving(one)") { $0 == .notDriving(driver: "one") }
    #expect(try one.drivingEpoch() == first.epoch)
    let stoppedAt = EventLoop.clock()
    try one.stop()
    let second = try two.waitDriving()
    #expect(second.epoch > first.epoch)
    #expect(try one.drivingEpoch() == nil)
    print("takeover after a clean stop: \((second.at - stoppedAt).milliseconds) ms")
    // Not a lease's lifetime: a revocation was seen.
    #expect(second.at - stoppedAt < .milliseconds(1500))
    try two.stop()
  }

  @Test func whoIsGoneIsFollowedWithinThreeSeconds() throws {
    let one = try ready("one")
    let first = try one.waitDriving()
    let two = try ready("two")
    let goneAt = EventLoop.clock()
    try one.abandon()
    let second = try two.waitDriving()
    print("takeover after a kill: \((second.at - goneAt).milliseconds) ms")
    #expect(second.epoch > first.epoch && second.at - goneAt <= .seconds(3))
    // What the first would still send is refused by etcd.
    #expect(try two.commit(0, [1], "late", as: .driver(epoch: first.epoch)) == .notDriving)
    guard case .committed = try two.commit(0, [1], "mine", as: .driver(epoch: second.epoch)) else {
      Issue.record("the driver cannot commit")
      return
    }
    try two.stop()
  }

  @Test func ofSeveralFollowersOneDrivesAndAllKnowWhich() throws {
    let names = ["one", "two", "three", "four"]
    var runs = try names.map { (name: $0, run: try ready($0)) }
    var epoch: UInt64 = 0
    while runs.count > 1 {
      // Whoever drives now, with the epoch above all before.
      var found: (run: StoreRun, epoch: UInt64, name: String)?
      let limit = EventLoop.clock() + .seconds(20)
      while found == nil, EventLoop.clock() < limit {
        for (name, run) in runs {
          if let next = try run.drivingEpoch(), next > epoch { found = (run, next, name) }
        }
      }
      let driver = try #require(found, "\(runs.map(\.run.text))")
      for (_, run) in runs where run !== driver.run {
        let marker = driver.name
        try run.wait("notDriving(\(marker))") { $0 == .notDriving(driver: marker) }
        #expect(try run.drivingEpoch() == nil)
      }
      epoch = driver.epoch
      try driver.run.stop()
      runs.removeAll { $0.run === driver.run }
    }
    try runs[0].run.stop()
  }

  @Test func anOnlookerNeverDrives() throws {
    let onlooker = try ready("onlooker", drives: false)
    #expect(onlooker.journal.all.contains { $0.event == .notDriving(driver: nil) })
    guard case .committed = try onlooker.commit(0, [1], "pause") else {
      Issue.record("an operator's wish does not go in")
      return
    }
    let one = try ready("one")
    _ = try one.waitDriving()
    try onlooker.wait("notDriving(one)") { $0 == .notDriving(driver: "one") }
    #expect(try onlooker.commit(1, [1], "x", as: .driver(epoch: 1)) == .notDriving)
    try one.stop()
    try onlooker.stop()
  }

  // MARK: etcd goes away

  @Test func aFrozenEtcdIsAwayAndBackAgain() throws {
    let one = try ready("one")
    let epoch = try one.waitDriving().epoch
    guard case .committed(let revision) = try one.commit(0, [1], "a") else { return }
    let start = one.journal.all.count
    etcd.freeze()
    let frozenAt = EventLoop.clock()
    let away = try one.wait(from: start, "away") { if case .away = $0 { true } else { false } }
    let lost = try one.wait(from: start, "notDriving") { $0 == .notDriving(driver: nil) }
    let lostAt = one.journal.all[lost - 1].at
    // Belief ends two seconds, less the margin, after the last answered sign of life was sent: before the lease does.
    #expect(lostAt - frozenAt < .seconds(2))
    #expect(try one.drivingEpoch() == nil)
    if case .away(let since, let why) = one.journal.all[away - 1].event {
      #expect(since <= frozenAt + .milliseconds(600) && why.hasPrefix("\(etcd.address): "), "\(why)")
    }
    guard case .unavailable = try one.commit(revision, [2], "b") else {
      Issue.record("a commit went to a frozen etcd")
      return
    }
    let back = one.journal.all.count
    etcd.thaw()
    try one.wait(from: back, "back") { $0 == .back }
    let again = try one.waitDriving(from: back).epoch
    #expect(again >= epoch)
    guard case .committed = try one.commit(revision, [3], "c", as: .driver(epoch: again)) else {
      Issue.record("no commit after etcd is back\n\(one.text)")
      return
    }
    #expect(try one.history(from: 1) == ["a", "c"])
    try one.stop()
  }

  @Test func aKilledEtcdComesBackWithEverything() throws {
    let (one, two) = (try ready("one"), try ready("two"))
    _ = try one.waitDriving()
    guard case .committed(let revision) = try one.commit(0, [1], "a") else { return }
    let start = [one, two].map { $0.journal.all.count }
    etcd.kill()
    for (run, start) in zip([one, two], start) {
      try run.wait(from: start, "away") { if case .away = $0 { true } else { false } }
    }
    try etcd.restart()
    for (run, start) in zip([one, two], start) { try run.wait(from: start, "back") { $0 == .back } }
    guard case .committed(let next) = try two.commit(revision, [2], "b") else {
      Issue.record("no commit after the restart\n\(two.text)")
      return
    }
    #expect(try one.waitState(next).state.bytes == [2])
    #expect(try one.history(from: 1) == ["a", "b"])
    try one.stop()
    try two.stop()
  }

  /// A commit whose reply was lost is asked about: none that was acknowledged is lost, and none is there twice.
  @Test func twoHundredCommitsAndAKilledEtcd() throws {
    let one = try ready("one")
    var revision = try one.waitState(0).state.revision
    var acknowledged: [String] = []
    var unsure: Set<String> = []
    for number in 1...200 {
      if number % 20 == 10 {
        // The kill meets the commit wherever it has got to.
        let pending = try one.begin(revision, [0], "during \(number)")
        etcd.kill()
        try etcd.restart()
        switch try #require(pending.wait { $0 }).value {
        case .committed(let next):
          revision = next
          acknowledged.append("during \(number)")
        case .unavailable: break
        case .unknown: unsure.insert("during \(number)")
        case let outcome: Issue.record("\(outcome)")
        }
      }
      var outcome = try one.commit(revision, [UInt8(number)], "\(number)")
      while true {
        if case .committed(let next) = outcome {
          revision = next
          acknowledged.append("\(number)")
          break
        }
        switch outcome {
        case .conflict(let current): revision = current.revision
        case .unknown: unsure.insert("\(number)")
        case .unavailable: break
        default: Issue.record("\(outcome)")
        }
        outcome = try one.commit(revision, [UInt8(number)], "\(number)")
      }
    }
    let history = try one.history(from: 1)
    let (there, wanted) = (history.filter { !unsure.contains($0) }, acknowledged.filter { !unsure.contains($0) })
    #expect(there == wanted)
    #expect(Set(history).count == history.count, "some are there twice")
    #expect(unsure.isEmpty, "\(unsure)")
    try one.stop()
  }
}
