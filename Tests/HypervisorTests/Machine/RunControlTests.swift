import Foundation
import Synchronization
import TestSupport
import Testing

@testable import GuestMemory
@testable import LinuxHost
@testable import Hypervisor

/// Threads that obey ``RunControl`` as vCPUs do, with a "guest" that is left when kicked or by itself.
private final class Crew: Sendable {
    let control: RunControl
    let count: Int
    /// By vCPU: 1 while in the guest.
    private let inside: [Monitor<Bool>]
    private let kicked: [Monitor<Bool>]
    /// Entries into the guest, of all.
    let entries = Atomic<UInt64>(0)
    private let threads = Mutex<[HostThread]>([])

    init(_ count: Int) {
        self.count = count
        inside = (0..<count).map { _ in Monitor(false) }
        kicked = (0..<count).map { _ in Monitor(false) }
        let endings = EndingCounter()
        self.endingCounter = endings
        control = RunControl(processorCount: count, ended: { endings.add() })
    }
    final class EndingCounter: Sendable {
        private let number = Atomic(0)
        var value: Int { number.load(ordering: .sequentiallyConsistent) }
        func add() { number.add(1, ordering: .sequentiallyConsistent) }
    }
    let endingCounter: EndingCounter

    var anyInside: Bool { inside.contains { $0.withLock { $0 } } }
    func kick(_ index: Int) { kicked[index].update { $0 = true } }

    func start(endingAfter limit: UInt64 = UInt64.max) throws {
        for index in 0..<count {
            let thread = try HostThread(name: "crew\(index)") { [self] in run(index, limit) }
            threads.withLock { $0.append(thread) }
        }
    }

    private func run(_ index: Int, _ limit: UInt64) {
        defer { control.finish(index) }
        var random = SeededGenerator(seed: UInt64(index) + 1)
        var seen: UInt64 = 0
        guard control.checkIn(index, seen: &seen) else { return }
        while true {
            // As VirtualCPU does: first clear, then look.
            kicked[index].withLock { $0 = false }
            if control.hasChanged(since: seen) {
                guard control.checkIn(index, seen: &seen) else { return }
                continue
            }
            if random.oneIn(50) {
                control.sleep(until: monotonicNanoseconds() + 100_000, seen: seen)
                continue
            }
            inside[index].withLock { $0 = true }
            let stay = monotonicNanoseconds() + UInt64.random(in: 0..<300_000, using: &random)
            let _: Bool? = kicked[index].wait(until: stay) { $0 ? true : nil }
            inside[index].withLock { $0 = false }
            if entries.add(1, ordering: .relaxed).newValue >= limit {
                control.endFromProcessor(.exited(UInt8(index)))
            }
        }
    }

    func join() {
        control.waitForThreads(kick: kick)
        threads.withLock { $0 }.forEach { $0.join() }
    }
    var entryCount: UInt64 { entries.load(ordering: .relaxed) }
}

@Suite(.serialized) struct RunControlTests {
    @Test(arguments: [1, 2, 4]) func nobodyIsInTheGuestWhilePaused(count: Int) throws {
        var random = SeededGenerator(for: "pauses")
        let crew = Crew(count)
        try withWatchdog(seconds: 120, "pausing") {
            try crew.start()
            crew.control.resume()
            for round in 0..<1000 {
                crew.control.pause(kick: crew.kick)
                let before = crew.entryCount
                #expect(!crew.anyInside && crew.control.isPaused, "round \(round)")
                if random.oneIn(20) { usleep(200) }
                #expect(!crew.anyInside && crew.entryCount == before, "round \(round)")
                crew.control.resume()
                if random.oneIn(3) { usleep(UInt32.random(in: 0..<200, using: &random)) }
            }
            let before = crew.entryCount
            while crew.entryCount == before { usleep(100) }
            crew.control.end(.stopped, kick: crew.kick)
            crew.join()
        }
        #expect(!crew.anyInside && crew.control.end == .stopped && crew.endingCounter.value == 1)
    }

    @Test func pausesOfSeveralThreadsNest() throws {
        let crew = Crew(2)
        let seed = SeededGenerator(for: "nested pauses").seed
        let broken = Atomic(0)
        try withWatchdog(seconds: 120, "nested pauses") {
            try crew.start()
            crew.control.resume()
            onThreads(3) { index in
                var random = SeededGenerator(seed: seed &+ UInt64(index))
                for _ in 0..<400 {
                    let depth = Int.random(in: 1...3, using: &random)
                    for _ in 0..<depth { crew.control.pause(kick: crew.kick) }
                    for _ in 0..<depth {
                        if crew.anyInside || !crew.control.isPaused { broken.add(1, ordering: .relaxed) }
                        crew.control.resume()
                    }
                    if random.oneIn(2) { usleep(UInt32.random(in: 0..<150, using: &random)) }
                }
            }
            let before = crew.entryCount
            while crew.entryCount == before { usleep(100) }
            crew.control.end(.stopped, kick: crew.kick)
            crew.join()
        }
        let count = broken.load(ordering: .relaxed)
        #expect(count == 0)
    }

