import Testing

@testable import RankingCore

@Suite struct ActivationTests {
  /// erf by its series, which for |z| ≤ 5 loses less than 1e-6 · 1e-10 to cancellation in nothing: all terms of
  /// e^(−z²) Σ 2ⁿ z^(2n+1) / (2n+1)!! are positive.
  private func series(_ z: Double) -> Double {
    var (term, sum, n) = (z, z, 0.0)
    while term.magnitude > 1e-18 * sum.magnitude {
      n += 1
      term *= 2 * z * z / (2 * n + 1)
      sum += term
    }
    return 1.1283791670955126 * Exponential.of(-z * z) * sum
  }

  @Test func errorFunctionIsNearTheTruth() {
    // From tables.
    for (z, truth) in [(0.5, 0.5204998778130465), (1, 0.8427007929497149), (2, 0.9953222650189527)] {
      #expect(abs(Activation.errorFunction(z) - truth) < 4e-10)
      #expect(abs(series(z) - truth) < 1e-14)
    }
    for step in 1...5120 {
      let z = Double(step) / 1024
      #expect(abs(Activation.errorFunction(z) - series(z)) < 4e-10, "\(z)")
      #expect(Activation.errorFunction(-z) == -Activation.errorFunction(z))
    }
    #expect(Activation.errorFunction(0) == 0)
    #expect(Activation.errorFunction(5) == 1 && Activation.errorFunction(-.infinity) == -1)
  }

  @Test func exponentialIsNearTheOtherOne() {
    for step in -70_800...70_800 {
      let x = Double(step) / 100
      let truth = Exponential.of(x)
      #expect(abs(Activation.exponential(x) - truth) <= 1e-12 * truth, "\(x)")
    }
    #expect(Activation.exponential(1e300) == Activation.exponential(708))
    #expect(Activation.exponential(-.infinity) == Activation.exponential(-708))
    #expect(Activation.exponential(.nan).isNaN)
  }

  /// What PyTorch's functions of these names give in float64, to nine places.
  @Test func valuesAreThoseOfTheirNames() {
    for (activation, values) in [
      (Activation.relu, [0, 0, 0, 0.5, 3]),
      (.gelu, [-0.00404969, -0.15426877, 0, 0.34573123, 2.99595031]),
      (.geluTanh, [-0.00363739, -0.15428599, 0, 0.34571401, 2.99636261]),
      (.sigmoid, [0.04742587, 0.37754067, 0.5, 0.62245933, 0.95257413]),
    ] as [(Activation, [Float])] {
      for (x, value) in zip([-3, -0.5, 0, 0.5, 3] as [Float], values) {
        #expect(abs(activation.of(x) - value) < 2e-7, "\(activation) of \(x)")
      }
      #expect(activation.of(.nan).isNaN)
    }
    #expect(Activation.sigmoid.of(-1000) == 0 && Activation.sigmoid.of(1000) == 1)
    #expect(Activation.gelu.of(-1e30) == 0 && Activation.gelu.of(1e30) == 1e30)
    #expect(Activation.geluTanh.of(-1e5) == 0 && Activation.geluTanh.of(1e30) == 1e30)
  }
}
