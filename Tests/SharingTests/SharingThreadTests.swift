@testable import SharingTestKit
import FrameStore
import Glibc
import GuestMemory
import LinuxHost
import Synchronization
import Testing
import TestSupport

@testable import Sharing

/// The thread around an engine, with the model's guest.
@Suite struct SharingThreadTests {
    /// What the sharing thread made, for the test to look at while that thread does nothing.
    private final class Made: @unchecked Sendable {
        // Written by the sharing thread before its first pass, read in holds and after the end.
        var run: ModelRun?
        let steps = Atomic<Int>(0)
    }

    /// A sharing thread of a guest whose every step takes a while.
    private func start(_ made: Made, _ policy: SharingPolicy = SharingPolicy()) throws -> SharingThread {
        let thread = try SharingThread(
            policy: policy,
            make: {
                var setup = ModelRun.Setup()
                setup.guests = 1
                let run = try ModelRun(setup)
                guard let member = run.member(0) else { throw LinuxError(operation: "make", code: 2) }
                member.guest.hook = { _ in
                    made.steps.add(1, ordering: .sequentiallyConsistent)
                    usleep(300)
                }
                made.run = run
                return member.engine
            },
            connect: { engine in
                guard policy.eagerFrom == 1, let run = made.run else { return }
                run.member(0)?.connect(run.world)
            },
            failed: { Issue.record("the engine failed: \($0)") })
        #expect(thread.wait(until: monotonicNanoseconds() + 30_000_000_000) { $0.passes > 0 })
        return thread
    }

    /// Zeros need no store to be merged, so every page written is work for the engine.
    @Test func nothingIsMappedWhileMappingsAreHeld() throws {
        let made = Made()
        let thread = try start(made)
        var generator = SeededGenerator(for: "holds")
        var merged = 0
        for round in 0..<30 {
            // At any moment: mostly in the middle of a pass.
            usleep(UInt32.random(in: 0...60_000, using: &generator))
            try thread.withMappingsHeld {
                let guest = try #require(made.run?.member(0)).guest
                let before = made.steps.load(ordering: .sequentiallyConsistent)
                let mappings = guest.backing
                for page in 0..<guest.pageCount where (page + round) % 5 == 0 {
                    guest.guestWrites(page, half: 0, 0)
                }
                // A request that would begin a pass at once.
                thread.setPolicy { $0.auditPasses = 7 + round % 2 }
                usleep(10_000)
                #expect(made.steps.load(ordering: .sequentiallyConsistent) == before)
                #expect(guest.backing == mappings)
                merged = max(merged, guest.backing.count { $0 == .zero })
            }
        }
        thread.stop()
        // There was something to hold up.
        #expect(merged > 0)
        #expect(try #require(made.run).world.violations.isEmpty)
    }

    /// Nor is news heard, which is merged at once.
    @Test func nothingIsHeardWhileMappingsAreHeld() throws {
        let made = Made()
        var policy = SharingPolicy()
        policy.eagerFrom = 1
        policy.shortestInterval = 40_000_000
        let thread = try start(made, policy)
        for round in 0..<6 {
            try thread.withMappingsHeld {
                let guest = try #require(made.run?.member(0)).guest
                for page in 0..<guest.pageCount {
                    guest.guestWrites(page, half: 0, UInt64(round * 100 + page))
                }
            }
            // The pass that looks at them is eager: it is followed by hearings, ten milliseconds apart.
            let passes = thread.snapshot.passes
            #expect(thread.wait(until: monotonicNanoseconds() + 30_000_000_000) { $0.passes > passes + 1 })
            thread.withMappingsHeld {
                let before = made.steps.load(ordering: .sequentiallyConsistent)
                usleep(60_000)
                #expect(made.steps.load(ordering: .sequentiallyConsistent) == before)
            }
        }
        thread.stop()
        #expect(try #require(made.run).world.violations.isEmpty)
    }

    @Test func holdsMayOverlapAndEndInAnyOrder() throws {
        let made = Made()
        let thread = try start(made)
        let passes = thread.snapshot.passes
        thread.withMappingsHeld {
            thread.withMappingsHeld {}
            // The inner one has ended; the outer one still holds.
            thread.setPolicy { $0.auditPasses = 3 }
            let before = made.steps.load(ordering: .sequentiallyConsistent)
            usleep(20_000)
            #expect(made.steps.load(ordering: .sequentiallyConsistent) == before)
        }
        #expect(thread.wait(until: monotonicNanoseconds() + 30_000_000_000) { $0.passes > passes + 1 })
        thread.stop()
    }

