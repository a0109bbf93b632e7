/// Exponential decay without a logarithm: the standard library alone has none.
public enum Decay {
  /// 2^(−elapsed ÷ halfLife): 1 at zero, ½ after one half-life. Within 0.4 % of the true value; 0 beyond 60 half-lives.
  ///
  /// - Parameters:
  ///   - elapsed: negative counts as zero.
  ///   - halfLife: more than zero.
  public static func remaining(after elapsed: Duration, halfLife: Duration) -> Double {
    let ratio = Double(max(0, elapsed.nanoseconds)) / Double(halfLife.nanoseconds)
    guard ratio < 60 else { return 0 }
    let whole = ratio.rounded(.down)
    let part = ratio - whole
    // 2^(−x) on 0…1 by the parabola through its values at 0, ½ and 1.
    let fraction = 1 - part * (0.671573 - 0.171573 * part)
    return fraction / Double(UInt64(1) << UInt64(whole))
  }
}
