import CScoring
import Dispatch
import Foundation
import RankingCore

// Implicit-feedback alternating least squares (Hu, Koren, Volinsky 2008): every (user, item) pair counts, pairs that
// were seen count more. With the items' factors Y fixed, each user's x solves a small linear system, and the other way
// round:
//
//     (w0·YᵀY + λ_u·I + Σ_seen α·r·y yᵀ) x = Σ_seen (w0 + α·r)·y
//
// solved by a few steps of conjugate gradient from the last x (Takács, Pilászy, Tikk 2011): exact solutions early on
// would be thrown away by the next half-step anyway. λ_u = λ·(n_u + w0·N)^ν; ν = 0 is the classical constant, ν = 1
// Rendle et al.'s frequency-scaled regularisation (arXiv 2110.14037).
//
// The same seed gives the same bits for every thread count: a row is solved by one thread, and the Gramian is summed
// over fixed blocks in a fixed order.

public struct ALSOptions: Sendable {
  public var factors = 64
  public var iterations = 15
  /// λ, and the exponent ν of its scaling with how much a user or item was seen.
  public var regularization: Float = 50
  public var regularizationScaling: Float = 0
  /// α: how much more a pair of weight 1 counts than one never seen.
  public var alpha: Float = 40
  /// w0: what an unseen pair counts.
  public var unobservedWeight: Float = 1
  public var conjugateGradientSteps = 3
  public var seed: UInt64 = 1
  public var threads = 2
  public init() {}
}

/// Row-major float32 matrices: `users` and `items` rows of `dimension`.
public struct Factors: Sendable {
  public var dimension: Int
  public var userIDs: [String]
  public var itemIDs: [String]
  public var users: [Float]
  public var items: [Float]

  /// The mean user vector, summed in float64 in row order, rounded once: the query of an unknown user.
  public var coldStart: [Float] {
    var sum = [Double](repeating: 0, count: dimension)
    for row in userIDs.indices { for k in 0..<dimension { sum[k] += Double(users[row * dimension + k]) } }
    return sum.map { Float($0 / Double(max(1, userIDs.count))) }
  }
}

public struct ALSTrainer: Sendable {
  public let options: ALSOptions
  public init(_ options: ALSOptions) { self.options = options }

  /// - Parameter progress: called after each iteration with its number, 1…iterations.
  public func train(_ interactions: Interactions, progress: (Int) -> Void = { _ in }) -> Factors {
    let d = options.factors
    let byUser = interactions.byUser
    let byItem = byUser.transposed(columnCount: interactions.items.count)
    var generator = SeededGenerator(seed: options.seed)
    func random(_ rows: Int) -> [Float] {
      (0..<rows * d).map { _ in (Float(generator.unit()) - 0.5) / Float(d).squareRoot() }
    }
    var users = random(byUser.rows)
    var items = random(byItem.rows)
    for iteration in 1...max(1, options.iterations) {
      solve(&users, seen: byUser, fixed: items)
      solve(&items, seen: byItem, fixed: users)
      progress(iteration)
    }
    return Factors(
      dimension: d, userIDs: interactions.users, itemIDs: interactions.items, users: users, items: items)
  }

  private func solve(_ target: inout [Float], seen: SparseRows, fixed: [Float]) {
    let d = options.factors
    let gram = gramian(fixed)
    let fixedRows = Float(fixed.count / d)
    let options = options
    target.withUnsafeMutableBufferPointer { target in
      let target = Shared(target)
      fixed.withUnsafeBufferPointer { fixed in
        let fixed = Shared(fixed)
        let rowsPerUnit = 128
        Parallel.forEach((seen.rows + rowsPerUnit - 1) / rowsPerUnit, threads: options.threads) { unit in
          var scratch = [Float](repeating: 0, count: 3 * d)
          var a: [Float] = []
          var b: [Float] = []
          for row in unit * rowsPerUnit..<min(seen.rows, (unit + 1) * rowsPerUnit) {
            let range = seen[row]
            a.removeAll(keepingCapacity: true)
            b.removeAll(keepingCapacity: true)
            for index in range {
              let extra = options.alpha * seen.weights[index]
              a.append(extra)
              b.append(options.unobservedWeight + extra)
            }
            let scale = Self.power(
              Float(range.count) + options.unobservedWeight * fixedRows, options.regularizationScaling)
            seen.columns.withUnsafeBufferPointer { columns in
              cscoring_als_solve(
                target.pointer.baseAddress! + row * d, d, gram, options.unobservedWeight,
                options.regularization * scale, fixed.pointer.baseAddress!, columns.baseAddress! + range.lowerBound, a,
                b, range.count, Int32(options.conjugateGradientSteps), &scratch)
            }
          }
        }
      }
    }
  }

  private static func power(_ base: Float, _ exponent: Float) -> Float {
    exponent == 0 ? 1 : Float(pow(Double(base), Double(exponent)))
  }

  /// YᵀY over fixed blocks, added up in the order of the blocks.
  private func gramian(_ rows: [Float]) -> [Float] {
    let d = options.factors
    let count = rows.count / d
    let blockRows = 4096
    let blocks = (count + blockRows - 1) / blockRows
    var partial = [Float](repeating: 0, count: blocks * d * d)
    partial.withUnsafeMutableBufferPointer { partial in
      let partial = Shared(partial)
      rows.withUnsafeBufferPointer { rows in
        let rows = Shared(rows)
        Parallel.forEach(blocks, threads: options.threads) { block in
          let first = block * blockRows
          cscoring_als_gramian(
            rows.pointer.baseAddress! + first * d, min(blockRows, count - first), d,
            partial.pointer.baseAddress! + block * d * d)
        }
      }
    }
    var sum = [Float](repeating: 0, count: d * d)
    for block in 0..<blocks { for index in 0..<d * d { sum[index] += partial[block * d * d + index] } }
    return sum
  }
}

/// A pointer that several threads use on parts of their own.
struct Shared<Pointer>: @unchecked Sendable {
  let pointer: Pointer
  init(_ pointer: Pointer) { self.pointer = pointer }
}

enum Parallel {
  /// Calls `body` once for each of `0..<units`, at most `threads` at once, in no particular order.
  static func forEach(_ units: Int, threads: Int, _ body: @Sendable (Int) -> Void) {
    let next = Counter()
    DispatchQueue.concurrentPerform(iterations: max(1, min(threads, units))) { _ in
      while true {
        let unit = next.next()
        guard unit < units else { return }
        body(unit)
      }
    }
  }
}
