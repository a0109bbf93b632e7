import Foundation
import Nodes
import RankingCore
import Rollout
import Wire

// shortlist.v1.Rollouts ↔ bytes; the field numbers are those of Proto/rollouts.proto.

enum RolloutMessages {
  static func command(decoding bytes: UnsafeRawBufferPointer) throws -> RolloutAPI.Command {
    var (action, model, version, who, settings, why) = (UInt64(0), "", "", "unknown", "", "")
    var (again, full) = (false, false)
    var reader = ProtoReader(bytes)
    while try reader.next() {
      switch reader.field {
      case 1: action = try reader.uint()
      case 2: model = try reader.string(maxBytes: 64)
      case 3: version = try reader.string(maxBytes: 64)
      case 4: who = try reader.string(maxBytes: 64)
      case 5: settings = try reader.string(maxBytes: RolloutDocument.bytesMax)
      case 6: again = try reader.bool()
      case 7: why = try reader.string(maxBytes: RolloutDocument.textMax)
      case 8: full = try reader.bool()
      default: try reader.skip()
      }
    }
    let command: RolloutCommand
    switch action {
    case 1: command = .adopt(model: model, version: version)
    case 2:
      let given = settings.isEmpty ? RolloutSettings() : try RolloutSettings(json: Array(settings.utf8))
      command = .start(model: model, version: version, settings: given, again: again)
    case 3: command = .pause(model: model)
    case 4: command = .resume(model: model)
    case 5: command = .abort(model: model, why: why)
    case 6: command = .promote(model: model, to: full ? .full : .next)
    case 7: command = .pin(model: model, version: version)
    case 8: command = .unpin(model: model, version: version)
    default:
      throw RolloutError(.invalidArgument, "field 1: action is \(action); allowed: 1 (ADOPT) to 8 (UNPIN)")
    }
    return RolloutAPI.Command(command: command, who: who)
  }

  static func encoded(_ entry: HistoryEntry) -> [UInt8] {
    var writer = ProtoWriter()
    write(entry, into: &writer)
    return writer.bytes
  }

  private static func write(_ entry: HistoryEntry, into writer: inout ProtoWriter) {
    writer.uint(1, UInt64(entry.sequence))
    writer.uint(2, UInt64(entry.atMilliseconds))
    for (field, text) in [
      (3, entry.who), (4, entry.model), (5, entry.rollout), (6, entry.version), (7, entry.from), (8, entry.to),
      (9, entry.why),
    ] as [(UInt32, String)] { writer.string(field, text) }
  }

  static func historyRange(decoding bytes: UnsafeRawBufferPointer) throws -> (from: UInt64, limit: Int) {
    var range = (from: UInt64(1), limit: 100)
    var reader = ProtoReader(bytes)
    while try reader.next() {
      switch reader.field {
      case 1: range.from = max(1, try reader.uint())
      case 2: range.limit = try reader.count(in: 1...RolloutAPI.historyMax)
      default: try reader.skip()
      }
    }
    return range
  }

  /// - Parameter lines: entries as the store keeps them.
  static func history(_ lines: [[UInt8]]) throws -> [UInt8] {
    var writer = ProtoWriter()
    for line in lines {
      let entry = try line.withUnsafeBytes { try HistoryEntry(json: $0) }
      writer.message(1) { write(entry, into: &$0) }
    }
    return writer.bytes
  }

  static func encoded(_ view: RolloutView) -> [UInt8] {
    var writer = ProtoWriter()
    writer.bool(1, view.drives)
    writer.uint(2, view.revision ?? 0)
    writer.string(3, view.problem ?? "")
    for model in view.document.models {
      writer.message(4) { writer in
        writer.string(1, model.model)
        writer.string(2, model.serving)
        for version in model.pinned { writer.element(3, version) }
        if let rollout = model.rollout {
          let progress = view.progress.first { $0.model == model.model }
          writer.message(4) { write(rollout, progress, into: &$0) }
        }
        if let last = model.last {
          writer.message(5) { writer in
            writer.string(1, last.id)
            writer.string(2, last.from)
            writer.string(3, last.to)
            writer.string(4, last.outcome.rawValue)
            writer.string(5, last.why)
            writer.uint(6, UInt64(last.atMilliseconds))
          }
        }
      }
    }
    return writer.bytes
  }

  private static func write(
    _ rollout: ActiveRollout, _ progress: RolloutView.Progress?, into writer: inout ProtoWriter
  ) {
    writer.string(1, rollout.id)
    writer.string(2, rollout.from)
    writer.string(3, rollout.to)
    writer.string(4, rollout.label)
    writer.bool(5, rollout.isPaused)
    writer.uint(6, UInt64(rollout.share))
    writer.string(7, rollout.cause)
    writer.uint(8, UInt64(progress?.shards ?? 0))
    for worker in progress?.workers ?? [] {
      writer.message(9) { writer in
        writer.string(1, worker.name)
        writer.bool(2, worker.isUsable)
        writer.uint(3, UInt64(worker.ready))
        writer.uint(4, UInt64(worker.loading))
        writer.uint(5, UInt64(worker.failed))
        writer.string(6, worker.failure)
      }
    }
    for figure in progress?.figures ?? [] {
      writer.message(10) { writer in
        writer.string(1, figure.name)
        writer.bool(2, figure.isTripped)
        writer.string(3, figure.text)
      }
    }
  }
}
