import CScoring
import RankingCore

// Legs, scored on one compute thread:
//
//     task ─► exclusions ─► candidates ─► ranker ─► min score ─► best k ─┐
//     task ─► …                                                           ├─► merge in total order ─► reply with ids
//     task ─► …                                                           ┘          (and why, where asked)
//
// `.retrieve` takes the best R rows of each shard and leaves its best k; `.rank` takes the named rows and leaves all.
// Either way a shard's list is what the whole catalogue's would be, cut to the shard, so that merging loses nothing.
//
// Legs that are scored together go shard by shard: those that scan a slice take turns at each of its blocks, which
// comes from memory once for all of them, and each then ranks for itself. What a leg replies is the same as if it had
// been scored alone, bit for bit.
//
//     block 0   leg 1  leg 2  leg 3
//     block 1   leg 1  leg 2  leg 3
//     block 2   leg 1         leg 3      (leg 2 has its best)
//     …

/// Scores legs with memory that it keeps between them. One per compute thread: it is not shared.
public final class LegScorer {
  /// At most so many legs are scored together.
  public static let togetherMax = 32

  private var lanes = [ScoringLane()]
  private var room = ScoringRoom()
  private var table = ScanTable()

  public init() {}

  /// Of the leg that was scored last, or of one of those that were scored together.
  package func counts(leg: Int = 0) -> IndexedScan.Counts { lanes[leg].counts }

  /// The leg's reply: the best k of its shards in the total order, or in `.rank` mode every named item that is held.
  ///
  /// - Parameter cancelled: looked at between blocks of rows; once raised, the call returns within about 0.1 ms.
  /// - Returns: `.wrongVersion` when the release is another one or a shard is not held; `.workerError` when the request
  ///   does not fit the release, saying what; `.deadlineExceeded` when cancelled. All of a leg or nothing.
  public func score(
    _ request: ScoreRequest, holding: HostedRelease, cancelled: CancellationFlag
  ) -> Result<ScoreReply, CallFailure> {
    score(request, part: nil, holding: holding, cancelled: cancelled)
  }

  /// The reply of a part of a leg (see `LegParts`).
  ///
  /// - Parameter part: places in `request.tasks`; nil = all.
  public func score(
    _ request: ScoreRequest, part: [Int]?, holding: HostedRelease, cancelled: CancellationFlag
  ) -> Result<ScoreReply, CallFailure> {
    let lane = lanes[0]
    defer { lane.end() }
    if let failure = lane.begin(request, holding) { return .failure(failure) }
    if let part {
      for task in part { guard lane.score(task, &room, cancelled) else { return .failure(.deadlineExceeded) } }
    } else {
      for task in request.tasks.indices {
        guard lane.score(task, &room, cancelled) else { return .failure(.deadlineExceeded) }
      }
    }
    return lane.reply(part: part, &room, cancelled)
  }

  /// The replies of several legs, at most `togetherMax`, in their order, each as `score` gives it.
  public func scoreTogether(
    _ legs: [(request: ScoreRequest, cancelled: CancellationFlag)], holding: HostedRelease
  ) -> [Result<ScoreReply, CallFailure>] {
    while lanes.count < legs.count { lanes.append(ScoringLane()) }
    var failures = zip(legs, lanes).map { leg, lane in lane.begin(leg.request, holding) }
    var shards: [ShardID] = []
    for leg in legs { for task in leg.request.tasks where !shards.contains(task.shard) { shards.append(task.shard) } }
    for shard in shards {
      var asking: [(leg: Int, task: Int)] = []
      for (number, leg) in legs.enumerated() where failures[number] == nil {
        guard let task = leg.request.tasks.firstIndex(where: { $0.shard == shard }) else { continue }
        asking.append((number, task))
      }
      if asking.count > 1, let index = holding.slice(shard)?.scanIndex {
        scanTogether(index, asking.filter { legs[$0.leg].request.query.mode == .retrieve }, legs)
      }
      for (leg, task) in asking where !lanes[leg].score(task, &room, legs[leg].cancelled) {
        failures[leg] = .deadlineExceeded
      }
    }
    return legs.indices.map { number in
      defer { lanes[number].end() }
      return failures[number].map { .failure($0) } ?? lanes[number].reply(&room, legs[number].cancelled)
    }
  }

  /// Leaves the legs' candidates in their lanes. One that is cancelled is left behind; `score` will say so.
  private func scanTogether(
    _ index: ScanIndex, _ asking: [(leg: Int, task: Int)],
    _ legs: [(request: ScoreRequest, cancelled: CancellationFlag)]
  ) {
    for (leg, task) in asking { lanes[leg].beginScan(task) }
    table.seat(asking.map { lanes[$0.leg] }, flags: asking.map { legs[$0.leg].cancelled })
    table.scan(blocks: index.blockCount)
    for (leg, _) in asking { lanes[leg].endScan() }
  }
}
