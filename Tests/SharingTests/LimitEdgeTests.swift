@testable import FrameStore
import Foundation
import GuestMemory
import TestSupport
import Testing

@testable import Sharing

/// The kernel's limits, really reached, each in a process of its own: merging, unsharing and going home work or fail, and
/// memory is right.
@Suite(.serialized) struct LimitEdgeTests {
    /// What became of the pages; `wrong` counts those that show other bytes than were written.
    struct Outcomes { var done = 0, unchanged = 0, wentHome = 0, destroyed = 0, notPossible = 0, wrong = 0 }

    /// A guest all of whose pages are to be found in its store.
    static func makeGuest(pages: Int) throws -> EdgeGuest {
        let guest = try EdgeGuest(pages: pages)
        for page in 0..<pages { guest.fill(page, UInt8(page % 251 + 1)) }
        for page in 0..<pages { guest.store.write(UInt8(page % 251 + 1), page) }
        return guest
    }

    static func attempt(_ outcomes: inout Outcomes, _ body: () throws(MappingFailure) -> Bool) -> Bool {
        do throws(MappingFailure) {
            if try body() {
                outcomes.done += 1
                return true
            }
            outcomes.notPossible += 1
        } catch {
            switch error {
            case .unchanged: outcomes.unchanged += 1
            case .wentHome: outcomes.wentHome += 1
            case .destroyed: outcomes.destroyed += 1
            }
        }
        return false
    }

    /// A guest with its pages' bytes, and which of them are not at home.
    struct Trial {
        let guest: EdgeGuest
        var expected: [UInt8]
        var away: Set<Int> = []

        /// The last eight pages are merged from the start, and need memory to go home.
        init(pages: Int) throws {
            guest = try makeGuest(pages: pages)
            expected = (0..<pages).map { UInt8($0 % 251 + 1) }
            try guest.mapping.prepareWindow(0..<pages)
            let last = pages - 8..<pages
            try guest.mapping.mapFrames(last, FrameLocation(UInt64(last.lowerBound)))
            guest.mapping.punchHome(last)
            away.formUnion(last)
        }

        func look(_ what: String, _ outcomes: inout Outcomes) {
            for page in expected.indices {
                let bytes = try? guest.bytes(page)
                // A hole of home takes memory even to be read; without any, reading fails.
                if bytes == nil, expected[page] == 0, !away.contains(page) { continue }
                if bytes != [UInt8](repeating: expected[page], count: 4096) {
                    outcomes.wrong += 1
                    print("\(what): page \(page) shows \(bytes?.first.map(String.init) ?? "nothing")")
                }
            }
        }

        /// Merges pages by each way, writes to a quarter of all, makes zeros of those, takes all home. At every step the
        /// bytes are those that were written last.
        mutating func run() -> Outcomes {
            var outcomes = Outcomes()
            let mapping = guest.mapping
            for page in expected.indices {
                guest.fill(page, UInt8(page % 251 + 1))
                expected[page] = UInt8(page % 251 + 1)
            }
            for page in stride(from: 1, to: expected.count - 12, by: 6) {
                if attempt(
                    &outcomes,
                    { () throws(MappingFailure) in
                        try mapping.mapFrames(page..<page + 1, FrameLocation(UInt64(page)))
                        return true
                    })
                {
                    away.insert(page)
                }
                let run = page + 1..<page + 4
                if attempt(
                    &outcomes,
                    { () throws(MappingFailure) in
                        let isProtected = (try? mapping.protect(run)) != nil
                        defer { if isProtected { mapping.release(run, replaced: false) } }
                        return try mapping.mapFrames(
                            run, FrameLocation(UInt64(page + 1)), keeping: [page + 2])
                    })
                {
                    away.formUnion(run)
                }
            }
            look("merged", &outcomes)
            for page in stride(from: 1, to: expected.count, by: 4) {
                guest.fill(page, 0)
                expected[page] = 0
            }
            look("written", &outcomes)
            for page in stride(from: 1, to: expected.count, by: 4) {
                if attempt(
                    &outcomes,
                    { () throws(MappingFailure) in
                        try mapping.mapZero(page..<page + 1)
                        return true
                    })
                {
                    away.insert(page)
                }
            }
            look("zeros mapped", &outcomes)
            for page in away.sorted() {
                if attempt(
                    &outcomes,
                    { () throws(MappingFailure) in
                        try mapping.mapHome(page..<page + 1)
                        return true
                    })
                {
                    away.remove(page)
                }
            }
            look("at home", &outcomes)
            return outcomes
        }
    }

