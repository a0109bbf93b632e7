import Benchmarks
import Bundles
import Foundation
import Scoring
import Terminal

/// `shortlist bench`: what the worker's parts cost on this machine, beside what the machine allows.
extension Command {
  static let bench = Command(
    name: "bench", summary: "Measure the worker's parts on this machine", example: "shortlist bench scan",
    commands: [
      Command(
        name: "scan",
        summary: "Exact retrieval: the best k of all rows",
        discussion: """
          Times one query after the other on one core, or several at once (--batch, --threads), and compares 100 answers
          with those of a plain scan of every row. Beside them: a plain read of the rows' memory, the least that a scan
          of all of it can take. The rows are made from a seed (--data), or read: .npy, or raw little-endian float32
          with --dimension.
          """,
        example: "shortlist bench scan --data flat --rows 1000000",
        options: scanOptions + [
          .integer("batch", "queries that come together and share a pass", in: 1...LegScorer.togetherMax, standard: 1),
          .integer(
            "threads", "that share the shards of a query, or the queries of a batch", in: 1...256, standard: 1),
          .text("out", "FILE.npy", "write the rows that each query found, best first: int64"),
          Option(
            name: "plan", kind: .choice(["auto"] + ScanBenchmark.ScanPlan.allCases.map(\.rawValue)),
            placeholder: "PLAN", help: "what a scan reads first", standard: "auto"),
        ],
        run: { try BenchRun.scan($0) }),
      Command(
        name: "grpc",
        summary: "Serve a unary call that costs next to nothing, for others to ask",
        discussion: """
          On 127.0.0.1, /rank.Ranker/TopK: 100 pairs in reply. `Tests/bench grpc` asks it and a server of gRPC C++ in
          turn. Prints "ready URL", and serves until it is ended.
          """,
        example: "shortlist bench grpc --port 9000",
        options: [.integer("port", "where to listen; 0 = any free one", in: 0...65535, standard: 0)],
        run: { call in
          try RPCBenchmark.run(port: UInt16(call.integer("port"))) { Console.print("ready http://127.0.0.1:\($0)") }
          return 0
        }),
      Command(
        name: "data",
        summary: "Write the made rows and queries, as factors: items.npy and users.npy with their ids",
        discussion: """
          What bench scan makes of a seed, for other programs to be measured on and for bundles of any size: the queries
          are written as the users.
          """,
        example: "shortlist bench data --data structured --rows 1000000 --out factors",
        options: [
          Option(
            name: "data", kind: .choice(SyntheticItems.Kind.allCases.map(\.rawValue)), placeholder: "KIND",
            help: "what rows to make", standard: "structured"),
          .integer("rows", "how many", in: 1...100_000_000, standard: 1_000_000),
          .integer("dimension", "of the rows", in: 1...4096, standard: 64),
          .integer("count", "queries", in: 1...1_000_000, standard: 1000),
          .text("out", "DIR", "where to write").required,
        ],
        run: { try BenchRun.data($0) }),
      Command(
        name: "filter",
        summary: "Exact retrieval under filters that keep all, half, a tenth and a hundredth of the rows",
        discussion: "As bench scan, once per filter. The filter compares a column of random numbers.",
        example: "shortlist bench filter --data flat",
        options: scanOptions,
        run: { try BenchRun.filter($0) }),
      Command(
        name: "trees",
        summary: "A tree ranker: nanoseconds a row",
        discussion: """
          Times batches of rows on one core and compares every score with the trees' definition. The trees are made from
          a seed, or read: --model, LightGBM text or XGBoost JSON, with --rows, .npy or raw little-endian float32, and
          --expected, raw float64, what the library says of them.
          """,
        example: "shortlist bench trees --model model.txt --rows rows.npy",
        options: [
          .integer("trees", "how many to make", in: 1...100_000, standard: 500),
          .integer("leaves", "of each", in: 2...10_000, standard: 63),
          .integer("features", "that they ask", in: 1...10_000, standard: 50),
          .text("model", "FILE", "LightGBM text or XGBoost JSON, instead of made trees"),
          .text("rows", "FILE", "rows to score, with --model: .npy or raw"),
          .text("expected", "FILE", "the rows' scores, with --rows"),
        ],
        run: { try BenchRun.trees($0) }),
      Command(
        name: "mlp",
        summary: "A network: nanoseconds a row",
        discussion: """
          Times batches of rows on one core and compares every score with the network's definition. Beside them: the
          machine's fused multiply-adds alone, measured in between. The network is made from a seed, with relu between
          its layers, or read: --model, safetensors, with --rows, .npy or raw little-endian float32, and --expected, raw
          float64, what another library says of them.
          """,
        example: "shortlist bench mlp --model net.safetensors --rows rows.npy",
        options: [
          Option(
            name: "widths", kind: .integers(1...16_384), placeholder: "N,N,…,1", help: "of the network to make",
            standard: "50,256,128,64,1"),
          .text("model", "FILE", "a network, instead of a made one"),
          .text("rows", "FILE", "rows to score, with --model: .npy or raw, a number per input"),
          .text("expected", "FILE", "the rows' scores, with --rows"),
        ],
        run: { try BenchRun.mlp($0) }),
    ])

