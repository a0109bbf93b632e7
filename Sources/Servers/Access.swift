import Bundles
import Foundation
import HTTP2
import RankingCore

// Who may ask what, by bearer tokens. The file holds what tokens hash to, so that reading it opens no door:
//
//     # name   scopes           SHA-256 of the token
//     shop     rank             9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//     grafana  metrics          60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
//
// `shortlist token` makes a token and its line. SIGHUP reads the file again. Without a file everything is open; with
// one, whoever brings no token is told nothing but health.

public struct AccessScope: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// To ask for rankings, and which models there are.
  public static let rank = AccessScope(rawValue: 1)
  public static let metrics = AccessScope(rawValue: 2)
  /// To look at the cluster and steer rollouts, on the admin port.
  public static let admin = AccessScope(rawValue: 4)

  public static let named: [(name: String, scope: AccessScope)] = [
    ("rank", .rank), ("metrics", .metrics), ("admin", .admin),
  ]
  public init?(_ names: String) {
    self = []
    for name in names.split(separator: ",", omittingEmptySubsequences: false) {
      guard let known = Self.named.first(where: { $0.name == name }) else { return nil }
      insert(known.scope)
    }
  }
  var names: String { Self.named.filter { contains($0.scope) }.map(\.name).joined(separator: ",") }
}

/// What a tokens file says.
public struct AccessTokens: Sendable {
  struct Entry: Sendable {
    var name: String
    var scopes: AccessScope
    /// 32 bytes.
    var digest: [UInt8]
  }
  let entries: [Entry]
  public static let countMax = 1000
  public static let tokenBytesMax = 512

  /// - Throws: what is wrong in which line.
  public init(file: String) throws(ConfigurationError) {
    guard let data = FileManager.default.contents(atPath: file), let text = String(data: data, encoding: .utf8) else {
      throw ConfigurationError("\(file): cannot be read as text")
    }
    var entries: [Entry] = []
    for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == "\r" })
      guard let first = words.first, !first.hasPrefix("#") else { continue }
      let place = "\(file):\(number + 1)"
      guard words.count == 3 else {
        throw ConfigurationError("\(place): a line is a name, scopes and the SHA-256 of the token")
      }
      guard let scopes = AccessScope(String(words[1])) else {
        let allowed = AccessScope.named.map(\.name).joined(separator: ", ")
        throw ConfigurationError("\(place): \"\(words[1])\" are no scopes; allowed, with commas between: \(allowed)")
      }
      guard let digest = Self.bytes(hex: words[2]) else {
        throw ConfigurationError("\(place): \"\(words[2].prefix(80))\" is no SHA-256: 64 hexadecimal digits")
      }
      entries.append(Entry(name: String(words[0]), scopes: scopes, digest: digest))
    }
    guard entries.count <= Self.countMax else {
      throw ConfigurationError("\(file): \(entries.count) tokens; allowed: \(Self.countMax)")
    }
    self.entries = entries
  }

  /// The line for a token.
  public static func line(name: String, scopes: AccessScope, token: String) -> String {
    "\(name) \(scopes.names) \(digest(Array(token.utf8)))"
  }

  private static func digest(_ token: [UInt8]) -> String { token.withUnsafeBytes { SHA256.of($0) } }

  private static func bytes(hex: Substring) -> [UInt8]? {
    let digits = Array(hex.utf8)
    guard digits.count == 64 else { return nil }
    var bytes: [UInt8] = []
    for place in stride(from: 0, to: 64, by: 2) {
      guard let high = Character(Unicode.Scalar(digits[place])).hexDigitValue,
        let low = Character(Unicode.Scalar(digits[place + 1])).hexDigitValue
      else { return nil }
      bytes.append(UInt8(high << 4 | low))
    }
    return bytes
  }

  /// Whom a token belongs to. Takes as long whatever the token is: all lines are compared to their end.
  func owner(of token: [UInt8]) -> Entry? {
    let digest = SHA256.bytes(of: token)
    guard digest.count == 32 else { return nil }
    var found: Int?
    for (place, entry) in entries.enumerated() {
      var difference: UInt8 = 0
      for index in 0..<32 { difference |= entry.digest[index] ^ digest[index] }
      if difference == 0 { found = place }
    }
    return found.map { entries[$0] }
  }
}

/// The door of a process. Of the loop's thread.
final class Access {
  private let file: String?
  private let name: String
  private var tokens: AccessTokens?
  private(set) var unauthenticated: UInt64 = 0
  private(set) var forbidden: UInt64 = 0

  init(file: String?, name: String) throws(ConfigurationError) {
    self.file = file
    self.name = name
    if let file { tokens = try AccessTokens(file: file) }
  }

  /// Reads the file again; one that cannot be used changes nothing.
  func reload() {
    guard let file else { return }
    do throws(ConfigurationError) {
      let fresh = try AccessTokens(file: file)
      tokens = fresh
      Log.line(name, "\(fresh.entries.count) tokens read again")
    } catch { Log.line(name, "the tokens stay as they are: \(error)") }
  }

  /// - Throws: `.unauthenticated` or `.permissionDenied`.
  func admit(_ stream: ServerStream, _ needed: AccessScope) throws(RankingError) {
    guard let tokens else { return }
    let scheme = "Bearer "
    guard let header = stream.headers["authorization"], header.utf8.count <= AccessTokens.tokenBytesMax,
      header.prefix(scheme.count).lowercased() == scheme.lowercased(),
      let owner = tokens.owner(of: Array(header.dropFirst(scheme.count).utf8))
    else {
      unauthenticated += 1
      throw RankingError(.unauthenticated, "a token is needed that is known here: authorization: Bearer …")
    }
    guard !owner.scopes.isDisjoint(with: needed) else {
      forbidden += 1
      throw RankingError(
        .permissionDenied, "the token of \"\(owner.name)\" is for \(owner.scopes.names), this takes \(needed.names)")
    }
  }

  func write(into text: inout MetricsText) {
    guard tokens != nil else { return }
    text.family("shortlist_access_refused_total", "counter", "Requests without a token that opens this, by reason.")
    text.line("shortlist_access_refused_total", "reason=\"unauthenticated\"", "\(unauthenticated)")
    text.line("shortlist_access_refused_total", "reason=\"permission_denied\"", "\(forbidden)")
  }
}