    /// In the lab the limit is lowered: on its kernel each failure is looked at by walking all mappings.
    @Test func limitOfMappings() async throws {
        let setting = "/proc/sys/vm/max_map_count"
        let before = MemoryGroup.read(setting)
        if EdgeNeed.isLab { try MemoryGroup.write(setting, "3000") }
        defer { if EdgeNeed.isLab { try? MemoryGroup.write(setting, before) } }
        let result = await #expect(
            processExitsWith: .success, observing: [\.standardOutputContent]
        ) {
            var trial = try LimitEdgeTests.Trial(pages: 64)
            var places: [UnsafeMutableRawPointer] = []
            places.reserveCapacity(1 << 20)
            var protection = PROT_READ
            while let place = mmap(nil, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
                place != MAP_FAILED
            {
                places.append(place)
                protection = protection == PROT_READ ? PROT_NONE : PROT_READ
            }
            let atLimit = trial.run()
            places.forEach { munmap($0, 4096) }
            let afterwards = trial.run()
            print("limit of mappings (\(places.count) more): \(atLimit); afterwards: \(afterwards)")
            let isRight =
                atLimit.wrong + atLimit.destroyed == 0 && atLimit.unchanged > 0
                && afterwards.wrong + afterwards.destroyed + afterwards.unchanged + trial.away.count == 0
            exit(isRight ? 0 : 1)
        }
        print(String(decoding: result?.standardOutputContent ?? [], as: UTF8.self))
    }

