import RankingCore

// `shortlist.v1.Worker` messages ↔ bytes; the field numbers are those of Proto/worker.proto.

/// Bounds on what a worker accepts from the wire, beyond what the body limit already bounds.
public enum WireLimit {
  public static let shards = 4096
  public static let userColumns = 4096
  public static let itemColumns = 4096
}

extension ScoreRequest {
  /// The part of the message that is the same for every leg of a request: made once, then each leg's tasks follow it.
  public static func encodeQuery(_ query: ScoreQuery, into writer: inout ProtoWriter) {
    writer.string(1, query.release.model)
    writer.string(2, query.release.version)
    writer.uint(3, query.mode == .rank ? 1 : 0)
    writer.packed(4, query.vector)
    writer.uint(5, UInt64(query.k))
    writer.uint(6, UInt64(query.candidates))
    if let minScore = query.minScore { writer.fixed32(7, minScore.bitPattern) }
    writer.packed(8, query.userValues)
    writer.packed(9, query.contextValues)
    if let cap = query.cap {
      writer.message(12) { writer in
        writer.uint(1, UInt64(cap.column))
        writer.uint(2, UInt64(cap.max))
      }
    }
    writer.bool(13, query.explain)
    writer.bool(14, query.wantsVectors)
    writer.packed(16, query.recent)
    for column in query.wantedColumns { writer.member(15, UInt64(column)) }
    for step in query.filter?.steps ?? [] { writer.message(11) { Self.encode(step, into: &$0) } }
  }

  private static func encode(_ step: FilterProgram.Step, into writer: inout ProtoWriter) {
    switch step {
    case .range(let column, let low, let high):
      writer.uint(1, 1)
      writer.uint(2, UInt64(column))
      writer.packed(3, [low, high])
    case .isIn(let column, let values):
      writer.uint(1, 2)
      writer.uint(2, UInt64(column))
      writer.packed(3, values)
    case .all(let count):
      writer.uint(1, 3)
      writer.uint(2, UInt64(count))
    case .any(let count):
      writer.uint(1, 4)
      writer.uint(2, UInt64(count))
    case .not: writer.uint(1, 5)
    }
  }

