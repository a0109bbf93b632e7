import Membership
import Nodes
import RankingCore
import Testing

@testable import Routing

// Who is left out, for how long, and when that is ignored.

@Suite struct EjectionTests {
  static let start = Instant(nanoseconds: 100_000_000_000)
  static func book(_ count: Int, seed: UInt64 = 1) -> WorkerBook {
    var book = WorkerBook(policy: RoutingPolicy(), seed: seed, now: start)
    book.admit(count, now: Instant(nanoseconds: 0))
    book.workers = count
    return book
  }
  let worker = WorkerID(0)
  func look(_ book: inout WorkerBook, until end: Instant) {
    while book.nextLook <= end { book.look(now: book.nextLook) }
  }

  @Test func fiveFailuresInARowAndNotFour() {
    var book = Self.book(4)
    for _ in 0..<4 { book.failed(worker, now: Self.start) }
    #expect(!book.isEjected(worker, Self.start))
    book.succeeded(worker, now: Self.start)
    for _ in 0..<4 { book.failed(worker, now: Self.start) }
    #expect(!book.isEjected(worker, Self.start), "a success between them starts the count again")
    book.failed(worker, now: Self.start)
    #expect(book.isEjected(worker, Self.start))
    #expect(book.counters.failures == 1 && book.counters.detected == 1)
  }

  @Test func aLostConnectionWithLegsOnItEjectsAtOnceAndAnIdleOneDoesNot() {
    var book = Self.book(4)
    book.connectionLost(worker, now: Self.start)
    #expect(!book.isEjected(worker, Self.start))
    book.sent(worker, shards: 1)
    book.connectionLost(worker, now: Self.start)
    #expect(book.isEjected(worker, Self.start))
    #expect(book.counters.lost == 1)
  }

  @Test func twoSecondsTimesTheNumberOfTimesPlusJitterAtMostSixty() {
    var book = Self.book(4)
    var now = Self.start
    for time in 1...40 {
      for _ in 0..<5 { book.failed(worker, now: now) }
      let lasts = (book.records[0].outlier.until! - now).milliseconds
      let base = min(60_000, 2000 * Double(time))
      #expect(lasts >= base && lasts <= min(60_000, base * 1.2), "time \(time): \(lasts) ms")
      now = book.records[0].outlier.until!
      book.look(now: now)
      #expect(!book.isEjected(worker, now))
    }
  }

  @Test func jitterSpreadsThem() {
    let lengths = (UInt64(1)...20).map { seed in
      var book = Self.book(4, seed: seed)
      for _ in 0..<5 { book.failed(worker, now: Self.start) }
      return (book.records[0].outlier.until! - Self.start).milliseconds
    }
    #expect(lengths.min()! < 2100 && lengths.max()! > 2300)
  }

  @Test func oneIsForgivenEveryTenSecondsWithoutAnother() {
    var book = Self.book(4)
    for _ in 0..<3 {
      for _ in 0..<5 { book.failed(worker, now: Self.start) }
      book.records[0].outlier.until = Self.start
      book.look(now: Self.start)
    }
    #expect(book.records[0].outlier.ejections == 3)
    look(&book, until: Self.start + .milliseconds(9_900))
    #expect(book.records[0].outlier.ejections == 3)
    look(&book, until: Self.start + .milliseconds(10_300))
    #expect(book.records[0].outlier.ejections == 2)
    look(&book, until: Self.start + .seconds(40))
    #expect(book.records[0].outlier.ejections == 0)
  }

  @Test func successBelowEightyPercentOfAtLeastFive() {
    // failures spread out, so that never five come in a row
    func ejected(good: Int, bad: Int) -> Bool {
      var book = Self.book(4)
      for index in 0..<bad {
        book.failed(worker, now: Self.start)
        if index < good { book.succeeded(worker, now: Self.start) }
      }
      for _ in 0..<max(0, good - bad) { book.succeeded(worker, now: Self.start) }
      book.look(now: Self.start)
      return book.isEjected(worker, Self.start)
    }
    #expect(!ejected(good: 2, bad: 2), "four are too few to say")
    #expect(ejected(good: 3, bad: 2))
    #expect(!ejected(good: 8, bad: 2), "80 % is enough")
    #expect(ejected(good: 79, bad: 21))
    #expect(!ejected(good: 80, bad: 20))
  }

