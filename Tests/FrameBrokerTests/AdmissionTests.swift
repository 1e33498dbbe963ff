import Foundation
import GuestMemory
@testable import LinuxHost
import Testing
import TestSupport

@testable import FrameBroker

/// Who gets a place, and how much memory.
@Suite struct AdmissionTests {
    typealias Strangers = StrangerPlaces<Int>
    private func stranger(_ number: UInt32, _ process: Int, observes: Bool = false, known: Bool = false)
        -> Strangers.Stranger
    {
        .init(number: number, process: process, isObserver: observes, isKnown: known)
    }

    @Test func aProcessThatHasItsShareGivesItsOwnPlace() {
        let places = Strangers(places: 64, placesOfProcess: 4)
        var there = [stranger(1, 9)] + (2...4).map { stranger($0, 1) }
        #expect(places.victim(for: stranger(9, 1), among: there) == nil)
        there.append(stranger(5, 1))
        #expect(places.victim(for: stranger(9, 1), among: there) == 2, "its own oldest")
        #expect(places.victim(for: stranger(9, 2), among: there) == nil)
    }

    @Test func whenPlacesAreScarceWhoHasMostGivesWayAndFirstWhoSaidNothing() {
        let places = Strangers(places: 6, placesOfProcess: 4)
        var there = [stranger(1, 1), stranger(2, 2), stranger(3, 2, observes: true), stranger(4, 3)]
        #expect(places.victim(for: stranger(9, 4), among: there) == nil)
        there += [stranger(5, 3, observes: true), stranger(6, 3)]
        #expect(places.victim(for: stranger(9, 4), among: there) == 4)
        // Those that asked for figures go as well, after the others.
        let observers = (1...6).map { stranger($0, Int($0) % 3, observes: $0 != 5) }
        #expect(places.victim(for: stranger(9, 4), among: observers) == 5)
        let all = (1...6).map { stranger($0, Int($0), observes: true) }
        #expect(places.victim(for: stranger(9, 7), among: all) == 1)
    }

    /// With few descriptors there are few places for strangers as well, so that some are left for clients.
    @Test(arguments: [64, 100, 128, 256, 1024, 16384]) func placesFitTheDescriptors(_ descriptors: Int) {
        var limits = BrokerLimits()
        limits.fit(descriptors: descriptors)
        #expect(limits.strangers >= 4 && limits.clients >= 4 && limits.strangersOfProcess <= limits.strangers)
        #expect(limits.strangers * 4 + limits.clients * 2 + 24 <= descriptors)
        #expect(descriptors < 16384 || limits.strangers == 64 && limits.clients == 1024)
    }

    /// A list of poll(2) may have no more entries than files may be open.
    @Test func whatIsNoDescriptorTakesNoPlace() throws {
        let pair = try PacketSocket.pair()
        #expect(pair.first.send([1]) == .done)
        var list = PollList()
        #expect(list.add(-1, Int16(POLLIN)) == nil)
        let quiet = list.add(pair.first.descriptor.number, Int16(POLLIN))
        let loud = list.add(pair.second.descriptor.number, Int16(POLLIN))
        list.wait(milliseconds: 10_000)
        #expect(list.events(quiet) == 0 && list.events(loud) == Int16(POLLIN) && list.events(nil) == 0)
    }

    @Test func placesAreKeptForWhoIsKnown() {
        let places = Strangers(places: 3, placesOfProcess: 4)
        let crowd = (1...3).map { stranger($0, Int($0)) }
        #expect(places.victim(for: stranger(9, 4), among: crowd) == 1)
        #expect(places.victim(for: stranger(9, 4, known: true), among: crowd) == nil)
        let both = crowd + (4...6).map { stranger($0, Int($0), known: true) }
        #expect(places.victim(for: stranger(9, 9, known: true), among: both) == 4)
    }

    @Test func aPlaceIsForAnOpenAndAClosedConnection() {
        var places = ClientPlaces<Int>(places: 8, placesOfProcess: 3)
        #expect(places.refusal(of: 1) == nil)
        places.count(1, isOpen: true)
        places.count(1, isOpen: false)
        for process in 2...8 { places.count(process, isOpen: false) }
        #expect(places.refusal(of: 9)?.contains("all 8 places") == true)
        // Who was there may come back, once.
        #expect(places.refusal(of: 5) == nil)
        places.count(5, isOpen: true)
        #expect(places.refusal(of: 5)?.contains("all 8 places") == true)
        // Coming and going does not get it more.
        var restless = ClientPlaces<Int>(places: 100, placesOfProcess: 3)
        for _ in 0..<6 {
            #expect(restless.refusal(of: 1) == nil)
            restless.count(1, isOpen: false)
        }
        #expect(restless.refusal(of: 1)?.contains("more than 3") == true)
    }

