import Membership
import Nodes
import RankingCore
import Rollout
import Wire

// The agreed document of a run in which versions come and go: a store that takes one change at a time, goes away,
// loses replies, and lends the right to drive for two seconds; and people who start, abort and promote rollouts.
//
//     coordinator ──commit──► store ──agreed──► every coordinator that reaches it, each in its own time
//                                 └─ checked: nobody else was first, the driver still drives, the history has neither
//                                    gap nor double, shares only widen, what is unloaded is not the last of its kind
//
// What coordinators say of themselves is never asked: who drives, what is published and since when, the store knows.

struct AgreedStore {
  var revision: UInt64 = 0
  /// By revision.
  var documents: [[UInt8]] = [[]]
  /// By revision: what requests that name no version may get.
  var published: [[String]] = [[]]
  var document = RolloutDocument()
  var driver: (coordinator: Int, epoch: UInt64, seen: Instant)?
  var epoch: UInt64 = 0
  var awayUntil = Instant(nanoseconds: 0)
  /// The one begun after everything had healed.
  var lastRollout = ""
}

/// What one coordinator knows of the store.
struct StoreSide {
  var revision: UInt64 = 0
  var epoch: UInt64?
  var isAway = false
  /// It does not reach the store before.
  var cutUntil = Instant(nanoseconds: 0)
  var lastSeen = Instant(nanoseconds: 0)
}

enum StoreHappening {
  case tick
  case commit(Int, life: UInt32, CommitOrder)
  case ended(Int, life: UInt32, CommitEnd)
  case agreed(Int, life: UInt32, UInt64)
  case loaded(Int, life: UInt32, ModelVersion)
  case told(Int, life: UInt32, peer: Int, [UInt8])
  /// Somebody says something.
  case command(mayEnd: Bool)
  case trouble
}

extension World {
  private static let tick: Duration = .milliseconds(250)
  private static let ttl: Duration = .seconds(2)
  /// A coordinator that hears nothing of the store for so long no longer counts on driving.
  private static let doubt: Duration = .milliseconds(1300)
  /// Stages of a second or so, and short deadlines, so that every run sees several.
  private static let rolloutSettings: RolloutSettings = {
    var settings = RolloutSettings()
    settings.load.deadline = .seconds(8)
    settings.verify.deadline = .seconds(8)
    settings.warm.deadline = .seconds(8)
    settings.shadow = StageLimits(minTime: .milliseconds(300), minSample: 3, deadline: .seconds(8))
    settings.canary = StageLimits(minTime: .milliseconds(300), minSample: 1, deadline: .seconds(8))
    settings.retire = StageLimits(minTime: .milliseconds(300), deadline: .seconds(8))
    settings.rollingBack = StageLimits(minTime: .milliseconds(300), deadline: .seconds(8))
    settings.canarySteps = [1000, 5000, 10_000]
    settings.shadowShare = 5000
    // The versions of a run have nothing in common but their items.
    settings.guards.overlap.isOn = false
    settings.guards.scoreDrift.isOn = false
    return settings
  }()

  func scheduleRollouts() {
    queue.schedule(.store(.tick), at: now)
    var at = fate.trafficFrom + .seconds(4)
    while at < fate.faultsUntil {
      queue.schedule(.store(.command(mayEnd: true)), at: at)
      at = at + .milliseconds(1500 + generator.below(5000))
    }
    queue.schedule(.store(.command(mayEnd: false)), at: fate.liveFrom)
    guard !fate.isGentleRun else { return }
    at = fate.trafficFrom + .seconds(3)
    while at < fate.faultsUntil + .seconds(-3) {
      queue.schedule(.store(.trouble), at: at)
      at = at + .milliseconds(3000 + generator.below(8000))
    }
  }

