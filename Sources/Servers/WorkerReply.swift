import HTTP2
import RankingCore
import Wire

/// What became of a gRPC call to another process: its message, or why there is none.
enum WorkerReply {
  /// The message is read from the call's own buffer.
  static func decode<Message>(
    _ outcome: CallOutcome, _ message: (UnsafeRawBufferPointer) throws(WireError) -> Message
  ) -> Result<Message, CallFailure> {
    switch outcome {
    case .failure(let failure): .failure(reason(failure))
    case .response(let call):
      call.status == 200 && call.grpcStatus == 0
        ? decode(call.body, message)
        : .failure(GRPC.failure(of: call.grpcStatus ?? 2, message: call.grpcMessage))
    }
  }

  static func decode<Message>(
    _ result: Result<ClientResponse, ClientFailure>,
    _ message: (UnsafeRawBufferPointer) throws(WireError) -> Message
  ) -> Result<Message, CallFailure> {
    switch result {
    case .failure(let failure): .failure(reason(failure))
    case .success(let response):
      response.status == 200 && response.grpcStatus == 0
        ? decode(response.body, message)
        : .failure(GRPC.failure(of: response.grpcStatus ?? 2, message: response.grpcMessage))
    }
  }

  private static func decode<Message>(
    _ body: [UInt8], _ message: (UnsafeRawBufferPointer) throws(WireError) -> Message
  ) -> Result<Message, CallFailure> {
    body.withUnsafeBytes { raw in
      switch GRPC.message(raw) {
      case .failure(let error): return .failure(.workerError(error.message))
      case .success(let bytes):
        do { return .success(try message(bytes)) } catch { return .failure(.workerError("\(error)")) }
      }
    }
  }

  private static func reason(_ failure: ClientFailure) -> CallFailure {
    switch failure {
    case .connectionLost, .reset: .connectionLost
    case .refused: .overloaded
    case .cancelled: .deadlineExceeded
    case .responseTooLarge: .workerError("the reply is too large")
    }
  }
}
