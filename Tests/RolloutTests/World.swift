import Membership
import RankingCore

@testable import Rollout

// A cluster small enough to see through: workers that load and unload as the plan says, users that ask, one driver.
// One tick is a second: requests are answered, loads end, the driver looks, placement acts.

struct World {
  struct Worker {
    var name: String
    var capacity: UInt64 = 0
    var isUp = true
    var downFor = 0
    var ready: [ModelVersion: Set<Int>] = [:]
    var loading: [ModelVersion: Set<Int>] = [:]
    var failed: [ModelVersion: Set<Int>] = [:]
    /// Told to forget what failed: the second it does.
    var forgets: [ModelVersion: Int] = [:]
  }
  /// What is wrong with a version; the default is nothing.
  struct Behaviour: Sendable {
    var bytes: [UInt64] = [10, 10, 10, 10]
    var problem: String?
    /// Loading this shard fails everywhere.
    var broken: Int?
    /// Nothing of it ever gets ready.
    var neverLoads = false
    var golden: Observed.Check = .passed
    var verified: Observed.Check = .passed
    var neverWarms = false
    var errorRate = 0.0
    var slower: Duration = .zero
    var givesNaN = false
    var overlap = 0.7
    /// Faults show only in answers to users, not in shadow.
    var onlyLive = false
  }

  var document = RolloutDocument()
  var memory = RolloutMemory()
  var history: [HistoryEntry] = []
  var seconds = 0
  var workers: [Worker]
  var behaviour: [ModelVersion: Behaviour] = [:]
  var metrics: [Observed.Metric] = []
  var requestsPerSecond = 200
  var generator: SeededGenerator
  private(set) var counts: [ModelVersion: TrafficCounts] = [:]
  private(set) var shadows: [String: ShadowCounts] = [:]
  private(set) var inFlight: [ModelVersion: Int] = [:]
  /// The driver may not act: nobody holds the lease.
  var isHeadless = false
  /// What the driver decides is not stored: somebody else was quicker, or the store is away.
  var losesDecisions = false
  /// What must never be, where it was seen.
  var violations: [String] = []

  init(workers count: Int = 4, capacity: UInt64 = 0, seed: UInt64 = 1) {
    workers = (1...count).map { Worker(name: "w\($0)", capacity: capacity) }
    generator = SeededGenerator(seed: seed)
  }

  var now: Instant { Instant(nanoseconds: UInt64(seconds) * 1_000_000_000 + 1) }

  static func id(_ name: String) -> ModelVersion {
    let parts = name.split(separator: "/").map(String.init)
    return ModelVersion(model: parts[0], version: parts[1])
  }
  subscript(_ name: String) -> Behaviour {
    get { behaviour[Self.id(name)] ?? Behaviour() }
    set { behaviour[Self.id(name)] = newValue }
  }

  // MARK: What is seen

  func observed() -> Observed {
    var observed = Observed()
    var names: Set<ModelVersion> = []
    for state in document.models {
      names.formUnion(
        (state.published + [state.rollout?.to, state.rollout?.from].compactMap(\.self)).map { version in
          ModelVersion(model: state.model, version: version)
        })
    }
    for worker in workers { names.formUnion(worker.ready.keys) }
    for id in names.sorted() {
      let behaviour = behaviour[id] ?? Behaviour()
      observed.bundles.append(
        .init(
          release: id, bytesPerShard: behaviour.problem == nil ? behaviour.bytes : [], problem: behaviour.problem,
          golden: behaviour.golden))
      observed.traffic.append(
        .init(release: id, inFlight: inFlight[id] ?? 0, counts: counts[id] ?? TrafficCounts()))
    }
    for (id, counts) in shadows.sorted(by: { $0.key < $1.key }) {
      observed.shadows.append(.init(rollout: id, counts: counts))
    }
    observed.workers = workers.map { worker in
      var seen = Observed.Worker(
        name: worker.name, isUsable: worker.isUp, isEligible: worker.isUp || worker.downFor < 30,
        capacityBytes: worker.capacity, heldBytes: held(worker))
      for id in Set(worker.ready.keys).union(worker.loading.keys).union(worker.failed.keys).sorted() {
        let behaviour = behaviour[id] ?? Behaviour()
        func list(_ shards: Set<Int>?) -> [ShardID] { (shards ?? []).sorted().map { ShardID($0) } }
        let ready = list(worker.ready[id])
        let failed = list(worker.failed[id])
        guard !(ready.isEmpty && failed.isEmpty && worker.loading[id]?.isEmpty != false) else { continue }
        seen.holdings.append(
          .init(
            release: id, ready: ready, loading: list(worker.loading[id]), failed: failed,
            failure: failed.isEmpty ? "" : "shard-\(failed[0]).slice: checksum 1 instead of 2",
            verified: ready.isEmpty ? .pending : behaviour.verified, isWarm: !behaviour.neverWarms && !ready.isEmpty))
      }
      return seen
    }
    observed.metrics = metrics
    return observed
  }

