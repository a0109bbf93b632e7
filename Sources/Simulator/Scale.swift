import Membership
import Nodes
import RankingCore
import Routing

// A fleet too large for one machine, on paper made runnable: one real coordinator, a thousand workers that are no more
// than two numbers each (how busy, how slow), and requests that go to every shard.
//
//     request ─► CoordinatorNode (real) ─► leg ─► network + wait for the others + scoring, all drawn ─► reply
//
//     scoring    0.6 … 1.6 ms for nine in ten, 4 ms at p99, 20 ms at p99.9, 100 ms at worst
//     waiting    the worker is busy with other requests for a share ρ of the time: with probability ρ a leg waits,
//                exponentially, 1 ms ÷ (1 − ρ) in the mean (M/M/1)
//     network    0.1 … 0.3 ms each way
//
// The time the coordinator really takes is measured by a clock that the caller passes in.

public struct ScaleOptions: Sendable {
  public var seed: UInt64 = 1
  public var workers = 1000
  public var replicas = 3
  /// Shards of the model that is asked: each request goes to all of them.
  public var shards = 1000
  public var requests = 20_000
  /// Between two requests.
  public var gap: Duration = .milliseconds(4)
  public var hedging = true
  /// Share of the time in which a worker is busy with other requests, in the mean.
  public var utilisation = 0.5
  public init() {}
}

public struct ScaleReport: Sendable {
  public var requests = 0
  public var complete = 0
  public var failed = 0
  public var legs: UInt64 = 0
  public var hedges: UInt64 = 0
  public var retries: UInt64 = 0
  public var refusedHedges: UInt64 = 0
  /// Milliseconds.
  public var p50 = 0.0
  public var p90 = 0.0
  public var p99 = 0.0
  public var p999 = 0.0
  /// Of the coordinator, by the caller's clock.
  public var cpuMicrosecondsPerRequest = 0.0
}

public struct ScaleSimulation {
  private enum Happening {
    case request
    case probed(worker: Int, token: UInt64)
    case scored(LegID, worker: Int, shards: [ShardID])
    case woke(UInt64)
  }
  private let options: ScaleOptions
  private let clock: () -> UInt64

  /// - Parameter clock: processor time of this thread in nanoseconds.
  public init(_ options: ScaleOptions, clock: @escaping () -> UInt64) {
    self.options = options
    self.clock = clock
  }

