import ClusterHarness
import Foundation

// `cluster up` runs a cluster of real processes on this machine until it is told to stop; the others find it by its
// state directory and steer it from another terminal.

extension Command {
  static let cluster = Command(
    name: "cluster",
    summary: "Run a whole cluster on this machine, and hurt it",
    example: "shortlist cluster up --store store --model home --workers 4 --replicas 2",
    commands: [
      up, status,
      steering(.kill, "End a process with kill -9", "It stays dead until it is restarted."),
      steering(.freeze, "Stop a process where it is (SIGSTOP)", "It keeps its connections and answers nothing."),
      steering(.thaw, "Let a frozen process run on", ""),
      steering(.restart, "Start a process again at the same address", "One that still runs is stopped first."),
      down,
    ])

  private static let state = Option.text(
    "state", "DIR", "the cluster's state directory (default: a well-known one of this user)")

  private static let up = Command(
    name: "up",
    summary: "Start one coordinator and some workers, and keep them until Ctrl-C",
    discussion: """
      Prints "ready URL" on a line of its own when it serves. A process that dies is reported and stays dead:
      `shortlist cluster restart NAME` starts it again. When this command ends, however it ends, so do they all.
      """,
    example: "shortlist cluster up --store store --model home --workers 4 --replicas 2 --port 8080",
    options: [
      .text("store", "DIR", "the directory that holds the bundles").required,
      .text("model", "NAME", "which model").required,
      .text("version", "V", "which of its versions (default: the newest)"),
      .integer("workers", "how many workers", in: 1...64, standard: 4),
      .integer("replicas", "on how many workers each shard is", in: 1...64, standard: 2),
      .integer("port", "the coordinator's port; 0 = a free one", in: 0...65535, standard: 0),
      .integer("scoring-threads", "compute threads per worker", in: 1...256, standard: 1),
      state,
      .flag("keep-logs", "leave the processes' logs in the state directory"),
    ],
    signals: .own,
    run: { try Supervisor($0).run() })

  private static let status = Command(
    name: "status",
    summary: "Show who runs, where, and which shards they hold",
    example: "shortlist cluster status",
    options: [state],
    run: { invocation in
      let directory = stateDirectory(invocation)
      guard directory.isHeld else { throw HarnessError.noCluster(directory) }
      let cluster = try directory.read()
      if invocation.json {
        try Console.printJSON(cluster)
      } else {
        var table = TextTable(["name", "state", "pid", "address", "shards", "starts"])
        for member in cluster.members {
          let shards = member.role == .coordinator ? "-" : member.shards.map(String.init).joined(separator: ",")
          table.add([
            member.name, member.condition, member.process.map { "\($0.pid)" } ?? "-", member.url, shards,
            "\(member.starts)",
          ])
        }
        Console.print(
          "\(cluster.model)/\(cluster.version) at \(cluster.url), \(cluster.shardCount) shards, "
            + "\(cluster.replicas) replicas\n\(table.text)")
      }
      return cluster.members.allSatisfy { $0.condition == "running" } ? 0 : 1
    })

  private static let down = Command(
    name: "down",
    summary: "Stop the cluster",
    example: "shortlist cluster down",
    options: [state],
    run: { try ask(.init(.down), $0) })

  private static func steering(_ verb: ControlRequest.Verb, _ summary: String, _ discussion: String) -> Command {
    Command(
      name: verb.rawValue, summary: summary, discussion: discussion, example: "shortlist cluster \(verb.rawValue) w1",
      options: [state],
      arguments: [Argument(name: "NAME", help: "the process, as `shortlist cluster status` names it")],
      run: { try ask(.init(verb, member: $0.arguments[0]), $0) })
  }

  private static func ask(_ request: ControlRequest, _ invocation: Invocation) throws -> Int32 {
    let reply = try stateDirectory(invocation).ask(request)
    if invocation.json {
      try Console.printJSON(reply)
    } else if reply.ok {
      Console.print(reply.message)
    } else {
      throw CommandError(reply.message)
    }
    return reply.ok ? 0 : 1
  }

  static func stateDirectory(_ invocation: Invocation) -> StateDirectory {
    invocation.optional("state").map { StateDirectory(path: $0) } ?? .standard
  }
}

extension HarnessError {
  static func noCluster(_ directory: StateDirectory) -> HarnessError {
    HarnessError("no cluster is up in \(directory.path): start one with `shortlist cluster up`, or name its --state")
  }
}
