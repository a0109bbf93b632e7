import Bundles
import Foundation
import Terminal
import Training

// From tables to factors, and how good they are.

extension Command {
  static let ingest = Command(
    name: "ingest",
    summary: "Make the interactions file from the tables a shop has",
    discussion: """
      Joins order lines to their invoices by a key and writes user,item,weight,timestamp, one row per pair.
      """,
    example: "shortlist ingest --lines lines.csv --invoices invoices.csv --out interactions.csv",
    options: [
      .text("lines", "FILE", "CSV: one row per item bought").required,
      .text("invoices", "FILE", "CSV: one row per purchase: who and when").required,
      .text("out", "FILE", "the interactions file").required,
      .text("key", "COLUMN", "the column both tables share", standard: "InvoiceNo"),
      .text("user-column", "COLUMN", "who, in the invoices", standard: "CustomerID"),
      .text("item-column", "COLUMN", "what, in the lines", standard: "StockCode"),
      .text("time-column", "COLUMN", "when, in the invoices", standard: "InvoiceDate"),
      .text("from", "TIME", "leave out what happened before, for example 2011-01-01"),
      .text("until", "TIME", "leave out what happened then or later"),
      .flag("counts", "weight = how often the pair occurred, instead of 1"),
    ],
    run: { call in
      var options = IngestOptions()
      options.lines = call.text("lines")
      options.invoices = call.text("invoices")
      options.key = call.text("key")
      options.userColumn = call.text("user-column")
      options.itemColumn = call.text("item-column")
      options.timeColumn = call.text("time-column")
      options.from = call.optional("from")
      options.until = call.optional("until")
      options.countsAsWeight = call.flag("counts")
      let summary = try Ingest.run(options, out: call.text("out"))
      print(
        call.json
          ? """
          {"lines":\(summary.lines),"outside_time":\(summary.outsideTime),"users":\(summary.users),\
          "items":\(summary.items),"pairs":\(summary.pairs)}
          """
          : "\(summary.lines) lines → \(summary.pairs) pairs of \(summary.users) users and \(summary.items) items")
      return 0
    })

  static let train = Command(
    name: "train", summary: "Train a model", example: "shortlist train als --interactions F.csv --out factors",
    commands: [
      Command(
        name: "als",
        summary: "Implicit ALS: factors of users and items from who took what",
        discussion: """
          Writes items.npy users.npy (float32) items.ids users.ids training.json. The same seed gives the same bits for
          every number of threads. An unseen pair counts --unobserved-weight, a seen one --alpha × weight more.
          """,
        example: "shortlist train als --interactions F.csv --factors 64 --iterations 15 --seed 1 --out factors",
        options: [
          .text("interactions", "FILE", "CSV: user,item[,weight][,timestamp]").required,
          .text("out", "DIR", "where the factors go").required,
          .integer("factors", "numbers per vector", in: 1...1024, standard: 64),
          .integer("iterations", "passes over users and items", in: 1...1000, standard: 15),
          .number("regularization", "λ", in: 0...1e6, standard: 50),
          .number("regularization-scaling", "ν: λ × (how much was seen)^ν", in: 0...2, standard: 0),
          .number("alpha", "α", in: 0...1e6, standard: 40),
          .number("unobserved-weight", "what an unseen pair counts", in: 0...1, standard: 1),
          .integer("cg-steps", "conjugate gradient steps per solution", in: 1...100, standard: 3),
          .integer("seed", "of the random start", in: 0...Int.max, standard: 1),
          .integer("threads", "threads to use", in: 1...1024, standard: ProcessInfo.processInfo.activeProcessorCount),
        ],
        run: { call in
          var options = ALSOptions()
          options.factors = call.integer("factors")
          options.iterations = call.integer("iterations")
          options.regularization = Float(call.number("regularization"))
          options.regularizationScaling = Float(call.number("regularization-scaling"))
          options.alpha = Float(call.number("alpha"))
          options.unobservedWeight = Float(call.number("unobserved-weight"))
          options.conjugateGradientSteps = call.integer("cg-steps")
          options.seed = UInt64(call.integer("seed"))
          options.threads = call.integer("threads")
          let interactions = try Interactions.load(path: call.text("interactions"))
          let progress = ProgressLine("training")
          let cpu = cpuSeconds()
          let start = Date()
          let factors = ALSTrainer(options).train(interactions) {
            progress.update($0, of: options.iterations, note: "iteration \($0)")
          }
          progress.finish()
          let summary = """
            {"users":\(factors.userIDs.count),"items":\(factors.itemIDs.count),"pairs":\(interactions.pairs),\
            "factors":\(options.factors),"iterations":\(options.iterations),"regularization":\(options.regularization),\
            "regularization_scaling":\(options.regularizationScaling),"alpha":\(options.alpha),\
            "unobserved_weight":\(options.unobservedWeight),"cg_steps":\(options.conjugateGradientSteps),\
            "seed":\(options.seed),"threads":\(options.threads),"seconds":\(rounded(Date().timeIntervalSince(start))),\
            "cpu_seconds":\(rounded(cpuSeconds() - cpu))}
            """
          try factors.write(to: call.text("out"), summary: summary + "\n")
          print(
            call.json
              ? summary
              : "\(factors.userIDs.count) users × \(factors.itemIDs.count) items, \(interactions.pairs) pairs: "
                + "\(rounded(Date().timeIntervalSince(start))) s, \(rounded(cpuSeconds() - cpu)) s of CPU")
          return 0
        })
    ])

