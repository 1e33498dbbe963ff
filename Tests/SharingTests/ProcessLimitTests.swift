@testable import SharingTestKit
import GuestMemory
import Testing

@testable import Sharing

/// The process is at one of its limits: each mapping fails once, each piece of heap is missing once. Nothing is lost, what had to
/// wait is counted, and done later.
@Suite struct ProcessLimitTests {
    /// Two guests that share, write what is shared, are turned off and on, and lose their store.
    private static let story: [Operation] = {
        var story: [Operation] = []
        func pass(_ count: Int) {
            for _ in 0..<count {
                for guest in 0...1 { story.append(.pass(guest, budget: .max / 2, meanwhile: [])) }
            }
        }
        for guest in 0...1 {
            story.append(.fill(guest, page: 0, count: 6, first: 11, second: 12))
            for page in 6..<12 {
                story.append(.fill(guest, page: page, count: 1, first: UInt64(page), second: 1000))
            }
            story.append(.fill(guest, page: 12, count: 4, first: 0, second: 0))
            story.append(.fill(guest, page: 9, count: 1, first: UInt64(guest + 50), second: 7))
        }
        pass(6)
        for guest in 0...1 {
            story.append(.write(guest, page: 7, half: 1, value: 5))
            story.append(.write(guest, page: 13, half: 0, value: 6))
        }
        pass(12)
        story.append(.setSharing(0, false))
        pass(2)
        story.append(.setSharing(0, true))
        pass(4)
        story.append(.brokerDies(0))
        pass(4)
        return story
    }()

    private static func makeRun(_ window: SharingPolicy.Window) throws -> ModelRun {
        try ModelRun.ofTwo {
            $0.pages = 20
            $0.options.constantHash = false
            $0.policy = { $0.window = window }
        }
    }

    @Test(
        arguments: [SharingPolicy.Window.userfaultfd, .pause],
        [KernelModel.MapFault.unchanged, .wentHome])
    func everyMappingFailsOnce(window: SharingPolicy.Window, fault: KernelModel.MapFault) throws {
        let untouched = try Self.makeRun(window)
        #expect(try untouched.run(Self.story, quiesce: false) == nil)
        let guest = try #require(untouched.member(0)).guest
        #expect(guest.replacements > 10)
        for number in 1...guest.replacements {
            let run = try Self.makeRun(window)
            let member = try #require(run.member(0))
            member.guest.failingReplacement = number
            member.guest.failsWith = fault
            // At the end all is shared that can be.
            let failure = try run.run(Self.story)
            #expect(failure == nil, "replacement \(number)")
            #expect(member.engine.statistics.putOffNoMapping > 0, "replacement \(number)")
            #expect(member.engine.fatal == nil)
        }
    }

    @Test(arguments: [1, 5]) func everyPieceOfHeapIsMissingOnce(times: Int) throws {
        let untouched = try Self.makeRun(.userfaultfd)
        #expect(try untouched.run(Self.story, quiesce: false) == nil)
        let guest = try #require(untouched.member(0)).guest
        #expect(guest.requests > 20 && untouched.member(0)?.engine.statistics.putOffNoMemory == 0)
        for number in 1...guest.requests {
            let run = try Self.makeRun(.userfaultfd)
            let member = try #require(run.member(0))
            member.guest.refusedRequests = number..<number + times
            #expect(try run.run(Self.story) == nil, "request \(number)")
            #expect(member.engine.statistics.putOffNoMemory > 0, "request \(number)")
        }
    }

    /// Without heap a pass touches nothing: no window opens, no page is looked at, the store hears nothing.
    @Test func nothingBeginsWithoutHeap() throws {
        let run = try Self.makeRun(.userfaultfd)
        let member = try #require(run.member(0))
        member.guest.refusedRequests = 1..<10_000
        for operation in Self.story.prefix(30) { try run.perform(operation) }
        let counts = member.engine.statistics
        #expect(counts.pagesHashed == 0 && counts.windows.count == 0 && counts.fullScans == 0)
        #expect(counts.putOffNoMemory > 0)
        #expect(member.guest.replacements == 0)
    }

    /// Other mappings of the process take what a limit leaves: none is tried, and when they are gone, all is shared.
    @Test func othersTakeTheMappings() throws {
        let run = try Self.makeRun(.userfaultfd)
        let member = try #require(run.member(0))
        func passes(_ count: Int) throws {
            for _ in 0..<count {
                try run.passes(1)
                // What others have is counted again after some time.
                run.world.time += 20_000_000_000
            }
        }
        member.guest.others = member.guest.mappingLimit - 1
        try passes(1)
        for operation in Self.story.prefix(18) { try run.perform(operation) }
        try passes(8)
        #expect(member.guest.replacements == 0)
        #expect(member.engine.statistics.putOffNoMapping > 0 && member.engine.statistics.pagesMerged == 0)
        member.guest.others = 100
        try passes(140)
        #expect(member.engine.statistics.pagesMapped > 3)
        #expect(run.world.violations.isEmpty)
    }

    @Test func mappingsThatAreLeft() {
        #expect(MappingCount(guest: 10, process: 60, limit: 65530).most == 65530 - 1024 - 50)
        #expect(MappingCount(guest: 10, process: 60, limit: 800).most == 800 - 100 - 50)
        #expect(MappingCount(guest: 1000, process: 65530, limit: 65530).most < 1000)
    }

    @Test func aSetOfPages() throws {
        let set = try PageSet(pageCount: 200)
        #expect(set.isEmpty && set.popFirst() == nil)
        for page in [150, 3, 64, 3, 199] { set.insert(page) }
        #expect(set.count == 4 && set.contains(64) && !set.contains(65))
        set.remove(64)
        set.remove(65)
        #expect(set.popFirst() == 3)
        set.insert(0)
        #expect([set.popFirst(), set.popFirst(), set.popFirst(), set.popFirst()] == [0, 150, 199, nil])
        set.insert(7)
        set.removeAll()
        #expect(set.isEmpty && !set.contains(7))
    }
}
