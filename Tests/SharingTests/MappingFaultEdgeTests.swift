@testable import FrameStore
import Foundation
import GuestMemory
import LinuxHost
import Synchronization
import Testing

@testable import Sharing

/// Calls that fail as kernels do: some after they took away what was mapped.
final class MappingFaults: Sendable {
    enum Way: CaseIterable {
        /// What was mapped stays.
        case cleanly
        /// It is gone before the call fails.
        case unmapping
        /// Gone, and another thread's mapping has got the place.
        case withAStranger
    }
    struct Plan {
        var way = Way.cleanly
        /// Addresses at which calls fail.
        var range: Range<UInt> = 0..<0
        /// Calls that fail from now on.
        var maps = 0
        var moves = 0
        /// Mappings that nobody can access fail as well.
        var refusesBlocks = false
        /// What a stranger has mapped holds something already.
        var strangerWrites = false
        var failed = 0
    }
    let plan = Mutex(Plan())

    var calls: MappingCalls {
        MappingCalls(
            map: { [self] start, size, isAccessible, flags, descriptor, offset in
                let fails = plan.withLock { plan in
                    guard plan.range.contains(start), plan.maps > 0, isAccessible || plan.refusesBlocks
                    else { return false }
                    plan.maps -= 1
                    return true
                }
                if fails { return fail(start, size, replaces: flags & MAP_FIXED != 0) }
                return MappingCalls.kernel.map(start, size, isAccessible, flags, descriptor, offset)
            },
            move: { [self] from, size, target in
                let fails = plan.withLock { plan in
                    plan.moves -= 1
                    return plan.moves >= 0
                }
                return fails
                    ? fail(target, size, replaces: true) : MappingCalls.kernel.move(from, size, target)
            },
            mayLeaveHoles: true)
    }

    private func fail(_ start: UInt, _ size: Int, replaces: Bool) -> Int32 {
        let way = plan.withLock { plan in
            plan.failed += 1
            return plan.way
        }
        let place = UnsafeMutableRawPointer(bitPattern: start)
        if replaces, way != .cleanly { munmap(place, size) }
        if replaces, way == .withAStranger {
            let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
            #expect(mmap(place, size, PROT_READ | PROT_WRITE, flags, -1, 0) == place)
            if let place, plan.withLock({ $0.strangerWrites }) { memset(place, 0x5A, size) }
        }
        return ENOMEM
    }
}

/// Invariant 9: whatever fails, and whatever is gone after that, a page holds its bytes or the guest is given up.
@Suite(.serialized) struct MappingFaultEdgeTests {
    enum Outcome: Equatable { case done, notPossible, unchanged, wentHome, destroyed }
    enum Replacement: CaseIterable { case frames, zeros, home, keeping, arranged }

    private static let pages = 8..<12

    /// A guest whose pages hold what the store does, but for zeros, and one of those that are kept.
    private struct Stand {
        let faults = MappingFaults()
        let guest: EdgeGuest
        let expected: [[UInt8]]

