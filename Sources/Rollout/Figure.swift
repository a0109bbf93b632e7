import RankingCore

// Numbers as people read them. The standard library alone formats none.

enum Figure {
  /// With so many decimals, rounded half away from zero.
  static func fixed(_ value: Double, _ places: Int) -> String {
    guard value.isFinite else { return "\(value)" }
    var scale = 1.0
    for _ in 0..<places { scale *= 10 }
    let scaled = (value.magnitude * scale).rounded()
    guard scaled < 9e15 else { return "\(value)" }
    let digits = String(Int(scaled))
    let padded = String(repeating: "0", count: max(0, places + 1 - digits.count)) + digits
    let sign = value < 0 && scaled > 0 ? "-" : ""
    guard places > 0 else { return sign + padded }
    return sign + padded.dropLast(places) + "." + padded.suffix(places)
  }
  static func percent(_ share: Double) -> String { fixed(share * 100, 1) + " %" }
  static func seconds(_ duration: Duration) -> String {
    let seconds = Double(duration.nanoseconds) / 1e9
    return fixed(seconds, seconds == seconds.rounded() ? 0 : 1) + " s"
  }
  static func bytes(_ count: UInt64) -> String {
    let mebibytes = Double(count) / 1_048_576
    return mebibytes < 1
      ? "\(count) B" : mebibytes < 1024 ? fixed(mebibytes, 1) + " MiB" : fixed(mebibytes / 1024, 1) + " GiB"
  }
  /// The first few of a list, and how many more there are.
  static func listed(_ names: [String], _ most: Int = 8) -> String {
    let first = names.prefix(most).joined(separator: ", ")
    return names.count > most ? "\(first) and \(names.count - most) more" : first
  }
  /// Cut to what the document takes.
  static func shortened(_ text: String) -> String {
    text.utf8.count > RolloutDocument.textMax ? text.cut(utf8: RolloutDocument.textMax - 3) + "…" : text
  }
}
