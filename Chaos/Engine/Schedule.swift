import RankingCore

// When what strikes whom, drawn beforehand from the seed: the same scenario and seed give the same plan, whatever the
// machine does meanwhile. Each line of the scenario draws from a generator of its own, so that a line more or less
// leaves the others where they were.
//
//   every 5 s, for 0.5 … 1.5 s     |--x===----|-----x=---|x==-------|     one in each period, anywhere in it

/// One fault of a run, before it happens.
struct PlannedFault: Sendable, Equatable {
  var number: Int
  var kind: FaultKind
  var on: FaultKind.Subject
  /// The members struck: one, or two of a pair; empty for etcd and the cluster. For a link the worker's end.
  var victims: [String]
  /// The coordinator's end of one link; empty = all coordinators.
  var from = ""
  /// Counted from the beginning of the faults' time.
  var at: Duration
  var lasts: Duration
  var parameters: [String: Double]

  var what: String {
    let whom =
      switch on {
      case .link: "→ \(victims.joined())"
      case .oneLink: "\(from) → \(victims.joined())"
      case .etcd, .cluster: ""
      default: victims.joined(separator: " + ")
      }
    return whom.isEmpty ? kind.rawValue : "\(kind.rawValue) \(whom)"
  }
}

extension Scenario {
  /// The plan of a run.
  /// - Parameter holdings: the shards of each worker, for pairs.
  func schedule(seed: UInt64, holdings: [[Int]]) -> [PlannedFault] {
    var planned: [PlannedFault] = []
    for (index, line) in faults.enumerated() {
      var generator = SeededGenerator(seed: seed &* 1_000_003 &+ UInt64(index))
      let count = max(1, Int(seconds / line.everySeconds))
      let pairs = Self.closest(holdings)
      for number in 0..<count {
        let period = min(line.everySeconds, seconds)
        let span = line.forMilliseconds
        let lasts = Double(span.lowerBound + generator.below(span.upperBound - span.lowerBound + 1)) / 1000
        // Inside its period where that has room for it.
        let at = Double(number) * period + generator.unit() * max(0, period - lasts)
        let worker = "w\(generator.below(cluster.workers) + 1)"
        let coordinator = "c\(generator.below(cluster.coordinators) + 1)"
        let pair = pairs.isEmpty ? [worker] : pairs[generator.below(pairs.count)]
        var victims: [String] = []
        switch line.on {
        case .worker, .link, .oneLink: victims = [worker]
        case .pair: victims = pair
        case .coordinator: victims = [coordinator]
        case .etcd, .cluster: break
        }
        planned.append(
          PlannedFault(
            number: 0, kind: line.kind, on: line.on, victims: victims,
            from: line.on == .oneLink ? coordinator : "", at: .milliseconds(Int64((at * 1000).rounded())),
            lasts: .milliseconds(Int64((lasts * 1000).rounded())), parameters: line.parameters))
      }
    }
    planned.sort { ($0.at, $0.what) < ($1.at, $1.what) }
    for index in planned.indices { planned[index].number = index + 1 }
    return planned
  }

  /// The pairs of workers with most shards in common.
  static func closest(_ holdings: [[Int]]) -> [[String]] {
    var best = (shared: 0, pairs: [[String]]())
    for first in holdings.indices {
      for second in holdings.indices where second > first {
        let shared = Set(holdings[first]).intersection(holdings[second]).count
        if shared > best.shared { best = (shared, []) }
        if shared == best.shared { best.pairs.append(["w\(first + 1)", "w\(second + 1)"]) }
      }
    }
    return best.pairs
  }
}
