import Glibc
import Testing

@testable import Agreement

/// The file store's files on a disk that fails at every call in turn.
@Suite struct StateFilesTests {
  static let commits = 3
  /// Each is longer than the one before: what lies in a file that was given up must not show.
  static func state(_ number: Int) -> [UInt8] {
    Array("state \(number)".utf8) + [0, 10, 255] + [UInt8](repeating: 9, count: number * 40)
  }
  static func entry(_ number: Int) -> [UInt8] { Array("{\"step\":\(number)}".utf8) }

  /// Opens and commits until the disk is dead or `commits` are through.
  /// - Returns: revisions that were acknowledged, and all that were not but might be there.
  private func run(_ disk: PoweredDisk) -> (acknowledged: UInt64, unsure: UInt64, epoch: UInt64?) {
    var files = StateFiles(directory: "d", disk: disk)
    do {
      try files.lock(owner: "one")
      try files.settle()
      try files.takeEpoch()
    } catch { return (0, 0, files.epoch) }
    var acknowledged: UInt64 = 0
    for number in 1...Self.commits {
      let outcome = files.commit(
        expecting: acknowledged, state: Self.state(number), entry: Self.entry(number), id: UInt64(number), as: .anyone)
      guard outcome == .committed(revision: acknowledged + 1) else {
        return (acknowledged, acknowledged + 1, files.epoch)
      }
      acknowledged += 1
    }
    return (acknowledged, acknowledged, files.epoch)
  }

