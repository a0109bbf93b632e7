import Membership
import Nodes
import RankingCore
import Testing

@testable import Routing

// Which of a shard's replicas is asked.

@Suite struct ReplicaChoiceTests {
  static let start = Instant(nanoseconds: 100_000_000_000)
  static func book(_ count: Int, seed: UInt64 = 1, policy: RoutingPolicy = RoutingPolicy()) -> WorkerBook {
    var book = WorkerBook(policy: policy, seed: seed, now: start)
    book.admit(count, now: Instant(nanoseconds: 0))
    book.workers = count
    return book
  }
  static func ids(_ count: Int) -> [WorkerID] { (0..<count).map { WorkerID($0) } }

  /// How often each is chosen in 1000 draws that leave no trace.
  static func draws(_ book: inout WorkerBook, now: Instant, _ rules: ChoiceRules = ChoiceRules()) -> [Int] {
    var counts = [Int](repeating: 0, count: book.records.count)
    for _ in 0..<1000 {
      book.beginPlan()
      if case .worker(let worker) = book.choose(ids(book.records.count), rules, now: now) {
        counts[worker.index] += 1
      }
    }
    return counts
  }

  @Test func theCheaperOfTwoByLatencyTimesInFlight() {
    var book = Self.book(2)
    book.answered(WorkerID(0), after: .milliseconds(2), now: Self.start)
    book.answered(WorkerID(1), after: .milliseconds(5), now: Self.start)
    #expect(Self.draws(&book, now: Self.start) == [1000, 0])
    book.sent(WorkerID(0), shards: 1)
    #expect(Self.draws(&book, now: Self.start) == [1000, 0], "2 ms × 2 is less than 5 ms × 1")
    book.sent(WorkerID(0), shards: 1)
    #expect(Self.draws(&book, now: Self.start) == [0, 1000], "2 ms × 3 is more")
  }

  @Test func inFlightCountsShardsNotLegs() {
    var book = Self.book(2)
    for worker in Self.ids(2) { book.answered(worker, after: .milliseconds(2), now: Self.start) }
    book.sent(WorkerID(0), shards: 3)
    book.sent(WorkerID(1), shards: 1)
    book.sent(WorkerID(1), shards: 1)
    #expect(Self.draws(&book, now: Self.start) == [0, 1000])
  }

  /// Its partner is frozen and its legs pile up: the newcomer takes everything, however new it is.
  @Test func aNewcomerIsNotSparedInFavourOfOneThatHangs() {
    var book = Self.book(2)
    for worker in Self.ids(2) { book.answered(worker, after: .milliseconds(2), now: Self.start) }
    book.renewed(WorkerID(1), now: Self.start)
    book.medianLatency = 2e6
    #expect(Self.draws(&book, now: Self.start)[1] < 200, "a tenth, or what the first is too busy for")
    for _ in 0..<16 { book.sent(WorkerID(0), shards: 1) }
    #expect(Self.draws(&book, now: Self.start)[1] == 1000)
  }

  @Test func twoAreDrawnOfMany() {
    var book = Self.book(5)
    for worker in Self.ids(5) {
      book.answered(worker, after: .milliseconds(1 + Int(worker.rawValue)), now: Self.start)
    }
    let counts = Self.draws(&book, now: Self.start)
    // The best wins whenever it is drawn: in 2 of 5. The worst never does.
    #expect((340...460).contains(counts[0]), "\(counts)")
    #expect(counts[4] == 0 && counts[3] > 50)
  }

  @Test func oneRequestSpreadsItsOwnShards() {
    var cluster = ClusterScript(workers: [Array(0..<16), Array(0..<16)], shardCount: 16)
    cluster.linkAll()
    cluster.request(1)
    #expect(cluster.legs.map(\.request.tasks.count) == [8, 8], "its choices do not herd")
  }

  @Test func theMovingAverageTakesAFifthOfEachSample() {
    var book = Self.book(1)
    book.answered(WorkerID(0), after: .milliseconds(10), now: Self.start)
    book.answered(WorkerID(0), after: .milliseconds(20), now: Self.start)
    #expect(book.expectedLatency(WorkerID(0), now: Self.start) == 12e6)
  }

  @Test func anIdleEstimateFadesToTheMedianWithAHalfLifeOfFiveSeconds() {
    var book = Self.book(3)
    book.answered(WorkerID(0), after: .milliseconds(2), now: Self.start)
    book.answered(WorkerID(1), after: .milliseconds(2), now: Self.start)
    book.answered(WorkerID(2), after: .milliseconds(10), now: Self.start)
    book.look(now: Self.start)
    let after = { book.expectedLatency(WorkerID(2), now: Self.start + $0) / 1e6 }
    #expect(abs(after(.seconds(5)) - 6) < 0.05)
    #expect(abs(after(.seconds(10)) - 4) < 0.05)
    #expect(after(.seconds(60)) < 2.05)
    #expect(after(.milliseconds(100)) == 10, "what was measured just now stands")
  }

