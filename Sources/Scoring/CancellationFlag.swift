import Synchronization

/// Whether a leg's work is still wanted. The event loop raises it when the leg's deadline has passed, its stream was
/// reset or its connection died; the compute thread looks at it between blocks of rows, some tens of microseconds
/// apart.
public final class CancellationFlag: Sendable {
  private let raised = Atomic<Bool>(false)
  public init() {}
  public func cancel() { raised.store(true, ordering: .relaxed) }
  public var isCancelled: Bool { raised.load(ordering: .relaxed) }
}

/// What long work asks between two of its steps.
package protocol Interruption: AnyObject, Sendable {
  var isCancelled: Bool { get }
}

extension CancellationFlag: Interruption {}
