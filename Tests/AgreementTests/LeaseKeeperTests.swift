import RankingCore
import Testing

@testable import Agreement

/// Time is scripted: a line is (milliseconds, fact) → what the keeper does.
@Suite struct LeaseKeeperTests {
  static func at(_ milliseconds: Int) -> Instant { Instant(nanoseconds: 1_000_000_000) + .milliseconds(milliseconds) }

  struct Script {
    var keeper = LeaseKeeper(now: at(0))
    mutating func expect(
      _ milliseconds: Int, _ fact: LeaseKeeper.Fact, _ wanted: [LeaseKeeper.Effect], wake: Int? = nil,
      _ location: SourceLocation = #_sourceLocation
    ) {
      var effects: [LeaseKeeper.Effect] = []
      let now = at(milliseconds)
      keeper.handle(fact, now: now, into: &effects)
      #expect(effects == wanted, "at \(milliseconds) ms", sourceLocation: location)
      if let wake {
        #expect(keeper.wakeAt(now: now) == at(wake), "wake at \(milliseconds) ms", sourceLocation: location)
      }
    }
    func epoch(_ milliseconds: Int) -> UInt64? { keeper.epoch(now: at(milliseconds)) }
  }
  private static let ttl: Duration = .seconds(2)
  private static func own(_ revision: UInt64) -> DriverKey { DriverKey(lease: 7, createRevision: revision, name: "me") }
  private static let other = DriverKey(lease: 8, createRevision: 50, name: "other")

  /// Up, granted lease 7 at 10 ms, driving with epoch 101 from 20 ms on.
  private func driving() -> Script {
    var script = Script()
    script.expect(0, .driverSeen(nil, revision: 100), [])
    script.expect(0, .linkUp, [.notDriving(driver: nil), .grant])
    script.expect(10, .granted(lease: 7, ttl: Self.ttl, sentAt: Self.at(0)), [.acquire(lease: 7)], wake: 500)
    script.expect(20, .driverSeen(Self.own(101), revision: 101), [.driving(epoch: 101)])
    return script
  }

  @Test func acquiresKeepsAndRevokes() {
    var script = driving()
    script.expect(500, .timePassed, [.keepAlive(lease: 7)], wake: 1000)
    script.expect(505, .keptAlive(lease: 7, ttl: Self.ttl, sentAt: Self.at(500)), [])
    script.expect(1000, .timePassed, [.keepAlive(lease: 7)], wake: 1500)
    #expect(script.epoch(2299) == 101 && script.epoch(2300) == nil, "counted from when it was sent")
    script.expect(1100, .stopped, [.revoke(lease: 7)])
    #expect(script.epoch(1100) == nil)
    script.expect(1200, .timePassed, [])
  }

  @Test func oneThatIsCutOffStopsBeforeItsLeaseEnds() {
    var script = driving()
    script.expect(500, .timePassed, [.keepAlive(lease: 7)])
    script.expect(600, .keptAlive(lease: 7, ttl: Self.ttl, sentAt: Self.at(500)), [])
    script.expect(700, .linkDown, [], wake: 2300)
    #expect(script.epoch(2299) == 101)
    script.expect(2300, .timePassed, [.notDriving(driver: nil)])
    #expect(script.epoch(2300) == nil && script.keeper.wakeAt(now: Self.at(2300)) == nil)
    // It was suspended, and wakes long after: no event is needed to know.
    #expect(script.epoch(9000) == nil)
  }

  @Test func aLateReplyIsWorthWhatItsRequestWas() {
    var script = driving()
    script.expect(500, .timePassed, [.keepAlive(lease: 7)])
    // Its reply was on the way for 1.7 s: it proves life until 2300, of which nothing is left.
    script.expect(
      2310, .keptAlive(lease: 7, ttl: Self.ttl, sentAt: Self.at(500)), [.notDriving(driver: nil), .keepAlive(lease: 7)])
    script.expect(2320, .keptAlive(lease: 7, ttl: Self.ttl, sentAt: Self.at(2310)), [.driving(epoch: 101)])
  }

  @Test func repliesOutOfOrderNeverShortenALease() {
    var script = driving()
    script.expect(500, .timePassed, [.keepAlive(lease: 7)])
    script.expect(1000, .timePassed, [.keepAlive(lease: 7)])
    script.expect(1010, .keptAlive(lease: 7, ttl: Self.ttl, sentAt: Self.at(1000)), [])
    script.expect(1020, .keptAlive(lease: 7, ttl: Self.ttl, sentAt: Self.at(500)), [])
    #expect(script.epoch(2799) == 101 && script.epoch(2800) == nil)
    script.expect(1030, .keptAlive(lease: 6, ttl: Self.ttl, sentAt: Self.at(1020)), [])
    #expect(script.epoch(2800) == nil, "that was another lease")
  }

