import Foundation
import Servers
import Terminal

extension Command {
  static let token = Command(
    name: "token",
    summary: "Make a bearer token and the line that lets it in",
    discussion: """
      Prints the token, which nobody can read anywhere later, and the line for the file that a coordinator's "tokens"
      names: a name, what it opens, and the token's SHA-256. SIGHUP has the file read again.
      Scopes: rank (rankings and models), metrics (GET /metrics), admin (the admin port, where there is no TLS).
      """,
    example: "shortlist token --name shop --scopes rank",
    options: [
      .text("name", "NAME", "whose it is").required,
      .text("scopes", "A,B,…", "what it opens: rank, metrics, admin").required,
    ],
    run: { call in
      let name = call.text("name")
      guard (1...64).contains(name.utf8.count), !name.hasPrefix("#"),
        name.utf8.allSatisfy({ $0 > 32 && $0 < 127 })
      else { throw UsageError("--name: 1 to 64 characters without spaces, and not # first") }
      guard let scopes = AccessScope(call.text("scopes")) else {
        let allowed = AccessScope.named.map(\.name).joined(separator: ", ")
        throw UsageError("--scopes: \"\(call.text("scopes"))\" are none; allowed, with commas between: \(allowed)")
      }
      var random = SystemRandomNumberGenerator()
      let bytes = (0..<32).map { _ in UInt8.random(in: .min ... .max, using: &random) }
      let token = Data(bytes).base64EncodedString().replacingOccurrences(of: "+", with: "-")
        .replacingOccurrences(of: "/", with: "_").replacingOccurrences(of: "=", with: "")
      let line = AccessTokens.line(name: name, scopes: scopes, token: token)
      if call.json {
        try Console.printJSON(["token": token, "line": line])
      } else {
        Console.print("token  \(token)\nline   \(line)")
      }
      return 0
    })
}
