import ChaosEngine
import Terminal

extension Command {
  /// Everything `shortlist` can do, in the order in which a newcomer needs it.
  package static let root = Command(
    name: "shortlist",
    summary: "A sharded ranking cluster: the best k items, of millions, for this customer, now",
    example: "shortlist cluster up --store store --model home",
    commands: [
      .ingest, .train, .evaluate, .bundle, .oracle, .cluster, .recommend, .rank, .similar, .load, .demoRound,
      .rollout, .models, .figures, .chaos, .coordinator, .worker, .simulate, .predict, .bench, .certs, .token,
    ])
}