    /// Also the end does not wait for who holds the mappings.
    @Test func stopsWhileHeld() throws {
        let made = Made()
        let thread = try start(made)
        thread.withMappingsHeld { thread.stop() }
    }

    /// Whatever a guest holds that boots, nobody looks at it.
    @Test func aGuestThatBootsIsLeftAlone() throws {
        let made = Made()
        let isReady = Monitor(false)
        let thread = try SharingThread(
            policy: SharingPolicy(),
            signals: GuestSignals(
                times: { nil }, isReady: { isReady.withLock { $0 } }, measurePrices: { nil }),
            make: {
                var setup = ModelRun.Setup()
                setup.guests = 1
                let run = try ModelRun(setup)
                guard let member = run.member(0) else { throw LinuxError(operation: "make", code: 2) }
                member.guest.hook = { _ in made.steps.add(1, ordering: .sequentiallyConsistent) }
                made.run = run
                return member.engine
            },
            connect: { _ in }, failed: { Issue.record("the engine failed: \($0)") })
        #expect(thread.wait(until: monotonicNanoseconds() + 30_000_000_000) { $0.hold == .booting })
        usleep(600_000)
        #expect(thread.snapshot.passes == 0 && made.steps.load(ordering: .sequentiallyConsistent) == 0)
        isReady.update { $0 = true }
        #expect(
            thread.wait(until: monotonicNanoseconds() + 30_000_000_000) { $0.passes > 0 && $0.hold == nil })
        thread.stop()
    }

    /// A store to which nobody else lacks CPU time, and which writes down what this client says of its own.
    private final class Listener: FrameStore {
        let batchLimit = 4096
        let stagingSlots = 256
        private let said: Monitor<[UInt16]>
        init(_ said: Monitor<[UInt16]>) { self.said = said }
        func exchange(_ batch: StoreBatch) throws(FrameStoreError) -> StoreReply {
            said.update { $0.append(batch.waiting) }
            var reply = StoreReply()
            reply.sightings = batch.sightings.map { _ in .recorded }
            reply.uniform = batch.uniform.map { _ in .recorded }
            reply.publications = batch.publications.map { _ in .refused }
            return reply
        }
        /// It asks until it has heard that CPU time is lacking, and not again.
        func hasNotice() -> Bool { !said.withLock { $0.contains { $0 >= StoreMarket.scarceFrom } } }
    }

    /// All others hold back while a guest lacks CPU time, so its end is told at once, not with the next thing to ask.
    @Test func whoDoesNotWaitAnyMoreSaysSo() throws {
        let said = Monitor<[UInt16]>([])
        let made = Made()
        var policy = SharingPolicy()
        // A pass every 50 ms, so that passes are a clock.
        policy.longestInterval = 50_000_000
        let started = monotonicNanoseconds()
        let isWorking = Monitor(true)
        let rested = Monitor<UInt64?>(nil)
        let thread = try SharingThread(
            policy: policy,
            signals: GuestSignals(
                times: {
                    let now = monotonicNanoseconds()
                    let end = isWorking.withLock { $0 } ? now : rested.withLock { $0 } ?? now
                    return ProcessorTimes(running: (end - started) / 2, waiting: (end - started) / 2)
                }, isReady: { true }, measurePrices: { nil }),
            make: {
                var setup = ModelRun.Setup()
                setup.guests = 1
                let run = try ModelRun(setup)
                guard let member = run.member(0) else { throw LinuxError(operation: "make", code: 2) }
                made.run = run
                return member.engine
            },
            connect: { $0.connect(Listener(said)) }, failed: { Issue.record("the engine failed: \($0)") })
        let limit = monotonicNanoseconds() + 60_000_000_000
        let scarce: Bool? = said.wait(until: limit) {
            $0.contains { $0 >= StoreMarket.scarceFrom } ? true : nil
        }
        #expect(scarce == true)
        rested.update { $0 = monotonicNanoseconds() }
        isWorking.update { $0 = false }
        let before = thread.snapshot.passes
        let quiet: Bool? = said.wait(until: limit) { $0.last ?? 0 < StoreMarket.scarceFrom ? true : nil }
        #expect(quiet == true)
        // Nothing is written and nothing is left to look at: else it would speak after some seconds, a hundred passes.
        #expect(thread.snapshot.passes - before < 40)
        thread.stop()
    }
}
