import Foundation
import Synchronization

/// The one thread that starts children. "Kill me when my parent dies" means its parent *thread*, and the threads that
/// run tests and tasks come and go: this one never ends.
final class Spawner: Sendable {
  static let shared = Spawner()
  private let jobs = Mutex<[@Sendable () -> Void]>([])
  private let wake = DispatchSemaphore(value: 0)

  private init() {
    let thread = Thread { [self] in
      while true {
        wake.wait()
        let job = jobs.withLock { $0.isEmpty ? nil : $0.removeFirst() }
        job?()
      }
    }
    thread.name = "spawner"
    thread.start()
  }

  /// Runs `job` on the thread and returns what it returned.
  func run<Result: Sendable>(_ job: @escaping @Sendable () -> Result) -> Result {
    let box = ResultBox<Result>()
    jobs.withLock {
      $0.append { box.fill(job()) }
    }
    wake.signal()
    return box.wait()
  }
}

/// One value handed from one thread to another.
private final class ResultBox<Value: Sendable>: Sendable {
  private let value = Mutex<Value?>(nil)
  private let filled = DispatchSemaphore(value: 0)
  func fill(_ result: Value) {
    value.withLock { $0 = result }
    filled.signal()
  }
  func wait() -> Value {
    filled.wait()
    guard let result = value.withLock({ $0 }) else { preconditionFailure("signalled without a value") }
    return result
  }
}
