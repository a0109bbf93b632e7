// The W3C trace context (https://www.w3.org/TR/trace-context/), as far as it is passed on:
//
//     traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//                  version, trace, the sender's span, flags

public struct TraceContext: Sendable, Equatable {
  /// 32 hexadecimal digits, not all 0.
  public let trace: String
  public let flags: String

  /// - Returns: nil for what is no traceparent; a request is then as good as untraced.
  public init?(traceparent text: String) {
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count >= 4, parts[0].utf8.count == 2, parts[1].utf8.count == 32, parts[2].utf8.count == 16,
      parts[3].utf8.count == 2, parts[..<4].allSatisfy({ $0.utf8.allSatisfy(Self.isHex) }), parts[0] != "ff",
      parts[0] != "00" || parts.count == 4, parts[1].contains(where: { $0 != "0" }),
      parts[2].contains(where: { $0 != "0" })
    else { return nil }
    trace = String(parts[1])
    flags = String(parts[3])
  }

  private static func isHex(_ byte: UInt8) -> Bool { (48...57).contains(byte) || (97...102).contains(byte) }

  /// What those that are asked next are told.
  public func traceparent(span: UInt64) -> String {
    let digits = String(max(1, span), radix: 16)
    return "00-\(trace)-\(String(repeating: "0", count: 16 - digits.utf8.count))\(digits)-\(flags)"
  }
}
