/// Bugs that can be switched on in the pure code, so that a test can show that the simulator finds them. Nothing
/// outside the simulator's own tests ever sets one.
public struct PlantedFaults: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// A shard that two legs answered is counted twice.
  public static let coverageCountedTwice = PlantedFaults(rawValue: 1 << 0)
  /// A retry asks for whatever version serves at that moment.
  public static let versionNotPinnedOnRetry = PlantedFaults(rawValue: 1 << 1)
  /// Hedges are sent whether or not there is a token for them.
  public static let hedgeWithoutBudget = PlantedFaults(rawValue: 1 << 2)
  /// An ejected replica is left out even when it is the only one of its shard.
  public static let lastReplicaEjected = PlantedFaults(rawValue: 1 << 3)
  /// A reply to a leg that was given up is merged into whatever request has its slot now.
  public static let lateReplyMerged = PlantedFaults(rawValue: 1 << 4)
  /// Once the retry budget has been empty, it stays empty.
  public static let budgetNotRefilledAfterHeal = PlantedFaults(rawValue: 1 << 5)

  /// By the names they have here.
  public static let named: [(name: String, fault: PlantedFaults)] = [
    ("coverageCountedTwice", .coverageCountedTwice), ("versionNotPinnedOnRetry", .versionNotPinnedOnRetry),
    ("hedgeWithoutBudget", .hedgeWithoutBudget), ("lastReplicaEjected", .lastReplicaEjected),
    ("lateReplyMerged", .lateReplyMerged), ("budgetNotRefilledAfterHeal", .budgetNotRefilledAfterHeal),
  ]
}