  @Test func aLeaseThatIsGoneIsReplaced() {
    var script = driving()
    script.expect(500, .timePassed, [.keepAlive(lease: 7)])
    script.expect(510, .keptAlive(lease: 7, ttl: .zero, sentAt: Self.at(500)), [.notDriving(driver: "me"), .grant])
    script.expect(520, .driverSeen(nil, revision: 110), [.notDriving(driver: nil)])
    script.expect(530, .granted(lease: 9, ttl: Self.ttl, sentAt: Self.at(510)), [.acquire(lease: 9)])
    script.expect(
      540, .driverSeen(DriverKey(lease: 9, createRevision: 111, name: "me"), revision: 111), [.driving(epoch: 111)])
  }

  @Test func followsAndTakesOver() {
    var script = Script()
    script.expect(0, .driverSeen(Self.other, revision: 60), [])
    script.expect(0, .linkUp, [.notDriving(driver: "other"), .grant])
    script.expect(5, .granted(lease: 7, ttl: Self.ttl, sentAt: Self.at(0)), [], wake: 500)
    script.expect(300, .driverSeen(nil, revision: 70), [.notDriving(driver: nil), .acquire(lease: 7)])
    // Another follower was quicker.
    let third = DriverKey(lease: 9, createRevision: 71, name: "third")
    script.expect(310, .driverSeen(third, revision: 72), [.notDriving(driver: "third")])
    script.expect(320, .driverSeen(Self.own(65), revision: 65), [], wake: 500)
    #expect(script.epoch(330) == nil, "what is older than what is known changes nothing")
  }

  @Test func anAttemptThatFailsIsMadeAgain() {
    var script = Script()
    script.expect(0, .driverSeen(nil, revision: 1), [])
    script.expect(0, .linkUp, [.notDriving(driver: nil), .grant])
    script.expect(3, .grantFailed, [], wake: 203)
    script.expect(203, .timePassed, [.grant])
    script.expect(210, .granted(lease: 7, ttl: Self.ttl, sentAt: Self.at(203)), [.acquire(lease: 7)])
    script.expect(220, .acquireFailed, [], wake: 420)
    script.expect(420, .timePassed, [.acquire(lease: 7)])
    script.expect(430, .leaseGone, [.grant])
    script.expect(440, .linkDown, [])
    script.expect(450, .granted(lease: 8, ttl: Self.ttl, sentAt: Self.at(430)), [])
    script.expect(460, .linkUp, [.grant])
  }

  @Test func whoIsBackInTimeGoesOnWithItsEpoch() {
    var script = driving()
    script.expect(700, .linkDown, [])
    script.expect(900, .linkUp, [.keepAlive(lease: 7)])
    script.expect(910, .keptAlive(lease: 7, ttl: Self.ttl, sentAt: Self.at(900)), [])
    #expect(script.epoch(2699) == 101)
  }
}

// Several keepers and an etcd in virtual time; calls and replies take any time, are lost, and links are cut. Whatever
// happens, no two believe at one instant that they drive, and epochs only grow.
//
//     keeper ──keepAlive──► etcd: lease lives from its arrival ──reply──► keeper: believes from its sending

private struct LeaseWorld {
  struct Message {
    var due: Int
    var keeper: Int
    var isReply: Bool
    var effect: LeaseKeeper.Effect
    var sentAt: Int
    /// Of a reply.
    var fact: LeaseKeeper.Fact?
    var link: Int
  }
  var keepers: [LeaseKeeper]
  var links: [Int?]
  var messages: [Message] = []
  /// Lease → the millisecond from which it is gone.
  var leases: [UInt64: Int] = [:]
  var driver: DriverKey?
  var revision: UInt64 = 1
  var random: SeededGenerator
  var epochs: [UInt64] = []
  var changes = 0
  var nextLink = 0

  static func at(_ ms: Int) -> Instant { LeaseKeeperTests.at(ms) }

  init(seed: UInt64, count: Int) {
    random = SeededGenerator(seed: seed)
    keepers = (0..<count).map { _ in LeaseKeeper(now: Self.at(0)) }
    links = Array(repeating: nil, count: count)
  }

