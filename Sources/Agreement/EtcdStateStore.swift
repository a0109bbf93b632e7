import HTTP2
import RankingCore
import Transport
import Wire

// The store of several coordinators, in etcd (its keys: EtcdKeys.swift).
//
//     link up ─► read state and driver in one transaction ─► watch both from the next revision on ─► in touch
//        ▲                                                                                              │
//        └─ the next endpoint, after a pause ◄── connection lost, a stream ended, no reply in time ◄────┘
//
// Reading again after every loss is why nothing is missed, compacted or not. A commit is one transaction: if the state
// is at the expected revision, the history has no line of that number, and (for a driver) the driver key is the one we
// know it by, then state and line are put. When its reply is lost the very same transaction is made again: it goes in
// then, or it fails and shows either our own line, found by its id, or that somebody else was first. After that answer
// a copy that still lingers on the way can do nothing, as the state has moved on.

public final class EtcdStateStore: StateStore, EtcdLinkDelegate, @unchecked Sendable {
  public struct Options: Sendable {
    /// At least one.
    public var endpoints: [EtcdEndpoint]
    /// The beginning of all keys, such as `/shortlist/shop`; one per cluster.
    public var prefix: String
    /// Of this coordinator, told to the others while it drives.
    public var name: String
    /// False: it looks on, and commits what operators want.
    public var wantsToDrive = true
    /// Of the pauses between attempts; each coordinator should have its own.
    public var seed: UInt64
    public init(endpoints: [EtcdEndpoint], prefix: String, name: String, wantsToDrive: Bool = true, seed: UInt64) {
      self.endpoints = endpoints
      self.prefix = prefix
      self.name = name
      self.wantsToDrive = wantsToDrive
      self.seed = seed
    }
  }

  private static let leaseSeconds = 2
  /// A reply takes a disk's sync; one that takes longer than this comes from a member that is not well.
  private static let replyTimeout: Duration = .seconds(1)
  /// For a commit in all, other endpoints and repetitions included.
  private static let commitTimeout: Duration = .seconds(5)
  private static let revokeTimeout: Duration = .milliseconds(500)

  private let loop: EventLoop
  private let options: Options
  let link: EtcdLink
  private let keys: EtcdKeys
  private var keeper: LeaseKeeper
  private var keeperTimer: LoopTimer?
  private var observer: (StoreEvent) -> Void = { _ in }
  private var isStarted = false
  private var isStopped = false

  private var known: StoredState?
  private var cluster: UInt64?
  /// The newest revision of etcd's that was seen.
  private var newest: UInt64 = 0
  private var heard: Instant
  /// Watching, and all that was committed before is known.
  private var isInTouch = false
  private var awayWhy: String?
  private var watchesCreated = 0
  private var watchStream: EtcdStream?
  private var leaseStream: EtcdStream?
  /// Signs of life whose replies are owed, oldest first; the replies come in order.
  private var owed: [(lease: UInt64, sentAt: Instant)] = []
  private var owedTimer: LoopTimer?
  private var commits: [PendingCommit] = []
  private var isCommitting = false

  private struct PendingCommit {
    var content: EtcdKeys.Commit
    var completion: (CommitOutcome) -> Void
    /// It may have gone in.
    var isSent = false
    var timer: LoopTimer?
    var id: UInt64 { content.line.id }
  }

  public init(_ options: Options, loop: EventLoop) {
    self.options = options
    self.loop = loop
    link = EtcdLink(endpoints: options.endpoints, loop: loop, seed: options.seed)
    keys = EtcdKeys(prefix: options.prefix)
    heard = loop.now
    var policy = LeaseKeeper.Policy()
    policy.ttl = .seconds(Self.leaseSeconds)
    keeper = LeaseKeeper(policy: policy, wantsToDrive: options.wantsToDrive, now: loop.now)
    link.delegate = self
  }

