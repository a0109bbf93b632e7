import Bundles
import CLinux
import Glibc
import HTTP2
import Nodes
import RankingCore
import Scoring
import Transport
import Wire

// A worker process: `WorkerNode` on one event loop, scoring on compute threads of its own.
//
//     stream ─► .scoreRequested ─► node ─► .run ─┬─ brief: scored at once, on the loop's thread ──┬─► .scored ─► reply
//                                                └─ else: compute threads ─► back to the loop ────┘
//
// Handing a leg to another thread and its reply back costs some 30 us and two switches of the core; a leg of a small
// slice is done in less. What the loop scores in one turn is bounded, so that no probe waits for it noticeably.

public final class WorkerServer: HTTPServerDelegate {
  private final class Running {
    let flag = CancellationFlag()
    var timer: LoopTimer?
  }

  private let configuration: WorkerConfiguration
  private let loop = EventLoop()
  private let server: HTTPServer
  private let pool: ComputePool<LegScorer>
  /// Of the loop's thread.
  private let scorer = LegScorer()
  private var briefTurn = BriefTurn()
  private var node: WorkerNode
  private var hosted: [ModelVersion: HostedRelease] = [:]
  private var events: [WorkerEvent] = []
  private var isHandling = false
  private var streams: [CallToken: ServerStream] = [:]
  private var running: [CallToken: Running] = [:]
  private var lastToken: CallToken = 0
  private var shutdown: Shutdown?
  private lazy var timer = LoopTimer { [unowned self] in send(.woke) }
  private var drainingSince: Instant?
  private var bytesHeld = 0
  private var faults: FaultInjection?
  /// Time spent in the scorer, all threads together.
  private var scoring = Duration.zero
  private let reader: BundleReader
  private let security: NodeSecurity
  private struct Load: Equatable {
    var release: ModelVersion
    var shard: ShardID
  }
  /// To be read, one after the other: the first is being read, or rested from.
  private var loads: [Load] = []
  /// Of those that are being fetched.
  private var fetches: [Load] = []
  /// Shards of the configuration that are not settled yet; it is ready when there are none.
  private var awaited = 0
  private lazy var coordinators = CoordinatorLinks(loop: loop, tls: security.toCoordinators)

  /// Runs a worker until it is told to end.
  /// - Returns: the exit status.
  public static func run(_ configuration: WorkerConfiguration) throws -> Int32 {
    try configuration.validate()
    returnSlicesToSystem()
    if !configuration.checksums { SectionFile.trustEverything() }
    let server = try WorkerServer(configuration)
    server.start()
    server.loop.run()
    server.pool.stop()
    server.reader.stop()
    return 0
  }

  /// Large blocks get a mapping of their own, always. Left to itself malloc raises the size from which they do as soon
  /// as one is freed, and what shards that come and go leave in its heap is never the right size for the next.
  private static func returnSlicesToSystem() { _ = clinux_map_blocks_from(1 << 18) }

  init(_ configuration: WorkerConfiguration) throws {
    self.configuration = configuration
    Log.format = configuration.logging.isJSON ? .json : .text
    reader = BundleReader(
      try BundleSource(store: configuration.store, bundles: configuration.bundles, name: configuration.name))
    security = try NodeSecurity(configuration.tls, name: configuration.name)
    server = try HTTPServer(
      host: configuration.listen.host, port: configuration.listen.port, limits: configuration.limits(.workerPort),
      tls: security.workerPort,
      loop: loop)
    security.logRefusals(of: server, at: "worker")
    let threads =
      configuration.scoringThreads > 0 ? configuration.scoringThreads : max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    var random = SystemRandomNumberGenerator()
    let cores = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    var settings = WorkerSettings(name: configuration.name, incarnation: random.next())
    settings.address =
      configuration.advertise?.description
      ?? "\(SocketAddress(host: configuration.listen.host, port: server.port))"
    settings.zone = configuration.zone
    settings.capacityBytes =
      configuration.memoryMiB > 0
      ? UInt64(configuration.memoryMiB) << 20
      : UInt64(sysconf(Int32(_SC_PHYS_PAGES))) * UInt64(sysconf(Int32(_SC_PAGESIZE))) / 5 * 4
    var policy = WorkerPolicy(running: threads, cores: cores)
    if let size = configuration.togetherKiB { policy.togetherBytesMin = UInt64(size) << 10 }
    node = WorkerNode(settings: settings, policy: policy)
    pool = Threads.withSignalsBlocked { ComputePool(threads: threads) { LegScorer() } }
    server.delegate = self
  }

