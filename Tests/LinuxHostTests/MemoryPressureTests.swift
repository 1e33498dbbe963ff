import LinuxHost
import Testing

/// Readings as they might be, seconds apart as said.
private struct Host {
    var pressure = MemoryPressure()
    var seconds = 100.0
    var stalls = MemoryStalls(someMicroseconds: 5, fullMicroseconds: 5)
    /// 10 GiB, of which 1 % is reserve.
    var bound = MemoryBound(totalBytes: 10 << 30, availableBytes: 8 << 30)
    var hasStalls = true

    init() { look() }

    mutating func look(after passed: Double = 1, some: Double = 0, full: Double = 0) {
        seconds += passed
        stalls.someMicroseconds += UInt64(some * passed * 1e6)
        stalls.fullMicroseconds += UInt64(full * passed * 1e6)
        pressure.take(
            MemoryPressure.Reading(
                time: UInt64(seconds * 1e9), stalls: hasStalls ? stalls : nil, bounds: [bound]))
    }
}

@Suite("How short memory is") struct MemoryPressureTests {
    @Test("stalls raise the level at once; it falls after five calm seconds, to what was seen in them")
    func stalls() {
        var host = Host()
        #expect(host.pressure.level == .none)
        host.look(some: 0.09, full: 0.09)
        #expect(host.pressure.level == .none)
        host.look(some: 0.3, full: 0.05)
        #expect(host.pressure.level == .some)
        host.look(some: 0.5, full: 0.2)
        #expect(host.pressure.level == .full)
        for _ in 0..<5 {
            host.look(some: 0.2)
            #expect(host.pressure.level == .full)
        }
        host.look()
        #expect(host.pressure.level == .some)
        // Once in the calm something stalls: it begins again.
        for _ in 0..<4 { host.look() }
        host.look(some: 0.2)
        for _ in 0..<5 {
            host.look()
            #expect(host.pressure.level == .some)
        }
        host.look()
        #expect(host.pressure.level == .none)
    }

    @Test("readings in quick succession are not compared with each other")
    func quick() {
        var host = Host()
        for _ in 0..<50 { host.look(after: 0.02, some: 0.05) }
        #expect(host.pressure.level == .none)
        // 1 ms of stall in 2 ms, as the notice of a trigger may find: a quarter of a second says more.
        host.look(after: 0.002, some: 0.5)
        #expect(host.pressure.level == .none)
        host.look(after: 0.25, some: 0.5)
        #expect(host.pressure.level == .some)
    }

    @Test("without the kernel's account, what is left and hits of a group's limit tell")
    func leftOver() {
        var host = Host()
        host.hasStalls = false
        let reserve = host.bound.reserveBytes
        #expect(reserve == (10 << 30) / 100)
        host.bound.availableBytes = 2 * reserve
        host.look()
        #expect(host.pressure.level == .none)
        host.bound.availableBytes -= 1
        host.look()
        #expect(host.pressure.level == .some)
        host.bound.availableBytes = reserve - 1
        host.look()
        #expect(host.pressure.level == .full)
        host.bound.availableBytes = 8 << 30
        for _ in 0..<6 { host.look() }
        #expect(host.pressure.level == .none)
        host.bound.limitHits += 1
        host.look()
        #expect(host.pressure.level == .some)
    }

    @Test(
        "merges are held under full pressure if what is owed could not be had, or was promised without being there"
    )
    func holding() {
        var host = Host()
        host.look(some: 0.5)
        #expect(!host.pressure.holdsMerges(owedBytes: .max, overcommits: true))
        host.look(some: 0.5, full: 0.5)
        #expect(host.pressure.holdsMerges(owedBytes: 0, overcommits: true))
        #expect(host.pressure.holdsMerges(owedBytes: (8 << 30) + 1, overcommits: false))
        #expect(!host.pressure.holdsMerges(owedBytes: 8 << 30, overcommits: false))
        for _ in 0..<6 { host.look() }
        #expect(!host.pressure.holdsMerges(owedBytes: .max, overcommits: true))
    }

    @Test("exhausted is below the reserve, swap counted, until twice as much was there for two seconds")
    func exhaustion() {
        var host = Host()
        let reserve = host.bound.reserveBytes
        host.bound.availableBytes = reserve - 1
        host.bound.swapFreeBytes = 1
        host.look()
        #expect(!host.pressure.isExhausted)
        host.bound.swapFreeBytes = 0
        host.look()
        #expect(host.pressure.isExhausted && !host.pressure.isCritical)
        host.bound.availableBytes = reserve / 4 - 1
        host.look()
        #expect(host.pressure.isCritical)
        host.bound.availableBytes = 2 * reserve - 1
        for _ in 0..<9 { host.look() }
        #expect(host.pressure.isExhausted && !host.pressure.isCritical)
        host.bound.availableBytes += 1
        host.look()
        host.look()
        #expect(host.pressure.isExhausted)
        // Less for a moment: the two seconds begin again.
        host.bound.availableBytes -= 1
        host.look()
        host.bound.availableBytes += 1
        host.look()
        host.look()
        #expect(host.pressure.isExhausted)
        host.look()
        #expect(!host.pressure.isExhausted)
    }

    @Test("an exhausted host pauses who takes more of it; all, when next to nothing is left")
    func pausing() {
        var host = Host()
        var quiet = MemoryPause()
        var growing = MemoryPause()
        var held: UInt64 = 1 << 30
        func update() {
            quiet.update(host.pressure, heldBytes: 1 << 30)
            growing.update(host.pressure, heldBytes: held)
        }
        for _ in 0..<10 {
            held += 100 << 20
            update()
        }
        #expect(!growing.isPaused)
        let reserve = host.bound.reserveBytes
        host.bound.availableBytes = reserve - 1
        host.look()
        // Little by little is too much, too, in the end.
        for _ in 0..<4 {
            update()
            #expect(!growing.isPaused)
            held += MemoryPause.tolerance / 4
        }
        held += 4096
        update()
        #expect(growing.isPaused && !quiet.isPaused)
        host.bound.availableBytes = reserve / 5
        host.look()
        update()
        #expect(growing.isPaused && quiet.isPaused)
        host.bound.availableBytes = reserve * 2
        for _ in 0..<3 {
            #expect(growing.isPaused && quiet.isPaused)
            host.look()
            update()
        }
        #expect(!growing.isPaused && !quiet.isPaused)
    }

    @Test("the bound of which the least is left counts, and is looked at the more often the less that is")
    func tightest() {
        var pressure = MemoryPressure()
        #expect(pressure.interval(overcommits: true) == 1_000_000_000)
        let host = MemoryBound(totalBytes: 64 << 30, availableBytes: 32 << 30)
        var group = MemoryBound(group: "/g", totalBytes: 1 << 30, availableBytes: 512 << 20)
        pressure.take(MemoryPressure.Reading(time: 1, stalls: nil, bounds: [host, group]))
        #expect(pressure.tightest == group)
        #expect(pressure.interval(overcommits: false) == 1_000_000_000)
        #expect(pressure.interval(overcommits: true) == (512 - 64) << 18)
        group.availableBytes = 1 << 20
        pressure.take(MemoryPressure.Reading(time: 2, stalls: nil, bounds: [host, group]))
        #expect(pressure.level == .full && pressure.isExhausted)
        #expect(pressure.interval(overcommits: true) == 20_000_000)
    }
}
