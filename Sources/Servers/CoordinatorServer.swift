import Bundles
import CLinux
import Glibc
import HTTP2
import Membership
import Nodes
import RankingCore
import Rollout
import Routing
import Transport
import Wire

// A coordinator process: `CoordinatorNode` on one event loop, its effects carried out by HTTP.
//
//     stream ─► PublicAPI.parse ─► .requested ─► node ─► .score ─► HTTPClient of the worker
//     stream ◄─ PublicAPI.write ◄─ .answer    ◄─ node ◄─ .scored ◄─ reply decoded

public final class CoordinatorServer: HTTPServerDelegate, HTTPClientDelegate, CallHandler {
  struct Pending {
    let stream: ServerStream
    let api: PublicAPI
    let isGRPC: Bool
    let requestID: String
    let trace: TraceContext?
    let receivedAt: Instant
  }

  let configuration: CoordinatorConfiguration
  let loop = EventLoop()
  let server: HTTPServer
  let adminServer: HTTPServer?
  private var admin: AdminAPI?
  /// By worker; `nil` = not connected to.
  private var clients: [HTTPClient?] = []
  let node: CoordinatorNode
  private let store: StoreLink?
  let reader: BundleReader
  let security: NodeSecurity
  let access: Access
  /// Versions that are being read.
  private var loadings: Set<ModelVersion> = []
  private var seeds: SeededGenerator
  private var events: [CoordinatorEvent] = []
  private var effects: [CoordinatorEffect] = []
  /// The effects being carried out.
  private var carried: [CoordinatorEffect] = []
  private var isHandling = false
  var pending: [RequestToken: Pending] = [:]
  var lastToken: RequestToken = 0
  private enum Purpose {
    case probe(WorkerID, token: UInt64)
    case score(LegID)
    case lookup(LegID)
    case order(WorkerID)
  }
  private var calls = CallTable<Purpose>()
  private var queryCache: (key: UInt64, bytes: [UInt8]) = (.max, [])
  private lazy var others = CoordinatorLinks(loop: loop, tls: security.toCoordinators)
  private lazy var timer = LoopTimer { [unowned self] in sendDated(.woke) }
  var metrics = CoordinatorMetrics()
  var journal: RequestJournal
  /// Of the request that is answered next, if it has one.
  var lastTrace: RequestTrace?
  lazy var standard = StandardServices(server, services: ["shortlist.v1.Ranking"]) { [unowned self] in
    node.isReady
  }
  var requestIDs: SeededGenerator
  private var hasAnnounced = false
  private var shutdown: Shutdown?

  /// Runs a coordinator until it is told to end.
  /// - Returns: the exit status.
  public static func run(_ configuration: CoordinatorConfiguration) throws -> Int32 {
    try configuration.validate()
    let server = try CoordinatorServer(configuration)
    server.start()
    server.loop.run()
    server.reader.stop()
    return 0
  }

  init(_ configuration: CoordinatorConfiguration) throws {
    self.configuration = configuration
    Log.format = configuration.logging.isJSON ? .json : .text
    journal = RequestJournal(process: configuration.name, slow: configuration.logging.slow)
    reader = BundleReader(
      try BundleSource(store: configuration.store, bundles: configuration.bundles, name: configuration.name))
    security = try NodeSecurity(configuration.tls, name: configuration.name)
    access = try Access(file: configuration.tokens, name: configuration.name)
    server = try HTTPServer(
      host: configuration.listen.host, port: configuration.listen.port, limits: configuration.limits(.publicPort),
      tls: security.publicPort,
      loop: loop)
    security.logRefusals(of: server, at: "public")
    if let address = configuration.admin {
      let admin = try HTTPServer(
        host: address.host, port: address.port, limits: configuration.limits(.publicPort), tls: security.adminPort,
        loop: loop)
      security.logRefusals(of: admin, at: "admin")
      adminServer = admin
    } else {
      adminServer = nil
    }
    var random = SystemRandomNumberGenerator()
    seeds = SeededGenerator(seed: random.next())
    var settings = CoordinatorSettings()
    if let replacedAfter = configuration.replacedAfter { settings.membership.replacedAfter = replacedAfter }
    settings.routing.hedging = configuration.hedging
    if !configuration.retries { settings.routing.attemptsPerShard = 1 }
    settings.routing.slowEjection = configuration.slowEjection
    settings.routing.choice = configuration.choice
    if let replicas = configuration.replicas {
      settings.placement = PlacementPolicy()
      settings.placement?.replicas = replicas
      settings.epoch = UInt64(max(0, time(nil)))
    }
    if let adminServer, let address = configuration.admin {
      settings.coordinators =
        ["\(SocketAddress(host: address.host, port: adminServer.port))"] + configuration.peers.map(\.description)
    }
    settings.table = configuration.table
    settings.hasDocument = configuration.state != nil
    settings.initial = configuration.models
    store = configuration.state.map { [loop] in
      StoreLink($0, name: configuration.name, loop: loop, seed: random.next())
    }
    node = CoordinatorNode(settings: settings, seed: random.next(), now: loop.freshNow())
    node.tracesFrom = journal.tracesFrom(now: loop.freshNow())
    requestIDs = SeededGenerator(seed: random.next())
    server.delegate = self
    for release in store == nil ? configuration.models : [] {
      reader.source.keep(Set(configuration.models))
      took(try ReleaseLoading.release(release, from: reader.source))
    }
  }

