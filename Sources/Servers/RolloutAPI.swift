import Agreement
import Foundation
import HTTP2
import Nodes
import RankingCore
import Rollout
import Transport
import Wire

// Rollouts on the admin address, in JSON.
//
//     GET  /v1/rollouts                              the document, and how far each rollout is
//     GET  /v1/rollouts/history?from=1&limit=100     who did what, when and why, oldest first
//     POST /v1/rollouts   {"action":"start","model":"home","version":"v42","who":"ada"}  ──► {"entry":{…}}
//
// A command is answered when the store has taken it.

enum RolloutAPI {
  static let path = "/v1/rollouts"
  static let historyPath = "/v1/rollouts/history"
  /// Lines of history in one answer.
  static let historyMax = 512

  struct Command {
    var command: RolloutCommand
    var who: String
  }
  private static let actions = ["adopt", "start", "pause", "resume", "abort", "promote", "pin", "unpin"]

  static func parse(_ body: [UInt8]) throws(RolloutError) -> Command {
    do {
      return try command(try ConfigurationFile(place: "the command", json: Data(body)))
    } catch let error as RolloutError {
      throw error
    } catch {
      throw RolloutError(.invalidArgument, "\(error)")
    }
  }

  private static func command(_ json: ConfigurationFile) throws -> Command {
    let action = try json.needed("action")
    let model = try json.needed("model")
    var allowed = ["action", "model", "who"]
    func version() throws -> String { try json.needed("version") }
    let command: RolloutCommand
    switch action {
    case "adopt", "pin", "unpin":
      allowed.append("version")
      command =
        switch action {
        case "adopt": .adopt(model: model, version: try version())
        case "pin": .pin(model: model, version: try version())
        default: .unpin(model: model, version: try version())
        }
    case "start":
      allowed += ["version", "settings", "again"]
      var settings = RolloutSettings()
      if let given = try json.child("settings") {
        settings = try RolloutSettings(json: [UInt8](try JSONSerialization.data(withJSONObject: given.object)))
      }
      command = .start(
        model: model, version: try version(), settings: settings, again: try json.boolean("again") ?? false)
    case "pause": command = .pause(model: model)
    case "resume": command = .resume(model: model)
    case "abort":
      allowed.append("why")
      command = .abort(model: model, why: try json.text("why") ?? "")
    case "promote":
      allowed.append("to")
      let to = try json.text("to") ?? "next"
      guard let promotion = RolloutCommand.Promotion(rawValue: to) else {
        throw ConfigurationError("the command: \"to\" is \"\(to)\"; it is \"next\" or \"full\"")
      }
      command = .promote(model: model, to: promotion)
    default:
      throw ConfigurationError(
        "the command: \"action\" is \"\(action)\"; allowed: \(actions.joined(separator: ", "))")
    }
    try json.allow(allowed)
    return Command(command: command, who: try json.text("who") ?? "unknown")
  }

  /// `from` and `limit` of a query such as `from=1&limit=100`.
  static func range(_ query: Substring) throws(RolloutError) -> (from: UInt64, limit: Int) {
    var range = (from: UInt64(1), limit: 100)
    for part in query.split(separator: "&") {
      let pair = part.split(separator: "=", maxSplits: 1)
      guard pair.count == 2, let value = UInt64(pair[1]), value > 0 else {
        throw RolloutError(.invalidArgument, "\"\(part)\": a number from 1 on is needed")
      }
      switch pair[0] {
      case "from": range.from = value
      case "limit" where value <= historyMax: range.limit = Int(value)
      case "limit": throw RolloutError(.invalidArgument, "\"limit\" is at most \(historyMax)")
      default: throw RolloutError(.invalidArgument, "unknown \"\(pair[0])\"; allowed: from, limit")
      }
    }
    return range
  }

  static func status(_ code: RolloutError.Code) -> Int {
    switch code {
    case .invalidArgument: 400
    case .notFound: 404
    case .conflict: 409
    case .unavailable: 503
    }
  }
  static func grpcStatus(_ code: RolloutError.Code) -> GRPC.Status {
    switch code {
    case .invalidArgument: .invalidArgument
    case .notFound: .notFound
    case .conflict: .failedPrecondition
    case .unavailable: .unavailable
    }
  }
  static func body(_ error: RolloutError) -> [UInt8] {
    var json = JSONWriter()
    json.literal("{\"error\":{\"code\":")
    json.string(error.code.rawValue)
    json.literal(",\"message\":")
    json.string(error.message)
    json.literal("}}\n")
    return json.bytes
  }
  static func body(_ entry: Rollout.HistoryEntry) -> [UInt8] {
    Array("{\"entry\":".utf8) + entry.json + Array("}\n".utf8)
  }
  static func body(_ entries: [Agreement.HistoryEntry]) -> [UInt8] {
    var bytes = Array("{\"history\":[".utf8)
    for (index, entry) in entries.enumerated() {
      if index > 0 { bytes.append(UInt8(ascii: ",")) }
      bytes += entry.bytes
    }
    return bytes + Array("]}\n".utf8)
  }

  static func body(_ view: RolloutView) -> [UInt8] {
    var json = JSONWriter()
    json.literal("{\"drives\":")
    json.boolean(view.drives)
    json.literal(",\"revision\":")
    json.number(Int(clamping: view.revision ?? 0))
    json.literal(",\"problem\":")
    if let problem = view.problem { json.string(problem) } else { json.literal("null") }
    json.literal(",\"document\":")
    json.bytes += view.document.json
    json.literal(",\"progress\":[")
    for (index, progress) in view.progress.enumerated() {
      if index > 0 { json.literal(",") }
      write(progress, into: &json)
    }
    json.literal("]}\n")
    return json.bytes
  }

  private static func write(_ progress: RolloutView.Progress, into json: inout JSONWriter) {
    json.literal("{\"model\":")
    json.string(progress.model)
    json.literal(",\"shards\":")
    json.number(progress.shards ?? 0)
    json.literal(",\"right_answers\":")
    json.number(progress.rightAnswers)
    json.literal(",\"warm_rounds\":")
    json.number(progress.warmRounds)
    json.literal(",\"pairs\":")
    json.number(progress.shadow?.compared ?? 0)
    json.literal(",\"workers\":[")
    for (index, worker) in progress.workers.enumerated() {
      json.literal(index == 0 ? "{\"name\":" : ",{\"name\":")
      json.string(worker.name)
      json.literal(",\"usable\":")
      json.boolean(worker.isUsable)
      for (name, count) in [
        (",\"ready\":" as StaticString, worker.ready), (",\"loading\":", worker.loading),
        (",\"failed\":", worker.failed),
      ] {
        json.literal(name)
        json.number(count)
      }
      json.literal(",\"failure\":")
      json.string(worker.failure)
      json.literal("}")
    }
    json.literal("],\"guards\":[")
    for (index, figure) in progress.figures.enumerated() {
      json.literal(index == 0 ? "{\"name\":" : ",{\"name\":")
      json.string(figure.name)
      json.literal(",\"evidence\":")
      json.number(figure.evidence.isFinite ? figure.evidence : 1e9)
      json.literal(",\"tripped\":")
      json.boolean(figure.isTripped)
      json.literal(",\"text\":")
      json.string(figure.text)
      json.literal("}")
    }
    json.literal("]}")
  }
}
