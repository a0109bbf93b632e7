import RankingCore

// A worker as a value: which legs run, which wait, which are refused.
//
//     scoreRequested ─► held? ─► room? ─► run (at most as many as compute threads) ─► scored ─► reply
//                         │        └─ queue full ─► overloaded
//                         └─ no ─► wrongVersion

/// The caller's name for a call it wants answered: any number that no other open call has.
public typealias CallToken = UInt64

public struct WorkerPolicy: Sendable {
  /// Legs scored at once; one compute thread each.
  public var running: Int
  /// Legs that may wait: more could not be done in a deadline's fifth. Origin: the failure policy, "Admission".
  public var queueMax = 32
  public init(running: Int) { self.running = max(1, running) }
}

public enum WorkerEvent: Sendable {
  /// A shard's slice is in memory and checked.
  case loaded(ModelVersion, shardCount: Int, ShardID)
  case scoreRequested(CallToken, ScoreRequest, deadline: Deadline)
  case lookupRequested(CallToken, LookupRequest)
  case statusRequested(CallToken)
  /// The caller went away or took its request back.
  case cancelled(CallToken)
  case scored(CallToken, Result<ScoreReply, CallFailure>)
  case draining
}

public enum WorkerEffect: Sendable {
  /// Score on a compute thread and tell `.scored`, also when it was aborted.
  case run(CallToken, ScoreRequest, deadline: Deadline)
  case abort(CallToken)
  case lookUp(CallToken, LookupRequest)
  case replyScore(CallToken, Result<ScoreReply, CallFailure>)
  case refuseLookup(CallToken, CallFailure)
  case replyStatus(CallToken, WorkerStatus)
}

public struct WorkerNode: Sendable {
  struct Job: Sendable {
    var request: ScoreRequest
    var deadline: Deadline
    var receivedAt: Instant
    var isCancelled = false
  }
  /// What happened so far, for metrics.
  public struct Counters: Sendable, Equatable {
    public var scored: UInt64 = 0
    public var refused: UInt64 = 0
    public var expired: UInt64 = 0
    public var cancelled: UInt64 = 0
    public var wrongVersion: UInt64 = 0
  }

  public let name: String
  public let incarnation: UInt64
  public let policy: WorkerPolicy
  public private(set) var counters = Counters()
  public private(set) var isDraining = false
  private var holdings: [WorkerStatus.Holding] = []
  private var queue: [CallToken] = []
  private var running: [CallToken] = []
  private var jobs: [CallToken: Job] = [:]

  public init(name: String, incarnation: UInt64, policy: WorkerPolicy) {
    self.name = name
    self.incarnation = incarnation
    self.policy = policy
  }

  public mutating func handle(_ event: WorkerEvent, now: Instant, into effects: inout [WorkerEffect]) {
    switch event {
    case .loaded(let release, let shardCount, let shard): hold(release, shardCount, shard)
    case .scoreRequested(let call, let request, let deadline):
      accept(call, request, deadline: deadline, now: now, into: &effects)
    case .lookupRequested(let call, let request):
      let held = holding(request.release)
      if let held, request.shards.contains(where: held.ready.contains) {
        effects.append(.lookUp(call, request))
      } else {
        counters.wrongVersion += 1
        effects.append(.refuseLookup(call, .wrongVersion))
      }
    case .statusRequested(let call): effects.append(.replyStatus(call, status(now: now)))
    case .cancelled(let call): cancel(call, into: &effects)
    case .scored(let call, let result): finished(call, result, now: now, into: &effects)
    case .draining: isDraining = true
    }
  }

  /// The snapshot a probe gets.
  public func status(now: Instant) -> WorkerStatus {
    let oldest = running.compactMap { jobs[$0]?.receivedAt }.min()
    return WorkerStatus(
      name: name, incarnation: incarnation, draining: isDraining, holdings: holdings, queued: queue.count,
      running: running.count, oldestJob: oldest.map { now - $0 } ?? .zero)
  }

  private func holding(_ release: ModelVersion) -> WorkerStatus.Holding? {
    holdings.first { $0.release == release }
  }

  private mutating func hold(_ release: ModelVersion, _ shardCount: Int, _ shard: ShardID) {
    guard let index = holdings.firstIndex(where: { $0.release == release }) else {
      holdings.append(WorkerStatus.Holding(release: release, shardCount: shardCount, ready: [shard]))
      return
    }
    guard !holdings[index].ready.contains(shard) else { return }
    holdings[index].ready.append(shard)
    holdings[index].ready.sort()
  }

  /// Shards that are not held are left out of the reply; a leg of which none is held is refused.
  private mutating func accept(
    _ call: CallToken, _ request: ScoreRequest, deadline: Deadline, now: Instant, into effects: inout [WorkerEffect]
  ) {
    let ready = holding(request.query.release)?.ready ?? []
    var held = request
    held.tasks.removeAll { !ready.contains($0.shard) }
    guard !held.tasks.isEmpty else {
      counters.wrongVersion += 1
      effects.append(.replyScore(call, .failure(.wrongVersion)))
      return
    }
    guard deadline > now else {
      counters.expired += 1
      effects.append(.replyScore(call, .failure(.deadlineExceeded)))
      return
    }
    guard running.count < policy.running || queue.count < policy.queueMax else {
      counters.refused += 1
      effects.append(.replyScore(call, .failure(.overloaded)))
      return
    }
    jobs[call] = Job(request: held, deadline: deadline, receivedAt: now)
    queue.append(call)
    startNext(now: now, into: &effects)
  }

  private mutating func startNext(now: Instant, into effects: inout [WorkerEffect]) {
    while running.count < policy.running, !queue.isEmpty {
      let call = queue.removeFirst()
      guard let job = jobs[call] else { continue }
      guard job.deadline > now else {
        jobs[call] = nil
        counters.expired += 1
        effects.append(.replyScore(call, .failure(.deadlineExceeded)))
        continue
      }
      running.append(call)
      effects.append(.run(call, job.request, deadline: job.deadline))
    }
  }

  /// A queued job is forgotten; a running one is told to stop and keeps its thread until it says that it has.
  private mutating func cancel(_ call: CallToken, into effects: inout [WorkerEffect]) {
    guard jobs[call] != nil else { return }
    counters.cancelled += 1
    if let index = queue.firstIndex(of: call) {
      queue.remove(at: index)
      jobs[call] = nil
    } else {
      jobs[call]?.isCancelled = true
      effects.append(.abort(call))
    }
  }

  private mutating func finished(
    _ call: CallToken, _ result: Result<ScoreReply, CallFailure>, now: Instant, into effects: inout [WorkerEffect]
  ) {
    guard let index = running.firstIndex(of: call), let job = jobs[call] else {
      preconditionFailure("job \(call) ended but was not running: \(running)")
    }
    running.remove(at: index)
    jobs[call] = nil
    if !job.isCancelled {
      if case .success = result { counters.scored += 1 }
      effects.append(.replyScore(call, result))
    }
    startNext(now: now, into: &effects)
  }
}
