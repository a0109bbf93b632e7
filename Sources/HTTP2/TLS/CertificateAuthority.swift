import COpenSSL
import Glibc

// A CA for development and tests: it makes keys and certificates, by OpenSSL, on the NIST curve P-256. What faces the
// world gets its certificates elsewhere.

/// A certificate and its key, as PEM.
public struct CertifiedKey: Sendable {
  public var certificate: [UInt8]
  public var key: [UInt8]
  public init(certificate: [UInt8], key: [UInt8]) {
    self.certificate = certificate
    self.key = key
  }
}

/// What a certificate says.
public struct CertificateTerms: Sendable {
  /// Its common name, for people.
  public var name: String
  public var roles: NodeRole = []
  /// DNS names and IP addresses under which it is reached.
  public var hosts: [String] = []
  /// From then on, and until then, in seconds from now.
  public var validSeconds: ClosedRange<Int>
  public init(name: String, roles: NodeRole = [], hosts: [String] = [], validSeconds: ClosedRange<Int>) {
    self.name = name
    self.roles = roles
    self.hosts = hosts
    self.validSeconds = validSeconds
  }
}

public final class CertificateAuthority {
  private let certificate: OpaquePointer
  private let key: OpaquePointer
  public let pem: CertifiedKey

  /// Makes a new one.
  public init(name: String, validSeconds: ClosedRange<Int>) throws(TLSError) {
    let terms = CertificateTerms(name: name, validSeconds: validSeconds)
    key = try Self.newKey()
    do throws(TLSError) {
      certificate = try Self.certificate(terms, of: key, by: nil)
      pem = CertifiedKey(certificate: try Self.pem(certificate: certificate), key: try Self.pem(key: key))
    } catch {
      EVP_PKEY_free(key)
      throw error
    }
  }

  /// Takes up one that was made before.
  public init(_ pem: CertifiedKey) throws(TLSError) {
    func read(_ bytes: [UInt8], _ body: (OpaquePointer) -> OpaquePointer?) -> OpaquePointer? {
      guard let bio = BIO_new_mem_buf(bytes, Int32(bytes.count)) else { return nil }
      defer { BIO_free(bio) }
      return body(bio)
    }
    guard let certificate = read(pem.certificate, { PEM_read_bio_X509($0, nil, nil, nil) }) else {
      throw .last("not the certificate of a CA")
    }
    guard let key = read(pem.key, { PEM_read_bio_PrivateKey($0, nil, nil, nil) }) else {
      X509_free(certificate)
      throw .last("not the key of a CA")
    }
    self.certificate = certificate
    self.key = key
    self.pem = pem
    guard X509_check_private_key(certificate, key) == 1, X509_check_ca(certificate) == 1 else {
      throw TLSError("the CA's certificate and key do not belong together")
    }
  }

  deinit {
    X509_free(certificate)
    EVP_PKEY_free(key)
  }

  public func issue(_ terms: CertificateTerms) throws(TLSError) -> CertifiedKey {
    let own = try Self.newKey()
    defer { EVP_PKEY_free(own) }
    let made = try Self.certificate(terms, of: own, by: (certificate, key))
    defer { X509_free(made) }
    return CertifiedKey(certificate: try Self.pem(certificate: made), key: try Self.pem(key: own))
  }

  private static func newKey() throws(TLSError) -> OpaquePointer {
    guard let key = copenssl_new_p256_key() else { throw .last("no key could be made") }
    return key
  }

  private static func certificate(
    _ terms: CertificateTerms, of key: OpaquePointer, by issuer: (certificate: OpaquePointer, key: OpaquePointer)?
  ) throws(TLSError) -> OpaquePointer {
    guard let made = X509_new() else { throw .last("no certificate could be made") }
    do throws(TLSError) {
      try fill(made, terms, key, issuer)
      return made
    } catch {
      X509_free(made)
      throw error
    }
  }

