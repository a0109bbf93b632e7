import ClusterHarness
import ClusterLoad
import Foundation
import RankingCore
import Synchronization
import Terminal

#if canImport(Glibc)
  import Glibc
#endif

// Does one planned fault to the stage and undoes it, when its time is over or the run is stopped. What goes wrong on
// the way is told, and the run has failed then: a fault that was not done proves nothing.
//
//   begin ──► (lasts) ──► end           most
//   begin ─────────────────► outcome    rollouts, which end by themselves

struct Injector: Sendable {
  let stage: Stage
  /// Rollouts one after the other, whoever begins them.
  let rollouts: RolloutHand
  /// Whether the run has been told to stop.
  let isOver: @Sendable () -> Bool

  private var cluster: any ClusterHandle { stage.cluster }
  /// For what cannot be done to every cluster.
  private func own(_ name: String) throws -> ClusterMember {
    guard let own = stage.own else { throw CommandError("this can be done to a cluster of its own only") }
    return try own.member(name)
  }

  /// Blocks until the fault is over and undone.
  /// - Returns: what it came to; empty for most.
  func run(_ fault: PlannedFault) throws -> String {
    let end = Monotonic.now + fault.lasts
    switch fault.kind {
    case .kill:
      for name in fault.victims { try cluster.kill(name) }
      wait(until: end)
      for name in fault.victims { try comeBack(name) }
    case .terminate:
      for name in fault.victims { try cluster.end(name) }
      wait(until: end)
      for name in fault.victims { try comeBack(name) }
    case .freeze:
      for name in fault.victims { try cluster.freeze(name) }
      wait(until: end)
      for name in fault.victims { try cluster.thaw(name) }
    case .restarts:
      try restartAgainAndAgain(fault, until: end)
    case .squeeze:
      try squeeze(fault, until: end)
    case .memory:
      try limitMemory(fault, until: end)
    case .clock:
      try ordered(fault, until: end) {
        $0.wallClock(ahead: fault.parameters["seconds"] ?? 0)
      } undo: {
        $0.wallClock(ahead: 0)
      }
    case .swap:
      try withDamage(fault, until: end) { bundle, aside in
        guard let other = stage.otherContents else { throw CommandError("there is no other bundle") }
        try FileManager.default.moveItem(atPath: bundle, toPath: aside)
        try FileManager.default.copyItem(atPath: other, toPath: bundle)
      }
    case .flip:
      try withDamage(fault, until: end) { try damage($0, aside: $1, fault, Self.flipped) }
    case .truncate:
      try withDamage(fault, until: end) { try damage($0, aside: $1, fault) { $0.prefix($0.count * 2 / 3) } }
    case .diskFull:
      // Without the defence the disk says that all is well.
      let lies = stage.scenario.cluster.without.contains(.honestDisk)
      try ordered(fault, until: end) {
        $0.diskFails(lies: lies)
      } undo: {
        $0.diskIsWell()
      }
    case .syncFails:
      try ordered(fault, until: end) {
        $0.syncFails(EIO)
      } undo: {
        $0.syncFails(0)
      }
    case .syncSlow:
      try ordered(fault, until: end) {
        $0.syncTakes(fault.parameters["ms"] ?? 0)
      } undo: {
        $0.syncTakes(0)
      }
    case .delay, .stall, .drip, .slice, .cut, .cutOut, .cutIn, .loss, .split, .etcdCut:
      try weather(fault, until: end)
    case .halfOpen:
      for relay in try relays(of: fault) { relay.halfOpen() }
      wait(until: end)
    case .reset:
      let relays = try relays(of: fault)
      repeat {
        for relay in relays { relay.reset() }
        wait(until: min(end, Monotonic.now + .milliseconds(30)))
      } while Monotonic.now < end && !isOver()
    case .etcdKill:
      stage.etcd?.kill()
      wait(until: end)
      try stage.etcd?.restart()
    case .etcdFreeze:
      stage.etcd?.freeze()
      wait(until: end)
      stage.etcd?.thaw()
    case .rollout: return try rollouts.run(to: nil, limit: .seconds(90))
    case .abort: return try rollouts.run(to: nil, abortAfter: fault.lasts, limit: .seconds(90))
    case .poison: return try rollouts.run(to: Stage.poison, limit: .seconds(90))
    }
    return ""
  }

