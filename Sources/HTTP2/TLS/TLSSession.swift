import COpenSSL
import Glibc

// One TLS connection without a socket: bytes of the wire in, bytes of the application out, and the other way round.
// OpenSSL reads from what `receive` was given and appends what it wants to send to a buffer, both through a BIO of our
// own, so that no byte is copied on its way through it.
//
//     socket ─► receive(bytes) ─► SSL_read ─► what the peer said      (16 KiB a piece at most)
//     socket ◄─ output ◄────────── SSL_write ◄─ send(bytes)
//
//     handshaking ─► open ─► closed       the peer said that it has said everything
//          └───────────┴───► failed       with the reason, once

public final class TLSSession {
  public enum State: Sendable, Equatable {
    case handshaking, open, closed
    case failed(TLSError)
  }
  public private(set) var state = State.handshaking
  /// What the peer's certificate names; empty = it has none, or none was asked for.
  public private(set) var peerRoles: NodeRole = []
  private let context: TLSContext
  private let ssl: OpaquePointer
  let use: TLSContext.Use
  private var refusal: String?
  fileprivate var input = UnsafeRawBufferPointer(start: nil, count: 0)
  @exclusivity(unchecked) fileprivate var out: [UInt8] = []

  /// - Parameter host: of a client, whom its peer must be: a name, or an address.
  public init(_ context: TLSContext, host: String? = nil) throws(TLSError) {
    self.context = context
    use = context.use
    guard let ssl = SSL_new(context.context) else { throw .last("TLS") }
    self.ssl = ssl
    guard let bio = BIO_new(SessionBIO.method) else { throw .last("TLS") }
    BIO_set_data(bio, Unmanaged.passUnretained(self).toOpaque())
    BIO_set_init(bio, 1)
    SSL_set_bio(ssl, bio, bio)
    copenssl_set_app_data(ssl, Unmanaged.passUnretained(self).toOpaque())
    if use.isServer {
      SSL_set_accept_state(ssl)
    } else {
      SSL_set_connect_state(ssl)
      try expect(host ?? "")
    }
  }
  deinit { SSL_free(ssl) }

  private func expect(_ host: String) throws(TLSError) {
    if X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1 { return }
    ERR_clear_error()
    guard !host.isEmpty, SSL_set1_host(ssl, host) == 1, copenssl_set_server_name(ssl, host) == 1 else {
      throw .last("\"\(host)\" is no host that a certificate could name")
    }
  }

  /// A client speaks first; call once when the wire is there.
  public func start() { handshake() }

  /// Takes bytes from the wire, all of them.
  /// - Parameters:
  ///   - room: for what they say.
  ///   - plain: is given it piece by piece; may end the connection, after which nothing more is given.
  public func receive(
    _ bytes: UnsafeRawBufferPointer, room: UnsafeMutableRawBufferPointer, _ plain: (UnsafeRawBufferPointer) -> Void
  ) {
    input = bytes
    defer { input = UnsafeRawBufferPointer(start: nil, count: 0) }
    if state == .handshaking { handshake() }
    while state == .open {
      ERR_clear_error()
      var count = 0
      if SSL_read_ex(ssl, room.baseAddress, room.count, &count) == 1 {
        plain(UnsafeRawBufferPointer(rebasing: room[..<count]))
      } else {
        switch SSL_get_error(ssl, 0) {
        case SSL_ERROR_WANT_READ: return
        case SSL_ERROR_ZERO_RETURN: state = .closed
        default: fail()
        }
      }
    }
  }

  /// Appends application bytes as records to what is to be sent.
  public func send(_ bytes: [UInt8]) {
    bytes.withUnsafeBytes { raw in
      var sent = 0
      while state == .open, sent < raw.count {
        ERR_clear_error()
        var count = 0
        guard SSL_write_ex(ssl, raw.baseAddress! + sent, raw.count - sent, &count) == 1 else { return fail() }
        sent += count
      }
    }
  }

  /// Gives what is to be sent for an empty buffer.
  public func output(into buffer: inout [UInt8]) {
    if buffer.isEmpty { swap(&buffer, &out) } else { buffer += out }
    out.removeAll(keepingCapacity: true)
  }

  /// Says that nothing more will be said.
  public func close() {
    guard state == .open else { return }
    ERR_clear_error()
    SSL_shutdown(ssl)
    state = .closed
  }

