import ClusterHarness
import Foundation
import HTTP2
import RankingCore
import Synchronization
import Terminal
import Transport

#if canImport(Glibc)
  import Glibc
#endif

// Sends requests when they are due, whatever became of the earlier ones.
//
//   pacer thread: sleeps until the next arrival is due ──► loop: sends it on the next of a few HTTP/2 connections,
//                                                          measures from when it was *due* to the end of its answer
//
// A stall anywhere delays neither the schedule nor the measuring. At most `outstandingMax` requests are under way; an
// arrival beyond that is not sent but counted as "client saturated", because then this machine's memory would be what
// is measured.

package struct LoadGenerator: Sendable {
  package enum Endpoint: String, CaseIterable, Sendable {
    case recommend, rank, similar
    package var path: StaticString {
      switch self {
      case .recommend: "/v1/recommend"
      case .rank: "/v1/rank"
      case .similar: "/v1/similar"
      }
    }
  }
  package var server: ServerURL
  package var endpoint: Endpoint
  package var requests: [[UInt8]]
  package var rate: Double
  package var duration: Duration
  package var poisson: Bool
  package var seed: UInt64
  package var connections: Int
  package var outstandingMax: Int
  /// How long one request may take, counted from when it was due.
  package var limit: Duration
  /// Keeps what became of each request.
  package var traces = false
  /// Gets the end of every request, on the loop's thread.
  package var ended: (@Sendable (RequestEnd) -> Void)?

  package init(
    server: ServerURL, endpoint: Endpoint, requests: [[UInt8]], rate: Double, duration: Duration, poisson: Bool,
    seed: UInt64, connections: Int, outstandingMax: Int, limit: Duration
  ) {
    self.server = server
    self.endpoint = endpoint
    self.requests = requests
    self.rate = rate
    self.duration = duration
    self.poisson = poisson
    self.seed = seed
    self.connections = connections
    self.outstandingMax = outstandingMax
    self.limit = limit
  }

  /// How one request ended; times as `Monotonic` tells.
  package struct RequestEnd: Sendable {
    package var number: Int
    package var due: Duration
    /// nil = it was never sent.
    package var sent: Duration?
    package var ended: Duration
    package var outcome: LoadTally.Outcome
    /// Of any status; nil = there was none.
    package var response: ClientResponse?
    /// The answer; empty when there is none.
    package var body: [UInt8] { response.map { $0.status == 200 ? $0.body : [] } ?? [] }
  }

  package struct Run: Sendable {
    package var tally: LoadTally
    package var elapsed: Duration
    /// Empty unless `traces`.
    package var trace: LoadTrace
  }

  /// Runs to the end, or until `stopped`; `tick` gets the tally once a second, from the calling thread.
  /// - Parameter started: told when the first request is due, as `Monotonic` counts.
  /// - Throws: `CommandError` when the server cannot be reached at all.
  package func run(
    stopped: @escaping @Sendable () -> Bool, started: (Duration) -> Void = { _ in },
    tick: (LoadTally, Duration) -> Void = { _, _ in }
  ) throws -> Run {
    let loop = EventLoop()
    let run = LoadRun(self, loop)
    loop.start()
    defer { loop.stop() }
    try run.connect()
    let start = Monotonic.now
    run.start = start
    started(start)
    let pacer = Thread {
      var schedule = ArrivalSchedule(rate: rate, poisson: poisson, seed: seed)
      var index = 0
      while !stopped() {
        let due = schedule.next()
        guard due < duration else { break }
        // In slices, so that Ctrl-C is not kept waiting by a slow schedule.
        while Monotonic.now < start + due, !stopped() {
          Monotonic.wait(until: min(start + due, Monotonic.now + .milliseconds(100)))
        }
        guard !stopped() else { break }
        let number = index
        loop.execute { run.send(number, due: start + due) }
        index += 1
      }
      loop.execute { run.finish() }
    }
    pacer.name = "pacer"
    pacer.start()
    while run.done.wait(timeout: .now() + 1) == .timedOut { tick(run.tally, Monotonic.now - start) }
    return Run(tally: run.tally, elapsed: Monotonic.now - start, trace: run.trace)
  }

  /// The `code` of an error reply.
  package static func errorCode(_ response: ClientResponse) -> String {
    let object = (try? JSONSerialization.jsonObject(with: Data(response.body))) as? [String: Any]
    let error = object?["error"] as? [String: Any]
    return error?["code"] as? String ?? "HTTP \(response.status)"
  }

  package static func outcome(of result: Result<ClientResponse, ClientFailure>) -> LoadTally.Outcome {
    switch result {
    case .success(let response):
      guard response.status == 200 else { return .failed(errorCode(response)) }
      guard let complete = isComplete(response.body) else { return .failed("not an answer") }
      return complete ? .ok : .degraded
    case .failure(let failure):
      switch failure {
      case .connectionLost: return .failed("connection lost")
      case .refused: return .failed("refused")
      case .reset(let code): return .failed("reset \(code)")
      case .cancelled: return .failed("timeout")
      case .responseTooLarge: return .failed("answer too large")
      }
    }
  }

  /// Whether an answer covers every shard, read from its `coverage` without parsing the rest.
  package static func isComplete(_ body: [UInt8]) -> Bool? {
    guard let coverage = find("\"coverage\"", in: body[...]),
      let shards = number(after: "\"shards\"", in: body[coverage...]),
      let answered = number(after: "\"answered\"", in: body[coverage...])
    else { return nil }
    return answered >= shards
  }

  /// The index after the last place where `key` stands: an item's id could contain the same text, coverage comes later.
  private static func find(_ key: StaticString, in bytes: ArraySlice<UInt8>) -> Int? {
    key.withUTF8Buffer { key in
      guard bytes.count >= key.count else { return nil }
      var index = bytes.endIndex - key.count
      while index >= bytes.startIndex {
        if bytes[index] == key[0], bytes[index..<(index + key.count)].elementsEqual(key) { return index + key.count }
        index -= 1
      }
      return nil
    }
  }

  private static func number(after key: StaticString, in bytes: ArraySlice<UInt8>) -> Int? {
    guard let end = find(key, in: bytes) else { return nil }
    let rest = bytes[end...].drop { $0 == UInt8(ascii: ":") || $0 == 32 }
    return Int(String(decoding: rest.prefix { (48...57).contains($0) }, as: UTF8.self))
  }
}

