import RankingCore

// Status, join, leave and the driver's orders ↔ bytes; the field numbers are those of Proto/worker.proto and
// Proto/coordinator.proto.

extension WireLimit {
  /// Names of processes, zones and addresses.
  static let nameBytes = 255
  /// Coordinators in a join's reply.
  static let coordinators = 64
  /// Versions in one status.
  static let holdings = 256
}

extension WorkerStatus {
  public func encoded() -> [UInt8] {
    var writer = ProtoWriter()
    writer.string(1, name)
    writer.uint(2, incarnation)
    writer.bool(3, draining)
    for holding in holdings {
      writer.message(4) { writer in
        writer.string(1, holding.release.model)
        writer.string(2, holding.release.version)
        writer.uint(3, UInt64(holding.shardCount))
        writer.packedVarints(4, holding.ready)
        writer.packedVarints(5, holding.loading)
        writer.packedVarints(6, holding.failed)
        writer.string(7, holding.failure)
        writer.uint(8, holding.fingerprint)
      }
    }
    writer.uint(5, UInt64(queued))
    writer.uint(6, UInt64(running))
    writer.uint(7, UInt64(max(0, oldestJob.nanoseconds / 1_000_000)))
    writer.uint(8, UInt64(admits))
    writer.uint(9, capacityBytes)
    writer.uint(10, heldBytes)
    writer.string(11, zone)
    return writer.bytes
  }

  public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ProtoReader(bytes)
    self.init(name: "", incarnation: 0)
    let counts = 0...Int(Int32.max)
    while try reader.next() {
      switch reader.field {
      case 1: name = try reader.string(maxBytes: WireLimit.nameBytes)
      case 2: incarnation = try reader.uint()
      case 3: draining = try reader.bool()
      case 4:
        guard holdings.count < WireLimit.holdings else {
          throw .outOfRange(field: 4, "more than \(WireLimit.holdings)")
        }
        holdings.append(try Self.holding(try reader.raw()))
      case 5: queued = try reader.count(in: counts)
      case 6: running = try reader.count(in: counts)
      case 7: oldestJob = .milliseconds(try reader.count(in: counts))
      case 8: admits = try reader.count(in: counts)
      case 9: capacityBytes = try reader.uint()
      case 10: heldBytes = try reader.uint()
      case 11: zone = try reader.string(maxBytes: WireLimit.nameBytes)
      default: try reader.skip()
      }
    }
  }

  private static func holding(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> Holding {
    var reader = ProtoReader(bytes)
    var holding = Holding(release: ModelVersion(model: "", version: ""), shardCount: 0, ready: [])
    while try reader.next() {
      switch reader.field {
      case 1: holding.release.model = try reader.string(maxBytes: 64)
      case 2: holding.release.version = try reader.string(maxBytes: 64)
      case 3: holding.shardCount = try reader.count(in: 0...WireLimit.shards)
      case 4: holding.ready += try shards(&reader)
      case 5: holding.loading += try shards(&reader)
      case 6: holding.failed += try shards(&reader)
      case 7: holding.failure = try reader.string(maxBytes: Holding.failureBytes)
      case 8: holding.fingerprint = try reader.uint()
      default: try reader.skip()
      }
    }
    return holding
  }

  fileprivate static func shards(_ reader: inout ProtoReader) throws(WireError) -> [ShardID] {
    var shards: [ShardID] = []
    try reader.packedVarints(into: &shards)
    guard shards.count <= WireLimit.shards else {
      throw .outOfRange(field: reader.field, "more than \(WireLimit.shards)")
    }
    return shards
  }
}

extension JoinRequest {
  public func encoded() -> [UInt8] {
    var writer = ProtoWriter()
    writer.string(1, name)
    writer.uint(2, incarnation)
    writer.string(3, address)
    return writer.bytes
  }
  public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ProtoReader(bytes)
    self.init(name: "", incarnation: 0, address: "")
    while try reader.next() {
      switch reader.field {
      case 1: name = try reader.string(maxBytes: WireLimit.nameBytes)
      case 2: incarnation = try reader.uint()
      case 3: address = try reader.string(maxBytes: WireLimit.nameBytes)
      default: try reader.skip()
      }
    }
    guard !name.isEmpty else { throw .outOfRange(field: 1, "a worker needs a name") }
    guard !address.isEmpty else { throw .outOfRange(field: 3, "a worker needs an address") }
  }
}

extension JoinReply {
  public func encoded() -> [UInt8] {
    var writer = ProtoWriter()
    for address in coordinators { writer.element(1, address) }
    return writer.bytes
  }
  public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ProtoReader(bytes)
    self.init(coordinators: [])
    while try reader.next() {
      switch reader.field {
      case 1:
        guard coordinators.count < WireLimit.coordinators else {
          throw .outOfRange(field: 1, "more than \(WireLimit.coordinators)")
        }
        coordinators.append(try reader.string(maxBytes: WireLimit.nameBytes))
      default: try reader.skip()
      }
    }
  }
}

extension LeaveRequest {
  public func encoded() -> [UInt8] {
    var writer = ProtoWriter()
    writer.string(1, name)
    writer.uint(2, incarnation)
    return writer.bytes
  }
  public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ProtoReader(bytes)
    self.init(name: "", incarnation: 0)
    while try reader.next() {
      switch reader.field {
      case 1: name = try reader.string(maxBytes: WireLimit.nameBytes)
      case 2: incarnation = try reader.uint()
      default: try reader.skip()
      }
    }
    guard !name.isEmpty else { throw .outOfRange(field: 1, "a worker needs a name") }
  }
}

extension LeaveReply {
  public func encoded() -> [UInt8] {
    var writer = ProtoWriter()
    writer.bool(1, mayGo)
    return writer.bytes
  }
  public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ProtoReader(bytes)
    self.init(mayGo: false)
    while try reader.next() {
      switch reader.field {
      case 1: mayGo = try reader.bool()
      default: try reader.skip()
      }
    }
  }
}

extension ShardOrder {
  public func encoded() -> [UInt8] {
    var writer = ProtoWriter()
    writer.uint(1, term.epoch)
    writer.uint(2, term.revision)
    writer.string(3, release.model)
    writer.string(4, release.version)
    writer.packedVarints(5, shards)
    return writer.bytes
  }
  public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ProtoReader(bytes)
    self.init(
      term: DriverTerm(epoch: 0, revision: 0), release: ModelVersion(model: "", version: ""), shards: [])
    while try reader.next() {
      switch reader.field {
      case 1: term.epoch = try reader.uint()
      case 2: term.revision = try reader.uint()
      case 3: release.model = try reader.string(maxBytes: 64)
      case 4: release.version = try reader.string(maxBytes: 64)
      case 5: shards += try WorkerStatus.shards(&reader)
      default: try reader.skip()
      }
    }
    for name in [release.model, release.version] where !ModelVersion.isValidName(name) {
      throw .outOfRange(field: 3, "not a model and version")
    }
  }
}
