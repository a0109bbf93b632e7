import Wire

// What the store keeps in etcd, and the transactions that it makes of it:
//
//     PREFIX/state                     the document; its mod revision is the revision, its version the sequence
//     PREFIX/history/0000000000000007  one line per commit
//     PREFIX/driver                    who drives: the name, on that coordinator's lease

struct EtcdKeys {
  let prefix: String
  let state: [UInt8]
  let driver: [UInt8]

  init(prefix: String) {
    self.prefix = prefix
    state = Array("\(prefix)/state".utf8)
    driver = Array("\(prefix)/driver".utf8)
  }
  func history(_ sequence: UInt64) -> [UInt8] { Array("\(prefix)/history/".utf8) + hex(sequence) }

  static func stored(_ value: Etcd.KeyValue?) -> StoredState {
    value.map { StoredState(revision: $0.modRevision, sequence: $0.version, bytes: $0.value) } ?? StoredState()
  }
  static func driver(_ value: Etcd.KeyValue?) -> DriverKey? {
    value.map {
      DriverKey(lease: $0.lease, createRevision: $0.createRevision, name: String(decoding: $0.value, as: UTF8.self))
    }
  }

  /// State and driver as of one revision; two ranges in reply.
  var readBoth: Etcd.Transaction {
    Etcd.Transaction(success: [.range(Etcd.Range(key: state)), .range(Etcd.Range(key: driver))])
  }

  /// Drives unless somebody does; else one range in reply: who.
  func take(name: String, lease: UInt64) -> Etcd.Transaction {
    Etcd.Transaction(
      compare: [.created(key: driver, 0)], success: [.put(key: driver, value: Array(name.utf8), lease: lease)],
      failure: [.range(Etcd.Range(key: driver))])
  }

  func readHistory(from sequence: UInt64, limit: Int) -> Etcd.Range {
    Etcd.Range(key: history(sequence), end: Array("\(prefix)/history0".utf8), limit: limit)
  }

  // MARK: Commits

  struct Commit {
    var expecting: UInt64
    var state: [UInt8]
    var line: HistoryLine
    var authority: CommitAuthority
  }

  /// All of it or nothing; else three ranges in reply: state, line and driver. May be made again: it goes in once.
  func transaction(_ commit: Commit) -> Etcd.Transaction {
    let line = history(commit.line.sequence)
    var transaction = Etcd.Transaction(
      compare: [.modified(key: state, commit.expecting), .created(key: line, 0)],
      success: [
        .put(key: state, value: commit.state, lease: 0), .put(key: line, value: commit.line.bytes, lease: 0),
      ],
      failure: [.range(Etcd.Range(key: state)), .range(Etcd.Range(key: line)), .range(Etcd.Range(key: driver))])
    if case .driver(let epoch) = commit.authority { transaction.compare.append(.created(key: driver, epoch)) }
    return transaction
  }

  /// What comparisons that failed say about a commit: the three keys as they are.
  func outcome(of commit: Commit, state: StoredState, line: Etcd.KeyValue?, driver: DriverKey?) -> CommitOutcome {
    if let line, let kept = HistoryLine(line.value[...]), kept.id == commit.line.id {
      return .committed(revision: line.modRevision)
    }
    guard state.revision == commit.expecting else { return .conflict(current: state) }
    if case .driver(let epoch) = commit.authority, epoch != driver?.createRevision { return .notDriving }
    let key = String(decoding: history(commit.line.sequence), as: UTF8.self)
    return .unavailable(why: "\(key) is there already, although \(prefix)/state has not got so far")
  }
}
