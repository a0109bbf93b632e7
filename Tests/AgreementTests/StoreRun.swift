import ClusterHarness
import Foundation
import RankingCore
import Synchronization
import Testing
import Transport

@testable import Agreement

/// A directory that goes with the test.
final class ScratchDirectory: Sendable {
  let path: String
  init() throws { path = try StateDirectory.temporary().path }
  deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// A list that other threads append to, and that can be waited on.
final class Journal<Element: Sendable>: @unchecked Sendable {
  private let condition = NSCondition()
  private var elements: [Element] = []

  func append(_ element: Element) {
    condition.lock()
    elements.append(element)
    condition.broadcast()
    condition.unlock()
  }
  var all: [Element] {
    condition.lock()
    defer { condition.unlock() }
    return elements
  }
  /// The first element from `start` on for which `match` returns a value, and the index after it; nil when none comes.
  func wait<Value>(
    from start: Int = 0, seconds: Double = 20, _ match: (Element) -> Value?
  ) -> (value: Value, next: Int)? {
    let limit = Date(timeIntervalSinceNow: seconds)
    condition.lock()
    defer { condition.unlock() }
    var index = start
    while true {
      while index < elements.count {
        if let value = match(elements[index]) { return (value, index + 1) }
        index += 1
      }
      guard condition.wait(until: limit) else { return nil }
    }
  }
}

/// A store on a loop of its own, with what it told and when.
final class StoreRun: @unchecked Sendable {
  struct Told: Sendable {
    var event: StoreEvent
    var at: Instant
  }
  let loop = EventLoop()
  let journal = Journal<Told>()
  private(set) var store: any StateStore

  init(_ make: (EventLoop) -> any StateStore) {
    store = make(loop)
    loop.start()
    loop.execute { [self] in
      store.start { [journal] in journal.append(Told(event: $0, at: EventLoop.clock())) }
    }
  }
  deinit { loop.stop() }

  static func etcd(_ etcd: EtcdProcess, _ name: String, prefix: String = "/test", drives: Bool = true) -> StoreRun {
    StoreRun { loop in
      EtcdStateStore(
        EtcdStateStore.Options(
          endpoints: [EtcdEndpoint(etcd.address)!], prefix: prefix, name: name, wantsToDrive: drives,
          seed: StableHash.xxh64(name)), loop: loop)
    }
  }

  private func ask<Value: Sendable>(
    seconds: Double = 30, _ body: @escaping @Sendable (@escaping (Value) -> Void) -> Void
  )
    throws -> Value
  {
    let answer = Journal<Value>()
    loop.execute { body { answer.append($0) } }
    let value = try #require(answer.wait(seconds: seconds) { $0 }).value
    #expect(answer.all.count == 1)
    return value
  }
  func commit(
    _ revision: UInt64, _ state: [UInt8], _ entry: String, as authority: CommitAuthority = .anyone
  ) throws -> CommitOutcome {
    try ask { [self] done in
      store.commit(expecting: revision, state: state, entry: Array(entry.utf8), as: authority, completion: done)
    }
  }
  /// A commit whose outcome is waited for later.
  func begin(
    _ revision: UInt64, _ state: [UInt8], _ entry: String, as authority: CommitAuthority = .anyone
  ) throws -> Journal<CommitOutcome> {
    let outcomes = Journal<CommitOutcome>()
    loop.execute { [self] in
      store.commit(expecting: revision, state: state, entry: Array(entry.utf8), as: authority) { outcomes.append($0) }
    }
    return outcomes
  }
  func history(from sequence: UInt64, limit: Int = 512) throws -> [String] {
    let result: Result<[HistoryEntry], HistoryError> = try ask { [self] in
      store.history(from: sequence, limit: limit, completion: $0)
    }
    return try result.get().map { String(decoding: $0.bytes, as: UTF8.self) }
  }
  func drivingEpoch() throws -> UInt64? {
    try ask { [self] in $0(store.drivingEpoch(now: EventLoop.clock())) }
  }
  func stop() throws {
    let _: Bool = try ask { [self] done in store.stop { done(true) } }
  }
  /// As if the process had been killed.
  func abandon() throws {
    let _: Bool = try ask { [self] done in
      (store as? EtcdStateStore)?.abandon()
      done(true)
    }
  }

  func waitState(_ revision: UInt64, from start: Int = 0) throws -> (state: StoredState, at: Instant) {
    try #require(
      journal.wait(from: start) { told in
        if case .state(let state) = told.event, state.revision >= revision { (state, told.at) } else { nil }
      }, "no state \(revision)\n\(text)"
    ).value
  }
  func waitDriving(from start: Int = 0) throws -> (epoch: UInt64, at: Instant, next: Int) {
    let found = try #require(
      journal.wait(from: start) { told in
        if case .driving(let epoch) = told.event { (epoch, told.at) } else { nil }
      }, "never drives\n\(text)")
    return (found.value.0, found.value.1, found.next)
  }
  /// - Returns: the index after it.
  @discardableResult
  func wait(from start: Int = 0, _ what: String, _ match: (StoreEvent) -> Bool) throws -> Int {
    try #require(journal.wait(from: start) { match($0.event) ? true : nil }, "no \(what)\n\(text)").next
  }
  var text: String { journal.all.map { "\($0.at) \($0.event)" }.joined(separator: "\n") }
}
