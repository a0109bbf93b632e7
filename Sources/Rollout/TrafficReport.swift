import RankingCore
import Wire

// What one coordinator tells the one that drives: each counts the requests that come to it, and guards look at all of
// them. The field numbers are those of Proto/coordinator.proto. Hostile bytes are refused: counts that no process could
// have would outweigh everybody else's.

public struct TrafficReport: Sendable, Equatable {
  /// Of the document that this coordinator goes by.
  public var revision: UInt64
  public var traffic: [Observed.Traffic]
  public var shadows: [Observed.Shadow]
  public init(revision: UInt64 = 0, traffic: [Observed.Traffic] = [], shadows: [Observed.Shadow] = []) {
    self.revision = revision
    self.traffic = traffic
    self.shadows = shadows
  }
}

extension TrafficReport {
  /// Versions, or rollouts, in one report.
  private static let partsMax = 256

  public func encoded() -> [UInt8] {
    var writer = ProtoWriter()
    for part in traffic {
      writer.message(1) { writer in
        writer.string(1, part.release.model)
        writer.string(2, part.release.version)
        writer.uint(3, UInt64(part.inFlight))
        writer.message(4) { part.counts.encode(into: &$0) }
      }
    }
    for part in shadows {
      writer.message(2) { writer in
        writer.string(1, part.rollout)
        writer.packed(2, [UInt64(part.counts.compared), UInt64(part.counts.correlated)])
        writer.packed(3, [part.counts.overlapSum, part.counts.correlationSum])
        writer.message(4) { part.counts.old.encode(into: &$0) }
        writer.message(5) { part.counts.new.encode(into: &$0) }
      }
    }
    writer.uint(3, revision)
    return writer.bytes
  }

  public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
    self.init()
    var reader = ProtoReader(bytes)
    while try reader.next() {
      switch reader.field {
      case 1 where traffic.count < Self.partsMax: traffic.append(try Self.traffic(try reader.raw()))
      case 2 where shadows.count < Self.partsMax: shadows.append(try Self.shadow(try reader.raw()))
      case 3: revision = try reader.uint()
      case 1, 2: throw .outOfRange(field: reader.field, "more than \(Self.partsMax)")
      default: try reader.skip()
      }
    }
  }

  private static func traffic(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> Observed.Traffic {
    var traffic = Observed.Traffic(release: ModelVersion(model: "", version: ""))
    var reader = ProtoReader(bytes)
    while try reader.next() {
      switch reader.field {
      case 1: traffic.release.model = try reader.string(maxBytes: 64)
      case 2: traffic.release.version = try reader.string(maxBytes: 64)
      case 3: traffic.inFlight = try reader.count(in: 0...Int(Int32.max))
      case 4: traffic.counts = try TrafficCounts(decoding: try reader.raw())
      default: try reader.skip()
      }
    }
    return traffic
  }

  private static func shadow(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> Observed.Shadow {
    var rollout = ""
    var counts: [UInt64] = []
    var sums: [Double] = []
    var (old, new) = (TrafficCounts(), TrafficCounts())
    var reader = ProtoReader(bytes)
    while try reader.next() {
      switch reader.field {
      case 1: rollout = try reader.string(maxBytes: 128)
      case 2: try reader.packed(into: &counts)
      case 3: try reader.packed(into: &sums)
      case 4: old = try TrafficCounts(decoding: try reader.raw())
      case 5: new = try TrafficCounts(decoding: try reader.raw())
      default: try reader.skip()
      }
    }
    guard counts.count == 2, sums.count == 2, let compared = CountRule.whole(counts[0]),
      let correlated = CountRule.whole(counts[1]), sums[0] >= 0, sums[0] <= Double(compared) * CountRule.slack,
      sums[1].magnitude <= Double(correlated) * CountRule.slack
    else { throw .outOfRange(field: 2, "counts that do not fit their sums") }
    return Observed.Shadow(
      rollout: rollout,
      counts: ShadowCounts(
        compared: compared, overlapSum: sums[0], correlated: correlated, correlationSum: sums[1], old: old, new: new))
  }
}

/// What counts must be like to be believed.
enum CountRule {
  static let most: UInt64 = 1 << 48
  /// Sums of many small numbers are rounded.
  static let slack = 1.000001
  static func whole(_ value: UInt64) -> Int? { value <= most ? Int(value) : nil }
}

extension TrafficCounts {
  func encode(into writer: inout ProtoWriter) {
    writer.packed(1, [requests, errors, empty, short, nan, scored].map { UInt64($0) })
    writer.packed(2, [coverageLost, scoreSum, scoreSquares])
    writer.packed(3, latency.counts.map { UInt64($0) })
  }

  init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
    var counts: [UInt64] = []
    var sums: [Double] = []
    var buckets: [UInt64] = []
    var reader = ProtoReader(bytes)
    while try reader.next() {
      switch reader.field {
      case 1: try reader.packed(into: &counts)
      case 2: try reader.packed(into: &sums)
      case 3: try reader.packed(into: &buckets)
      default: try reader.skip()
      }
    }
    let whole = counts.compactMap(CountRule.whole)
    guard whole.count == 6, whole[1...].allSatisfy({ $0 <= whole[0] }) else {
      throw .outOfRange(field: 1, "six counts, the first the largest, are needed")
    }
    guard sums.count == 3, sums.allSatisfy(\.isFinite), sums[0] >= 0, sums[2] >= 0,
      sums[0] <= Double(whole[0]) * CountRule.slack
    else { throw .outOfRange(field: 2, "three finite sums, the first at most the requests, are needed") }
    guard let latency = LatencyCounts(buckets: buckets) else {
      throw .outOfRange(field: 3, "\(LatencyCounts.buckets) counts are needed")
    }
    self.init(
      requests: whole[0], errors: whole[1], coverageLost: sums[0], empty: whole[2], short: whole[3], nan: whole[4],
      latency: latency, scored: whole[5], scoreSum: sums[1], scoreSquares: sums[2])
  }
}