  private func wait(until end: Duration) {
    while Monotonic.now < end, !isOver() { Monotonic.wait(until: min(end, Monotonic.now + .milliseconds(100))) }
  }

  /// Starts a member that is dead and waits until it says that it is ready.
  private func comeBack(_ name: String) throws { try cluster.bringBack(name, cancelled: isOver) }

  // MARK: Processes

  private func restartAgainAndAgain(_ fault: PlannedFault, until end: Duration) throws {
    var generator = SeededGenerator(seed: UInt64(fault.number))
    for name in fault.victims {
      while Monotonic.now < end, !isOver() {
        try cluster.kill(name)
        try own(name).start()
        wait(until: min(end, Monotonic.now + .milliseconds(50 + generator.below(400))))
      }
      try? cluster.kill(name)
      try comeBack(name)
    }
  }

  private func pid(_ name: String) throws -> Int32 {
    guard let pid = cluster.pid(of: name) else { throw CommandError("\(name) does not run") }
    return pid
  }

  private func squeeze(_ fault: PlannedFault, until end: Duration) throws {
    let share = max(0.01, min(1, fault.parameters["share"] ?? 0.1))
    let group = try? ControlGroup(.processor(share), name: "squeeze-\(fault.number)")
    defer { group?.remove() }
    if let group {
      for name in fault.victims { try group.add(try pid(name)) }
      wait(until: end)
      return
    }
    // No control groups here: stopped and continued by turns of 20 ms.
    while Monotonic.now < end, !isOver() {
      for name in fault.victims { try cluster.freeze(name) }
      wait(until: Monotonic.now + .milliseconds(20) * (1 - share))
      for name in fault.victims { try cluster.thaw(name) }
      wait(until: Monotonic.now + .milliseconds(20) * share)
    }
  }

  /// The victim is started with less memory than it needs, as often as it dies of it.
  private func limitMemory(_ fault: PlannedFault, until end: Duration) throws {
    let name = fault.victims[0]
    let used = ProcessUsage(pid: try pid(name))?.anonymousBytes ?? 64 << 20
    let limit = Int(Double(used) * (fault.parameters["share"] ?? 0.5))
    let group = try ControlGroup(.memory(limit), name: "memory-\(fault.number)")
    defer {
      try? stage.sendToGroup(name, nil)
      group.remove()
    }
    var deaths = 0
    try cluster.kill(name)
    try stage.sendToGroup(name, group)
    while Monotonic.now < end, !isOver() {
      let member = try own(name)
      try member.start()
      while Monotonic.now < end, member.isRunning, !isOver() { wait(until: Monotonic.now + .milliseconds(20)) }
      if !member.isRunning { deaths += 1 }
    }
    try? cluster.kill(name)
    try stage.sendToGroup(name, nil)
    try comeBack(name)
    if deaths == 0 { throw CommandError("\(name) lived with \(limit >> 10) KiB of the \(used >> 10) it had") }
  }

  private func ordered(
    _ fault: PlannedFault, until end: Duration, _ order: (ShimOrders) -> Void, undo: (ShimOrders) -> Void
  ) throws {
    let orders = fault.victims.compactMap { stage.orders[$0] }
    guard orders.count == fault.victims.count else { throw CommandError("\(fault.what): nothing is preloaded") }
    orders.forEach(order)
    wait(until: end)
    orders.forEach(undo)
  }

  // MARK: Files

