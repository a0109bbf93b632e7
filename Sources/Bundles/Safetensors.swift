import Foundation

// The safetensors format:
//
//     header length u64 (little-endian)
//     header, JSON: {"items": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}, …,
//                    "__metadata__": {"any": "text"}}
//     the tensors' bytes; offsets count from the end of the header
//
// Every number is checked before it is used.

/// A file's header: where its tensors lie.
struct SafetensorsHeader {
  /// The longest that is read: room for thousands of tensors.
  static let bytesMax = 1 << 20
  static let metadataKey = "__metadata__"

  let path: String
  /// Names of tensors, sorted.
  let names: [String]
  let metadata: [String: String]
  private let entries: [String: [String: Any]]
  /// Bytes behind the header.
  private let dataBytes: Int

  /// How long the header is, by the file's first eight bytes; nil when it does not fit the file or the limit.
  static func length(_ prefix: some Sequence<UInt8>, fileSize: Int) -> Int? {
    let length = Array(prefix).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    return fileSize >= 8 && length <= UInt64(min(bytesMax, fileSize - 8)) ? Int(length) : nil
  }

  init(_ json: Data, path: String, dataBytes: Int) throws(InputError) {
    guard let root = (try? JSONSerialization.jsonObject(with: json)) as? [String: Any] else {
      throw InputError(file: path, "its header is not a JSON object")
    }
    self.path = path
    self.dataBytes = dataBytes
    metadata = root[Self.metadataKey] as? [String: String] ?? [:]
    entries = root.compactMapValues { $0 as? [String: Any] }
    names = root.keys.filter { $0 != Self.metadataKey }.sorted()
  }

  enum Kind: String {
    case float32 = "F32"
    case float16 = "F16"
    case bfloat16 = "BF16"
    var bytes: Int { self == .float32 ? 4 : 2 }
  }
  struct Tensor {
    var kind: Kind
    var shape: [Int]
    var count: Int
    /// Where its bytes start, counted from the end of the header.
    var offset: Int
  }

  /// - Throws: when there is no such tensor, naming those there are; when its type or place is not what it can be.
  func tensor(_ name: String, kinds: [Kind]) throws(InputError) -> Tensor {
    guard name != Self.metadataKey, let entry = entries[name] else {
      throw InputError(
        file: path, "holds no tensor \"\(name)\"; it has \(names.prefix(20).joined(separator: ", "))")
    }
    guard let kind = (entry["dtype"] as? String).flatMap(Kind.init), kinds.contains(kind) else {
      throw InputError(
        file: path,
        "tensor \"\(name)\" is \(entry["dtype"] ?? "of no type"); allowed: "
          + kinds.map(\.rawValue).joined(separator: ", "))
    }
    guard let shape = entry["shape"] as? [Int], shape.allSatisfy({ (0...1 << 32).contains($0) }) else {
      throw InputError(file: path, "tensor \"\(name)\" has no shape")
    }
    var count: Int? = 1
    for size in shape {
      count = count.flatMap {
        let (product, overflow) = $0.multipliedReportingOverflow(by: size)
        return overflow ? nil : product
      }
    }
    guard let count, count <= dataBytes / kind.bytes, let offsets = entry["data_offsets"] as? [Int],
      offsets.count == 2, offsets[0] >= 0, offsets[0] <= dataBytes, offsets[1] == offsets[0] + count * kind.bytes,
      offsets[1] <= dataBytes
    else { throw InputError(file: path, "tensor \"\(name)\": its place does not fit its shape or the file") }
    return Tensor(kind: kind, shape: shape, count: count, offset: offsets[0])
  }
}

/// A small file that is in memory as a whole.
struct Safetensors {
  let header: SafetensorsHeader
  private let bytes: [UInt8]
  private let start: Int

  /// Whether the bytes start as such a file does: a length that fits, and an object.
  static func isOne(_ bytes: [UInt8]) -> Bool {
    bytes.count > 8 && bytes[8] == UInt8(ascii: "{")
      && SafetensorsHeader.length(bytes.prefix(8), fileSize: bytes.count) != nil
  }

  init(_ bytes: [UInt8], path: String) throws(InputError) {
    guard let length = SafetensorsHeader.length(bytes.prefix(8), fileSize: bytes.count) else {
      throw InputError(
        file: path, "its header does not fit its \(bytes.count) bytes, or is longer than \(SafetensorsHeader.bytesMax)")
    }
    self.bytes = bytes
    start = 8 + length
    header = try SafetensorsHeader(Data(bytes[8..<start]), path: path, dataBytes: bytes.count - start)
  }

  /// A tensor's numbers as float32, row after row.
  func floats(_ name: String) throws(InputError) -> (shape: [Int], values: [Float]) {
    let tensor = try header.tensor(name, kinds: [.float32, .float16, .bfloat16])
    let base = start + tensor.offset
    func word(_ index: Int) -> UInt32 { UInt32(bytes[base + 2 * index]) | UInt32(bytes[base + 2 * index + 1]) << 8 }
    let values = (0..<tensor.count).map { index -> Float in
      switch tensor.kind {
      case .float32: Float(bitPattern: word(2 * index) | word(2 * index + 1) << 16)
      case .bfloat16: Float(bitPattern: word(index) << 16)
      case .float16: Float(Float16(bitPattern: UInt16(word(index))))
      }
    }
    return (tensor.shape, values)
  }
}
