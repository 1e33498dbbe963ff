import Foundation
import Synchronization
import TestSupport
import LinuxHost
import Testing

/// The clock that tests' bounds count in.
@Suite(.serialized) struct PaceTests {
    @Test func itGoesOnAndNeverFasterThanTheWall() {
        let wall = ContinuousClock.now
        let start = Pace.now
        var last = start
        while last - start < 1.5 {
            let now = Pace.now
            #expect(now >= last)
            last = now
            usleep(1000)
        }
        #expect(ContinuousClock.now - wall >= .seconds(1.5))
        #expect(Pace.slowness >= 1)
        let pieces = (0..<20).map { _ in Pace.secondsOfWork() }.sorted()
        print(
            "pace: \(pieces[0] * 1000) ms a piece at best, \(pieces[10] * 1000) ms in the middle; \(Pace.description)"
        )
    }

    /// Threads that want to run are not the test's fault.
    @Test func itIsSlowWhereManyWantToRun() {
        let stop = Atomic(false)
        let count = 4 * ProcessInfo.processInfo.activeProcessorCount
        let group = DispatchGroup()
        for _ in 0..<count {
            group.enter()
            Thread.detachNewThread {
                while !stop.load(ordering: .relaxed) {}
                group.leave()
            }
        }
        defer {
            stop.store(true, ordering: .relaxed)
            group.wait()
        }
        #expect(eventually(within: 30) { Pace.slowness > 1.8 }, "\(Pace.description)")
    }
}