  /// Restarts the victim with a damaged bundle, and again with the sound one.
  private func withDamage(
    _ fault: PlannedFault, until end: Duration, _ damage: (_ bundle: String, _ aside: String) throws -> Void
  ) throws {
    let name = fault.victims[0]
    guard let bundle = stage.ownBundle(of: name) else { throw CommandError("\(name) has no store of its own") }
    let aside = "\(stage.directory)/aside-\(fault.number)"
    try cluster.kill(name)
    try damage(bundle, aside)
    let member = try own(name)
    try member.start()
    // The time counts from when it would be of use.
    try? member.waitUntilReady(limit: .seconds(10), cancelled: isOver)
    wait(until: max(end, Monotonic.now + fault.lasts))
    try? cluster.kill(name)
    try FileManager.default.removeItem(atPath: bundle)
    try FileManager.default.moveItem(atPath: aside, toPath: bundle)
    try comeBack(name)
  }

  private func damage(
    _ bundle: String, aside: String, _ fault: PlannedFault, _ change: (Data) -> Data
  ) throws {
    try FileManager.default.copyItem(atPath: bundle, toPath: aside)
    let shards = try own(fault.victims[0]).shards
    guard !shards.isEmpty else { throw CommandError("\(fault.victims[0]) holds nothing") }
    let shard = shards[fault.number % shards.count]
    let path = bundle + "/" + String(format: "shard-%04d.slice", shard)
    let whole = try Data(contentsOf: URL(fileURLWithPath: path))
    try change(whole).write(to: URL(fileURLWithPath: path))
  }

  private static func flipped(_ whole: Data) -> Data {
    var bytes = whole
    // The highest bit of the exponent of some number in the middle of the vectors: nothing but a checksum would notice.
    let place = bytes.startIndex + bytes.count / 2 / 4 * 4 + 3
    bytes[place] ^= 0x40
    return bytes
  }

  // MARK: Links

  private func relays(of fault: PlannedFault) throws -> [Relay] {
    try stage.links(of: fault).map { link in
      guard let relay = stage.relays.relay(from: link.from, to: link.to) else {
        throw CommandError("there is no relay from \(link.from) to \(link.to)")
      }
      return relay
    }
  }

  private func weather(_ fault: PlannedFault, until end: Duration) throws {
    if let network = stage.namespaces {
      var undo: [@Sendable () throws -> Void] = []
      defer { for undo in undo { try? undo() } }
      for link in stage.links(of: fault) {
        undo.append(try network.apply(rules(of: fault), at: link.to, about: link.from))
      }
      return wait(until: end)
    }
    let relays = try relays(of: fault)
    for relay in relays { relay.change { set(&$0, fault) } }
    wait(until: end)
    for relay in relays { relay.change { clear(&$0, fault.kind) } }
  }

  /// At the far end of a link.
  private func rules(of fault: PlannedFault) -> [NamespaceNetwork.Rule] {
    switch fault.kind {
    case .cutOut: [.dropFrom]
    case .cutIn: [.dropTo]
    case .loss: [.lose(fault.parameters["loss"] ?? 0)]
    default: [.dropFrom, .dropTo]
    }
  }

  private func set(_ weather: inout LinkWeather, _ fault: PlannedFault) {
    func milliseconds(_ name: String) -> Duration { .seconds((fault.parameters[name] ?? 0) / 1000) }
    switch fault.kind {
    case .delay: (weather.delay, weather.jitter) = (milliseconds("ms"), milliseconds("jitter_ms"))
    case .stall: (weather.lossShare, weather.stall) = (fault.parameters["loss"] ?? 0, milliseconds("ms"))
    case .drip: weather.bytesPerSecond = fault.parameters["bytes_per_s"]
    case .slice: (weather.sliceMax, weather.gap) = (fault.parameters["bytes"].map { Int($0) }, milliseconds("gap_ms"))
    case .cutOut: weather.isCutOut = true
    case .cutIn: weather.isCutIn = true
    default: (weather.isCutOut, weather.isCutIn) = (true, true)
    }
  }
  private func clear(_ weather: inout LinkWeather, _ kind: FaultKind) {
    switch kind {
    case .delay: (weather.delay, weather.jitter) = (.zero, .zero)
    case .stall: (weather.lossShare, weather.stall) = (0, .zero)
    case .drip: weather.bytesPerSecond = nil
    case .slice: (weather.sliceMax, weather.gap) = (nil, .zero)
    default: (weather.isCutOut, weather.isCutIn) = (false, false)
    }
  }
}
