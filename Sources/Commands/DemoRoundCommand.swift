import Bundles
import ClusterHarness
import Foundation
import Synchronization
import Terminal

// One round of the demo: asks for some hundred customers, checks every answer against what the customer has bought, and
// shows a few of them by product name. The demo runs it, kills a worker, and runs it again.

extension Command {
  static let demoRound = Command(
    name: "demo-round",
    summary: "One round of the demo's requests, checked and shown",
    example: "shortlist demo-round --url http://127.0.0.1:8080 --interactions i.csv --items items.csv --answers a",
    options: [
      .text("url", "URL", "the coordinator").required,
      .text("interactions", "FILE", "user,item,weight,timestamp").required,
      .text("items", "FILE", "products: id and name in the first two columns").required,
      .text("answers", "FILE", "where the answers are kept for --compare").required,
      .integer("customers", "how many customers", in: 1...100_000, standard: 200),
      .integer("show", "how many of them are shown", in: 0...20, standard: 0),
      .flag("compare", "the answers must be those of the round before"),
    ] + trustOptions,
    isHidden: true,
    run: { try DemoRound($0).run() })
}

private struct DemoRound {
  struct Purchase {
    var item: String
    /// Seconds, or a date as text; within one file it is one or the other.
    var seconds: Double
    var date: String
  }
  let invocation: Invocation
  let server: ServerURL
  /// Everything each customer bought, in the order of the file.
  private var purchases: [String: [Purchase]] = [:]
  private var customers: [String] = []
  private var names: [String: String] = [:]
  private static let k = 5

  init(_ invocation: Invocation) throws {
    self.invocation = invocation
    server = try Command.serverURL(invocation)
    try readItems(invocation.text("items"))
    try readInteractions(invocation.text("interactions"))
  }

  private mutating func readItems(_ path: String) throws {
    var reader = try CSVReader(path: path)
    guard reader.header.count >= 2 else { throw CommandError("\(path) needs two columns, id and name") }
    while let row = try reader.next() { names[row[0]] = row[1] }
  }

  private mutating func readInteractions(_ path: String) throws {
    var reader = try CSVReader(path: path)
    let (user, item, time) = (try reader.column("user"), try reader.column("item"), try reader.column("timestamp"))
    while let row = try reader.next() {
      purchases[row[user], default: []].append(
        Purchase(item: row[item], seconds: Double(row[time]) ?? 0, date: row[time]))
    }
    // The busiest customers make dull reading and the idle ones are thin: those in the middle, spread evenly.
    let known = purchases.keys.filter { (20...60).contains(purchases[$0]?.count ?? 0) }.sorted()
    let count = min(invocation.integer("customers"), known.count)
    customers = (0..<count).map { known[$0 * known.count / count] }
    guard !customers.isEmpty else { throw CommandError("\(path) holds no customer with 20 to 60 purchases") }
  }

  func run() throws -> Int32 {
    let bodies = customers.map { Array(#"{"user":"\#($0)","k":\#(Self.k),"exclude_seen":true}"#.utf8) }
    let batch = RequestBatch(
      server: server, path: "/v1/recommend",
      requests: bodies.enumerated().map { (line: $0.offset + 1, body: $0.element) })
    let lines = Mutex<[[UInt8]]>([])
    let failures = batch.run(connections: 4) { line in lines.withLock { $0.append(line) } }
    if let first = failures.first {
      throw CommandError("\(failures.count) of \(customers.count) requests failed: \(first.reason)")
    }
    let answers = try lines.withLock { $0 }.map { try AnswerView($0) }
    try check(answers)
    for (customer, answer) in zip(customers, answers).prefix(invocation.integer("show")) { show(customer, answer) }
    let slowest = answers.map(\.milliseconds).max() ?? 0
    let same = try compare(answers) ? ", the same as before" : ""
    Console.print(
      "\n   \(answers.count) customers asked: every answer complete (all \(answers[0].shards) shards)\(same), "
        + "nothing recommended that was bought before; the slowest took "
        + String(format: "%.1f ms", slowest))
    return 0
  }

  private func check(_ answers: [AnswerView]) throws {
    for (customer, answer) in zip(customers, answers) {
      guard answer.answered == answer.shards else {
        throw CommandError("the answer for \(customer) covers \(answer.answered) of \(answer.shards) shards")
      }
      guard !answer.coldStart, answer.items.count == Self.k else {
        throw CommandError(
          "\(customer) is a known customer and got \(answer.items.count) items, \(Self.k) were asked for")
      }
      let bought = Set((purchases[customer] ?? []).map(\.item))
      if let seen = answer.items.first(where: { bought.contains($0.id) }) {
        throw CommandError("\(customer) was recommended \(seen.id), which is already theirs")
      }
    }
  }

  /// Keeps the answers, or compares them with those kept.
  private func compare(_ answers: [AnswerView]) throws -> Bool {
    let path = invocation.text("answers")
    let text = zip(customers, answers).map { customer, answer in
      "\(customer) \(answer.version) " + answer.items.map { "\($0.id)=\($0.score)" }.joined(separator: " ")
    }.joined(separator: "\n")
    guard invocation.flag("compare") else {
      try text.write(toFile: path, atomically: true, encoding: .utf8)
      return false
    }
    let before = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
    for (old, new) in zip(before, text.split(separator: "\n")) where old != new {
      throw CommandError("an answer changed: it was \"\(old)\" and is \"\(new)\"")
    }
    return true
  }

  private func show(_ customer: String, _ answer: AnswerView) {
    let last = (purchases[customer] ?? []).enumerated()
      .sorted {
        ($0.element.seconds, $0.element.date, $0.offset) > ($1.element.seconds, $1.element.date, $1.offset)
      }
    let bought = last.prefix(Self.k).map { name(of: $0.element.item) }
    let recommended = answer.items.map { name(of: $0.id) }
    let width = 36
    let title = "Customer \(customer) bought last"
    Console.print("\n   \(pad(title, width))  …and may like\n   \(rule(width))  \(rule(width))")
    for index in 0..<max(bought.count, recommended.count) {
      let left = index < bought.count ? bought[index] : ""
      let right = index < recommended.count ? recommended[index] : ""
      Console.print("   \(pad(left, width))  \(right)")
    }
  }

  private func name(of item: String) -> String { names[item] ?? item }
  private func rule(_ width: Int) -> String { String(repeating: "─", count: width) }
  private func pad(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.count))
  }
}
