import Foundation
import Servers

// A scenario is a small file: one cluster, one checking workload, and the faults that are composed with it.
//
//     {
//       "about": "a worker is killed with -9 every five seconds",
//       "seconds": 60, "rate": 400,
//       "cluster": {"workers": 4, "replicas": 2},
//       "faults": [{"kind": "kill", "every_s": 5, "for_ms": [500, 1500]}],
//       "limits": {"p99_ratio": 1.5}
//     }
//
// Each line of "faults" is a stream of its own, drawn from the seed; what two lines do to each other is nobody's plan
// but `together`. What must hold without being said: every answer right, coverage told exactly, each request ended once
// and in time, budgets kept, and nothing failed or degraded while every shard had a healthy replica in reach.

/// What a scenario's file says.
struct Scenario: Sendable, Equatable {
  var name = ""
  var about: String
  /// How long the faults last; before it the same load runs for `baselineSeconds` on the healthy cluster.
  var seconds: Double
  var baselineSeconds = 10.0
  /// Requests per second, over all coordinators.
  var rate = 300.0
  var cluster = Shape()
  var faults: [FaultLine]
  /// Whether faults may overlap. If not, each waits until the cluster is whole again.
  var together = false
  var limits = Limits()
  /// What must be violated: the beginning of the name of an invariant or a figure. For scenarios whose cluster is
  /// `without` a defence, to see that the fault bites and that the judge sees it; nil = nothing may be violated.
  var bites: String?
  var isShortened = false

  /// The cluster it runs on.
  struct Shape: Sendable, Equatable {
    var workers = 4
    var replicas = 2
    var coordinators = 1
    /// Workers are reached through relays that can hurt the bytes.
    var relays = false
    /// Every node in a network namespace of its own, with its own address (needs root).
    var namespaces = false
    var rollouts = false
    /// Versions are agreed on in etcd, not in a coordinator's file.
    var etcd = false
    var tls = false
    /// What coordinators do not do: to see that it was worth doing.
    var without: [Defence] = []
    init() {}
  }

  /// What can be switched off to see a fault bite.
  enum Defence: String, CaseIterable, Sendable {
    case hedging, retries, choice
    case slowEjection = "slow_ejection"
    /// Checksums of bundles.
    case checksums
    /// That a worker's bundle is the one the coordinator means.
    case fingerprints
    /// That time is counted by a clock that never jumps.
    case monotonic
    /// That the disk says when it did not write.
    case honestDisk = "honest_disk"
    /// What turns a bad version back.
    case guards
  }

  /// One stream of faults.
  struct FaultLine: Sendable, Equatable {
    var kind: FaultKind
    var on: FaultKind.Subject
    var everySeconds: Double
    var forMilliseconds: ClosedRange<Int>
    var parameters: [String: Double]
  }

  /// What is judged besides what must always hold; nil = shown, not judged.
  struct Limits: Sendable, Equatable {
    /// p99 of the faults' time ÷ p99 of the baseline.
    var p99Ratio: Double?
    /// p99 of the faults' time, in ms above the baseline's.
    var p99Plus: Double?
    /// From a fault's beginning until the victim is held to be down.
    var noticedSeconds: Double?
    /// From a fault's end until the cluster is whole.
    var healedSeconds: Double?
    /// Slowest request around a fault that took something away, in ms.
    var slowestMilliseconds: Double?
    /// Whether each fault may change a victim's state only down and up again.
    var flapping = true
    init() {}
  }
}

extension Scenario {
  /// Reads a scenario's file.
  /// - Throws: `ConfigurationError`, with the place in the file.
  init(name: String, json data: Data) throws {
    let top = try ConfigurationFile(place: name, json: data)
    try top.allow(["about", "seconds", "baseline_s", "rate", "cluster", "faults", "together", "limits", "bites"])
    self.name = name
    about = try top.text("about") ?? name
    seconds = try top.number("seconds", in: 1...864_000) ?? 30
    baselineSeconds = try top.number("baseline_s", in: 0...600) ?? baselineSeconds
    rate = try top.number("rate", in: 1...100_000) ?? rate
    together = try top.boolean("together") ?? together
    bites = try top.text("bites")
    faults = []
    cluster = try Shape(try top.child("cluster"))
    limits = try Limits(try top.child("limits"))
    for line in try top.objects("faults") { faults.append(try FaultLine(line, cluster)) }
  }
}

extension Scenario {
  /// The same, in so little time that ten of them can run before every change; the limits stay.
  var shortened: Scenario {
    var short = self
    short.seconds = min(seconds, 10)
    short.baselineSeconds = min(baselineSeconds, 3)
    short.isShortened = true
    return short
  }
}

