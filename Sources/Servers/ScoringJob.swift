import RankingCore
import Scoring
import Synchronization
import Transport

/// Legs on their way through the compute threads: several that are scored together on one, or one whose shards are
/// shared out among several. Whoever ends last tells the results.
package final class ScoringJob: Sendable {
  package struct Leg: Sendable {
    var call: UInt64
    var request: ScoreRequest
    var cancelled: CancellationFlag
    package init(call: UInt64, request: ScoreRequest, cancelled: CancellationFlag) {
      self.call = call
      self.request = request
      self.cancelled = cancelled
    }
  }
  private struct Progress: Sendable {
    var open: Int
    var replies: [Result<ScoreReply, CallFailure>?]
    var took = Duration.zero
  }

  private let legs: [Leg]
  private let holding: HostedRelease
  /// Places in the only leg's tasks, by part; empty = all, on one thread.
  private let tasks: [[Int]]
  private let progress: Mutex<Progress>
  private let done: @Sendable ([Result<ScoreReply, CallFailure>], Duration) -> Void

  /// - Parameter done: is called on a compute thread, with a result per leg and the time that all threads took.
  package init(
    _ legs: [Leg], holding: HostedRelease, threads: Int,
    done: @escaping @Sendable ([Result<ScoreReply, CallFailure>], Duration) -> Void
  ) {
    self.legs = legs
    self.holding = holding
    self.done = done
    tasks = threads > 1 && legs.count == 1 ? LegParts.split(legs[0].request, holding: holding, into: threads) : []
    let parts = max(1, tasks.count)
    progress = Mutex(Progress(open: parts, replies: [Result<ScoreReply, CallFailure>?](repeating: nil, count: parts)))
  }

  /// How many times `run` must be called, each part once.
  package var parts: Int { max(1, tasks.count) }

  package func run(_ part: Int, _ scorer: LegScorer) {
    let start = EventLoop.clock()
    if tasks.isEmpty {
      let results =
        legs.count == 1
        ? [scorer.score(legs[0].request, holding: holding, cancelled: legs[0].cancelled)]
        : scorer.scoreTogether(legs.map { ($0.request, $0.cancelled) }, holding: holding)
      return done(results, EventLoop.clock() - start)
    }
    let result = scorer.score(legs[0].request, part: tasks[part], holding: holding, cancelled: legs[0].cancelled)
    let took = EventLoop.clock() - start
    let ended = progress.withLock { progress -> Progress? in
      progress.open -= 1
      progress.replies[part] = result
      progress.took += took
      return progress.open == 0 ? progress : nil
    }
    guard let ended else { return }
    var replies: [ScoreReply] = []
    for reply in ended.replies {
      switch reply {
      case .success(let reply)?: replies.append(reply)
      case .failure(let failure)?: return done([.failure(failure)], ended.took)
      case nil: preconditionFailure("a part of the job has not run")
      }
    }
    done([.success(LegParts.join(replies, of: legs[0].request))], ended.took)
  }
}
