import RankingCore
import Testing

@testable import Rollout

/// How soon a bad version is found at 200 requests a second: seconds from the beginning of the stage in which it turns
/// bad to the decision, as measured over 200 seeds with the default settings:
///
///     median / worst       shadow      canary 1 %    10 %       50 %      100 %
///     5 % errors          13 /  -      103 /   -    13 / 33    9 / 17     2 / 4     - = one in 200 (1 %: one in 16)
///     50 ms slower         5 /  5       50 /  50     5 /  5    1 /  4     1 / 1         only in the next step
///     NaN scores           5 /  6       50 /  51     5 /  6    1 /  2     1 / 1
///     permuted item ids    8 /  8
///
/// Most of these are the sample floor: 100 requests are 5 s at 20 a second, 50 s at 2.
@Suite struct DetectionTests {
  enum Fault: String, Sendable { case errors, slow, nan, permuted }
  struct Row: Sendable {
    var fault: Fault
    var name: GuardName
    var stage: RolloutStage
    var step: Int
    /// At most, in seconds; the worst half may take longer, within the stage.
    var median: Int
    init(_ fault: Fault, _ name: GuardName, _ stage: RolloutStage, _ step: Int = 0, median: Int) {
      (self.fault, self.name, self.stage, self.step, self.median) = (fault, name, stage, step, median)
    }
    var run: GuardRun {
      // A canary step begins after the one before it, so that the old version's figures are known.
      var run = GuardRun(stage: stage, step: max(0, step - 1))
      if step > 0 { run.soundBelow = step }
      switch fault {
      case .errors: run.new = OutcomeTable(errors: 4096 / 20)
      case .slow: run.new = OutcomeTable(slower: .milliseconds(50))
      case .nan: run.new = OutcomeTable(givesNaN: true)
      case .permuted: run.overlap = 0.0002
      }
      return run
    }
  }

  #if DEBUG
    static let seeds: Range<UInt64> = 0..<5
  #else
    static let seeds: Range<UInt64> = 0..<200
  #endif

  @Test(arguments: [
    Row(.errors, .errorRate, .shadow, median: 16), Row(.errors, .errorRate, .canary, 0, median: 130),
    Row(.errors, .errorRate, .canary, 1, median: 16), Row(.errors, .errorRate, .canary, 2, median: 12),
    Row(.errors, .errorRate, .canary, 3, median: 3), Row(.slow, .latencyP99, .shadow, median: 5),
    Row(.slow, .latencyP99, .canary, 0, median: 50), Row(.slow, .latencyP99, .canary, 1, median: 5),
    Row(.slow, .latencyP99, .canary, 2, median: 2), Row(.slow, .latencyP99, .canary, 3, median: 2),
    Row(.nan, .emptyAnswers, .shadow, median: 6), Row(.nan, .emptyAnswers, .canary, 0, median: 51),
    Row(.nan, .emptyAnswers, .canary, 1, median: 6), Row(.nan, .emptyAnswers, .canary, 2, median: 2),
    Row(.nan, .emptyAnswers, .canary, 3, median: 1), Row(.permuted, .overlap, .shadow, median: 8),
  ])
  func aBadVersionIsFound(row: Row) {
    var place = ActiveRollout()
    (place.stage, place.step) = (row.stage, row.step)
    let trips = Self.seeds.map { row.run.run(seed: $0) }
    #expect(trips.allSatisfy { $0?.name == row.name.rawValue }, "\(trips)")
    let here = trips.map { $0?.stage == place.label ? $0?.seconds ?? .max : .max }.sorted()
    #expect(here[here.count / 2] <= row.median, "\(here)")
    // Errors on 400 requests of 1 % may be few enough to get to 10 %.
    #expect(here.count { $0 == .max } * 10 <= here.count, "\(here)")
  }
}
