import ClusterHarness
import Foundation
import Terminal

// Rollouts by hand: each command is one request to a coordinator's admin address, answered when it is agreed.

extension Command {
  static let rollout = Command(
    name: "rollout",
    summary: "Move a model's traffic from one version to another, or back",
    example: "shortlist rollout start --model home --version v42",
    commands: [
      start, status, watch,
      steering("pause", "Stay in the stage it is in", "Guards go on looking; deadlines wait."),
      steering("resume", "Go on after a pause", "The stage's time and sample begin anew."),
      abort, promote, history, pinning("pin", "Keep a version loaded, for requests that name it"),
      pinning("unpin", "Let go of a pinned version"),
    ])

  static let models = Command(
    name: "models",
    summary: "Show each model's serving version, its rollout, and what failed",
    example: "shortlist models",
    options: adminOptions,
    run: { call in
      let report = try RolloutReport.fetch(try admin(call))
      if call.json { try Console.printJSON(report.document) } else { Console.print(RolloutView.models(report)) }
      return 0
    })

  private static let adminOptions: [Option] =
    [
      .text("url", "URL", "a coordinator's admin address (default: the local cluster's)"),
      .text("state", "DIR", "the local cluster's state directory, where no --url is given"),
    ] + trustOptions
  private static let model = Option.text("model", "NAME", "the model's name").required
  private static let who = Option.text("who", "NAME", "who says so, for the history (default: the user's name)")

  private static let start = Command(
    name: "start",
    summary: "Begin to move from the serving version to another",
    discussion: """
      The version's bundle must lie in the coordinators' and workers' store. Stages: load, verify, warm, shadow, canary
      (1, 10, 50, 100 % of the users), retire. Whatever a guard finds turns it back by itself.
      --settings holds what differs from the usual, for example
      {"shadow": {"min_time_ms": 60000}, "canary_steps": [100, 1000, 10000], "guards": {"overlap": {"absolute": 0.3}}}
      """,
    example: "shortlist rollout start --model home --version v42 --watch",
    options: adminOptions + [
      model, .text("version", "V", "the version to move to").required, who,
      .text("settings", "FILE", "stages, shares and guards that differ from the usual, JSON"),
      .flag("quick", "stages of seconds instead of minutes, to try it out"),
      .flag("again", "although this version failed before"),
      .flag("watch", "stay and show how it goes; exit code 1 when it does not end with the new version serving"),
    ],
    run: { call in
      var fields: [String: Any] = [
        "action": "start", "model": call.text("model"), "version": call.text("version"), "who": name(call),
      ]
      if call.flag("again") { fields["again"] = true }
      if let settings = try settings(call) { fields["settings"] = settings }
      let address = try admin(call)
      let entry = try RolloutReport.command(address, fields)
      guard call.flag("watch") else { return try show(entry, call) }
      _ = try show(entry, call)
      return try RolloutWatch(
        admin: address, model: call.text("model"), rollout: entry.rollout, json: call.json, shown: entry.sequence
      ).run()
    })

  private static func settings(_ call: Invocation) throws -> [String: Any]? {
    guard let file = call.optional("settings") else { return call.flag("quick") ? quick : nil }
    guard !call.flag("quick") else { throw UsageError("--quick and --settings exclude each other") }
    guard let data = FileManager.default.contents(atPath: file) else { throw CommandError("cannot read \(file)") }
    guard let object = (try? JSONSerialization.jsonObject(with: data)) as? [String: Any] else {
      throw CommandError("\(file): must be one JSON object")
    }
    return object
  }
  /// Enough for a look at every stage.
  private static var quick: [String: Any] {
    [
      "shadow": ["min_time_ms": 2000, "min_sample": 50], "canary": ["min_time_ms": 2000, "min_sample": 20],
      "retire": ["min_time_ms": 1000], "rolling_back": ["min_time_ms": 500], "shadow_share": 5000,
    ]
  }

  private static let status = Command(
    name: "status",
    summary: "Show how far rollouts are",
    example: "shortlist rollout status",
    options: adminOptions + [.text("model", "NAME", "only this one")],
    run: { call in
      let report = try RolloutReport.fetch(try admin(call))
      if call.json {
        try Console.printJSON(report)
      } else {
        Console.print(RolloutView.text(report, model: call.optional("model")))
      }
      return 0
    })

