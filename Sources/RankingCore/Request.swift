// What clients ask, after parsing and before anything is looked up.

/// Limits on one request; parsing refuses what lies outside and names the field.
public enum RequestLimit {
  public static let k = 1...1000
  public static let candidates = 1...10_000
  /// The per-shard R when the request names none.
  public static let candidatesDefault = 200
  public static let kDefault = 20
  /// Ids in one list (`items`, `exclude`, `recent_items`).
  public static let ids = 1000
  public static let timeoutMilliseconds = 1.0...60_000.0
  public static let timeoutDefault: Duration = .milliseconds(500)
  /// The largest Euclidean norm of a query vector: beyond it float32 products overflow.
  public static let vectorNorm: Double = 1e18
  public static let vectorDimension = 4096
  public static let userBytes = 255
  public static let requestIDBytes = 128
  public static let contextFields = 64
  /// Contributions in one answer: 512 KiB of a leg's reply, and some 3 MB of JSON where none is 0.
  public static let explainedNumbers = 1 << 16
  public static let jsonDepth = 16
  public static let bodyBytes = 1 << 20
}

public enum Priority: String, Sendable { case interactive, batch }

public enum ContextValue: Sendable, Equatable {
  case number(Double)
  case text(String)
  case boolean(Bool)
}

/// One `/v1/recommend`, `/v1/rank` or `/v1/similar` request.
public struct RankingRequest: Sendable, Equatable {
  /// Whose taste the query vector stands for.
  public enum Subject: Sendable, Equatable {
    case user(String)
    /// A query vector given outright; its dimension is checked against the pinned version.
    case vector([Float])
    /// Ids, newest last; weights 0.85^i counted from the newest.
    case recentItems([String])
    /// `/v1/similar`: the item's own vector; the item itself is left out of the answer.
    case item(String)
    /// No subject named: the cold-start vector.
    case anyone
  }
  public enum Kind: Sendable, Equatable {
    /// The best k of the whole catalogue.
    case retrieve
    /// These ids, in order of their score.
    case rank([String])
  }

  public var kind: Kind
  public var subject: Subject
  public var model: String?
  public var version: String?
  public var k: Int
  /// The R asked for; `nil` = max(200, k).
  public var candidates: Int?
  public var excludeSeen: Bool
  public var exclude: [String]
  public var context: [(name: String, value: ContextValue)]
  public var minScore: Float?
  /// `nil` = every item.
  public var filter: Filter?
  public var diversity: Diversity?
  public var marginalRelevance: MarginalRelevance?
  /// Whether the answer says what each score is made of.
  public var explain: Bool
  public var timeout: Duration?
  public var minCoverage: Double
  /// From this share of the items on, wait only a quarter of what remains for the rest; `nil` = wait for all.
  public var earlyAt: Double?
  /// The same user (or session, or request id) keeps the same replicas while they are healthy.
  public var sticky: Bool
  /// Whom `sticky` goes by when no user is named.
  public var session: String?
  public var priority: Priority
  public var requestID: String
  /// `traceparent` for the workers.
  public var trace: String?

  public init(kind: Kind = .retrieve, subject: Subject = .anyone, k: Int = RequestLimit.kDefault) {
    self.kind = kind
    self.subject = subject
    self.k = k
    excludeSeen = false
    exclude = []
    context = []
    explain = false
    minCoverage = 0
    sticky = false
    priority = .interactive
    requestID = ""
  }

  /// R as asked: what each shard owes phase 2 unless admission lowers it.
  public var candidatesAsked: Int { candidates ?? max(RequestLimit.candidatesDefault, k) }

  public static func == (a: RankingRequest, b: RankingRequest) -> Bool {
    a.kind == b.kind && a.subject == b.subject && a.model == b.model && a.version == b.version && a.k == b.k
      && a.candidates == b.candidates && a.excludeSeen == b.excludeSeen && a.exclude == b.exclude
      && a.context.elementsEqual(b.context, by: { $0.name == $1.name && $0.value == $1.value })
      && a.minScore == b.minScore && a.filter == b.filter && a.diversity == b.diversity
      && a.marginalRelevance == b.marginalRelevance && a.timeout == b.timeout
      && a.explain == b.explain && a.minCoverage == b.minCoverage
      && a.earlyAt == b.earlyAt && a.sticky == b.sticky && a.session == b.session && a.priority == b.priority
      && a.requestID == b.requestID
  }
}