extension Scenario.Shape {
  fileprivate init(_ fields: ConfigurationFile?) throws {
    guard let fields else { return }
    try fields.allow([
      "workers", "replicas", "coordinators", "relays", "namespaces", "rollouts", "etcd", "tls", "without",
    ])
    workers = try fields.integer("workers", in: 1...64) ?? 4
    replicas = try fields.integer("replicas", in: 1...workers) ?? min(2, workers)
    coordinators = try fields.integer("coordinators", in: 1...8) ?? 1
    relays = try fields.boolean("relays") ?? false
    namespaces = try fields.boolean("namespaces") ?? false
    etcd = try fields.boolean("etcd") ?? false
    rollouts = try fields.boolean("rollouts") ?? etcd
    tls = try fields.boolean("tls") ?? false
    without = try fields.texts("without").map { text in
      guard let defence = Scenario.Defence(rawValue: text) else {
        throw fields.wrong("\"without\"", text, Scenario.Defence.allCases.map(\.rawValue))
      }
      return defence
    }
    if rollouts, coordinators > 1, !etcd {
      throw ConfigurationError("\(fields.place): several coordinators roll out by \"etcd\" only")
    }
    if relays, namespaces {
      throw ConfigurationError("\(fields.place): \"relays\" or \"namespaces\", not both")
    }
  }
}

extension Scenario.FaultLine {
  fileprivate init(_ fields: ConfigurationFile, _ shape: Scenario.Shape) throws {
    guard let text = try fields.text("kind"), let kind = FaultKind(rawValue: text) else {
      throw fields.wrong("\"kind\"", try fields.text("kind"), FaultKind.allCases.map(\.rawValue))
    }
    try fields.allow(["kind", "on", "every_s", "for_ms"] + kind.parameters.keys.sorted())
    self.kind = kind
    let named = try fields.text("on") ?? kind.subjects[0].rawValue
    guard let on = FaultKind.Subject(rawValue: named), kind.subjects.contains(on) else {
      throw fields.wrong("\"on\" of \(text)", named, kind.subjects.map(\.rawValue))
    }
    self.on = on
    everySeconds = try fields.number("every_s", in: 0.1...86_400) ?? 10
    forMilliseconds = try fields.span("for_ms", in: 0...3_600_000) ?? 2000...2000
    parameters = kind.parameters
    for name in kind.parameters.keys {
      if let value = try fields.number(name, in: -1e9...1e9) { parameters[name] = value }
    }
    try check(fields, shape)
  }

  /// What a fault needs of its cluster.
  private func check(_ fields: ConfigurationFile, _ shape: Scenario.Shape) throws {
    func need(_ condition: Bool, _ what: String) throws {
      if !condition { throw ConfigurationError("\(fields.place): \(kind.rawValue) needs \"cluster\": \(what)") }
    }
    switch kind {
    case .stall, .drip, .slice, .halfOpen, .reset, .delay: try need(shape.relays, "{\"relays\": true}")
    case .cut, .cutOut, .cutIn: try need(shape.relays || shape.namespaces, "{\"relays\": true} or \"namespaces\"")
    case .split:
      try need(shape.relays || shape.namespaces, "{\"relays\": true} or \"namespaces\"")
      try need(shape.coordinators > 1, "{\"coordinators\": 2} or more")
    case .etcdCut:
      try need(shape.etcd && (shape.relays || shape.namespaces), "\"etcd\", and \"relays\" or \"namespaces\"")
    case .loss: try need(shape.namespaces, "{\"namespaces\": true}")
    case .etcdKill, .etcdFreeze: try need(shape.etcd, "{\"etcd\": true}")
    case .rollout, .abort, .poison: try need(shape.rollouts, "{\"rollouts\": true}")
    case .diskFull, .syncFails, .syncSlow:
      try need(shape.rollouts && !shape.etcd, "{\"rollouts\": true} without \"etcd\"")
    case .kill, .terminate, .freeze, .restarts, .squeeze, .memory, .clock, .swap, .flip, .truncate: break
    }
    if on == .pair { try need(shape.workers >= 2, "{\"workers\": 2} or more") }
  }
}

extension Scenario.Limits {
  fileprivate init(_ fields: ConfigurationFile?) throws {
    guard let fields else { return }
    try fields.allow(["p99_ratio", "p99_plus_ms", "noticed_s", "healed_s", "slowest_ms", "flapping"])
    p99Ratio = try fields.number("p99_ratio", in: 0...1e6)
    p99Plus = try fields.number("p99_plus_ms", in: 0...1e6)
    noticedSeconds = try fields.number("noticed_s", in: 0...1e6)
    healedSeconds = try fields.number("healed_s", in: 0...1e6)
    slowestMilliseconds = try fields.number("slowest_ms", in: 0...1e6)
    flapping = try fields.boolean("flapping") ?? flapping
  }
}

extension ConfigurationFile {
  /// What is said when a word is none of those that are allowed.
  fileprivate func wrong(_ what: String, _ given: String?, _ allowed: [String]) -> ConfigurationError {
    let said = given.map { "is \"\($0)\"" } ?? "is missing"
    return ConfigurationError("\(place): \(what) \(said); it is one of \(allowed.joined(separator: ", "))")
  }
  /// `[shortest, longest]`, or one number for both.
  fileprivate func span(_ key: String, in range: ClosedRange<Int>) throws(ConfigurationError) -> ClosedRange<Int>? {
    guard object[key] is [Any] else { return try integer(key, in: range).map { $0...$0 } }
    let ends = try integers(key, in: range)
    guard ends.count == 2, ends[0] <= ends[1] else {
      throw ConfigurationError("\(place): \"\(key)\" is [shortest, longest] or one number")
    }
    return ends[0]...ends[1]
  }
}