  private static let watch = Command(
    name: "watch",
    summary: "Show a rollout until it ends",
    discussion: "Exit code 1 when it does not end with the new version serving.",
    example: "shortlist rollout watch --model home",
    options: adminOptions + [model],
    run: { call in
      let address = try admin(call)
      let report = try RolloutReport.fetch(address)
      let model = call.text("model")
      guard let state = report[model] else { throw unknown(model, report) }
      guard let rollout = state.rollout else {
        Console.say(RolloutView.last(state) ?? "\(model) has no rollout", json: call.json)
        return 0
      }
      return try RolloutWatch(admin: address, model: model, rollout: rollout.id, json: call.json).run()
    })

  private static let abort = Command(
    name: "abort",
    summary: "Turn a rollout back: traffic at once, memory later",
    example: "shortlist rollout abort --model home --why wrong-prices",
    options: adminOptions + [model, who, .text("why", "TEXT", "the reason, for the history")],
    run: { call in
      try show(try RolloutReport.command(try admin(call), fields("abort", call, ["why"])), call)
    })

  private static let promote = Command(
    name: "promote",
    summary: "Go on from shadow or canary, whatever time and sample are missing",
    example: "shortlist rollout promote --model home --to full",
    options: adminOptions + [
      model, who,
      Option(
        name: "to", kind: .choice(["next", "full"]), placeholder: "STEP", help: "the next step, or all users",
        standard: "next"),
    ],
    run: { call in try show(try RolloutReport.command(try admin(call), fields("promote", call, ["to"])), call) })

  private static let history = Command(
    name: "history",
    summary: "Show who did what, when and why",
    example: "shortlist rollout history --model home",
    options: adminOptions + [
      .text("model", "NAME", "only this one"), .integer("from", "the first line", in: 1...Int.max, standard: 1),
    ],
    run: { call in
      let address = try admin(call)
      var next = call.integer("from")
      while true {
        let entries = try RolloutReport.history(address, from: next)
        for entry in entries where call.optional("model").map({ $0 == entry.model }) ?? true {
          if call.json { try Console.printJSON(entry) } else { Console.print(RolloutView.line(entry)) }
        }
        guard let last = entries.last else { return 0 }
        next = last.sequence + 1
      }
    })

  private static func steering(_ action: String, _ summary: String, _ discussion: String) -> Command {
    Command(
      name: action, summary: summary, discussion: discussion, example: "shortlist rollout \(action) --model home",
      options: adminOptions + [model, who],
      run: { call in try show(try RolloutReport.command(try admin(call), fields(action, call, [])), call) })
  }
  private static func pinning(_ action: String, _ summary: String) -> Command {
    Command(
      name: action, summary: summary, example: "shortlist rollout \(action) --model home --version v41",
      options: adminOptions + [model, .text("version", "V", "which version").required, who],
      run: { call in try show(try RolloutReport.command(try admin(call), fields(action, call, ["version"])), call) })
  }

  // MARK: What they share

  private static func fields(_ action: String, _ call: Invocation, _ more: [String]) -> [String: Any] {
    var fields: [String: Any] = ["action": action, "model": call.text("model"), "who": name(call)]
    for name in more { if let value = call.optional(name) { fields[name] = value } }
    return fields
  }
  private static func name(_ call: Invocation) -> String {
    call.optional("who") ?? ProcessInfo.processInfo.environment["USER"].flatMap { $0.isEmpty ? nil : $0 } ?? "operator"
  }
  private static func show(_ entry: RolloutReport.Entry, _ call: Invocation) throws -> Int32 {
    if call.json { try Console.printJSON(entry) } else { Console.print(RolloutView.line(entry)) }
    return 0
  }
  private static func unknown(_ model: String, _ report: RolloutReport) -> CommandError {
    CommandError("unknown model \"\(model)\"; there are \(report.document.models.map(\.model).joined(separator: ", "))")
  }

  /// Where to ask: the address that is given, or the local cluster's first coordinator that answers.
  static func admin(_ call: Invocation) throws -> String {
    if let url = call.optional("url") {
      do {
        let server = try ServerURL(url)
        try believe(server, call)
        return server.description
      } catch let error as HarnessError { throw UsageError("--url \(error)") }
    }
    let directory = stateDirectory(call)
    guard directory.isHeld else { throw HarnessError.noCluster(directory) }
    let admins = try directory.read().members.compactMap(\.admin)
    guard let answering = admins.first(where: { (try? RolloutReport.fetch($0)) != nil }) ?? admins.first else {
      throw CommandError("the local cluster has no coordinator")
    }
    return answering
  }
}
