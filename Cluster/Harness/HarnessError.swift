/// What went wrong with a local process or its surroundings: one line, and the tail of the log where there is one.
public struct HarnessError: Error, Sendable, CustomStringConvertible {
  /// One line that says what is wrong and, where it can, what to do.
  public var message: String
  /// The last lines the process wrote, newest last; empty when there is no log.
  public var logTail: String

  public init(_ message: String, logTail: String = "") {
    self.message = message
    self.logTail = logTail
  }
  public var description: String { logTail.isEmpty ? message : "\(message)\n\(logTail)" }
}