  private func start() {
    shutdown = Shutdown(on: loop) { [unowned self] in
      drainingSince = loop.now
      send(.draining)
    }
    security.watch(on: loop)
    server.start()
    for holding in configuration.holdings {
      awaited += Set(holding.shards).count
      send(.assigned(holding.release, holding.shards))
    }
    announceWhenReady()
    if !configuration.join.isEmpty { send(.join(coordinators: configuration.join.map(\.description))) }
  }

  private func announceWhenReady() {
    if awaited == 0 {
      Announcement.ready(configuration.listen, port: server.port, isSecure: security.workerPort != nil)
    }
  }

  /// Has a slice fetched and read. A damaged shard is left out and said; the others serve.
  private func load(_ id: ModelVersion, _ shard: ShardID) {
    let (loop, this, load) = (loop, Unchecked(self), Load(release: id, shard: shard))
    fetches.append(load)
    keep()
    reader.prepare([.rankers, .slice(shard)], of: id) { fetched in loop.execute { this.value.prepared(load, fetched) } }
  }

  private func prepared(_ load: Load, _ fetched: Result<Void, any Error>) {
    if let index = fetches.firstIndex(of: load) { fetches.remove(at: index) }
    if case .failure(let error) = fetched { return loaded(load.release, load.shard, .failure(error)) }
    loads.append(load)
    if loads.count == 1 { loadFirst() }
  }

  private func loadFirst() {
    keep()
    guard let load = loads.first else { return }
    let (id, shard) = (load.release, load.shard)
    let (loop, this, source) = (loop, Unchecked(self), reader.source)
    // While something is served, a slice is followed by a rest: however many workers share a machine, reading takes a
    // small share of it.
    let rest = hosted.isEmpty ? 0 : 1 / configuration.loadShare - 1
    let start = loop.now
    reader.read {
      let loaded = Result {
        (try ReleaseLoading.hosted(id, from: source), try ReleaseLoading.slice(id, shard, from: source))
      }
      // Reading a slice and making its index leave holes in the heap that nothing else here would fill.
      clinux_trim()
      loop.execute {
        this.value.loaded(id, shard, loaded)
        loop.schedule(after: (loop.now - start) * rest) {
          this.value.loads.removeFirst()
          this.value.loadFirst()
        }
      }
    }
  }

  /// What a cache must not give up.
  private func keep() { reader.source.keep(Set(hosted.keys).union((loads + fetches).map(\.release))) }

  private func loaded(_ id: ModelVersion, _ shard: ShardID, _ result: Result<(HostedRelease, Slice), any Error>) {
    do {
      let (fresh, slice) = try result.get()
      var release = hosted[id] ?? fresh
      guard release.fingerprint == fresh.fingerprint else {
        throw ConfigurationError("the store has another bundle of this name now than the one that is served")
      }
      try release.add(slice)
      hosted[id] = release
      send(.loaded(id, shardCount: release.shardCount, shard, bytes: UInt64(slice.memoryFootprint),
          fingerprint: release.fingerprint))
    } catch {
      Log.line(configuration.name, "shard \(shard) of \(id) is not served: \(error)")
      send(.loadFailed(id, shard, why: "shard \(shard): \(error)"))
    }
    countBytes()
    if awaited > 0 {
      awaited -= 1
      announceWhenReady()
    }
  }

  private func unload(_ id: ModelVersion, _ shard: ShardID) {
    hosted[id]?.remove(shard)
    if hosted[id]?.shards.isEmpty == true { hosted[id] = nil }
    countBytes()
    // Not here: it takes malloc's locks, and walks its heaps.
    reader.read { clinux_trim() }
  }
  private func countBytes() { bytesHeld = hosted.values.reduce(0) { $0 + $1.memoryFootprint } }

  /// Says goodbye; what time is left of the drain is for what is open.
  private func depart() {
    standard.end()
    let spent = loop.now - (drainingSince ?? loop.now)
    server.stop(limit: max(.seconds(1), Self.drainLimit - spent)) { self.loop.stop() }
  }
  private static let drainLimit: Duration = .milliseconds(9800)