    @Test func theMachineStartsPausedAndAPauseBeforeTheStartReturns() throws {
        let crew = Crew(2)
        try withWatchdog(seconds: 30, "a pause before the start") {
            crew.control.pause(kick: crew.kick)
            try crew.start()
            crew.control.resume()
            usleep(20_000)
            #expect(crew.entryCount == 0 && crew.control.isPaused, "the owner's own hold remains")
            crew.control.resume()
            while crew.entryCount == 0 { usleep(100) }
            crew.control.end(.poweredOff, kick: crew.kick)
            crew.join()
        }
        #expect(crew.control.end == .poweredOff)
    }

    @Test func aPauseWithALimitNamesThoseThatDoNotObey() {
        let control = RunControl(processorCount: 2, ended: {})
        var seen: [UInt64] = [0, 0]
        control.resume()
        for index in 0..<2 {
            #expect(control.checkIn(index, seen: &seen[index]))
        }
        // Both are in the guest now, and nobody takes them out.
        let kicked = Mutex<Set<Int>>([])
        func pause() -> [Int] {
            control.pause(until: monotonicNanoseconds() + 20_000_000) { index in
                kicked.withLock { _ = $0.insert(index) }
            }
        }
        #expect(pause() == [0, 1])
        #expect(kicked.withLock { $0 } == [0, 1])
        control.finish(1)
        #expect(pause() == [0])
        control.finish(0)
        #expect(pause() == [])
        // Each of them is a pause that lasts.
        for _ in 0..<2 {
            control.resume()
            #expect(control.isPaused)
        }
        control.resume()
        #expect(!control.isPaused)
    }

    @Test func theEndReachesThosePaused() throws {
        let crew = Crew(3)
        try withWatchdog(seconds: 30, "an end during a pause") {
            try crew.start()
            crew.control.resume()
            crew.control.pause(kick: crew.kick)
            let before = crew.entryCount
            crew.control.end(.panicked, kick: crew.kick)
            crew.control.resume()
            crew.join()
            #expect(crew.entryCount == before, "nobody enters again")
            // After the end both return at once.
            crew.control.pause(kick: crew.kick)
            crew.control.resume()
        }
        #expect(crew.control.end == .panicked && !crew.control.isPaused)
    }

    @Test func anEndBeforeTheStartIsAnEnd() throws {
        let crew = Crew(2)
        try withWatchdog(seconds: 30, "an end before the start") {
            crew.control.end(.stopped, kick: crew.kick)
            crew.control.pause(kick: crew.kick)
            crew.control.resume()
            try crew.start()
            crew.join()
        }
        #expect(crew.entryCount == 0)
    }

    @Test func theFirstEndWins() throws {
        for round in 0..<50 {
            let crew = Crew(3)
            let winner = try withWatchdog(seconds: 60, "many ends") { () throws -> GuestEnd? in
                try crew.start()
                crew.control.resume()
                let first = Monitor<GuestEnd?>(nil)
                onThreads(4) { index in
                    crew.control.end(.exited(UInt8(index)), kick: crew.kick)
                    first.update { $0 = $0 ?? crew.control.end }
                }
                crew.join()
                return first.withLock { $0 }
            }
            #expect(winner != nil && crew.control.end == winner, "round \(round)")
            #expect(crew.endingCounter.value == 1)
            crew.control.end(.panicked, kick: crew.kick)
            #expect(crew.control.end == winner && crew.endingCounter.value == 1)
        }
    }

    /// A vCPU ends the guest by itself while others pause it: a pause never returns with somebody inside.
    @Test func pausesHoldWhileAGuestEndsByItself() throws {
        var random = SeededGenerator(for: "ends by vCPUs")
        for round in 0..<60 {
            let crew = Crew(4)
            try withWatchdog(seconds: 60, "pausing a guest that ends") {
                try crew.start(endingAfter: UInt64(round * 5))
                crew.control.resume()
                var last = false
                while !last {
                    // Mostly somebody leaves by itself and ends the guest while others are still inside.
                    usleep(UInt32.random(in: 0..<400, using: &random))
                    last = crew.control.end != nil
                    crew.control.pause(kick: crew.kick)
                    let before = crew.entryCount
                    #expect(!crew.anyInside, "round \(round)")
                    #expect(crew.entryCount == before)
                    crew.control.resume()
                }
                crew.join()
            }
            #expect(crew.endingCounter.value == 1)
        }
    }
}
