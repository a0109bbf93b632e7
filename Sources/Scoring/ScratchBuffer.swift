/// Memory that a compute thread keeps from one leg to the next: it grows to the largest need and stays, so that a leg
/// in the steady state allocates nothing but its reply. What it holds is meaningless between uses.
package struct ScratchBuffer<Element: BitwiseCopyable>: ~Copyable {
  private var memory: UnsafeMutableRawBufferPointer

  package init() { memory = .allocate(byteCount: 64, alignment: 64) }
  deinit { memory.deallocate() }

  /// At least `count` elements, 64-byte aligned, with any content.
  package mutating func room(for count: Int) -> UnsafeMutablePointer<Element> {
    let bytes = count * MemoryLayout<Element>.stride
    if bytes > memory.count {
      memory.deallocate()
      memory = .allocate(byteCount: max(bytes, 4096), alignment: 64)
    }
    return memory.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: Element.self)
  }
}
