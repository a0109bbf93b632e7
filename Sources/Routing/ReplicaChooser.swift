import RankingCore

/// Picks one replica of a shard: the better of two drawn at random by (expected latency × (shards in flight + 1)).
///
/// Two draws avoid both the blind spot of one and the herd of "always the best" (Mitzenmacher 2001). In-flight counts
/// grow while one request assigns its shards, so that its own choices spread too.
struct ReplicaChooser: Sendable {
  struct Load: Sendable {
    /// Shards sent and not yet answered.
    var inFlight = 0
    /// Moving average of leg latency in nanoseconds; 0 = no sample yet.
    var latency = 0.0
  }
  private(set) var loads: [Load] = []
  private var generator: SeededGenerator
  private let weight: Double

  init(policy: RoutingPolicy, seed: UInt64) {
    generator = SeededGenerator(seed: seed)
    weight = policy.latencyWeight
  }

  /// - Parameter tried: a replica that this shard was sent to before; it is not drawn again.
  mutating func choose(_ replicas: [WorkerID], tried: WorkerID?) -> WorkerID? {
    let skipped = tried.flatMap { replicas.firstIndex(of: $0) }
    let count = replicas.count - (skipped == nil ? 0 : 1)
    func nth(_ position: Int) -> WorkerID {
      replicas[skipped.map { position >= $0 ? position + 1 : position } ?? position]
    }
    switch count {
    case 0: return nil
    case 1: return nth(0)
    default:
      let first = generator.below(count)
      let second = (first + 1 + generator.below(count - 1)) % count
      let (a, b) = (nth(first), nth(second))
      return cost(b, beside: a) < cost(a, beside: b) ? b : a
    }
  }

  /// A replica without a sample is taken to be as fast as the one it is compared with.
  private func cost(_ worker: WorkerID, beside other: WorkerID) -> Double {
    let load = load(worker)
    let latency = load.latency > 0 ? load.latency : max(1, self.load(other).latency)
    return latency * Double(load.inFlight + 1)
  }
  private func load(_ worker: WorkerID) -> Load { worker.index < loads.count ? loads[worker.index] : Load() }

  mutating func sent(_ worker: WorkerID, shards: Int) {
    while loads.count <= worker.index { loads.append(Load()) }
    loads[worker.index].inFlight += shards
  }
  mutating func ended(_ worker: WorkerID, shards: Int, latency: Duration?) {
    loads[worker.index].inFlight -= shards
    precondition(loads[worker.index].inFlight >= 0, "more shards ended than were sent to \(worker): \(loads)")
    guard let sample = latency.map({ Double(max(1, $0.nanoseconds)) }) else { return }
    let old = loads[worker.index].latency
    loads[worker.index].latency = old == 0 ? sample : old + weight * (sample - old)
  }
  /// A worker that comes back is another process: what the last one took says nothing.
  mutating func forget(_ worker: WorkerID) {
    if worker.index < loads.count { loads[worker.index].latency = 0 }
  }
}