  func held(_ worker: Worker) -> UInt64 {
    var bytes: UInt64 = 0
    for (id, shards) in worker.ready { for shard in shards { bytes += self["\(id)"].bytes[shard] } }
    return bytes
  }
  func readyReplicas(_ id: ModelVersion, _ shard: Int) -> Int {
    workers.count { $0.isUp && $0.ready[id]?.contains(shard) == true }
  }

  mutating func forgetCounts() {
    counts = [:]
    shadows = [:]
  }

  // MARK: Time

  mutating func tick(_ times: Int = 1) {
    for _ in 0..<times {
      seconds += 1
      for index in workers.indices { workers[index].downFor = workers[index].isUp ? 0 : workers[index].downFor + 1 }
      serve()
      load()
      if !isHeadless { decide() }
      place()
    }
  }

  /// Ticks until the model has no rollout; false when it still has one after that many seconds.
  mutating func run(_ model: String = "home", atMost: Int = 3600) -> Bool {
    for _ in 0..<atMost {
      if document[model]?.rollout == nil { return true }
      tick()
    }
    return false
  }

  private mutating func serve() {
    inFlight = [:]
    for state in document.models {
      let split = TrafficSplit(state)
      for _ in 0..<requestsPerSecond {
        var request = RankingRequest(subject: .user("u\(generator.below(100_000))"))
        request.requestID = "\(generator.next())"
        let place = split.choice(for: request)
        let id = ModelVersion(model: state.model, version: split.versions[place])
        inFlight[id, default: 0] += 1
        let outcome = outcome(id, isShadow: false)
        counts[id, default: TrafficCounts()].record(outcome)
        if place == 0, let shadowed = split.shadowed, split.isShadowed(request.requestID) {
          let new = ModelVersion(model: state.model, version: split.versions[shadowed])
          let answer = self.outcome(new, isShadow: true)
          let behaviour = self["\(new)"]
          let overlap = answer.isError || answer.isEmpty ? nil : behaviour.onlyLive ? 0.7 : behaviour.overlap
          shadows[split.rollout, default: ShadowCounts()].record(
            old: outcome, new: answer, overlap: overlap, correlation: 0.5)
        }
      }
    }
  }
  private mutating func outcome(_ id: ModelVersion, isShadow: Bool) -> TrafficCounts.Outcome {
    let behaviour = self["\(id)"]
    let isSound = isShadow && behaviour.onlyLive
    var outcome = TrafficCounts.Outcome()
    outcome.isError = !isSound && generator.unit() < behaviour.errorRate
    outcome.latency = .microseconds(2000 + generator.below(4000)) + (isSound ? .zero : behaviour.slower)
    outcome.score = 1 + generator.unit()
    if behaviour.givesNaN, !isSound {
      (outcome.isEmpty, outcome.isShort, outcome.hasNaN) = (true, true, true)
      outcome.score = nil
    }
    return outcome
  }

  private mutating func load() {
    for index in workers.indices where workers[index].isUp {
      for (id, shards) in workers[index].loading {
        let behaviour = self["\(id)"]
        if behaviour.neverLoads { continue }
        for shard in shards {
          if shard == behaviour.broken {
            workers[index].failed[id, default: []].insert(shard)
          } else {
            workers[index].ready[id, default: []].insert(shard)
          }
        }
        workers[index].loading[id] = nil
      }
    }
  }

  private mutating func decide() {
    for _ in 0..<20 {
      let observed = observed()
      let before = document
      let decision = RolloutPolicy.step(
        document, observed, memory: &memory, now: now, atMilliseconds: seconds * 1000)
      var again = memory
      if RolloutPolicy.step(document, observed, memory: &again, now: now, atMilliseconds: seconds * 1000) != decision {
        violations.append("\(seconds) s: asked twice, it answers differently")
      }
      guard let decision else { return }
      checkWidening(before, decision)
      if losesDecisions { return }
      commit(decision)
    }
    violations.append("\(seconds) s: it never comes to rest")
  }

  /// A process ends at once: what it held is gone.
  mutating func kill(_ index: Int) {
    workers[index].isUp = false
    workers[index].ready = [:]
    workers[index].loading = [:]
    workers[index].failed = [:]
    workers[index].forgets = [:]
  }

  mutating func commit(_ decision: Decision) {
    document = decision.document
    history.append(decision.entry)
  }

  @discardableResult
  mutating func say(_ command: RolloutCommand, who: String = "ada") -> RolloutError? {
    switch document.applying(command, who: who, atMilliseconds: seconds * 1000) {
    case .success(let decision):
      commit(decision)
      return nil
    case .failure(let error): return error
    }
  }

