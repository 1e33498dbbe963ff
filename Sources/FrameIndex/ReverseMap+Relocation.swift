import FrameStore

// A frame gets another place while guests run, and no mapper is touched for it. Entry and mappers have a parity bit each; the
// entry's is flipped, so that each mapper there is becomes *stale*: it maps the place that the frame had. From then on
//
//   a stale mapper --says that it maps the new place, or is told of it first--> current
//                  --is removed--> nothing
//   a new mapper is current
//
// and the last stale one that goes ends the relocation: nobody maps the old place. Until then the frame has two, of equal bytes, and
// does not move again. What one relocation takes does not depend on how many map the frame.

extension ReverseMap {
    /// Frames that move at a time, whose memory is needed twice.
    static let relocationLimit = 512

    /// A frame on its way.
    struct Relocation {
        var old: FrameLocation
        /// Stale mappers.
        var remaining: UInt32
    }

    /// Whether the frame may get another place now.
    func mayMove(_ frame: FrameNumber) -> Bool {
        relocations.count < Self.relocationLimit && relocations[frame] == nil
    }

    /// Gives a frame another place, which holds its bytes already: all who map it map the old one until they say otherwise.
    /// - Returns: the old place; who owns places hears of it (``FrameLifetime/left(_:)``) when nobody maps it any more.
    @discardableResult
    func swapSlot(of frame: FrameNumber, to new: FrameLocation) -> FrameLocation {
        precondition(mayMove(frame), "a frame moves once at a time, and few do")
        let entry = table[frame.value]
        changes += 1
        relocations[frame] = Relocation(old: entry.slot, remaining: entry.references)
        table.setSlot(new, parity: !entry.parity, of: frame.value)
        return entry.slot
    }

    /// Whether a page maps, or is told to map, a place that its frame has left.
    func isStale(_ mapper: Mapper) -> Bool {
        let word = mapper.client[mapper.page]
        return word.isMapper && word.hasParity != table[word.number].parity
    }

    /// A stale mapper maps its frame's new place from now on.
    /// - Parameter slot: where it says that this is; nil: it is told now, and never mapped the old one.
    /// - Returns: false for a page that is no stale mapper, or of another place's frame: nothing is changed.
    @discardableResult
    func acknowledge(_ mapper: Mapper, at slot: FrameLocation? = nil) -> Bool {
        let word = mapper.client[mapper.page]
        guard word.isMapper else { return false }
        let entry = table[word.number]
        guard word.hasParity != entry.parity, slot == nil || slot == entry.slot else { return false }
        let old = mappedSlot(word, entry)
        changes += 1
        if old.page == entry.slot.page {
            // At the same displacement as before, a walk that is under way finds it where it would have.
            mapper.client.set(
                mapper.page, .mapper(of: word.frame, parity: entry.parity, isStray: word.isStray))
        } else {
            mapper.client.displace(mapper.page, from: old)
            mapper.client.set(mapper.page, .nothing)
            mapper.client.place(mapper.page, word.frame, parity: entry.parity, at: entry.slot)
        }
        left(word.frame)
        return true
    }

    /// The place that a mapper maps.
    func mappedSlot(_ word: MapperWord, _ entry: ContentTable.Entry) -> FrameLocation {
        guard word.hasParity != entry.parity else { return entry.slot }
        guard let relocation = relocations[word.frame] else {
            preconditionFailure("a mapper is stale only while its frame moves")
        }
        return relocation.old
    }

    /// A stale mapper is none any more.
    func left(_ frame: FrameNumber) {
        guard var relocation = relocations[frame] else {
            preconditionFailure("a mapper is stale only while its frame moves")
        }
        relocation.remaining -= 1
        relocations[frame] = relocation.remaining > 0 ? relocation : nil
        if relocation.remaining == 0 { lifetime?.left(relocation.old) }
    }
}
