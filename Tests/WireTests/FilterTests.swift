import RankingCore
import Testing
import Wire

@Suite struct FilterJSONTests {
  private func parse(_ filter: String) throws -> Filter? {
    try Array("{\"user\":\"a\",\"filter\":\(filter)}".utf8).withUnsafeBytes {
      try PublicAPI.recommend.parse($0, requestID: "r").filter
    }
  }

  @Test func everyForm() throws {
    #expect(try parse(#"{"field":"price","lte":5}"#) == .compare(field: "price", .atMost(5)))
    #expect(
      try parse(#"{"all":[{"field":"a","eq":true},{"any":[{"not":{"field":"b","in":["x",2]}}]}]}"#)
        == .all([
          .compare(field: "a", .isIn([.boolean(true)])),
          .any([.not(.compare(field: "b", .isIn([.text("x"), .number(2)])))]),
        ]))
    #expect(
      try parse(#"{"gt":1,"field":"p","lt":2}"#)
        == .all([.compare(field: "p", .greater(1)), .compare(field: "p", .less(2))]))
    #expect(
      try parse(#"{"field":"p","between":[1,2],"gte":-1e3}"#)
        == .all([.compare(field: "p", .between(1, 2)), .compare(field: "p", .atLeast(-1000))]))
  }

  private static let shape =
    "one of {\"all\": […]}, {\"any\": […]}, {\"not\": {…}} or {\"field\": …} with eq, in, lt, lte, gt, gte or between"

