import Foundation

// What a long step shows of itself:
//
//   training  ██████████░░░░░░░░░░  50%  8/15 · 4 s left        redrawn in place on a terminal
//   training: done in 8.1 s                                      the one line it leaves, if it took over two seconds
//
// Elsewhere (a log, CI) it says at most one line every ten seconds.

/// The progress of one step; called from any one thread at a time.
package final class ProgressLine {
  private let title: String
  private let started = ContinuousClock.now
  private var lastDrawn: ContinuousClock.Instant
  private static let quietBefore: Duration = .seconds(2)

  package init(_ title: String) {
    self.title = title
    lastDrawn = started
  }

  /// Shows that `done` of `total` is done; cheap to call often.
  package func update(_ done: Int, of total: Int, note: String = "") {
    let now = ContinuousClock.now
    let pause: Duration = Console.errorIsTerminal ? .milliseconds(100) : .seconds(10)
    guard lastDrawn.duration(to: now) >= pause else { return }
    lastDrawn = now
    let text = Self.line(title, done, total, elapsed: started.duration(to: now), note: note)
    if Console.errorIsTerminal { Console.live(text) } else { Console.warn(text) }
  }

  /// Erases the bar, and leaves one line if the step was a long one.
  package func finish(_ note: String = "") {
    Console.live("")
    let elapsed = started.duration(to: .now)
    guard elapsed >= Self.quietBefore else { return }
    Console.warn("\(title): done in \(seconds(elapsed))\(note.isEmpty ? "" : ", \(note)")")
  }

  package static func line(_ title: String, _ done: Int, _ total: Int, elapsed: Duration, note: String) -> String {
    let share = total > 0 ? min(1, max(0, Double(done) / Double(total))) : 0
    let width = 20
    let full = Int(share * Double(width))
    let bar = String(repeating: "█", count: full) + String(repeating: "░", count: width - full)
    var text = "\(title)  \(bar)  \(Int(share * 100))%  \(done)/\(total)"
    if share > 0, share < 1, elapsed > Duration.seconds(1) {
      let left: Duration = elapsed * ((1 - share) / share)
      text += " · \(seconds(left)) left"
    }
    return note.isEmpty ? text : text + " · " + note
  }
}

/// "0.4 s", "12 s".
package func seconds(_ duration: Duration) -> String {
  let value: Double = duration / Duration.seconds(1)
  return value < 10 ? String(format: "%.1f s", value) : String(format: "%.0f s", value)
}
