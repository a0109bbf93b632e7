import Glibc
import Synchronization

/// A fixed number of threads that score, so that no event loop ever does: a health probe is answered while a scan runs.
///
/// Jobs run in the order of submission. How many may wait is decided by `WorkerNode`, which never submits more than
/// there are threads; the queue here is therefore short by construction.
package final class ComputePool<Scratch>: @unchecked Sendable {
  package typealias Job = @Sendable (Scratch) -> Void
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var jobs: [Job] = []
  private var isStopping = false
  private var threads: [pthread_t] = []

  /// - Parameter scratch: made once per thread and handed to every job that runs there.
  package init(threads count: Int, scratch: @escaping @Sendable () -> Scratch) {
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
    for _ in 0..<count {
      let body = ThreadBody { [unowned self] in self.work(scratch()) }
      var thread = pthread_t()
      let result = pthread_create(
        &thread, nil,
        { context in
          Unmanaged<ThreadBody>.fromOpaque(context!).takeRetainedValue().run()
          return nil
        }, Unmanaged.passRetained(body).toOpaque())
      precondition(result == 0, "pthread_create failed: \(String(cString: strerror(result)))")
      threads.append(thread)
    }
  }

  package func submit(_ job: @escaping Job) {
    pthread_mutex_lock(mutex)
    jobs.append(job)
    pthread_mutex_unlock(mutex)
    pthread_cond_signal(condition)
  }

  /// Waits until the running jobs have ended; waiting ones are dropped. Must be called before the pool is released.
  package func stop() {
    pthread_mutex_lock(mutex)
    isStopping = true
    jobs.removeAll()
    pthread_mutex_unlock(mutex)
    pthread_cond_broadcast(condition)
    for thread in threads { pthread_join(thread, nil) }
    threads.removeAll()
  }

  deinit {
    precondition(threads.isEmpty, "ComputePool released while its threads run; call stop() first")
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  private func work(_ scratch: Scratch) {
    while true {
      pthread_mutex_lock(mutex)
      while jobs.isEmpty, !isStopping { pthread_cond_wait(condition, mutex) }
      if isStopping {
        pthread_mutex_unlock(mutex)
        return
      }
      let job = jobs.removeFirst()
      pthread_mutex_unlock(mutex)
      job(scratch)
    }
  }
}

private final class ThreadBody: @unchecked Sendable {
  let run: () -> Void
  init(_ run: @escaping () -> Void) { self.run = run }
}
