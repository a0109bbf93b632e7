// Rollout: from one version of a model to the next under live traffic, or back, and never both in one answer.
//
// What is wanted stands in one agreed document; what is there is observed; the policy compares the two and proposes
// the next document with one line of history, or nothing. It keeps no promises of its own: any coordinator may run it,
// at any time, after any crash, and what it wants is only true once the store has taken it (compare-and-swap on the
// revision).
//
//     people ──RolloutCommand──►┌──────────────────┐
//                               │ RolloutDocument  │◄─────┐ compare-and-swap: document and
//                               └────┬────────┬────┘      │ one HistoryEntry, both or neither
//                     LoadPlan ◄─────┤        ├─► RolloutPolicy.step ◄── Observed ◄── workers, traffic,
//              (who holds what)      │        │           ▲                            metrics
//                                    ▼        │     RolloutMemory (this driver's watch)
//                              TrafficSplit ◄─┘
//                           (who gets which version)
//
// The stages, and what each needs to end well; everything else ends in `rolling back`:
//
//     load ──► verify ──► warm ──► shadow ──► canary 1 % ─► 10 % ─► 50 % ─► 100 % ──► retire ──► done
//      │          │         │         │            │          │       │        │
//      └──────────┴─────────┴─────────┴────────────┴──────────┴───────┴────────┴──► rolling back ──► failed
//
//     load     every shard of the new version has its replicas          no progress for 60 s, broken, too big: back
//     verify   checksums and golden queries are right                   one wrong answer: back
//     warm     pages touched, warm-up replayed until its latency is flat
//     shadow   a share of real requests is scored by both, the new one's answers are compared and thrown away
//     canary   that share of the users is answered by the new version   a guard trips: back, at once
//     retire   the new version serves; the old one drains and is unloaded   (no way back: roll out the old one anew)
//     rolling back   traffic first (in the same document), memory later, when nothing is in flight
//
// A worked example: home from v41 to v42, 200 requests a second, defaults. Times since the start.
//
//       0:00  start by ada                         document: stage load
//       0:00  load beside                          1.2 GiB more on 4 workers, 3.0 GiB are free
//       0:41  load → verify                        32 of 32 replicas ready
//       0:43  verify → warm                        50 golden queries right on 4 workers
//       0:58  warm → shadow                        10 % of requests are scored twice: 20 a second
//       1:28  shadow → canary 1 %                  30 s and 600 pairs: overlap 0.71, nothing tripped
//       4:48  canary 1 % → 10 %                    60 s and 400 requests; at 2 a second those took 200 s
//       5:48  canary 10 % → 50 %                   60 s, 1200 requests; now 5 % of v42's answers begin to fail
//       5:51  canary 50 % → rolling back           error_rate: 5.3 % of 300 requests against 0.0 % of 300
//       5:51  every request gets v41 again         from the instant at which the document is agreed
//       5:53  rolling back: drained                nothing in flight on v42 for others to miss: it may be unloaded
//       5:54  rolling back → failed                no worker holds any of it
//
// Time: stages are timed by the driver's own monotonic clock from the instant at which *it* first saw the stage. A new
// driver starts the clock again: a takeover makes a rollout slower, never faster. Wall-clock milliseconds are written
// down for people and decide nothing.
//
// Deliberately absent: clocks, chance, I/O; a second rollout of the same model; a way to skip load, verify or warm; a
// stage in which requests could get a version that is not complete.

public enum RolloutStage: String, Sendable, CaseIterable {
  /// Exits: verify, rollingBack.
  case load
  /// Exits: warm, rollingBack.
  case verify
  /// Exits: shadow (canary when nothing is to be shadowed), rollingBack.
  case warm
  /// Exits: canary, rollingBack.
  case shadow
  /// Exits: canary with the next step, retire after the last, rollingBack.
  case canary
  /// Exits: done.
  case retire
  /// Exits: failed.
  case rollingBack = "rolling_back"

  /// Whether the rollout still moves towards the new version and may turn back.
  public var isForward: Bool { self != .retire && self != .rollingBack }
  /// Whether the new version has passed everything that does not need real traffic.
  public var isPublished: Bool { self == .shadow || self == .canary || self == .retire }
}

/// How the new version's memory is found.
public enum MemoryPlan: String, Sendable, CaseIterable {
  /// Not looked at yet: the sizes or the workers' room are not known.
  case undecided
  /// All replicas of both versions at once.
  case beside
  /// One replica of each shard per version: of the serving one at least one ready replica stays.
  case replicaByReplica = "replica_by_replica"
}
