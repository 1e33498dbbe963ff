import FrameStore

// Uniform pages: many guests fill whole regions with one pattern. Its copies lie side by side, so that a run of such
// pages is one mapping: page p gets copy p mod 256. They are found by their pattern alone, not by content.

extension FrameStoreCore {
    /// Copies of a uniform page.
    struct Pattern {
        var word: UInt64
        /// First of `SlotMap.runLength` places.
        var run: FrameLocation
        var references = 0
        /// Copies that were written.
        var written = SmallBitmap()
    }

    func shareUniform(_ client: Client, _ page: ClientPage, _ word: UInt64) -> StoreAnswer {
        forget(client, page)
        guard word != 0, statistics.retired < Self.retiredLimit, hasRoom(client, page),
            let number = patternNumbers[word] ?? makePattern(word)
        else { return .refused }
        let copy = Int(page) % SlotMap.runLength
        guard let run = patterns[number]?.run else { return .refused }
        let location = run.advanced(by: copy)
        if patterns[number]?.written.contains(copy) == false {
            guard hasRoomForFrame(client) else {
                retireIfUnused(number)
                return .refused
            }
            do throws(FrameStoreError) { try backing.write(Self.bytes(of: word), at: location) } catch {
                backing.discard(location, count: 1)
                retireIfUnused(number)
                return .refused
            }
            patterns[number]?.written.insert(copy)
            statistics.frames += 1
        }
        patterns[number]?.references += 1
        map.addUniform(.init(client.map, page), pattern: number)
        statistics.references += 1
        disturb(client)
        return .frame(location)
    }

    private func makePattern(_ word: UInt64) -> Int? {
        // One batch could make and drop thousands, each with a frame to write and to free.
        guard newPatterns < Self.patternLimit, let number = patterns.firstIndex(where: { $0 == nil }),
            let run = slots.takeRun()
        else { return nil }
        newPatterns += 1
        patterns[number] = Pattern(word: word, run: run)
        patternNumbers[word] = number
        return number
    }

    func forgetUniform(_ number: Int) {
        patterns[number]?.references -= 1
        retireIfUnused(number)
    }

    private func retireIfUnused(_ number: Int) {
        guard let pattern = patterns[number], pattern.references == 0 else { return }
        patternNumbers[pattern.word] = nil
        patterns[number] = nil
        statistics.frames -= pattern.written.population
        retire(pattern.run, places: SlotMap.runLength, written: pattern.written.population)
    }

    static func bytes(of word: UInt64) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(4096)
        for index in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(index * 8))) }
        while bytes.count < 4096 { bytes += bytes }
        return bytes
    }
}
