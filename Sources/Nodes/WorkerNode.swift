import RankingCore

// A worker as a value: which legs run, which wait, which are refused; what it holds and is told to hold; how it joins
// and leaves.
//
//     scoreRequested ─► held? ─► room, and time? ─► run (at most one per compute thread) ─► scored ─► reply
//                         │        └─ no ─► overloaded
//                         └─ no ─► wrongVersion
//
//     loadRequested ─► newer than the newest order? ─► load, one shard after the other ─► loaded ─► ready in the status
//     draining ─► Leave to every coordinator, again and again ─► all say "go", or time is over ─► depart

/// The caller's name for a call it wants answered: any number that no other open call has.
public typealias CallToken = UInt64

/// The numbers of a worker. Origins: the failure policy, "Admission" and "Health and membership".
public struct WorkerPolicy: Sendable {
  /// Legs scored at once; one compute thread each.
  public var running: Int
  /// Legs that may wait in any case …
  public var queueMax = 32
  /// … and never longer than this share of what a leg had left when it came.
  public var waitShareMax = 0.20
  /// Legs taken in, running ones and those that would run if there were threads: where the gradient starts and ends.
  public var limitStart: Int
  public var limitMax = 64
  /// Legs that wait are scored together, one pass over the slices for all of them, at most so many …
  public var togetherMax = 32
  /// … where their slices take at least so much memory: smaller ones stay in the cores' caches as it is, and to be
  /// scored together would only make the first wait for the last.
  public var togetherBytesMin: UInt64 = 4 << 20
  /// A leg of several shards that finds the worker idle is scored on several threads, when it is expected to take at
  /// least so long: to hand a part over and take it back costs some 30 µs.
  public var splitMin: Duration = .microseconds(300)
  /// How often a worker tells the coordinators that it is there.
  public var joinInterval: Duration = .seconds(2)
  /// How often a worker that is draining asks whether it may go, and when it goes all the same.
  public var leaveInterval: Duration = .milliseconds(200)
  public var leaveLimit: Duration = .seconds(9)

  /// - Parameter cores: of the machine; the concurrency limit starts at twice as many.
  public init(running: Int, cores: Int = 2) {
    self.running = max(1, running)
    limitStart = max(2 * cores, self.running)
  }
}

public enum WorkerEvent: Sendable {
  /// Tell these coordinators (host:port) that it is there, from now on.
  case join(coordinators: [String])
  /// Its configuration says that it holds these, from the start.
  case assigned(ModelVersion, [ShardID])
  /// A shard's slice is in memory and checked; it takes this many bytes.
  case loaded(ModelVersion, shardCount: Int, ShardID, bytes: UInt64 = 0, fingerprint: UInt64 = 0)
  case loadFailed(ModelVersion, ShardID, why: String)
  case scoreRequested(CallToken, ScoreRequest, deadline: Deadline)
  case lookupRequested(CallToken, LookupRequest)
  case statusRequested(CallToken)
  case loadRequested(CallToken, ShardOrder)
  case unloadRequested(CallToken, ShardOrder)
  /// The caller went away or took its request back.
  case cancelled(CallToken)
  case scored(CallToken, Result<ScoreReply, CallFailure>)
  case joined(coordinator: String, Result<JoinReply, CallFailure>)
  case mayLeave(coordinator: String, Result<LeaveReply, CallFailure>)
  case draining
  case woke
}

public enum WorkerEffect: Sendable {
  /// Score these, in one pass over the slices when they are several, and tell `.scored` of each, also when it was
  /// aborted. `expected` is how long that took lately; nil = not known. A single one may use several `threads`.
  case run([WorkerRun], expected: Duration?, threads: Int)
  case abort(CallToken)
  case lookUp(CallToken, LookupRequest)
  case replyScore(CallToken, Result<ScoreReply, CallFailure>)
  case refuseLookup(CallToken, CallFailure)
  case replyStatus(CallToken, WorkerStatus)
  case replyOrder(CallToken, CallFailure?)
  /// Read the slice in the background and tell `.loaded` or `.loadFailed`.
  case load(ModelVersion, ShardID)
  /// Nobody asks for it any more: let go of it.
  case unload(ModelVersion, ShardID)
  case join(coordinator: String, JoinRequest)
  case leave(coordinator: String, LeaveRequest)
  /// Say goodbye to the connections, finish what is open, end.
  case depart
  case wake(at: Instant)
}