  mutating func tell(_ index: Int, _ fact: LeaseKeeper.Fact, _ now: Int) {
    var effects: [LeaseKeeper.Effect] = []
    keepers[index].handle(fact, now: Self.at(now), into: &effects)
    for effect in effects {
      switch effect {
      case .driving(let epoch): epochs.append(epoch)
      case .notDriving: break
      default:
        // Up to a second on its way, and now and then lost, which ends the link.
        let delay = random.below(10) == 0 ? random.below(1500) : random.below(20)
        messages.append(
          Message(
            due: now + delay, keeper: index, isReply: false, effect: effect, sentAt: now, link: links[index] ?? -1))
      }
    }
  }

  /// etcd takes in a request.
  mutating func arrive(_ message: Message, _ now: Int) {
    var fact: LeaseKeeper.Fact?
    let sentAt = Self.at(message.sentAt)
    switch message.effect {
    case .grant:
      let lease = UInt64(random.below(1 << 40)) + 1
      leases[lease] = now + 2000
      fact = .granted(lease: lease, ttl: .seconds(2), sentAt: sentAt)
    case .keepAlive(let lease):
      let lives = (leases[lease] ?? 0) > now
      if lives { leases[lease] = now + 2000 }
      fact = .keptAlive(lease: lease, ttl: lives ? .seconds(2) : .zero, sentAt: sentAt)
    case .acquire(let lease):
      if (leases[lease] ?? 0) <= now {
        fact = .leaseGone
      } else {
        if driver == nil {
          revision += 1
          driver = DriverKey(lease: lease, createRevision: revision, name: "\(message.keeper)")
          toldAll(now)
        }
        fact = .driverSeen(driver, revision: revision)
      }
    case .revoke(let lease): leases[lease] = 0
    default: break
    }
    guard let fact else { return }
    reply(message.keeper, fact, message.sentAt, message.link, now)
  }
  mutating func reply(_ keeper: Int, _ fact: LeaseKeeper.Fact, _ sentAt: Int, _ link: Int, _ now: Int) {
    let delay = random.below(10) == 0 ? random.below(1500) : random.below(20)
    messages.append(
      Message(
        due: now + delay, keeper: keeper, isReply: true, effect: .grant, sentAt: sentAt, fact: fact, link: link))
  }
  /// A watch event to everybody.
  mutating func toldAll(_ now: Int) {
    changes += 1
    for index in keepers.indices {
      if let link = links[index] { reply(index, .driverSeen(driver, revision: revision), now, link, now) }
    }
  }

  mutating func run(until end: Int) -> String? {
    for now in 0..<end {
      for index in keepers.indices {
        if let _ = links[index] {
          if random.below(3000) == 0 {
            links[index] = nil
            tell(index, .linkDown, now)
          }
        } else if random.below(3000) == 0 {
          nextLink += 1
          links[index] = nextLink
          tell(index, .driverSeen(driver, revision: revision), now)
          tell(index, .linkUp, now)
        }
      }
      if let lease = driver?.lease, (leases[lease] ?? 0) <= now {
        driver = nil
        revision += 1
        toldAll(now)
      }
      let due = messages.contains { $0.due <= now } ? messages.filter { $0.due <= now } : []
      if !due.isEmpty { messages.removeAll { $0.due <= now } }
      for message in due {
        if message.isReply {
          // Replies of an earlier connection never come.
          if links[message.keeper] == message.link { tell(message.keeper, message.fact!, now) }
        } else {
          arrive(message, now)
        }
      }
      for index in keepers.indices {
        if let wake = keepers[index].wakeAt(now: Self.at(now - 1)), wake <= Self.at(now) {
          tell(index, .timePassed, now)
        }
      }
      let drivers = keepers.indices.filter { keepers[$0].epoch(now: Self.at(now)) != nil }
      if drivers.count > 1 { return "\(drivers) drive at once at \(now) ms" }
      if let one = drivers.first, let lease = driver?.lease,
        driver?.createRevision != keepers[one].epoch(now: Self.at(now))
      {
        return "\(one) believes it drives at \(now) ms, where the key is on lease \(lease)"
      }
    }
    return nil
  }
}

@Suite struct LeaseWorldTests {
  @Test(arguments: 1...24)
  func neverDoTwoBelieveThatTheyDrive(seed: UInt64) {
    var world = LeaseWorld(seed: seed, count: 3)
    #expect(world.run(until: 40_000) == nil, "seed \(seed)")
    // Epochs are told more than once where a driver is back in time, and never go back.
    #expect(world.epochs == world.epochs.sorted() && Set(world.epochs).count >= 2, "seed \(seed)")
  }
}
