// What can be done to a cluster, one word each. A fault knows whom it strikes and what it takes away while it lasts;
// what it does to the machine is the injector's affair.
//
//   processes   kill terminate freeze restarts squeeze memory clock swap
//   files       flip truncate disk_full sync_fails sync_slow
//   links       delay stall drip slice cut cut_out cut_in half_open reset loss split
//   agreement   etcd_kill etcd_freeze etcd_cut
//   versions    rollout abort poison

/// One kind of trouble.
enum FaultKind: String, Codable, CaseIterable, Sendable {
  /// SIGKILL; started again when it is over.
  case kill
  /// SIGTERM; started again when it has ended and the time is over.
  case terminate
  /// SIGSTOP, then SIGCONT.
  case freeze
  /// Killed and started, again and again, before it can be of use.
  case restarts
  /// A share of one core is all it gets (cgroup; else stopped and continued by turns).
  case squeeze
  /// Its memory is limited to below what it holds: the kernel kills it (cgroup).
  case memory
  /// Its wall clock jumps by `seconds`.
  case clock
  /// It comes back with another bundle under the same name.
  case swap
  /// It is restarted while one bit of a slice on its disk is wrong.
  case flip
  /// It is restarted while a slice on its disk has lost its end.
  case truncate
  /// Nothing can be written where the agreed document is kept.
  case diskFull = "disk_full"
  /// fsync fails there, or takes `ms`.
  case syncFails = "sync_fails"
  case syncSlow = "sync_slow"
  /// Bytes arrive `ms` ± `jitter_ms` later.
  case delay
  /// A share `loss` of what is sent waits `ms` for its retransmission, and all behind it.
  case stall
  /// `bytes_per_s` and no more.
  case drip
  /// In pieces of at most `bytes`, `gap_ms` apart.
  case slice
  /// Nothing passes: both ways, only away from the coordinator, only towards it.
  case cut
  case cutOut = "cut_out"
  case cutIn = "cut_in"
  /// The worker's end is gone, the coordinator's is not told.
  case halfOpen = "half_open"
  /// RST on every connection, again and again.
  case reset
  /// A share `loss` of the packets is dropped (network namespaces).
  case loss
  /// Every coordinator loses another half of the workers.
  case split
  case etcdKill = "etcd_kill"
  case etcdFreeze = "etcd_freeze"
  /// A coordinator does not reach etcd.
  case etcdCut = "etcd_cut"
  /// The other version is rolled out to its end; aborted on its way; a version whose items are mixed up is rolled out,
  /// which its guards must stop.
  case rollout
  case abort
  case poison

  /// What a fault strikes.
  enum Subject: String, Codable, Sendable {
    case worker
    /// Two workers at once, those with most shards in common.
    case pair
    case coordinator
    /// The links from all coordinators to one worker.
    case link
    /// The link from one coordinator to one worker.
    case oneLink = "one_link"
    case etcd
    case cluster
  }

  /// Whom it can strike; the first is the usual one.
  var subjects: [Subject] {
    switch self {
    case .kill, .freeze: [.worker, .pair, .coordinator]
    case .terminate, .clock, .squeeze: [.worker, .coordinator]
    case .restarts, .memory, .swap, .flip, .truncate: [.worker]
    case .diskFull, .syncFails, .syncSlow: [.coordinator]
    case .delay, .stall, .drip, .slice, .cut, .cutOut, .cutIn, .halfOpen, .reset, .loss: [.link, .oneLink]
    case .etcdKill, .etcdFreeze: [.etcd]
    case .etcdCut: [.coordinator]
    case .rollout, .abort, .poison, .split: [.cluster]
    }
  }

  /// Whether those it strikes may be of no use while it lasts and until they are back. Requests must not feel the
  /// others, but for the time they take.
  var takesAway: Bool {
    switch self {
    case .kill, .terminate, .freeze, .restarts, .memory, .swap, .flip, .truncate, .cut, .cutOut, .cutIn, .halfOpen,
      .reset, .split:
      true
    case .squeeze, .clock, .diskFull, .syncFails, .syncSlow, .delay, .stall, .drip, .slice, .loss, .etcdKill,
      .etcdFreeze, .etcdCut, .rollout, .abort, .poison:
      false
    }
  }

  /// Whether a replica that it strikes is not a healthy one in reach: where all replicas of a shard are struck by such
  /// faults at once, answers need not be complete.
  var spoils: Bool {
    switch self {
    case .squeeze, .delay, .stall, .drip, .slice, .loss: true
    default: takesAway
    }
  }

  /// Its numbers, each with its usual value.
  var parameters: [String: Double] {
    switch self {
    case .squeeze: ["share": 0.02]
    case .memory: ["share": 0.5]
    case .clock: ["seconds": -7200]
    case .syncSlow: ["ms": 400]
    case .delay: ["ms": 50, "jitter_ms": 20]
    case .stall: ["loss": 0.05, "ms": 200]
    case .drip: ["bytes_per_s": 20_000]
    case .slice: ["bytes": 32, "gap_ms": 1]
    case .loss: ["loss": 0.05]
    default: [:]
    }
  }
}
