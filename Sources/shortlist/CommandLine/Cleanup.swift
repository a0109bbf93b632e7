import Foundation
import Synchronization

#if canImport(Glibc)
  import Glibc
#endif

/// What must be undone when the process is told to end, however far it has come.
enum Cleanup {
  private static let actions = Mutex<[Int: @Sendable () -> Void]>([:])
  private static let nextID = Mutex(0)

  /// Adds an action; the last added runs first. Returns what removes it again.
  static func add(_ action: @escaping @Sendable () -> Void) -> Int {
    let id = nextID.withLock { id in
      id += 1
      return id
    }
    actions.withLock { $0[id] = action }
    return id
  }
  static func remove(_ id: Int) { actions.withLock { $0[id] = nil } }

  /// Runs every action once.
  static func run() {
    let taken = actions.withLock { actions in
      defer { actions = [:] }
      return actions
    }
    for id in taken.keys.sorted(by: >) { taken[id]?() }
  }
}

/// SIGINT, SIGTERM and SIGHUP as values that one thread waits for, instead of handlers that may do nothing.
enum Signals {
  static let ending = [SIGINT, SIGTERM, SIGHUP]

  private static func endingSet() -> sigset_t {
    var set = sigset_t()
    sigemptyset(&set)
    for signal in ending { sigaddset(&set, signal) }
    return set
  }

  /// To be called before any other thread exists: they inherit the mask.
  static func block() {
    var set = endingSet()
    pthread_sigmask(SIG_BLOCK, &set, nil)
    signal(SIGPIPE, SIG_IGN)
  }

  /// The next one, or `nil` when none has come within `limit`.
  static func next(within limit: Duration) -> Int32? {
    var set = endingSet()
    let (seconds, attoseconds) = limit.components
    var wait = timespec(tv_sec: Int(seconds), tv_nsec: Int(attoseconds / 1_000_000_000))
    let signal = sigtimedwait(&set, nil, &wait)
    return signal > 0 ? signal : nil
  }

  /// Ends the process when one comes.
  static func endProcess() {
    let thread = Thread {
      while true {
        guard let signal = next(within: .seconds(3600)) else { continue }
        Console.live("")
        Cleanup.run()
        _exit(128 + signal)
      }
    }
    thread.name = "signals"
    thread.start()
  }
}
