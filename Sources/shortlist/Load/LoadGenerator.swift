import ClusterHarness
import Foundation
import Synchronization

#if canImport(Glibc)
  import Glibc
#endif

// Sends requests when they are due, whatever became of the earlier ones.
//
//   schedule ──► the next arrival ◄── taken by whichever of N lanes is free; it waits until the request is due, sends it
//                                     over its own connection, and measures from when it was *due*
//
// When every lane is busy, arrivals wait, and their waiting is measured like everything else. One that has waited for
// longer than `lateLimit` is not sent but counted as "client saturated": then this machine, or the number of lanes, is
// what was measured.

struct LoadGenerator: Sendable {
  var server: ServerURL
  var path: String
  var requests: [[UInt8]]
  var rate: Double
  var duration: Duration
  var poisson: Bool
  var seed: UInt64
  /// The most requests under way at a time.
  var lanes: Int
  /// How long one request may take.
  var limit: Duration

  static let lateLimit: Duration = .seconds(1)

  private struct Shared {
    var schedule: ArrivalSchedule
    var index = 0
    var tally = LoadTally()
    var running: Int
  }

  /// Runs to the end, or until `stopped`; `tick` gets the tally once a second, from another thread.
  func run(stopped: @escaping @Sendable () -> Bool, tick: (LoadTally, Duration) -> Void) -> (LoadTally, Duration) {
    let shared = Mutex(
      Shared(schedule: ArrivalSchedule(rate: rate, poisson: poisson, seed: seed), running: lanes))
    let done = DispatchSemaphore(value: 0)
    let start = Monotonic.now
    for _ in 0..<lanes {
      let thread = Thread {
        lane(shared, start, stopped)
        if shared.withLock({ shared in
          shared.running -= 1
          return shared.running == 0
        }) {
          done.signal()
        }
      }
      thread.stackSize = 256 << 10
      thread.start()
    }
    while done.wait(timeout: .now() + 1) == .timedOut {
      tick(shared.withLock { $0.tally }, Monotonic.now - start)
    }
    return (shared.withLock { $0.tally }, Monotonic.now - start)
  }

  private func lane(_ shared: borrowing Mutex<Shared>, _ start: Duration, _ stopped: () -> Bool) {
    var http = PlainHTTP(server, limit: limit)
    while !stopped() {
      let (due, index) = shared.withLock { shared in
        defer { shared.index += 1 }
        return (shared.schedule.next(), shared.index)
      }
      guard due < duration else { return }
      Monotonic.wait(until: start + due)
      let outcome: LoadTally.Outcome
      if Monotonic.now - start - due > Self.lateLimit {
        outcome = .failed("client saturated")
      } else {
        outcome = Self.send(&http, path, requests[index % requests.count])
      }
      let latency = Monotonic.now - start - due
      shared.withLock { $0.tally.add(outcome, latency: latency) }
    }
  }

  private static func send(_ http: inout PlainHTTP, _ path: String, _ body: [UInt8]) -> LoadTally.Outcome {
    do {
      let response = try http.post(path, body)
      guard response.status == 200 else { return .failed(errorCode(response)) }
      guard let complete = isComplete(response.body) else { return .failed("not an answer") }
      return complete ? .ok : .degraded
    } catch {
      return .failed(error.message)
    }
  }

  /// The `code` of an error reply.
  private static func errorCode(_ response: PlainHTTP.Response) -> String {
    let object = (try? JSONSerialization.jsonObject(with: Data(response.body))) as? [String: Any]
    let error = object?["error"] as? [String: Any]
    return error?["code"] as? String ?? "HTTP \(response.status)"
  }

  /// Whether an answer covers every shard, read from its `coverage` without parsing the rest.
  static func isComplete(_ body: [UInt8]) -> Bool? {
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

/// CLOCK_MONOTONIC as a duration since its origin.
enum Monotonic {
  static var now: Duration {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
  }

  /// Sleeps until an absolute time, so that oversleeping once does not shift what follows.
  static func wait(until time: Duration) {
    let (seconds, attoseconds) = time.components
    var wait = timespec(tv_sec: Int(seconds), tv_nsec: Int(attoseconds / 1_000_000_000))
    while clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wait, nil) == EINTR {}
  }
}

/// The C library's logarithm.
func naturalLogarithm(_ value: Double) -> Double { log(value) }
