import Foundation
import HTTP2
import Testing

/// Two ends of a connection, and the bytes between them.
@Suite struct TLSSessionTests {
  /// A CA with certificates in files, as processes have them.
  final class Papers {
    let directory: String
    let authority: CertificateAuthority

    init() throws {
      directory = NSTemporaryDirectory() + "tls-\(UUID().uuidString)"
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      authority = try CertificateAuthority(name: "test", validSeconds: -60...3600)
      try write(authority.pem.certificate, "ca.pem")
    }
    deinit { try? FileManager.default.removeItem(atPath: directory) }

    func write(_ bytes: [UInt8], _ name: String, mode: Int = 0o600) throws {
      try Data(bytes).write(to: URL(fileURLWithPath: "\(directory)/\(name)"))
      try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: "\(directory)/\(name)")
    }
    func files(
      _ name: String, _ roles: NodeRole, hosts: [String] = ["127.0.0.1", "w1.example"],
      valid: ClosedRange<Int> = -60...600
    ) throws -> TLSFiles {
      let made = try authority.issue(CertificateTerms(name: name, roles: roles, hosts: hosts, validSeconds: valid))
      try write(made.certificate, name + ".pem")
      try write(made.key, name + ".key")
      return TLSFiles(
        authority: directory + "/ca.pem", certificate: "\(directory)/\(name).pem", key: "\(directory)/\(name).key")
    }
  }

  /// Carries bytes to and fro until neither end has anything to say.
  final class Pair {
    let client: TLSSession
    let server: TLSSession
    var saidToClient: [UInt8] = []
    var saidToServer: [UInt8] = []
    /// What went over the wire.
    var wire: [UInt8] = []
    private let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 16 << 10, alignment: 16)

    init(_ client: TLSSession, _ server: TLSSession) {
      (self.client, self.server) = (client, server)
      client.start()
    }
    deinit { room.deallocate() }

    func carry(by: Int = .max) {
      while true {
        var (up, down): ([UInt8], [UInt8]) = ([], [])
        client.output(into: &up)
        server.output(into: &down)
        if up.isEmpty, down.isEmpty { return }
        wire += up + down
        give(up, by, to: server) { saidToServer += $0 }
        give(down, by, to: client) { saidToClient += $0 }
      }
    }
    private func give(_ bytes: [UInt8], _ size: Int, to session: TLSSession, _ body: (UnsafeRawBufferPointer) -> Void) {
      bytes.withUnsafeBytes { raw in
        for start in stride(from: 0, to: raw.count, by: min(size, max(1, raw.count))) {
          let piece = raw[start..<min(raw.count, start + min(size, raw.count))]
          session.receive(UnsafeRawBufferPointer(rebasing: piece), room: room, body)
        }
      }
    }
  }

  private func pair(_ client: TLSFiles, _ server: TLSFiles, host: String = "127.0.0.1") throws -> Pair {
    Pair(
      try TLSSession(try TLSContext(client, for: .nodeClient(expects: .worker)), host: host),
      try TLSSession(try TLSContext(server, for: .nodeServer(admits: .coordinator, http1: false))))
  }

  @Test(arguments: [1, 7, Int.max])
  func bothSidesAreWhoTheySayAndUnderstandEachOther(by: Int) throws {
    let papers = try Papers()
    let pair = try pair(try papers.files("c1", .coordinator), try papers.files("w1", [.worker]))
    pair.carry(by: by)
    #expect(pair.client.state == .open && pair.server.state == .open)
    #expect(pair.server.peerRoles == .coordinator && pair.client.peerRoles == .worker)
    // Without tickets the server has nothing to say after the handshake.
    #expect(pair.saidToClient.isEmpty && pair.saidToServer.isEmpty)
    let question = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    pair.client.send(question)
    pair.server.send([1, 2, 3])
    pair.carry(by: by)
    #expect(pair.saidToServer == question && pair.saidToClient == [1, 2, 3])
    #expect(!pair.wire.isEmpty && pair.wire.count < 120_000)
    pair.server.close()
    pair.carry()
    #expect(pair.client.state == .closed)
  }

  struct Stranger: Sendable, CustomTestStringConvertible {
    var name: String
    /// Of the two, who is the stranger.
    var isClient: Bool
    var reason: String
    var testDescription: String { "\(name), \(isClient ? "client" : "server")" }
  }
  /// The other side says why, and not one byte of the application is sent by either.
  @Test(arguments: [
    Stranger(name: "role", isClient: true, reason: "names the role worker, and here it takes coordinator"),
    Stranger(name: "role", isClient: false, reason: "names the role coordinator, and here it takes worker"),
    Stranger(name: "none", isClient: true, reason: "names the role none, and here it takes coordinator"),
    Stranger(name: "expired", isClient: true, reason: "certificate has expired"),
    Stranger(name: "expired", isClient: false, reason: "certificate has expired"),
    Stranger(name: "future", isClient: true, reason: "certificate is not yet valid"),
    Stranger(name: "ca", isClient: true, reason: "unable to get local issuer certificate"),
    Stranger(name: "ca", isClient: false, reason: "unable to get local issuer certificate"),
    Stranger(name: "host", isClient: false, reason: "IP address mismatch"),
  ])
  func strangersAreKeptOut(stranger: Stranger) throws {
    let papers = try Papers()
    let others = try Papers()
    func strange(_ role: NodeRole, _ other: NodeRole) throws -> TLSFiles {
      switch stranger.name {
      case "role": return try papers.files("x", other)
      case "none": return try papers.files("x", [])
      case "expired": return try papers.files("x", role, valid: -600 ... -1)
      case "future": return try papers.files("x", role, valid: 300...600)
      case "host": return try papers.files("x", role, hosts: ["127.0.0.2"])
      default:
        var files = try others.files("x", role)
        files.authority = papers.directory + "/ca.pem"
        return files
      }
    }
    let pair = try pair(
      stranger.isClient ? try strange(.coordinator, .worker) : try papers.files("c1", .coordinator),
      stranger.isClient ? try papers.files("w1", .worker) : try strange(.worker, .coordinator))
    pair.carry()
    let judge = stranger.isClient ? pair.server : pair.client
    guard case .failed(let error) = judge.state else {
      Issue.record("\(judge.state)")
      return
    }
    #expect("\(error)".contains(stranger.reason), "\(error)")
    #expect(pair.saidToClient.isEmpty && pair.saidToServer.isEmpty)
    // The server is not open, so that it could not answer; a client of TLS 1.3 hears of it a moment later.
    #expect(pair.server.state != .open)
    let before = pair.wire.count
    judge.send(Array("secret".utf8))
    pair.carry()
    #expect(pair.wire.count == before)
    if case .failed = pair.client.state {} else { Issue.record("the client still believes: \(pair.client.state)") }
  }

  @Test func whoShowsNoCertificateIsKeptOut() throws {
    let papers = try Papers()
    let anonymous = try TLSSession(
      try TLSContext(TLSFiles(authority: papers.directory + "/ca.pem"), for: .publicClient), host: "127.0.0.1")
    let server = try TLSSession(
      try TLSContext(try papers.files("w1", .worker), for: .nodeServer(admits: .coordinator, http1: true)))
    let pair = Pair(anonymous, server)
    pair.carry()
    guard case .failed(let error) = server.state else {
      Issue.record("\(server.state)")
      return
    }
    #expect("\(error)" == "it shows no certificate")
  }

  @Test(arguments: ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\u{0}\u{1}\u{2}rubbish"])
  func plaintextIsTold(text: String) throws {
    let papers = try Papers()
    let server = try TLSSession(try TLSContext(try papers.files("w1", []), for: .publicServer))
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 16 << 10, alignment: 16)
    defer { room.deallocate() }
    Array(text.utf8).withUnsafeBytes { server.receive($0, room: room) { _ in Issue.record("plaintext got through") } }
    guard case .failed(let error) = server.state else {
      Issue.record("\(server.state)")
      return
    }
    #expect("\(error)".hasPrefix("it does not speak TLS"), "\(error)")
    var said: [UInt8] = []
    server.output(into: &said)
    // An alert: 21, two bytes of version, two of length, two of alert.
    #expect(said.isEmpty || said[0] == 21 && said.count == 7, "\(said)")
  }

  @Test func aHostIsANameOrAnAddress() throws {
    let papers = try Papers()
    let (client, server) = (try papers.files("c1", .coordinator), try papers.files("w1", .worker))
    for (host, isGood) in [("w1.example", true), ("w2.example", false), ("127.0.0.1", true), ("::1", false)] {
      let pair = try pair(client, server, host: host)
      pair.carry()
      #expect((pair.client.state == .open) == isGood, "\(host): \(pair.client.state)")
    }
  }

  @Test func aKeyThatOthersCanReadIsRefused() throws {
    let papers = try Papers()
    let files = try papers.files("w1", .worker)
    try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: files.key)
    #expect {
      try TLSContext(files, for: .publicServer)
    } throws: {
      "\($0)".contains("w1.key: a private key that others can read (mode 644); chmod 600 it")
    }
  }

  @Test func wrongFilesAreNamed() throws {
    let papers = try Papers()
    var files = try papers.files("w1", .worker)
    let other = try papers.files("w2", .worker)
    files.key = other.key
    #expect { try TLSContext(files, for: .publicServer) } throws: {
      "\($0)".contains("w2.key: cannot be read as the key of")
    }
    files.key = papers.directory + "/nothing"
    #expect { try TLSContext(files, for: .publicServer) } throws: { "\($0)".contains("nothing: cannot be read") }
    try papers.write(Array("hello".utf8), "w1.pem")
    #expect { try TLSContext(files, for: .publicServer) } throws: {
      "\($0)".contains("w1.pem: cannot be read as a certificate")
    }
    #expect { try TLSContext(TLSFiles(), for: .nodeClient(expects: .worker)) } throws: { "\($0)".contains("\"ca\"") }
  }

  /// What is open stays open; what comes later meets the new certificate; a broken one changes nothing.
  @Test func certificatesAreReadAgain() throws {
    let papers = try Papers()
    let context = try TLSContext(try papers.files("w1", .worker), for: .nodeServer(admits: .coordinator, http1: false))
    let client = try TLSContext(try papers.files("c1", .coordinator), for: .nodeClient(expects: .worker))
    let early = Pair(try TLSSession(client, host: "127.0.0.1"), try TLSSession(context))
    early.carry()
    let before = try #require(context.expiry)
    _ = try papers.files("w1", .worker, hosts: ["127.0.0.9"], valid: -60...9000)
    try context.reload()
    #expect(try #require(context.expiry) > before + 8000)
    early.client.send([7])
    early.carry()
    #expect(early.saidToServer == [7])
    let late = Pair(try TLSSession(client, host: "127.0.0.9"), try TLSSession(context))
    late.carry()
    #expect(late.client.state == .open)
    try papers.write([], "w1.pem")
    #expect(throws: TLSError.self) { try context.reload() }
    let later = Pair(try TLSSession(client, host: "127.0.0.9"), try TLSSession(context))
    later.carry()
    #expect(later.client.state == .open)
  }

  @Test func clientsNeedNoCertificate() throws {
    let papers = try Papers()
    let files = try papers.files("shop", [], hosts: ["shop.example"])
    let pair = Pair(
      try TLSSession(
        try TLSContext(TLSFiles(authority: papers.directory + "/ca.pem"), for: .publicClient), host: "shop.example"),
      try TLSSession(try TLSContext(files, for: .publicServer)))
    pair.carry()
    #expect(pair.client.state == .open && pair.server.state == .open && pair.server.peerRoles.isEmpty)
  }
}
