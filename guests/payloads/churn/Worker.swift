import PayloadSupport
import Synchronization

/// One vCPU's work: its own slice of the pages, in up to 64 groups that go through their phases one after
/// another. All pages of a group are in the same state, so what every page must hold is known without a table
/// that could itself be damaged.
struct Worker {
    private let guest: Guest
    private let settings: ChurnSettings
    private let clock: TickClock
    private let pages: PageSet
    private let slice: Range<UInt64>
    private let groupCount: UInt64
    private var states = [64 of PageState](repeating: PageState())
    private(set) var tally = Tally()

    private var reader = LineReader()
    private var start: UInt64 = 0
    private var nextInput: UInt64 = 0
    /// Visits since `paceStart`, for the rate.
    private var visits: UInt64 = 0
    private var paceStart: UInt64 = 0

    init(_ guest: Guest, _ settings: ChurnSettings, _ clock: TickClock) {
        self.guest = guest
        self.settings = settings
        self.clock = clock
        pages = guest.freePages
        slice = guest.slice(of: settings.pageCount)
        groupCount = min(64, slice.upperBound - slice.lowerBound)
    }

    /// Writes every page once.
    mutating func firstPass() {
        for group in 0..<groupCount { visit(group, .write, isPaced: false) }
    }

    /// Goes round until the time is over or the line `exit` comes.
    mutating func run() {
        start = TickClock.now
        paceStart = start
        nextInput = start
        while !isOver() {
            for group in 0..<groupCount where !isOver() { visit(group, phase(of: group), isPaced: true) }
        }
    }

    /// Checks every page once more.
    mutating func lastPass() {
        for group in 0..<groupCount { visit(group, .check, isPaced: false) }
    }
}

// MARK: Phases

extension Worker {
    private enum Phase {
        case check, write, writeCommon
    }

    /// Groups rest in turns: each for `rest` milliseconds, then is written for as long as its share demands.
    private func phase(of group: UInt64) -> Phase {
        let isCommon = states[Int(group)].isCommon
        guard rests(group) else { return .write }
        return isCommon ? .check : .writeCommon
    }

    private func rests(_ group: UInt64) -> Bool {
        if settings.commonShare == 0 { return false }
        let rest = clock.ticks(milliseconds: settings.restMilliseconds)
        // Divided first: an hour's ticks times a million exceed 64 bits.
        let period = rest / settings.commonShare * 1_000_000
        let offset = period / groupCount * group
        return (TickClock.now &- start &+ offset) % max(1, period) < rest
    }

    private mutating func visit(_ group: UInt64, _ phase: Phase, isPaced: Bool) {
        let old = states[Int(group)]
        var new = old
        if phase != .check {
            new.sequence += 1
            new.isCommon = phase == .writeCommon
        }
        for number in stride(from: slice.lowerBound + group, to: slice.upperBound, by: Int(groupCount)) {
            let address = pages.address(of: number)
            let stamp = Stamp(guest, page: number, address: address)
            if old.sequence > 0 { check(stamp, old, address) }
            if phase != .check {
                stamp.write(new)
                tally.writes += 1
            }
            if isPaced { pace() }
        }
        states[Int(group)] = new
    }

    private mutating func check(_ stamp: Stamp, _ state: PageState, _ address: UInt64) {
        tally.checks += 1
        let verdict = stamp.check(state)
        if verdict == .right { return }
        let name: StaticString
        switch verdict {
        case .right: return
        case .lost:
            tally.lost += 1
            name = "LOST"
        case .torn:
            tally.torn += 1
            name = "TORN"
        case .foreign:
            tally.foreign += 1
            name = "FOREIGN"
        }
        if tally.bad <= 4 {
            say("churn: \(name) page=\(hex: address) vcpu=\(guest.vcpu) sequence=\(state.sequence)")
        }
        // Counted once: from here on the page is as it should be.
        stamp.write(state)
    }
}

// MARK: Time

extension Worker {
    /// After each visit: waits until the next one is due. Stopping ends the wait.
    private mutating func pace() {
        visits += 1
        if settings.rate == 0 { return listen() }
        let due = paceStart + visits * 1000 / settings.rate * (clock.frequency / 1000)
        while !isOver() {
            let now = TickClock.now
            if now >= due || now < paceStart {
                if now < due || now - due > clock.ticks(milliseconds: 100) {
                    // The host held this vCPU, or moved its clock back: go on from here.
                    paceStart = now
                    visits = 0
                }
                return
            }
            let wait = min(clock.nanoseconds(due - now) / 1000, 50_000)
            if wait >= 100 { sleep(microseconds: UInt32(wait)) }
        }
    }

    /// Has the leading vCPU said stop? That one looks at the clock and, every 50 ms, at the serial line.
    private mutating func isOver() -> Bool {
        if guest.leads { listen() }
        return Totals.isStopping.load(ordering: .relaxed)
    }

    private mutating func listen() {
        guard guest.leads else { return }
        let now = TickClock.now
        // After a snapshot the counter may be earlier: the time begins anew.
        if now < start { (start, nextInput) = (now, now) }
        if now < nextInput { return }
        nextInput = now + clock.ticks(milliseconds: 50)
        if settings.seconds > 0 && now - start >= clock.ticks(milliseconds: settings.seconds * 1000) {
            Totals.isStopping.store(true, ordering: .relaxed)
        }
        while let line = reader.poll() {
            if case "exit" = line {
                Totals.isStopping.store(true, ordering: .relaxed)
            } else {
                say("churn: unknown command \(line): expected exit")
            }
        }
    }
}