  @Test func successIsCountedOverThirtySeconds() {
    for (age, isCounted) in [(26, true), (31, false)] {
      var book = Self.book(4)
      for _ in 0..<4 { book.failed(worker, now: Self.start) }
      let now = Self.start + .seconds(age)
      book.succeeded(worker, now: now)
      book.look(now: now)
      #expect(book.isEjected(worker, now) == isCounted, "four failures \(age) s ago and a success now")
    }
  }

  /// Every worker answers eight legs a second, the first one `slow`, the others `usual`.
  func seconds(_ count: Double, _ slow: Duration, _ usual: Duration, _ book: inout WorkerBook, _ now: inout Instant) {
    for _ in 0..<Int(count * 8) {
      for index in book.records.indices {
        book.answered(WorkerID(index), after: index == 0 ? slow : usual, now: now)
      }
      now = now + .milliseconds(125)
      while book.nextLook <= now { book.look(now: book.nextLook) }
    }
  }

  @Test func threeTimesItsSiblingsMedianForTwoSeconds() {
    var book = Self.book(4)
    var now = Self.start
    seconds(10, .milliseconds(10), .milliseconds(10), &book, &now)
    let onset = now
    while !book.isEjected(worker, now), now - onset < .seconds(10) {
      seconds(0.125, .milliseconds(50), .milliseconds(10), &book, &now)
    }
    #expect(now - onset >= .milliseconds(1250) && now - onset <= .milliseconds(2250), "\(now - onset)")
    #expect(book.counters.slow == 1 && book.counters.detected == 1)
  }

  @Test func lessThanThreeTimesIsNotSlowAndAShortBurstNeither() {
    var book = Self.book(4)
    var now = Self.start
    seconds(20, .milliseconds(24), .milliseconds(10), &book, &now)
    seconds(10, .milliseconds(10), .milliseconds(10), &book, &now)
    seconds(0.75, .milliseconds(200), .milliseconds(10), &book, &now)
    seconds(10, .milliseconds(10), .milliseconds(10), &book, &now)
    #expect(book.counters.detected == 0)
  }

  @Test func twoMillisecondsMoreAreNotSlowHoweverQuickTheOthers() {
    var book = Self.book(4)
    var now = Self.start
    seconds(10, .microseconds(1500), .microseconds(100), &book, &now)
    #expect(book.counters.detected == 0)
    seconds(10, .microseconds(3000), .microseconds(100), &book, &now)
    #expect(book.counters.slow > 0)
  }

  @Test func allSlowTogetherIsNobodysFault() {
    var book = Self.book(4)
    var now = Self.start
    seconds(5, .milliseconds(5), .milliseconds(5), &book, &now)
    seconds(10, .milliseconds(300), .milliseconds(300), &book, &now)
    #expect(book.counters.detected == 0)
  }

  @Test func moreThanHalfEjectedMeansNobodyIs() {
    var cluster = ClusterScript(workers: [[0], [0], [0], [0]], shardCount: 1)
    cluster.linkAll()
    func eject(_ worker: Int, _ cluster: inout ClusterScript, _ token: inout RequestToken) {
      // Requests whose legs this worker gets fail five times in a row.
      var failures = 0
      while failures < 5 {
        token += 1
        cluster.request(token)
        let leg = cluster.legs.count - 1
        if cluster.legs[leg].worker == WorkerID(worker) {
          failures += 1
          cluster.fail(leg: leg, .workerError("no"))
        } else {
          cluster.score(leg: leg)
        }
      }
    }
    var token: RequestToken = 0
    func asked(_ cluster: inout ClusterScript, _ token: inout RequestToken) -> Set<WorkerID> {
      var workers: Set<WorkerID> = []
      for _ in 0..<60 {
        token += 1
        cluster.request(token)
        workers.insert(cluster.legs[cluster.legs.count - 1].worker)
        cluster.score(leg: cluster.legs.count - 1)
      }
      return workers
    }
    eject(0, &cluster, &token)
    eject(1, &cluster, &token)
    let two = asked(&cluster, &token)
    #expect(two == [WorkerID(2), WorkerID(3)], "half is not over half")
    eject(2, &cluster, &token)
    let all = asked(&cluster, &token)
    #expect(all.count == 4, "three of four cannot be true")
    let ejections = cluster.node.router.ejections
    #expect(ejections.detected == 3 && ejections.ignored == 1, "detected and enforced are counted apart")
  }

