/// Why a request has no answer: one shape for JSON, gRPC and the logs.
public struct RankingError: Error, Sendable, Equatable, CustomStringConvertible {
  public enum Code: String, Sendable, CaseIterable {
    case invalidArgument = "invalid_argument"
    /// No token, or none that is known here.
    case unauthenticated
    /// A token or certificate that opens other doors.
    case permissionDenied = "permission_denied"
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
  /// The field of the request that is wrong, where it is one.
  public var field: String?
  /// The shards that are missing, when that is the reason.
  public var missing: [Coverage.Missing]

  public init(_ code: Code, _ message: String, field: String? = nil, missing: [Coverage.Missing] = []) {
    self.code = code
    self.message = message
    self.field = field
    self.missing = missing
  }
  /// Whether the request itself is at fault, or nobody waits any more: no news to an operator.
  public var isOfTheClient: Bool {
    switch code {
    case .invalidArgument, .unauthenticated, .permissionDenied, .notFound, .methodNotAllowed, .tooLarge, .cancelled:
      true
    case .overloaded, .unavailable, .deadlineExceeded, .internal: false
    }
  }
  /// The field is said in the message already.
  public static func == (a: RankingError, b: RankingError) -> Bool {
    a.code == b.code && a.message == b.message && a.missing == b.missing
  }
  public var description: String { "\(code.rawValue): \(message)" }
}