  private static let scanOptions: [Option] = [
    Option(
      name: "data", kind: .choice(SyntheticItems.Kind.allCases.map(\.rawValue)), placeholder: "KIND",
      help: "what rows to make", standard: "structured"),
    .integer("rows", "how many", in: 1...100_000_000, standard: 1_000_000),
    .integer("dimension", "of the rows", in: 1...4096, standard: 64),
    .integer("count", "queries: so many are made, or read at most", in: 1...1_000_000, standard: 1000),
    .integer("k", "the best so many", in: 1...10_000, standard: 100),
    .integer("shards", "the rows lie in so many slices", in: 1...4096, standard: 1),
    .text("items", "FILE", "rows, instead of made ones"),
    .text("queries", "FILE", "queries, with --items"),
  ]
}

enum BenchRun {
  static func scan(_ invocation: Invocation) throws -> Int32 {
    var benchmark = try made(invocation)
    benchmark.batch = invocation.integer("batch")
    benchmark.threads = invocation.integer("threads")
    guard benchmark.batch <= benchmark.queries.count else {
      throw UsageError("--batch \(benchmark.batch) needs as many queries, there are \(benchmark.queries.count)")
    }
    benchmark.plan = ScanBenchmark.ScanPlan(rawValue: invocation.text("plan"))
    let (report, found) = benchmark.run { Console.live($0) }
    Console.live("")
    if let out = invocation.optional("out") { try NumPyFile.write(found.map { $0.map(Int64.init) }, to: out) }
    if invocation.json { try Console.printJSON(report) } else { Console.print(text(report)) }
    return report.different == 0 ? 0 : 1
  }

  static func data(_ invocation: Invocation) throws -> Int32 {
    let directory = invocation.text("out")
    let made = SyntheticItems.make(
      SyntheticItems.Kind(rawValue: invocation.text("data")) ?? .structured, items: invocation.integer("rows"),
      queries: invocation.integer("count"), dimension: invocation.integer("dimension"))
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    for (name, vectors, prefix) in [("items", made.items, "i"), ("users", made.queries, "u")] {
      try NumPyFile.write(
        Matrix(rows: vectors.count, columns: vectors.dimension, values: vectors.values), to: "\(directory)/\(name).npy")
      try IDFile.write((0..<vectors.count).map { "\(prefix)\($0)" }, to: "\(directory)/\(name).ids")
    }
    Console.print("\(made.items.count) items and \(made.queries.count) users written to \(directory)")
    return 0
  }