  func happen(_ happening: StoreHappening) throws(Violation) {
    switch happening {
    case .tick:
      queue.schedule(.store(.tick), at: now + Self.tick)
      tickStore()
    case .commit(let c, let life, let order):
      guard coordinators[c].life == life else { return }
      try commit(c, order)
    case .ended(let c, let life, let end):
      guard isAwake(c, life, .ended(c, life: life, end)) else { return }
      tell(c, .committed(end))
    case .agreed(let c, let life, let revision):
      guard isAwake(c, life, happening), revision >= coordinators[c].store.revision else { return }
      guard reachesStore(c) else { return }
      coordinators[c].store.revision = revision
      note(c, "learns of revision", Int(revision))
      tell(c, .agreed(revision: revision, document: store.documents[Int(revision)]))
    case .loaded(let c, let life, let id):
      guard isAwake(c, life, happening), let version = catalogue.version(of: id) else { return }
      tell(c, CoordinatorEvent.loaded(catalogue.versions[version].release))
    case .told(let c, let life, let peer, let bytes):
      guard isAwake(c, life, happening) else { return }
      let report = bytes.withUnsafeBytes { try? TrafficReport(decoding: $0) }
      guard let report else { throw Violation(text: "c\(peer)'s traffic cannot be read") }
      tell(c, .told(peer: "c\(peer)", report))
    case .command(let mayEnd): command(mayEnd: mayEnd)
    case .trouble:
      report.faults[FaultKind.storeAway.rawValue] += 1
      let until = now + .milliseconds(500 + generator.below(4000))
      if generator.below(3) == 0 {
        store.awayUntil = until
      } else {
        coordinators[generator.below(coordinators.count)].store.cutUntil = until
      }
    }
  }

  /// A frozen coordinator hears later; one that died never.
  private func isAwake(_ c: Int, _ life: UInt32, _ happening: StoreHappening) -> Bool {
    guard coordinators[c].isAlive, coordinators[c].life == life else { return false }
    guard now >= coordinators[c].frozenUntil else {
      queue.schedule(.store(happening), at: coordinators[c].frozenUntil)
      return false
    }
    return true
  }
  func reachesStore(_ c: Int) -> Bool {
    coordinators[c].isAlive && now >= coordinators[c].frozenUntil && now >= coordinators[c].store.cutUntil
      && now >= store.awayUntil
  }
  /// What a server asks its store before an order leaves.
  func mayDrive(_ c: Int) -> Bool {
    guard let driver = store.driver else { return false }
    return driver.coordinator == c && driver.epoch == coordinators[c].store.epoch && now - driver.seen < Self.doubt
  }

  // MARK: The lease

  private func tickStore() {
    for c in coordinators.indices where coordinators[c].isAlive && now >= coordinators[c].frozenUntil {
      if reachesStore(c) {
        coordinators[c].store.lastSeen = now
        if coordinators[c].store.isAway {
          coordinators[c].store.isAway = false
          announce(to: c)
          tell(c, .storeAway(nil))
        } else if coordinators[c].store.revision < store.revision {
          announce(to: c)
        }
      } else if now - coordinators[c].store.lastSeen >= Self.doubt, !coordinators[c].store.isAway {
        coordinators[c].store.isAway = true
        coordinators[c].store.epoch = nil
        tell(c, .driving(epoch: nil))
        tell(c, .storeAway("connection lost"))
      }
      if let epoch = coordinators[c].store.epoch, store.driver?.epoch != epoch {
        coordinators[c].store.epoch = nil
        tell(c, .driving(epoch: nil))
      }
    }
    if let driver = store.driver {
      if reachesStore(driver.coordinator), coordinators[driver.coordinator].store.epoch == driver.epoch {
        store.driver?.seen = now
      } else if now - driver.seen >= Self.ttl {
        store.driver = nil
      }
    }
    let willing = coordinators.indices.filter { reachesStore($0) && !coordinators[$0].store.isAway }
    guard store.driver == nil, !willing.isEmpty else { return }
    let c = willing[generator.below(willing.count)]
    store.epoch += 1
    store.driver = (c, store.epoch, now)
    coordinators[c].store.epoch = store.epoch
    note(c, "drives", Int(store.epoch))
    tell(c, .driving(epoch: store.epoch))
  }

  func announce(to c: Int) {
    queue.schedule(
      .store(.agreed(c, life: coordinators[c].life, store.revision)), at: now + .milliseconds(1 + generator.below(20)))
  }

  // MARK: Changes

  func carryOut(_ effect: RolloutEffect, of c: Int) throws(Violation) {
    let life = coordinators[c].life
    switch effect {
    case .commit(let order):
      queue.schedule(.store(.commit(c, life: life, order)), at: now + .milliseconds(1 + generator.below(30)))
    case .load(let id):
      guard catalogue.version(of: id) != nil else { return }
      queue.schedule(.store(.loaded(c, life: life, id)), at: now + .milliseconds(5 + generator.below(40)))
    case .askOthers:
      for peer in coordinators.indices where peer != c && coordinators[peer].isAlive {
        guard now >= coordinators[peer].frozenUntil else { continue }
        let bytes = coordinators[peer].node.traffic.encoded()
        queue.schedule(
          .store(.told(c, life: life, peer: peer, bytes)), at: now + .microseconds(200 + generator.below(2000)))
      }
    case .forget, .reply, .decided, .measure: break
    }
  }