/// A leg to score.
public struct WorkerRun: Sendable {
  public var call: CallToken
  public var request: ScoreRequest
  public var deadline: Deadline
}

/// What a worker is told once.
public struct WorkerSettings: Sendable {
  public var name: String
  /// Differs after every start.
  public var incarnation: UInt64
  /// Where it is reached; needed to join.
  public var address = ""
  public var zone = ""
  /// Memory for slices; 0 = it does not say.
  public var capacityBytes: UInt64 = 0
  public init(name: String, incarnation: UInt64) {
    self.name = name
    self.incarnation = incarnation
  }
}

public struct WorkerNode: Sendable {
  struct Job: Sendable {
    var request: ScoreRequest
    var deadline: Deadline
    var receivedAt: Instant
    var startedAt: Instant?
    var isCancelled = false
    var crew = 0
  }
  /// Legs that are scored together, or one on several threads.
  struct Crew: Sendable {
    var threads: Int
    /// Legs of it that have not ended, and shards of all its legs.
    var open: Int
    var shards: Int
  }
  /// What happened so far, for metrics.
  public struct Counters: Sendable, Equatable {
    public var scored: UInt64 = 0
    public var refused: UInt64 = 0
    public var expired: UInt64 = 0
    public var cancelled: UInt64 = 0
    public var wrongVersion: UInt64 = 0
    public var staleOrders: UInt64 = 0
    public var loadsFailed: UInt64 = 0
    /// Legs scored together with others, and on several threads.
    public var together: UInt64 = 0
    public var split: UInt64 = 0
  }

  public let settings: WorkerSettings
  public var name: String { settings.name }
  public let policy: WorkerPolicy
  public internal(set) var counters = Counters()
  public internal(set) var isDraining = false
  var holdings: [WorkerStatus.Holding] = []
  private var bytes: [ModelVersion: [ShardID: UInt64]] = [:]
  private var queue: [CallToken] = []
  private var running: [CallToken] = []
  private var crews: [Int: Crew] = [:]
  private var lastCrew = 0
  private var busyThreads = 0
  private var jobs: [CallToken: Job] = [:]
  private var limit: ConcurrencyLimit
  /// Moving average of how long one shard of a leg takes to score, in nanoseconds.
  private var shardCost = 0.0
  /// Shards in the legs that wait.
  private var shardsQueued = 0
  var newestTerm = DriverTerm(epoch: 0, revision: 0)
  var companions = Companions()

  public init(settings: WorkerSettings, policy: WorkerPolicy) {
    self.settings = settings
    self.policy = policy
    limit = ConcurrencyLimit(start: policy.limitStart, range: policy.running...max(policy.running, policy.limitMax))
  }
  public init(name: String, incarnation: UInt64, policy: WorkerPolicy) {
    self.init(settings: WorkerSettings(name: name, incarnation: incarnation), policy: policy)
  }

  public mutating func handle(_ event: WorkerEvent, now: Instant, into effects: inout [WorkerEffect]) {
    switch event {
    case .join(let coordinators): join(coordinators, now: now, into: &effects)
    case .assigned(let release, let shards): begin(release, shards, into: &effects)
    case .loaded(let release, let shardCount, let shard, let size, let fingerprint):
      hold(release, shardCount, shard, fingerprint)
      bytes[release, default: [:]][shard] = size
    case .loadFailed(let release, let shard, let why): loadFailed(release, shard, why)
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
    case .loadRequested(let call, let order): load(call, order, into: &effects)
    case .unloadRequested(let call, let order):
      unload(call, order, into: &effects)
      let ready = holding(order.release)?.ready ?? []
      for shard in order.shards where !ready.contains(shard) { bytes[order.release]?[shard] = nil }
      if bytes[order.release]?.isEmpty == true { bytes[order.release] = nil }
    case .cancelled(let call): cancel(call, into: &effects)
    case .scored(let call, let result): finished(call, result, now: now, into: &effects)
    case .joined(let coordinator, let result): joined(coordinator, result, now: now, into: &effects)
    case .mayLeave(let coordinator, let result): mayLeave(coordinator, result, now: now, into: &effects)
    case .draining: drain(now: now, into: &effects)
    case .woke: tick(now: now, into: &effects)
    }
  }