  /// What is there is a run of whole commits, none acknowledged is missing, and another commit goes in.
  private func expectSound(
    _ disk: PoweredDisk, _ ran: (acknowledged: UInt64, unsure: UInt64, epoch: UInt64?), _ what: String
  )
    throws
  {
    var files = StateFiles(directory: "d", disk: disk)
    try files.lock(owner: "two")
    try files.settle()
    #expect((ran.acknowledged...ran.unsure).contains(files.state.revision), "\(what): \(files.state.revision)")
    // What has been seen stays, should power go again right now.
    var again = StateFiles(directory: "d", disk: disk.afterPowerLoss(.allUnsynced))
    try again.settle()
    #expect(again.state == files.state, "\(what)")
    let revision = files.state.revision
    #expect(files.state.bytes == (revision == 0 ? [] : Self.state(Int(revision))), "\(what)")
    let entries = try files.history(from: 1, limit: 100)
    #expect(
      entries == (0..<Int(revision)).map { HistoryEntry(sequence: UInt64($0 + 1), bytes: Self.entry($0 + 1)) },
      "\(what)")
    try files.takeEpoch()
    #expect(try #require(files.epoch) > ran.epoch ?? 0, "\(what)")
    again = StateFiles(directory: "d", disk: disk)
    try again.settle()
    #expect(again.state == files.state, "\(what)")
    let next = Int(revision) + 1
    #expect(
      files.commit(
        expecting: revision, state: [1], entry: Self.entry(next), id: 99, as: .driver(epoch: files.epoch!))
        == .committed(revision: revision + 1), "\(what)")
    #expect(try files.history(from: revision + 1, limit: 9).map(\.bytes) == [Self.entry(next)], "\(what)")
  }

  @Test(arguments: PoweredDisk.Loss.allCases)
  func powerMayGoAtAnyCall(loss: PoweredDisk.Loss) throws {
    let whole = PoweredDisk()
    #expect(run(whole).acknowledged == UInt64(Self.commits))
    #expect(whole.calls > 30)
    var seen: Set<UInt64> = []
    for number in 0..<whole.calls {
      for fault in [PoweredDisk.Fault.crash, .crashAfter] {
        let disk = PoweredDisk()
        disk.faults[number] = fault
        let ran = run(disk)
        seen.insert(ran.acknowledged)
        try expectSound(disk.afterPowerLoss(loss), ran, "\(fault) at call \(number), \(disk.log.last ?? "")")
      }
    }
    #expect(seen == [0, 1, 2])
  }

  /// Power goes once more while what the first loss left is put right.
  @Test func powerMayGoAgainWhileOpening() throws {
    let whole = PoweredDisk()
    _ = run(whole)
    for number in 0..<whole.calls {
      let disk = PoweredDisk()
      disk.faults[number] = .crash
      let ran = run(disk)
      for again in 0..<20 {
        let second = disk.afterPowerLoss(.halfOfUnsynced)
        second.faults[again] = .crashAfter
        var files = StateFiles(directory: "d", disk: second)
        _ = try? files.lock(owner: "two")
        _ = try? files.settle()
        _ = try? files.takeEpoch()
        try expectSound(second.afterPowerLoss(.allUnsynced), ran, "call \(number), then \(again)")
      }
    }
  }

  /// The process lives on: the failed commit says so, the old state stands, and the next one works.
  @Test(arguments: [PoweredDisk.Fault.error(ENOSPC), .error(EIO), .short, .errorAfter(EIO)])
  func aCallThatFailsCostsAtMostOneCommit(fault: PoweredDisk.Fault) throws {
    let whole = PoweredDisk()
    var files = StateFiles(directory: "d", disk: whole)
    try files.lock(owner: "one")
    try files.settle()
    try files.takeEpoch()
    let before = whole.calls
    _ = files.commit(expecting: 0, state: Self.state(1), entry: Self.entry(1), id: 1, as: .anyone)
    let after = whole.calls
    var outcomes: Set<String> = []
    for number in before..<after {
      let disk = PoweredDisk()
      var files = StateFiles(directory: "d", disk: disk)
      try files.lock(owner: "one")
      try files.settle()
      try files.takeEpoch()
      disk.faults[number] = fault
      let what = "\(fault) at call \(number)"
      let outcome = files.commit(expecting: 0, state: Self.state(1), entry: Self.entry(1), id: 1, as: .anyone)
      switch outcome {
      case .committed(let revision):
        outcomes.insert("committed")
        #expect(revision == 1 && files.state.revision == 1, "\(what)")
      case .unavailable(let why):
        outcomes.insert("unavailable")
        #expect(files.state == StoredState() && why.hasPrefix("d"), "\(what): \(why)")
      default: Issue.record("\(what): \(outcome)")
      }
      let revision = files.state.revision
      #expect(
        files.commit(
          expecting: revision, state: Self.state(Int(revision) + 1), entry: Self.entry(Int(revision) + 1), id: 2,
          as: .anyone) == .committed(revision: revision + 1), "\(what)")
      try expectSound(disk.afterPowerLoss(.allUnsynced), (revision + 1, revision + 1, 1), what)
    }
    switch fault {
    // Half a write is written to its end.
    case .short: #expect(outcomes == ["committed", "unavailable"])
    case .errorAfter: #expect(outcomes == ["committed", "unavailable"])
    default: #expect(outcomes == ["unavailable"] || outcomes == ["unavailable", "committed"])
    }
  }

  /// From some call on the disk does nothing any more, and then it does again.
  @Test func aDiskThatStaysAwayAndComesBack() throws {
    let whole = PoweredDisk()
    _ = run(whole)
    var unknown = 0
    for number in 0..<whole.calls {
      let disk = PoweredDisk()
      disk.failing = (number, EIO)
      var files = StateFiles(directory: "d", disk: disk)
      guard (try? files.lock(owner: "one")) != nil else { continue }
      _ = try? files.settle()
      _ = try? files.takeEpoch()
      var acknowledged: UInt64 = 0
      var unsure: UInt64 = 0
      loop: for step in 1...Self.commits {
        let outcome = files.commit(
          expecting: acknowledged, state: Self.state(step), entry: Self.entry(step), id: UInt64(step), as: .anyone)
        switch outcome {
        case .committed: acknowledged += 1
        case .unavailable: break loop
        case .unknown:
          unknown += 1
          unsure = acknowledged + 1
          #expect(!files.isSettled)
          break loop
        default: Issue.record("\(outcome)")
        }
      }
      disk.failing = nil
      try files.settle()
      #expect((acknowledged...max(acknowledged, unsure)).contains(files.state.revision), "call \(number)")
      files.unlock()
      try expectSound(disk, (acknowledged, max(acknowledged, unsure), files.epoch), "call \(number)")
    }
    #expect(unknown > 0)
  }

  @Test func authorityAndRevisionAreChecked() throws {
    let disk = PoweredDisk()
    var files = StateFiles(directory: "d", disk: disk)
    try files.lock(owner: "one")
    try files.settle()
    try files.takeEpoch()
    #expect(files.epoch == 1)
    func commit(_ revision: UInt64, _ authority: CommitAuthority) -> CommitOutcome {
      files.commit(expecting: revision, state: [1], entry: [2], id: 1, as: authority)
    }
    #expect(commit(0, .driver(epoch: 2)) == .notDriving)
    #expect(commit(1, .driver(epoch: 1)) == .conflict(current: StoredState()))
    #expect(commit(0, .driver(epoch: 1)) == .committed(revision: 1))
    #expect(commit(0, .anyone) == .conflict(current: StoredState(revision: 1, sequence: 1, bytes: [1])))
  }
}

