import Terminal

extension Command {
  package static let chaos = Command(name: "chaos", summary: "x", example: "x", run: { _ in 0 })
}