  /// The snapshot a probe gets.
  public func status(now: Instant) -> WorkerStatus {
    var oldest: Instant?
    for call in running {
      if let at = jobs[call]?.startedAt, oldest.map({ at < $0 }) ?? true { oldest = at }
    }
    var held: UInt64 = 0
    for (_, shards) in bytes { for (_, size) in shards { held &+= size } }
    return WorkerStatus(
      name: name, incarnation: settings.incarnation, draining: isDraining, holdings: holdings, queued: queue.count,
      running: running.count, oldestJob: oldest.map { now - $0 } ?? .zero, admits: admits,
      capacityBytes: settings.capacityBytes, heldBytes: held, zone: settings.zone)
  }

  /// Legs taken at once: the limit, and as many waiting as are done in the share of a deadline that may be waited.
  /// Never more than would be taken, or coordinators would send legs only to have them refused.
  private var admits: Int {
    let usual = Double(RequestLimit.timeoutDefault.nanoseconds) * policy.waitShareMax
    let perLeg = max(1, shardCost * averageShards)
    let waiting = min(Double(policy.queueMax), usual / perLeg * Double(policy.running))
    return min(Int(limit.value) + Int(waiting), policy.running + policy.queueMax)
  }
  private var averageShards: Double {
    jobs.isEmpty ? 4 : Double(jobs.values.reduce(0) { $0 + $1.request.tasks.count }) / Double(jobs.count)
  }

  /// The shards of a version that are ready to score.
  public func held(_ release: ModelVersion) -> [ShardID] { holding(release)?.ready ?? [] }

  func holding(_ release: ModelVersion) -> WorkerStatus.Holding? {
    holdings.first { $0.release == release }
  }

  mutating func hold(_ release: ModelVersion, _ shardCount: Int, _ shard: ShardID, _ fingerprint: UInt64) {
    guard let index = holdings.firstIndex(where: { $0.release == release }) else {
      holdings.append(
        WorkerStatus.Holding(release: release, shardCount: shardCount, ready: [shard], fingerprint: fingerprint))
      return
    }
    if holdings[index].ready.isEmpty { holdings[index].fingerprint = fingerprint }
    holdings[index].loading.removeAll { $0 == shard }
    holdings[index].failed.removeAll { $0 == shard }
    if holdings[index].failed.isEmpty { holdings[index].failure = "" }
    guard !holdings[index].ready.contains(shard) else { return }
    holdings[index].shardCount = shardCount
    holdings[index].ready.append(shard)
    holdings[index].ready.sort()
  }

  /// Shards that are not held are left out of the reply; a leg of which none is held is refused.
  private mutating func accept(
    _ call: CallToken, _ request: ScoreRequest, deadline: Deadline, now: Instant, into effects: inout [WorkerEffect]
  ) {
    let ready = holding(request.query.release)?.ready ?? []
    var held = request
    if !held.tasks.allSatisfy({ ready.contains($0.shard) }) { held.tasks.removeAll { !ready.contains($0.shard) } }
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
    guard hasRoom(deadline - now) else {
      counters.refused += 1
      effects.append(.replyScore(call, .failure(.overloaded)))
      return
    }
    jobs[call] = Job(request: held, deadline: deadline, receivedAt: now)
    queue.append(call)
    shardsQueued += held.tasks.count
    startNext(now: now, into: &effects)
  }

  /// One that need not wait always has room. One that must is refused when the queue is full, or when it would wait
  /// longer than is left to it or than a fifth of that. (The gradient acts earlier, through what the status admits.)
  private func hasRoom(_ remaining: Duration) -> Bool {
    if busyThreads < policy.running { return true }
    guard queue.count < policy.queueMax else { return false }
    let wait = (Double(shardsQueued) + averageShards * 0.5) * shardCost / Double(policy.running)
    return wait <= Double(remaining.nanoseconds) * policy.waitShareMax
  }

