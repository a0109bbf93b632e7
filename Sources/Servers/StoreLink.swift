import Agreement
import Nodes
import RankingCore
import Rollout
import Transport

// Between the store of the agreed document and the node: what the store tells becomes events, what the node wants
// committed goes to the store.
//
//     store ──.state──► .agreed      .driving/.notDriving ──► .driving(epoch)      .away/.back ──► .storeAway
//     node  ──.commit─► store.commit ──► .committed

/// Which store a coordinator uses.
public enum StateConfiguration: Sendable, Equatable {
  /// For one coordinator.
  case directory(String)
  /// For several.
  /// - Parameter prefix: the beginning of all keys, one per cluster.
  case etcd(endpoints: [EtcdEndpoint], prefix: String)
}

final class StoreLink {
  let store: any StateStore
  private let name: String

  init(_ configuration: StateConfiguration, name: String, loop: EventLoop, seed: UInt64) {
    self.name = name
    switch configuration {
    case .directory(let path): store = FileStateStore(directory: path, name: name, loop: loop)
    case .etcd(let endpoints, let prefix):
      store = EtcdStateStore(.init(endpoints: endpoints, prefix: prefix, name: name, seed: seed), loop: loop)
    }
  }

  func start(_ tell: @escaping (CoordinatorEvent) -> Void) {
    store.start { [unowned self] event in
      switch event {
      case .state(let state): tell(.agreed(revision: state.revision, document: state.bytes))
      case .driving(let epoch):
        Log.line(name, "drives, epoch \(epoch)")
        tell(.driving(epoch: epoch))
      case .notDriving(let driver):
        Log.line(name, "does not drive; \(driver.map { "\($0) does" } ?? "nobody is known to")")
        tell(.driving(epoch: nil))
      case .away(_, let why):
        Log.line(name, "the agreed document's store is away, the last known state goes on: \(why)")
        tell(.storeAway(why))
      case .back:
        Log.line(name, "the agreed document's store is back")
        tell(.storeAway(nil))
      case .failed(let why):
        Log.line(name, "the agreed document's store cannot be used: \(why)")
        tell(.driving(epoch: nil))
        tell(.storeAway(why))
      }
    }
  }

  func commit(_ order: CommitOrder, _ tell: @escaping (CoordinatorEvent) -> Void) {
    let authority = order.epoch.map { CommitAuthority.driver(epoch: $0) } ?? .anyone
    store.commit(expecting: order.expecting, state: order.document, entry: order.entry, as: authority) { outcome in
      switch outcome {
      case .committed: tell(.committed(.committed))
      case .conflict(let current):
        tell(.agreed(revision: current.revision, document: current.bytes))
        tell(.committed(.conflict))
      case .notDriving: tell(.committed(.lost("this coordinator does not drive any more")))
      case .unavailable(let why): tell(.committed(.lost(why)))
      case .unknown(let why): tell(.committed(.lost("whether it was taken is not known, see the status: \(why)")))
      case .refused(let why): tell(.committed(.lost(why)))
      }
    }
  }

  /// Asked before every order that only a driver may give: one that was suspended finds out here.
  func drives(now: Instant) -> Bool { store.drivingEpoch(now: now) != nil }
}
