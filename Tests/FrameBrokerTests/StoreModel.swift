@testable import FrameStore

/// The slow, obvious store: dictionaries of contents and of what each page holds.
struct StoreModel {
    struct Key: Hashable { var client: UInt32, page: UInt32 }
    enum Holding: Equatable {
        case sighted(ContentHash)
        /// A frame, by its number here, and the place where the client maps it, or was told that it is.
        case leased(Int, at: FrameLocation)
    }
    struct Frame {
        var bytes: [UInt8], hash: ContentHash?, word: UInt64?
        var slot: FrameLocation
        /// The place that it had before, as long as somebody maps that.
        var old: FrameLocation? = nil
    }
    struct Member { var pageCount: Int, isSilent = false, lastSpoke: Int }

    var holdings: [Key: Holding] = [:]
    var frames: [Int: Frame] = [:]
    private var nextFrame = 0
    /// Leases that were not announced yet.
    var pending: Set<Key> = []
    var members: [UInt32: Member] = [:]
    /// When each place lost its last reference.
    var freedAt: [FrameLocation: Int] = [:]
    var step = 0

    func references(_ frame: Int) -> Int { holders(frame).count }
    func holders(_ frame: Int) -> [Key] {
        holdings.compactMap { key, holding in
            if case .leased(frame, _) = holding { key } else { nil }
        }
    }
    func isMapped(_ slot: FrameLocation) -> Bool {
        holdings.values.contains { if case .leased(_, slot) = $0 { true } else { false } }
    }
    func isUsed(_ frame: Int) -> Bool {
        guard let word = frames[frame]?.word else { return references(frame) > 0 }
        return frames.contains { $0.value.word == word && references($0.key) > 0 }
    }
    func isStale(_ key: Key) -> Bool {
        guard case .leased(let frame, let slot)? = holdings[key] else { return false }
        return frames[frame]?.slot != slot
    }
    /// The frame that has this place now.
    func frame(at slot: FrameLocation) -> Int? { frames.first { $0.value.slot == slot }?.key }
    func sighters(_ hash: ContentHash) -> [Key] { holdings.filter { $0.value == .sighted(hash) }.map(\.key) }

    mutating func add(_ frame: Frame) -> Int {
        nextFrame += 1
        frames[nextFrame] = frame
        return nextFrame
    }

    mutating func forget(_ key: Key) {
        pending.remove(key)
        guard case .leased(let frame, _)? = holdings.removeValue(forKey: key) else { return }
        leaveOldPlace(of: frame)
        guard !isUsed(frame) else { return }
        let word = frames[frame]?.word
        for (other, value) in frames where other == frame || (word != nil && value.word == word) {
            freedAt[value.slot] = step
            frames[other] = nil
        }
    }

    mutating func relocate(_ frame: Int, to slot: FrameLocation) {
        let old = frames[frame]?.slot
        frames[frame]?.old = old
        frames[frame]?.slot = slot
    }
    /// The page maps its frame's place from now on.
    mutating func follow(_ key: Key) {
        guard case .leased(let frame, _)? = holdings[key], let slot = frames[frame]?.slot else { return }
        holdings[key] = .leased(frame, at: slot)
        leaveOldPlace(of: frame)
    }
    private mutating func leaveOldPlace(of frame: Int) {
        guard let old = frames[frame]?.old, !isMapped(old) else { return }
        frames[frame]?.old = nil
        freedAt[old] = step
    }
}
