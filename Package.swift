// swift-tools-version: 6.2
import PackageDescription

// The house: imports point down this list only, and `Tests/HouseTests` fails when one does not.
// Pure targets (RankingCore … Nodes) use the standard library alone.

// Overlapping accesses are looked for in debug builds, which all tests run; in a release build the checks would be a
// tenth of what a coordinator does.
//
// What is tested is optimised in debug builds, too: the tests simulate hours and score millions of rows, and take a
// third of the time so. Checks of arithmetic, bounds and exclusivity stay.
let testSettings: [SwiftSetting] = [.enableUpcomingFeature("ExistentialAny")]
let settings: [SwiftSetting] =
  testSettings + [
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
    .unsafeFlags(["-O"], .when(configuration: .debug)),
  ]

let package = Package(
  name: "shortlist",
  products: [
    .executable(name: "shortlist", targets: ["shortlist"]), .executable(name: "chaos", targets: ["chaos"]),
  ],
  targets: [
    .systemLibrary(name: "CLinux"),
    .systemLibrary(name: "CNGHTTP2", pkgConfig: "libnghttp2", providers: [.apt(["libnghttp2-dev"])]),
    .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
    .target(name: "CScoring", cSettings: [.unsafeFlags(["-O3"])]),

    .target(name: "RankingCore", swiftSettings: settings),
    .target(name: "Wire", dependencies: ["RankingCore"], exclude: ["Proto"], swiftSettings: settings),
    .target(name: "Membership", dependencies: ["RankingCore"], swiftSettings: settings),
    .target(name: "Routing", dependencies: ["RankingCore", "Membership"], swiftSettings: settings),
    .target(name: "Rollout", dependencies: ["RankingCore", "Wire", "Membership"], swiftSettings: settings),
    .target(
      name: "Nodes", dependencies: ["RankingCore", "Membership", "Routing", "Rollout"], swiftSettings: settings),

    .target(
      name: "Simulator", dependencies: ["RankingCore", "Wire", "Membership", "Routing", "Rollout", "Nodes"],
      swiftSettings: settings),

    .target(name: "Scoring", dependencies: ["CScoring", "RankingCore"], swiftSettings: settings),
    .target(
      name: "Bundles", dependencies: ["CLinux", "COpenSSL", "RankingCore", "Scoring"], swiftSettings: settings),
    .target(name: "Oracle", dependencies: ["RankingCore", "Wire", "Bundles"], swiftSettings: settings),
    .target(
      name: "Training", dependencies: ["CScoring", "RankingCore", "Scoring", "Bundles"], swiftSettings: settings),
    .target(name: "HTTP2", dependencies: ["CNGHTTP2", "COpenSSL"], swiftSettings: settings),
    .target(name: "Transport", dependencies: ["CLinux", "RankingCore", "HTTP2"], swiftSettings: settings),
    .target(
      name: "Agreement", dependencies: ["CLinux", "RankingCore", "Wire", "HTTP2", "Transport"],
      swiftSettings: settings),
    .target(
      name: "Servers",
      dependencies: [
        "CLinux", "RankingCore", "Wire", "Membership", "Routing", "Rollout", "Nodes", "Scoring", "Bundles", "HTTP2",
        "Transport", "Agreement",
      ],
      swiftSettings: settings),
    .target(
      name: "Benchmarks",
      dependencies: ["CScoring", "RankingCore", "Wire", "Scoring", "HTTP2", "Transport", "Servers"],
      swiftSettings: settings),
    .target(name: "CSpawn", path: "Cluster/Spawn"),
    .target(
      name: "ClusterHarness", dependencies: ["CSpawn", "HTTP2"], path: "Cluster/Harness", swiftSettings: settings),
    .target(name: "Terminal", dependencies: ["Bundles"], swiftSettings: settings),
    .target(
      name: "ClusterLoad",
      dependencies: ["RankingCore", "Wire", "Bundles", "Oracle", "HTTP2", "Transport", "ClusterHarness", "Terminal"],
      path: "Cluster/Load", swiftSettings: settings),
    .target(
      name: "ChaosEngine",
      dependencies: [
        "CLinux", "RankingCore", "Bundles", "HTTP2", "Servers", "ClusterHarness", "Terminal", "ClusterLoad",
      ],
      path: "Chaos/Engine", swiftSettings: settings),
    .target(
      name: "Commands",
      dependencies: [
        "RankingCore", "Wire", "Scoring", "Bundles", "Oracle", "Training", "HTTP2", "Transport", "Servers", "Simulator",
        "ClusterHarness", "Benchmarks", "Terminal", "ClusterLoad", "ChaosEngine",
      ],
      swiftSettings: settings),
    .executableTarget(name: "shortlist", dependencies: ["Terminal", "Commands"], swiftSettings: settings),
    .executableTarget(
      name: "chaos", dependencies: ["Terminal", "Commands", "ChaosEngine"], path: "Chaos/Command",
      swiftSettings: settings),

    .target(
      name: "FuzzBodies", dependencies: ["RankingCore", "Wire", "Rollout", "Bundles", "HTTP2"],
      path: "Tests/FuzzBodies",
      swiftSettings: settings),
    .testTarget(
      name: "FuzzTests", dependencies: ["RankingCore", "FuzzBodies"], exclude: ["Findings"],
      swiftSettings: testSettings),
    .testTarget(name: "HouseTests", swiftSettings: testSettings),
    .testTarget(name: "RankingCoreTests", dependencies: ["RankingCore"], swiftSettings: testSettings),
    .testTarget(name: "WireTests", dependencies: ["RankingCore", "Wire"], swiftSettings: testSettings),
    .testTarget(
      name: "RolloutTests", dependencies: ["RankingCore", "Wire", "Membership", "Rollout"], swiftSettings: testSettings),
    .testTarget(
      name: "NodesTests", dependencies: ["RankingCore", "Membership", "Routing", "Rollout", "Nodes"],
      swiftSettings: testSettings),
    .testTarget(
      name: "SimulatorTests", dependencies: ["RankingCore", "Routing", "Simulator"], swiftSettings: testSettings),
    .testTarget(
      name: "ScoringTests", dependencies: ["CScoring", "RankingCore", "Scoring"], swiftSettings: testSettings),
    .testTarget(
      name: "BundlesTests", dependencies: ["RankingCore", "Scoring", "Bundles", "Oracle", "Wire"],
      exclude: ["Fixtures"],
      swiftSettings: testSettings),
    .testTarget(name: "TrainingTests", dependencies: ["Bundles", "Training"], swiftSettings: testSettings),
    .testTarget(
      name: "TransportTests", dependencies: ["CLinux", "RankingCore", "HTTP2", "Transport", "ClusterHarness"],
      swiftSettings: testSettings),
    .testTarget(
      name: "AgreementTests",
      dependencies: ["RankingCore", "Wire", "HTTP2", "Transport", "Agreement", "ClusterHarness", "ChaosEngine"],
      swiftSettings: testSettings),
    .testTarget(name: "HarnessTests", dependencies: ["ClusterHarness"], swiftSettings: testSettings),
    .testTarget(
      name: "ChaosTests", dependencies: ["RankingCore", "ClusterHarness", "ClusterLoad", "ChaosEngine"],
      swiftSettings: testSettings),
    .testTarget(
      name: "CommandTests",
      dependencies: [
        "RankingCore", "Bundles", "Benchmarks", "ClusterHarness", "Terminal", "ClusterLoad", "ChaosEngine", "Commands",
        "shortlist",
      ],
      swiftSettings: testSettings),
    .testTarget(
      name: "ClusterTests",
      dependencies: [
        "RankingCore", "Wire", "Bundles", "Oracle", "HTTP2", "Transport", "Servers", "ClusterHarness", "Terminal",
        "ClusterLoad", "ChaosEngine", "Commands", "shortlist",
      ],
      swiftSettings: testSettings),
  ],
  swiftLanguageModes: [.v6]
)

// The fuzzer is no part of the normal build: Tests/fuzz asks for it.
if Context.environment["SHORTLIST_FUZZER"] != nil {
  package.targets.append(
    .executableTarget(
      name: "Fuzz", dependencies: ["FuzzBodies"], path: "Tests/Fuzz",
      swiftSettings: testSettings + [.unsafeFlags(["-parse-as-library"])],
      linkerSettings: [.unsafeFlags(["-use-ld=lld"])]))
}
