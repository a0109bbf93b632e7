import COpenSSL
import Glibc

// Who we are, whom we believe, and what may be spoken: read from files once, and again on demand. Connections that are
// open keep what they began with; a file that has become unreadable changes nothing.
//
//                       who asks                     who answers
//     between nodes     a node's certificate    ◄──► a node's certificate      TLS 1.3, the cluster's own CA only
//     toward clients    anybody                 ───► the shop's certificate    ≥ TLS 1.2, ECDHE and AEAD only
//
// A node's certificate names its role in a URI of its subject alternative names: "urn:shortlist:coordinator". The name
// alone proves nothing there: any worker's certificate is good for any worker, and for nothing else.
//
// There are no session tickets, no resumption, no renegotiation, no early data: each would be one more way in.

/// What a certificate of the cluster's CA entitles to.
public struct NodeRole: OptionSet, Sendable, CustomStringConvertible {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  public static let coordinator = NodeRole(rawValue: 1)
  public static let worker = NodeRole(rawValue: 2)
  /// People and their tools: they look, and steer rollouts.
  public static let `operator` = NodeRole(rawValue: 4)

  static let named: [(name: String, role: NodeRole)] = [
    ("coordinator", .coordinator), ("worker", .worker), ("operator", .operator),
  ]
  static let uriPrefix = "urn:shortlist:"
  /// The subject alternative names that say so, as OpenSSL writes them.
  var alternativeNames: [String] { names.map { "URI:\(Self.uriPrefix)\($0)" } }
  private var names: [String] { Self.named.filter { contains($0.role) }.map(\.name) }
  public var description: String { isEmpty ? "none" : names.joined(separator: " or ") }
}

/// What cannot be used, and why, in one line.
public struct TLSError: Error, Sendable, Equatable, CustomStringConvertible {
  public let description: String
  init(_ description: String) { self.description = description }

  /// With what OpenSSL says of its last failure.
  static func last(_ what: String) -> TLSError { TLSError("\(what): \(lastReason() ?? "it does not say why")") }

  /// Takes the first of this thread's errors and forgets the rest.
  static func lastReason() -> String? {
    let code = ERR_get_error()
    ERR_clear_error()
    guard code != 0 else { return nil }
    return ERR_reason_error_string(code).map { String(cString: $0) } ?? "error \(code)"
  }
}

/// PEM files.
public struct TLSFiles: Sendable, Equatable {
  /// The CAs that are believed; empty = nobody is asked for a certificate.
  public var authority = ""
  /// Our own certificate, then those between it and its CA; empty = none is shown.
  public var certificate = ""
  public var key = ""
  public init(authority: String = "", certificate: String = "", key: String = "") {
    self.authority = authority
    self.certificate = certificate
    self.key = key
  }
}

/// The terms of connections of one kind. Of one thread, but for `init`.
public final class TLSContext {
  public enum Use: Sendable, Equatable {
    /// Both sides show certificates of the cluster's CA; the peer's names one of these roles.
    /// - http1: whether HTTP/1.1 may be spoken, too.
    case nodeServer(admits: NodeRole, http1: Bool)
    case nodeClient(expects: NodeRole)
    /// Clients of any kind, which need no certificate.
    case publicServer
    /// Our own tools toward a public port: its host name is what counts.
    case publicClient

    var isServer: Bool {
      switch self {
      case .nodeServer, .publicServer: true
      case .nodeClient, .publicClient: false
      }
    }
    var isBetweenNodes: Bool {
      switch self {
      case .nodeServer, .nodeClient: true
      case .publicServer, .publicClient: false
      }
    }
    /// Of a node: which roles its peer may have.
    var peerRoles: NodeRole? {
      switch self {
      case .nodeServer(let roles, _), .nodeClient(let roles): roles
      case .publicServer, .publicClient: nil
      }
    }
    /// Whether the peer must say by ALPN that it speaks HTTP/2.
    var isHTTP2Only: Bool {
      switch self {
      case .nodeServer(_, let http1): !http1
      case .nodeClient: true
      case .publicServer, .publicClient: false
      }
    }
    /// The application protocols, the favourite first, as ALPN writes them.
    var protocols: [UInt8] { isHTTP2Only ? Self.http2 : Self.http2 + Self.http1 }
    static let http2 = [UInt8(2)] + Array("h2".utf8)
    static let http1 = [UInt8(8)] + Array("http/1.1".utf8)
  }

  public let use: Use
  private let files: TLSFiles
  private(set) var context: OpaquePointer
  /// When our certificate and the first to expire of the CAs do, in seconds since 1970; nil = there is none.
  public private(set) var expiry: Int?

  /// - Throws: what is wrong with which file.
  public init(_ files: TLSFiles, for use: Use) throws(TLSError) {
    self.files = files
    self.use = use
    (context, expiry) = try Self.make(files, use)
  }
  deinit { SSL_CTX_free(context) }

  /// Reads the files again: connections from now on are made on their terms.
  /// - Throws: when they cannot be used; then everything stays as it was.
  public func reload() throws(TLSError) {
    let (fresh, expiry) = try Self.make(files, use)
    SSL_CTX_free(context)
    (context, self.expiry) = (fresh, expiry)
  }

