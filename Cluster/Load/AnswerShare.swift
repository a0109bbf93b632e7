import Wire

/// What of an answer is looked at without the rest.
package enum AnswerShare {
  /// The share of the items that it speaks for; 0 when it is no answer.
  package static func items(_ body: [UInt8]) -> Double {
    (try? body.withUnsafeBytes { try ParsedAnswer($0) })?.coverageItems ?? 0
  }
}