  private static func cap(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> GroupCap {
    var reader = ProtoReader(bytes)
    var cap = GroupCap(column: 0, max: 0)
    while try reader.next() {
      switch reader.field {
      case 1: cap.column = try reader.count(in: 0...WireLimit.itemColumns)
      case 2: cap.max = try reader.count(in: Diversity.maxRange)
      default: try reader.skip()
      }
    }
    guard cap.max > 0 else { throw .outOfRange(field: 12, "a cap of 0") }
    return cap
  }

  private static func step(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> FilterProgram.Step {
    var reader = ProtoReader(bytes)
    var (kind, number, values) = (0, 0, [Float]())
    while try reader.next() {
      switch reader.field {
      case 1: kind = try reader.count(in: 1...5)
      case 2: number = try reader.count(in: 0...WireLimit.itemColumns)
      case 3: try reader.packed(into: &values)
      default: try reader.skip()
      }
    }
    switch kind {
    case 1:
      guard values.count == 2 else { throw .outOfRange(field: 11, "\(values.count) bounds of a range") }
      return .range(column: number, low: values[0], high: values[1])
    case 2: return .isIn(column: number, values)
    case 3: return .all(number)
    case 4: return .any(number)
    case 5: return .not
    default: throw .outOfRange(field: 11, "a step of no kind")
    }
  }

  public static func encodeTasks(_ tasks: [ShardTask], into writer: inout ProtoWriter) {
    for task in tasks {
      writer.message(10) { writer in
        writer.uint(1, UInt64(task.shard.rawValue))
        writer.packed(2, task.excludedOrdinals)
        for id in task.excludedIDs { writer.element(3, id) }
        for id in task.items { writer.element(4, id) }
      }
    }
  }

  public func encoded() -> [UInt8] {
    var writer = ProtoWriter(reserving: 64 + 4 * query.vector.count + 16 * tasks.count)
    Self.encodeQuery(query, into: &writer)
    Self.encodeTasks(tasks, into: &writer)
    return writer.bytes
  }

  public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ProtoReader(bytes)
    var query = ScoreQuery(
      release: ModelVersion(model: "", version: ""), mode: .retrieve, vector: [], k: 0, candidates: 0)
    var tasks: [ShardTask] = []
    while try reader.next() {
      switch reader.field {
      case 1: query.release.model = try reader.string(maxBytes: 64)
      case 2: query.release.version = try reader.string(maxBytes: 64)
      case 3: query.mode = try reader.uint() == 1 ? .rank : .retrieve
      case 4: try reader.packed(into: &query.vector)
      case 5: query.k = try reader.count(in: RequestLimit.k)
      case 6: query.candidates = try reader.count(in: RequestLimit.candidates)
      case 7: query.minScore = Float(bitPattern: try reader.fixed32())
      case 8: try reader.packed(into: &query.userValues)
      case 9: try reader.packed(into: &query.contextValues)
      case 10:
        guard tasks.count < WireLimit.shards else { throw .outOfRange(field: 10, "more than \(WireLimit.shards)") }
        tasks.append(try Self.task(try reader.raw()))
      case 12: query.cap = try Self.cap(try reader.raw())
      case 11:
        if query.filter == nil { query.filter = FilterProgram(steps: []) }
        query.filter?.steps.append(try Self.step(try reader.raw()))
        guard query.filter?.steps.count ?? 0 <= FilterProgram.stepsMax else {
          throw .outOfRange(field: 11, "more than \(FilterProgram.stepsMax) steps")
        }
      case 13: query.explain = try reader.bool()
      case 14: query.wantsVectors = try reader.bool()
      case 16: try reader.packed(into: &query.recent)
      case 15:
        guard query.wantedColumns.count < WireLimit.itemColumns else {
          throw .outOfRange(field: 15, "more than \(WireLimit.itemColumns) columns")
        }
        query.wantedColumns.append(try reader.count(in: 0...WireLimit.itemColumns))
      default: try reader.skip()
      }
    }
    guard RequestLimit.k.contains(query.k) else { throw .outOfRange(field: 5, "k is missing") }
    guard RequestLimit.candidates.contains(query.candidates) else { throw .outOfRange(field: 6, "R is missing") }
    guard (1...RequestLimit.vectorDimension).contains(query.vector.count) else {
      throw .outOfRange(field: 4, "\(query.vector.count) dimensions")
    }
    guard query.vector.allSatisfy(\.isFinite) else { throw .outOfRange(field: 4, "not finite") }
    self.init(query: query, tasks: tasks)
  }

  private static func task(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> ShardTask {
    var reader = ProtoReader(bytes)
    var task = ShardTask(shard: ShardID(0))
    while try reader.next() {
      switch reader.field {
      case 1: task = ShardTask(shard: ShardID(try reader.count(in: 0...WireLimit.shards - 1)))
      case 2: try reader.packed(into: &task.excludedOrdinals)
      case 3: task.excludedIDs.append(try reader.string(maxBytes: itemIDLengthRange.upperBound))
      case 4: task.items.append(try reader.string(maxBytes: itemIDLengthRange.upperBound))
      default: try reader.skip()
      }
    }
    guard task.items.count <= RequestLimit.ids else { throw .outOfRange(field: 4, "more than \(RequestLimit.ids) ids") }
    return task
  }
}

extension ScoreReply {
  public func encoded() -> [UInt8] {
    var writer = ProtoWriter(reserving: 64 + 24 * items.count)
    encode(into: &writer)
    return writer.bytes
  }

  public func encode(into writer: inout ProtoWriter) {
    writer.string(1, release.model)
    writer.string(2, release.version)
    writer.packedVarints(3, shards)
    writer.packed(4, items.ordinals)
    writer.packed(5, items.scores)
    if !items.ids.bytes.isEmpty { items.ids.bytes.withUnsafeBytes { writer.raw(6, $0) } }
    writer.uint(7, UInt64(droppedNaN))
    writer.packed(8, items.ids.ends)
    writer.packed(9, items.groups)
    writer.packed(14, items.vectors)
    writer.packed(15, items.values)
    guard let explanations = items.explanations else { return }
    writer.packed(10, explanations.retrieval)
    writer.packed(11, explanations.raw)
    writer.packed(12, explanations.outputs)
    writer.packed(13, explanations.contributions)
  }

  public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ProtoReader(bytes)
    var reply = ScoreReply(release: ModelVersion(model: "", version: ""), shards: [], items: ScoredList())
    var (retrieval, raw, outputs, contributions) = ([Float](), [Double](), [Float](), [Double]())
    while try reader.next() {
      switch reader.field {
      case 1: reply.release.model = try reader.string(maxBytes: 64)
      case 2: reply.release.version = try reader.string(maxBytes: 64)
      case 3: try reader.packedVarints(into: &reply.shards)
      case 4: try reader.packed(into: &reply.items.ordinals)
      case 5: try reader.packed(into: &reply.items.scores)
      case 6: reply.items.ids.bytes = Array(try reader.raw())
      case 7: reply.droppedNaN = try reader.count(in: 0...Int(Int32.max))
      case 8: try reader.packed(into: &reply.items.ids.ends)
      case 9: try reader.packed(into: &reply.items.groups)
      case 14: try reader.packed(into: &reply.items.vectors)
      case 15: try reader.packed(into: &reply.items.values)
      case 10: try reader.packed(into: &retrieval)
      case 11: try reader.packed(into: &raw)
      case 12: try reader.packed(into: &outputs)
      case 13: try reader.packed(into: &contributions)
      default: try reader.skip()
      }
    }
    guard reply.items.ids.hasEnds(lengths: itemIDLengthRange) else { throw .outOfRange(field: 8, "an id's length") }
    guard reply.items.vectors.allSatisfy(\.isFinite) else { throw .outOfRange(field: 14, "not finite") }
    guard reply.items.ids.isText else { throw .invalidUTF8(field: 6) }
    if !(retrieval.isEmpty && raw.isEmpty && outputs.isEmpty && contributions.isEmpty) {
      reply.items.explanations = Explanations(
        items: reply.items.count, retrieval: retrieval, raw: raw, outputs: outputs, contributions: contributions)
      if reply.items.explanations == nil {
        throw .outOfRange(field: 13, "not the explanations of \(reply.items.count) items")
      }
    }
    self = reply
  }
}

extension TextColumn {
  /// Whether the ends ascend by allowed lengths to the end of the block.
  fileprivate func hasEnds(lengths: ClosedRange<Int>) -> Bool {
    var start = 0
    for end in ends {
      guard lengths.contains(Int(end) - start) else { return false }
      start = Int(end)
    }
    return start == bytes.count
  }