  public func start(_ observer: @escaping (StoreEvent) -> Void) {
    precondition(!isStarted, "a store is started once")
    isStarted = true
    self.observer = observer
    heard = loop.freshNow()
    keeperTimer = LoopTimer { [weak self] in self?.tell(.timePassed) }
    owedTimer = LoopTimer { [weak self] in self?.checkOwed() }
    loop.execute { [self] in if !isStopped { link.start() } }
  }

  public func drivingEpoch(now: Instant) -> UInt64? { keeper.epoch(now: now) }

  public func stop(_ completion: @escaping () -> Void) {
    guard isStarted, !isStopped else { return loop.execute { [done = OnLoop(completion)] in done.body(()) } }
    var effects: [LeaseKeeper.Effect] = []
    keeper.handle(.stopped, now: loop.freshNow(), into: &effects)
    isStopped = true
    let link = link
    guard case .revoke(let lease)? = effects.first else {
      end()
      return loop.execute { [done = OnLoop(completion)] in done.body(()) }
    }
    link.call(EtcdLink.revoke, Etcd.lease(lease), timeout: Self.revokeTimeout) { [self] _ in
      end()
      completion()
    }
  }

  /// Ends as a killed process does, leaving its lease to run out.
  func abandon() {
    isStopped = true
    var effects: [LeaseKeeper.Effect] = []
    keeper.handle(.stopped, now: loop.freshNow(), into: &effects)
    end()
  }

  private func end() {
    link.stop()
    if let keeperTimer { loop.cancel(keeperTimer) }
    if let owedTimer { loop.cancel(owedTimer) }
    isInTouch = false
    awayWhy = "the store has been stopped"
    failCommits(all: true)
  }

  // MARK: The link

  func linkUp() {
    guard !isStopped else { return }
    let generation = link.generation
    func lost(_ what: String) -> (GRPC.StatusError) -> Void {
      { [weak self] error in
        guard let self, link.generation == generation else { return }
        link.drop("\(what) has ended: \(error.message)")
      }
    }
    watchesCreated = 0
    watchStream = link.open(
      EtcdLink.watch, received: { [weak self] in self?.watched($0) }, ended: lost("the watch"))
    leaseStream = link.open(
      EtcdLink.keepAlive, received: { [weak self] in self?.keptAlive($0) }, ended: lost("the lease's stream"))
    transact(keys.readBoth) { [weak self] in self?.synchronised($0) }
  }

  /// Makes a transaction on this connection; a failure other than a definite refusal drops it.
  private func transact(
    _ transaction: Etcd.Transaction, _ completion: @escaping (Result<Etcd.TransactionReply, GRPC.StatusError>) -> Void
  ) {
    let generation = link.generation
    link.call(EtcdLink.transaction, transaction.encode(), timeout: Self.replyTimeout) { [weak self] result in
      guard let self, !isStopped, link.generation == generation else { return }
      let reply = result.flatMap { Etcd.decode($0, Etcd.TransactionReply.init) }
      if case .success(let reply) = reply {
        heard = loop.freshNow()
        newest = max(newest, reply.header.revision)
      }
      completion(reply)
    }
  }

  private func synchronised(_ result: Result<Etcd.TransactionReply, GRPC.StatusError>) {
    let reply: Etcd.TransactionReply
    switch result {
    case .success(let found) where found.ranges.count == 2: reply = found
    case .success: return link.drop("a reply that is none")
    case .failure(let error): return link.drop(error.message)
    }
    if let cluster, cluster != reply.header.cluster {
      return link.drop("belongs to another etcd cluster than before")
    }
    guard reply.header.revision >= newest else {
      return link.drop("is at revision \(reply.header.revision), where \(newest) was seen: was it put back?")
    }
    let state = EtcdKeys.stored(reply.ranges[0].values.first)
    guard state.revision >= known?.revision ?? 0 else {
      return link.drop("\(options.prefix)/state has been deleted")
    }
    cluster = reply.header.cluster
    seen(state)
    let from = reply.header.revision + 1
    guard watchStream?.send(Etcd.watch(key: keys.state, from: from)) == true,
      watchStream?.send(Etcd.watch(key: keys.driver, from: from)) == true
    else { return link.drop("the watch has ended") }
    tell(.driverSeen(EtcdKeys.driver(reply.ranges[1].values.first), revision: reply.header.revision))
    tell(.linkUp)
  }