  @Test func aShardsLastReplicaIsUsedAllTheSame() {
    var cluster = ClusterScript(workers: [[0], [1], [1], [1], [1]], shardCount: 2)
    cluster.linkAll()
    for token in 1...20 as ClosedRange<RequestToken> {
      let first = cluster.legs.count
      cluster.request(token)
      let legs = first..<cluster.legs.count
      #expect(legs.contains { cluster.legs[$0].worker == worker }, "there is nobody else")
      for leg in legs {
        if cluster.legs[leg].worker == worker {
          cluster.fail(leg: leg, .workerError("no"))
        } else {
          cluster.score(leg: leg)
        }
      }
    }
    #expect(cluster.node.router.view(of: worker, now: cluster.now)?.isEjected == true)
  }

  @Test func aDeadWorkerIsEjectedOnceForOneDeath() {
    var cluster = ClusterScript(workers: [[0], [0], [0]], shardCount: 1)
    for other in 1..<3 { cluster.latency[WorkerID(other)] = .milliseconds(2) }
    cluster.linkAll()
    for token in 1...40 as ClosedRange<RequestToken> { cluster.request(token) }
    let owed = cluster.legs.indices.filter { cluster.legs[$0].worker == worker }
    #expect(owed.count > 8)
    cluster.send(.unlinked(worker))
    for leg in owed { cluster.fail(leg: leg) }
    cluster.latency[worker] = .milliseconds(2)
    cluster.pass(.milliseconds(100))
    cluster.send(.linked(worker))
    cluster.serve(1000)
    #expect(cluster.node.router.ejections.detected == 1, "\(cluster.node.router.ejections)")
    #expect(cluster.node.router.view(of: worker, now: cluster.now)?.isEjected == false)
  }

  @Test func afterAnEjectionItStartsSlowly() {
    var book = Self.book(4)
    for _ in 0..<5 { book.failed(worker, now: Self.start) }
    let end = book.records[0].outlier.until!
    book.look(now: end)
    #expect(book.ramp(worker, now: end) == 0.1)
    #expect(book.ramp(worker, now: end + .milliseconds(2500)) == 0.5)
  }

  @Test(arguments: [1, 5, 20, 99])
  func impatientClientsEjectNobody(timeout: Int) {
    var cluster = ClusterScript(workers: [[0], [0], [0]], shardCount: 1)
    cluster.linkAll()
    for token in 1...200 as ClosedRange<RequestToken> {
      cluster.request(token, timeout: .milliseconds(timeout))
      cluster.pass(.milliseconds(timeout + 1))
      #expect(cluster.error(token) != nil)
      if token % 3 == 0 { cluster.fail(leg: cluster.legs.count - 1, .deadlineExceeded) }
    }
    #expect(cluster.node.router.ejections.detected == 0)
  }

  @Test func aSilentWorkerIsEjectedByPatientOnes() {
    var settings = CoordinatorSettings()
    settings.routing.hedging = false
    settings.routing.choice = .random
    var cluster = ClusterScript(workers: [[0], [0], [0]], shardCount: 1, settings: settings)
    for other in 1..<3 { cluster.latency[WorkerID(other)] = .milliseconds(2) }
    cluster.linkAll()
    // 10 ms are kept back: a leg that is given up after 100 ms speaks against its worker, one after 99 ms does not.
    for token in 1...40 as ClosedRange<RequestToken> { cluster.request(token, timeout: .milliseconds(109)) }
    cluster.pass(.milliseconds(120))
    #expect(cluster.node.router.ejections.detected == 0)
    for token in 101...140 as ClosedRange<RequestToken> { cluster.request(token, timeout: .milliseconds(110)) }
    cluster.pass(.milliseconds(120))
    #expect(cluster.node.router.ejections.failures == 1)
  }

  @Test func overloadAndLackOfAVersionAreNoFailures() {
    var cluster = ClusterScript(workers: [[0], [0]], shardCount: 1)
    cluster.linkAll()
    for token in 1...100 as ClosedRange<RequestToken> {
      let leg = cluster.legs.count
      cluster.request(token)
      guard cluster.legs.count > leg else { continue }
      cluster.fail(leg: leg, token % 2 == 0 ? .overloaded : .wrongVersion)
      if cluster.answers[token] == nil { cluster.fail(leg: leg + 1, .overloaded) }
      cluster.pass(.milliseconds(350))
    }
    #expect(cluster.node.router.ejections.detected == 0)
  }
}
