/// Why a file cannot be used, in one line: which file, where in it, what is wrong and what is allowed.
///
///     lines.csv:17: 4 columns where the header has 5
public struct InputError: Error, Sendable, Equatable, CustomStringConvertible {
  public var file: String
  /// Counted from 1; `nil` where lines mean nothing.
  public var line: Int?
  public var reason: String

  public init(file: String, line: Int? = nil, _ reason: String) {
    self.file = file
    self.line = line
    self.reason = reason
  }

  public var description: String {
    if let line { "\(file):\(line): \(reason)" } else { "\(file): \(reason)" }
  }
}
