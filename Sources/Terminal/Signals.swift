import Bundles
import Foundation
import Synchronization

#if canImport(Glibc)
  import Glibc
#endif

/// SIGINT, SIGTERM and SIGHUP as values that one thread waits for, instead of handlers that may do nothing.
package enum Signals {
  package static let ending = [SIGINT, SIGTERM, SIGHUP]

  private static func endingSet() -> sigset_t {
    var set = sigset_t()
    sigemptyset(&set)
    for signal in ending { sigaddset(&set, signal) }
    return set
  }

  /// To be called before any other thread exists: they inherit the mask.
  package static func block() {
    var set = endingSet()
    pthread_sigmask(SIG_BLOCK, &set, nil)
    signal(SIGPIPE, SIG_IGN)
  }

  /// The next one, or `nil` when none has come within `limit`.
  package static func next(within limit: Duration) -> Int32? {
    var set = endingSet()
    let (seconds, attoseconds) = limit.components
    var wait = timespec(tv_sec: Int(seconds), tv_nsec: Int(attoseconds / 1_000_000_000))
    let signal = sigtimedwait(&set, nil, &wait)
    return signal > 0 ? signal : nil
  }

  /// Ends the process when one comes, with what it was writing removed.
  package static func endProcess() {
    let thread = Thread {
      while true {
        guard let signal = next(within: .seconds(3600)) else { continue }
        Console.live("")
        TemporaryPaths.removeAll()
        _exit(128 + signal)
      }
    }
    thread.name = "signals"
    thread.start()
  }
}

/// Whether somebody wants a long command to end: asked now and then while it runs. The second signal ends the process
/// at once.
package final class Interrupt: Sendable {
  private let state = Mutex(false)
  package var isSet: Bool { state.withLock { $0 } }

  /// Listens from now on.
  /// - Parameter said: told at the first signal.
  package init(_ said: @escaping @Sendable () -> Void = {}) {
    let thread = Thread { [self] in
      while Signals.next(within: .seconds(3600)) == nil {}
      state.withLock { $0 = true }
      said()
      while Signals.next(within: .seconds(3600)) == nil {}
      Console.end(130)
    }
    thread.name = "signals"
    thread.start()
  }
}
