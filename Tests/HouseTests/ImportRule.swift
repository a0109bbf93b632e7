// Who may import whom. The table reads from the ground up: a target imports only what stands above it here.

struct ImportRule {
  enum Kind { case system, pure, compute, files, sansIO, edge, tool }
  struct Target {
    var folder: String
    var kind: Kind
    var imports: [String]
    var name: String {
      switch folder {
      case "Cluster/Spawn": "CSpawn"
      case "Cluster/Harness": "ClusterHarness"
      case "Cluster/Load": "ClusterLoad"
      case "Chaos/Engine": "ChaosEngine"
      case "Chaos/Command": "chaos"
      default: String(folder.split(separator: "/")[1])
      }
    }
  }

  static let house: [Target] = [
    Target(folder: "Sources/CLinux", kind: .system, imports: []),
    Target(folder: "Sources/CNGHTTP2", kind: .system, imports: []),
    Target(folder: "Sources/COpenSSL", kind: .system, imports: []),
    Target(folder: "Sources/CScoring", kind: .system, imports: []),
    Target(folder: "Cluster/Spawn", kind: .system, imports: []),
    Target(folder: "Sources/RankingCore", kind: .pure, imports: []),
    Target(folder: "Sources/Wire", kind: .pure, imports: ["RankingCore"]),
    Target(folder: "Sources/Membership", kind: .pure, imports: ["RankingCore"]),
    Target(folder: "Sources/Routing", kind: .pure, imports: ["RankingCore", "Membership"]),
    Target(folder: "Sources/Rollout", kind: .pure, imports: ["RankingCore", "Wire", "Membership"]),
    Target(folder: "Sources/Nodes", kind: .pure, imports: ["RankingCore", "Membership", "Routing", "Rollout"]),
    Target(folder: "Sources/Scoring", kind: .compute, imports: ["CScoring", "RankingCore"]),
    Target(
      folder: "Sources/Bundles", kind: .files, imports: ["CLinux", "COpenSSL", "RankingCore", "Scoring"]),
    // The oracle is what the rest is compared with: it shares neither kernels nor nodes with it.
    Target(folder: "Sources/Oracle", kind: .files, imports: ["RankingCore", "Wire", "Bundles"]),
    Target(folder: "Sources/Training", kind: .files, imports: ["CScoring", "RankingCore", "Scoring", "Bundles"]),
    Target(folder: "Sources/HTTP2", kind: .sansIO, imports: ["CNGHTTP2", "COpenSSL"]),
    Target(folder: "Sources/Transport", kind: .edge, imports: ["CLinux", "RankingCore", "HTTP2"]),
    Target(
      folder: "Sources/Agreement", kind: .edge, imports: ["CLinux", "RankingCore", "Wire", "HTTP2", "Transport"]),
    Target(
      folder: "Sources/Servers", kind: .edge,
      imports: [
        "CLinux", "RankingCore", "Wire", "Membership", "Routing", "Rollout", "Nodes", "Scoring", "Bundles", "HTTP2",
        "Transport", "Agreement",
      ]),
    Target(
      folder: "Sources/Benchmarks", kind: .compute,
      imports: ["CScoring", "RankingCore", "Wire", "Scoring", "HTTP2", "Transport", "Servers"]),
    Target(
      folder: "Sources/Simulator", kind: .pure,
      imports: ["RankingCore", "Wire", "Membership", "Routing", "Rollout", "Nodes"]),
    Target(folder: "Cluster/Harness", kind: .tool, imports: ["CSpawn", "HTTP2"]),
    Target(folder: "Sources/Terminal", kind: .tool, imports: ["Bundles"]),
    Target(
      folder: "Cluster/Load", kind: .tool,
      imports: ["RankingCore", "Wire", "Bundles", "Oracle", "HTTP2", "Transport", "ClusterHarness", "Terminal"]),
    Target(
      folder: "Chaos/Engine", kind: .tool,
      imports: ["CLinux", "RankingCore", "Bundles", "HTTP2", "Servers", "ClusterHarness", "Terminal", "ClusterLoad"]),
    Target(
      folder: "Sources/Commands", kind: .tool,
      imports: [
        "RankingCore", "Wire", "Scoring", "Bundles", "Oracle", "Training", "HTTP2", "Transport", "Servers", "Simulator",
        "ClusterHarness", "Benchmarks", "Terminal", "ClusterLoad", "ChaosEngine",
      ]),
    Target(folder: "Sources/shortlist", kind: .tool, imports: ["Terminal", "Commands"]),
    Target(folder: "Chaos/Command", kind: .tool, imports: ["Terminal", "Commands", "ChaosEngine"]),
  ]

  /// What of the system a kind of target may import.
  static func system(_ kind: Kind) -> [String] {
    switch kind {
    case .system, .pure: []
    case .sansIO: ["Glibc"]
    case .compute: ["Glibc", "Synchronization", "Dispatch"]
    case .files, .edge, .tool: ["Glibc", "Synchronization", "Dispatch", "Foundation"]
    }
  }

  /// The module a line imports, whatever stands before `import` and between it and the name.
  static func module(importedBy line: Substring) -> String? {
    var words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })[...]
    let before = ["public", "package", "internal", "private", "fileprivate"]
    while let word = words.first, word.hasPrefix("@") || before.contains(String(word)) { words.removeFirst() }
    guard words.popFirst() == "import" else { return nil }
    let kinds = ["struct", "class", "enum", "protocol", "func", "var", "let", "typealias"]
    if let word = words.first, kinds.contains(String(word)) { words.removeFirst() }
    return words.first?.split(separator: ".").first.map(String.init)
  }

  static func violations(in files: [SourceFile], house: [Target] = house) -> [Violation] {
    files.filter(\.isSwift).flatMap { file -> [Violation] in
      guard ["Sources/", "Cluster/", "Chaos/"].contains(where: file.path.hasPrefix) else { return [] }
      guard let target = house.first(where: { file.path.hasPrefix($0.folder + "/") }) else {
        return [Violation(path: file.path, line: 1, reason: "is in no target of the house; add it to ImportRule.house")]
      }
      let allowed = target.imports + system(target.kind) + ["Swift"]
      return file.lines.enumerated().compactMap { index, line in
        guard let module = module(importedBy: line), !allowed.contains(module) else { return nil }
        return Violation(
          path: file.path, line: index + 1,
          reason: "\(target.name) may not import \(module); it may import \(allowed.joined(separator: ", "))")
      }
    }
  }
}
