import FrameStore

// From a frame to its mappers. First each client is asked at its numberings, a look for each; unless that finds as many as are
// counted, and nothing changed meanwhile, the strays are looked for.

extension ReverseMap {
    /// How far a walk came.
    struct Cursor {
        fileprivate enum Step { case numberings, strays, end }
        fileprivate var step = Step.numberings
        /// The client that is next, and its page.
        fileprivate var sequence: UInt64 = 0
        fileprivate var page = 0
        /// Mappers found so far, and when the walk began, by the map's count of changes.
        private var found: UInt32 = 0
        private var began: UInt64?
        var isAtEnd: Bool { step == .end }

        fileprivate mutating func find() { found += 1 }
        fileprivate mutating func begin(_ changes: UInt64) { began = began ?? changes }
        /// Whether those that were found are all.
        fileprivate func isComplete(_ references: UInt32, _ changes: UInt64) -> Bool {
            found == references && began == changes
        }
        fileprivate mutating func begin(_ next: Step) {
            step = next
            sequence = 0
            page = 0
        }
        fileprivate mutating func leave(_ client: ClientMap) {
            sequence = client.sequence + 1
            page = 0
        }
    }

    /// Goes on with a walk over a frame's mappers, from where it ended (at first: `Cursor()`).
    ///
    /// In a walk during which nothing changes, each mapper is met once. When something changes between two slices, each page
    /// that is a mapper all the time, and does not change to its frame's new place, is met at least once. The frame must not be freed
    /// between two slices.
    /// - Parameters:
    ///   - limit: looks, each at a page or at a chunk of a page table; some more may be taken.
    ///   - body: must not change the map.
    func walk(_ frame: FrameNumber, from cursor: inout Cursor, limit: Int, _ body: (Mapper) -> Void) {
        var looks = max(limit, 4)
        let entry = table[frame.value]
        precondition(entry.references > 0, "a frame has mappers")
        cursor.begin(changes)
        while looks > 0, cursor.step != .end {
            let index = index(ofSequence: cursor.sequence)
            guard index < members.count else {
                let isOver = cursor.step == .strays || cursor.isComplete(entry.references, changes)
                cursor.begin(isOver ? .end : .strays)
                continue
            }
            let client = members[index]
            looks -= 1
            if cursor.step == .numberings {
                tryNumberings(of: client, frame, entry.slot, &cursor, &looks, body)
            } else if client.strays > 0 {
                lookForStrays(of: client, frame, &cursor, &looks, body)
            } else {
                cursor.leave(client)
            }
        }
    }

    private func tryNumberings(
        of client: ClientMap, _ frame: FrameNumber, _ slot: FrameLocation, _ cursor: inout Cursor,
        _ looks: inout Int, _ body: (Mapper) -> Void
    ) {
        let old = relocations[frame]?.old
        for numbering in client.numberings.all {
            var pages = [slot.page + Int(numbering.displacement)]
            if let old, old.page != slot.page { pages.append(old.page + Int(numbering.displacement)) }
            for page in pages where 0..<client.pageCount ~= page {
                looks -= 1
                let mapper = Mapper(client, ClientPage(page))
                let word = client[page]
                guard word.isMapper, !word.isStray, word.frame == frame,
                    mappedSlot(word, table[frame.value]).page + Int(numbering.displacement) == page
                else { continue }
                cursor.find()
                body(mapper)
            }
        }
        cursor.leave(client)
    }

    private func lookForStrays(
        of client: ClientMap, _ frame: FrameNumber, _ cursor: inout Cursor, _ looks: inout Int,
        _ body: (Mapper) -> Void
    ) {
        while looks > 0 {
            cursor.page = client.words.firstCounted(from: cursor.page, looks: &looks)
            guard cursor.page < client.pageCount else { return cursor.leave(client) }
            while looks > 0 {
                let word = client[cursor.page]
                looks -= 1
                if word.isStray, word.frame == frame {
                    cursor.find()
                    body(Mapper(client, ClientPage(cursor.page)))
                }
                cursor.page += 1
                if cursor.page == client.pageCount || PageWords.isFirstOfChunk(cursor.page) { break }
            }
        }
    }
}
