import Glibc
import HTTP2
import RankingCore
import Transport
import Wire

// Whom a process believes. Between nodes everything is mutual TLS, or everything is plaintext; what faces clients is
// set apart.
//
//     clients ──► public port          "tls": {"public": …}         the shop's certificate, or plaintext behind a proxy
//     people  ──► admin port ◄── workers that join, coordinators  ┐
//                 coordinator ──► workers' ports                  ┘ "tls": {"ca": …, "certificate": …, "key": …}
//
// SIGHUP reads the files again. What cannot be used then is said and changes nothing.

public struct TLSConfiguration: Sendable, Equatable {
  /// Between nodes; nil = plaintext.
  public var nodes: TLSFiles?
  /// Of the public port; nil = plaintext.
  public var publicPort: TLSFiles?
  public init(nodes: TLSFiles? = nil, publicPort: TLSFiles? = nil) {
    self.nodes = nodes
    self.publicPort = publicPort
  }

  init(_ json: ConfigurationFile, isCoordinator: Bool) throws(ConfigurationError) {
    try json.allow(["ca", "certificate", "key"] + (isCoordinator ? ["public"] : []))
    if json.object["ca"] != nil || !isCoordinator || json.object["public"] == nil {
      nodes = TLSFiles(
        authority: try json.needed("ca"), certificate: try json.needed("certificate"), key: try json.needed("key"))
    }
    guard let outside = try json.child("public") else { return }
    try outside.allow(["certificate", "key"])
    publicPort = TLSFiles(certificate: try outside.needed("certificate"), key: try outside.needed("key"))
  }
}

/// Of the loop's thread.
final class NodeSecurity {
  let publicPort: TLSContext?
  let adminPort: TLSContext?
  let workerPort: TLSContext?
  let toWorkers: TLSContext?
  let toCoordinators: TLSContext?
  private let name: String
  private var reloads = 0
  private var reloadsFailed = 0
  private var signals: SignalSource?
  private var spoken = LineLimit(perSecond: 10)

  init(_ configuration: TLSConfiguration?, name: String) throws {
    self.name = name
    func make(_ files: TLSFiles?, _ use: TLSContext.Use) throws -> TLSContext? {
      try files.map { files in
        do { return try TLSContext(files, for: use) } catch { throw ConfigurationError("tls: \(error)") }
      }
    }
    let nodes = configuration?.nodes
    publicPort = try make(configuration?.publicPort, .publicServer)
    adminPort = try make(nodes, .nodeServer(admits: [.worker, .coordinator, .operator], http1: true))
    workerPort = try make(nodes, .nodeServer(admits: [.coordinator, .operator], http1: false))
    toWorkers = try make(nodes, .nodeClient(expects: .worker))
    toCoordinators = try make(nodes, .nodeClient(expects: .coordinator))
  }

  private var all: [TLSContext] { [publicPort, adminPort, workerPort, toWorkers, toCoordinators].compactMap(\.self) }

  /// From now on SIGHUP reads everything again; `more` is what else is to be read.
  func watch(on loop: EventLoop, more: @escaping () -> Void = {}) {
    signals = SignalSource([SIGHUP], on: loop) { [unowned self] _ in
      reload()
      more()
    }
  }

  private func reload() {
    guard !all.isEmpty else { return }
    do {
      for context in all { try context.reload() }
      reloads += 1
      Log.line(name, "certificates read again")
    } catch {
      reloadsFailed += 1
      Log.line(name, "the certificates stay as they are: \(error)")
    }
  }

  /// Says who was kept out and why, so often that a flood of strangers does not become a flood of lines.
  func logRefusals(of server: HTTPServer, at port: StaticString) {
    server.whenRefused = { [unowned self, unowned server] in
      guard let more = spoken.passes(server.loop.now) else { return }
      Log.line(name, "\(port) port: \($0)" + (more > 0 ? " (and \(more) more before)" : ""))
    }
  }

  func write(into text: inout MetricsText) {
    guard !all.isEmpty else { return }
    text.family("shortlist_tls_certificate_expiry_seconds", "gauge", "When certificates expire, seconds since 1970.")
    for (use, context) in [("nodes", toWorkers), ("public", publicPort)] {
      guard let expiry = context?.expiry else { continue }
      text.line("shortlist_tls_certificate_expiry_seconds", "use=\"\(use)\"", "\(expiry)")
    }
    text.counter("shortlist_tls_reloads_total", "Times that certificates were read again.", UInt64(reloads))
    text.counter("shortlist_tls_reload_failures_total", "Times that they could not be.", UInt64(reloadsFailed))
  }
}

/// At most so many lines a second; the rest is counted.
struct LineLimit {
  let perSecond: Int
  private var second = Instant(nanoseconds: 0)
  private var said = 0
  private var unsaid = 0
  init(perSecond: Int) { self.perSecond = perSecond }

  /// Says in a line how many before it were not logged.
  static func write(unsaid: Int, into json: inout JSONWriter) {
    guard unsaid > 0 else { return }
    json.literal(",\"unlogged_before\":")
    json.number(unsaid)
  }

  /// - Returns: how many were left unsaid before this one; nil = it is, too.
  mutating func passes(_ now: Instant) -> Int? {
    if now - second >= .seconds(1) { (second, said) = (now, 0) }
    guard said < perSecond else {
      unsaid += 1
      return nil
    }
    said += 1
    defer { unsaid = 0 }
    return unsaid
  }
}