  private func handshake() {
    guard state == .handshaking else { return }
    ERR_clear_error()
    let result = SSL_do_handshake(ssl)
    if result == 1 {
      state = !use.isHTTP2Only || speaksHTTP2 ? .open : .failed(TLSError("it does not offer h2 by ALPN"))
    } else if SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ {
      fail()
    }
  }

  private var speaksHTTP2: Bool {
    var name: UnsafePointer<UInt8>?
    var length: UInt32 = 0
    SSL_get0_alpn_selected(ssl, &name, &length)
    return UnsafeBufferPointer(start: name, count: Int(length)).elementsEqual("h2".utf8)
  }

  private func fail() {
    let reason = TLSError.lastReason()
    state = .failed(TLSError(refusal ?? Self.inWords(reason, SSL_get_verify_result(ssl))))
  }

  private static func inWords(_ reason: String?, _ verified: Int) -> String {
    if verified != Int(X509_V_OK) {
      return "its certificate is refused: \(String(cString: X509_verify_cert_error_string(verified)))"
    }
    switch reason {
    case "http request"?, "https proxy request"?, "wrong version number"?, "packet length too long"?,
      "unknown protocol"?:
      return "it does not speak TLS (\(reason ?? ""))"
    case "peer did not return a certificate"?: return "it shows no certificate"
    case let reason?: return reason
    case nil: return "the connection ended within a record"
    }
  }

  // MARK: Callbacks of OpenSSL

  /// Looks at the peer's own certificate, when its chain is in order.
  fileprivate func see(_ certificate: OpaquePointer?) -> NodeRole {
    guard let certificate,
      let names = X509_get_ext_d2i(certificate, NID_subject_alt_name, nil, nil).map({ OpaquePointer($0) })
    else { return [] }
    defer { GENERAL_NAMES_free(names) }
    var roles: NodeRole = []
    var length: Int32 = 0
    var index: Int32 = 0
    while let bytes = copenssl_uri(names, index, &length) {
      let uri = String(decoding: UnsafeBufferPointer(start: bytes, count: Int(length)), as: UTF8.self)
      for (name, role) in NodeRole.named where uri == NodeRole.uriPrefix + name { roles.insert(role) }
      index += 1
    }
    return roles
  }

  /// - Returns: 1 = it may go on.
  func admits(_ certificate: OpaquePointer?, _ store: OpaquePointer?) -> Int32 {
    guard let wanted = use.peerRoles else { return 1 }
    peerRoles = see(certificate)
    guard peerRoles.isDisjoint(with: wanted) else { return 1 }
    refusal = "its certificate names the role \(peerRoles), and here it takes \(wanted)"
    X509_STORE_CTX_set_error(store, Int32(X509_V_ERR_APPLICATION_VERIFICATION))
    return 0
  }
}

/// OpenSSL's way to a session's buffers.
private enum SessionBIO {
  nonisolated(unsafe) static let method: OpaquePointer? = {
    let method = BIO_meth_new(BIO_get_new_index() | Int32(BIO_TYPE_SOURCE_SINK), "shortlist")
    BIO_meth_set_read_ex(method) { bio, buffer, room, count in
      let session = SessionBIO.session(bio)
      let length = min(room, session.input.count)
      copenssl_clear_retry(bio)
      guard length > 0, let buffer else {
        copenssl_retry_read(bio)
        return 0
      }
      UnsafeMutableRawPointer(buffer).copyMemory(from: session.input.baseAddress!, byteCount: length)
      session.input = UnsafeRawBufferPointer(rebasing: session.input[length...])
      count?.pointee = length
      return 1
    }
    BIO_meth_set_write_ex(method) { bio, bytes, length, count in
      copenssl_clear_retry(bio)
      SessionBIO.session(bio).out.append(contentsOf: UnsafeRawBufferPointer(start: bytes, count: length))
      count?.pointee = length
      return 1
    }
    BIO_meth_set_ctrl(method) { _, command, _, _ in command == Int32(BIO_CTRL_FLUSH) ? 1 : 0 }
    return method
  }()

  private static func session(_ bio: OpaquePointer?) -> TLSSession {
    Unmanaged<TLSSession>.fromOpaque(BIO_get_data(bio)).takeUnretainedValue()
  }
}
