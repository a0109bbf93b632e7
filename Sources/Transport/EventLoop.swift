import CLinux
import Glibc
import HTTP2
import RankingCore
import Synchronization

// One thread, one epoll, everything that happens on it in order.
//
//     wait ─► handlers of ready descriptors ─► timers that are due ─► what other threads handed over ─► flushes ─► wait
//
// Writing is put off to the end of a turn: all that a turn produced for one connection goes out in one system call.

/// Something with a descriptor on a loop.
protocol DescriptorHandler: AnyObject {
  func ready(events: UInt32)
}

/// Something that has bytes to send at the end of the turn.
protocol Flushable: AnyObject {
  func flush()
}

public final class EventLoop: SerialExecutor, @unchecked Sendable {
  private let epoll: Int32
  private let wakeUp: Int32
  private var handlers: [(generation: UInt32, handler: (any DescriptorHandler)?)] = []
  private var timers = TimerHeap()
  private var flushes: [any Flushable] = []
  private let handedOver = Mutex<[@Sendable () -> Void]>([])
  /// Emptied lists, kept for their memory.
  private var spareFlushes: [any Flushable] = []
  private var spareHandedOver: [@Sendable () -> Void] = []
  private var waitsExactly = true
  private var busyPoll = BusyPoll()
  private let isRunning = Atomic<Bool>(false)
  private let thread = Atomic<UInt>(0)
  private var current = EventLoop.clock()
  /// Counts the turns.
  public private(set) var turn: UInt64 = 0
  /// One receive buffer for all connections: bytes are consumed before the next read.
  let receiveBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 64)
  /// For what a TLS record says.
  let recordBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 16 << 10, alignment: 64)
  let sessionMemory = SessionMemory()

  public init() {
    signal(SIGPIPE, SIG_IGN)
    epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
    wakeUp = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
    precondition(epoll >= 0 && wakeUp >= 0, "no epoll or eventfd: \(String(cString: strerror(errno)))")
    // Edge-triggered: every write wakes the loop once, and none needs to be read back.
    var event = epoll_event(events: EPOLLIN.rawValue | EPOLLET.rawValue, data: epoll_data_t(u64: .max))
    epoll_ctl(epoll, EPOLL_CTL_ADD, wakeUp, &event)
  }
  deinit {
    close(epoll)
    close(wakeUp)
    receiveBuffer.deallocate()
    recordBuffer.deallocate()
  }

  /// The time as of now; from any thread.
  public static func clock() -> Instant {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Instant(nanoseconds: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
  }
  /// The time as of this turn of the loop.
  public var now: Instant { current }
  public func freshNow() -> Instant {
    current = Self.clock()
    return current
  }
  public var isCurrent: Bool { thread.load(ordering: .acquiring) == UInt(pthread_self()) }

  // MARK: Running

  /// Runs on a thread of its own until `stop`.
  public func start() {
    let loop = Unmanaged.passRetained(self)
    var thread = pthread_t()
    let result = pthread_create(
      &thread, nil,
      { context in
        let loop = Unmanaged<EventLoop>.fromOpaque(context!).takeRetainedValue()
        loop.run()
        return nil
      }, loop.toOpaque())
    precondition(result == 0, "pthread_create: \(String(cString: strerror(result)))")
    pthread_detach(thread)
  }

  /// Runs on this thread until `stop`.
  public func run() {
    thread.store(UInt(pthread_self()), ordering: .releasing)
    isRunning.store(true, ordering: .releasing)
    withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 256) { events in
      while isRunning.load(ordering: .acquiring) {
        let count = wait(events)
        current = Self.clock()
        turn &+= 1
        if count > 0 { for index in 0..<Int(count) { dispatch(events[index]) } }
        runTimers()
        runHandedOver()
        runFlushes()
      }
    }
  }

  public func stop() {
    execute { [self] in isRunning.store(false, ordering: .releasing) }
  }

  /// Runs `body` on the loop's thread, soon; callable from anywhere.
  public func execute(_ body: @escaping @Sendable () -> Void) {
    let isFirst = handedOver.withLock { queue in
      queue.append(body)
      return queue.count == 1
    }
    guard isFirst else { return }
    var one: UInt64 = 1
    _ = Glibc.write(wakeUp, &one, 8)
  }

  public func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    execute { [self] in job.runSynchronously(on: asUnownedSerialExecutor()) }
  }

  private func dispatch(_ event: epoll_event) {
    let key = event.data.u64
    // What another thread handed over is looked for in every turn.
    guard key != .max else { return }
    let descriptor = Int(key & 0xFFFF_FFFF)
    guard descriptor < handlers.count, handlers[descriptor].generation == UInt32(key >> 32) else { return }
    handlers[descriptor].handler?.ready(events: event.events)
  }

  private func runHandedOver() {
    handedOver.withLock { swap(&$0, &spareHandedOver) }
    guard !spareHandedOver.isEmpty else { return }
    for body in spareHandedOver { body() }
    spareHandedOver.removeAll(keepingCapacity: true)
  }

  private func runFlushes() {
    while !flushes.isEmpty {
      swap(&flushes, &spareFlushes)
      for flushable in spareFlushes { flushable.flush() }
      spareFlushes.removeAll(keepingCapacity: true)
    }
  }
  func flushLater(_ flushable: any Flushable) { flushes.append(flushable) }

  // MARK: Descriptors

  func add(_ descriptor: Int32, events: UInt32, handler: any DescriptorHandler) {
    while handlers.count <= Int(descriptor) { handlers.append((0, nil)) }
    let generation = handlers[Int(descriptor)].generation &+ 1
    handlers[Int(descriptor)] = (generation, handler)
    control(EPOLL_CTL_ADD, descriptor, events, generation)
  }
  func modify(_ descriptor: Int32, events: UInt32) {
    control(EPOLL_CTL_MOD, descriptor, events, handlers[Int(descriptor)].generation)
  }
  func remove(_ descriptor: Int32) {
    control(EPOLL_CTL_DEL, descriptor, 0, 0)
    handlers[Int(descriptor)].generation &+= 1
    handlers[Int(descriptor)].handler = nil
  }
  private func control(_ operation: Int32, _ descriptor: Int32, _ events: UInt32, _ generation: UInt32) {
    var event = epoll_event(
      events: events, data: epoll_data_t(u64: UInt64(generation) << 32 | UInt64(UInt32(descriptor))))
    epoll_ctl(epoll, operation, descriptor, &event)
  }

  // MARK: Timers (on the loop only)

  @discardableResult
  public func schedule(at: Instant, _ body: @escaping () -> Void) -> LoopTimer {
    let timer = LoopTimer(isOnce: true, body)
    timers.arm(timer, at: at)
    return timer
  }
  @discardableResult
  public func schedule(after: Duration, _ body: @escaping () -> Void) -> LoopTimer {
    schedule(at: Self.clock() + after, body)
  }
  /// Sets a timer that is kept by its owner and used again; an earlier wish of it is replaced.
  public func arm(_ timer: LoopTimer, at: Instant) { timers.arm(timer, at: at) }
  public func cancel(_ timer: LoopTimer) { timers.disarm(timer) }

  /// A timer that is set for right now by one that runs waits for the next turn, so that descriptors get theirs.
  private func runTimers() {
    let turn = current
    while let timer = timers.popDue(turn) { timer.fire() }
  }

  /// Waits for something to do, to the nanosecond where the kernel can (Linux 5.11): hedges are due within fractions of
  /// a millisecond.
  private func wait(_ events: UnsafeMutableBufferPointer<epoll_event>) -> Int32 {
    if busyPoll.begins() {
      let count = look(events)
      busyPoll.ended(found: count > 0)
      if count > 0 { return count }
    }
    guard let due = timers.earliest else {
      return epoll_wait(epoll, events.baseAddress, Int32(events.count), -1)
    }
    let nanoseconds = max(0, (due - Self.clock()).nanoseconds)
    if waitsExactly, nanoseconds > 0 {
      var limit = timespec(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
      let count = clinux_epoll_pwait2(epoll, events.baseAddress, Int32(events.count), &limit)
      if count >= 0 || errno != ENOSYS { return count }
      waitsExactly = false
    }
    // Rounded up, so that the timer is due when the wait is over.
    let milliseconds = Int32(clamping: (nanoseconds.addingReportingOverflow(999_999).partialValue) / 1_000_000)
    return epoll_wait(epoll, events.baseAddress, Int32(events.count), max(0, milliseconds))
  }

  /// From now on the loop looks this long for events before it sleeps, as long as that pays. For an owner that waits
  /// for something that is near; zero for one that does not.
  public func expectSoon(within limit: Duration) { busyPoll.limit = limit }

  private func look(_ events: UnsafeMutableBufferPointer<epoll_event>) -> Int32 {
    let start = Self.clock()
    let end = timers.earliest.map { min($0, start + busyPoll.limit) } ?? start + busyPoll.limit
    repeat {
      let count = epoll_wait(epoll, events.baseAddress, Int32(events.count), 0)
      if count > 0 { return count }
    } while Self.clock() < end
    return 0
  }
}

/// SIGINT, SIGTERM and the like as events on a loop. Must be made before other threads start, as they inherit the mask.
public final class SignalSource: DescriptorHandler {
  private let loop: EventLoop
  private let socket: Int32
  private let body: (Int32) -> Void

  public init(_ signals: [Int32], on loop: EventLoop, _ body: @escaping (Int32) -> Void) {
    self.loop = loop
    self.body = body
    var set = sigset_t()
    sigemptyset(&set)
    for signal in signals { sigaddset(&set, signal) }
    pthread_sigmask(SIG_BLOCK, &set, nil)
    socket = signalfd(-1, &set, Int32(SFD_CLOEXEC | SFD_NONBLOCK))
    loop.add(socket, events: EPOLLIN.rawValue, handler: self)
  }
  func ready(events: UInt32) {
    var info = signalfd_siginfo()
    while Glibc.read(socket, &info, MemoryLayout<signalfd_siginfo>.size) == MemoryLayout<signalfd_siginfo>.size {
      body(Int32(info.ssi_signo))
    }
  }
}