  static let evaluate = Command(
    name: "evaluate",
    summary: "Recall, NDCG and hit rate at k on held-out pairs",
    discussion: """
      The whole catalogue is ranked for each user of the test file; items of the training file are left out for the user
      they belong to, unless --keep-seen. Popularity and the cold-start vector stand beside the model.
      """,
    example: "shortlist evaluate --factors factors --train train.csv --test test.csv --k 20",
    options: [
      .text("factors", "DIR", "what training wrote").required,
      .text("train", "FILE", "CSV: user,item").required,
      .text("test", "FILE", "CSV: user,item").required,
      .integer("k", "length of the list", in: 1...1000, standard: 20),
      .flag("keep-seen", "do not leave training items out"),
      .integer("threads", "threads to use", in: 1...1024, standard: ProcessInfo.processInfo.activeProcessorCount),
    ],
    run: { call in
      let report = Evaluation.run(
        factors: try Factors.load(call.text("factors")), train: try loadPairs(path: call.text("train")),
        test: try loadPairs(path: call.text("test")), k: call.integer("k"), keepSeen: call.flag("keep-seen"),
        threads: call.integer("threads"))
      let rows = [("model", report.model), ("popularity", report.popularity), ("cold_start", report.coldStart)]
      if call.json {
        let parts = rows.map { name, metrics in
          "\"\(name)\":{\"recall\":\(metrics.recall),\"ndcg\":\(metrics.ndcg),\"hit_rate\":\(metrics.hitRate)}"
        }
        print(
          """
          {"k":\(report.k),"users":\(report.users),"unknown_users":\(report.unknownUsers),\
          "unknown_item_pairs":\(report.unknownItemPairs),\(parts.joined(separator: ","))}
          """)
      } else {
        print("\(report.users) users (\(report.unknownUsers) more are not in the factors)")
        for (name, metrics) in rows {
          print(
            String(
              format: "%-11@ recall@%d %.4f  ndcg@%d %.4f  hr@%d %.4f", name as NSString, report.k, metrics.recall,
              report.k, metrics.ndcg, report.k, metrics.hitRate))
        }
      }
      return 0
    })
}

private func rounded(_ seconds: Double) -> Double { (seconds * 100).rounded() / 100 }

/// User and system time of this process so far.
private func cpuSeconds() -> Double {
  var usage = rusage()
  getrusage(0, &usage)  // RUSAGE_SELF
  func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
  return seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