  // MARK: The node

  private func send(_ event: WorkerEvent) {
    events.append(event)
    guard !isHandling else { return }
    isHandling = true
    var effects: [WorkerEffect] = []
    var next = 0
    while next < events.count {
      node.handle(events[next], now: loop.freshNow(), into: &effects)
      next += 1
      for effect in effects { carryOut(effect) }
      effects.removeAll(keepingCapacity: true)
    }
    events.removeAll(keepingCapacity: true)
    isHandling = false
    standard.update()
  }

  private func carryOut(_ effect: WorkerEffect) {
    switch effect {
    case .run(let runs, let expected, let threads): run(runs, expected, threads: threads)
    case .abort(let call): running[call]?.flag.cancel()
    case .lookUp(let call, let request):
      guard let release = hosted[request.release] else { return refuse(call, .wrongVersion) }
      switch lookup(held(request, release), holding: release) {
      case .success(let reply): succeed(call, reply.encoded())
      case .failure(let failure): refuse(call, failure)
      }
    case .replyScore(let call, let result):
      guard let delay = faults?.next((try? result.get())?.release) else { return reply(call, result) }
      loop.schedule(after: delay) { [unowned self] in reply(call, result) }
    case .refuseLookup(let call, let failure): refuse(call, failure)
    case .replyStatus(let call, let status): succeed(call, status.encoded())
    case .replyOrder(let call, nil): succeed(call, [])
    case .replyOrder(let call, let failure?): refuse(call, failure)
    case .load(let release, let shard): load(release, shard)
    case .unload(let release, let shard): unload(release, shard)
    case .join(let coordinator, let request):
      coordinators.ask(coordinator, "/shortlist.v1.Coordinator/Join", request.encoded(), JoinReply.init(decoding:)) {
        [unowned self] in send(.joined(coordinator: coordinator, $0))
      }
    case .leave(let coordinator, let request):
      coordinators.ask(coordinator, "/shortlist.v1.Coordinator/Leave", request.encoded(), LeaveReply.init(decoding:)) {
        [unowned self] in send(.mayLeave(coordinator: coordinator, $0))
      }
    case .depart: depart()
    case .wake(let at): loop.arm(timer, at: at)
    }
  }

  /// The part of a lookup that is held here; the reply says which shards it speaks for.
  private func held(_ request: LookupRequest, _ release: HostedRelease) -> LookupRequest {
    var request = request
    request.shards.removeAll { release.slice($0) == nil }
    return request
  }

  private func run(_ runs: [WorkerRun], _ expected: Duration?, threads: Int) {
    var legs: [ScoringJob.Leg] = []
    for run in runs {
      guard let release = hosted[run.request.query.release], let held = held(run.request, release) else {
        send(.scored(run.call, .failure(.wrongVersion)))
        continue
      }
      if runs.count == 1, let expected, briefTurn.takes(expected, turn: loop.turn) {
        let start = EventLoop.clock()
        let result = scorer.score(held, holding: release, cancelled: Self.never)
        scoring += EventLoop.clock() - start
        return send(.scored(run.call, result))
      }
      let job = Running()
      let flag = job.flag
      job.timer = loop.schedule(at: run.deadline) { flag.cancel() }
      running[run.call] = job
      legs.append(ScoringJob.Leg(call: run.call, request: held, cancelled: flag))
    }
    guard let first = legs.first, let release = hosted[first.request.query.release] else { return }
    let (loop, this, all) = (loop, Unchecked(self), legs)
    let job = ScoringJob(all, holding: release, threads: threads) { results, took in
      loop.execute { this.value.scored(all, results, took) }
    }
    for part in 0..<job.parts { pool.submit { job.run(part, $0) } }
  }

  /// What was unloaded while the leg waited is left out, not a reason to refuse the rest; nil = all of it was.
  private func held(_ request: ScoreRequest, _ release: HostedRelease) -> ScoreRequest? {
    if request.tasks.allSatisfy({ release.slice($0.shard) != nil }) { return request }
    var held = request
    held.tasks.removeAll { release.slice($0.shard) == nil }
    return held.tasks.isEmpty ? nil : held
  }

