import Foundation
import TestSupport
import Testing

@testable import Hypervisor
@testable import LinuxHost
@testable import Virtio

@Suite struct DeviceLoopTests {
    @Test func eventsAreServedOnceEachAndAgainWhenAskedFor() throws {
        let events = try EventLoop()
        let loop = try DeviceLoop(events)
        let event = try OwnedDescriptor.event()
        var left = 3
        var served = 0
        loop.serve(event) {
            served += 1
            left -= 1
            return left > 0
        }
        #expect(events.turn(until: monotonicNanoseconds()) == 0)
        event.signalEvent()
        event.signalEvent()
        while events.turn(until: monotonicNanoseconds()) > 0 {}
        #expect(served == 3, "once for both signals, and twice more as it asked")
    }

    /// A signal that comes while the gate is closed costs one look, not one a turn, and is served when it opens.
    @Test func whatComesDuringAPauseIsServedAfterIt() throws {
        let events = try EventLoop()
        let loop = try DeviceLoop(events)
        let first = try OwnedDescriptor.event()
        let second = try OwnedDescriptor.event()
        var served: [Int] = []
        loop.serve(first) {
            served.append(1)
            return false
        }
        loop.serve(second) {
            served.append(2)
            return false
        }
        loop.gate.waitUntilPaused(loop.gate.requestPause())
        first.signalEvent()
        #expect(events.turn() == 1)
        #expect(events.turn(until: monotonicNanoseconds() + 20_000_000) == 0, "no turn without end")
        second.signalEvent()
        #expect(events.turn() == 1)
        #expect(served.isEmpty)
        loop.gate.resume()
        while events.turn(until: monotonicNanoseconds()) > 0 {}
        #expect(served.sorted() == [1, 2])
    }
}