  /// The state as of some reply or event; an older one changes nothing.
  private func seen(_ state: StoredState) {
    guard known == nil || state.revision > known!.revision else { return }
    known = state
    if !isStopped { observer(.state(state)) }
  }

  private func watched(_ message: UnsafeRawBufferPointer) {
    guard !isStopped else { return }
    let reply: Etcd.WatchReply
    do throws(WireError) { reply = try Etcd.WatchReply(message) } catch {
      return link.drop("a watch reply that is none: \(error)")
    }
    watched(reply)
  }
  func watched(_ reply: Etcd.WatchReply) {
    heard = loop.freshNow()
    newest = max(newest, reply.header.revision)
    guard !reply.isCanceled else {
      let compacted = "revision \(reply.compactRevision) is compacted"
      return link.drop("the watch was ended: \(reply.compactRevision > 0 ? compacted : reply.reason)")
    }
    for event in reply.events where !isStopped {
      if event.value.key == keys.state {
        guard !event.isDeletion else { return link.drop("\(options.prefix)/state has been deleted") }
        seen(EtcdKeys.stored(event.value))
      } else if event.value.key == keys.driver {
        tell(
          .driverSeen(event.isDeletion ? nil : EtcdKeys.driver(event.value), revision: event.value.modRevision))
      }
    }
    guard reply.isCreated else { return }
    watchesCreated += 1
    guard watchesCreated == 2, !isStopped else { return }
    isInTouch = true
    link.worked()
    if awayWhy != nil {
      awayWhy = nil
      observer(.back)
    }
    sendNextCommit()
  }

  func linkDown(why: String) {
    guard !isStopped else { return }
    watchStream = nil
    leaseStream = nil
    owed.removeAll()
    if let owedTimer { loop.cancel(owedTimer) }
    isInTouch = false
    isCommitting = false
    let wasAway = awayWhy != nil
    awayWhy = why
    tell(.linkDown)
    if !wasAway, !isStopped { observer(.away(since: heard, why: why)) }
    failCommits(all: false)
  }

  // MARK: The lease

  private func tell(_ fact: LeaseKeeper.Fact) {
    guard !isStopped else { return }
    var effects: [LeaseKeeper.Effect] = []
    keeper.handle(fact, now: loop.freshNow(), into: &effects)
    for effect in effects where !isStopped { run(effect) }
    guard !isStopped, let keeperTimer else { return }
    if let at = keeper.wakeAt(now: loop.freshNow()) {
      loop.arm(keeperTimer, at: at)
    } else {
      loop.cancel(keeperTimer)
    }
  }

  private func run(_ effect: LeaseKeeper.Effect) {
    let sentAt = loop.freshNow()
    let generation = link.generation
    switch effect {
    case .grant:
      link.call(EtcdLink.grant, Etcd.grant(seconds: Self.leaseSeconds), timeout: Self.replyTimeout) { [weak self] in
        guard let self, link.generation == generation else { return }
        granted($0, sentAt)
      }
    case .keepAlive(let lease):
      owed.append((lease, sentAt))
      guard leaseStream?.send(Etcd.lease(lease)) == true else { return link.drop("the lease's stream has ended") }
      if owed.count == 1, let owedTimer { loop.arm(owedTimer, at: sentAt + Self.replyTimeout) }
    case .acquire(let lease):
      transact(keys.take(name: options.name, lease: lease)) { [weak self] in self?.acquired($0, lease) }
    case .revoke: break
    case .driving(let epoch): observer(.driving(epoch: epoch))
    case .notDriving(let driver): observer(.notDriving(driver: driver))
    }
  }

  private func granted(_ result: Result<[UInt8], GRPC.StatusError>, _ sentAt: Instant) {
    switch result.flatMap({ Etcd.decode($0, Etcd.LeaseReply.init) }) {
    case .success(let lease) where lease.seconds > 0 && lease.id != 0:
      heard = loop.freshNow()
      tell(.granted(lease: lease.id, ttl: .seconds(lease.seconds), sentAt: sentAt))
    case .success(let lease):
      tell(.grantFailed)
      link.drop("no lease was granted: \(lease.error)")
    case .failure(let error):
      tell(.grantFailed)
      link.drop("no lease was granted: \(error.message)")
    }
  }