  @Test(arguments: [
    (#"{}"#, "\"filter\" must be \(shape)"), (#"[]"#, "\"filter\" must be \(shape)"),
    (#"{"field":"p"}"#, "\"filter\" must be \(shape)"), (#"{"lt":1}"#, "\"filter\" must be \(shape)"),
    (#"{"field":"p","is":1}"#, "\"filter\" must be \(shape); \"is\" is none of them"),
    (#"{"all":[]}"#, "\"filter.all\" must be a list of at least one filter"),
    (#"{"all":[{"field":"p","lt":1}],"field":"p"}"#, "\"filter\" must be \(shape), and nothing beside it"),
    (
      #"{"any":[{"field":"p","lt":1},{"field":"p","lt":"x"}]}"#,
      "\"filter.any[1].lt\" must be a number, -3.4e+38 to 3.4e+38"
    ),
    (#"{"field":"p","lt":1,"lt":2}"#, "\"filter\" must be without \"lt\" twice"),
    (#"{"field":"p","in":[]}"#, "\"filter.in\" must be a list of at least one value"),
    (#"{"field":"p","in":[null]}"#, "\"filter.in[0]\" must be a number, a text or a boolean"),
    (#"{"field":"p","between":[2,1]}"#, "\"filter.between\" must be [low, high], two numbers in order"),
    (#"{"field":"p","between":[1]}"#, "\"filter.between\" must be [low, high], two numbers in order"),
  ])
  func whatIsWrongIsNamed(filter: String, message: String) {
    #expect(throws: RankingError(.invalidArgument, message)) { try parse(filter) }
  }

  @Test func limits() throws {
    let one = #"{"field":"p","lt":1}"#
    func nested(_ depth: Int) -> String { (1..<depth).reduce(one) { inner, _ in "{\"not\":\(inner)}" } }
    #expect(try parse(nested(8)) != nil)
    #expect(throws: RankingError.self) { try parse(nested(9)) }
    func wide(_ count: Int) -> String {
      "{\"all\":[" + [String](repeating: one, count: count).joined(separator: ",") + "]}"
    }
    #expect(try parse(wide(256)) != nil)
    #expect(throws: RankingError.self) { try parse(wide(257)) }
    func long(_ count: Int) -> String {
      "{\"field\":\"p\",\"in\":[" + [String](repeating: "1", count: count).joined(separator: ",") + "]}"
    }
    #expect(try parse(long(1000)) != nil)
    #expect(throws: RankingError(.invalidArgument, "\"filter\" must be of at most 1000 values")) {
      try parse(long(1001))
    }
  }
}

@Suite struct FilterProgramTests {
  private static let columns = [
    Column(name: "price", kind: .number), Column(name: "new", kind: .boolean),
    Column(name: "kind", kind: .category, categories: ["tea", "cup"]),
  ]
  private func program(_ filter: Filter) throws -> FilterProgram { try FilterProgram(filter, columns: Self.columns) }
  private func passes(_ filter: Filter, _ values: [Float]) throws -> Bool {
    let program = try program(filter)
    #expect(program.fault(columns: 3) == nil)
    return program.passes { values[$0] }
  }

  @Test func comparisons() throws {
    func price(_ comparison: Filter.Comparison, _ value: Float) throws -> Bool {
      try passes(.compare(field: "price", comparison), [value, 0, 0])
    }
    for (value, less, equal) in [(0.0999 as Float, true, false), (0.1, false, true), (0.1001, false, false)] {
      #expect(try price(.less(0.1), value) == less)
      #expect(try price(.atMost(0.1), value) == (less || equal))
      #expect(try price(.greater(0.1), value) == !(less || equal))
      #expect(try price(.atLeast(0.1), value) == !less)
      #expect(try price(.isIn([.number(7), .number(0.1)]), value) == equal)
      #expect(try price(.between(0.1, 0.2), value) == !less)
    }
    for comparison: Filter.Comparison in [
      .less(1e30), .atMost(1e30), .greater(-1e30), .atLeast(-1e30), .isIn([.number(0)]), .between(-1e30, 1e30),
    ] { #expect(try !price(comparison, .nan)) }
    #expect(try passes(.not(.compare(field: "price", .less(1))), [.nan, 0, 0]))
    #expect(try passes(.compare(field: "new", .isIn([.boolean(true)])), [0, 1, 0]))
    #expect(try passes(.compare(field: "kind", .isIn([.text("pot"), .text("cup")])), [0, 0, 1]))
    #expect(try !passes(.compare(field: "kind", .isIn([.text("pot")])), [0, 0, 1]))
  }

  /// Every filter of three comparisons and two joins, and one too wide for the quick way, by plain recursion.
  @Test func joins() throws {
    let parts: [Filter] = [
      .compare(field: "price", .less(5)), .not(.compare(field: "new", .isIn([.boolean(true)]))),
      .compare(field: "kind", .isIn([.text("tea")])),
    ]
    func plainly(_ filter: Filter, _ values: [Float]) -> Bool {
      switch filter {
      case .all(let parts): parts.allSatisfy { plainly($0, values) }
      case .any(let parts): parts.contains { plainly($0, values) }
      case .not(let part): !plainly(part, values)
      case .compare(let field, _): field == "price" ? values[0] < 5 : field == "new" ? values[1] == 1 : values[2] == 0
      }
    }
    let wide = (0..<70).map { parts[$0 % 3] }
    let filters: [Filter] = [
      .all(parts), .any(parts), .any([.all([parts[0], parts[1]]), parts[2]]),
      .all([parts[0], .any([parts[1], parts[2]])]),
      .not(.any([.not(.all(parts)), .not(parts[2])])), .all(wide), .any([.all(wide), .any(wide)]),
      .not(.all([.any(wide)])),
      .all((0..<64).map { _ in parts[0] }),
    ]
    for filter in filters {
      for price: Float in [1, 9, .nan] {
        for new: Float in [0, 1] {
          for kind: Float in [0, 1] {
            let values = [price, new, kind]
            #expect(try passes(filter, values) == plainly(filter, values), "\(filter) of \(values)")
          }
        }
      }
    }
  }

  @Test func whatDoesNotFitIsNamed() {
    func refused(_ field: String, _ comparison: Filter.Comparison, _ message: String) {
      #expect(throws: RankingError(.invalidArgument, "\"filter\": " + message)) {
        try program(.compare(field: field, comparison))
      }
    }
    refused("colour", .less(1), "\"colour\" is no item column; allowed: price, new, kind")
    refused("new", .less(1), "\"new\" is a boolean; it takes eq and in")
    refused("price", .isIn([.text("x")]), "\"price\" is a number; its values are numbers")
    refused("kind", .isIn([.number(1)]), "\"kind\" is a category; its values are texts")
  }

  @Test func brokenProgramsAreFound() {
    for (steps, fault) in [
      ([], "0 results where one is wanted"), ([.not], "nothing to turn round"),
      ([.range(column: 3, low: 0, high: 1)], "column 3 of 3"), ([.isIn(column: 7, [])], "column 7 of 3"),
      ([.range(column: 0, low: .nan, high: 1)], "a bound is not a number"),
      ([.isIn(column: 0, []), .all(2)], "joins 2 of 1 results"),
      ([.isIn(column: 0, []), .any(0)], "joins 0 of 1 results"),
      ([.isIn(column: 0, []), .isIn(column: 0, [])], "2 results where one is wanted"),
    ] as [([FilterProgram.Step], String)] {
      #expect(FilterProgram(steps: steps).fault(columns: 3) == fault)
    }
  }
}
