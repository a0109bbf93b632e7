extension String {
  /// As many of its first characters as take at most so many bytes of UTF-8.
  public func cut(utf8 most: Int) -> String {
    guard utf8.count > most else { return self }
    var (cut, bytes) = ("", 0)
    for character in self {
      bytes += character.utf8.count
      guard bytes <= most else { break }
      cut.append(character)
    }
    return cut
  }
}