/// One run of the generator. Everything but `tally` and `done` belongs to the loop's thread.
private final class LoadRun: HTTPClientDelegate, @unchecked Sendable {
  package let done = DispatchSemaphore(value: 0)
  package var tally: LoadTally { shared.withLock { $0 } }
  /// To be read when it is done, written before the first request.
  private(set) var trace = LoadTrace()
  package var start: Duration = .zero
  private let shared = Mutex(LoadTally())
  private let plan: LoadGenerator
  private let loop: EventLoop
  private var clients: [HTTPClient] = []
  private var outstanding = 0
  private var isFinishing = false
  private let connected = DispatchSemaphore(value: 0)
  private var waiting: Int
  private let refusal = Mutex<String?>(nil)
  private let headers: [(StaticString, String)]

  package init(_ plan: LoadGenerator, _ loop: EventLoop) {
    self.plan = plan
    self.loop = loop
    waiting = plan.connections
    let token = TLSTrust.token(for: plan.server).map { [("authorization" as StaticString, "Bearer \($0)")] }
    headers = [("content-type", "application/json")] + (token ?? [])
  }

  /// Blocks until every connection is up.
  package func connect() throws {
    let terms: TLSContext?
    do { terms = plan.server.isSecure ? try TLSTrust.context(for: plan.server) : nil } catch {
      throw CommandError("cannot reach \(plan.server): \(error)")
    }
    let tls = Handed(terms)
    loop.execute { [self] in
      for number in 0..<plan.connections {
        let client = HTTPClient(
          host: plan.server.host, port: plan.server.port, loop: loop, tls: tls.value, seed: UInt64(number))
        client.delegate = self
        clients.append(client)
        client.start()
      }
    }
    _ = connected.wait(timeout: .now() + 5)
    if let reason = refusal.withLock({ $0 }) {
      throw CommandError("cannot reach \(plan.server): \(reason)")
    }
  }

  package func clientUp(_ client: HTTPClient) {
    waiting -= 1
    if waiting == 0 { connected.signal() }
  }
  package func clientDown(_ client: HTTPClient, reason: String) {
    guard waiting > 0 else { return }
    refusal.withLock { $0 = reason }
    connected.signal()
  }

  package func send(_ index: Int, due: Duration) {
    guard outstanding < plan.outstandingMax else { return count(index, .failed("client saturated"), due: due) }
    let client = clients[index % clients.count]
    let live = client.isUp ? client : clients.first { $0.isUp }
    outstanding += 1
    let sent = Monotonic.now
    var timer: LoopTimer?
    let call = live?.call(
      path: plan.endpoint.path, headers: headers,
      body: plan.requests[index % plan.requests.count]
    ) { [self] result in
      if let timer { loop.cancel(timer) }
      outstanding -= 1
      let response = try? result.get()
      count(index, LoadGenerator.outcome(of: result), due: due, sent: sent, response)
      endIfFinished()
    }
    guard let live, let call else {
      outstanding -= 1
      return count(index, .failed("not connected"), due: due)
    }
    timer = loop.schedule(after: due + plan.limit - Monotonic.now) { live.cancel(call) }
  }

  private func count(
    _ number: Int, _ outcome: LoadTally.Outcome, due: Duration, sent: Duration? = nil,
    _ response: ClientResponse? = nil
  ) {
    let now = Monotonic.now
    let latency = now - due
    plan.ended?(.init(number: number, due: due, sent: sent, ended: now, outcome: outcome, response: response))
    shared.withLock { $0.add(outcome, latency: latency) }
    if plan.traces { trace.add(due: due - start, latency: latency, outcome) }
  }

  /// The schedule has ended; what is under way is waited for.
  package func finish() {
    isFinishing = true
    endIfFinished()
  }
  private func endIfFinished() {
    guard isFinishing, outstanding == 0 else { return }
    isFinishing = false
    for client in clients { client.stop() }
    done.signal()
  }
}

/// CLOCK_MONOTONIC as a duration since its origin.
package enum Monotonic {
  package static var now: Duration {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
  }

  /// Sleeps until an absolute time, so that oversleeping once does not shift what follows.
  package static func wait(until time: Duration) {
    let (seconds, attoseconds) = time.components
    var wait = timespec(tv_sec: Int(seconds), tv_nsec: Int(attoseconds / 1_000_000_000))
    while clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wait, nil) == EINTR {}
  }
}

/// The C library's logarithm.
package func naturalLogarithm(_ value: Double) -> Double { log(value) }

/// Made on one thread, used on the loop's alone from then on.
private struct Handed<Value>: @unchecked Sendable {
  package let value: Value
  package init(_ value: Value) { self.value = value }
}
