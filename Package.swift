// swift-tools-version: 6.2
import PackageDescription

// The house: imports point down this list only, and `Tests/HouseTests` fails when one does not.
// Pure targets (RankingCore … Nodes) use the standard library alone.

let warnings: [SwiftSetting] = [.enableUpcomingFeature("ExistentialAny")]

let package = Package(
  name: "shortlist",
  products: [.executable(name: "shortlist", targets: ["shortlist"])],
  targets: [
    .systemLibrary(name: "CLinux"),
    .systemLibrary(name: "CNGHTTP2", pkgConfig: "libnghttp2", providers: [.apt(["libnghttp2-dev"])]),
    .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
    .target(name: "CScoring", cSettings: [.unsafeFlags(["-O3"])]),

    .target(name: "RankingCore", swiftSettings: warnings),
    .target(name: "Wire", dependencies: ["RankingCore"], exclude: ["Proto"], swiftSettings: warnings),
    .target(name: "Membership", dependencies: ["RankingCore"], swiftSettings: warnings),
    .target(name: "Routing", dependencies: ["RankingCore", "Membership"], swiftSettings: warnings),
    .target(name: "Nodes", dependencies: ["RankingCore", "Membership", "Routing"], swiftSettings: warnings),

    .target(
      name: "Simulator", dependencies: ["RankingCore", "Wire", "Membership", "Routing", "Nodes"],
      swiftSettings: warnings + [.unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release))]),

    .target(name: "Scoring", dependencies: ["CScoring", "RankingCore"], swiftSettings: warnings),
    .target(
      name: "Bundles", dependencies: ["CLinux", "COpenSSL", "RankingCore", "Scoring"], swiftSettings: warnings),
    .target(name: "Oracle", dependencies: ["RankingCore", "Wire", "Bundles"], swiftSettings: warnings),
    .target(
      name: "Training", dependencies: ["CScoring", "RankingCore", "Scoring", "Bundles"], swiftSettings: warnings),
    .target(name: "HTTP2", dependencies: ["CNGHTTP2"], swiftSettings: warnings),
    .target(name: "Transport", dependencies: ["CLinux", "RankingCore", "HTTP2"], swiftSettings: warnings),
    .target(
      name: "Servers",
      dependencies: ["CLinux", "RankingCore", "Wire", "Nodes", "Scoring", "Bundles", "HTTP2", "Transport"],
      swiftSettings: warnings),
    .target(name: "CSpawn", path: "Cluster/Spawn"),
    .target(name: "ClusterHarness", dependencies: ["CSpawn"], path: "Cluster/Harness", swiftSettings: warnings),
    .executableTarget(
      name: "shortlist",
      dependencies: [
        "RankingCore", "Wire", "Bundles", "Oracle", "Training", "HTTP2", "Transport", "Servers", "Simulator",
        "ClusterHarness",
      ],
      swiftSettings: warnings),

    .testTarget(name: "HouseTests", swiftSettings: warnings),
    .testTarget(name: "RankingCoreTests", dependencies: ["RankingCore"], swiftSettings: warnings),
    .testTarget(name: "WireTests", dependencies: ["RankingCore", "Wire"], swiftSettings: warnings),
    .testTarget(
      name: "NodesTests", dependencies: ["RankingCore", "Membership", "Routing", "Nodes"], swiftSettings: warnings),
    .testTarget(
      name: "SimulatorTests", dependencies: ["RankingCore", "Routing", "Simulator"], swiftSettings: warnings),
    .testTarget(name: "ScoringTests", dependencies: ["CScoring", "RankingCore", "Scoring"], swiftSettings: warnings),
    .testTarget(
      name: "BundlesTests", dependencies: ["RankingCore", "Scoring", "Bundles", "Oracle", "Wire"],
      swiftSettings: warnings),
    .testTarget(name: "TrainingTests", dependencies: ["Bundles", "Training"], swiftSettings: warnings),
    .testTarget(
      name: "TransportTests", dependencies: ["CLinux", "RankingCore", "HTTP2", "Transport"], swiftSettings: warnings),
    .testTarget(name: "HarnessTests", dependencies: ["ClusterHarness"], swiftSettings: warnings),
    .testTarget(name: "CommandTests", dependencies: ["ClusterHarness", "shortlist"], swiftSettings: warnings),
    .testTarget(
      name: "ClusterTests",
      dependencies: ["RankingCore", "Wire", "Bundles", "Oracle", "Transport", "ClusterHarness", "shortlist"],
      swiftSettings: warnings),
  ],
  swiftLanguageModes: [.v6]
)
