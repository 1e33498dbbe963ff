import Foundation
import Synchronization
import TestSupport
import Testing

@testable import LinuxHost

@Suite struct MonitorTests {
    @Test func aWaitEndsAtItsDeadline() {
        let monitor = Monitor(0)
        let before = monotonicNanoseconds()
        let result: Bool? = monitor.wait(until: before + 30_000_000) { _ in nil }
        #expect(result == nil)
        #expect(monotonicNanoseconds() - before >= 30_000_000)
        // A deadline that has passed still looks once.
        #expect(monitor.wait(until: 0) { $0 == 0 ? "yes" : nil } == "yes")
        #expect(monitor.wait(until: 0) { $0 == 1 ? "yes" : nil } == nil)
    }

    @Test func anUpdateWakesEveryWaiter() {
        let monitor = Monitor(0)
        let woken = Atomic(0)
        withWatchdog(seconds: 30, "waiters") {
            onThreads(5) { index in
                if index == 0 {
                    for step in 1...100 { monitor.update { $0 = step } }
                } else {
                    let value = monitor.wait { $0 == 100 ? $0 : nil }
                    if value == 100 { woken.add(1, ordering: .relaxed) }
                }
            }
        }
        #expect(woken.load(ordering: .relaxed) == 4)
    }

    /// Two threads take turns: each sees what the other wrote while it waited.
    @Test func aWaiterSeesWhatOthersChangedMeanwhile() {
        let monitor = Monitor(0)
        withWatchdog(seconds: 30, "taking turns") {
            onThreads(2) { index in
                for turn in 0..<1000 {
                    _ = monitor.wait { state in
                        guard state == turn * 2 + index else { return nil as Bool? }
                        state += 1
                        monitor.wakeAll()
                        return true
                    }
                }
            }
        }
        #expect(monitor.withLock { $0 } == 2000)
    }

    @Test func errorsComeThroughAndReleaseTheLock() {
        let monitor = Monitor(1)
        #expect(throws: LinuxError.self) {
            try monitor.withLock { _ throws(LinuxError) in throw LinuxError(operation: "x", code: 1) }
        }
        #expect(monitor.withLock { $0 } == 1)
    }
}

@Suite struct HostThreadTests {
    @Test func joinWaitsForTheEnd() throws {
        let done = Atomic(false)
        let thread = try HostThread(name: "join") {
            usleep(30_000)
            done.store(true, ordering: .sequentiallyConsistent)
        }
        thread.join()
        let isDone = done.load(ordering: .sequentiallyConsistent)
        #expect(isDone)
        // Harmless when the thread has gone.
        thread.kick()
    }

    @Test func aKickInterruptsABlockingRead() throws {
        var ends: [Int32] = [0, 0]
        try #require(pipe(&ends) == 0)
        let reader = OwnedDescriptor(adopting: ends[0])
        let writer = OwnedDescriptor(adopting: ends[1])
        let number = reader.number
        let outcome = Monitor<Int32?>(nil)
        try withWatchdog(seconds: 30, "a kicked read") {
            let thread = try HostThread(name: "reader", interruptible: true) {
                var byte: UInt8 = 0
                let got = read(number, &byte, 1)
                let code = got < 0 ? errno : 0
                outcome.update { $0 = code }
            }
            // A kick before the read begins is lost, so it is repeated, as the users of threads do.
            while outcome.wait(until: monotonicNanoseconds() + 5_000_000, { $0 }) == nil { thread.kick() }
            thread.join()
        }
        #expect(outcome.withLock { $0 } == EINTR)
        #expect(writer.number >= 0)
    }

    @Test func threadsHaveNamesAndBlockOtherSignals() throws {
        let found = Monitor<(String, Bool)?>(nil)
        let thread = try HostThread(name: "named") {
            var name = ""
            // The creator names the thread after it has begun.
            for _ in 0..<1000 where name != "named\n" {
                name = (try? String(contentsOfFile: "/proc/thread-self/comm", encoding: .utf8)) ?? ""
                usleep(1000)
            }
            var mask = sigset_t()
            pthread_sigmask(SIG_SETMASK, nil, &mask)
            let blocked = sigismember(&mask, SIGTERM) == 1
            found.update { [name] in $0 = (name, blocked) }
        }
        thread.join()
        let result = found.withLock { $0 }
        #expect(result?.0 == "named\n")
        #expect(result?.1 == true)
    }

    @Test func aStackThatCannotBeIsAnError() {
        #expect(throws: LinuxError(operation: "pthread_create", code: EINVAL, subject: "tiny")) {
            try HostThread(name: "tiny", stackSizeInBytes: 1) {}
        }
    }
}
