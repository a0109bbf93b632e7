import CNGHTTP2

// nghttp2's client session: many calls on one connection, each ended exactly once by a response or a failure. Calls are
// pooled and found through nghttp2's own stream_user_data: in the steady state a call costs no dictionary, no closure
// and no object.

public final class HTTP2ClientSession {
  @exclusivity(unchecked) private var session: OpaquePointer?
  private let memory: SessionMemory
  private let authority: UnsafeMutableBufferPointer<UInt8>
  private let authorityBytes: Int
  @exclusivity(unchecked) private var open: [ClientCall] = []
  @exclusivity(unchecked) private var pool: [ClientCall] = []
  private let responseBytesMax: Int
  /// Streams whose request has not been ended.
  @exclusivity(unchecked) private var openRequests = 0
  /// The peer's SETTINGS have arrived: it speaks HTTP/2, and calls may be made.
  public private(set) var isUp = false
  public private(set) var isBroken = false
  /// The peer said that it takes no further streams.
  public private(set) var isLeaving = false
  /// PINGs answered so far.
  public private(set) var pongs = 0

  nonisolated(unsafe) private static let callbacks: OpaquePointer = {
    var callbacks: OpaquePointer?
    nghttp2_session_callbacks_new(&callbacks)
    nghttp2_session_callbacks_set_on_header_callback(callbacks) {
      session, frame, name, nameLength, value, valueLength, _, _ in
      // Headers come many to a call: it is used here without being counted.
      if let call = nghttp2_session_get_stream_user_data(session, frame!.pointee.hd.stream_id) {
        Unmanaged<ClientCall>.fromOpaque(call)._withUnsafeGuaranteedRef {
          $0.header(
            UnsafeBufferPointer(start: name, count: nameLength), UnsafeBufferPointer(start: value, count: valueLength))
        }
      }
      return 0
    }
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) { session, _, id, data, length, context in
      if let call = HTTP2ClientSession.call(session, id) {
        HTTP2ClientSession.from(context).data(call, UnsafeBufferPointer(start: data, count: length))
      }
      return 0
    }
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, context in
      let flags = frame!.pointee.hd.flags
      switch UInt32(frame!.pointee.hd.type) {
      case NGHTTP2_SETTINGS.rawValue where flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) == 0:
        HTTP2ClientSession.from(context).isUp = true
      case NGHTTP2_GOAWAY.rawValue: HTTP2ClientSession.from(context).isLeaving = true
      case NGHTTP2_PING.rawValue where flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) != 0:
        HTTP2ClientSession.from(context).pongs += 1
      case NGHTTP2_HEADERS.rawValue, NGHTTP2_DATA.rawValue:
        let session = HTTP2ClientSession.from(context)
        guard session.openRequests > 0, flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0 else { break }
        session.answered(frame!.pointee.hd.stream_id)
      default: break
      }
      return 0
    }
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { session, id, code, context in
      if let call = HTTP2ClientSession.call(session, id) { HTTP2ClientSession.from(context).closed(call, code) }
      return 0
    }
    return callbacks!
  }()
  private static func from(_ context: UnsafeMutableRawPointer?) -> HTTP2ClientSession {
    Unmanaged<HTTP2ClientSession>.fromOpaque(context!).takeUnretainedValue()
  }
  private static func call(_ session: OpaquePointer?, _ id: Int32) -> ClientCall? {
    nghttp2_session_get_stream_user_data(session, id).map {
      Unmanaged<ClientCall>.fromOpaque($0).takeUnretainedValue()
    }
  }

  /// - Parameter responseBytesMax: a longer response body is cut off as a failure.
  public init(authority: String, memory: SessionMemory = SessionMemory(), responseBytesMax: Int = 16 << 20) {
    self.responseBytesMax = responseBytesMax
    self.memory = memory
    self.authority = .allocate(capacity: max(1, authority.utf8.count))
    _ = self.authority.initialize(from: authority.utf8)
    authorityBytes = authority.utf8.count
    var functions = memory.functions
    nghttp2_session_client_new3(
      &session, Self.callbacks, Unmanaged.passUnretained(self).toOpaque(), nil, &functions)
    let settings = [
      nghttp2_settings_entry(settings_id: Int32(NGHTTP2_SETTINGS_ENABLE_PUSH.rawValue), value: 0),
      nghttp2_settings_entry(
        settings_id: Int32(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue), value: HTTPLimits.streamWindow),
    ]
    nghttp2_submit_settings(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), settings, settings.count)
    nghttp2_session_set_local_window_size(
      session, UInt8(NGHTTP2_FLAG_NONE.rawValue), 0, HTTPLimits.connectionWindow)
  }
  deinit {
    nghttp2_session_del(session)
    authority.deallocate()
  }

  public var openCalls: Int { open.count }
  public var isOver: Bool {
    isBroken || (nghttp2_session_want_read(session) == 0 && nghttp2_session_want_write(session) == 0)
  }
  /// Whether `output` would give anything.
  public var wantsOutput: Bool { nghttp2_session_want_write(session) != 0 }

  public func receive(_ bytes: UnsafeRawBufferPointer) {
    let taken = nghttp2_session_mem_recv(session, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count)
    if taken < 0 { isBroken = true }
  }

  public func output(into buffer: inout [UInt8], limit: Int) {
    while buffer.count < limit {
      var data: UnsafePointer<UInt8>?
      let count = nghttp2_session_mem_send(session, &data)
      guard count > 0 else { return }
      buffer.append(contentsOf: UnsafeBufferPointer(start: data, count: count))
    }
  }

  public func ping() { nghttp2_submit_ping(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil) }

  /// Sends a request; `handler` is told how it ended exactly once, never before this returns.
  /// - Parameters:
  ///   - varying: the value of the head's varying header; nil leaves it out.
  ///   - body: appends the request body to the buffer it is given.
  /// - Returns: the stream, for `cancel`; nil when the session takes no more calls (nothing will be told).
  public func call(
    _ head: RequestHead, varying: String? = nil, handler: any CallHandler, token: UInt64,
    body: (inout [UInt8]) -> Void
  ) -> Int32? {
    guard !isBroken, !isLeaving else { return nil }
    let call = pool.popLast() ?? ClientCall()
    body(&call.request)
    return begin(call, head, varying, handler, token)
  }

  /// Begins a request whose body follows by `send`, and whose response is handed over as it comes. Otherwise as `call`.
  public func open(_ head: RequestHead, handler: any StreamHandler, token: UInt64) -> Int32? {
    guard !isBroken, !isLeaving else { return nil }
    let call = pool.popLast() ?? ClientCall()
    call.stream = handler
    call.isRequestOpen = true
    guard let id = begin(call, head, nil, handler, token) else { return nil }
    openRequests += 1
    return id
  }

  private func begin(
    _ call: ClientCall, _ head: RequestHead, _ varying: String?, _ handler: any CallHandler, _ token: UInt64
  ) -> Int32? {
    guard let id = submit(call, head, varying ?? "") else {
      recycle(call)
      return nil
    }
    call.id = id
    call.head = head
    call.handler = handler
    call.token = token
    call.openIndex = open.count
    open.append(call)
    return id
  }

  /// Appends to the body of an open request.
  /// - Parameter isLast: ends the body; the response goes on.
  /// - Returns: false when nothing was taken: the stream is not open for sending (any more), or more than
  ///   `HTTPLimits.unsentStreamBytesMax` would wait for a peer that does not read.
  public func send(_ id: Int32, isLast: Bool = false, body: (inout [UInt8]) -> Void = { _ in }) -> Bool {
    guard !isBroken, let call = open.first(where: { $0.id == id }), call.isRequestOpen, call.failure == nil else {
      return false
    }
    let before = call.request.count
    body(&call.request)
    guard call.request.count - call.sent <= HTTPLimits.unsentStreamBytesMax else {
      call.request.removeLast(call.request.count - before)
      return false
    }
    if isLast { endRequest(call) }
    if call.isWaiting {
      call.isWaiting = false
      nghttp2_session_resume_data(session, id)
    }
    return true
  }

  private func submit(_ call: ClientCall, _ head: RequestHead, _ varying: String) -> Int32? {
    let context = Unmanaged.passUnretained(call).toOpaque()
    var provider = nghttp2_data_provider()
    provider.source.ptr = context
    provider.read_callback = { _, _, buffer, length, flags, source, _ in
      let call = Unmanaged<ClientCall>.fromOpaque(source!.pointee.ptr).takeUnretainedValue()
      let count = call.takeRequest(into: buffer!, length: length)
      if call.isRequestOpen {
        guard count == 0 else { return count }
        call.isWaiting = true
        return Int(NGHTTP2_ERR_DEFERRED.rawValue)
      }
      if call.sent == call.request.count { flags!.pointee |= UInt32(NGHTTP2_DATA_FLAG_EOF.rawValue) }
      return count
    }
    let fixed = head.fields.count
    var varying = varying
    let id = varying.withUTF8 { value in
      withUnsafeTemporaryAllocation(of: nghttp2_nv.self, capacity: fixed + 1) { fields in
        fields.baseAddress!.initialize(from: head.fields.baseAddress!, count: fixed)
        fields[RequestHead.authorityPlace].value = authority.baseAddress
        fields[RequestHead.authorityPlace].valuelen = authorityBytes
        var count = fixed
        if var field = head.varying, !value.isEmpty {
          field.value = UnsafeMutablePointer(mutating: value.baseAddress)
          field.valuelen = value.count
          (fields.baseAddress! + fixed).initialize(to: field)
          count += 1
        }
        guard !call.request.isEmpty || call.isRequestOpen else {
          return nghttp2_submit_request(session, nil, fields.baseAddress, count, nil, context)
        }
        return nghttp2_submit_request(session, nil, fields.baseAddress, count, &provider, context)
      }
    }
    return id > 0 ? id : nil
  }

  /// Resets the stream; its handler is told `.cancelled` when the stream has closed.
  public func cancel(_ id: Int32) {
    // Cancelling is rare beside calling, and few calls are open at a time: a search beats keeping an index.
    guard let call = open.first(where: { $0.id == id }) else { return }
    call.failure = .cancelled
    nghttp2_submit_rst_stream(
      session, UInt8(NGHTTP2_FLAG_NONE.rawValue), id, UInt32(NGHTTP2_CANCEL.rawValue))
  }

  /// The connection has ended: every open call fails, in the order of calling.
  public func close() {
    isBroken = true
    let ended = open.sorted { $0.id < $1.id }
    open.removeAll()
    for call in ended { nghttp2_session_set_stream_user_data(session, call.id, nil) }
    for call in ended {
      let handler = call.handler
      call.handler = nil
      call.stream = nil
      handler?.ended(call.token, .failure(call.failure ?? .connectionLost))
    }
    closedCalls += ended
  }
  /// Calls of a closed session live as long as the session: nghttp2 may still hold their address.
  private var closedCalls: [ClientCall] = []

  // MARK: Callbacks

  private func data(_ call: ClientCall, _ bytes: UnsafeBufferPointer<UInt8>) {
    guard call.failure == nil else { return }
    if let stream = call.stream { return stream.received(call.token, UnsafeRawBufferPointer(bytes)) }
    guard call.body.count + bytes.count <= responseBytesMax else {
      call.failure = .responseTooLarge
      nghttp2_submit_rst_stream(
        session, UInt8(NGHTTP2_FLAG_NONE.rawValue), call.id, UInt32(NGHTTP2_CANCEL.rawValue))
      return
    }
    call.body.append(contentsOf: bytes)
  }

  /// The response is over: a request that is still open has nobody left to read it. The stream closes without an error.
  private func answered(_ id: Int32) {
    guard let call = Self.call(session, id), call.isRequestOpen else { return }
    endRequest(call)
    nghttp2_submit_rst_stream(
      session, UInt8(NGHTTP2_FLAG_NONE.rawValue), id, UInt32(NGHTTP2_NO_ERROR.rawValue))
  }
  private func endRequest(_ call: ClientCall) {
    guard call.isRequestOpen else { return }
    call.isRequestOpen = false
    openRequests -= 1
  }

  private func closed(_ call: ClientCall, _ code: UInt32) {
    // A stream that had not been sent when the session closed gives its call's address once more.
    guard let handler = call.handler else { return }
    nghttp2_session_set_stream_user_data(session, call.id, nil)
    endRequest(call)
    let last = open.removeLast()
    if last !== call {
      open[call.openIndex] = last
      last.openIndex = call.openIndex
    }
    let outcome: CallOutcome
    if let failure = call.failure {
      outcome = .failure(failure)
    } else if code == UInt32(NGHTTP2_NO_ERROR.rawValue), call.status != 0 {
      outcome = .response(call)
    } else if code == UInt32(NGHTTP2_REFUSED_STREAM.rawValue) {
      outcome = .failure(isLeaving ? .connectionLost : .refused)
    } else {
      outcome = .failure(.reset(code: code))
    }
    call.handler = nil
    handler.ended(call.token, outcome)
    recycle(call)
  }

  private func recycle(_ call: ClientCall) {
    call.reset()
    pool.append(call)
  }
}

extension ClientCall {
  private static let messageBytesMax = 1024

  fileprivate func header(_ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>) {
    func isNamed(_ text: StaticString) -> Bool {
      guard name.count == text.utf8CodeUnitCount else { return false }
      for index in 0..<name.count where name[index] != text.utf8Start[index] { return false }
      return true
    }
    if isNamed(":status") {
      status = Self.number(value) ?? 0
    } else if isNamed("grpc-status") {
      grpcStatus = Self.number(value) ?? 2
    } else if isNamed("grpc-message") {
      message.removeAll(keepingCapacity: true)
      message.append(contentsOf: value.prefix(Self.messageBytesMax))
    }
  }

  private static func number(_ text: UnsafeBufferPointer<UInt8>) -> Int? {
    guard (1...9).contains(text.count) else { return nil }
    var value = 0
    for byte in text {
      guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
      value = value * 10 + Int(byte - UInt8(ascii: "0"))
    }
    return value
  }
}
