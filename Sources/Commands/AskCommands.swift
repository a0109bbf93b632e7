import ClusterHarness
import Foundation
import HTTP2
import Synchronization
import Terminal

// recommend, rank and similar: each sends requests to a cluster, few at a time, and prints the answers in the order of
// the requests. A request that fails has its error as its answer line.

extension Command {
  static let recommend = Command(
    name: "recommend",
    summary: "Ask a cluster for the best items for a customer",
    discussion: """
      --requests holds one JSON object per line, the body of POST /v1/recommend; "-" reads standard input. One answer
      per line comes back, in the same order. Or ask for one customer with --user.
      """,
    example: "shortlist recommend --url http://127.0.0.1:8080 --user 17850 --k 5",
    options: askOptions + [
      .text("user", "ID", "one customer, instead of --requests"),
      .integer("k", "how many items (with --user)", in: 1...1000, standard: 20),
      .flag("exclude-seen", "leave out what the customer has had (with --user)"),
      .flag("explain", "say what each score is made of (with --user)"),
    ],
    run: { try ask($0, path: "/v1/recommend", subject: "user") })

  static let rank = Command(
    name: "rank",
    summary: "Ask a cluster to order given items for a customer",
    discussion: """
      --requests holds one JSON object per line, the body of POST /v1/rank; "-" reads standard input.
      For example {"user": "17850", "items": ["85123A", "71053"]}
      """,
    example: "shortlist rank --url http://127.0.0.1:8080 --requests requests.jsonl",
    options: askOptions,
    run: { try ask($0, path: "/v1/rank", subject: nil) })

  static let similar = Command(
    name: "similar",
    summary: "Ask a cluster for items like a given one",
    discussion: """
      --requests holds one JSON object per line, the body of POST /v1/similar; "-" reads standard input. Or ask for one
      item with --item.
      """,
    example: "shortlist similar --url http://127.0.0.1:8080 --item 85123A --k 5",
    options: askOptions + [
      .text("item", "ID", "one item, instead of --requests"),
      .integer("k", "how many items (with --item)", in: 1...1000, standard: 20),
      .flag("explain", "say what each score is made of (with --item)"),
    ],
    run: { try ask($0, path: "/v1/similar", subject: "item") })

  private static let askOptions: [Option] =
    [
      .text("url", "URL", "the coordinator").required,
      .text("requests", "FILE", "requests, one JSON object per line"),
      .integer("connections", "how many requests at a time", in: 1...64, standard: 4),
    ] + trustOptions

  /// - Parameter subject: the option that stands for a single request, and its JSON field.
  private static func ask(_ invocation: Invocation, path: String, subject: String?) throws -> Int32 {
    let server = try serverURL(invocation)
    if let subject, let id = invocation.optional(subject) {
      guard invocation.optional("requests") == nil else {
        throw UsageError("--\(subject) and --requests exclude each other")
      }
      return try askOnce(invocation, server, path, subject, id)
    }
    guard let file = invocation.optional("requests") else {
      let other = subject.map { " or --\($0) ID" } ?? ""
      throw UsageError("--requests FILE\(other) is missing, for example: \(invocation.command.example)")
    }
    let requests = try RequestFile.read(file)
    let batch = RequestBatch(server: server, path: path, requests: requests)
    let failures = batch.run(connections: invocation.integer("connections")) { line in
      Console.write(line + [UInt8(ascii: "\n")])
    }
    if let first = failures.first {
      throw CommandError(
        "\(failures.count) of \(requests.count) requests failed; the first, of line \(first.line): \(first.reason)")
    }
    return 0
  }

  private static func askOnce(
    _ invocation: Invocation, _ server: ServerURL, _ path: String, _ subject: String, _ id: String
  ) throws -> Int32 {
    var request: [String: Any] = [subject: id, "k": invocation.integer("k")]
    if subject == "user", invocation.flag("exclude-seen") { request["exclude_seen"] = true }
    if invocation.flag("explain") { request["explain"] = true }
    var http = PlainHTTP(server)
    let response = try http.post(path, try JSONSerialization.data(withJSONObject: request, options: .sortedKeys))
    guard response.status == 200 else { throw CommandError(RequestBatch.reason(response)) }
    if invocation.json {
      Console.print(response.text)
    } else {
      Console.print(try AnswerView(response.body).text)
    }
    return 0
  }

