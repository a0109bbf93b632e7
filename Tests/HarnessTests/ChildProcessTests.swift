import ClusterHarness
import Foundation
import Testing

/// A directory that goes with the test.
final class ScratchDirectory: Sendable {
  let path: String
  init() throws { path = try StateDirectory.temporary().path }
  deinit { try? FileManager.default.removeItem(atPath: path) }
}

@Suite struct ChildProcessTests {
  let scratch: ScratchDirectory
  init() throws { scratch = try ScratchDirectory() }

  func shell(_ script: String) throws -> ChildProcess {
    try ChildProcess(
      name: "child", executable: "/bin/sh", arguments: ["-c", script], logPath: scratch.path + "/child.log")
  }

  @Test func itsExitCodeIsTold() throws {
    #expect(try shell("exit 7").waitForExit(limit: .seconds(20)) == .code(7))
    #expect(try shell("kill -11 $$").waitForExit(limit: .seconds(20)) == .signal(11))
  }

  @Test func itsReadyLineIsFoundAndEarlierProcessesLinesAreNot() throws {
    let first = try shell("echo ready http://127.0.0.1:1; exec cat /dev/zero >/dev/null")
    #expect(try first.waitUntilReady(limit: .seconds(20)) == "http://127.0.0.1:1")
    first.kill()
    let second = try shell("echo ready http://127.0.0.1:2; exec cat /dev/zero >/dev/null")
    #expect(try second.waitUntilReady(limit: .seconds(20)) == "http://127.0.0.1:2")
  }

  @Test func dyingBeforeReadyShowsTheLog() throws {
    let child = try shell("echo port 80 is in use >&2; exit 1")
    let error = #expect(throws: HarnessError.self) { try child.waitUntilReady(limit: .seconds(20)) }
    #expect(error?.message == "child ended (exit code 1) before it was ready")
    #expect(error?.logTail == "  child| port 80 is in use")
  }

  @Test func aLimitEndsTheWait() throws {
    let child = try shell("exec cat /dev/zero >/dev/null")
    #expect(throws: HarnessError.self) { try child.waitUntilReady(limit: .milliseconds(1)) }
    #expect(throws: HarnessError.self) { try child.waitUntilReady(limit: .seconds(60), cancelled: { true }) }
  }

  @Test func aFrozenOneIsStopped() throws {
    let child = try shell("echo ready http://x; exec cat /dev/zero >/dev/null")
    _ = try child.waitUntilReady(limit: .seconds(20))
    child.freeze()
    while !child.isFrozen { #expect(child.isRunning) }
    #expect(child.stop(grace: .seconds(20)) == .signal(15))
    #expect(!child.isFrozen)
  }

  @Test func oneThatIgnoresTermIsKilled() throws {
    let child = try shell("trap '' TERM; echo ready http://x; while :; do :; done")
    _ = try child.waitUntilReady(limit: .seconds(20))
    #expect(child.stop(grace: .milliseconds(20)) == .signal(9))
  }

  @Test func itGoesWithItsLastReference() throws {
    var child: ChildProcess? = try shell("exec cat /dev/zero >/dev/null")
    let identity = try #require(child?.identity)
    #expect(identity.isAlive)
    child = nil
    #expect(!identity.isAlive)
  }

  @Test func whatCannotBeStartedSaysSo() {
    let error = #expect(throws: HarnessError.self) {
      try ChildProcess(
        name: "child", executable: "/nonexistent/program", arguments: [], logPath: scratch.path + "/child.log")
    }
    #expect(error?.message == "child: cannot start /nonexistent/program: No such file or directory")
  }

  /// The parent gets no chance to clean up: the kernel must end the child.
  @Test func itDiesWithAParentThatIsKilled() async throws {
    let path = scratch.path
    await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
      let child = try ChildProcess(
        name: "child", executable: "/bin/sh", arguments: ["-c", "echo ready http://x; exec cat /dev/zero >/dev/null"],
        logPath: path + "/child.log")
      _ = try child.waitUntilReady(limit: .seconds(20))
      try JSONEncoder().encode(child.identity).write(to: URL(fileURLWithPath: path + "/identity"))
      kill(getpid(), SIGKILL)
    }
    let data = try Data(contentsOf: URL(fileURLWithPath: path + "/identity"))
    let child = try JSONDecoder().decode(ProcessIdentity.self, from: data)
    // The signal is sent while the parent dies, and dying takes a moment more.
    let patience = ContinuousClock.now + .seconds(20)
    while child.isAlive, ContinuousClock.now < patience { await Task.yield() }
    #expect(!child.isAlive)
  }

  @Test func noDescriptorsOfOursReachTheChild() throws {
    let child = try shell("ls /proc/self/fd | wc -l; exit 0")
    _ = child.waitForExit(limit: .seconds(20))
    // 0, 1, 2 and the one ls reads the directory with.
    #expect(child.log() == "4\n")
  }
}
