import Bundles
import ClusterLoad
import Foundation
import Oracle
import RankingCore
import Terminal
import Wire

// Making bundles, looking at them, and answering from one without a cluster.

extension Command {
  static let bundle = Command(
    name: "bundle", summary: "Build, inspect and verify bundles",
    example: "shortlist bundle build --factors factors --store store --model home --version v1",
    commands: [bundleBuild, bundleInspect, bundleVerify])

  private static let bundleBuild = Command(
    name: "build",
    summary: "Make an immutable bundle of factors, columns and history",
    discussion: """
      Publishes <store>/<model>/<version>, whole or not at all; a version that exists is refused.
      """,
    example: "shortlist bundle build --factors factors --history F.csv --store store --model home --version v1",
    options: [
      .text("factors", "DIR", "items.npy users.npy (or factors.safetensors) items.ids users.ids").required,
      .text("store", "DIR", "the directory that holds bundles").required,
      .text("model", "NAME", "the model's name").required,
      .text("version", "NAME", "the version's name").required,
      .integer("shards", "S: into how many slices the items are split", in: 1...4096, standard: 16),
      .text("item-columns", "FILE", "CSV: the first column is the item's id"),
      .text("user-columns", "FILE", "CSV: the first column is the user's id"),
      .text("history", "FILE", "CSV: user,item — what exclude_seen leaves out"),
      .text(
        "ranker", "FILE[:WEIGHT]",
        "LightGBM, XGBoost, network or linear; several add up; "
          + "needs --schema"
      ).repeated,
      .text("global", "FILE", "re-ranks merged lists: LightGBM, XGBoost or linear, over list.* features"),
      .integer(
        "global-pool", "how many items it is shown", in: ListRanking.poolRange, standard: ListRanking.poolDefault),
      .text("schema", "FILE", "names and kinds of item, user and context columns, JSON"),
    ],
    run: { call in
      var options = BundleOptions()
      options.factors = call.text("factors")
      options.store = call.text("store")
      options.release = ModelVersion(model: call.text("model"), version: call.text("version"))
      options.shards = call.integer("shards")
      options.itemColumns = call.optional("item-columns")
      options.userColumns = call.optional("user-columns")
      options.history = call.optional("history")
      options.rankers = call.texts("ranker").map { RankerInput(parsing: $0) }
      options.listRanker = call.optional("global")
      options.listPool = call.integer("global-pool")
      options.schema = call.optional("schema")
      let progress = ProgressLine("bundle")
      let golden = GoldenAnswers()
      let summary = try BundleBuilder(options).build(rehearse: golden.lines) { progress.update($0, of: $1) }
      progress.finish()
      if golden.isEmpty {
        Console.warn("warning: \(options.release) gives none of the tried users a single item")
      }
      print(
        call.json
          ? """
          {"path":"\(summary.path)","items":\(summary.items),"users":\(summary.users),\
          "bytes":\(summary.bytes),"ignored":\(summary.ignored)}
          """
          : "\(summary.path): \(summary.items) items, \(summary.users) users, \(summary.bytes) bytes"
            + (summary.ignored > 0 ? "; \(summary.ignored) rows of ids that the factors lack were left out" : ""))
      return 0
    })

  private static let bundleInspect = Command(
    name: "inspect", summary: "Show what a bundle holds", example: "shortlist bundle inspect store/home/v1",
    arguments: [Argument(name: "PATH", help: "the bundle's directory")],
    run: { call in
      let path = call.arguments[0]
      let manifest = try Bundles.Bundle.open(path).manifest
      if call.json {
        print(try String(contentsOfFile: path + "/" + BundleManifest.fileName, encoding: .utf8), terminator: "")
        return 0
      }
      print("\(manifest.release), made \(manifest.createdAt)")
      print("items      \(manifest.items) × \(manifest.dimension), in \(manifest.shards) shards by \(manifest.hash)")
      print("           \(manifest.itemsPerShard.min() ?? 0) to \(manifest.itemsPerShard.max() ?? 0) items a shard")
      print("users      \(manifest.users)")
      let rankers = manifest.weightedRankers.map { $0.weight == 1 ? $0.file : "\($0.weight) × \($0.file)" }
      print(
        "ranker     \(rankers.isEmpty ? "none: the retrieval score is the score" : rankers.joined(separator: " + "))")
      if let global = manifest.listRanker { print("global     \(global.file), over the best \(global.pool)") }
      for (name, columns) in [
        ("item", manifest.schema.item), ("user", manifest.schema.user), ("context", manifest.schema.context),
      ] where !columns.isEmpty {
        print("\(name) columns: " + columns.map { "\($0.name) (\($0.kind))" }.joined(separator: ", "))
      }
      print("files      \(manifest.files.count), \(manifest.files.reduce(0) { $0 + $1.size }) bytes")
      return 0
    })

  private static let bundleVerify = Command(
    name: "verify", summary: "Check every sum of a bundle", example: "shortlist bundle verify store/home/v1",
    arguments: [Argument(name: "PATH", help: "the bundle's directory")],
    run: { call in
      let progress = ProgressLine("verify")
      let problems = Bundles.Bundle.verify(call.arguments[0]) { progress.update($0, of: $1) }
      progress.finish()
      if call.json {
        let data = try JSONSerialization.data(withJSONObject: ["problems": problems])
        print(String(decoding: data, as: UTF8.self))
      } else {
        for problem in problems { print(problem) }
        if problems.isEmpty { print("whole") }
      }
      return problems.isEmpty ? 0 : 1
    })

  static let oracle = Command(
    name: "oracle",
    summary: "Answer requests from a bundle alone, slowly and plainly, to compare with",
    example: "shortlist oracle --bundle store/home/v1 --requests R.jsonl",
    options: [
      .text("bundle", "PATH", "the bundle's directory").required,
      .text("requests", "FILE", "one request object per line").required,
      Option(
        name: "shards", kind: .integers(0...4095), placeholder: "0,3,5", help: "only these shards"),
      .integer("candidates", "R instead of the request's", in: RequestLimit.candidates),
      Option(
        name: "api", kind: .choice(PublicAPI.allCases.map(\.rawValue)), placeholder: "NAME",
        help: "what the requests are: recommend, rank or similar", standard: "recommend"),
    ],
    run: { call in
      let oracle = try Oracle(bundle: call.text("bundle"))
      let api = PublicAPI(rawValue: call.text("api"))!
      let text = try String(contentsOfFile: call.text("requests"), encoding: .utf8)
      var status: Int32 = 0
      for line in text.split(separator: "\n") {
        var json = JSONWriter()
        let bytes = Array(line.utf8)
        do throws(RankingError) {
          let request = try api.parse(bytes, requestID: "oracle")
          let answer = try oracle.answer(
            request, over: call.integers("shards"), candidates: call.optionalInteger("candidates"))
          api.write(answer, into: &json)
        } catch {
          PublicAPI.write(error, requestID: "oracle", into: &json)
          status = 1
        }
        print(String(decoding: json.bytes, as: UTF8.self))
      }
      return status
    })
}