  @Test func whoHasNoDataStartsAtTheMedian() {
    var book = Self.book(4)
    for (index, latency) in [2, 6, 9].enumerated() {
      book.answered(WorkerID(index), after: .milliseconds(latency), now: Self.start)
    }
    book.look(now: Self.start)
    #expect(book.expectedLatency(WorkerID(3), now: Self.start) == 6e6)
  }

  @Test func aNewcomerRampsUpOverFiveSeconds() {
    var book = Self.book(2)
    for worker in Self.ids(2) { book.answered(worker, after: .milliseconds(2), now: Self.start) }
    book.look(now: Self.start)
    book.renewed(WorkerID(1), now: Self.start)
    var shares: [Double] = []
    for seconds in [0.0, 0.5, 1, 2.5, 4, 5, 6] {
      let now = Self.start + .nanoseconds(Int64(seconds * 1e9))
      #expect(book.ramp(WorkerID(1), now: now) == max(0.1, min(1, seconds / 5)))
      // Made the cheaper one, so that its share is the ramp itself.
      book.records[0].shardsInFlight = 5
      shares.append(Double(Self.draws(&book, now: now)[1]) / 1000)
      book.records[0].shardsInFlight = 0
    }
    for (share, expected) in zip(shares, [0.1, 0.1, 0.2, 0.5, 0.8, 1, 1]) {
      #expect(abs(share - expected) < 0.06, "\(shares)")
    }
  }

  @Test func everybodyNewTogetherSharesEvenly() {
    var book = Self.book(2)
    for worker in Self.ids(2) { book.renewed(worker, now: Self.start) }
    let counts = Self.draws(&book, now: Self.start)
    #expect((420...580).contains(counts[0]), "\(counts)")
  }

  @Test func tiesAreBrokenByTheGenerator() {
    var book = Self.book(2)
    let counts = Self.draws(&book, now: Self.start)
    #expect((420...580).contains(counts[0]), "\(counts)")
    var again = Self.book(2)
    #expect(Self.draws(&again, now: Self.start) == counts, "the same seed, the same draws")
  }

  @Test func aStickyRequestKeepsItsReplicaWhileItCanBeHad() {
    var cluster = ClusterScript(workers: [[0], [0], [0]], shardCount: 1)
    for worker in 0..<3 { cluster.latency[WorkerID(worker)] = .milliseconds(2) }
    cluster.linkAll()
    var homes: [String: WorkerID] = [:]
    var token: RequestToken = 0
    func ask(_ user: String, _ cluster: inout ClusterScript) -> WorkerID {
      var request = RankingRequest(subject: .user(user), k: 3)
      request.sticky = true
      token += 1
      cluster.request(token, request)
      let worker = cluster.legs[cluster.legs.count - 1].worker
      cluster.pass(.milliseconds(5))
      return worker
    }
    let users = (0..<30).map { "user\($0)" }
    for user in users { homes[user] = ask(user, &cluster) }
    for _ in 0..<3 { for user in users { #expect(ask(user, &cluster) == homes[user]) } }
    #expect(Set(homes.values).count == 3, "users are spread over the replicas")
    cluster.send(.unlinked(WorkerID(0)))
    for user in users where homes[user] != WorkerID(0) { #expect(ask(user, &cluster) == homes[user]) }
    for user in users where homes[user] == WorkerID(0) { #expect(ask(user, &cluster) != WorkerID(0)) }
    cluster.send(.linked(WorkerID(0)))
    cluster.pass(.milliseconds(400))
    for user in users { #expect(ask(user, &cluster) == homes[user]) }
  }

  @Test func withoutAUserTheSessionDecides() {
    var cluster = ClusterScript(workers: [[0], [0], [0], [0]], shardCount: 1)
    cluster.linkAll()
    var byRequest: Set<WorkerID> = []
    for token in 1...20 as ClosedRange<RequestToken> {
      var request = RankingRequest(subject: .anyone, k: 3)
      request.sticky = true
      request.session = "s"
      request.requestID = "r\(token)"
      cluster.request(token, request)
      byRequest.insert(cluster.legs[cluster.legs.count - 1].worker)
      cluster.score(leg: cluster.legs.count - 1)
    }
    #expect(byRequest.count == 1)
  }

  @Test func aDrainingReplicaIsAskedOnlyWhereNobodyElseIs() {
    var cluster = ClusterScript(workers: [[0, 1], [0]], shardCount: 2)
    cluster.adjust = { $0.draining = $0.name == "w1" }
    cluster.linkAll()
    for token in 1...10 as ClosedRange<RequestToken> {
      cluster.legs = []
      cluster.request(token)
      #expect(Set(cluster.sent) == ["w2: 0", "w1: 1"])
    }
  }

  @Test func aRetryPrefersAFullReplicaToAnEjectedOne() {
    var book = Self.book(5)
    for _ in 0..<5 { book.failed(WorkerID(1), now: Self.start) }
    book.records[2].legsInFlight = 1000
    let rules = ChoiceRules(tried: (WorkerID(0), nil), mayOverfill: true)
    let replicas = Self.ids(3)
    book.beginPlan()
    #expect(book.choose(replicas, rules, now: Self.start) == .worker(WorkerID(2)))
  }
}
