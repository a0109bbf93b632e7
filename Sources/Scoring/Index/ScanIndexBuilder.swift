import CScoring
import RankingCore

// Builds a slice's index: norms, their order, the axes, a plan, and the byte copies.

extension ScanIndex {
  /// - Returns: nil where a plain scan is as good, or where a row's norm is not one that a bundle may have.
  package static func build(_ slice: Slice, plan wanted: Plan? = nil) -> ScanIndex? {
    guard slice.count >= rowsMin, let vectors = slice.vectors.baseAddress else { return nil }
    return Builder(slice, vectors)?.build(wanted)
  }

  private struct Builder {
    let slice: Slice
    let vectors: UnsafePointer<Float>
    var stride: Int { slice.stride }
    var count: Int { slice.count }
    /// By row.
    let norms: [Double]
    /// Rows by descending norm, ties ascending.
    let order: [UInt32]

    init?(_ slice: Slice, _ vectors: UnsafePointer<Float>) {
      self.slice = slice
      self.vectors = vectors
      let stride = slice.stride
      let norms = [Double](unsafeUninitializedCapacity: slice.count) { norms, count in
        for row in 0..<slice.count {
          norms[row] = RoundingBound.up(cscoring_square(vectors + row * stride, stride).squareRoot())
        }
        count = slice.count
      }
      // Also false when a value is NaN.
      guard norms.allSatisfy({ $0 <= 1.01e18 }) else { return nil }
      self.norms = norms
      var keys = norms.indices.map { row in
        UInt64(~Float(norms[row]).bitPattern) << 32 | UInt64(UInt32(row))
      }
      keys.sort()
      order = keys.map { UInt32(truncatingIfNeeded: $0) }
    }

    func build(_ wanted: Plan?) -> ScanIndex {
      var axes: Axes?
      let axisCount = min(31, slice.dimension - 1)
      if axisCount >= 15, wanted != .full {
        let found = order.withUnsafeBufferPointer {
          Axes(
            vectors, stride: stride, dimension: slice.dimension, rows: $0.baseAddress!, rowCount: count,
            count: axisCount)
        }
        if found.isSound { axes = found }
      }
      let plan = wanted ?? axes.map { cheapest($0) } ?? .full
      let headBytes = if case .head(let bytes) = plan, let axes, bytes <= axes.count + 1 { bytes } else { 0 }
      let hasNecks = headBytes == 16 && axes.map { $0.count >= ScanIndex.neckAxes } ?? false

      let blockRows = ScanIndex.blockRows
      let blockCount = (count + blockRows - 1) / blockRows
      let places = blockCount * blockRows
      let fullStride = headBytes > 0 ? (slice.dimension + 63) & ~63 : (slice.dimension + 3) & ~3
      var end = 0
      func section(_ bytes: Int) -> Int {
        defer { end += (bytes + 63) & ~63 }
        return end
      }
      let (rowsAt, blocksAt) = (section(count * 4), section(blockCount * MemoryLayout<Block>.stride))
      let (headsAt, fullAt) = (section(places * headBytes), section(places * fullStride))
      let necksAt = section(hasNecks ? places * 16 : 0)
      let columnsAt = slice.columns.map { _ in section(count * 4) }
      let memory = AlignedMemory(byteCount: end)
      let base = memory.bytes.baseAddress.unsafelyUnwrapped
      let rows = (base + rowsAt).bindMemory(to: UInt32.self, capacity: count)
      order.withUnsafeBufferPointer { rows.initialize(from: $0.baseAddress!, count: count) }
      let blocks = (base + blocksAt).bindMemory(to: Block.self, capacity: blockCount)
      let heads = (base + headsAt).bindMemory(to: UInt8.self, capacity: places * headBytes)
      let full = (base + fullAt).bindMemory(to: UInt8.self, capacity: places * fullStride)
      // The value of a byte is what it is above 128.
      heads.initialize(repeating: 128, count: places * headBytes)
      let necks = hasNecks ? (base + necksAt).bindMemory(to: UInt8.self, capacity: places * 16) : nil
      necks?.initialize(repeating: 128, count: places * 16)
      full.initialize(repeating: 128, count: places * fullStride)

      let columns = zip(slice.columns, columnsAt).map { column, place -> UnsafePointer<Float> in
        let values = (base + place).bindMemory(to: Float.self, capacity: count)
        for position in 0..<count { (values + position).initialize(to: column.values[Int(order[position])]) }
        return UnsafePointer(values)
      }
      var room = Room(stride: stride)
      for block in 0..<blockCount {
        let positions = block * blockRows..<min(count, (block + 1) * blockRows)
        var made = Block()
        for position in positions { made.norm = max(made.norm, norms[Int(order[position])]) }
        made.full = roundRows(positions, fullStride, isInterleaved: headBytes == 0, &room, into: full)
        if headBytes > 0, let axes {
          (made.head, made.neck) = roundHeads(positions, headBytes, axes, &room, into: heads, necks)
        }
        (blocks + block).initialize(to: made)
      }
      return ScanIndex(
        plan: headBytes > 0 ? plan : .full, count: count, memory: memory, rows: rows, blocks: blocks, full: full,
        fullStride: fullStride, heads: headBytes > 0 ? heads : nil, necks: necks, axes: headBytes > 0 ? axes : nil,
        columns: columns)
    }

