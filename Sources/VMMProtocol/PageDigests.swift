/// The answer to `digest`: a packet with the number of digests, then packets of whole ones.
public enum PageDigests {
    /// Bytes of a digest. All zero stands for a page of zeros.
    public static let size = 16
    /// Digests of a packet, at most.
    private static let packetLimit = 2048
    /// More than any guest has pages.
    private static let countLimit = 1 << 27
    private static let word = "digest"

    /// - Parameter digests: one behind the other.
    public static func packets(_ digests: [UInt8]) -> [ArraySlice<UInt8>] {
        let head = Array("\(word) \(digests.count / size)".utf8)
        let starts = stride(from: 0, to: digests.count, by: packetLimit * size)
        return [head[...]] + starts.map { digests[$0..<min($0 + packetLimit * size, digests.count)] }
    }

    /// Reads packets as they come.
    /// - Parameter take: is given one digest after the other.
    /// - Returns: false when they are none of ours.
    public static func receive<Failure: Error>(
        from next: () throws(Failure) -> [UInt8], _ take: (ArraySlice<UInt8>) -> Void
    ) throws(Failure) -> Bool {
        let head = String(decoding: try next(), as: UTF8.self).split(separator: " ")
        guard head.count == 2, head[0] == word, let count = Int(head[1]), 0...countLimit ~= count else {
            return false
        }
        var left = count
        while left > 0 {
            let part = try next()
            guard !part.isEmpty, part.count.isMultiple(of: size), part.count / size <= left else {
                return false
            }
            for start in stride(from: 0, to: part.count, by: size) { take(part[start..<start + size]) }
            left -= part.count / size
        }
        return true
    }
}