  private static func make(_ files: TLSFiles, _ use: Use) throws(TLSError) -> (OpaquePointer, Int?) {
    ERR_clear_error()
    guard let context = SSL_CTX_new(use.isServer ? TLS_server_method() : TLS_client_method()) else {
      throw .last("TLS")
    }
    do throws(TLSError) {
      try restrict(context, use)
      try believe(context, files, use)
      return (context, try identify(context, files, use))
    } catch {
      SSL_CTX_free(context)
      throw error
    }
  }

  private static func restrict(_ context: OpaquePointer, _ use: Use) throws(TLSError) {
    guard copenssl_set_versions(context, use.isBetweenNodes ? TLS1_3_VERSION : TLS1_2_VERSION, TLS1_3_VERSION) == 1,
      SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1
    else { throw .last("TLS") }
    copenssl_set_modes(context)
    let protocols = use.protocols
    if use.isServer {
      SSL_CTX_set_alpn_select_cb(context, choose, nil)
    } else if SSL_CTX_set_alpn_protos(context, protocols, UInt32(protocols.count)) != 0 {
      throw .last("TLS")
    }
  }

  private static func believe(_ context: OpaquePointer, _ files: TLSFiles, _ use: Use) throws(TLSError) {
    guard !files.authority.isEmpty else {
      guard !use.isBetweenNodes else { throw TLSError("nodes need the cluster's CA, \"ca\"") }
      if !use.isServer { SSL_CTX_set_default_verify_paths(context) }
      SSL_CTX_set_verify(context, use.isServer ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, nil)
      return
    }
    guard SSL_CTX_load_verify_locations(context, files.authority, nil) == 1 else {
      throw .last("\(files.authority): cannot be read as CA certificates")
    }
    guard use != .publicServer else { return }
    // The chain ends at what is in the file, be it a root or not: it is ours.
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT) { ok, store in
      guard ok == 1, X509_STORE_CTX_get_error_depth(store) == 0, let ssl = copenssl_store_ssl(store),
        let session = copenssl_app_data(ssl)
      else { return ok }
      return Unmanaged<TLSSession>.fromOpaque(session).takeUnretainedValue().admits(
        X509_STORE_CTX_get_current_cert(store), store)
    }
  }

  private static func identify(
    _ context: OpaquePointer, _ files: TLSFiles, _ use: Use
  ) throws(TLSError) -> Int? {
    guard !files.certificate.isEmpty else {
      guard use == .publicClient else { throw TLSError("a \"certificate\" and its \"key\" are needed") }
      return nil
    }
    guard SSL_CTX_use_certificate_chain_file(context, files.certificate) == 1 else {
      throw .last("\(files.certificate): cannot be read as a certificate")
    }
    try KeyFile.check(files.key)
    guard SSL_CTX_use_PrivateKey_file(context, files.key, SSL_FILETYPE_PEM) == 1 else {
      throw .last("\(files.key): cannot be read as the key of \(files.certificate)")
    }
    guard SSL_CTX_check_private_key(context) == 1 else {
      throw .last("\(files.key): is not the key of \(files.certificate)")
    }
    var time = tm()
    guard let own = SSL_CTX_get0_certificate(context), ASN1_TIME_to_tm(X509_get0_notAfter(own), &time) == 1 else {
      throw .last("\(files.certificate): no date of expiry")
    }
    return timegm(&time)
  }
}

/// A private key must be ours alone.
enum KeyFile {
  static func check(_ path: String) throws(TLSError) {
    var status = stat()
    guard stat(path, &status) == 0 else {
      throw TLSError("\(path): cannot be read: \(String(cString: strerror(errno)))")
    }
    // As PostgreSQL has it: the owner alone, or root's with a group that may read.
    let forbidden: mode_t = status.st_uid == 0 ? 0o037 : 0o077
    guard status.st_mode & forbidden == 0 else {
      throw TLSError(
        "\(path): a private key that others can read (mode \(String(status.st_mode & 0o777, radix: 8))); chmod 600 it")
    }
  }
}

/// The server's favourite among what the client offers. What is chosen lies in the client's list, which outlives the
/// call.
private let choose: SSL_CTX_alpn_select_cb_func = { ssl, chosen, length, offered, offeredBytes, _ in
  guard let session = copenssl_app_data(ssl) else { return SSL_TLSEXT_ERR_ALERT_FATAL }
  let ours = Unmanaged<TLSSession>.fromOpaque(session).takeUnretainedValue().use.protocols
  let offered = UnsafeBufferPointer(start: offered, count: Int(offeredBytes))
  var start = 0
  while start < ours.count {
    let name = ours[start...(start + Int(ours[start]))]
    var place = 0
    while place < offered.count, place + 1 + Int(offered[place]) <= offered.count {
      let end = place + 1 + Int(offered[place])
      if offered[place..<end].elementsEqual(name) {
        chosen?.pointee = offered.baseAddress! + place + 1
        length?.pointee = offered[place]
        return SSL_TLSEXT_ERR_OK
      }
      place = end
    }
    start += name.count
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL
}
