/// Why a request has no answer: one shape for JSON, gRPC and the logs.
public struct RankingError: Error, Sendable, Equatable, CustomStringConvertible {
  public enum Code: String, Sendable, CaseIterable {
    case invalidArgument = "invalid_argument"
    case notFound = "not_found"
    case methodNotAllowed = "method_not_allowed"
    case tooLarge = "too_large"
    case overloaded
    /// Shards are missing, or nothing is published yet: worth another try elsewhere or later.
    case unavailable
    case deadlineExceeded = "deadline_exceeded"
    /// The client went away; nobody reads this one.
    case cancelled
    case `internal`
  }
  public var code: Code
  /// One sentence: what is wrong, where, and what is allowed.
  public var message: String
  /// The shards that are missing, when that is the reason.
  public var missing: [Coverage.Missing]

  public init(_ code: Code, _ message: String, missing: [Coverage.Missing] = []) {
    self.code = code
    self.message = message
    self.missing = missing
  }
  public var description: String { "\(code.rawValue): \(message)" }
}
