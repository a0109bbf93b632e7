import CNGHTTP2

// nghttp2's client session: many calls on one connection, each ended exactly once by a response or a failure.

public struct ClientResponse: Sendable, Equatable {
  public var status = 0
  public var grpcStatus: Int?
  public var grpcMessage = ""
  public var body: [UInt8] = []
}

/// Why a call brought no response.
public enum ClientFailure: Error, Sendable, Equatable {
  /// The connection ended, or was not there.
  case connectionLost
  /// The peer did not take the stream: it has too many, or (after GOAWAY) it is leaving.
  case refused
  case reset(code: UInt32)
  case cancelled
  case responseTooLarge
}

public final class HTTP2ClientSession {
  public typealias Completion = (Result<ClientResponse, ClientFailure>) -> Void

  private final class Call {
    var response = ClientResponse()
    var completion: Completion?
    var body: [UInt8] = []
    var sent = 0
    var failure: ClientFailure?
  }
  private var session: OpaquePointer?
  private var calls: [Int32: Call] = [:]
  private let responseBytesMax: Int
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
      _, frame, name, nameLength, value, valueLength, _, context in
      HTTP2ClientSession.from(context).header(
        frame!.pointee.hd.stream_id, UnsafeBufferPointer(start: name, count: nameLength),
        UnsafeBufferPointer(start: value, count: valueLength))
      return 0
    }
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) { _, _, id, data, length, context in
      HTTP2ClientSession.from(context).data(id, UnsafeBufferPointer(start: data, count: length))
      return 0
    }
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, context in
      let this = HTTP2ClientSession.from(context)
      let flags = frame!.pointee.hd.flags
      switch UInt32(frame!.pointee.hd.type) {
      case NGHTTP2_SETTINGS.rawValue where flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) == 0: this.isUp = true
      case NGHTTP2_GOAWAY.rawValue: this.isLeaving = true
      case NGHTTP2_PING.rawValue where flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) != 0: this.pongs += 1
      default: break
      }
      return 0
    }
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { _, id, code, context in
      HTTP2ClientSession.from(context).closed(id, code)
      return 0
    }
    return callbacks!
  }()
  private static func from(_ context: UnsafeMutableRawPointer?) -> HTTP2ClientSession {
    Unmanaged<HTTP2ClientSession>.fromOpaque(context!).takeUnretainedValue()
  }

  /// - Parameter responseBytesMax: a longer response body is cut off as a failure.
  public init(responseBytesMax: Int = 16 << 20) {
    self.responseBytesMax = responseBytesMax
    nghttp2_session_client_new(&session, Self.callbacks, Unmanaged.passUnretained(self).toOpaque())
    let settings = [
      nghttp2_settings_entry(settings_id: Int32(NGHTTP2_SETTINGS_ENABLE_PUSH.rawValue), value: 0),
      nghttp2_settings_entry(
        settings_id: Int32(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue), value: HTTPLimits.streamWindow),
    ]
    nghttp2_submit_settings(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), settings, settings.count)
    nghttp2_session_set_local_window_size(
      session, UInt8(NGHTTP2_FLAG_NONE.rawValue), 0, HTTPLimits.connectionWindow)
  }
  deinit { nghttp2_session_del(session) }

  public var openCalls: Int { calls.count }
  public var isOver: Bool {
    isBroken || (nghttp2_session_want_read(session) == 0 && nghttp2_session_want_write(session) == 0)
  }

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

  /// Sends a request; `completion` is called exactly once, never before this returns.
  /// - Returns: the stream, for `cancel`; nil when the session takes no more calls (nothing will be called).
  public func call(
    method: StaticString, path: StaticString, authority: String, headers: [(StaticString, String)], body: [UInt8],
    completion: @escaping Completion
  ) -> Int32? {
    guard !isBroken, !isLeaving else { return nil }
    let call = Call()
    call.body = body
    call.completion = completion
    var provider = nghttp2_data_provider()
    provider.source.ptr = Unmanaged.passUnretained(call).toOpaque()
    provider.read_callback = { _, _, buffer, length, flags, source, _ in
      let call = Unmanaged<Call>.fromOpaque(source!.pointee.ptr).takeUnretainedValue()
      let count = min(length, call.body.count - call.sent)
      call.body.withUnsafeBufferPointer { bytes in
        if count > 0 { buffer!.update(from: bytes.baseAddress! + call.sent, count: count) }
      }
      call.sent += count
      if call.sent == call.body.count { flags!.pointee |= UInt32(NGHTTP2_DATA_FLAG_EOF.rawValue) }
      return count
    }
    var texts: [UInt8] = []
    texts.append(contentsOf: authority.utf8)
    for header in headers { texts.append(contentsOf: header.1.utf8) }
    let id = texts.withUnsafeMutableBufferPointer { texts in
      withUnsafeTemporaryAllocation(of: nghttp2_nv.self, capacity: 4 + headers.count) { fields in
        func field(_ name: StaticString, _ value: UnsafeMutablePointer<UInt8>, _ length: Int) -> nghttp2_nv {
          nghttp2_nv(
            name: UnsafeMutablePointer(mutating: name.utf8Start), value: value, namelen: name.utf8CodeUnitCount,
            valuelen: length, flags: UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue))
        }
        func fixed(_ name: StaticString, _ value: StaticString) -> nghttp2_nv {
          field(name, UnsafeMutablePointer(mutating: value.utf8Start), value.utf8CodeUnitCount)
        }
        fields[0] = fixed(":method", method)
        fields[1] = fixed(":scheme", "http")
        fields[2] = field(":authority", texts.baseAddress!, authority.utf8.count)
        fields[3] = fixed(":path", path)
        var offset = authority.utf8.count
        for (index, header) in headers.enumerated() {
          fields[4 + index] = field(header.0, texts.baseAddress! + offset, header.1.utf8.count)
          offset += header.1.utf8.count
        }
        if body.isEmpty {
          return nghttp2_submit_request(session, nil, fields.baseAddress, fields.count, nil, nil)
        }
        return nghttp2_submit_request(session, nil, fields.baseAddress, fields.count, &provider, nil)
      }
    }
    guard id > 0 else { return nil }
    calls[id] = call
    return id
  }

  /// Resets the stream; its completion is told `.cancelled` when the stream has closed.
  public func cancel(_ id: Int32) {
    guard let call = calls[id] else { return }
    call.failure = .cancelled
    nghttp2_submit_rst_stream(
      session, UInt8(NGHTTP2_FLAG_NONE.rawValue), id, UInt32(NGHTTP2_CANCEL.rawValue))
  }

  /// The connection has ended: every open call fails.
  public func close() {
    isBroken = true
    let open = calls.sorted { $0.key < $1.key }
    calls.removeAll()
    for (_, call) in open { call.completion?(.failure(call.failure ?? .connectionLost)) }
  }

  // MARK: Callbacks

  private func header(_ id: Int32, _ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>) {
    guard let call = calls[id] else { return }
    func isNamed(_ text: StaticString) -> Bool {
      name.count == text.utf8CodeUnitCount
        && name.elementsEqual(UnsafeBufferPointer(start: text.utf8Start, count: name.count))
    }
    if isNamed(":status") {
      call.response.status = Int(String(decoding: value, as: UTF8.self)) ?? 0
    } else if isNamed("grpc-status") {
      call.response.grpcStatus = Int(String(decoding: value, as: UTF8.self)) ?? 2
    } else if isNamed("grpc-message") {
      call.response.grpcMessage = String(decoding: value.prefix(1024), as: UTF8.self)
    }
  }

  private func data(_ id: Int32, _ bytes: UnsafeBufferPointer<UInt8>) {
    guard let call = calls[id], call.failure == nil else { return }
    guard call.response.body.count + bytes.count <= responseBytesMax else {
      call.failure = .responseTooLarge
      nghttp2_submit_rst_stream(
        session, UInt8(NGHTTP2_FLAG_NONE.rawValue), id, UInt32(NGHTTP2_CANCEL.rawValue))
      return
    }
    call.response.body.append(contentsOf: bytes)
  }

  private func closed(_ id: Int32, _ code: UInt32) {
    guard let call = calls.removeValue(forKey: id) else { return }
    if let failure = call.failure {
      call.completion?(.failure(failure))
    } else if code == UInt32(NGHTTP2_NO_ERROR.rawValue), call.response.status != 0 {
      call.completion?(.success(call.response))
    } else if code == UInt32(NGHTTP2_REFUSED_STREAM.rawValue) {
      call.completion?(.failure(isLeaving ? .connectionLost : .refused))
    } else {
      call.completion?(.failure(.reset(code: code)))
    }
  }
}