  static func filter(_ invocation: Invocation) throws -> Int32 {
    var benchmark = try made(invocation)
    var all: Double?
    var different = 0
    for keep in [nil, 0.5, 0.1, 0.01] as [Double?] {
      benchmark.keep = keep
      let report = benchmark.run { Console.live($0) }.report
      Console.live("")
      different += report.different
      let unfiltered = all ?? report.ms_per_query
      all = unfiltered
      if invocation.json {
        try Console.printJSON(report)
      } else {
        Console.print(
          String(
            format: "keeps %5.1f %%  median %7.3f ms  95 %% %7.3f ms  %5.2f × the unfiltered  %d of %d answers equal",
            (keep ?? 1) * 100, report.ms_per_query, report.p95_ms, report.ms_per_query / unfiltered,
            report.compared - report.different, report.compared))
      }
    }
    return different == 0 ? 0 : 1
  }

  private static func made(_ invocation: Invocation) throws -> ScanBenchmark {
    var benchmark: ScanBenchmark
    let dimension = invocation.integer("dimension")
    if let file = invocation.optional("items") {
      guard let queries = invocation.optional("queries") else {
        throw UsageError("--items needs --queries: what to ask of them")
      }
      benchmark = ScanBenchmark(
        items: try vectors(file, dimension: dimension), queries: try vectors(queries, dimension: dimension))
      guard benchmark.items.dimension == benchmark.queries.dimension else {
        throw UsageError(
          "\(file) has \(benchmark.items.dimension) dimensions, \(queries) has \(benchmark.queries.dimension)")
      }
      let wanted = invocation.integer("count") * benchmark.queries.dimension
      benchmark.queries.values = Array(benchmark.queries.values.prefix(wanted))
    } else {
      Console.live("making \(invocation.integer("rows")) rows")
      let made = SyntheticItems.make(
        SyntheticItems.Kind(rawValue: invocation.text("data")) ?? .structured, items: invocation.integer("rows"),
        queries: invocation.integer("count"), dimension: dimension)
      benchmark = ScanBenchmark(items: made.items, queries: made.queries)
    }
    benchmark.k = invocation.integer("k")
    benchmark.shards = invocation.integer("shards")
    return benchmark
  }

  static func trees(_ invocation: Invocation) throws -> Int32 {
    var benchmark: TreeBenchmark
    if let model = invocation.optional("model") {
      guard let inputs = invocation.optional("rows") else {
        throw UsageError("--model needs --rows: the rows to score")
      }
      let ensemble = try RankerModel.trees(model)
      benchmark = TreeBenchmark(ensemble: ensemble, inputs: try vectors(inputs, dimension: ensemble.features.count))
      if let expected = invocation.optional("expected") {
        benchmark.expected = try doubles(expected)
      }
    } else {
      benchmark = try TreeBenchmark.made(
        trees: invocation.integer("trees"), leaves: invocation.integer("leaves"),
        features: invocation.integer("features"), rows: 2000)
    }
    let report = try benchmark.run { Console.live($0) }
    Console.live("")
    if invocation.json {
      try Console.printJSON(report)
    } else {
      Console.print(
        "\(report.trees) trees of at most \(report.leaves_max) leaves, \(report.features) features, one core")
      for batch in report.batches {
        Console.print(String(format: "%5d rows at a time  %9.0f ns a row", batch.rows, batch.ns_per_row))
      }
      Console.print(String(format: "explained           %9.0f ns a row", report.explain_ns_per_row))
      compare(report.plain_ns_per_row, report.different, report.error_max)
    }
    return report.different == 0 ? 0 : 1
  }