  private func start() {
    shutdown = Shutdown(on: loop) { [unowned self] in
      send(.draining)
      store?.store.stop {}
      standard.end()
      admin?.end()
      adminServer?.stop(limit: .seconds(1)) {}
      server.stop(limit: .seconds(9)) { self.loop.stop() }
    }
    renewTraces()
    security.watch(on: loop) { [unowned self] in access.reload() }
    server.start()
    admin = adminServer.map { server in
      AdminAPI(
        server, node: node, store: store, loop: loop, access: access, metrics: { [unowned self] in metricsText() },
        slowest: { [unowned self] in journal.page(now: loop.now) }
      ) { [unowned self] in $1 ? sendDated($0) : send($0) }
    }
    adminServer?.start()
    if let adminServer, let address = configuration.admin {
      Announcement.admin(
        SocketAddress(host: address.host, port: adminServer.port), isSecure: security.adminPort != nil)
    }
    for worker in configuration.workers {
      send(.configured(name: worker.name, address: worker.address.description))
    }
    for name in configuration.discover { resolve(name) }
    store?.start { [unowned self] in sendDated($0) }
  }

  /// What was slow ages: others are worth a look again.
  private func renewTraces() {
    node.tracesFrom = journal.tracesFrom(now: loop.now)
    loop.schedule(after: .seconds(30)) { [unowned self] in renewTraces() }
  }

  /// Asks for the addresses of a name, on a thread of its own, as a resolver may block for long; and again a few
  /// seconds after it has answered, so that no more than one thread waits for it.
  private func resolve(_ name: SocketAddress) {
    let (loop, this) = (loop, Unchecked(self))
    NameLookup.addresses(of: name) { addresses in
      loop.execute {
        this.value.send(.resolved(source: name.description, addresses: addresses))
        this.value.loop.schedule(after: NameLookup.interval) { this.value.resolve(name) }
      }
    }
  }

  // MARK: The node

  func send(_ event: CoordinatorEvent) {
    guard !isHandling else { return events.append(event) }
    isHandling = true
    handle(event)
    // What carrying out the effects brought about at once, such as a call that could not be made.
    var next = 0
    while next < events.count {
      handle(events[next])
      next += 1
    }
    events.removeAll(keepingCapacity: true)
    isHandling = false
    standard.update()
    admin?.update()
    // With more requests in flight there is something to do most of the time, and looking would only cost.
    loop.expectSoon(within: (1...2).contains(pending.count) ? configuration.busyPoll : .zero)
    if !hasAnnounced, node.isReady {
      hasAnnounced = true
      Announcement.ready(configuration.listen, port: server.port, isSecure: security.publicPort != nil)
    }
  }

  private func handle(_ event: CoordinatorEvent) {
    node.handle(event, now: loop.freshNow(), into: &effects)
    swap(&effects, &carried)
    for effect in carried { carryOut(effect) }
    carried.removeAll(keepingCapacity: true)
  }

  /// An event that may make a line of history: the node is told what time it is for people.
  private func sendDated(_ event: CoordinatorEvent) {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    node.wallMilliseconds = time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    send(event)
  }

