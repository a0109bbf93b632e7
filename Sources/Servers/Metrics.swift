import RankingCore
import Wire

// Prometheus text exposition (format 0.0.4), written from plain counters that live on the node's loop: no locks, no
// registry, one function per process that lists everything it has.

/// Latencies in fixed buckets, cumulative only when written.
public struct LatencyHistogram: Sendable {
  /// Upper bounds in seconds: fine where ranking lives (1–100 ms), coarse elsewhere.
  public static let bounds: [Double] = [
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 5,
  ]
  private var counts = [UInt64](repeating: 0, count: bounds.count + 1)
  private var sum = 0.0
  public private(set) var count: UInt64 = 0

  public mutating func record(_ duration: Duration) {
    let seconds = Double(duration.nanoseconds) / 1e9
    var index = 0
    while index < Self.bounds.count, seconds > Self.bounds[index] { index += 1 }
    counts[index] += 1
    count += 1
    sum += seconds
  }

  func write(_ name: String, labels: String, into text: inout MetricsText) {
    var cumulative: UInt64 = 0
    let prefix = labels.isEmpty ? "" : labels + ","
    for (bound, count) in zip(Self.bounds, counts) {
      cumulative += count
      text.line("\(name)_bucket", "\(prefix)le=\"\(bound)\"", "\(cumulative)")
    }
    text.line("\(name)_bucket", "\(prefix)le=\"+Inf\"", "\(count)")
    text.line("\(name)_sum", labels, "\(sum)")
    text.line("\(name)_count", labels, "\(count)")
  }
}

struct MetricsText {
  private(set) var text = ""

  mutating func family(_ name: String, _ type: String, _ help: String) {
    text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
  }
  mutating func line(_ name: String, _ labels: String, _ value: String) {
    text += labels.isEmpty ? "\(name) \(value)\n" : "\(name){\(labels)} \(value)\n"
  }
  mutating func counter(_ name: String, _ help: String, _ value: UInt64) {
    family(name, "counter", help)
    line(name, "", "\(value)")
  }
  mutating func gauge(_ name: String, _ help: String, _ value: Double) {
    family(name, "gauge", help)
    line(name, "", "\(value)")
  }
  static func escaped(_ value: String) -> String {
    var out = ""
    for character in value {
      switch character {
      case "\\": out += "\\\\"
      case "\"": out += "\\\""
      case "\n": out += "\\n"
      default: out.append(character)
      }
    }
    return out
  }
}

/// What a coordinator counts, by endpoint and by reason.
struct CoordinatorMetrics {
  enum Endpoint: String, CaseIterable {
    case recommend, rank, similar
    init(_ api: PublicAPI) {
      switch api {
      case .recommend: self = .recommend
      case .rank: self = .rank
      case .similar: self = .similar
      }
    }
    /// The place in `allCases`.
    var index: Int {
      switch self {
      case .recommend: 0
      case .rank: 1
      case .similar: 2
      }
    }
  }
  private var requests = [UInt64](repeating: 0, count: Endpoint.allCases.count)
  private var latencies = [LatencyHistogram](repeating: LatencyHistogram(), count: Endpoint.allCases.count)
  private var errors = [UInt64](repeating: 0, count: RankingError.Code.allCases.count)
  private(set) var partial: UInt64 = 0
  private(set) var coverageSum = 0.0
  private(set) var answered: UInt64 = 0

  mutating func received(_ endpoint: Endpoint) { requests[endpoint.index] += 1 }
  mutating func answered(_ endpoint: Endpoint, _ answer: Answer, took: Duration) {
    latencies[endpoint.index].record(took)
    answered += 1
    coverageSum += answer.coverage.items
    if !answer.coverage.missing.isEmpty { partial += 1 }
  }
  mutating func failed(_ endpoint: Endpoint, _ error: RankingError, took: Duration) {
    latencies[endpoint.index].record(took)
    errors[RankingError.Code.allCases.firstIndex(of: error.code)!] += 1
  }

  func write(into text: inout MetricsText) {
    text.family("shortlist_requests_total", "counter", "Ranking requests received, by endpoint.")
    for (endpoint, count) in zip(Endpoint.allCases, requests) {
      text.line("shortlist_requests_total", "endpoint=\"\(endpoint.rawValue)\"", "\(count)")
    }
    text.family("shortlist_errors_total", "counter", "Ranking requests that were not answered, by reason.")
    for (code, count) in zip(RankingError.Code.allCases, errors) {
      text.line("shortlist_errors_total", "reason=\"\(code.rawValue)\"", "\(count)")
    }
    text.family("shortlist_request_duration_seconds", "histogram", "From the whole request read to its answer made.")
    for (endpoint, histogram) in zip(Endpoint.allCases, latencies) {
      histogram.write("shortlist_request_duration_seconds", labels: "endpoint=\"\(endpoint.rawValue)\"", into: &text)
    }
    text.counter("shortlist_answers_total", "Requests answered, fully or in part.", answered)
    text.counter("shortlist_partial_answers_total", "Answers that do not speak for every shard.", partial)
    text.family("shortlist_answer_coverage_items_total", "counter", "Sum of coverage.items over all answers.")
    text.line("shortlist_answer_coverage_items_total", "", "\(coverageSum)")
  }
}