  private mutating func startNext(now: Instant, into effects: inout [WorkerEffect]) {
    while busyThreads < policy.running, !queue.isEmpty {
      // The idle threads share what waits.
      let idle = policy.running - busyThreads
      let share = min(policy.togetherMax, (queue.count + idle - 1) / idle)
      var runs: [WorkerRun] = []
      var place = 0
      while place < queue.count, runs.count < share {
        guard let job = jobs[queue[place]] else { preconditionFailure("call \(queue[place]) waits but is no job") }
        if job.deadline <= now {
          let call = dequeue(place)
          jobs[call] = nil
          counters.expired += 1
          effects.append(.replyScore(call, .failure(.deadlineExceeded)))
        } else if runs.isEmpty || goesTogether(job.request, with: runs[0].request) {
          runs.append(WorkerRun(call: dequeue(place), request: job.request, deadline: job.deadline))
        } else {
          place += 1
        }
      }
      guard !runs.isEmpty else { continue }
      start(runs, now: now, into: &effects)
    }
  }

  /// Takes a call out of the queue.
  private mutating func dequeue(_ place: Int) -> CallToken {
    let call = queue.remove(at: place)
    shardsQueued -= jobs[call]?.request.tasks.count ?? 0
    return call
  }

  /// Whether one pass over the slices serves both, and saves something.
  private func goesTogether(_ request: ScoreRequest, with other: ScoreRequest) -> Bool {
    guard request.query.mode == .retrieve, other.query.mode == .retrieve, !request.query.explain, !other.query.explain,
      request.query.release == other.query.release
    else { return false }
    let held = bytes[request.query.release] ?? [:]
    var shared: UInt64 = 0
    for task in request.tasks where other.tasks.contains(where: { $0.shard == task.shard }) {
      shared &+= held[task.shard] ?? 0
    }
    return shared >= policy.togetherBytesMin
  }

  private mutating func start(_ runs: [WorkerRun], now: Instant, into effects: inout [WorkerEffect]) {
    let shards = runs.reduce(0) { $0 + $1.request.tasks.count }
    // An explained leg takes what `shardCost` does not know.
    let expected = runs[0].request.query.explain ? 0 : shardCost * Double(shards)
    var threads = 1
    if runs.count == 1, running.isEmpty, queue.isEmpty, expected >= Double(policy.splitMin.nanoseconds) {
      threads = min(policy.running, shards)
    }
    lastCrew += 1
    crews[lastCrew] = Crew(threads: threads, open: runs.count, shards: shards)
    busyThreads += threads
    if runs.count > 1 { counters.together += UInt64(runs.count) }
    if threads > 1 { counters.split += 1 }
    for run in runs {
      running.append(run.call)
      jobs[run.call]?.startedAt = now
      jobs[run.call]?.crew = lastCrew
    }
    effects.append(
      .run(
        runs, expected: expected > 0 ? .nanoseconds(Int64(expected / Double(threads))) : nil, threads: threads))
  }

  /// A queued job is forgotten; a running one is told to stop and keeps its thread until it says that it has.
  private mutating func cancel(_ call: CallToken, into effects: inout [WorkerEffect]) {
    guard jobs[call] != nil else { return }
    counters.cancelled += 1
    if let index = queue.firstIndex(of: call) {
      _ = dequeue(index)
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
    guard var crew = crews[job.crew] else { preconditionFailure("job \(call) ran in no crew") }
    crew.open -= 1
    crews[job.crew] = crew.open > 0 ? crew : nil
    if crew.open == 0 { busyThreads -= crew.threads }
    if !job.isCancelled {
      if case .success = result {
        counters.scored += 1
        if !job.request.query.explain { observe(job, crew, now: now) }
      }
      effects.append(.replyScore(call, result))
    }
    startNext(now: now, into: &effects)
  }

  /// Learns from a leg what the next will take.
  private mutating func observe(_ job: Job, _ crew: Crew, now: Instant) {
    let took = Double(max(1, (now - (job.startedAt ?? job.receivedAt)).nanoseconds))
    let perShard = took * Double(crew.threads) / Double(max(1, crew.shards))
    shardCost = shardCost == 0 ? perShard : shardCost + 0.1 * (perShard - shardCost)
    limit.observe(now - job.receivedAt, busy: running.count + queue.count + 1)
  }
}