    /// Memory for one block's rounding.
    private struct Room {
      var bytes: [UInt8]
      var parts: [Float]
      var rests: [Double]
      init(stride: Int) {
        bytes = [UInt8](repeating: 0, count: max(64, (stride + 63) & ~63))
        parts = [Float](repeating: 0, count: ScanIndex.blockRows * 32)
        rests = [Double](repeating: 0, count: ScanIndex.blockRows)
      }
    }

    private func roundRows(
      _ positions: Range<Int>, _ size: Int, isInterleaved: Bool, _ room: inout Room,
      into full: UnsafeMutablePointer<UInt8>
    ) -> Rounding {
      var greatest: Float = 0
      for position in positions {
        greatest = max(greatest, cscoring_greatest(vectors + Int(order[position]) * stride, stride))
      }
      var rounding = Rounding(scale: Double(greatest) / 127)
      for position in positions {
        let row = vectors + Int(order[position]) * stride
        var (error, norm) = (0.0, 0.0)
        if isInterleaved {
          cscoring_quantize(row, slice.dimension, rounding.scale, &room.bytes, &error, &norm)
          ScanIndex.interleave(room.bytes, slice.dimension, size, position, full)
        } else {
          cscoring_quantize(row, slice.dimension, rounding.scale, full + position * size, &error, &norm)
        }
        rounding.error = max(rounding.error, error)
        rounding.norm = max(rounding.norm, norm)
      }
      rounding.error = RoundingBound.up(rounding.error.squareRoot())
      rounding.norm = RoundingBound.up(rounding.norm.squareRoot())
      return rounding
    }

    /// - Returns: the rounding of the heads, and of heads and necks together.
    private func roundHeads(
      _ positions: Range<Int>, _ size: Int, _ axes: Axes, _ room: inout Room, into heads: UnsafeMutablePointer<UInt8>,
      _ necks: UnsafeMutablePointer<UInt8>?
    ) -> (head: Rounding, neck: Rounding) {
      let used = size - 1
      let all = necks == nil ? used : ScanIndex.neckAxes
      var greatest = 0.0
      for (place, position) in positions.enumerated() {
        let row = Int(order[position])
        room.parts.withUnsafeMutableBufferPointer { parts in
          let parts = parts.baseAddress! + place * 32
          axes.parts(of: vectors + row * stride, into: parts)
          room.rests[place] = axes.rest(norm: norms[row], parts: parts, count: used)
          greatest = max(greatest, room.rests[place], Double(cscoring_greatest(parts, all)))
        }
      }
      var head = Rounding(scale: RoundingBound.up(greatest / 127))
      var neck = Rounding(scale: head.scale)
      for (place, position) in positions.enumerated() {
        let rest = ScanIndex.byteUp(room.rests[place], head.scale)
        var (error, norm) = (0.0, 0.0)
        room.parts.withUnsafeBufferPointer { parts in
          let parts = parts.baseAddress! + place * 32
          cscoring_quantize(parts, used, head.scale, &room.bytes, &error, &norm)
          room.bytes[used] = rest
          ScanIndex.interleave(room.bytes, size, size, position, heads)
          head.error = max(head.error, error)
          head.norm = max(head.norm, norm)
          guard let necks else { return }
          var (neckError, neckNorm) = (0.0, 0.0)
          cscoring_quantize(parts + used, all - used, head.scale, necks + position * 16, &neckError, &neckNorm)
          let left = axes.rest(norm: norms[Int(order[position])], parts: parts, count: all)
          necks[position * 16 + all - used] = ScanIndex.byteUp(left, head.scale)
          necks[position * 16 + all - used + 1] = rest
          neck.error = max(neck.error, error + neckError)
          neck.norm = max(neck.norm, norm + neckNorm)
        }
      }
      func root(_ square: Double) -> Double { RoundingBound.up(square.squareRoot()) }
      return (
        Rounding(scale: head.scale, error: root(head.error), norm: root(head.norm)),
        Rounding(scale: neck.scale, error: root(neck.error), norm: root(neck.norm))
      )
    }

