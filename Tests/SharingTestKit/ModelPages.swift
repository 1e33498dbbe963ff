import FrameStore

/// The content of a page in the model: 256 words of one value, then 256 of another, so that a page can be written in
/// halves, be uniform, or zero.
struct Content: Hashable, CustomStringConvertible {
    var first: UInt64
    var second: UInt64
    static let zero = Content(first: 0, second: 0)
    var isZero: Bool { first == 0 && second == 0 }
    var description: String { "\(first)/\(second)" }

    init(first: UInt64, second: UInt64) {
        self.first = first
        self.second = second
    }

    init(bytes: [UInt8]) {
        func word(_ offset: Int) -> UInt64 {
            (0..<8).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64($1 * 8) }
        }
        first = word(0)
        second = word(4088)
    }

    var bytes: [UInt8] {
        let words =
            [UInt64](repeating: first.littleEndian, count: 256)
            + [UInt64](repeating: second.littleEndian, count: 256)
        return words.withUnsafeBytes { [UInt8]($0) }
    }

    mutating func write(_ half: Int, _ value: UInt64) {
        if half == 0 { first = value } else { second = value }
    }

    func hash(isConstant: Bool) -> ContentHash {
        if isConstant { return ContentHash(low: 1, high: 1) }
        return ContentHash(
            low: first &* 0x9E37_79B9_7F4A_7C15 ^ second, high: second &* 0xBF58_476D_1CE4_E5B9 ^ first)
    }
}

/// A page of host memory. A transfer that pinned it goes on writing it, whatever is mapped meanwhile.
final class HostPage {
    var content: Content
    init(_ content: Content) { self.content = content }
}

/// A store's file: frames by place; a place without one is a hole. It knows which guests map what.
final class ModelBacking: FrameBacking {
    private(set) var frames: [FrameLocation: Content] = [:]
    weak var world: (any ViolationLog)?
    /// Writes that fail from now on.
    var failingWrites = 0

    func write(_ bytes: [UInt8], at location: FrameLocation) throws(FrameStoreError) {
        if frames[location] != nil { world?.violated("\(location) was overwritten in place") }
        if failingWrites > 0 {
            failingWrites -= 1
            throw .lost("injected")
        }
        frames[location] = Content(bytes: bytes)
        world?.checkUnmapped(location, of: self, "was written")
    }
    func copy(from old: FrameLocation, to new: FrameLocation) throws(FrameStoreError) {
        guard let content = frames[old] else {
            world?.violated("\(old) is copied and was never written")
            return
        }
        try write(content.bytes, at: new)
    }
    func matches(_ bytes: [UInt8], at location: FrameLocation) -> Bool {
        frames[location] == Content(bytes: bytes)
    }
    func discard(_ location: FrameLocation, count: Int) {
        for page in 0..<count {
            let place = location.advanced(by: page)
            if frames[place] == nil { continue }
            frames[place] = nil
            world?.checkUnmapped(place, of: self, "was freed")
        }
    }
}
