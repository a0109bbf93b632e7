import Foundation

/// What a coordinator says of rollouts: `GET /v1/rollouts` on its admin address; and the way to steer them.
public struct RolloutReport: Codable, Sendable, Equatable {
  public struct Rollout: Codable, Sendable, Equatable {
    public var id: String
    public var from: String
    public var to: String
    /// load, verify, warm, shadow, canary, retire or rolling_back.
    public var stage: String
    public var step: Int
    public var paused: Bool
    /// undecided, beside or replica_by_replica.
    public var memory: String
    public var who: String
    public var cause: String
    public var enteredMilliseconds: Int
    public var settings: Settings
    enum CodingKeys: String, CodingKey {
      case id, from, to, stage, step, paused, memory, who, cause, settings
      case enteredMilliseconds = "entered_at_ms"
    }
  }
  public struct Settings: Codable, Sendable, Equatable {
    /// Shares of the users in hundredths of a percent.
    public var canarySteps: [Int]
    enum CodingKeys: String, CodingKey { case canarySteps = "canary_steps" }
  }
  public struct Failed: Codable, Sendable, Equatable {
    public var version: String
    public var rollout: String
    public var why: String
  }
  public struct Finished: Codable, Sendable, Equatable {
    public var id: String
    public var from: String
    public var to: String
    /// done, failed or aborted.
    public var outcome: String
    public var why: String
  }
  public struct Model: Codable, Sendable, Equatable {
    public var model: String
    public var serving: String
    public var pinned: [String]
    public var rollout: Rollout?
    public var failed: [Failed]
    public var last: Finished?
  }
  public struct Document: Codable, Sendable, Equatable {
    public var models: [Model]
    public var nextSequence: Int
    enum CodingKeys: String, CodingKey {
      case models
      case nextSequence = "next_sequence"
    }
  }
  public struct Worker: Codable, Sendable, Equatable {
    public var name: String
    public var usable: Bool
    public var ready: Int
    public var loading: Int
    public var failed: Int
    public var failure: String
  }
  public struct Figure: Codable, Sendable, Equatable {
    public var name: String
    public var evidence: Double
    public var tripped: Bool
    public var text: String
  }
  public struct Progress: Codable, Sendable, Equatable {
    public var model: String
    public var shards: Int
    public var rightAnswers: Int
    public var warmRounds: Int
    public var pairs: Int
    public var workers: [Worker]
    public var guards: [Figure]
    enum CodingKeys: String, CodingKey {
      case model, shards, pairs, workers, guards
      case rightAnswers = "right_answers"
      case warmRounds = "warm_rounds"
    }
  }
  /// One line of the history.
  public struct Entry: Codable, Sendable, Equatable {
    public var sequence: Int
    public var atMilliseconds: Int
    public var who: String
    public var model: String
    public var rollout: String
    public var version: String
    public var from: String
    public var to: String
    public var why: String
    enum CodingKeys: String, CodingKey {
      case sequence, who, model, rollout, version, from, to, why
      case atMilliseconds = "at_ms"
    }
  }
  public var drives: Bool
  public var revision: Int
  /// Why the agreed document cannot be read or changed just now.
  public var problem: String?
  public var document: Document
  public var progress: [Progress]

  public subscript(model: String) -> Model? { document.models.first { $0.model == model } }
  public func progress(of model: String) -> Progress? { progress.first { $0.model == model } }

  /// - Parameter admin: the URL of a coordinator's admin address.
  public static func fetch(_ admin: String, limit: Duration = .seconds(5)) throws(HarnessError) -> RolloutReport {
    var http = PlainHTTP(try ServerURL(admin), limit: limit)
    return try decode(RolloutReport.self, try http.get("/v1/rollouts"), admin)
  }

  /// Says a command and waits until it is agreed.
  /// - Parameter fields: such as `["action": "start", "model": "home", "version": "v2", "who": "ada"]`.
  @discardableResult
  public static func command(
    _ admin: String, _ fields: [String: Any], limit: Duration = .seconds(10)
  ) throws(HarnessError) -> Entry {
    struct Reply: Decodable { var entry: Entry }
    guard let body = try? JSONSerialization.data(withJSONObject: fields, options: [.sortedKeys]) else {
      throw HarnessError("a command of other things than texts, numbers and lists")
    }
    var http = PlainHTTP(try ServerURL(admin), limit: limit)
    return try decode(Reply.self, try http.post("/v1/rollouts", body), admin).entry
  }

  /// All lines from `from` on, oldest first.
  public static func history(
    _ admin: String, from: Int = 1, limit: Int = 512
  ) throws(HarnessError) -> [Entry] {
    struct Reply: Decodable { var history: [Entry] }
    var http = PlainHTTP(try ServerURL(admin), limit: .seconds(5))
    return try decode(Reply.self, try http.get("/v1/rollouts/history?from=\(from)&limit=\(limit)"), admin).history
  }

  private struct Failure: Decodable {
    struct Body: Decodable { var message: String }
    var error: Body
  }
  private static func decode<Reply: Decodable>(
    _ type: Reply.Type, _ response: PlainHTTP.Response, _ admin: String
  ) throws(HarnessError) -> Reply {
    let data = Data(response.body)
    guard response.status == 200 else {
      let failure = try? JSONDecoder().decode(Failure.self, from: data)
      throw HarnessError(failure?.error.message ?? "\(admin) answers \(response.status)")
    }
    do { return try JSONDecoder().decode(type, from: data) } catch {
      throw HarnessError("\(admin) does not answer as a coordinator does: \(error)")
    }
  }
}
