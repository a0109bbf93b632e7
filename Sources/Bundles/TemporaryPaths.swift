import Foundation
import Synchronization

/// What this process is writing and has not yet published. Whoever ends the process early (Ctrl-C) calls `removeAll()`
/// from an ordinary thread, never from inside a signal handler: it takes a lock and walks directories.
public enum TemporaryPaths {
  private struct Registry {
    var paths: Set<String> = []
    var closed = false
  }
  private static let registry = Mutex(Registry())

  /// Whether the path may be created: `false` once `removeAll()` has run.
  public static func add(_ path: String) -> Bool {
    registry.withLock {
      if $0.closed { return false }
      $0.paths.insert(path)
      return true
    }
  }

  /// It is somebody else's now, or gone.
  public static func remove(_ path: String) { registry.withLock { _ = $0.paths.remove(path) } }

  /// Those in use, sorted.
  public static var all: [String] { registry.withLock { $0.paths.sorted() } }

  /// Removes every temporary file and directory of this process, and refuses new ones: the process is about to end.
  public static func removeAll() {
    let paths = registry.withLock {
      $0.closed = true
      return $0.paths
    }
    for path in paths { try? FileManager.default.removeItem(atPath: path) }
  }
}
