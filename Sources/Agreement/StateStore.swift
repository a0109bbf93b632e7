import RankingCore
import Transport

// One small document that several coordinators agree on, with a revision, and the history of how it came about. The
// only way to change it is compare-and-swap; nobody here knows what the bytes mean.
//
//     commit(expecting: 7, state, entry) ──► .committed(8)      state and entry are both in, for everybody, for ever
//                                        ──► .conflict(current) somebody else was first: look, decide again
//                                        ──► .unavailable(why)  nothing was written
//                                        ──► .unknown(why)      the one honest answer left: the next `.state` tells
//
// One coordinator at a time *drives*. Which one, the store says, with an epoch that is larger than every earlier
// driver's; what a driver commits is refused by the store itself once somebody else drives.
//
//     store.start { event in … }
//     .state(revision 7)  .driving(epoch: 3)      …  .away("connection refused")  .notDriving(nil)  …  .back
//
// A store lives on one event loop: it is called there, and calls back there.

/// The document as of one revision.
public struct StoredState: Sendable, Equatable {
  /// Grows with every commit; 0 = nothing has ever been committed.
  public var revision: UInt64
  /// How many commits there have been: the sequence of the last history entry.
  public var sequence: UInt64
  public var bytes: [UInt8]
  public init(revision: UInt64 = 0, sequence: UInt64 = 0, bytes: [UInt8] = []) {
    self.revision = revision
    self.sequence = sequence
    self.bytes = bytes
  }
}

/// One commit's line of history; the first has sequence 1, and there is no gap.
public struct HistoryEntry: Sendable, Equatable {
  public var sequence: UInt64
  public var bytes: [UInt8]
  public init(sequence: UInt64, bytes: [UInt8]) {
    self.sequence = sequence
    self.bytes = bytes
  }
}

/// What a store tells its observer.
public enum StoreEvent: Sendable, Equatable {
  /// First after the start, then at every change, whoever made it. Changes that follow each other closely may be told
  /// as one; revisions only grow.
  case state(StoredState)
  /// This process drives from now on.
  case driving(epoch: UInt64)
  /// This process does not drive (any more); told after the start, and whenever who drives changes.
  /// - Parameter driver: the name of the one that does; nil when nobody does or it is not known.
  case notDriving(driver: String?)
  /// What was told last may be out of date, and nothing can be committed.
  /// - Parameter since: when the store last heard of it.
  case away(since: Instant, why: String)
  /// The state is known again; a change in between is told before this.
  case back
  /// The store cannot be used, and waiting will not help: it is damaged, or another process has it. Nothing follows.
  case failed(why: String)
}

/// On whose behalf something is committed.
public enum CommitAuthority: Sendable, Equatable {
  /// An operator's wish: any coordinator may carry it in.
  case anyone
  /// A step of the driver's own: refused unless this epoch still drives, checked by the store with the commit.
  case driver(epoch: UInt64)
}

/// How a commit ended.
public enum CommitOutcome: Sendable, Equatable {
  case committed(revision: UInt64)
  /// The state is at another revision than the one expected. Nothing was written.
  case conflict(current: StoredState)
  /// The epoch does not drive any more. Nothing was written.
  case notDriving
  /// Nothing was written.
  case unavailable(why: String)
  /// Whether it went in could not be learnt in time. It may still: the state's revision will tell.
  case unknown(why: String)
  /// The store takes no such thing: too long, or not a line. Nothing was written.
  case refused(why: String)
}

/// Why the history could not be read.
public struct HistoryError: Error, Sendable, Equatable, CustomStringConvertible {
  public let description: String
  init(_ description: String) { self.description = description }
}

public protocol StateStore: AnyObject {
  /// Begins; once, on the loop. `observer` is called on the loop, never before this returns.
  func start(_ observer: @escaping (StoreEvent) -> Void)

  /// Replaces the state if it still is at the revision `expecting`, together with one line of history.
  ///
  /// The observer hears of the new state before `completion` is called, which is once, later, on the loop.
  /// - Parameters:
  ///   - state: at most `StoreLimit.stateBytes`.
  ///   - entry: one line without its end, 1…`StoreLimit.entryBytes`; JSON if the history should be JSON lines.
  func commit(
    expecting revision: UInt64, state: [UInt8], entry: [UInt8], as authority: CommitAuthority,
    completion: @escaping (CommitOutcome) -> Void)

  /// Reads up to `limit` (at most `StoreLimit.historyEntries`) entries in ascending order, from `sequence` (≥ 1) on.
  func history(
    from sequence: UInt64, limit: Int, completion: @escaping (Result<[HistoryEntry], HistoryError>) -> Void)

  /// The epoch with which this process drives at this very instant; nil when it does not. To be asked before every step
  /// that only a driver may take: a process that was suspended finds out here before any event tells it.
  func drivingEpoch(now: Instant) -> UInt64?

  /// Gives up driving at once, lets go of the store, and tells nothing more.
  func stop(_ completion: @escaping () -> Void)
}

public enum StoreLimit {
  /// Of the document: what etcd takes in one request (1.5 MiB by default), less room for the entry.
  public static let stateBytes = 1 << 20
  /// Of one line of history.
  public static let entryBytes = 16 << 10
  /// Read at once: some 8 MiB at worst.
  public static let historyEntries = 512
  /// Commits that wait for an earlier one.
  static let commitsWaiting = 16

  /// Why something is not taken; nil when it is.
  static func refusal(state: [UInt8], entry: [UInt8]) -> String? {
    if state.count > stateBytes { return "the state is \(state.count) bytes, at most \(stateBytes) are kept" }
    if entry.isEmpty { return "the history entry is empty" }
    if entry.count > entryBytes { return "the history entry is \(entry.count) bytes, at most \(entryBytes) are kept" }
    if entry.contains(UInt8(ascii: "\n")) { return "the history entry is more than one line" }
    return nil
  }
}