  private func keptAlive(_ message: UnsafeRawBufferPointer) {
    guard !isStopped else { return }
    let reply: Etcd.LeaseReply
    do throws(WireError) { reply = try Etcd.LeaseReply(message) } catch {
      return link.drop("a lease reply that is none: \(error)")
    }
    guard !owed.isEmpty, owed[0].lease == reply.id else { return link.drop("a lease reply to nothing") }
    heard = loop.freshNow()
    let sentAt = owed.removeFirst().sentAt
    if let owedTimer {
      if let next = owed.first {
        loop.arm(owedTimer, at: next.sentAt + Self.replyTimeout)
      } else {
        loop.cancel(owedTimer)
      }
    }
    tell(.keptAlive(lease: reply.id, ttl: .seconds(reply.seconds), sentAt: sentAt))
  }

  private func checkOwed() {
    guard !isStopped, !owed.isEmpty else { return }
    link.drop("no sign of life for \(Int(Self.replyTimeout.milliseconds)) ms")
  }

  private func acquired(_ result: Result<Etcd.TransactionReply, GRPC.StatusError>, _ lease: UInt64) {
    switch result {
    case .success(let reply) where reply.succeeded:
      let key = DriverKey(lease: lease, createRevision: reply.header.revision, name: options.name)
      tell(.driverSeen(key, revision: reply.header.revision))
    case .success(let reply):
      tell(.driverSeen(EtcdKeys.driver(reply.ranges.first?.values.first), revision: reply.header.revision))
    case .failure(let error) where error.status == .notFound: tell(.leaseGone)
    case .failure(let error):
      tell(.acquireFailed)
      link.drop("the driver key: \(error.message)")
    }
  }

  // MARK: Committing

  public func commit(
    expecting revision: UInt64, state: [UInt8], entry: [UInt8], as authority: CommitAuthority,
    completion: @escaping (CommitOutcome) -> Void
  ) {
    let done = OnLoop(completion)
    func refuse(_ outcome: CommitOutcome) { loop.execute { done.body(outcome) } }
    if let why = StoreLimit.refusal(state: state, entry: entry) { return refuse(.refused(why: why)) }
    // One that comes before the first contact waits for it.
    if let awayWhy { return refuse(.unavailable(why: awayWhy)) }
    guard commits.count < StoreLimit.commitsWaiting else {
      return refuse(.unavailable(why: "\(commits.count) commits are waiting already"))
    }
    // Its number is known when its turn comes.
    let line = HistoryLine(sequence: 0, id: UInt64.random(in: 1...UInt64.max), entry: entry)
    var commit = PendingCommit(
      content: EtcdKeys.Commit(expecting: revision, state: state, line: line, authority: authority),
      completion: completion)
    commit.timer = loop.schedule(after: Self.commitTimeout) { [weak self] in self?.giveUp(line.id) }
    commits.append(commit)
    // Later, so that the completion is not called from within.
    loop.execute { [self] in sendNextCommit() }
  }

  private func sendNextCommit() {
    while isInTouch, !isCommitting, !isStopped, let known, var commit = commits.first {
      if !commit.isSent {
        if case .driver(let epoch) = commit.content.authority, epoch != keeper.epoch(now: loop.freshNow()) {
          finishFirst(.notDriving)
          continue
        }
        guard commit.content.expecting == known.revision else {
          finishFirst(.conflict(current: known))
          continue
        }
        commit.content.line.sequence = known.sequence + 1
        commit.isSent = true
        commits[0] = commit
      }
      isCommitting = true
      let id = commit.id
      transact(keys.transaction(commit.content)) { [weak self] in self?.answered($0, id) }
    }
  }

