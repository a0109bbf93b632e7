import Commands
import Foundation
import ChaosEngine
import Terminal

// The processes of the clusters that it hurts are itself, started as `chaos worker --config …`: what `swift run chaos`
// builds is all it needs.
Signals.block()
let words = Array(CommandLine.arguments.dropFirst())
let isServer = ["coordinator", "worker"].contains(words.first)
Console.end(Program.run(isServer ? .root : .chaos, words: words))
