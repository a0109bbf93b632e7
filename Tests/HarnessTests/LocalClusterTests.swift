import ClusterHarness
import Foundation
import Testing

/// A cluster of stand-ins: a script that prints its ready line like a node does and then waits. What the real nodes do
/// is tested elsewhere; here it is about processes and files.
@Suite struct LocalClusterTests {
  let scratch: ScratchDirectory
  init() throws { scratch = try ScratchDirectory() }

  static let obedient = """
    #!/bin/sh
    [ "$1" = worker ] || [ "$1" = coordinator ] || exit 2
    [ "$2" = --config ] && [ -r "$3" ] || exit 2
    listen=$(sed -n 's/.*"listen" : "\\(.*\\)".*/\\1/p' "$3")
    [ "${listen##*:}" = 0 ] && listen=127.0.0.1:$$
    echo "ready http://$listen"
    exec cat /dev/zero >/dev/null
    """

  func options(_ script: String = obedient) throws -> LocalCluster.Options {
    let program = scratch.path + "/node"
    try script.write(toFile: program, atomically: true, encoding: .utf8)
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: program)
    var options = LocalCluster.Options(
      executable: program, store: scratch.path, model: "home", version: "v1", shards: 16)
    options.readinessPath = nil
    options.directory = StateDirectory(path: scratch.path + "/state")
    return options
  }

  @Test func itStartsTellsItsStateAndLeavesNothing() throws {
    let cluster = try LocalCluster(options())
    let state = try cluster.directory.read()
    #expect(cluster.directory.isHeld)
    #expect(state.url == cluster.url)
    #expect(state.members.map(\.name) == ["w1", "w2", "w3", "w4", "c1"])
    #expect(state.members.allSatisfy { $0.condition == "running" })
    cluster.stop()
    #expect(!cluster.directory.isHeld)
    #expect(state.members.allSatisfy { $0.process?.isAlive == false })
    #expect(!FileManager.default.fileExists(atPath: cluster.directory.path))
  }

  @Test func aRestartedWorkerKeepsItsAddress() throws {
    let cluster = try LocalCluster(options())
    let worker = try cluster.member("w2")
    let url = worker.url
    let pid = worker.process?.pid
    try cluster.kill("w2")
    #expect(!worker.isRunning)
    #expect(cluster.unexpectedEnds().isEmpty)
    #expect(throws: HarnessError.self) { try cluster.kill("w2") }
    try cluster.restart("w2")
    #expect(worker.url == url)
    #expect(worker.process?.pid != pid)
    #expect(try cluster.directory.read().members[1].starts == 2)
    let coordinator = FileManager.default.contents(atPath: cluster.directory.path + "/c1.json") ?? Data()
    let configuration = try JSONDecoder().decode(CoordinatorFile.self, from: coordinator)
    #expect(configuration.workers[1] == .init(name: "w2", address: String(url.dropFirst("http://".count))))
    #expect("http://" + configuration.listen == cluster.url)
  }

  @Test func aDeathNobodyAskedForIsToldOnce() throws {
    let cluster = try LocalCluster(options())
    cluster.workers[0].process?.kill()
    #expect(cluster.unexpectedEnds().map(\.message) == ["w1 ended: signal 9"])
    #expect(cluster.unexpectedEnds().isEmpty)
    #expect(try cluster.directory.read().members[0].condition == "dead (signal 9)")
  }

  @Test func aWorkerThatCannotStartEndsTheWholeStart() throws {
    let failing = Self.obedient.replacingOccurrences(
      of: "listen=$(", with: "case $3 in */w3.json) echo no such bundle >&2; exit 1;; esac\nlisten=$(")
    let options = try options(failing)
    let error = #expect(throws: HarnessError.self) { try LocalCluster(options) }
    #expect(error?.message == "w3 ended (exit code 1) before it was ready")
    #expect(error?.logTail == "  w3| no such bundle")
    #expect(!FileManager.default.fileExists(atPath: scratch.path + "/state"))
  }

  @Test func twoClustersDoNotShareADirectory() throws {
    let cluster = try LocalCluster(options())
    let options = cluster.options
    let error = #expect(throws: HarnessError.self) { try LocalCluster(options) }
    #expect(error?.message.contains("a cluster is already up in") == true)
    #expect(cluster.members.allSatisfy { $0.isRunning })
  }

  @Test func itIsSteeredOverItsSocketHoweverDeepTheDirectory() throws {
    var options = try options()
    let deep = scratch.path + "/" + Array(repeating: "0123456789", count: 15).joined(separator: "/")
    options.directory = StateDirectory(path: deep)
    let cluster = try LocalCluster(options)
    let server = try ControlServer(cluster.directory) { request in
      do {
        try cluster.kill(request.member)
        return ControlReply(ok: true, message: "\(request.member) is dead")
      } catch {
        return ControlReply(ok: false, message: "\(error)")
      }
    }
    defer { server.stop() }
    let killed = try cluster.directory.ask(.init(.kill, member: "w1"))
    #expect(killed == ControlReply(ok: true, message: "w1 is dead"))
    #expect(!cluster.workers[0].isRunning)
    let unknown = try cluster.directory.ask(.init(.kill, member: "w9"))
    #expect(unknown == ControlReply(ok: false, message: "there is no \"w9\"; there are w1, w2, w3, w4, c1"))
  }

  @Test func askingWhereNoneIsUpSaysWhatToDo() {
    let directory = StateDirectory(path: scratch.path + "/nowhere")
    let error = #expect(throws: HarnessError.self) { try directory.ask(.init(.down)) }
    #expect(error?.message.contains("start one with `shortlist cluster up`") == true)
    #expect(throws: HarnessError.self) { try directory.read() }
  }
}