  private static func fill(
    _ made: OpaquePointer, _ terms: CertificateTerms, _ key: OpaquePointer,
    _ issuer: (certificate: OpaquePointer, key: OpaquePointer)?
  ) throws(TLSError) {
    var serial = [UInt8](repeating: 0, count: 16)
    guard RAND_bytes(&serial, 16) == 1 else { throw .last("no random numbers") }
    serial[0] = serial[0] & 0x7F | 0x40
    let number = BN_bin2bn(serial, 16, nil)
    defer { BN_free(number) }
    let isCA = issuer == nil
    var extensions: [(Int32, String)] = [
      (NID_basic_constraints, isCA ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE"),
      (NID_key_usage, isCA ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature"),
      (NID_subject_key_identifier, "hash"),
    ]
    if !isCA {
      extensions.append((NID_authority_key_identifier, "keyid"))
      extensions.append((NID_ext_key_usage, "serverAuth,clientAuth"))
      let names = terms.roles.alternativeNames + (try terms.hosts.map(alternativeName))
      if !names.isEmpty { extensions.append((NID_subject_alt_name, names.joined(separator: ","))) }
    }
    let subject = X509_get_subject_name(made)
    guard X509_set_version(made, 2) == 1, BN_to_ASN1_INTEGER(number, X509_get_serialNumber(made)) != nil,
      X509_gmtime_adj(X509_getm_notBefore(made), terms.validSeconds.lowerBound) != nil,
      X509_gmtime_adj(X509_getm_notAfter(made), terms.validSeconds.upperBound) != nil,
      X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_UTF8, "Shortlist", -1, -1, 0) == 1,
      X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, terms.name, -1, -1, 0) == 1,
      X509_set_issuer_name(made, issuer.map { X509_get_subject_name($0.certificate) } ?? subject) == 1,
      X509_set_pubkey(made, key) == 1
    else { throw .last("no certificate for \"\(terms.name)\" could be made") }
    for (kind, value) in extensions
    where copenssl_add_extension(made, issuer?.certificate ?? made, kind, value) != 1 {
      throw .last("no certificate that says \"\(value)\" could be made")
    }
    guard X509_sign(made, issuer?.key ?? key, EVP_sha256()) > 0 else {
      throw .last("the certificate for \"\(terms.name)\" could not be signed")
    }
  }

  /// `DNS:` or `IP:`; what could be read as something else as well is refused.
  private static func alternativeName(_ host: String) throws(TLSError) -> String {
    guard !host.isEmpty, host.utf8.count <= 253,
      host.utf8.allSatisfy({
        (48...58).contains($0) || (97...122).contains($0 | 0x20) || $0 == 45 || $0 == 46 || $0 == 42
      })
    else { throw TLSError("\"\(host)\" is neither a DNS name nor an IP address") }
    if let address = a2i_IPADDRESS(host) {
      ASN1_OCTET_STRING_free(address)
      return "IP:\(host)"
    }
    ERR_clear_error()
    guard !host.contains(":") else { throw TLSError("\"\(host)\" is neither a DNS name nor an IP address") }
    return "DNS:\(host)"
  }

  private static func pem(certificate: OpaquePointer) throws(TLSError) -> [UInt8] {
    try text { PEM_write_bio_X509($0, certificate) }
  }
  private static func pem(key: OpaquePointer) throws(TLSError) -> [UInt8] {
    try text { PEM_write_bio_PKCS8PrivateKey($0, key, nil, nil, 0, nil, nil) }
  }
  private static func text(_ write: (OpaquePointer) -> Int32) throws(TLSError) -> [UInt8] {
    guard let bio = BIO_new(BIO_s_mem()) else { throw .last("no memory") }
    defer { BIO_free(bio) }
    guard write(bio) == 1 else { throw .last("not written") }
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = BIO_read(bio, &piece, Int32(piece.count))
      guard count > 0 else { return bytes }
      bytes += piece[..<Int(count)]
    }
  }
}
