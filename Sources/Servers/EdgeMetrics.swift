import HTTP2
import Transport

/// What a listening port counts.
enum EdgeMetrics {
  static func write(_ ports: [(name: StaticString, server: HTTPServer)], into text: inout MetricsText) {
    func family(_ name: String, _ type: String, _ help: String, _ value: (HTTPServer) -> UInt64) {
      text.family(name, type, help)
      for port in ports { text.line(name, "port=\"\(port.name)\"", "\(value(port.server))") }
    }
    family("shortlist_connections", "gauge", "Open connections.") { UInt64($0.openConnections) }
    family("shortlist_connections_total", "counter", "Connections accepted.", \.counters.accepted)
    family(
      "shortlist_connections_refused_total", "counter", "Connections closed at once.", \.counters.refusedConnections)
    family("shortlist_tls_refused_total", "counter", "Peers that TLS kept out.", \.counters.refusedByTLS)
    family("shortlist_http_requests_total", "counter", "HTTP requests of any kind.", \.counters.requests)
    family("shortlist_http_cancelled_total", "counter", "Requests that were taken back.", \.counters.cancelled)
    family("shortlist_received_bytes_total", "counter", "Bytes read from sockets.", \.counters.receivedBytes)
    family("shortlist_sent_bytes_total", "counter", "Bytes written to sockets.", \.counters.sentBytes)
    text.family("shortlist_http_limits_hit_total", "counter", "Times that a peer ran into a limit.")
    for port in ports {
      for (limit, count) in zip(HTTPLimit.allCases, port.server.counters.limitsHit) {
        text.line("shortlist_http_limits_hit_total", "port=\"\(port.name)\",limit=\"\(limit.rawValue)\"", "\(count)")
      }
    }
  }
}