  private func commit(_ c: Int, _ order: CommitOrder) throws(Violation) {
    func end(_ end: CommitEnd) {
      queue.schedule(
        .store(.ended(c, life: coordinators[c].life, end)), at: now + .milliseconds(1 + generator.below(10)))
    }
    guard reachesStore(c) else { return end(.lost("no connection")) }
    if let epoch = order.epoch, store.driver?.epoch != epoch { return end(.lost("it does not drive")) }
    guard order.expecting == store.revision else {
      announce(to: c)
      return end(.conflict)
    }
    try apply(order, by: c)
    for other in coordinators.indices where coordinators[other].isAlive { announce(to: other) }
    // Now and then nobody learns whether it was taken.
    end(generator.below(25) == 0 ? .lost("no reply") : .committed)
  }

  private func apply(_ order: CommitOrder, by c: Int) throws(Violation) {
    let read = order.document.withUnsafeBytes { try? RolloutDocument(json: $0) }
    let line = order.entry.withUnsafeBytes { try? HistoryEntry(json: $0) }
    guard let document = read, let entry = line else { throw Violation(text: "c\(c) commits what cannot be read") }
    guard entry.sequence == store.document.nextSequence, document.nextSequence == entry.sequence + 1 else {
      throw Violation(text: "line \(entry.sequence) of the history follows \(store.document.nextSequence - 1)")
    }
    if let before = store.document["home"]?.rollout, let after = document["home"]?.rollout, before.id == after.id,
      after.stage.isForward
    {
      guard after.share >= before.share, before.stage.isForward else {
        throw Violation(text: "\(after.id) goes from \(before.label) to \(after.label)")
      }
    }
    if document["home"]?.rollout != nil, store.document["home"]?.rollout == nil {
      report.rollouts += 1
    }
    if let last = document["home"]?.last, last != store.document["home"]?.last {
      report.rolloutsDone += last.outcome == .done ? 1 : 0
    }
    if now >= fate.liveFrom, entry.from == "none" { store.lastRollout = entry.rollout }
    note(c, "agrees on", entry.sequence, document["home"]?.rollout?.share ?? -1)
    store.revision += 1
    store.document = document
    store.documents.append(order.document)
    store.published.append(document["home"]?.published ?? [])
  }

  private func command(mayEnd: Bool) {
    let awake = coordinators.indices.filter { coordinators[$0].isAlive && now >= coordinators[$0].frozenUntil }
    guard !awake.isEmpty, let home = store.document["home"] else { return }
    let c = awake[generator.below(awake.count)]
    var command: RolloutCommand?
    if home.rollout == nil {
      let others = catalogue.versions.map(\.release.id.version).filter { $0 != home.serving }
      command = .start(
        model: "home", version: others[generator.below(others.count)], settings: Self.rolloutSettings, again: true)
    } else if mayEnd {
      switch generator.below(6) {
      case 0: command = .abort(model: "home", why: "a hunch")
      case 1: command = .promote(model: "home", to: .next)
      case 2: command = .pause(model: "home")
      case 3: command = .resume(model: "home")
      default: break
      }
    } else if home.rollout?.isPaused == true {
      command = .resume(model: "home")
    }
    guard let command else { return }
    tell(c, .commanded(0, command, who: "somebody"))
  }

  // MARK: What must hold

  /// The last ready replica of a version that requests may get is never unloaded. One that died just now may not be
  /// known to be dead.
  func checkUnload(_ order: ShardOrder, at worker: Int) throws(Violation) {
    guard store.published[Int(store.revision)].contains(order.release.version) else { return }
    for shard in order.shards {
      let isHeld = workers.indices.contains { other in
        other != worker && workers[other].node.held(order.release).contains(shard)
          && (workers[other].isAlive || now - workers[other].diedAt < .seconds(4))
      }
      guard isHeld else { throw Violation(text: "\(order.release) shard \(shard): its last replica is unloaded") }
    }
  }

  /// After everything has healed, a rollout is over by the end, and everybody knows the same.
  func checkAgreement() {
    guard rolls, violation == nil else { return }
    for (c, host) in coordinators.enumerated() where host.isAlive {
      guard host.store.revision == store.revision else {
        violation = "c\(c) ends with revision \(host.store.revision) of \(store.revision)"
        return
      }
    }
    report.rolloutsInPeace += store.lastRollout.isEmpty ? 0 : 1
    if !store.lastRollout.isEmpty, store.document["home"]?.last?.id == store.lastRollout,
      store.document["home"]?.last?.outcome == .done
    {
      report.doneInPeace += 1
    }
  }
}