    // MARK: The plan

    private static let queries = 8
    private static let sampleMax = 8192
    /// What a row that passes the head costs beside reading its bytes: its line is somewhere else.
    private static let lookupBytes = 128.0

    /// The plan that reads least for queries like the slice's own rows, by a trial on a sample of them.
    private func cheapest(_ axes: Axes) -> Plan {
      let size = min(count, Self.sampleMax)
      // The best of so many stand for the best 100 of all.
      let wanted = max(1, 100 * size / count)
      let sample = (0..<size).map { order[$0 * count / size] }
      var parts = [Float](repeating: 0, count: size * axes.count)
      parts.withUnsafeMutableBufferPointer { parts in
        for (place, row) in sample.enumerated() {
          axes.parts(of: vectors + Int(row) * stride, into: parts.baseAddress! + place * axes.count)
        }
      }
      let options = [16, 32].filter { $0 - 1 <= axes.count }
      func rest(_ place: Int, _ bytes: Int) -> Double {
        parts.withUnsafeBufferPointer {
          axes.rest(
            norm: norms[Int(sample[place])], parts: $0.baseAddress! + place * axes.count, count: bytes - 1)
        }
      }
      let rests = options.map { bytes in (0..<size).map { rest($0, bytes) } }
      var scores = [Float](repeating: 0, count: size)
      var byNorm = 0.0
      var byHead = options.map { _ in 0.0 }
      for number in 0..<Self.queries {
        let place = (2 * number + 1) * size / (2 * Self.queries)
        let query = vectors + Int(sample[place]) * stride
        let norm = norms[Int(sample[place])]
        cscoring_active().pointee.dot_gather(vectors, stride, sample, size, query, &scores)
        // The query's own row is no answer: no customer is an item.
        scores[place] = -.infinity
        let threshold = Double(scores.sorted(by: >)[wanted - 1])
        for other in 0..<size where norms[Int(sample[other])] * norm >= threshold {
          byNorm += 1
          for (index, bytes) in options.enumerated() {
            var bound = rests[index][other] * rests[index][place]
            for part in 0..<bytes - 1 {
              bound += Double(parts[other * axes.count + part]) * Double(parts[place * axes.count + part])
            }
            if bound >= threshold { byHead[index] += 1 }
          }
        }
      }
      let lying = Double((slice.dimension + 63) & ~63) + Self.lookupBytes
      var best = (plan: Plan.full, cost: byNorm * Double(slice.dimension))
      for (index, bytes) in options.enumerated() {
        // Rows that pass a head of 16 meet a neck first, which is about as good as a head of 32.
        let lookups =
          index == 0 && options.count > 1
          ? byHead[0] * Self.lookupBytes / 2 + byHead[1] * lying : byHead[index] * lying
        let cost = byNorm * Double(bytes) + lookups
        if cost < best.cost { best = (.head(bytes: bytes), cost) }
      }
      return best.plan
    }
  }

  /// A positive value as a byte of the unsigned side, rounded up.
  static func byteUp(_ value: Double, _ scale: Double) -> UInt8 {
    guard scale > 0, value > 0 else { return 128 }
    return UInt8(128 + min(127, (value / scale).rounded(.up)))
  }

  /// Puts a row's bytes, `used` of `size`, at its place among interleaved ones.
  static func interleave(
    _ bytes: [UInt8], _ used: Int, _ size: Int, _ position: Int, _ groups: UnsafeMutablePointer<UInt8>
  ) {
    let group = groups + position / 16 * 16 * size + position % 16 * 4
    for index in 0..<used { group[index / 4 * 64 + index % 4] = bytes[index] }
  }
}
