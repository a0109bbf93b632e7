// The gRPC server reflection protocol: which services there are, and the .proto files that say what they take. Clients
// that bring no .proto of their own (grpcurl, grpcio-reflection) ask for them here.

public struct Reflection: Sendable {
  private struct File {
    var name = ""
    var bytes: [UInt8]
    /// Messages, enums, services and methods, with their package.
    var symbols: Set<String> = []
    var services: [String] = []
  }
  private let files: [File]
  private let services: [String]

  /// - Parameter services: full names of what is served where this reflection is.
  public init(services: [String]) {
    self.services = services
    files = ProtoDescriptors.files.map { file in
      let bytes = Self.decode(base64: file.base64)
      // These bytes are ours: one that cannot be read is a fault of this program.
      return try! Self.file(bytes)
    }.filter { !$0.services.isEmpty && $0.services.contains(where: services.contains) }
  }

  static func decode(base64 text: String) -> [UInt8] {
    var bytes: [UInt8] = []
    var (bits, count) = (0, 0)
    for byte in text.utf8 {
      let digit: UInt8
      switch byte {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"): digit = byte - UInt8(ascii: "A")
      case UInt8(ascii: "a")...UInt8(ascii: "z"): digit = byte - UInt8(ascii: "a") + 26
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0") + 52
      case UInt8(ascii: "+"): digit = 62
      case UInt8(ascii: "/"): digit = 63
      default: continue
      }
      (bits, count) = (bits << 6 | Int(digit), count + 6)
      if count >= 8 {
        count -= 8
        bytes.append(UInt8(truncatingIfNeeded: bits >> count))
        bits &= 1 << count - 1
      }
    }
    return bytes
  }

  private static func reading(
    _ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) throws(WireError) -> Void
  ) throws(WireError) {
    try bytes.withUnsafeBytes { raw in Result { () throws(WireError) in try body(raw) } }.get()
  }

  // MARK: FileDescriptorProto

  private static func file(_ bytes: [UInt8]) throws(WireError) -> File {
    var file = File(bytes: bytes)
    try Self.reading(bytes) { (raw) throws(WireError) in
      var package = ""
      var named: [(field: UInt32, bytes: UnsafeRawBufferPointer)] = []
      var reader = ProtoReader(raw)
      while try reader.next() {
        switch reader.field {
        case 1: file.name = try reader.string()
        case 2: package = try reader.string()
        case 4, 5, 6: named.append((reader.field, try reader.raw()))
        default: try reader.skip()
        }
      }
      for (field, bytes) in named {
        let name = try add(bytes, field, within: package, to: &file)
        if field == 6 { file.services.append(name) }
      }
    }
    return file
  }

  /// A message (4), an enum (5) or a service (6), with what is declared within it.
  @discardableResult
  private static func add(
    _ bytes: UnsafeRawBufferPointer, _ kind: UInt32, within: String, to file: inout File
  ) throws(WireError) -> String {
    var name = ""
    var inner: [(kind: UInt32, bytes: UnsafeRawBufferPointer)] = []
    var reader = ProtoReader(bytes)
    while try reader.next() {
      switch (kind, reader.field) {
      case (_, 1): name = try reader.string()
      case (4, 3): inner.append((4, try reader.raw()))
      case (4, 4): inner.append((5, try reader.raw()))
      // A method has no more within it than an enum has, as far as names go.
      case (6, 2): inner.append((5, try reader.raw()))
      default: try reader.skip()
      }
    }
    let full = within.isEmpty ? name : within + "." + name
    file.symbols.insert(full)
    for (kind, bytes) in inner { try add(bytes, kind, within: full, to: &file) }
    return full
  }

  // MARK: Questions

  private static let notFound = 5
  private static let symbolBytesMax = 1024

  /// ServerReflectionRequest → ServerReflectionResponse.
  public func answer(_ question: [UInt8]) throws(WireError) -> [UInt8] {
    var reply = ProtoWriter()
    try Self.reading(question) { (raw) throws(WireError) in
      var reader = ProtoReader(raw)
      var answered: ((inout ProtoWriter) -> Void)?
      while try reader.next() {
        switch reader.field {
        case 1: reply.string(1, try reader.string(maxBytes: Self.symbolBytesMax))
        case 3:
          let name = try reader.string(maxBytes: Self.symbolBytesMax)
          answered = files(of: name) { $0.name == name }
        case 4:
          let symbol = try reader.string(maxBytes: Self.symbolBytesMax)
          answered = files(of: symbol) { $0.symbols.contains(symbol) }
        case 5, 6:
          try reader.skip()
          answered = Self.failure(Self.notFound, "there are no extensions")
        case 7:
          try reader.skip()
          let services = services
          answered = { reply in
            reply.message(6) { list in for service in services { list.message(1) { $0.string(1, service) } } }
          }
        default: try reader.skip()
        }
      }
      reply.raw(2, raw)
      let nothing = Self.failure(3, "nothing is asked that this server knows")
      (answered ?? nothing)(&reply)
    }
    return reply.bytes
  }

  private func files(of name: String, _ isMeant: (File) -> Bool) -> (inout ProtoWriter) -> Void {
    guard let file = files.first(where: isMeant) else {
      return Self.failure(Self.notFound, "\"\(name)\" is not known here")
    }
    return { reply in reply.message(4) { $0.data(1, file.bytes) } }
  }
  private static func failure(_ code: Int, _ text: String) -> (inout ProtoWriter) -> Void {
    { reply in
      reply.message(7) {
        $0.uint(1, UInt64(code))
        $0.string(2, text)
      }
    }
  }
}
