import Foundation
import Glibc
import RankingCore
import Testing
import Transport

@testable import Agreement

/// The file store on a loop: on a real directory, and on a disk that fails.
@Suite struct FileStoreTests {
  let scratch: ScratchDirectory
  init() throws { scratch = try ScratchDirectory() }
  private var directory: String { scratch.path + "/a/b" }
  private func open(_ name: String = "one") -> StoreRun {
    StoreRun { FileStateStore(directory: directory, name: name, loop: $0) }
  }
  private func open(_ disk: PoweredDisk) -> StoreRun {
    StoreRun { FileStateStore(directory: "d", name: "one", loop: $0, disk: disk) }
  }

  @Test func whatWasCommittedIsThereAfterARestartWithAHigherEpoch() throws {
    let one = open()
    #expect(try one.waitDriving().epoch == 1)
    #expect(one.journal.all.map(\.event) == [.state(StoredState()), .driving(epoch: 1)])
    #expect(try one.commit(0, [1, 2], "{\"a\":1}") == .committed(revision: 1))
    #expect(try one.commit(0, [3], "{}") == .conflict(current: StoredState(revision: 1, sequence: 1, bytes: [1, 2])))
    #expect(try one.commit(1, [], "{\"b\":2}", as: .driver(epoch: 1)) == .committed(revision: 2))
    #expect(try one.commit(2, [], "{}", as: .driver(epoch: 2)) == .notDriving)
    #expect(try one.drivingEpoch() == 1)
    #expect(one.journal.all.last?.event == .state(StoredState(revision: 2, sequence: 2)))
    try one.stop()
    #expect(try one.drivingEpoch() == nil)

    let two = open()
    #expect(try two.waitDriving().epoch == 2)
    #expect(two.journal.all.first?.event == .state(StoredState(revision: 2, sequence: 2)))
    #expect(try two.history(from: 1) == ["{\"a\":1}", "{\"b\":2}"])
    #expect(try two.history(from: 2, limit: 5) == ["{\"b\":2}"])
    #expect(try two.history(from: 3) == [])
    try two.stop()
    let lines = try String(contentsOfFile: directory + "/history.jsonl", encoding: .utf8).split(separator: "\n")
    for line in lines { _ = try JSONSerialization.jsonObject(with: Data(line.utf8)) }
    #expect(lines.count == 2)
  }

  @Test func theObserverHearsOfAStateBeforeItsCommitIsAnswered() throws {
    let one = open()
    _ = try one.waitDriving()
    let heard = Journal<Int>()
    one.loop.execute {
      one.store.commit(expecting: 0, state: [1], entry: [1], as: .anyone) { _ in heard.append(one.journal.all.count) }
    }
    #expect(try #require(heard.wait { $0 }).value == 3)
    #expect(one.journal.all[2].event == .state(StoredState(revision: 1, sequence: 1, bytes: [1])))
    try one.stop()
  }

  @Test func aSecondProcessIsToldWhoHasTheDirectory() throws {
    let one = open("the-first")
    _ = try one.waitDriving()
    let two = open("the-second")
    let failed = try #require(
      two.journal.wait { told in if case .failed(let why) = told.event { why } else { nil } }
    ).value
    #expect(failed == "\(directory) is in use by the-first, process \(getpid()), which holds its lock")
    guard case .unavailable = try two.commit(0, [1], "x") else {
      Issue.record("it commits")
      return
    }
    try one.stop()
    // Both may be stopped; the lock was never the second's.
    try two.stop()
    let three = open("the-third")
    #expect(try three.waitDriving().epoch == 2)
    try three.stop()
  }

  @Test func aDamagedStateIsReportedAndKept() throws {
    let one = open()
    _ = try one.waitDriving()
    #expect(try one.commit(0, [1], "{}") == .committed(revision: 1))
    try one.stop()
    var bytes = try #require(FileManager.default.contents(atPath: directory + "/state"))
    bytes[bytes.count - 1] ^= 4
    try bytes.write(to: URL(fileURLWithPath: directory + "/state"))
    let two = open()
    let failed = try #require(
      two.journal.wait { told in if case .failed(let why) = told.event { why } else { nil } }
    ).value
    #expect(failed.hasPrefix("\(directory)/state: checksum expected "))
    try two.stop()
    #expect(FileManager.default.contents(atPath: directory + "/state") == bytes)
  }

  @Test func aFullDiskCostsACommitAndNothingElse() throws {
    let disk = PoweredDisk()
    let run = open(disk)
    _ = try run.waitDriving()
    #expect(try run.commit(0, [1], "a") == .committed(revision: 1))
    // Only writes: what is cut and read still works.
    disk.fullFrom = disk.calls
    guard case .unavailable(let why) = try run.commit(1, [2], "b") else {
      Issue.record("a full disk takes a commit")
      return
    }
    #expect(why == "d/history.jsonl: write: No space left on device")
    disk.fullFrom = nil
    #expect(try run.commit(1, [3], "c") == .committed(revision: 2))
    #expect(try run.history(from: 1) == ["a", "c"])
    #expect(run.journal.all.allSatisfy { if case .away = $0.event { false } else { true } })
    try run.stop()
  }

  /// The last known state goes on serving; who drives stays, and commits wait for the disk.
  @Test func aDiskThatGoesAwayIsSaidAndIsBackByItself() throws {
    let disk = PoweredDisk()
    let run = open(disk)
    _ = try run.waitDriving()
    #expect(try run.commit(0, [1], "a") == .committed(revision: 1))
    let start = run.journal.all.count
    disk.failing = (disk.calls, EIO)
    guard case .unavailable = try run.commit(1, [2], "b") else {
      Issue.record("a dead disk takes a commit")
      return
    }
    try run.wait(from: start, "away") { if case .away(_, let why) = $0 { why.contains("Input/output") } else { false } }
    #expect(try run.drivingEpoch() == 1)
    disk.failing = nil
    try run.wait(from: start, "back") { $0 == .back }
    #expect(try run.commit(1, [2], "b", as: .driver(epoch: 1)) == .committed(revision: 2))
    #expect(try run.history(from: 1) == ["a", "b"])
    try run.stop()
  }

  @Test func aDiskThatIsFullAtTheStartDoesNotDriveUntilThereIsRoom() throws {
    let disk = PoweredDisk()
    disk.fullFrom = 0
    let run = open(disk)
    try run.wait("away") { if case .away = $0 { true } else { false } }
    #expect(run.journal.all.prefix(2).map(\.event) == [.state(StoredState()), .notDriving(driver: nil)])
    #expect(try run.drivingEpoch() == nil)
    disk.fullFrom = nil
    #expect(try run.waitDriving().epoch == 1)
    try run.wait("back") { $0 == .back }
    try run.stop()
  }
}
