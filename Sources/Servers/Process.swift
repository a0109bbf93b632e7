import CLinux
import Glibc
import HTTP2
import Transport
import Wire

// What both roles do alike: say that they serve, log, end on a signal.

enum Log {
  enum Format: String { case text, json }
  /// Set once, before the first line.
  nonisolated(unsafe) static var format = Format.text

  /// One line on standard error: time (UTC), process, text.
  static func line(_ name: String, _ text: String) {
    guard format == .json else { return write(2, "\(stamp()) \(name): \(text)\n") }
    line(
      object(name) { json in
        json.literal(",\"message\":")
        json.string(text)
      })
  }
  /// `{"time":…,"process":…` and what `fields` appends.
  static func object(_ name: String, _ fields: (inout JSONWriter) -> Void) -> [UInt8] {
    var json = JSONWriter()
    json.literal("{\"time\":")
    json.string(stamp())
    json.literal(",\"process\":")
    json.string(name)
    fields(&json)
    json.literal("}")
    return json.bytes
  }
  /// One line that is a JSON object.
  static func line(_ json: [UInt8]) {
    (json + [UInt8(ascii: "\n")]).withUnsafeBytes { _ = Glibc.write(2, $0.baseAddress, $0.count) }
  }
  static func stamp() -> String {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    var parts = tm()
    gmtime_r(&time.tv_sec, &parts)
    return String(unsafeUninitializedCapacity: 32) { buffer in
      buffer.withMemoryRebound(to: CChar.self) { strftime($0.baseAddress!, $0.count, "%Y-%m-%dT%H:%M:%SZ", &parts) }
    }
  }
  static func write(_ descriptor: Int32, _ text: String) {
    var text = text
    text.withUTF8 { _ = Glibc.write(descriptor, $0.baseAddress, $0.count) }
  }
}

enum Announcement {
  static func ready(_ address: SocketAddress, port: UInt16, isSecure: Bool) {
    Log.write(1, "ready \(scheme(isSecure))\(SocketAddress(host: address.host, port: port))\n")
  }
  static func admin(_ address: SocketAddress, isSecure: Bool) { Log.write(1, "admin \(scheme(isSecure))\(address)\n") }
  private static func scheme(_ isSecure: Bool) -> String { isSecure ? "https://" : "http://" }
}

enum Threads {
  /// The calling thread gets the processor when nobody else wants it: reading a version must not cost requests. A low
  /// priority alone would not do: what runs keeps its slice of 3 ms, only an idle thread makes way at once.
  static func standBack() {
    var parameters = sched_param()
    let idle: Int32 = 5  // SCHED_IDLE
    if sched_setscheduler(0, idle, &parameters) != 0 { _ = setpriority(__priority_which_t(0), 0, 19) }
  }

  /// Threads that are started in `body` never take SIGTERM, SIGINT and SIGHUP: the loop alone does.
  static func withSignalsBlocked<Result>(_ body: () -> Result) -> Result {
    var set = sigset_t()
    sigemptyset(&set)
    sigaddset(&set, SIGTERM)
    sigaddset(&set, SIGINT)
    sigaddset(&set, SIGHUP)
    pthread_sigmask(SIG_BLOCK, &set, nil)
    return body()
  }
}

/// SIGTERM or SIGINT once: leave in order. Twice: leave now.
final class Shutdown {
  private var source: SignalSource?
  private var count = 0
  init(on loop: EventLoop, begin: @escaping () -> Void) {
    source = SignalSource([SIGTERM, SIGINT], on: loop) { [unowned self] _ in
      count += 1
      if count > 1 { _exit(1) }
      begin()
    }
  }
}

/// The process's own figures, from /proc.
struct ProcessFigures {
  var residentBytes = 0.0
  var cpuSeconds = 0.0
  var openFiles = 0.0

  init() {
    var usage = rusage()
    getrusage(0, &usage)  // RUSAGE_SELF
    func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
    cpuSeconds = seconds(usage.ru_utime) + seconds(usage.ru_stime)
    if let file = fopen("/proc/self/statm", "r") {
      var line = [CChar](repeating: 0, count: 128)
      if fgets(&line, 128, file) != nil {
        let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let fields = text.split(separator: " ")
        if fields.count > 1 { residentBytes = (Double(fields[1]) ?? 0) * Double(sysconf(Int32(_SC_PAGESIZE))) }
      }
      fclose(file)
    }
    if let directory = opendir("/proc/self/fd") {
      while readdir(directory) != nil { openFiles += 1 }
      openFiles -= 3  // ".", "..", and the directory itself
      closedir(directory)
    }
  }

  func write(into text: inout MetricsText) {
    text.gauge("process_resident_memory_bytes", "Resident memory.", residentBytes)
    text.family("process_cpu_seconds_total", "counter", "User and system time.")
    text.line("process_cpu_seconds_total", "", "\(cpuSeconds)")
    text.gauge("process_open_fds", "Open file descriptors.", openFiles)
  }
}

/// Responses that are always the same.
enum Heads {
  static let grpc = ResponseHead(200, [("content-type", GRPC.contentType)])
  static let grpcOK = ResponseHead(0, [("grpc-status", "0")])
  /// Trailers only.
  static func grpcError(_ error: GRPC.StatusError) -> ResponseHead {
    ResponseHead(200, [("content-type", GRPC.contentType)] + fields(error))
  }
  static func grpcTrailers(_ error: GRPC.StatusError) -> ResponseHead { ResponseHead(0, fields(error)) }
  private static func fields(_ error: GRPC.StatusError) -> [(String, String)] {
    var fields = [("grpc-status", "\(error.status.rawValue)"), ("grpc-message", GRPC.encodeMessage(error.message))]
    if let details = error.details { fields.append(("grpc-status-details-bin", details)) }
    if error == .compressed { fields.append(("grpc-accept-encoding", "identity")) }
    return fields
  }
  static let text = ResponseHead(200, [("content-type", "text/plain; charset=utf-8")])
  static let metrics = ResponseHead(200, [("content-type", "text/plain; version=0.0.4; charset=utf-8")])
  static let unready = ResponseHead(503, [("content-type", "text/plain; charset=utf-8")])
  static let json = ResponseHead(200, [("content-type", "application/json")])
  private static let errors: [Int: ResponseHead] = {
    var heads: [Int: ResponseHead] = [:]
    for status in [400, 403, 404, 405, 409, 413, 499, 500, 504] {
      heads[status] = ResponseHead(status, [("content-type", "application/json")])
    }
    heads[401] = ResponseHead(401, [("content-type", "application/json"), ("www-authenticate", "Bearer")])
    heads[503] = ResponseHead(503, [("content-type", "application/json"), ("retry-after", "1")])
    return heads
  }()
  static func error(_ status: Int) -> ResponseHead { errors[status] ?? errors[500]! }
}

/// Carries a value of the loop across a thread that hands it back to the loop untouched.
struct Unchecked<Value>: @unchecked Sendable {
  let value: Value
  init(_ value: Value) { self.value = value }
}