  /// Has a version fetched and read.
  private func loadRelease(_ id: ModelVersion) {
    let (loop, this, reader) = (loop, Unchecked(self), reader)
    loadings.insert(id)
    reader.source.keep(loadings.union(node.router.catalog.entries.map(\.release.id)))
    @Sendable func end(_ loaded: Result<Release, any Error>) {
      loop.execute { this.value.loaded(id, loaded) }
    }
    reader.prepare([.users], of: id) { fetched in
      if case .failure(let error) = fetched { return end(.failure(error)) }
      reader.read {
        let loaded = Result { try ReleaseLoading.release(id, from: reader.source) }
        clinux_trim()
        end(loaded)
      }
    }
  }

  private func loaded(_ id: ModelVersion, _ loaded: Result<Release, any Error>) {
    loadings.remove(id)
    switch loaded {
    case .success(let release): took(release)
    case .failure(let error):
      Log.line(configuration.name, "\(id) cannot be served: \(error)")
      send(.releaseFailed(id, why: "\(error)"))
    }
  }

  private func took(_ release: Release) {
    var release = release
    if !configuration.fingerprints { release.fingerprint = 0 }
    send(.loaded(release))
  }

  /// Whether orders may be given at this very instant.
  private var mayDrive: Bool { store.map { $0.drives(now: loop.freshNow()) } ?? true }

  private func carryOut(_ effect: CoordinatorEffect) {
    switch effect {
    case .probe(let worker, let token, let timeout):
      call(worker, Self.statusHead, timeout, .probe(worker, token: token)) { $0.append(contentsOf: Self.emptyMessage) }
    case .score(let leg, let worker, let request, let timeout):
      if queryCache.key != leg.requestKey {
        queryCache.key = leg.requestKey
        queryCache.bytes.removeAll(keepingCapacity: true)
        ProtoWriter.append(to: &queryCache.bytes) { ScoreRequest.encodeQuery(request.query, into: &$0) }
      }
      let head = request.query.trace.map { Self.workerHead("Score", trace: $0) } ?? Self.scoreHead
      call(worker, head, timeout, .score(leg)) { body in
        GRPC.frame(into: &body) { body in
          body.append(contentsOf: queryCache.bytes)
          ProtoWriter.append(to: &body) { ScoreRequest.encodeTasks(request.tasks, into: &$0) }
        }
      }
    case .lookup(let leg, let worker, let request, let timeout):
      call(worker, Self.lookupHead, timeout, .lookup(leg)) { body in
        GRPC.frame(into: &body) { body in ProtoWriter.append(to: &body) { request.encode(into: &$0) } }
      }
    case .cancel(let leg, let worker):
      let call = calls.call {
        switch $0 {
        case .score(let other), .lookup(let other): leg == other
        case .probe, .order: false
        }
      }
      if let call { client(worker)?.cancel(call) }
    case .trace(let trace): lastTrace = trace
    case .answer(let token, let outcome): answer(token, outcome)
    case .wake(let at): loop.arm(timer, at: at)
    case .connect(let worker, let address): connect(worker, address)
    case .disconnect(let worker): disconnect(worker)
    case .load(let worker, let order): if mayDrive { give(worker, Self.loadHead, order) }
    case .unload(let worker, let order): if mayDrive { give(worker, Self.unloadHead, order) }
    case .rollout(let effect): carryOut(effect)
    case .replyJoin(let call, .success(let reply)): admin?.reply(call, reply.encoded())
    case .replyJoin(let call, .failure(let failure)): admin?.refuse(call, GRPC.status(of: failure))
    case .replyLeave(let call, let reply): admin?.reply(call, reply.encoded())
    case .memberChanged(let worker, let state): announce(worker, state)
    }
  }

  private func carryOut(_ effect: RolloutEffect) {
    switch effect {
    case .commit(let order): store?.commit(order) { [unowned self] in sendDated($0) }
    case .load(let id): loadRelease(id)
    case .forget(let id): Log.line(configuration.name, "\(id) is no longer needed here")
    case .reply(let call, .success(let entry)): admin?.reply(call, entry)
    case .reply(let call, .failure(let error)): admin?.refuse(call, error)
    case .decided(let entry): Log.line(configuration.name, RolloutPages.line(entry))
    case .askOthers: askOthers()
    case .measure(let names): send(.measured(RolloutPages.metrics(names, in: metricsText())))
    }
  }

  private func askOthers() {
    for peer in configuration.peers.map(\.description) {
      others.ask(peer, "/shortlist.v1.Coordinator/Traffic", [], TrafficReport.init(decoding:)) { [unowned self] in
        if case .success(let report) = $0 { send(.told(peer: peer, report)) }
      }
    }
  }