  private func scored(_ legs: [ScoringJob.Leg], _ results: [Result<ScoreReply, CallFailure>], _ took: Duration) {
    scoring += took
    for (leg, result) in zip(legs, results) {
      if let timer = running.removeValue(forKey: leg.call)?.timer { loop.cancel(timer) }
      send(.scored(leg.call, result))
    }
  }

  private static let never = CancellationFlag()

  /// What the loop may score by itself in one turn.
  private struct BriefTurn {
    private static let limit: Duration = .microseconds(200)
    private var turn: UInt64 = 0
    private var spent = Duration.zero

    mutating func takes(_ expected: Duration, turn: UInt64) -> Bool {
      if turn != self.turn {
        self.turn = turn
        spent = .zero
      }
      guard spent + expected <= Self.limit else { return false }
      spent += expected
      return true
    }
  }

  // MARK: Coordinators

  private static let healthy = Array("ok\n".utf8)
  private var isReady: Bool { !node.isDraining && !hosted.isEmpty }
  private lazy var standard = StandardServices(server, services: ["shortlist.v1.Worker"]) { [unowned self] in isReady }

  public func streams(_ stream: ServerStream) -> Bool { standard.streams(stream) }

  public func received(_ stream: ServerStream, on server: HTTPServer) {
    if standard.takes(stream) { return standard.received(stream) }
    guard stream.isMethod("POST") else { return get(stream) }
    if configuration.allowFaults, stream.isPath("/faults") { return setFaults(stream) }
    guard server.peerRoles(of: stream)?.contains(.coordinator) != false else {
      let error = GRPC.StatusError(.permissionDenied, "this takes a coordinator's certificate")
      return server.respond(stream, head: Heads.grpcError(error), body: [])
    }
    lastToken += 1
    stream.token = lastToken
    streams[lastToken] = stream
    let call = lastToken
    guard stream.headers.hasPrefix("content-type", "application/grpc") else {
      return refuse(call, GRPC.StatusError(.internal, "content-type must be application/grpc"))
    }
    let now = loop.now
    let timeout = stream.headers["grpc-timeout"].flatMap { GRPC.timeout($0) } ?? RequestLimit.timeoutDefault
    stream.body.withUnsafeBytes { raw in
      switch GRPC.message(raw) {
      case .failure(let error): refuse(call, error)
      case .success(let message):
        do throws(WireError) {
          if stream.isPath("/shortlist.v1.Worker/Score") {
            send(.scoreRequested(call, try ScoreRequest(decoding: message), deadline: now + timeout))
          } else if stream.isPath("/shortlist.v1.Worker/Status") {
            send(.statusRequested(call))
          } else if stream.isPath("/shortlist.v1.Worker/Lookup") {
            send(.lookupRequested(call, try LookupRequest(decoding: message)))
          } else if stream.isPath("/shortlist.v1.Worker/Load") {
            send(.loadRequested(call, try ShardOrder(decoding: message)))
          } else if stream.isPath("/shortlist.v1.Worker/Unload") {
            send(.unloadRequested(call, try ShardOrder(decoding: message)))
          } else if stream.isPath("/shortlist.v1.Worker/Drain") {
            succeed(call, [])
            drainingSince = drainingSince ?? loop.now
            send(.draining)
          } else {
            refuse(call, GRPC.StatusError(.unimplemented, "no such method"))
          }
        } catch {
          refuse(call, GRPC.StatusError(.invalidArgument, "\(error)"))
        }
      }
    }
  }

  public func cancelled(_ stream: ServerStream, on server: HTTPServer) {
    standard.cancelled(stream)
    guard streams.removeValue(forKey: stream.token) != nil else { return }
    send(.cancelled(stream.token))
  }

  private var legLines = LineLimit(perSecond: 50)

  /// A leg that was slow or failed gets a line, with the request's trace if it has one.
  private func note(_ call: CallToken, _ result: Result<ScoreReply, CallFailure>) {
    guard let stream = streams[call] else { return }
    let took = Duration.nanoseconds(Int64(loop.now.nanoseconds &- stream.beganAt))
    let isSound = (try? result.get()) != nil
    guard !isSound || took >= configuration.logging.slow, let unsaid = legLines.passes(loop.now) else { return }
    Log.line(
      Log.object(configuration.name) { json in
        if let trace = stream.headers["traceparent"].flatMap({ TraceContext(traceparent: $0) }) {
          json.literal(",\"trace_id\":")
          json.string(trace.trace)
        }
        json.literal(",\"leg_took_ms\":")
        json.milliseconds(took.milliseconds)
        json.literal(",\"outcome\":")
        switch result {
        case .success: json.string("ok")
        case .failure(let failure): json.string(GRPC.status(of: failure).message)
        }
        LineLimit.write(unsaid: unsaid, into: &json)
      })
  }