  private func answered(_ result: Result<Etcd.TransactionReply, GRPC.StatusError>, _ id: UInt64) {
    isCommitting = false
    // It may have been given up meanwhile.
    let commit = commits.first.flatMap { $0.id == id ? $0 : nil }
    switch result {
    case .success(let reply) where reply.succeeded:
      if let commit {
        seen(
          StoredState(
            revision: reply.header.revision, sequence: commit.content.line.sequence, bytes: commit.content.state))
        finish(id, .committed(revision: reply.header.revision))
      }
    case .success(let reply) where reply.ranges.count == 3:
      let state = EtcdKeys.stored(reply.ranges[0].values.first)
      let driver = EtcdKeys.driver(reply.ranges[2].values.first)
      seen(state)
      tell(.driverSeen(driver, revision: reply.header.revision))
      if let commit {
        let line = reply.ranges[1].values.first
        finish(id, keys.outcome(of: commit.content, state: state, line: line, driver: driver))
      }
    case .success: link.drop("a reply that is none")
    case .failure(let error) where Self.isDefinite(error.status): finish(id, .unavailable(why: error.message))
    // Whether it went in is found out over the next connection.
    case .failure(let error): link.drop(error.message)
    }
    sendNextCommit()
  }

  /// The statuses with which etcd says that it has done nothing and why.
  private static func isDefinite(_ status: GRPC.Status) -> Bool {
    switch status {
    case .invalidArgument, .resourceExhausted, .failedPrecondition, .permissionDenied, .unauthenticated, .unimplemented,
      .notFound, .outOfRange:
      true
    default: false
    }
  }

  private func finishFirst(_ outcome: CommitOutcome) { finish(commits[0].id, outcome) }
  private func finish(_ id: UInt64, _ outcome: CommitOutcome) {
    guard let index = commits.firstIndex(where: { $0.id == id }) else { return }
    let commit = commits.remove(at: index)
    if let timer = commit.timer { loop.cancel(timer) }
    commit.completion(outcome)
  }

  private func giveUp(_ id: UInt64) {
    guard let commit = commits.first(where: { $0.id == id }) else { return }
    finish(id, commit.isSent ? .unknown(why: awayWhy ?? "no reply in time") : .unavailable(why: "no reply in time"))
  }

  /// - Parameter all: false leaves those that may have gone in to be asked about.
  private func failCommits(all: Bool) {
    let why = awayWhy ?? ""
    for commit in commits where all || !commit.isSent {
      finish(commit.id, commit.isSent ? .unknown(why: why) : .unavailable(why: why))
    }
  }

  // MARK: History

  public func history(
    from sequence: UInt64, limit: Int, completion: @escaping (Result<[HistoryEntry], HistoryError>) -> Void
  ) {
    let count = max(0, min(limit, StoreLimit.historyEntries))
    guard awayWhy == nil, count > 0 else {
      let result = awayWhy.map { Result<[HistoryEntry], HistoryError>.failure(HistoryError($0)) } ?? .success([])
      return loop.execute { [done = OnLoop(completion)] in done.body(result) }
    }
    var writer = ProtoWriter()
    keys.readHistory(from: sequence, limit: count).encode(into: &writer)
    link.call(EtcdLink.range, writer.bytes, timeout: Self.replyTimeout) { result in
      completion(
        result.flatMap { Etcd.decode($0, Etcd.RangeReply.init) }.mapError { HistoryError($0.message) }
          .flatMap { Self.entries(in: $0, from: max(1, sequence)) })
    }
  }

  private static func entries(
    in range: Etcd.RangeReply, from sequence: UInt64
  ) -> Result<[HistoryEntry], HistoryError> {
    var entries: [HistoryEntry] = []
    for value in range.values {
      let wanted = sequence + UInt64(entries.count)
      guard let line = HistoryLine(value.value[...]), line.sequence == wanted else {
        let key = String(decoding: value.key, as: UTF8.self)
        return .failure(HistoryError("\(key) is not the line of sequence \(wanted)"))
      }
      entries.append(HistoryEntry(sequence: line.sequence, bytes: line.entry))
    }
    return .success(entries)
  }
}