        init(_ replacement: Replacement, protects: Bool = true) throws {
            let guest = try EdgeGuest(pages: 16, protects: protects, calls: faults.calls)
            self.guest = guest
            for page in 0..<16 {
                guest.store.write(UInt8(page + 1), page)
                guest.fill(page, UInt8(page + 1))
            }
            if replacement == .zeros { for page in pages { guest.fill(page, 0) } }
            if replacement == .keeping || replacement == .arranged { guest.fill(9, 0x99) }
            if replacement == .home {
                try guest.mapping.mapFrames(pages, FrameLocation(8))
                guest.fill(10, 0x77)
            }
            // As the engine does it: nothing is in flight, home's pages are hidden only afterwards.
            expected = try (0..<16).map { try #require(try guest.bytes($0)) }
        }

        func perform(_ replacement: Replacement) -> Outcome {
            do throws(MappingFailure) {
                switch replacement {
                case .frames: try guest.mapping.mapFrames(pages, FrameLocation(8))
                case .zeros: try guest.mapping.mapZero(pages)
                case .home: try guest.mapping.mapHome(pages)
                case .keeping:
                    if try !guest.mapping.mapFrames(pages, FrameLocation(8), keeping: [9]) {
                        return .notPossible
                    }
                case .arranged:
                    var kept = [false, true, false, false]
                    let target = PageBacking.frame(FrameLocation(8))
                    if try !guest.mapping.rearrange(pages, target, keeping: &kept) { return .notPossible }
                }
                return .done
            } catch {
                switch error {
                case .unchanged: return .unchanged
                case .wentHome(let range, _): return range == pages ? .wentHome : .destroyed
                case .destroyed: return .destroyed
                }
            }
        }

        func fail(_ way: MappingFaults.Way, maps: Int = 0, moves: Int = 0, scratch: Bool = false) {
            let base =
                scratch
                ? UInt(bitPattern: guest.mapping.scratch.base)
                : UInt(bitPattern: guest.memory.mapping.base) + 8 * 4096
            faults.plan.withLock {
                let writes = $0.strangerWrites
                $0 = MappingFaults.Plan(way: way, range: base..<base + 4 * 4096, maps: maps, moves: moves)
                $0.strangerWrites = writes
            }
        }

        /// All pages hold their bytes, can be written, and merged and taken home as if nothing had happened.
        func expectRight(_ what: String) throws {
            for page in 0..<16 { #expect(try guest.bytes(page) == expected[page], "\(what), page \(page)") }
            #expect(faults.plan.withLock { $0.failed } > 0, "\(what): nothing failed")
            faults.plan.withLock { $0 = MappingFaults.Plan() }
            guest.fill(9, 0x55)
            guest.fill(3, 0x33)
            #expect(guest.byte(9) == 0x55 && guest.byte(3) == 0x33, "\(what)")
            guest.fill(8, 9)
            try guest.mapping.mapFrames(8..<9, FrameLocation(8))
            guest.mapping.punchHome(8..<9)
            #expect(guest.byte(8) == 9 && guest.byte(9) == 0x55, "\(what)")
            for page in 8..<12 {
                let bytes = try guest.bytes(page)
                try guest.mapping.mapHome(page..<page + 1)
                #expect(try guest.bytes(page) == bytes, "\(what), page \(page) at home")
            }
        }

        /// Nothing can be read of the pages, zeros least of all; nobody else gets the address.
        func expectBlocked(_ what: String) throws {
            for page in pages { #expect(try guest.bytes(page) == nil, "\(what), page \(page)") }
            for page in 0..<8 { #expect(try guest.bytes(page) == expected[page], "\(what), page \(page)") }
            var residency = [UInt8](repeating: 0, count: 4)
            #expect(mincore(guest.memory.mapping.base + 8 * 4096, 4 * 4096, &residency) == 0, "\(what)")
        }
    }

    /// Guest memory is told from a stranger's by its registration, or without userfaultfd by what it holds.
    @Test(arguments: [Replacement.frames, .zeros, .home, .arranged], [true, false])
    func whatIsGoneIsThereAgain(replacement: Replacement, protects: Bool) throws {
        // Without userfaultfd, no page is kept over frames.
        if replacement == .arranged, !protects { return }
        var stand = try Stand(replacement, protects: protects)
        stand.fail(.cleanly, maps: 2)
        #expect(stand.perform(replacement) == .unchanged)
        try stand.expectRight("\(replacement), failed cleanly")

        stand = try Stand(replacement, protects: protects)
        stand.fail(.unmapping, maps: 1)
        #expect(stand.perform(replacement) == .done)
        try stand.expectRight("\(replacement), unmapped")

        stand = try Stand(replacement, protects: protects)
        stand.fail(.unmapping, maps: 2)
        if replacement == .home {
            #expect(stand.perform(replacement) == .destroyed)
            try stand.expectBlocked("\(replacement), unmapped and refused")
        } else {
            #expect(stand.perform(replacement) == .wentHome)
            try stand.expectRight("\(replacement), unmapped and refused")
        }
    }

    /// The pages were mapped to frames, one was written since, and their memory at home is punched.
    @Test func whatWasSharedBeforeIsThereAgain() throws {
        let stand = try Stand(.home)
        stand.guest.mapping.punchHome(Self.pages)
        stand.guest.store.write(0x77, 20)
        stand.fail(.unmapping, maps: 2)
        do throws(MappingFailure) {
            try stand.guest.mapping.mapFrames(10..<11, FrameLocation(20))
            Issue.record("the mapping was made")
        } catch {
            #expect(
                error
                    == .wentHome(
                        10..<11,
                        LinuxError(operation: "mmap", code: ENOMEM, subject: "guest memory")))
        }
        for page in 0..<16 { #expect(try stand.guest.bytes(page) == stand.expected[page]) }
    }

    @Test(arguments: [Replacement.frames, .zeros, .home, .arranged])
    func whatCannotBeFilledIsGivenUp(replacement: Replacement) throws {
        var stand = try Stand(replacement)
        stand.fail(.unmapping, maps: 100)
        #expect(stand.perform(replacement) == .destroyed)
        try stand.expectBlocked("\(replacement)")
        // Not even a block can be had: page by page then.
        stand = try Stand(replacement)
        stand.fail(.unmapping, maps: replacement == .home ? 3 : 4)
        stand.faults.plan.withLock { $0.refusesBlocks = true }
        #expect(stand.perform(replacement) == .destroyed)
        try stand.expectBlocked("\(replacement), no block at once")
    }

    /// Something is mapped where the guest's page was: not the guest's.
    @Test(arguments: [Replacement.frames, .zeros, .home, .arranged], [true, false])
    func aStrangersMappingIsNotTakenForTheGuests(replacement: Replacement, protects: Bool) throws {
        if replacement == .arranged, !protects { return }
        let stand = try Stand(replacement, protects: protects)
        stand.fail(.withAStranger, maps: 2)
        #expect(stand.perform(replacement) == .destroyed)
        // One that has been written by then, too.
        let written = try Stand(replacement, protects: protects)
        written.faults.plan.withLock { $0.strangerWrites = true }
        written.fail(.withAStranger, maps: 2)
        #expect(written.perform(replacement) == .destroyed)
    }

    /// What is mapped to zeros already, and never read by anybody, is still the guest's after a failure.
    @Test(arguments: [true, false]) func untouchedZerosAreTheGuests(protects: Bool) throws {
        let stand = try Stand(.zeros, protects: protects)
        try stand.guest.mapping.mapZero(Self.pages)
        stand.guest.mapping.punchHome(Self.pages)
        stand.fail(.cleanly, maps: 2)
        #expect(stand.perform(.zeros) == .unchanged)
        try stand.expectRight("zeros that nobody read")
    }

    /// However many mappings the process has, a failure is looked at in a few steps: reads are counted by the kernel.
    @Test(
        .needs(.userfaultfd), arguments: [Replacement.frames, .zeros, .home, .arranged, .keeping],
        [true, false])
    func failuresAreBounded(replacement: Replacement, protects: Bool) throws {
        if !protects, replacement == .arranged || replacement == .keeping { return }
        let stand = try Stand(replacement, protects: protects)
        let pages = 8000
        let base = try #require(mmap(nil, pages * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
        defer { munmap(base, pages * 4096) }
        for page in stride(from: 1, to: pages, by: 2) { mprotect(base + page * 4096, 4096, PROT_READ) }
        if replacement == .keeping {
            stand.fail(.cleanly, moves: 1)
        } else {
            stand.fail(.cleanly, maps: 2)
        }
        let before = try Self.readCalls()
        let outcome = stand.perform(replacement)
        let calls = try Self.readCalls() - before
        #expect(outcome == (replacement == .keeping ? .notPossible : .unchanged))
        // All lines of these mappings are some hundred reads. Two for each of four pages, and one for all.
        #expect(calls <= 3 * Self.pages.count + 4, "\(calls) reads")
        try stand.expectRight("\(replacement)")
    }

    /// Of this thread, the reads of this file included.
    private static func readCalls() throws -> Int {
        let text = try String(contentsOfFile: "/proc/thread-self/io", encoding: .utf8)
        let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("syscr:") })
        return try #require(Int(line.dropFirst(7)))
    }

    @Test(.needs(.userfaultfd))
    func aFailedMoveKeepsAllBytes() throws {
        var stand = try Stand(.keeping)
        stand.fail(.cleanly, moves: 1)
        #expect(stand.perform(.keeping) == .notPossible)
        try stand.expectRight("a move that fails cleanly")

        stand = try Stand(.keeping)
        stand.fail(.unmapping, moves: 1)
        #expect(stand.perform(.keeping) == .wentHome)
        try stand.expectRight("a move that unmaps")

        stand = try Stand(.keeping)
        stand.fail(.unmapping, maps: 100, moves: 1)
        #expect(stand.perform(.keeping) == .destroyed)
        try stand.expectBlocked("a move that unmaps, and nothing can be mapped")

        stand = try Stand(.keeping)
        stand.fail(.withAStranger, moves: 1)
        #expect(stand.perform(.keeping) == .destroyed)
    }

    @Test(
        .needs(.userfaultfd),
        arguments: MappingFaults.Way.allCases,
        [1, 2])
    func aFailingScratchHurtsNobody(way: MappingFaults.Way, maps: Int) throws {
        let stand = try Stand(.keeping)
        stand.fail(way, maps: maps, scratch: true)
        let outcome = stand.perform(.keeping)
        // The first failure is made good by a second mapping where nothing is; where something is, it fails.
        #expect(outcome == (way == .unmapping && maps == 1 ? .done : .notPossible))
        for page in 0..<16 { #expect(try stand.guest.bytes(page) == stand.expected[page]) }
        // What may not be ours any more is never used again.
        stand.fail(.cleanly)
        #expect(stand.perform(.keeping) == (outcome == .done ? .done : .notPossible))
        for page in 0..<16 { #expect(try stand.guest.bytes(page) == stand.expected[page]) }
    }

    /// Without kept pages the scratch plays no part; with it given up, sharing goes on.
    @Test(.needs(.userfaultfd))
    func aScratchThatCannotBeRestored() throws {
        let stand = try Stand(.keeping)
        // The first mapping succeeds, the one after the move does not.
        let base = UInt(bitPattern: stand.guest.mapping.scratch.base)
        let inner = stand.faults.calls
        let seen = Atomic(0)
        let calls = MappingCalls(
            map: { start, size, isAccessible, flags, descriptor, offset in
                if start == base, seen.add(1, ordering: .relaxed).oldValue > 0 {
                    if flags & MAP_FIXED != 0 { munmap(UnsafeMutableRawPointer(bitPattern: start), size) }
                    return ENOMEM
                }
                return inner.map(start, size, isAccessible, flags, descriptor, offset)
            }, move: inner.move, mayLeaveHoles: true)
        stand.guest.mapping.calls = calls
        #expect(stand.perform(.keeping) == .done)
        #expect(stand.perform(.keeping) == .notPossible)
        for page in 0..<16 { #expect(try stand.guest.bytes(page) == stand.expected[page]) }
        try stand.guest.mapping.mapFrames(3..<4, FrameLocation(3))
        #expect(stand.guest.byte(3) == 4)
    }
}