/// Files that are not as they were left.
@Suite struct DamagedFilesTests {
  private func made() throws -> PoweredDisk {
    let disk = PoweredDisk()
    var files = StateFiles(directory: "d", disk: disk)
    try files.lock(owner: "one")
    try files.settle()
    try files.takeEpoch()
    for number in 1...3 {
      _ = files.commit(
        expecting: UInt64(number - 1), state: StateFilesTests.state(number), entry: StateFilesTests.entry(number),
        id: UInt64(number), as: .anyone)
    }
    files.unlock()
    return disk
  }
  /// The error, after which nothing may have been written.
  private func refusal(of disk: PoweredDisk) throws -> String? {
    let before = [disk.content("d/state"), disk.content("d/history.jsonl")]
    var files = StateFiles(directory: "d", disk: disk)
    var text: String?
    do {
      try files.settle()
    } catch FilesError.unusable(let why) {
      text = why
      #expect(files.damage == why)
      guard case .unavailable = files.commit(expecting: 3, state: [], entry: [1], id: 1, as: .anyone) else {
        Issue.record("a commit went in")
        return nil
      }
    }
    #expect([disk.content("d/state"), disk.content("d/history.jsonl")] == before)
    return text
  }

  @Test func everyFlippedBitOfTheStateIsFound() throws {
    let disk = try made()
    let whole = try #require(disk.content("d/state"))
    for bit in 0..<whole.count * 8 {
      var bytes = whole
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      disk.put("d/state", bytes)
      let text = try #require(try refusal(of: disk), "bit \(bit)")
      #expect(text.hasPrefix("d/state: "), "\(text)")
    }
    disk.put("d/state", whole)
    #expect(try refusal(of: disk) == nil)
  }

  @Test func aChecksumErrorSaysBothSums() throws {
    let disk = try made()
    var bytes = try #require(disk.content("d/state"))
    bytes[bytes.count - 1] ^= 1
    disk.put("d/state", bytes)
    let text = try #require(try refusal(of: disk))
    let sum = try #require(String(decoding: bytes, as: UTF8.self).split(separator: "\n")[0].split(separator: " ").last)
    #expect(text.contains("expected \(sum), actual ") && text.contains("left as it is"), "\(text)")
  }

  @Test func everyFlippedBitOfTheHistoryIsFoundAndEveryCutOfTheStateToo() throws {
    let disk = try made()
    let whole = try #require(disk.content("d/history.jsonl"))
    for bit in 0..<whole.count * 8 {
      var bytes = whole
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      disk.put("d/history.jsonl", bytes)
      #expect(try refusal(of: disk)?.hasPrefix("d/history.jsonl: line ") == true, "bit \(bit)")
    }
    for count in 0..<whole.count {
      disk.put("d/history.jsonl", Array(whole[..<count]))
      #expect(try refusal(of: disk) != nil, "\(count) bytes of history")
    }
    disk.put("d/history.jsonl", whole)
    let state = try #require(disk.content("d/state"))
    for count in 0..<state.count {
      disk.put("d/state", Array(state[..<count]))
      #expect(try refusal(of: disk) != nil, "\(count) bytes of state")
    }
  }

  @Test func filesThatDoNotBelongTogetherAreRefused() throws {
    let disk = try made()
    let (state, history) = (disk.content("d/state"), disk.content("d/history.jsonl"))
    disk.put("d/history.jsonl", nil)
    #expect(try refusal(of: disk)?.contains("d/history.jsonl is missing") == true)
    disk.put("d/history.jsonl", history)
    disk.put("d/state", nil)
    #expect(try refusal(of: disk)?.contains("d/state is missing") == true)
    disk.put("d/state", state)
    // Two lines beyond the state were both acknowledged once.
    let more = HistoryLine(sequence: 4, id: 4, entry: [1]).bytes + [10]
    disk.put("d/history.jsonl", history! + more + HistoryLine(sequence: 5, id: 5, entry: [1]).bytes + [10])
    #expect(try refusal(of: disk)?.contains("older than its history") == true)
    disk.put("d/history.jsonl", history! + more)
    var files = StateFiles(directory: "d", disk: disk)
    try files.settle()
    #expect(disk.content("d/history.jsonl") == history, "one line is cut")
  }
}

@Suite struct HistoryLineTests {
  @Test func aLineIsReadBackAndIsJSON() throws {
    let line = HistoryLine(sequence: 12, id: 0x0123_4567_89AB_CDEF, entry: Array("{\"a\":\"}\"}".utf8))
    let text = String(decoding: line.bytes, as: UTF8.self)
    #expect(text.hasPrefix("{\"sequence\":12,\"id\":\"0123456789abcdef\",\"sum\":\""))
    #expect(text.hasSuffix("\",\"entry\":{\"a\":\"}\"}}"))
    #expect(HistoryLine(line.bytes[...]) == line)
  }
}