  private func client(_ worker: WorkerID) -> HTTPClient? {
    worker.index < clients.count ? clients[worker.index] : nil
  }

  private func connect(_ worker: WorkerID, _ address: String) {
    disconnect(worker)
    guard let address = try? SocketAddress(address) else {
      return Log.line(configuration.name, "\(node.membership.members[worker.index].name): no address: \(address)")
    }
    while clients.count <= worker.index { clients.append(nil) }
    let client = HTTPClient(
      host: address.host, port: address.port, loop: loop, tls: security.toWorkers, seed: seeds.next())
    client.delegate = self
    clients[worker.index] = client
    client.start()
  }

  private func disconnect(_ worker: WorkerID) {
    guard let client = client(worker) else { return }
    client.stop()
    client.delegate = nil
    clients[worker.index] = nil
  }

  private func give(_ worker: WorkerID, _ head: RequestHead, _ order: ShardOrder) {
    // The driver gives its orders again as long as they stand; a worker that is not there is no news to it.
    guard client(worker)?.isUp == true else { return }
    call(worker, head, Self.orderTimeout, .order(worker)) { body in
      GRPC.frame(into: &body) { $0.append(contentsOf: order.encoded()) }
    }
  }

  private var announced: [WorkerID: MemberState] = [:]
  /// How long a worker is down before its link is doubted, too.
  private static let linkDoubtedAfter: Duration = .seconds(1)
  private func announce(_ worker: WorkerID, _ state: MemberState) {
    guard announced.updateValue(state, forKey: worker) != state else { return }
    Log.line(configuration.name, "\(node.membership.members[worker.index].name) is \(state.rawValue)")
    guard state == .down else { return }
    // Most that are silent are back sooner, and then their link is as good as ever.
    loop.schedule(after: Self.linkDoubtedAfter) { [weak self] in
      if let self, announced[worker] == .down { client(worker)?.askForLife() }
    }
  }

  private static let orderTimeout: Duration = .seconds(1)

  private static let statusHead = workerHead("Status")
  private static let scoreHead = workerHead("Score")
  private static let lookupHead = workerHead("Lookup")
  private static let loadHead = workerHead("Load")
  private static let unloadHead = workerHead("Unload")
  private static let emptyMessage = GRPC.frame([])
  /// - Parameter trace: of a traced request's legs, which are told of it.
  private static func workerHead(_ method: String, trace: String? = nil) -> RequestHead {
    RequestHead(
      method: "POST", path: "/shortlist.v1.Worker/\(method)",
      headers: [("content-type", GRPC.contentType), ("te", "trailers")] + (trace.map { [("traceparent", $0)] } ?? []),
      varying: "grpc-timeout")
  }

  private func call(
    _ worker: WorkerID, _ head: RequestHead, _ timeout: Duration, _ purpose: Purpose, body: (inout [UInt8]) -> Void
  ) {
    let token = calls.open(purpose)
    let id = client(worker)?.call(
      head, varying: GRPC.timeout(timeout), handler: self, token: token, body: body)
    if let id { calls.started(token, id) } else { ended(token, .failure(.connectionLost)) }
  }

  public func ended(_ token: UInt64, _ outcome: CallOutcome) {
    switch calls.close(token) {
    case .score(let leg): send(.scored(leg, WorkerReply.decode(outcome, ScoreReply.init(decoding:))))
    case .lookup(let leg): send(.lookedUp(leg, WorkerReply.decode(outcome, LookupReply.init(decoding:))))
    case .probe(let worker, let token):
      send(.probed(worker, token: token, WorkerReply.decode(outcome, WorkerStatus.init(decoding:))))
    case .order(let worker):
      switch WorkerReply.decode(outcome, { (_: UnsafeRawBufferPointer) throws(WireError) in () }) {
      case .success: send(.ordered(worker, nil))
      case .failure(let failure): send(.ordered(worker, failure))
      }
    }
  }

  // MARK: Workers

  public func clientUp(_ client: HTTPClient) { tell(client) { .linked($0) } }
  public func clientDown(_ client: HTTPClient, reason: String) { tell(client) { .unlinked($0) } }
  public func clientClosing(_ client: HTTPClient) { tell(client) { .closing($0) } }
  private func tell(_ client: HTTPClient, _ event: (WorkerID) -> CoordinatorEvent) {
    guard let index = clients.firstIndex(where: { $0 === client }) else { return }
    send(event(WorkerID(index)))
  }
}
