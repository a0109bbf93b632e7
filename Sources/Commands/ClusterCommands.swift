import ClusterHarness
import Foundation
import Terminal

// `cluster up` runs a cluster of real processes on this machine until it is told to stop; the others find it by its
// state directory and steer it from another terminal.

extension Command {
  static let cluster = Command(
    name: "cluster",
    summary: "Run a whole cluster on this machine, and hurt it",
    example: "shortlist cluster up --store store --model home --workers 4 --replicas 2",
    commands: [
      up, status, add,
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
    summary: "Start coordinators and workers, and keep them until Ctrl-C",
    discussion: """
      Without --join each worker is started with its shards. With it workers join by themselves, the first coordinator
      gives them shards, moves those of a worker that is gone, and `shortlist cluster add` brings in one more.
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
      .flag("join", "workers join, and the first coordinator places the shards"),
      .integer("coordinators", "how many coordinators", in: 1...16, standard: 1),
      .text("etcd", "HOST:PORT,…", "where several coordinators agree on rollouts"),
      .text("zones", "A,B,…", "the workers' zones in turn (with --join); replicas go to different ones"),
      .integer("port", "the first coordinator's port; 0 = a free one", in: 0...65535, standard: 0),
      .integer("scoring-threads", "compute threads per worker", in: 1...256, standard: 1),
      .flag("tls", "everything speaks TLS, with certificates made for this cluster (in its state directory, certs)"),
      state,
      .flag("keep-logs", "leave the processes' logs in the state directory"),
    ],
    signals: .own,
    run: { try Supervisor($0).run() })

  private static let status = Command(
    name: "status",
    summary: "Show who runs, where, and which shards they hold",
    discussion: """
      The matrix is what the first coordinator that answers sees: ● ready, ◐ loading, ✗ failed, · not there. A worker in
      brackets is not asked just now: (down), (ejected), (draining). Exit code 1 when a process is not running.
      """,
    example: "shortlist cluster status",
    options: [state],
    run: { try ClusterStatus(stateDirectory($0)).show(json: $0.json) })

  private static let add = Command(
    name: "add",
    summary: "Start one more worker, which joins and takes its share",
    discussion: "Only in a cluster that was started with --join.",
    example: "shortlist cluster add",
    options: [state],
    run: { try ask(.init(.add), $0) })

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
