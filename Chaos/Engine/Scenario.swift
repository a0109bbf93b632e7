import Foundation

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
package struct Scenario: Codable, Sendable, Equatable {
  package var name = ""
  package var about: String
  /// How long the faults last; before it the same load runs for `baselineSeconds` on the healthy cluster.
  package var seconds: Double
  package var baselineSeconds = 10.0
  /// Requests per second, over all coordinators.
  package var rate = 300.0
  package var cluster = Shape()
  package var faults: [FaultLine]
  /// Whether faults may overlap. If not, each waits until the cluster is whole again.
  package var together = false
  package var limits = Limits()
  /// What must be violated: the beginning of the name of an invariant or a figure. For scenarios whose cluster is
  /// `without` a defence, to see that the fault bites and that the judge sees it; nil = nothing may be violated.
  package var bites: String?
  package var isShortened = false

  /// The cluster it runs on.
  package struct Shape: Codable, Sendable, Equatable {
    package var workers = 4
    package var replicas = 2
    package var coordinators = 1
    /// Workers are reached through relays that can hurt the bytes.
    package var relays = false
    /// Every node in a network namespace of its own, with its own address (needs root).
    package var namespaces = false
    package var rollouts = false
    /// Versions are agreed on in etcd, not in a coordinator's file.
    package var etcd = false
    package var tls = false
    /// What coordinators do not do: to see that it was worth doing.
    package var without: [Defence] = []
    package init() {}
  }

  /// What can be switched off to see a fault bite.
  package enum Defence: String, Codable, CaseIterable, Sendable {
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
  package struct FaultLine: Codable, Sendable, Equatable {
    package var kind: FaultKind
    package var on: FaultKind.Subject
    package var everySeconds: Double
    package var forMilliseconds: ClosedRange<Int>
    package var parameters: [String: Double]
  }

  /// What is judged besides what must always hold; nil = shown, not judged.
  package struct Limits: Codable, Sendable, Equatable {
    /// p99 of the faults' time ÷ p99 of the baseline.
    package var p99Ratio: Double?
    /// p99 of the faults' time, in ms above the baseline's.
    package var p99Plus: Double?
    /// From a fault's beginning until the victim is held to be down.
    package var noticedSeconds: Double?
    /// From a fault's end until the cluster is whole.
    package var healedSeconds: Double?
    /// Slowest request around a fault that took something away, in ms.
    package var slowestMilliseconds: Double?
    /// Whether each fault may change a victim's state only down and up again.
    package var flapping = true
    package init() {}
  }
}

/// A scenario that cannot be used: what is wrong, and what is allowed.
package struct ScenarioError: Error, CustomStringConvertible, Equatable {
  package var description: String
}

extension Scenario {
  /// Reads a scenario's file.
  /// - Throws: `ScenarioError`, with the place in the file.
  package init(name: String, json data: Data) throws {
    let top: Fields
    do {
      guard let object = try JSONSerialization.jsonObject(with: data) as? [String: Any] else {
        throw ScenarioError(description: "\(name): must be one JSON object")
      }
      top = Fields(place: name, object)
    } catch let error as ScenarioError { throw error } catch {
      throw ScenarioError(description: "\(name): not JSON: \(error.localizedDescription)")
    }
    try top.allow(["about", "seconds", "baseline_s", "rate", "cluster", "faults", "together", "limits", "bites"])
    self.name = name
    about = try top.text("about") ?? name
    seconds = try top.number("seconds", 1...864_000) ?? 30
    baselineSeconds = try top.number("baseline_s", 0...600) ?? baselineSeconds
    rate = try top.number("rate", 1...100_000) ?? rate
    together = try top.boolean("together") ?? together
    bites = try top.text("bites")
    faults = []
    cluster = try Shape(try top.child("cluster"))
    limits = try Limits(try top.child("limits"))
    for (index, object) in try top.objects("faults").enumerated() {
      faults.append(try FaultLine(Fields(place: "\(name): faults[\(index)]", object), cluster))
    }
  }
}

extension Scenario {
  /// The same, in so little time that ten of them can run before every change; the limits stay.
  package var shortened: Scenario {
    var short = self
    short.seconds = min(seconds, 10)
    short.baselineSeconds = min(baselineSeconds, 3)
    short.isShortened = true
    return short
  }
}

extension Scenario.Shape {
  fileprivate init(_ fields: Fields?) throws {
    guard let fields else { return }
    try fields.allow([
      "workers", "replicas", "coordinators", "relays", "namespaces", "rollouts", "etcd", "tls", "without",
    ])
    workers = Int(try fields.number("workers", 1...64) ?? 4)
    replicas = Int(try fields.number("replicas", 1...Double(workers)) ?? Double(min(2, workers)))
    coordinators = Int(try fields.number("coordinators", 1...8) ?? 1)
    relays = try fields.boolean("relays") ?? false
    namespaces = try fields.boolean("namespaces") ?? false
    etcd = try fields.boolean("etcd") ?? false
    rollouts = try fields.boolean("rollouts") ?? etcd
    tls = try fields.boolean("tls") ?? false
    without = try fields.texts("without").map { text in
      guard let defence = Scenario.Defence(rawValue: text) else {
        throw fields.error("\"without\"", text, Scenario.Defence.allCases.map(\.rawValue))
      }
      return defence
    }
    if rollouts, coordinators > 1, !etcd {
      throw ScenarioError(description: "\(fields.place): several coordinators roll out by \"etcd\" only")
    }
    if relays, namespaces {
      throw ScenarioError(description: "\(fields.place): \"relays\" or \"namespaces\", not both")
    }
  }
}

extension Scenario.FaultLine {
  fileprivate init(_ fields: Fields, _ shape: Scenario.Shape) throws {
    guard let text = try fields.text("kind"), let kind = FaultKind(rawValue: text) else {
      throw fields.error("\"kind\"", try fields.text("kind") ?? "", FaultKind.allCases.map(\.rawValue))
    }
    try fields.allow(["kind", "on", "every_s", "for_ms"] + kind.parameters.keys.sorted())
    self.kind = kind
    let named = try fields.text("on") ?? kind.subjects[0].rawValue
    guard let on = FaultKind.Subject(rawValue: named), kind.subjects.contains(on) else {
      throw fields.error("\"on\" of \(text)", named, kind.subjects.map(\.rawValue))
    }
    self.on = on
    everySeconds = try fields.number("every_s", 0.1...86_400) ?? 10
    let span = try fields.numbers("for_ms", 0...3_600_000) ?? [2000]
    guard (1...2).contains(span.count), span[0] <= span[span.count - 1] else {
      throw ScenarioError(description: "\(fields.place): \"for_ms\" is [shortest, longest] or one number")
    }
    forMilliseconds = Int(span[0])...Int(span[span.count - 1])
    parameters = kind.parameters
    for name in kind.parameters.keys {
      if let value = try fields.number(name, -1e9...1e9) { parameters[name] = value }
    }
    try check(fields, shape)
  }

  /// What a fault needs of its cluster.
  private func check(_ fields: Fields, _ shape: Scenario.Shape) throws {
    func need(_ condition: Bool, _ what: String) throws {
      if !condition { throw ScenarioError(description: "\(fields.place): \(kind.rawValue) needs \"cluster\": \(what)") }
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
  fileprivate init(_ fields: Fields?) throws {
    guard let fields else { return }
    try fields.allow(["p99_ratio", "p99_plus_ms", "noticed_s", "healed_s", "slowest_ms", "flapping"])
    p99Ratio = try fields.number("p99_ratio", 0...1e6)
    p99Plus = try fields.number("p99_plus_ms", 0...1e6)
    noticedSeconds = try fields.number("noticed_s", 0...1e6)
    healedSeconds = try fields.number("healed_s", 0...1e6)
    slowestMilliseconds = try fields.number("slowest_ms", 0...1e6)
    flapping = try fields.boolean("flapping") ?? flapping
  }
}

/// A JSON object and its place in a file.
private struct Fields {
  let place: String
  private let object: [String: Any]
  init(place: String, _ object: [String: Any]) {
    self.place = place
    self.object = object
  }

  func error(_ what: String, _ given: String, _ allowed: [String]) -> ScenarioError {
    let said = given.isEmpty ? "is missing" : "is \"\(given)\""
    return ScenarioError(description: "\(place): \(what) \(said); it is one of \(allowed.joined(separator: ", "))")
  }
  func allow(_ keys: [String]) throws {
    for key in object.keys.sorted() where !keys.contains(key) { throw error("a key", key, keys) }
  }
  private func wrong(_ key: String, _ what: String) -> ScenarioError {
    ScenarioError(description: "\(place): \"\(key)\" must be \(what)")
  }
  func text(_ key: String) throws -> String? {
    guard let value = object[key] else { return nil }
    guard let text = value as? String else { throw wrong(key, "a text") }
    return text
  }
  func texts(_ key: String) throws -> [String] {
    guard let value = object[key] else { return [] }
    guard let texts = value as? [String] else { throw wrong(key, "a list of texts") }
    return texts
  }
  func boolean(_ key: String) throws -> Bool? {
    guard let value = object[key] else { return nil }
    guard let boolean = value as? Bool else { throw wrong(key, "true or false") }
    return boolean
  }
  func number(_ key: String, _ range: ClosedRange<Double>) throws -> Double? {
    try numbers(key, range)?.first
  }
  func numbers(_ key: String, _ range: ClosedRange<Double>) throws -> [Double]? {
    guard let value = object[key] else { return nil }
    let numbers = (value as? [NSNumber] ?? (value as? NSNumber).map { [$0] } ?? []).map(\.doubleValue)
    guard !numbers.isEmpty, numbers.allSatisfy(range.contains) else {
      throw wrong(key, "a number, \(range.lowerBound) to \(range.upperBound)")
    }
    return numbers
  }
  func child(_ key: String) throws -> Fields? {
    guard let value = object[key] else { return nil }
    guard let object = value as? [String: Any] else { throw wrong(key, "an object") }
    return Fields(place: "\(place): \(key)", object)
  }
  func objects(_ key: String) throws -> [[String: Any]] {
    guard let value = object[key] else { return [] }
    guard let list = value as? [[String: Any]] else { throw wrong(key, "a list of objects") }
    return list
  }
}