  private func reply(_ call: CallToken, _ result: Result<ScoreReply, CallFailure>) {
    note(call, result)
    switch result {
    case .success(let reply): succeed(call) { bytes in ProtoWriter.append(to: &bytes) { reply.encode(into: &$0) } }
    case .failure(let failure): refuse(call, failure)
    }
  }
  private func succeed(_ call: CallToken, _ message: [UInt8]) {
    succeed(call) { $0 += message }
  }
  private func succeed(_ call: CallToken, message: (inout [UInt8]) -> Void) {
    guard let stream = streams.removeValue(forKey: call) else { return }
    server.respond(stream, head: Heads.grpc, trailers: Heads.grpcOK) { GRPC.frame(into: &$0, message) }
  }
  private func refuse(_ call: CallToken, _ failure: CallFailure) { refuse(call, GRPC.status(of: failure)) }
  private func refuse(_ call: CallToken, _ error: GRPC.StatusError) {
    guard let stream = streams.removeValue(forKey: call) else { return }
    server.respond(stream, head: Heads.grpcError(error), body: [])
  }

  private func setFaults(_ stream: ServerStream) {
    do throws(ConfigurationError) {
      faults = try FaultInjection(stream.body)
      server.respond(stream, head: Heads.text, body: Self.healthy)
    } catch {
      server.respond(stream, head: Heads.error(400), body: Array("\(error)\n".utf8))
    }
  }

  private func get(_ stream: ServerStream) {
    if stream.isPath("/healthz") { return server.respond(stream, head: Heads.text, body: Self.healthy) }
    if stream.isPath("/readyz") {
      return server.respond(
        stream, head: isReady ? Heads.text : Heads.unready, body: Array((isReady ? "ready\n" : "not ready\n").utf8))
    }
    if stream.isPath("/metrics") {
      return server.respond(stream, head: Heads.metrics, body: Array(metricsText().utf8))
    }
    server.respond(stream, head: Heads.error(404), body: Array("GET /healthz, /readyz or /metrics\n".utf8))
  }

  private func metricsText() -> String {
    var text = MetricsText()
    let counters = node.counters
    let status = node.status(now: loop.now)
    text.counter("shortlist_worker_legs_total", "Legs scored.", counters.scored)
    text.family("shortlist_worker_scoring_seconds_total", "counter", "Time spent in the scorer, all threads together.")
    text.line("shortlist_worker_scoring_seconds_total", "", "\(Double(scoring.nanoseconds) / 1e9)")
    text.counter("shortlist_worker_together_total", "Legs scored together with others.", counters.together)
    text.counter("shortlist_worker_split_total", "Legs scored on several threads.", counters.split)
    text.family("shortlist_worker_refused_total", "counter", "Legs not scored, by reason.")
    for (reason, count) in [
      ("overloaded", counters.refused), ("expired", counters.expired), ("cancelled", counters.cancelled),
      ("wrong_version", counters.wrongVersion),
    ] { text.line("shortlist_worker_refused_total", "reason=\"\(reason)\"", "\(count)") }
    text.gauge("shortlist_worker_queued", "Legs waiting.", Double(status.queued))
    text.gauge("shortlist_worker_running", "Legs being scored.", Double(status.running))
    text.gauge("shortlist_worker_slice_bytes", "Memory of the slices held.", Double(bytesHeld))
    text.family("shortlist_worker_shards_ready", "gauge", "Shards held, by version.")
    for holding in status.holdings {
      text.line(
        "shortlist_worker_shards_ready", "model=\"\(holding.release.model)\",version=\"\(holding.release.version)\"",
        "\(holding.ready.count)")
    }
    reader.source.write(into: &text)
    security.write(into: &text)
    EdgeMetrics.write([("worker", server)], into: &text)
    ProcessFigures().write(into: &text)
    return text.text
  }
}