  /// Whether every text is UTF-8 by itself. Looked at as one block: a text that breaks a character at its end would
  /// make its neighbour's start invalid, so ends must also be character starts.
  fileprivate var isText: Bool {
    bytes.withUnsafeBytes(\.isASCII)
      || String(validating: bytes, as: UTF8.self) != nil
        && ends.allSatisfy { Int($0) == bytes.count || bytes[Int($0)] & 0xC0 != 0x80 }
  }
}

extension LookupRequest {
  public func encoded() -> [UInt8] {
    var writer = ProtoWriter()
    encode(into: &writer)
    return writer.bytes
  }

  public func encode(into writer: inout ProtoWriter) {
    writer.string(1, release.model)
    writer.string(2, release.version)
    writer.packedVarints(3, shards)
    for id in ids { writer.element(4, id) }
  }

  public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ProtoReader(bytes)
    self.init(release: ModelVersion(model: "", version: ""), shards: [], ids: [])
    while try reader.next() {
      switch reader.field {
      case 1: release.model = try reader.string(maxBytes: 64)
      case 2: release.version = try reader.string(maxBytes: 64)
      case 3: try reader.packedVarints(into: &shards)
      case 4:
        guard ids.count < RequestLimit.ids else { throw .outOfRange(field: 4, "more than \(RequestLimit.ids) ids") }
        ids.append(try reader.string(maxBytes: itemIDLengthRange.upperBound))
      default: try reader.skip()
      }
    }
  }
}

extension LookupReply {
  public func encoded() -> [UInt8] {
    var writer = ProtoWriter()
    writer.string(1, release.model)
    writer.string(2, release.version)
    writer.packedVarints(3, shards)
    for item in found {
      writer.message(4) { writer in
        writer.string(1, item.id)
        writer.uint(2, item.ordinal.rawValue)
        writer.packed(3, item.vector)
      }
    }
    return writer.bytes
  }

  public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
    var reader = ProtoReader(bytes)
    self.init(release: ModelVersion(model: "", version: ""), shards: [], found: [])
    while try reader.next() {
      switch reader.field {
      case 1: release.model = try reader.string(maxBytes: 64)
      case 2: release.version = try reader.string(maxBytes: 64)
      case 3: try reader.packedVarints(into: &shards)
      case 4: found.append(try Self.item(try reader.raw()))
      default: try reader.skip()
      }
    }
  }

  private static func item(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> Found {
    var reader = ProtoReader(bytes)
    var item = Found(id: "", ordinal: ItemOrdinal(0), vector: [])
    while try reader.next() {
      switch reader.field {
      case 1: item.id = try reader.string(maxBytes: itemIDLengthRange.upperBound)
      case 2: item.ordinal = ItemOrdinal(rawValue: try reader.uint())
      case 3: try reader.packed(into: &item.vector)
      default: try reader.skip()
      }
    }
    guard item.vector.allSatisfy(\.isFinite) else { throw .outOfRange(field: 3, "not finite") }
    return item
  }
}