  public func run() -> ScaleReport {
    var generator = SeededGenerator(seed: options.seed)
    var report = ScaleReport()
    var now = Instant(nanoseconds: 1_000_000_000)
    let id = ModelVersion(model: "home", version: "v1")
    var settings = CoordinatorSettings()
    settings.routing.hedging = options.hedging
    let node = CoordinatorNode(
      workers: (0..<options.workers).map { "w\($0)" }, settings: settings, seed: options.seed, now: now)
    var held = [[ShardID]](repeating: [], count: options.workers)
    for shard in 0..<options.shards {
      for replica in 0..<options.replicas {
        held[(shard * options.replicas + replica * 337 + shard / 7) % options.workers].append(ShardID(shard))
      }
    }
    let statuses = held.enumerated().map { index, shards in
      WorkerStatus(
        name: "w\(index)", incarnation: 1,
        holdings: [.init(release: id, shardCount: options.shards, ready: Array(Set(shards)).sorted())])
    }
    let busy = (0..<options.workers).map { _ in
      min(0.95, max(0.05, options.utilisation + 0.4 * (generator.unit() - 0.5)))
    }
    var queue = EventQueue<Happening>()
    var effects: [CoordinatorEffect] = []
    var cancelled = Set<LegID>()
    var startedAt: [RequestToken: Instant] = [:]
    var took: [Double] = []
    var cpu: UInt64 = 0
    var wish: UInt64 = 0
    var isMeasuring = false

    // The first requests teach it what is usual.
    let warmUp = options.requests / 10

    func send(_ event: CoordinatorEvent) {
      effects.removeAll(keepingCapacity: true)
      let before = clock()
      node.handle(event, now: now, into: &effects)
      if isMeasuring { cpu += clock() - before }
      for effect in effects {
        switch effect {
        case .probe(let worker, let token, _):
          queue.schedule(.probed(worker: worker.index, token: token), at: now + .microseconds(300))
        case .score(let leg, let worker, let request, _):
          let wait = Self.legTime(busy[worker.index], &generator)
          queue.schedule(
            .scored(leg, worker: worker.index, shards: request.tasks.map(\.shard)), at: now + .nanoseconds(wait))
        case .cancel(let leg, _): cancelled.insert(leg)
        case .answer(let token, let outcome):
          guard let start = startedAt.removeValue(forKey: token) else { break }
          guard Int(token) > warmUp else { break }
          took.append((now - start).milliseconds)
          if case .success(let answer) = outcome {
            if answer.coverage.missing.isEmpty { report.complete += 1 }
          } else {
            report.failed += 1
          }
        case .wake(let at):
          wish += 1
          queue.schedule(.woke(wish), at: max(at, now))
        case .lookup, .connect, .disconnect, .replyJoin, .replyLeave, .load, .unload, .memberChanged, .rollout,
          .trace:
          break
        }
      }
    }

    send(
      .loaded(
        Release(
          id: id, dimension: 1, itemsPerShard: [UInt64](repeating: 1000, count: options.shards), userColumns: [],
          contextColumns: [], coldStart: [1], users: SimulatedUsers([:]))))
    for worker in 0..<options.workers { send(.linked(WorkerID(worker))) }
    queue.schedule(.request, at: now + .seconds(2))
    while report.requests < options.requests + warmUp || !startedAt.isEmpty, let next = queue.next() {
      now = next.at
      switch next.payload {
      case .request:
        if report.requests == warmUp {
          isMeasuring = true
          took.removeAll()
          report.complete = 0
          report.failed = 0
          report.legs = node.router.counters.primaryLegs
          report.hedges = node.router.counters.hedgeLegs
        }
        guard report.requests < options.requests + warmUp else { break }
        report.requests += 1
        let token = RequestToken(report.requests)
        startedAt[token] = now
        send(.requested(token, RankingRequest(subject: .anyone, k: 10), deadline: now + .milliseconds(500)))
        queue.schedule(
          .request, at: now + .nanoseconds(Int64(2 * generator.unit() * Double(options.gap.nanoseconds))))
      case .probed(let worker, let token):
        send(.probed(WorkerID(worker), token: token, .success(statuses[worker])))
      case .scored(let leg, _, let shards):
        if cancelled.remove(leg) != nil { break }
        send(.scored(leg, .success(ScoreReply(release: id, shards: shards, items: ScoredList()))))
      case .woke(let number): if number == wish { send(.woke) }
      }
    }
    let counters = node.router.counters
    report.requests -= warmUp
    report.legs = counters.primaryLegs - report.legs
    report.hedges = counters.hedgeLegs - report.hedges
    report.retries = counters.retryLegs
    report.refusedHedges = counters.hedgesDelayed
    took.sort()
    func percentile(_ fraction: Double) -> Double {
      took.isEmpty ? 0 : took[min(took.count - 1, Int(fraction * Double(took.count)))]
    }
    report.p50 = percentile(0.5)
    report.p90 = percentile(0.9)
    report.p99 = percentile(0.99)
    report.p999 = percentile(0.999)
    report.cpuMicrosecondsPerRequest = Double(cpu) / 1000 / Double(max(1, options.requests))
    return report
  }

  /// Nanoseconds from sending a leg to its reply.
  static func legTime(_ busy: Double, _ generator: inout SeededGenerator) -> Int64 {
    var milliseconds = 0.2 + 0.4 * generator.unit() + scoringTime(generator.unit())
    if generator.unit() < busy { milliseconds += -logarithm(1 - generator.unit()) / (1 - busy) }
    return Int64(milliseconds * 1e6)
  }

  /// Milliseconds, by inverting the distribution between the points given above.
  static func scoringTime(_ fraction: Double) -> Double {
    let points = [(0.0, 0.6), (0.5, 1.0), (0.9, 1.6), (0.99, 4.0), (0.999, 20.0), (1.0, 100.0)]
    for (low, high) in zip(points, points.dropFirst()) where fraction <= high.0 {
      return low.1 + (high.1 - low.1) * (fraction - low.0) / (high.0 - low.0)
    }
    return 100
  }

  /// The natural logarithm of a number in (0, 1], to a millionth: the standard library alone has none.
  static func logarithm(_ value: Double) -> Double {
    let value = max(value, 1e-300)
    let mantissa = value.significand
    let ratio = (mantissa - 1) / (mantissa + 1)
    let square = ratio * ratio
    var (term, sum) = (ratio, 0.0)
    for odd in stride(from: 1.0, through: 19, by: 2) {
      sum += term / odd
      term *= square
    }
    return Double(value.exponent) * 0.693_147_180_559_945_3 + 2 * sum
  }
}
