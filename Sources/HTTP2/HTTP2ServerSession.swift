import CNGHTTP2

// nghttp2's server session behind the face of `ServerSession`. Streams are pooled and found through nghttp2's own
// stream_user_data: a request costs no dictionary, no String and, after the first few, no object.

public final class HTTP2ServerSession: ServerSession {
  @exclusivity(unchecked) private var session: OpaquePointer?
  private let memory: SessionMemory
  private unowned let delegate: any ServerSessionDelegate
  let limits: HTTPLimits
  @exclusivity(unchecked) private var open: [ServerStream] = []
  @exclusivity(unchecked) private var pool: [ServerStream] = []
  private var isBroken = false
  public var now: UInt64 = 0
  private var conduct: PeerConduct
  /// Cut off: nothing more is taken from the peer.
  private var isCut = false
  private var hasAcknowledged = false
  private var startedAt: UInt64?
  /// Streams whose rest is not wanted, once their response has left.
  private var refusals = 0
  /// Streams whose request has come whole in the bytes that are being read.
  @exclusivity(unchecked) private var completed: [(stream: ServerStream, id: Int32)] = []
  public private(set) var sentBytes: UInt64 = 0
  @exclusivity(unchecked) public private(set) var bufferedBytes = 0

  nonisolated(unsafe) private static let callbacks: OpaquePointer = {
    var callbacks: OpaquePointer?
    nghttp2_session_callbacks_new(&callbacks)
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks) { session, frame, context in
      guard frame!.pointee.hd.type == UInt8(NGHTTP2_HEADERS.rawValue),
        frame!.pointee.headers.cat == NGHTTP2_HCAT_REQUEST
      else { return 0 }
      return HTTP2ServerSession.from(context).begin(frame!.pointee.hd.stream_id)
    }
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks) { _, frame, context in
      HTTP2ServerSession.from(context).weigh(frame!.pointee)
      return 0
    }
    nghttp2_session_callbacks_set_on_header_callback(callbacks) {
      session, frame, name, nameLength, value, valueLength, _, context in
      guard let stream = HTTP2ServerSession.stream(session, frame!.pointee.hd.stream_id) else { return 0 }
      return HTTP2ServerSession.from(context).header(
        stream, UnsafeRawBufferPointer(start: name, count: nameLength),
        UnsafeRawBufferPointer(start: value, count: valueLength))
    }
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) { session, _, id, data, length, context in
      guard let stream = HTTP2ServerSession.stream(session, id) else { return 0 }
      HTTP2ServerSession.from(context).data(stream, UnsafeRawBufferPointer(start: data, count: length))
      return 0
    }
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { session, frame, context in
      let type = frame!.pointee.hd.type
      guard type == UInt8(NGHTTP2_HEADERS.rawValue) || type == UInt8(NGHTTP2_DATA.rawValue),
        let stream = HTTP2ServerSession.stream(session, frame!.pointee.hd.stream_id)
      else { return 0 }
      if frame!.pointee.hd.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0 {
        HTTP2ServerSession.from(context).complete(stream)
      } else {
        HTTP2ServerSession.from(context).proceed(stream, isHead: type == UInt8(NGHTTP2_HEADERS.rawValue))
      }
      return 0
    }
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks) { _, frame, _, context in
      let session = HTTP2ServerSession.from(context)
      // nghttp2 ends the connection itself.
      if frame!.pointee.hd.type == UInt8(NGHTTP2_HEADERS.rawValue),
        session.open.count >= Int(session.limits.concurrentStreams)
      {
        session.cut(.streams)
      }
      session.cut(session.conduct.invalid(session.now))
      return 0
    }
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks) { _, frame, context in
      let session = HTTP2ServerSession.from(context)
      if frame!.pointee.hd.type == UInt8(NGHTTP2_RST_STREAM.rawValue) {
        if frame!.pointee.rst_stream.error_code != UInt32(NGHTTP2_NO_ERROR.rawValue) {
          session.cut(session.conduct.invalid(session.now))
        }
      } else if session.refusals > 0, frame!.pointee.hd.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0 {
        session.responded(frame!.pointee.hd.stream_id)
      }
      return 0
    }
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { session, id, _, context in
      guard let stream = HTTP2ServerSession.stream(session, id) else { return 0 }
      HTTP2ServerSession.from(context).closed(stream)
      return 0
    }
    return callbacks!
  }()

  private static func from(_ context: UnsafeMutableRawPointer?) -> HTTP2ServerSession {
    Unmanaged<HTTP2ServerSession>.fromOpaque(context!).takeUnretainedValue()
  }
  private static func stream(_ session: OpaquePointer?, _ id: Int32) -> ServerStream? {
    nghttp2_session_get_stream_user_data(session, id).map {
      Unmanaged<ServerStream>.fromOpaque($0).takeUnretainedValue()
    }
  }

  public init(limits: HTTPLimits, delegate: any ServerSessionDelegate, memory: SessionMemory = SessionMemory()) {
    self.limits = limits
    self.memory = memory
    conduct = PeerConduct(limits)
    self.delegate = delegate
    var option: OpaquePointer?
    nghttp2_option_new(&option)
    if let resets = limits.streamResets {
      nghttp2_option_set_stream_reset_rate_limit(option, resets.burst, resets.perSecond)
    }
    var functions = memory.functions
    nghttp2_session_server_new3(
      &session, Self.callbacks, Unmanaged.passUnretained(self).toOpaque(), option, &functions)
    nghttp2_option_del(option)
    let settings = [
      nghttp2_settings_entry(
        settings_id: Int32(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS.rawValue), value: limits.concurrentStreams),
      nghttp2_settings_entry(
        settings_id: Int32(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue), value: HTTPLimits.streamWindow),
      nghttp2_settings_entry(
        settings_id: Int32(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE.rawValue), value: UInt32(limits.headerListBytes)),
      nghttp2_settings_entry(settings_id: 9, value: 1),  // NO_RFC7540_PRIORITIES
    ]
    nghttp2_submit_settings(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), settings, settings.count)
    nghttp2_session_set_local_window_size(
      session, UInt8(NGHTTP2_FLAG_NONE.rawValue), 0, HTTPLimits.connectionWindow)
  }

  deinit {
    nghttp2_session_del(session)
    for stream in open { stream.end() }
  }

  public var openStreams: Int { open.count }
  public var isOver: Bool {
    isBroken || (nghttp2_session_want_read(session) == 0 && nghttp2_session_want_write(session) == 0)
  }

  public func receive(_ bytes: UnsafeRawBufferPointer) -> Bool {
    if startedAt == nil { startedAt = now }
    let taken = nghttp2_session_mem_recv(session, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count)
    if taken < 0 { isBroken = true }
    deliver()
    return taken >= 0
  }

  /// Hands over what has come whole. Not before all that was read has been looked at: what is taken back in the same
  /// breath, or comes from a peer that is then cut off, makes no work.
  private func deliver() {
    var next = 0
    while next < completed.count {
      let (stream, id) = completed[next]
      next += 1
      guard stream.id == id, stream.isOpen, stream.isRequestComplete, !stream.isDelivered, !isCut, !isBroken else {
        continue
      }
      stream.isDelivered = true
      stream.isHead = stream.isMethod("HEAD")
      delegate.received(stream)
    }
    completed.removeAll(keepingCapacity: true)
  }

  public func output(into buffer: inout [UInt8], limit: Int) {
    while buffer.count < limit {
      var data: UnsafePointer<UInt8>?
      let count = nghttp2_session_mem_send(session, &data)
      guard count > 0 else { return }
      buffer.append(contentsOf: UnsafeBufferPointer(start: data, count: count))
    }
  }

  public func respond(_ stream: ServerStream, head: ResponseHead, body: [UInt8], trailers: ResponseHead?) {
    guard stream.isOpen, !stream.isAnswered else { return }
    stream.isAnswered = true
    stream.responseBody = body
    submit(stream, head: head, trailers: trailers)
  }

  public func respond(
    _ stream: ServerStream, head: ResponseHead, trailers: ResponseHead?, write: (inout [UInt8]) -> Void
  ) {
    guard stream.isOpen, !stream.isAnswered else { return }
    stream.isAnswered = true
    stream.ownsBody = true
    write(&stream.responseBody)
    submit(stream, head: head, trailers: trailers)
  }

  private func submit(_ stream: ServerStream, head: ResponseHead, trailers: ResponseHead?) {
    stream.responseHead = head
    stream.trailers = trailers
    bufferedBytes += stream.responseBody.count
    if trailers == nil, !stream.isResponseOpen, stream.responseBody.isEmpty || stream.isHead {
      nghttp2_submit_response(session, stream.id, head.fields.baseAddress, head.count, nil)
      return
    }
    var provider = nghttp2_data_provider()
    provider.source.ptr = Unmanaged.passUnretained(stream).toOpaque()
    provider.read_callback = { session, _, buffer, length, flags, source, context in
      let stream = Unmanaged<ServerStream>.fromOpaque(source!.pointee.ptr).takeUnretainedValue()
      let count = min(length, stream.responseBody.count - stream.sent)
      stream.responseBody.withUnsafeBufferPointer { bytes in
        if count > 0 { buffer!.update(from: bytes.baseAddress! + stream.sent, count: count) }
      }
      stream.sent += count
      HTTP2ServerSession.from(context).left(count)
      if stream.isResponseOpen {
        guard count == 0 else { return count }
        stream.isWaiting = true
        return Int(NGHTTP2_ERR_DEFERRED.rawValue)
      }
      if stream.sent == stream.responseBody.count {
        flags!.pointee |= UInt32(NGHTTP2_DATA_FLAG_EOF.rawValue)
        if let trailers = stream.trailers {
          flags!.pointee |= UInt32(NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue)
          nghttp2_submit_trailer(session, stream.id, trailers.fields.baseAddress, trailers.count)
        }
      }
      return count
    }
    nghttp2_submit_response(session, stream.id, head.fields.baseAddress, head.count, &provider)
  }

  // MARK: Responses that go on

  public func begin(_ stream: ServerStream, head: ResponseHead) {
    guard stream.isOpen, !stream.isAnswered else { return }
    stream.isAnswered = true
    stream.isResponseOpen = true
    stream.ownsBody = true
    submit(stream, head: head, trailers: nil)
  }

  public func send(_ stream: ServerStream, _ bytes: [UInt8]) -> Bool {
    guard stream.isOpen, stream.isResponseOpen else { return false }
    if stream.sent == stream.responseBody.count {
      stream.responseBody.removeAll(keepingCapacity: true)
      stream.sent = 0
    }
    guard stream.responseBody.count - stream.sent + bytes.count <= HTTPLimits.unsentResponseBytesMax else {
      return false
    }
    stream.responseBody += bytes
    bufferedBytes += bytes.count
    resume(stream)
    return true
  }

  public func finish(_ stream: ServerStream, trailers: ResponseHead) {
    guard stream.isOpen, stream.isResponseOpen else { return }
    stream.isResponseOpen = false
    stream.trailers = trailers
    resume(stream)
  }

  private func resume(_ stream: ServerStream) {
    guard stream.isWaiting else { return }
    stream.isWaiting = false
    nghttp2_session_resume_data(session, stream.id)
  }

  public func shutdown(final: Bool) {
    if final {
      let last = nghttp2_session_get_last_proc_stream_id(session)
      nghttp2_submit_goaway(
        session, UInt8(NGHTTP2_FLAG_NONE.rawValue), last, UInt32(NGHTTP2_NO_ERROR.rawValue), nil, 0)
    } else {
      nghttp2_submit_shutdown_notice(session)
    }
  }

  public func close() {
    isBroken = true
    while let stream = open.last { closed(stream) }
  }

  // MARK: Callbacks

  private func left(_ count: Int) {
    sentBytes &+= UInt64(count)
    bufferedBytes -= count
  }

  /// - Returns: what nghttp2 is to do with it.
  private func begin(_ id: Int32) -> Int32 {
    guard !isCut else { return Int32(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue) }
    conduct.opened()
    let limit: HTTPLimit? =
      open.count + conduct.stillRunning(now) >= Int(limits.concurrentStreams)
      ? .abandoned : bufferedBytes > HTTPLimits.bufferedBytesMax ? .buffered : nil
    if let limit {
      // As if there were too many streams: it may be asked again.
      delegate.ranInto(limit)
      nghttp2_submit_rst_stream(
        session, UInt8(NGHTTP2_FLAG_NONE.rawValue), id, UInt32(NGHTTP2_REFUSED_STREAM.rawValue))
      return 0
    }
    let stream = pool.popLast() ?? ServerStream()
    stream.begin(id: id)
    stream.beganAt = now
    stream.openIndex = open.count
    open.append(stream)
    nghttp2_session_set_stream_user_data(session, id, Unmanaged.passUnretained(stream).toOpaque())
    return 0
  }

  /// Counts a frame, also one that nghttp2 then ignores.
  private func weigh(_ frame: nghttp2_frame_hd) {
    let isAcknowledgement = frame.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) != 0
    switch UInt32(frame.type) {
    case NGHTTP2_DATA.rawValue:
      let isLast = frame.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
      cut(conduct.data(isEmpty: frame.length == 0 && !isLast))
    case NGHTTP2_PING.rawValue: if !isAcknowledgement { cut(conduct.ping(now)) }
    case NGHTTP2_SETTINGS.rawValue:
      if isAcknowledgement { hasAcknowledged = true } else { cut(conduct.settings(now)) }
    case NGHTTP2_PRIORITY.rawValue, Self.priorityUpdate: cut(conduct.priority())
    default: break
    }
  }

  /// RFC 9218; nghttp2 1.52 ignores it.
  private static let priorityUpdate: UInt32 = 0x10

  private func cut(_ limit: HTTPLimit?) {
    guard let limit, !isCut else { return }
    isCut = true
    delegate.ranInto(limit)
    nghttp2_session_terminate_session(session, UInt32(NGHTTP2_ENHANCE_YOUR_CALM.rawValue))
  }

  /// The response to a request that was refused has left: the stream ends here, for both sides.
  private func responded(_ id: Int32) {
    guard let stream = Self.stream(session, id), stream.isRefused else { return }
    refusals -= 1
    stream.isRefused = false
    guard !stream.isRequestComplete else { return }
    nghttp2_submit_rst_stream(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), id, UInt32(NGHTTP2_NO_ERROR.rawValue))
  }

  public func checkTime() -> HTTPLimit? {
    func isOver(_ start: UInt64, _ limit: Duration) -> Bool { now > start &+ limit.limitNanoseconds }
    if let startedAt, !hasAcknowledged, isOver(startedAt, limits.settings) { return .settingsTime }
    for stream in open where !stream.isDelivered && isOver(stream.beganAt, limits.request) {
      delegate.ranInto(.requestTime)
      refuse(stream, Self.requestTooSlow)
    }
    return nil
  }

  private func header(_ stream: ServerStream, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Int32
  {
    stream.headerBytes += name.count + value.count + 32
    guard stream.headerBytes <= limits.headerListBytes else {
      // A bomb: even to look at its fields costs too much.
      if stream.headerBytes > Self.headerBombFactor * limits.headerListBytes {
        cut(.headerList)
        return Int32(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
      }
      if !stream.isDelivered {
        refuse(stream, Self.headersTooLarge)
        if let limit = conduct.headersTooLong() { cut(limit) } else { delegate.ranInto(.headerList) }
      }
      return 0
    }
    stream.headers.append(name: name, value: value)
    return 0
  }

  private static let headerBombFactor = 4
  private static let headersTooLarge = ResponseHead(431)
  private static let requestTooSlow = ResponseHead(408)
  private static let bodyTooLarge = ResponseHead(413)
  /// RESOURCE_EXHAUSTED, in gRPC's words.
  private static let messageTooLarge = ResponseHead(
    200,
    [
      ("content-type", "application/grpc"), ("grpc-status", "8"),
      ("grpc-message", "the message is longer than this port allows"),
    ])

  /// Answers at once and ignores the rest of the request.
  private func refuse(_ stream: ServerStream, _ head: ResponseHead) {
    let isGRPC = stream.headers.hasPrefix("content-type", "application/grpc")
    let head = isGRPC && head === Self.bodyTooLarge ? Self.messageTooLarge : head
    stream.isStreaming = false
    stream.isDelivered = true
    stream.isRefused = true
    refusals += 1
    stream.body.removeAll()
    respond(stream, head: head, body: [], trailers: nil)
  }

  private func data(_ stream: ServerStream, _ bytes: UnsafeRawBufferPointer) {
    guard !stream.isDelivered || stream.isStreaming else { return }
    guard stream.body.count + bytes.count <= limits.bodyBytes else {
      delegate.ranInto(.body)
      return refuse(stream, Self.bodyTooLarge)
    }
    stream.body.append(contentsOf: bytes)
  }

  /// More of a request has come, and more follows.
  private func proceed(_ stream: ServerStream, isHead: Bool) {
    if isHead, !stream.isDelivered {
      guard delegate.streams(stream) else { return }
      stream.isStreaming = true
      stream.isDelivered = true
    }
    if stream.isStreaming { delegate.received(stream) }
  }

  private func complete(_ stream: ServerStream) {
    stream.isRequestComplete = true
    if stream.isStreaming { return delegate.received(stream) }
    if !stream.isDelivered { completed.append((stream, stream.id)) }
  }

  private func closed(_ stream: ServerStream) {
    let last = open.removeLast()
    if last !== stream {
      open[stream.openIndex] = last
      last.openIndex = stream.openIndex
    }
    nghttp2_session_set_stream_user_data(session, stream.id, nil)
    bufferedBytes -= stream.responseBody.count - stream.sent
    if stream.isRefused { refusals -= 1 }
    let wasOwed = stream.isDelivered && !stream.isAnswered || stream.isResponseOpen
    if stream.isRequestComplete, !stream.isAnswered || wasOwed { conduct.abandoned(now) }
    stream.end()
    if wasOwed { delegate.cancelled(stream) }
    // A cancelled stream may still be held by its handler, which will find it closed; it is not used again.
    if !wasOwed { pool.append(stream) }
  }
}
