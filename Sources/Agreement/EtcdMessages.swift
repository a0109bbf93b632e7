import Wire

// The messages of etcd's v3 API that the store speaks (api/etcdserverpb/rpc.proto, api/mvccpb/kv.proto), with the
// fields it uses. Unknown fields are skipped, as etcd adds some with every version.

enum Etcd {
  /// A reply's message.
  static func decode<Message>(
    _ bytes: [UInt8], _ message: (UnsafeRawBufferPointer) throws(WireError) -> Message
  ) -> Result<Message, GRPC.StatusError> {
    bytes.withUnsafeBytes { raw in
      do throws(WireError) { return .success(try message(raw)) } catch {
        return .failure(GRPC.StatusError(.internal, "a reply that is none: \(error)"))
      }
    }
  }

  struct KeyValue: Equatable {
    var key: [UInt8] = []
    var createRevision: UInt64 = 0
    var modRevision: UInt64 = 0
    /// How often it has been written since it was created.
    var version: UInt64 = 0
    var value: [UInt8] = []
    var lease: UInt64 = 0

    init() {}
    init(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
      var reader = ProtoReader(bytes)
      while try reader.next() {
        switch reader.field {
        case 1: key = Array(try reader.raw())
        case 2: createRevision = try reader.uint()
        case 3: modRevision = try reader.uint()
        case 4: version = try reader.uint()
        case 5: value = Array(try reader.raw())
        case 6: lease = try reader.uint()
        default: try reader.skip()
        }
      }
    }
  }

  struct Header: Equatable {
    var cluster: UInt64 = 0
    var revision: UInt64 = 0

    init() {}
    init(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
      var reader = ProtoReader(bytes)
      while try reader.next() {
        switch reader.field {
        case 1: cluster = try reader.uint()
        case 3: revision = try reader.uint()
        default: try reader.skip()
        }
      }
    }
  }

  // MARK: KV

  /// The keys from `key` up to and without `end`; `key` alone without one.
  struct Range {
    var key: [UInt8]
    var end: [UInt8] = []
    /// 0 = all.
    var limit = 0

    func encode(into writer: inout ProtoWriter) {
      writer.data(1, key)
      writer.data(2, end)
      writer.uint(3, UInt64(limit))
    }
  }

  struct RangeReply: Equatable {
    var header = Header()
    var values: [KeyValue] = []

    init() {}
    init(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
      var reader = ProtoReader(bytes)
      while try reader.next() {
        switch reader.field {
        case 1: header = try Header(try reader.raw())
        case 2: values.append(try KeyValue(try reader.raw()))
        default: try reader.skip()
        }
      }
    }
  }

  enum Compare {
    /// 0 = the key is not there.
    case created(key: [UInt8], UInt64)
    case modified(key: [UInt8], UInt64)

    func encode(into writer: inout ProtoWriter) {
      // result 0 = EQUAL is the default; target 1 = CREATE, 2 = MOD.
      switch self {
      case .created(let key, let revision):
        writer.uint(2, 1)
        writer.data(3, key)
        writer.member(5, revision)
      case .modified(let key, let revision):
        writer.uint(2, 2)
        writer.data(3, key)
        writer.member(6, revision)
      }
    }
  }

  enum Operation {
    case range(Range)
    case put(key: [UInt8], value: [UInt8], lease: UInt64)

    func encode(into writer: inout ProtoWriter) {
      switch self {
      case .range(let range): writer.message(1) { range.encode(into: &$0) }
      case .put(let key, let value, let lease):
        writer.message(2) { writer in
          writer.data(1, key)
          writer.data(2, value)
          writer.uint(3, lease)
        }
      }
    }
  }

  /// All or nothing: `success` when every comparison holds, else `failure`.
  struct Transaction {
    var compare: [Compare] = []
    var success: [Operation] = []
    var failure: [Operation] = []

    func encode() -> [UInt8] {
      var writer = ProtoWriter()
      for compare in compare { writer.message(1) { compare.encode(into: &$0) } }
      for operation in success { writer.message(2) { operation.encode(into: &$0) } }
      for operation in failure { writer.message(3) { operation.encode(into: &$0) } }
      return writer.bytes
    }
  }

  struct TransactionReply: Equatable {
    var header = Header()
    var succeeded = false
    /// What the ranges found, in their order.
    var ranges: [RangeReply] = []

    init() {}
    init(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
      var reader = ProtoReader(bytes)
      while try reader.next() {
        switch reader.field {
        case 1: header = try Header(try reader.raw())
        case 2: succeeded = try reader.bool()
        case 3:
          var operation = ProtoReader(try reader.raw())
          while try operation.next() {
            if operation.field == 1 {
              ranges.append(try RangeReply(try operation.raw()))
            } else {
              try operation.skip()
            }
          }
        default: try reader.skip()
        }
      }
    }
  }

  // MARK: Watch

  /// Asks for every change of a key from `revision` on. A reply that would be too long comes in fragments.
  static func watch(key: [UInt8], from revision: UInt64) -> [UInt8] {
    var writer = ProtoWriter()
    writer.message(1) { writer in
      writer.data(1, key)
      writer.uint(3, revision)
      writer.bool(8, true)
    }
    return writer.bytes
  }

  struct WatchReply: Equatable {
    struct Event: Equatable {
      var isDeletion = false
      /// Of a deletion: the key, and when.
      var value = KeyValue()
    }
    var header = Header()
    var isCreated = false
    var isCanceled = false
    /// What is older is gone; 0 = nothing that was asked for is.
    var compactRevision: UInt64 = 0
    var reason = ""
    var events: [Event] = []

    init() {}
    init(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
      var reader = ProtoReader(bytes)
      while try reader.next() {
        switch reader.field {
        case 1: header = try Header(try reader.raw())
        case 3: isCreated = try reader.bool()
        case 4: isCanceled = try reader.bool()
        case 5: compactRevision = try reader.uint()
        case 6: reason = try reader.string(maxBytes: 4096)
        case 11:
          var event = Event()
          var inner = ProtoReader(try reader.raw())
          while try inner.next() {
            switch inner.field {
            case 1: event.isDeletion = try inner.uint() == 1
            case 2: event.value = try KeyValue(try inner.raw())
            default: try inner.skip()
            }
          }
          events.append(event)
        default: try reader.skip()
        }
      }
    }
  }

  // MARK: Lease

  static func grant(seconds: Int) -> [UInt8] {
    var writer = ProtoWriter()
    writer.uint(1, UInt64(seconds))
    return writer.bytes
  }
  /// For both a sign of life and a revocation.
  static func lease(_ id: UInt64) -> [UInt8] {
    var writer = ProtoWriter()
    writer.uint(1, id)
    return writer.bytes
  }

  /// Of a grant, or of a sign of life.
  struct LeaseReply: Equatable {
    var id: UInt64 = 0
    /// How long it lives from now on; 0 = it is gone.
    var seconds = 0
    var error = ""

    init() {}
    init(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
      var reader = ProtoReader(bytes)
      while try reader.next() {
        switch reader.field {
        case 2: id = try reader.uint()
        case 3:
          // An int64: a negative one is a lease that is gone, too.
          let value = Int64(bitPattern: try reader.uint())
          seconds = Int(clamping: max(0, min(value, 86_400)))
        case 4: error = try reader.string(maxBytes: 4096)
        default: try reader.skip()
        }
      }
    }
  }
}
