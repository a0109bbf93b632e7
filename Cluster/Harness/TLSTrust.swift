import HTTP2
import Synchronization

// Whom this program believes when it asks a server by https, and what it shows, certificates and tokens: said once for
// each server, by a flag of the command line or by whoever started the cluster.

public enum TLSTrust {
  private static let known = Mutex<[String: TLSFiles]>([:])

  /// From now on the server at `authority` ("host:port") is believed with these files.
  public static func set(_ files: TLSFiles, for authority: String) {
    known.withLock { $0[authority] = files }
  }
  public static func files(for server: ServerURL) -> TLSFiles? { known.withLock { $0[server.authority] } }

  /// From now on this bearer token is shown to the server.
  public static func set(token: String, for authority: String) { tokens.withLock { $0[authority] = token } }
  public static func token(for server: ServerURL) -> String? { tokens.withLock { $0[server.authority] } }
  private static let tokens = Mutex<[String: String]>([:])

  /// - Throws: when the files cannot be used. Without any, what the system believes counts.
  public static func context(for server: ServerURL) throws(TLSError) -> TLSContext {
    try TLSContext(files(for: server) ?? TLSFiles(), for: .publicClient)
  }
}