  static func mlp(_ invocation: Invocation) throws -> Int32 {
    var benchmark: MLPBenchmark
    if let model = invocation.optional("model") {
      guard let rows = invocation.optional("rows") else {
        throw UsageError("--model needs --rows: the rows to score")
      }
      let network = try RankerModel.mlp(model)
      benchmark = MLPBenchmark(network: network, rows: try vectors(rows, dimension: network.inputs.count))
      if let expected = invocation.optional("expected") {
        benchmark.expected = try doubles(expected)
      }
    } else {
      benchmark = try MLPBenchmark.made(widths: invocation.integers("widths") ?? [], rows: 2000)
    }
    let report = try benchmark.run { Console.live($0) }
    Console.live("")
    if invocation.json {
      try Console.printJSON(report)
    } else {
      Console.print(
        """
        \(report.inputs) inputs, \(report.products_per_row) products a row, one core; multiply-adds alone \
        \(String(format: "%.0f GFLOP/s: %.0f ns a row", report.limit_gflops, report.limit_ns_per_row))
        """)
      for batch in report.batches {
        Console.print(
          String(
            format: "%5d rows at a time  %9.0f ns a row  %5.1f %% of the limit", batch.rows, batch.ns_per_row,
            batch.percent_of_limit))
      }
      compare(report.plain_ns_per_row, report.different, report.error_max)
    }
    return report.different == 0 ? 0 : 1
  }

  /// What a ranker is beside its definition, and beside scores that were given.
  private static func compare(_ plain: Double, _ different: Int, _ error: Double?) {
    Console.print(String(format: "definition          %9.0f ns a row", plain))
    Console.print(different == 0 ? "every score is the definition's" : "\(different) scores are not the definition's")
    if let error { Console.print(String(format: "greatest error beside the given scores %.1e", error)) }
  }

  private static func doubles(_ file: String) throws -> [Double] {
    let data = try Data(contentsOf: URL(fileURLWithPath: file))
    return [Double](unsafeUninitializedCapacity: data.count / 8) { values, count in
      count = data.copyBytes(to: values) / 8
    }
  }

  private static func vectors(_ file: String, dimension: Int) throws -> Vectors {
    if file.hasSuffix(".npy") {
      let matrix = try NumPyFile.read(file)
      return Vectors(dimension: matrix.columns, values: matrix.values)
    }
    let data = try Data(contentsOf: URL(fileURLWithPath: file), options: .alwaysMapped)
    guard !data.isEmpty, data.count % (4 * dimension) == 0 else {
      throw UsageError("\(file) has \(data.count) bytes, not rows of \(dimension) float32; give its --dimension")
    }
    return Vectors(
      dimension: dimension,
      values: [Float](unsafeUninitializedCapacity: data.count / 4) { values, count in
        count = data.copyBytes(to: values) / 4
      })
  }

  private static func text(_ report: ScanBenchmark.Report) -> String {
    func line(_ name: String, _ milliseconds: Double, _ rest: String = "") -> String {
      String(
        format: "%@ %9.3f ms  %6.1f %% of a plain scan  %@", name.padding(toLength: 12, withPad: " ", startingAt: 0),
        milliseconds, milliseconds / report.plain_ms * 100, rest)
    }
    let gigabytes = Double(report.rows * ((report.dimension + 15) & ~15) * 4) / 1e6
    let memory = Double(report.bytes) / Double(report.bytes_of_floats_and_bytes)
    return """
      \(report.rows) rows of \(report.dimension), \(report.shards) shards, best \(report.k), \
      \(report.batch) at once, \(report.threads) thread\(report.threads == 1 ? "" : "s"); plan: \(report.plan)
      \(line("plain read", report.limit_ms, String(format: "%.1f GB/s", gigabytes / report.limit_ms)))
      \(line("plain scan", report.plain_ms, String(format: "%.1f GB/s", gigabytes / report.plain_ms)))
      \(line("exact", report.ms_per_query, "median of \(report.queries) queries"))
      \(line("", report.p95_ms, "95 %"))
      \(line("", report.max_ms, "slowest"))
      rows of a query: \(Int(report.rows_read)) looked at, \(Int(report.rows_passed)) passed, \
      \(Int(report.rows_scored)) scored
      index built in \(Int(report.index_ms)) ms; \(String(format: "%.2f", memory)) times the memory of float32 and \
      bytes alone
      \(report.compared - report.different) of \(report.compared) answers equal the plain scan's
      """
  }
}