  private mutating func checkWidening(_ before: RolloutDocument, _ decision: Decision) {
    for state in decision.document.models {
      guard let old = before[state.model]?.rollout, let new = state.rollout, new.id == old.id, new.share > old.share
      else { continue }
      if old.isPaused { violations.append("\(seconds) s: widened while paused") }
      if RolloutPolicy.figures(before, model: state.model, memory: memory).contains(where: \.isTripped) {
        violations.append("\(seconds) s: widened while a guard is tripped")
      }
    }
  }

  // MARK: Placement, as `PlacementDriver` carries it out

  private mutating func place() {
    let observed = observed()
    for index in workers.indices {
      for (id, second) in workers[index].forgets where second <= seconds {
        workers[index].failed[id] = nil
        workers[index].forgets[id] = nil
      }
    }
    let plan = LoadPlan.releases(document, observed)
    checkPlan(plan)
    let eligible = workers.indices.filter { observed.workers[$0].isEligible }
    let members = eligible.map { PlacementMember(name: workers[$0].name, capacityBytes: workers[$0].capacity) }
    for (release, target) in zip(plan, Placement.assign(plan, to: members, replicas: observed.replicas)) {
      let id = release.id
      for shard in target.indices {
        let wanted = target[shard].map { eligible[$0] }
        for index in wanted where workers[index].isUp && !holds(index, id, shard) {
          let worker = workers[index]
          let loading = worker.loading.reduce(UInt64(0)) { sum, entry in
            entry.value.reduce(sum) { $0 + self["\(entry.key)"].bytes[$1] }
          }
          let bytes = release.bytesPerShard[shard]
          guard worker.capacity == 0 || held(worker) + loading + bytes <= worker.capacity else { continue }
          if worker.failed[id]?.contains(shard) == true, seconds % 10 != 0 { continue }
          workers[index].failed[id]?.remove(shard)
          workers[index].loading[id, default: []].insert(shard)
        }
        let isUnwanted = release.holders?[shard].isEmpty == true
        let isSettled =
          !wanted.isEmpty && wanted.allSatisfy { workers[$0].isUp && workers[$0].ready[id]?.contains(shard) == true }
        guard isUnwanted || isSettled else { continue }
        for index in workers.indices
        where workers[index].isUp && !wanted.contains(index) {
          if isUnwanted, workers[index].failed[id]?.isEmpty == false, workers[index].forgets[id] == nil {
            workers[index].forgets[id] = seconds + 5
          }
          if workers[index].ready[id]?.contains(shard) == true { unload(index, id, shard) }
        }
      }
    }
  }
  private func holds(_ index: Int, _ id: ModelVersion, _ shard: Int) -> Bool {
    workers[index].ready[id]?.contains(shard) == true || workers[index].loading[id]?.contains(shard) == true
  }
  private mutating func unload(_ index: Int, _ id: ModelVersion, _ shard: Int) {
    workers[index].ready[id]?.remove(shard)
    guard let state = document[id.model] else { return }
    if readyReplicas(id, shard) == 0 {
      let getsRequests = state.serving == id.version || state.rollout?.share ?? 0 > 0 && state.rollout?.to == id.version
      if getsRequests || state.pinned.contains(id.version) {
        violations.append("\(seconds) s: the last ready replica of shard \(shard) of \(id) was unloaded")
      }
      if inFlight[id] ?? 0 > 0 { violations.append("\(seconds) s: \(id) was unloaded with requests in flight") }
    }
  }
  /// Whatever placement made of it: the plan itself never lets go of the serving version's last ready replica.
  private mutating func checkPlan(_ plan: [PlacedRelease]) {
    for state in document.models {
      let id = ModelVersion(model: state.model, version: state.serving)
      guard let holders = plan.first(where: { $0.id == id })?.holders else { continue }
      for (shard, names) in holders.enumerated() {
        let ready = workers.filter { $0.isUp && $0.ready[id]?.contains(shard) == true }.map(\.name)
        if names.isEmpty || !ready.isEmpty && !names.contains(where: ready.contains) {
          violations.append("\(seconds) s: the plan lets go of shard \(shard) of \(id)")
        }
      }
    }
  }
}

extension World {
  /// A model that serves, with every replica ready.
  static func serving(_ release: String = "home/v41", workers: Int = 4, capacity: UInt64 = 0, seed: UInt64 = 1) -> World
  {
    var world = World(workers: workers, capacity: capacity, seed: seed)
    let id = id(release)
    world.say(.adopt(model: id.model, version: id.version))
    world.tick(5)
    return world
  }
  /// The history's lines from a sequence on: who, from → to.
  func lines(from sequence: Int = 1) -> [String] {
    history.filter { $0.sequence >= sequence }.map { "\($0.who): \($0.from) → \($0.to)" }
  }
}
