import Glibc
import RankingCore
import Transport

// The store of a cluster with one coordinator: a directory. Whoever has its lock drives, so that a second coordinator
// that was given the same directory by mistake is told who has it and goes away.
//
//     the loop:    start   commit ──┐                      ┌──► .state ─► completion
//     the thread:  lock, settle,    └─► append … rename ───┘
//                  next epoch                                   no disk is ever waited for on the loop

public final class FileStateStore: StateStore, @unchecked Sendable {
  private let loop: EventLoop
  private let thread = StoreThread()
  private let owner: String
  /// Touched on the thread only.
  private var files: StateFiles

  // The rest is touched on the loop only.
  private var observer: (StoreEvent) -> Void = { _ in }
  private var told: StoredState?
  /// Nobody else can drive while the lock is held, whatever the disk does: once taken it stays.
  private var epoch: UInt64?
  private var hasToldDriver = false
  private var isAway = false
  private var heard: Instant
  private var isStopped = false
  private var waiting = 0
  private var retry: LoopTimer?
  /// A directory that cannot be used just now is tried again after this.
  private static let retryInterval: Duration = .seconds(1)

  /// - Parameters:
  ///   - directory: made when it is missing.
  ///   - name: whom a second process is told to have the directory.
  public convenience init(directory: String, name: String, loop: EventLoop) {
    self.init(directory: directory, name: name, loop: loop, disk: LocalDisk())
  }
  init(directory: String, name: String, loop: EventLoop, disk: any Disk) {
    self.loop = loop
    owner = "\(name), process \(getpid())"
    files = StateFiles(directory: directory, disk: disk)
    heard = loop.now
  }
  deinit { thread.stop() }

  /// What the thread has found out.
  private struct Report: Sendable {
    var state: StoredState?
    var epoch: UInt64?
    var problem: String?
    var isFinal = false
  }

  public func start(_ observer: @escaping (StoreEvent) -> Void) {
    self.observer = observer
    heard = loop.freshNow()
    thread.run { [self] in
      do throws(FilesError) {
        try files.lock(owner: owner)
        open()
      } catch {
        // Without the lock nothing is tried again.
        report(Report(problem: "\(error)", isFinal: true))
      }
    }
  }

  /// On the thread: finds out what is there, and takes the next epoch.
  private func open() {
    do throws(FilesError) {
      if !files.isSettled { try files.settle() }
      if files.epoch == nil { try files.takeEpoch() }
      report(summary(nil))
    } catch { report(summary("\(error)")) }
  }
  private func summary(_ problem: String?) -> Report {
    Report(
      state: files.isSettled ? files.state : nil, epoch: files.epoch, problem: files.damage ?? problem,
      isFinal: files.damage != nil)
  }
  private func report(_ report: Report, then done: @escaping @Sendable () -> Void = {}) {
    loop.execute { [self] in
      tell(report)
      done()
    }
  }

  private func tell(_ report: Report) {
    guard !isStopped else { return }
    if let problem = report.problem, report.isFinal {
      isStopped = true
      epoch = nil
      return observer(.failed(why: problem))
    }
    if let state = report.state {
      heard = loop.freshNow()
      if state != told {
        told = state
        observer(.state(state))
      }
    }
    if report.epoch != epoch || !hasToldDriver {
      hasToldDriver = true
      epoch = report.epoch
      observer(epoch.map { .driving(epoch: $0) } ?? .notDriving(driver: nil))
    }
    if report.state == nil || report.epoch == nil {
      if !isAway {
        isAway = true
        observer(.away(since: heard, why: report.problem ?? "not settled"))
      }
      retryLater()
    } else if isAway {
      isAway = false
      observer(.back)
    }
  }

  private func retryLater() {
    guard retry == nil else { return }
    retry = loop.schedule(after: Self.retryInterval) { [weak self] in
      guard let self else { return }
      retry = nil
      guard !isStopped else { return }
      thread.run { [self] in open() }
    }
  }

  public func commit(
    expecting revision: UInt64, state: [UInt8], entry: [UInt8], as authority: CommitAuthority,
    completion: @escaping (CommitOutcome) -> Void
  ) {
    let done = OnLoop(completion)
    func refuse(_ outcome: CommitOutcome) { loop.execute { done.body(outcome) } }
    if let why = StoreLimit.refusal(state: state, entry: entry) { return refuse(.refused(why: why)) }
    guard !isStopped else { return refuse(.unavailable(why: "the store is not in use")) }
    guard told != nil else { return refuse(.unavailable(why: "\(files.directory) has not been read yet")) }
    guard waiting < StoreLimit.commitsWaiting else {
      return refuse(.unavailable(why: "\(waiting) commits are waiting already"))
    }
    waiting += 1
    let id = UInt64.random(in: 0...UInt64.max)
    thread.run { [self] in
      let outcome = files.commit(expecting: revision, state: state, entry: entry, id: id, as: authority)
      var problem: String?
      if case .unavailable(let why) = outcome { problem = why }
      if case .unknown(let why) = outcome { problem = why }
      report(summary(problem)) { [self] in
        waiting -= 1
        done.body(outcome)
      }
    }
  }

  public func history(
    from sequence: UInt64, limit: Int, completion: @escaping (Result<[HistoryEntry], HistoryError>) -> Void
  ) {
    let done = OnLoop(completion)
    thread.run { [self] in
      var result: Result<[HistoryEntry], HistoryError>
      do throws(FilesError) {
        if !files.isSettled { throw .failed("\(files.directory) cannot be read just now") }
        result = .success(
          try files.history(from: sequence, limit: max(0, min(limit, StoreLimit.historyEntries))))
      } catch { result = .failure(HistoryError("\(error)")) }
      loop.execute { [result] in done.body(result) }
    }
  }

  public func drivingEpoch(now: Instant) -> UInt64? { isStopped ? nil : epoch }

  public func stop(_ completion: @escaping () -> Void) {
    isStopped = true
    epoch = nil
    let done = OnLoop { (_: Void) in completion() }
    thread.run { [self] in
      files.unlock()
      loop.execute { done.body(()) }
    }
  }
}

/// A piece of the loop's own work that travels through another thread.
struct OnLoop<Value>: @unchecked Sendable {
  let body: (Value) -> Void
  init(_ body: @escaping (Value) -> Void) { self.body = body }
}