  static func serverURL(_ invocation: Invocation) throws -> ServerURL {
    do {
      let server = try ServerURL(invocation.text("url"))
      try believe(server, invocation)
      return server
    } catch let error as HarnessError { throw UsageError("--url \(error)") }
  }

  /// Has an https server believed as the options say; without them, as the system does.
  static func believe(_ server: ServerURL, _ call: Invocation) throws {
    let files = TLSFiles(
      authority: call.optional("ca") ?? "", certificate: call.optional("certificate") ?? "",
      key: call.optional("key") ?? "")
    if let file = call.optional("token-file") {
      guard let text = try? String(contentsOfFile: file, encoding: .utf8) else {
        throw CommandError("\(file): cannot be read as text")
      }
      let token = text.trimmingCharacters(in: .whitespacesAndNewlines)
      guard !token.isEmpty, token.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else {
        throw CommandError("\(file): must hold one token, and nothing else")
      }
      TLSTrust.set(token: token, for: server.authority)
    }
    guard files != TLSFiles() else { return }
    guard server.isSecure else {
      throw UsageError("--ca, --certificate and --key are for https, and --url is \(server)")
    }
    guard files.certificate.isEmpty == files.key.isEmpty else {
      throw UsageError("--certificate and --key belong together")
    }
    TLSTrust.set(files, for: server.authority)
  }
  static let trustOptions: [Option] = [
    .text("ca", "FILE", "for https: the CA that is believed (default: the system's)"),
    .text("certificate", "FILE", "for https: what is shown to a server that asks, such as an admin port"),
    .text("key", "FILE", "for https: its key"),
    .text("token-file", "FILE", "holds the bearer token that is shown"),
  ]
}

/// A file of requests, one JSON object per line.
struct RequestFile {
  /// The lines that are not blank, each with its number from 1.
  static func read(_ path: String) throws -> [(line: Int, body: [UInt8])] {
    let data: Data
    if path == "-" {
      data = FileHandle.standardInput.readDataToEndOfFile()
    } else if let read = FileManager.default.contents(atPath: path) {
      data = read
    } else {
      throw CommandError("cannot read the requests \(path)")
    }
    let requests = data.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated()
      .map { (line: $0.offset + 1, body: [UInt8]($0.element)) }
      .filter { !$0.body.allSatisfy { $0 == 32 || $0 == 13 || $0 == 9 } }
    guard !requests.isEmpty else { throw CommandError("\(path) holds no request; one JSON object per line is needed") }
    return requests
  }
}

/// Requests sent over a few connections, with the answers handed on in order.
struct RequestBatch: Sendable {
  struct Failure: Sendable {
    var line: Int
    var reason: String
  }
  let server: ServerURL
  let path: String
  let requests: [(line: Int, body: [UInt8])]

  private struct State {
    var next = 0
    var printed = 0
    var answers: [Int: [UInt8]] = [:]
    var failures: [Failure] = []
  }

  /// Sends everything; `emit` gets each answer as one line without its end.
  func run(connections: Int, emit: @escaping @Sendable ([UInt8]) -> Void) -> [Failure] {
    let state = Mutex(State())
    DispatchQueue.concurrentPerform(iterations: min(connections, requests.count)) { _ in
      var http = PlainHTTP(server)
      while let index = state.withLock({ state in
        defer { state.next += 1 }
        return state.next < requests.count ? state.next : nil
      }) {
        let (answer, reason) = ask(&http, requests[index].body)
        state.withLock { state in
          state.answers[index] = answer
          if let reason { state.failures.append(Failure(line: requests[index].line, reason: reason)) }
          while let line = state.answers.removeValue(forKey: state.printed) {
            emit(line)
            state.printed += 1
          }
        }
      }
    }
    return state.withLock { $0.failures.sorted { $0.line < $1.line } }
  }

