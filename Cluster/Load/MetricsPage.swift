import ClusterHarness
import Terminal

/// A coordinator's `/metrics`, added up over everything but the labels that are asked for.
package struct MetricsPage {
  private var lines: [(name: Substring, labels: Substring, value: Double)] = []

  package init(_ cluster: LocalCluster) throws { try self.init(cluster.url) }

  /// - Parameter url: of the coordinator.
  package init(_ url: String, limit: Duration = .seconds(5)) throws {
    var http = PlainHTTP(try ServerURL(url), limit: limit)
    let text = try http.get("/metrics").text
    for line in text.split(separator: "\n") where !line.hasPrefix("#") {
      guard let space = line.lastIndex(of: " "), let value = Double(line[line.index(after: space)...]) else { continue }
      let key = line[..<space]
      let name = key.prefix { $0 != "{" }
      lines.append((name, key.dropFirst(name.count), value))
    }
  }

  /// - Parameter label: like `kind="hedge"`; empty = all.
  package func sum(_ name: String, _ label: String = "") -> Double {
    lines.reduce(0) { $0 + ($1.name == name && (label.isEmpty || $1.labels.contains(label)) ? $1.value : 0) }
  }
}
