import CLinux
import ClusterLoad
import Foundation
import RankingCore
import Synchronization
import Terminal

#if canImport(Glibc)
  import Glibc
#endif

// A relay between one coordinator and one worker, on loopback: it speaks bytes and knows nothing of what they mean, so
// that TLS and HTTP/2 are hurt as a network hurts them.
//
//     coordinator ──► listener ─ Lane(out) ──► worker
//                 ◄────────────── Lane(back) ─┘          one thread per relay; the weather may change at any time
//
// While the link is cut, connections are made (the kernel does that) and nothing is heard on them.

/// One relay; of any thread.
final class Relay: Sendable {
  let port: UInt16
  private let orders: Orders

  /// What the relay's thread is told; it outlives the relay by a moment.
  fileprivate final class Orders: Sendable {
    struct State {
      var weather = LinkWeather()
      /// Raised to reset all connections.
      var resets = 0
      /// Raised to lose the workers' ends.
      var halfOpens = 0
      var isOver = false
    }
    let wakeUp = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
    private let state = Mutex(State())
    var current: State { state.withLock { $0 } }
    func change(_ change: (inout State) -> Void) {
      state.withLock { change(&$0) }
      eventfd_write(wakeUp, 1)
    }
    deinit { Glibc.close(wakeUp) }
  }

  /// - Parameter target: a port of loopback.
  init(to target: UInt16, seed: UInt64) throws {
    let listener = try RelaySocket.listen()
    port = try RelaySocket.port(of: listener)
    let orders = Orders()
    self.orders = orders
    let thread = Thread {
      let loop = RelayLoop(listener, target, seed)
      loop.run(orders)
    }
    thread.name = "relay"
    thread.start()
  }
  deinit { close() }

  func change(_ change: (inout LinkWeather) -> Void) { orders.change { change(&$0.weather) } }
  /// RST on every connection, both ways.
  func reset() { orders.change { $0.resets += 1 } }
  /// The worker's end of every connection is closed; the coordinator's end stays and is never heard again.
  func halfOpen() { orders.change { $0.halfOpens += 1 } }
  /// Ends it with all its connections.
  func close() { orders.change { $0.isOver = true } }
}

/// Of the relay's thread.
private final class RelayLoop {
  private struct Pair {
    let client: Int32
    /// −1 = lost, and the client is not told.
    var worker: Int32
    var isConnected = false
    var out = Lane(.out)
    var back = Lane(.back)
    /// No more comes from there.
    var clientEnded = false
    var workerEnded = false
  }
  private let listener: Int32
  private let target: UInt16
  private var generator: SeededGenerator
  private var pairs: [Pair] = []
  private var resets = 0
  private var halfOpens = 0
  private var buffer = [UInt8](repeating: 0, count: 64 << 10)

  init(_ listener: Int32, _ target: UInt16, _ seed: UInt64) {
    self.listener = listener
    self.target = target
    generator = SeededGenerator(seed: seed)
  }

  func run(_ orders: Relay.Orders) {
    while true {
      let state = orders.current
      guard !state.isOver else { break }
      if state.resets != resets {
        while let pair = pairs.popLast() { end(pair, abruptly: true) }
        resets = state.resets
      }
      if state.halfOpens != halfOpens {
        for index in pairs.indices { loseWorker(&pairs[index]) }
        halfOpens = state.halfOpens
      }
      var watched = [
        pollfd(fd: orders.wakeUp, events: Int16(POLLIN), revents: 0),
        pollfd(fd: listener, events: Int16(POLLIN), revents: 0),
      ]
      let limit = prepare(&watched, state.weather)
      _ = poll(&watched, nfds_t(watched.count), limit)
      if watched[0].revents != 0 {
        var count: eventfd_t = 0
        eventfd_read(orders.wakeUp, &count)
      }
      // What was told while nothing moved counts for what moves now.
      let weather = orders.current.weather
      // Later pairs first, so that one that ends does not shift those still to be looked at.
      for index in pairs.indices.reversed() {
        let (client, worker) = (watched[2 + 2 * index].revents, watched[3 + 2 * index].revents)
        if !serve(&pairs[index], client, worker, weather) { end(pairs.remove(at: index), abruptly: false) }
      }
      if watched[1].revents != 0 { accept() }
    }
    for pair in pairs { end(pair, abruptly: true) }
    close(listener)
  }

  /// What to poll for, two entries for each pair.
  /// - Returns: for how long, in milliseconds.
  private func prepare(_ watched: inout [pollfd], _ weather: LinkWeather) -> Int32 {
    let now = Monotonic.now
    var wake: Duration?
    for pair in pairs {
      var (client, worker) = (Int16(0), Int16(0))
      if pair.worker >= 0 {
        if !pair.out.isFull, !pair.clientEnded { client |= Int16(POLLIN) }
        if !pair.back.isFull, !pair.workerEnded, pair.isConnected { worker |= Int16(POLLIN) }
        if !pair.isConnected || pair.out.next(now: now, weather) != nil { worker |= Int16(POLLOUT) }
        if pair.back.next(now: now, weather) != nil { client |= Int16(POLLOUT) }
        for time in [pair.out.wakeAt(weather), pair.back.wakeAt(weather)] {
          if let time, time > now { wake = min(wake ?? time, time) }
        }
      }
      // A descriptor of −1 is passed over.
      let hearsClient = pair.worker >= 0 && (client != 0 || !pair.clientEnded)
      let hearsWorker = pair.worker >= 0 && (worker != 0 || !pair.workerEnded)
      watched.append(pollfd(fd: hearsClient ? pair.client : -1, events: client, revents: 0))
      watched.append(pollfd(fd: hearsWorker ? pair.worker : -1, events: worker, revents: 0))
    }
    return wake.map { Int32(max(1, (($0 - now) / .milliseconds(1)).rounded(.up))) } ?? -1
  }

