import Testing

@testable import ClusterLoad
@testable import Commands
@testable import Terminal

@Suite struct AnswerViewTests {
  private func text(_ items: String) throws -> [String] {
    let body = """
      {"items":[\(items)],"model":"home","version":"v1","cold_start":false,"coverage":{"shards":16,"answered":16},
       "took_ms":0.391}
      """
    return try AnswerView(Array(body.utf8)).text.split(separator: "\n").map(String.init)
  }

  @Test func scoresWithoutReasons() throws {
    #expect(
      try text(#"{"id":"a","score":0.61}"#) == [
        "     item   score", "  1  a     0.6100", "home/v1, 16 of 16 shards, 0.4 ms",
      ])
  }

  @Test func theLargestReasonsComeFirstAndTheRestIsOne() throws {
    let many = (0..<8).map { #""item.c\#($0)":\#(($0 % 2 == 0 ? 1 : -1) * (1 << $0))"# }.joined(separator: ",")
    let lines = try text(
      #"{"id":"a","score":0.6,"explain":{"retrieval_score":2,"raw":-84.5,"base":0.5,"contributions":{\#(many)}}},"#
        + #"{"id":"b","score":0.5,"explain":{"retrieval_score":2,"raw":1,"base":1,"contributions":{}}}"#)
    #expect(
      lines.dropLast() == [
        "     item   score  raw score = base + contributions",
        "  1  a     0.6000  -84.5000 = 0.5000 - 128.0000 item.c7 + 64.0000 item.c6 - 32.0000 item.c5 + 16.0000 item.c4 "
          + "- 8.0000 item.c3 + 4.0000 item.c2 -1.0000 of 2 others", "  2  b     0.5000  1.0000 = 1.0000",
      ])
  }
}
