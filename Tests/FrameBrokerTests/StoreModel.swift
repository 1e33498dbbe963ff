@testable import FrameStore

/// The slow, obvious store: dictionaries of contents and of what each page holds.
struct StoreModel {
    struct Key: Hashable { var client: UInt32, page: UInt32 }
    enum Holding: Equatable {
        case sighted(ContentHash)
        case leased(FrameLocation)
    }
    struct Frame { var bytes: [UInt8], hash: ContentHash?, word: UInt64? }
    struct Member { var pageCount: Int, isSilent = false, lastSpoke: Int }

    var holdings: [Key: Holding] = [:]
    var frames: [FrameLocation: Frame] = [:]
    var pending: [Key: FrameLocation] = [:]
    var members: [UInt32: Member] = [:]
    /// When each place lost its last reference.
    var freedAt: [FrameLocation: Int] = [:]
    var step = 0

    func references(_ location: FrameLocation) -> Int {
        holdings.values.count { $0 == .leased(location) }
    }
    func isUsed(_ location: FrameLocation) -> Bool {
        guard let word = frames[location]?.word else { return references(location) > 0 }
        return frames.contains { $0.value.word == word && references($0.key) > 0 }
    }
    func sighters(_ hash: ContentHash) -> [Key] { holdings.filter { $0.value == .sighted(hash) }.map(\.key) }

    mutating func forget(_ key: Key) {
        pending[key] = nil
        guard case .leased(let location)? = holdings.removeValue(forKey: key), !isUsed(location) else {
            return
        }
        let word = frames[location]?.word
        for (other, frame) in frames where other == location || (frame.word != nil && frame.word == word) {
            freedAt[other] = step
            frames[other] = nil
        }
    }
}
