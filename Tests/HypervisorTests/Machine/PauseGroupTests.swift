import Foundation
import Synchronization
import TestSupport
import Testing

@testable import LinuxHost
@testable import Hypervisor

/// A device's worker that writes all the time, and stops when it is asked.
private final class Worker: PauseMember {
    private struct State {
        var depth = 0
        var isWriting = false
        var isOver = false
    }
    private let state = Monitor(State())
    /// How long a write takes, nanoseconds.
    private let length: UInt64
    private let name: String
    private let thread = Mutex<HostThread?>(nil)

    init(_ name: String, length: UInt64) { (self.name, self.length) = (name, length) }

    var isWriting: Bool { state.withLock { $0.isWriting } }

    func start() throws {
        let own = try HostThread(name: name) { [self] in
            while true {
                let goesOn = state.wait { state -> Bool? in
                    if state.isOver { return false }
                    guard state.depth == 0 else { return nil }
                    state.isWriting = true
                    return true
                }
                guard goesOn == true else { return }
                sleepNanoseconds(length)
                state.update { $0.isWriting = false }
            }
        }
        thread.withLock { $0 = own }
    }

    func end() {
        state.update { $0.isOver = true }
        thread.withLock { $0.take() }?.join()
    }

    func requestPause() -> UInt64 {
        state.update { $0.depth += 1 }
        return 0
    }
    func waitUntilPaused(_ request: UInt64) {
        let _: Void? = state.wait { $0.isWriting ? nil : () }
    }
    func resume() { state.update { $0.depth -= 1 } }

    private func sleepNanoseconds(_ time: UInt64) {
        let until = monotonicNanoseconds() + time
        let _: Bool? = state.wait(until: until) { $0.isOver ? true : nil }
    }
}

@Suite struct PauseGroupTests {
    @Test func nobodyWritesBetweenPauseAndResume() throws {
        let workers = [Worker("quick", length: 50_000), Worker("slow", length: 2_000_000)]
        let group = PauseGroup(workers)
        for worker in workers { try worker.start() }
        defer { for worker in workers { worker.end() } }
        // Two controllers, whose pauses nest in any order.
        let other = try HostThread(name: "other") {
            for _ in 0..<50 {
                group.pause()
                #expect(workers.allSatisfy { !$0.isWriting })
                group.resume()
            }
        }
        for _ in 0..<50 {
            group.pause()
            #expect(workers.allSatisfy { !$0.isWriting })
            group.pause()
            group.resume()
            #expect(workers.allSatisfy { !$0.isWriting }, "one pause is still held")
            group.resume()
        }
        other.join()
        #expect(eventually(within: 30) { workers.allSatisfy(\.isWriting) }, "and all go on")
    }

    @Test func everyMemberIsAskedBeforeTheFirstIsWaitedFor() {
        let order = Mutex<[String]>([])
        final class Recorder: PauseMember {
            let name: String
            let body: @Sendable (String) -> Void
            init(_ name: String, _ body: @escaping @Sendable (String) -> Void) {
                (self.name, self.body) = (name, body)
            }
            func requestPause() -> UInt64 {
                body("ask \(name)")
                return UInt64(name.utf8.count)
            }
            func waitUntilPaused(_ request: UInt64) { body("wait \(name) \(request)") }
            func resume() { body("resume \(name)") }
        }
        let write: @Sendable (String) -> Void = { text in order.withLock { $0.append(text) } }
        let group = PauseGroup([Recorder("a", write), Recorder("bb", write)])
        group.pause()
        group.resume()
        #expect(
            order.withLock { $0 }
                == ["ask a", "ask bb", "wait a 1", "wait bb 2", "resume bb", "resume a"])
    }
}

@Suite struct WriterGateTests {
    @Test func nothingBeginsWhileItIsClosed() throws {
        let reopened = Atomic(0)
        let gate = WriterGate { reopened.add(1, ordering: .relaxed) }
        var done = 0
        #expect(gate.run { done += 1 })
        gate.waitUntilPaused(gate.requestPause())
        #expect(!gate.run { done += 1 })
        gate.waitUntilPaused(gate.requestPause())
        gate.resume()
        #expect(!gate.run { done += 1 }, "one pause is still held")
        var told: Int { reopened.load(ordering: .relaxed) }
        #expect(told == 0)
        gate.resume()
        #expect(told == 1, "somebody found it closed")
        #expect(gate.run { done += 1 })
        #expect(done == 2)
        // Nobody came meanwhile: nobody has to be told.
        gate.waitUntilPaused(gate.requestPause())
        gate.resume()
        #expect(told == 1)
    }

    @Test func aPauseWaitsForWhoIsInside() throws {
        let gate = WriterGate {}
        let isInside = Atomic(false)
        let isOver = Atomic(false)
        let worker = try HostThread(name: "worker") {
            while !isOver.load(ordering: .relaxed) {
                _ = gate.run {
                    isInside.store(true, ordering: .sequentiallyConsistent)
                    usleep(300)
                    isInside.store(false, ordering: .sequentiallyConsistent)
                }
            }
        }
        for _ in 0..<200 {
            gate.waitUntilPaused(gate.requestPause())
            let before = isInside.load(ordering: .sequentiallyConsistent)
            usleep(100)
            let after = isInside.load(ordering: .sequentiallyConsistent)
            #expect(!before && !after)
            gate.resume()
        }
        isOver.store(true, ordering: .relaxed)
        worker.join()
    }
}