  private func ask(_ http: inout PlainHTTP, _ body: [UInt8]) -> (answer: [UInt8], failure: String?) {
    do {
      let response = try http.post(path, body)
      // JSON has no raw line ends inside strings: what is one is only layout.
      let line = response.body.filter { $0 != 10 && $0 != 13 }
      return (line, response.status == 200 ? nil : Self.reason(response))
    } catch {
      let answer = ["error": ["code": "unavailable", "message": error.message, "request_id": ""]]
      let data = try? JSONSerialization.data(withJSONObject: answer, options: [.sortedKeys, .withoutEscapingSlashes])
      return ([UInt8](data ?? Data("{}".utf8)), error.message)
    }
  }

  /// The message of an error reply.
  static func reason(_ response: PlainHTTP.Response) -> String {
    let object = (try? JSONSerialization.jsonObject(with: Data(response.body))) as? [String: Any]
    let error = object?["error"] as? [String: Any]
    return error?["message"] as? String ?? "HTTP \(response.status)"
  }
}

/// An answer as people read it.
struct AnswerView {
  struct Item {
    var id: String
    var score: Double
    /// What the score is made of, where that was asked for.
    var parts: String?
  }
  var items: [Item]
  var shards: Int
  var answered: Int
  var coldStart: Bool
  var version: String
  var milliseconds: Double

  init(_ body: [UInt8]) throws {
    guard let object = (try? JSONSerialization.jsonObject(with: Data(body))) as? [String: Any],
      let items = object["items"] as? [[String: Any]], let coverage = object["coverage"] as? [String: Any]
    else { throw CommandError("the server's answer is not one of Shortlist's") }
    self.items = items.map {
      Item(
        id: $0["id"] as? String ?? "?", score: ($0["score"] as? NSNumber)?.doubleValue ?? 0,
        parts: ($0["explain"] as? [String: Any]).map(Self.parts))
    }
    shards = coverage["shards"] as? Int ?? 0
    answered = coverage["answered"] as? Int ?? 0
    coldStart = object["cold_start"] as? Bool ?? false
    version = "\(object["model"] as? String ?? "?")/\(object["version"] as? String ?? "?")"
    milliseconds = (object["took_ms"] as? NSNumber)?.doubleValue ?? 0
  }

  private static let partsMax = 6

  /// The raw score as a sum, what moves it most first; beyond some parts the rest is one.
  private static func parts(_ explanation: [String: Any]) -> String {
    func number(_ value: Any?) -> Double { (value as? NSNumber)?.doubleValue ?? 0 }
    let parts = (explanation["contributions"] as? [String: Any] ?? [:]).map { ($0.key, number($0.value)) }
      .sorted { (abs($1.1), $0.0) < (abs($0.1), $1.0) }
    let (shown, rest) = (parts.prefix(partsMax), parts.dropFirst(partsMax))
    var text = String(format: "%.4f = %.4f", number(explanation["raw"]), number(explanation["base"]))
    for (name, value) in shown { text += String(format: " %@ %.4f ", value < 0 ? "-" : "+", abs(value)) + name }
    if !rest.isEmpty { text += String(format: " %+.4f", rest.reduce(0) { $0 + $1.1 }) + " of \(rest.count) others" }
    return text
  }

  var text: String {
    let isExplained = items.contains { $0.parts != nil }
    var table = TextTable(["", "item", "score"] + (isExplained ? ["raw score = base + contributions"] : []))
    for (index, item) in items.enumerated() {
      table.add(
        ["\(index + 1)", item.id, String(format: "%.4f", item.score)] + (isExplained ? [item.parts ?? ""] : []))
    }
    let note = coldStart ? ", unknown customer: the cold-start answer" : ""
    return table.text
      + "\n\(version), \(answered) of \(shards) shards, \(String(format: "%.1f", milliseconds)) ms\(note)"
  }
}
