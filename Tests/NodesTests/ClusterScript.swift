import Membership
import Nodes
import RankingCore
import Rollout
import Routing
import Testing

// A coordinator under a scripted world: time moves when the script says so, effects are read as text.
//
//     var cluster = ClusterScript(workers: ["w1: 0 1", "w2: 2 3"])     who is asked to hold which shards
//     cluster.linkAll()                                                everyone answers its probes
//     cluster.request(1)
//     cluster.sent == ["leg 0 → w1: 0 1", "leg 1 → w2: 2 3"]

final class NoUsers: UserDirectory {
  let known: [String: UserRecord]
  init(_ known: [String: UserRecord] = [:]) { self.known = known }
  func record(of user: String) -> UserRecord? { known[user] }
}

struct ClusterScript {
  static let release = ModelVersion(model: "home", version: "v1")
  var node: CoordinatorNode
  var now = Instant(nanoseconds: 1_000_000_000)
  let shardCount: Int
  var holdings: [[ShardID]]
  var legs: [(id: LegID, worker: WorkerID, request: ScoreRequest)] = []
  var lookups: [(id: LegID, worker: WorkerID, request: LookupRequest)] = []
  var answers: [RequestToken: Result<Answer, RankingError>] = [:]
  var cancelled: [LegID] = []
  var wakeAt: Instant?
  var wakes = 0
  /// What it wants done about rollouts, for a script that does it.
  var rollouts: [RolloutEffect] = []
  /// What the workers hold, each the same shards of all.
  var versions = ["v1"]
  /// Workers that answer probes; a frozen one keeps its link and says nothing.
  var answersProbes: Set<WorkerID> = []
  /// What a worker's status says beside its holdings.
  var adjust: (inout WorkerStatus) -> Void = { _ in }
  /// How long a worker takes to answer a leg; one that is not named here answers when the script says so.
  var latency: [WorkerID: Duration] = [:]
  private var nextToken: RequestToken = 1_000_000
  private var replies: [(at: Instant, leg: Int)] = []

  init(
    workers: [[Int]], shardCount: Int, users: [String: UserRecord] = [:], seed: UInt64 = 1,
    settings: CoordinatorSettings = CoordinatorSettings()
  ) {
    self.shardCount = shardCount
    holdings = workers.map { $0.map { ShardID($0) } }
    node = CoordinatorNode(
      workers: workers.indices.map { "w\($0 + 1)" }, settings: settings, seed: seed, now: now)
    let release = Release(
      id: Self.release, dimension: 2, itemsPerShard: [UInt64](repeating: 10, count: shardCount), userColumns: [],
      contextColumns: [], coldStart: [0.5, 0.5], users: NoUsers(users))
    send(.loaded(release))
  }

  mutating func send(_ event: CoordinatorEvent) {
    var effects: [CoordinatorEffect] = []
    node.handle(event, now: now, into: &effects)
    for effect in effects {
      switch effect {
      case .probe(let worker, let token, _):
        if answersProbes.contains(worker) { send(.probed(worker, token: token, .success(status(worker)))) }
      case .score(let id, let worker, let request, let timeout):
        #expect(timeout > .zero, "a leg was sent that had no time left")
        if let latency = latency[worker] { replies.append((now + latency, legs.count)) }
        legs.append((id, worker, request))
      case .lookup(let id, let worker, let request, _): lookups.append((id, worker, request))
      case .cancel(let id, _):
        cancelled.append(id)
        replies.removeAll { legs[$0.leg].id == id }
      case .answer(let token, let outcome):
        precondition(answers[token] == nil, "request \(token) was answered twice")
        answers[token] = outcome
      case .wake(let at): wakeAt = at
      case .rollout(let effect): rollouts.append(effect)
      case .trace, .memberChanged, .connect, .disconnect, .replyJoin, .replyLeave, .load, .unload: break
      }
    }
  }

  func status(_ worker: WorkerID) -> WorkerStatus {
    var status = WorkerStatus(
      name: "w\(worker.rawValue + 1)", incarnation: 1,
      holdings: versions.map {
        .init(
          release: ModelVersion(model: Self.release.model, version: $0), shardCount: shardCount,
          ready: holdings[worker.index])
      })
    adjust(&status)
    return status
  }

  /// Lets time pass: wakes the node whenever it asked for it, and brings the replies that are due.
  mutating func pass(_ duration: Duration) {
    let end = now + duration
    while true {
      let reply = replies.indices.min { replies[$0].at < replies[$1].at }
      let replyAt = reply.map { replies[$0].at }
      if let at = replyAt, let index = reply, at <= end, wakeAt.map({ at <= $0 }) ?? true {
        now = max(now, at)
        score(leg: replies.remove(at: index).leg)
      } else if let at = wakeAt, at <= end {
        now = max(now, at)
        wakeAt = nil
        wakes += 1
        precondition(wakes < 1_000_000, "it wakes itself without end")
        send(.woke)
      } else {
        break
      }
    }
    now = end
  }

  mutating func linkAll() {
    for index in holdings.indices {
      answersProbes.insert(WorkerID(index))
      send(.linked(WorkerID(index)))
    }
    pass(.milliseconds(250))
  }

  mutating func request(_ token: RequestToken, timeout: Duration = .milliseconds(500), _ request: RankingRequest? = nil)
  {
    send(.requested(token, request ?? RankingRequest(subject: .anyone, k: 3), deadline: now + timeout))
  }

  /// The reply a worker gives for a leg: item `shard * 10` of each shard, scored by its ordinal.
  func reply(_ request: ScoreRequest) -> ScoreReply {
    var list = ScoredList()
    let items = request.tasks.map {
      ScoredItem(score: Float($0.shard.rawValue), ordinal: ItemOrdinal($0.shard.index * 10))
    }
    for item in items.sorted(by: { $0.precedes($1) }).prefix(request.query.k) {
      Array("item\(item.ordinal.rawValue)".utf8).withUnsafeBytes { list.append(item, id: $0) }
    }
    return ScoreReply(release: request.query.release, shards: request.tasks.map(\.shard), items: list)
  }
  mutating func score(leg index: Int) {
    let leg = legs[index]
    send(.scored(leg.id, .success(reply(leg.request))))
  }

  mutating func fail(leg index: Int, _ failure: CallFailure = .connectionLost) {
    send(.scored(legs[index].id, .failure(failure)))
  }
  /// Requests, one after the other, until this many were answered: workers named in `latency` answer them.
  mutating func serve(_ count: Int, every interval: Duration = .milliseconds(10)) {
    for _ in 0..<count {
      nextToken += 1
      request(nextToken)
      pass(interval)
    }
  }

  /// The legs sent so far, as text.
  var sent: [String] {
    legs.map { leg in
      "w\(leg.worker.rawValue + 1): " + leg.request.tasks.map { "\($0.shard)" }.joined(separator: " ")
    }
  }
  func ids(_ token: RequestToken) -> [String] {
    guard case .success(let answer)? = answers[token] else { return [] }
    return answer.entries.map(answer.id)
  }
  func coverage(_ token: RequestToken) -> Coverage? { try? answers[token]?.get().coverage }
  func error(_ token: RequestToken) -> RankingError? {
    guard case .failure(let error)? = answers[token] else { return nil }
    return error
  }
}
