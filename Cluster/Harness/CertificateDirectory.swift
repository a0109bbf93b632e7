import Foundation
import HTTP2

#if canImport(Glibc)
  import Glibc
#endif

// Certificates for development and tests, in one directory:
//
//     ca.pem ca.key           made once, used again
//     w1.pem w1.key …         for each name, made anew whenever asked for

public struct CertificateDirectory: Sendable {
  public let path: String
  public init(path: String) { self.path = path }

  public var authority: String { path + "/ca.pem" }
  public func files(of name: String) -> TLSFiles {
    TLSFiles(authority: authority, certificate: "\(path)/\(name).pem", key: "\(path)/\(name).key")
  }

  /// What a certificate is for, on the command line and in tests.
  public struct Request: Sendable {
    public var name: String
    public var roles: NodeRole
    public var hosts: [String]
    public var days: Int
    public static let localHosts = ["localhost", "127.0.0.1", "::1"]
    public init(_ name: String, _ roles: NodeRole, hosts: [String] = Self.localHosts, days: Int = 90) {
      self.name = name
      self.roles = roles
      self.hosts = hosts
      self.days = days
    }
  }

  /// Makes the CA if there is none.
  /// - Returns: whether it was made now.
  @discardableResult
  public func makeAuthority(days: Int = 3650) throws(HarnessError) -> Bool {
    if access(authority, F_OK) == 0 || access(path + "/ca.key", F_OK) == 0 { return false }
    do {
      try FileManager.default.createDirectory(
        atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    } catch { throw HarnessError("cannot make \(path): \(describe(error))") }
    do {
      try write(try CertificateAuthority(name: "Shortlist development CA", validSeconds: Self.span(days)).pem, as: "ca")
    } catch let error as HarnessError { throw error } catch { throw HarnessError("\(error)") }
    return true
  }

  /// Makes keys and certificates; the CA is made if need be.
  public func issue(_ requests: [Request]) throws(HarnessError) {
    try makeAuthority()
    do {
      let authority = try CertificateAuthority(
        CertifiedKey(certificate: try read("ca.pem"), key: try read("ca.key")))
      for request in requests {
        guard request.name != "ca", !request.name.contains("/"), !request.name.isEmpty else {
          throw HarnessError("\"\(request.name)\" cannot be the name of a certificate")
        }
        let terms = CertificateTerms(
          name: request.name, roles: request.roles, hosts: request.hosts, validSeconds: Self.span(request.days))
        try write(try authority.issue(terms), as: request.name)
      }
    } catch let error as HarnessError { throw error } catch { throw HarnessError("\(path): \(error)") }
  }

  /// A day back for clocks that differ; nothing that is asked to have expired has begun later than it ended.
  private static func span(_ days: Int) -> ClosedRange<Int> {
    min(-86_400, days * 86_400 - 86_400)...(days * 86_400)
  }

  private func read(_ name: String) throws(HarnessError) -> [UInt8] {
    guard let data = FileManager.default.contents(atPath: "\(path)/\(name)") else {
      throw HarnessError("\(path)/\(name) cannot be read")
    }
    return [UInt8](data)
  }

  /// The key first, and never readable by others: not for a moment.
  private func write(_ made: CertifiedKey, as name: String) throws(HarnessError) {
    try write(made.key, to: "\(path)/\(name).key", mode: 0o600)
    try write(made.certificate, to: "\(path)/\(name).pem", mode: 0o644)
  }
  private func write(_ bytes: [UInt8], to file: String, mode: mode_t) throws(HarnessError) {
    let part = file + ".part"
    unlink(part)
    let descriptor = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
    guard descriptor >= 0 else { throw HarnessError("cannot write \(part): \(systemMessage(errno))") }
    defer { close(descriptor) }
    guard Glibc.write(descriptor, bytes, bytes.count) == bytes.count, fchmod(descriptor, mode) == 0,
      rename(part, file) == 0
    else {
      let reason = systemMessage(errno)
      unlink(part)
      throw HarnessError("cannot write \(file): \(reason)")
    }
  }
}