  private func accept() {
    let client = clinux_accept(listener)
    guard client >= 0 else { return }
    let worker = RelaySocket.connect(to: target)
    guard worker >= 0 else {
      close(client)
      return
    }
    RelaySocket.sendAtOnce(client)
    RelaySocket.sendAtOnce(worker)
    pairs.append(Pair(client: client, worker: worker))
  }

  /// - Returns: false when the connection is over.
  private func serve(_ pair: inout Pair, _ client: Int16, _ worker: Int16, _ weather: LinkWeather) -> Bool {
    guard pair.worker >= 0 else { return true }
    if !pair.isConnected, worker != 0 {
      guard RelaySocket.error(of: pair.worker) == 0 else { return false }
      pair.isConnected = true
    }
    let now = Monotonic.now
    if client & Int16(POLLIN | POLLHUP | POLLERR) != 0, !pair.clientEnded {
      guard read(pair.client, into: &pair.out, &pair.clientEnded, now, weather) else { return false }
    }
    if worker & Int16(POLLIN | POLLHUP | POLLERR) != 0, pair.isConnected, !pair.workerEnded {
      guard read(pair.worker, into: &pair.back, &pair.workerEnded, now, weather) else { return false }
    }
    if pair.isConnected, !flush(&pair.out, to: pair.worker, weather) { return false }
    if !flush(&pair.back, to: pair.client, weather) { return false }
    // An end is passed on behind the bytes that came before it, and not through a cut.
    if pair.clientEnded, pair.out.isEmpty, !weather.isCutOut { return false }
    if pair.workerEnded, pair.back.isEmpty, !weather.isCutIn { return false }
    return true
  }

  private func read(
    _ descriptor: Int32, into lane: inout Lane, _ ended: inout Bool, _ now: Duration, _ weather: LinkWeather
  ) -> Bool {
    let count = recv(descriptor, &buffer, buffer.count, 0)
    if count > 0 {
      lane.take(Array(buffer[..<count]), now: now, weather, &generator)
    } else if count == 0 {
      ended = true
    } else if errno != EAGAIN, errno != EINTR {
      // A reset is not hidden by a cut: the pair ends when the cut does.
      ended = true
    }
    return true
  }

  private func flush(_ lane: inout Lane, to descriptor: Int32, _ weather: LinkWeather) -> Bool {
    while let bytes = lane.next(now: Monotonic.now, weather) {
      let count = bytes.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
      if count < 0 { return errno == EAGAIN || errno == EINTR }
      lane.sent(count, now: Monotonic.now, weather)
    }
    return true
  }

  private func loseWorker(_ pair: inout Pair) {
    guard pair.worker >= 0 else { return }
    close(pair.worker)
    pair.worker = -1
  }

  private func end(_ pair: Pair, abruptly: Bool) {
    for descriptor in [pair.client, pair.worker] where descriptor >= 0 {
      if abruptly || pair.worker < 0 { RelaySocket.endByReset(descriptor) }
      close(descriptor)
    }
  }
}

/// The system calls of the relay.
private enum RelaySocket {
  private static func loopback(_ port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    return address
  }
  private static func make() -> Int32 {
    socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
  }
  private static func withAddress(
    _ address: sockaddr_in, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) -> Int32 {
    withUnsafePointer(to: address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
  }

  static func listen() throws -> Int32 {
    let listener = make()
    guard listener >= 0, withAddress(loopback(0), { bind(listener, $0, $1) }) == 0, Glibc.listen(listener, 64) == 0
    else { throw CommandError("a relay cannot listen: \(String(cString: strerror(errno)))") }
    return listener
  }
  static func port(of listener: Int32) throws -> UInt16 {
    var address = sockaddr_in()
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let result = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(listener, $0, &length) }
    }
    guard result == 0 else { throw CommandError("a relay has no port: \(String(cString: strerror(errno)))") }
    return UInt16(bigEndian: address.sin_port)
  }
  /// Begins to connect; −1 = it cannot.
  static func connect(to port: UInt16) -> Int32 {
    let descriptor = make()
    guard descriptor >= 0 else { return -1 }
    if withAddress(loopback(port), { Glibc.connect(descriptor, $0, $1) }) == 0 || errno == EINPROGRESS {
      return descriptor
    }
    close(descriptor)
    return -1
  }
  static func error(of descriptor: Int32) -> Int32 {
    var error: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    return getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno
  }
  static func sendAtOnce(_ descriptor: Int32) {
    var yes: Int32 = 1
    setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
  }
  static func endByReset(_ descriptor: Int32) {
    var linger = Glibc.linger(l_onoff: 1, l_linger: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
  }
}