    @Test func oneProcessDoesNotTakeTheLastPlaces() {
        var places = ClientPlaces<Int>(places: 100, placesOfProcess: 64)
        var taken = 0
        for process in 1...3 {
            while places.refusal(of: process) == nil {
                places.count(process, isOpen: true)
                taken += 1
            }
        }
        #expect(taken < 60 && places.refusal(of: 1)?.contains("are left") == true)
        // The others get theirs.
        for process in 4..<(104 - taken) {
            #expect(places.refusal(of: process) == nil)
            places.count(process, isOpen: true)
        }
        #expect(places.refusal(of: 1000)?.contains("all 100 places") == true)
        var many = ClientPlaces<Int>(places: 1024, placesOfProcess: 3)
        for _ in 0..<3 { many.count(1, isOpen: true) }
        #expect(many.refusal(of: 1)?.contains("more than 3") == true)
    }

    // MARK: memory

    private func bound(_ total: UInt64, _ available: UInt64, swap: UInt64 = 0) -> MemoryBound {
        MemoryBound(totalBytes: total << 20, availableBytes: available << 20, swapFreeBytes: swap << 20)
    }

    @Test func whatMayBeKnownFollowsWhatWasHeld() {
        #expect(MemoryAllowance.pages(peakBytes: 14 << 20, .none) == 1024 + 4 * 3584)
        #expect(MemoryAllowance.pages(peakBytes: 14 << 20, .some) == 256 + 3584)
        #expect(MemoryAllowance.pages(peakBytes: 1 << 40, .full) == 0)
    }

    @Test func shortageIsOfTheTightestBound() {
        #expect(MemoryAllowance.shortage([]) == .none)
        // The reserve of 8 GiB is 81 MiB.
        #expect(MemoryAllowance.shortage([bound(8192, 4000)]) == .none)
        #expect(MemoryAllowance.shortage([bound(8192, 150)]) == .some)
        #expect(MemoryAllowance.shortage([bound(8192, 10)]) == .full)
        #expect(MemoryAllowance.shortage([bound(8192, 10, swap: 500)]) == .some)
        #expect(MemoryAllowance.shortage([bound(8192, 4000), bound(512, 100)]) == .some)
        #expect(MemoryAllowance.frames([bound(8192, 4000), bound(512, 100)]) == 512 * 256 / 2)
        #expect(MemoryAllowance.frames([]) > 1 << 40)
        #expect(MemoryAllowance.validity([bound(8192, 4000)]) == 500_000_000)
        #expect(MemoryAllowance.validity([bound(8192, 82)]) == 20_000_000)
    }

    @Test func theHostIsLookedAtNowAndThen() throws {
        let folder = try TemporaryDirectory()
        func say(available: Int) throws {
            try FileManager.default.createDirectory(
                atPath: folder.path("proc"), withIntermediateDirectories: true)
            try "MemTotal: 8388608 kB\nMemAvailable: \(available) kB\nSwapFree: 0 kB\n".write(
                toFile: folder.path("proc/meminfo"), atomically: true, encoding: .utf8)
        }
        var watch = HostMemoryWatch(root: folder.path)
        try say(available: 4_000_000)
        watch.look(1)
        #expect(watch.shortage == .none && watch.frames == 1 << 20)
        try say(available: 10_000)
        watch.look(400_000_000)
        #expect(watch.shortage == .none, "it was looked at a moment ago")
        watch.look(500_000_001)
        #expect(watch.shortage == .full)
        try say(available: 100_000)
        watch.look(520_000_001)
        #expect(watch.shortage == .some)
    }

    @Test func thePeakIsTheKernelsCount() throws {
        let own = try #require(ProcessPeak.bytes(of: getpid()))
        let status = try #require(SystemCall.text(of: "/proc/self/status"))
        let now = try #require(SmallFile.table(status)["VmHWM"]) << 10
        #expect(own > 1 << 20 && own <= now)
        #expect(ProcessPeak.bytes(of: -1) == nil)
    }
}
