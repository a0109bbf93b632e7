import Commands
import Foundation
import Terminal

// Signals are blocked before any thread exists, so that one thread, and no other, takes them.
Signals.block()
Console.end(Program.run(.root, words: Array(CommandLine.arguments.dropFirst())))
