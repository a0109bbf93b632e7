import Testing

@testable import Wire

@Suite struct GRPCStreamTests {
  private func receive(_ pieces: [[UInt8]], limit: Int = 1000) throws -> [[UInt8]] {
    var stream = GRPCStream(messageBytesMax: limit)
    var messages: [[UInt8]] = []
    for piece in pieces { try piece.withUnsafeBytes { try stream.receive($0) { messages.append(Array($0)) } } }
    return messages
  }

  @Test func messagesComeOutWholeHoweverTheBytesAreCut() throws {
    let messages: [[UInt8]] = [[], [1], Array(0..<200), [], [9, 9]]
    let bytes = messages.flatMap { GRPC.frame($0) }
    #expect(try receive([bytes]) == messages)
    for size in [1, 2, 5, 6, 7, 64] {
      let pieces = stride(from: 0, to: bytes.count, by: size).map { Array(bytes[$0..<min($0 + size, bytes.count)]) }
      #expect(try receive(pieces) == messages, "pieces of \(size)")
    }
  }

  @Test func whatIsTooLongOrCompressedEndsTheStreamBeforeItsBytes() throws {
    #expect(throws: GRPC.StatusError(.resourceExhausted, "a message of 1001 bytes, at most 1000 are taken")) {
      try receive([[0, 0, 0, 3, 0xE9]])
    }
    #expect(throws: GRPC.StatusError.self) { try receive([[0, 0xFF, 0xFF, 0xFF, 0xFF]]) }
    #expect(throws: GRPC.StatusError.self) { try receive([[1, 0, 0, 0, 0]]) }
  }

  @Test func statusMessagesAreDecodedForPeople() {
    #expect(GRPC.decodeMessage("100%25 of %C3%A4%") == "100% of ä%")
    #expect(GRPC.decodeMessage(GRPC.encodeMessage("a%b ü\n")) == "a%b ü\n")
    #expect(GRPC.decodeMessage("%zz%1") == "%zz%1")
  }
}