    /// No private mapping can be had any more: vm.overcommit_memory=2 without anything left to commit.
    @Test(.needs(.lab)) func nothingLeftToCommitInTheLab() async throws {
        let settings = ["overcommit_memory", "overcommit_kbytes"].map { "/proc/sys/vm/" + $0 }
        let before = settings.map(MemoryGroup.read)
        defer {
            try? MemoryGroup.write(settings[1], before[1])
            try? MemoryGroup.write(settings[0], before[0])
        }
        let result = await #expect(
            processExitsWith: .success, observing: [\.standardOutputContent]
        ) {
            let files = ["overcommit_memory", "overcommit_kbytes"].map { "/proc/sys/vm/" + $0 }
            let before = files.map(MemoryGroup.read)
            try MemoryGroup.write(files[0], "2")
            var trial = try LimitEdgeTests.Trial(pages: 64)
            try MemoryGroup.write(files[1], "1")
            let refused = trial.run()
            try MemoryGroup.write(files[1], before[1])
            try MemoryGroup.write(files[0], before[0])
            let afterwards = trial.run()
            print("nothing left to commit: \(refused); afterwards: \(afterwards)")
            exit(
                refused.wrong + refused.destroyed == 0 && refused.unchanged + refused.wentHome > 0
                    && afterwards.wrong + afterwards.destroyed + afterwards.unchanged + trial.away.count == 0
                    ? 0 : 1)
        }
        print(String(decoding: result?.standardOutputContent ?? [], as: UTF8.self))
    }

    /// The same, but no trial goes before the mapping: a kernel before 6.12 takes the page away and then fails, in earnest.
    @Test(.needs(.lab)) func aHoleThatTheKernelLeavesInTheLab() async throws {
        let files = ["overcommit_memory", "overcommit_kbytes"].map { "/proc/sys/vm/" + $0 }
        let before = files.map(MemoryGroup.read)
        defer {
            try? MemoryGroup.write(files[1], before[1])
            try? MemoryGroup.write(files[0], before[0])
        }
        let result = await #expect(processExitsWith: .success, observing: [\.standardOutputContent]) {
            var calls = MappingCalls.kernel
            calls.isCommitLimited = false
            calls.hasRoom = { _, _ in true }
            let guest = try EdgeGuest(pages: 16, calls: calls)
            for page in 0..<16 {
                guest.fill(page, UInt8(page + 1))
                guest.store.write(UInt8(page + 1), page)
            }
            try MemoryGroup.write("/proc/sys/vm/overcommit_memory", "2")
            try MemoryGroup.write("/proc/sys/vm/overcommit_kbytes", "1")
            var outcomes = Outcomes()
            _ = LimitEdgeTests.attempt(&outcomes) { () throws(MappingFailure) in
                try guest.mapping.mapFrames(4..<8, FrameLocation(4))
                return true
            }
            outcomes.wrong = try (0..<16).count {
                try guest.bytes($0) != [UInt8](repeating: UInt8($0 + 1), count: 4096)
            }
            print("a mapping that the kernel refuses: \(outcomes)")
            let isExpected = calls.mayLeaveHoles ? outcomes.wentHome == 1 : outcomes.unchanged == 1
            exit(outcomes.wrong == 0 && isExpected ? 0 : 1)
        }
        print(String(decoding: result?.standardOutputContent ?? [], as: UTF8.self))
    }

    /// A memory cgroup with 4 MiB more than what a guest of 16 MiB and its store take: there is room for what a window needs.
    @Test(.needs(.memoryGroup)) func littleMemoryLeft() async throws {
        let result = await #expect(
            processExitsWith: .success, observing: [\.standardOutputContent]
        ) {
            let group = try MemoryGroup(of: getppid())
            try group.enter()
            let guest = try LimitEdgeTests.makeGuest(pages: 4096)
            var expected = (0..<4096).map { UInt8($0 % 251 + 1) }
            try group.limit(to: group.usedBytes + 4 << 20)
            for start in stride(from: 0, to: 4096, by: 64) {
                let run = start..<start + 64
                try guest.mapping.mapFrames(run, FrameLocation(UInt64(start)))
                guest.mapping.punchHome(run)
            }
            var wrong = (0..<4096).count { guest.byte($0) != expected[$0] }
            let merged = group.usedBytes
            // Every copy takes a page, as much as home gave back.
            for page in stride(from: 0, to: 4096, by: 3) {
                guest.fill(page, 0xFE)
                expected[page] = 0xFE
            }
            wrong += (0..<4096).count { guest.byte($0) != expected[$0] }
            for start in stride(from: 0, to: 4096, by: 16) { try guest.mapping.mapHome(start..<start + 16) }
            wrong += (0..<4096).count { guest.byte($0) != expected[$0] }
            print(
                "little memory left: \(merged) bytes when merged, \(group.usedBytes) at home, wrong: \(wrong)"
            )
            exit(wrong == 0 ? 0 : 1)
        }
        print(String(decoding: result?.standardOutputContent ?? [], as: UTF8.self))
        try MemoryGroup(of: getpid()).remove()
    }

    /// When copies find no memory any more, the kernel ends the process: nobody goes on with wrong bytes.
    @Test(.needs(.memoryGroup)) func noMemoryLeft() async throws {
        await #expect(processExitsWith: .signal(SIGKILL)) {
            let group = try MemoryGroup(of: getppid())
            try group.enter()
            let guest = try LimitEdgeTests.makeGuest(pages: 4096)
            for start in stride(from: 0, to: 4096, by: 64) {
                try guest.mapping.mapFrames(start..<start + 64, FrameLocation(UInt64(start)))
                guest.mapping.punchHome(start..<start + 64)
            }
            try group.limit(to: group.usedBytes + 4 << 20)
            for page in 0..<4096 {
                guest.fill(page, 0xFE)
                if guest.byte(page) != 0xFE
                    || page < 4095 && guest.byte(page + 1) != UInt8((page + 1) % 251 + 1)
                {
                    exit(1)
                }
            }
            exit(2)
        }
        try MemoryGroup(of: getpid()).remove()
    }
}
