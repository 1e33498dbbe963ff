import Machine
import PayloadSupport

/// Counts how much work gets done while the host merges other parts of this guest's memory.
@c(payload_main)
public func main(information: UInt64, vcpu: UInt64) {
    let guest = Guest("work", information: information, vcpu: vcpu)
    var work = Work(guest)
    if guest.leads { work.run() }
}

struct Work {
    enum Kind {
        case cpu, memory, write

        var name: StaticString {
            switch self {
            case .cpu: "cpu"
            case .memory: "memory"
            case .write: "write"
            }
        }
    }

    /// The word that timed writes go to, and what they write.
    private static let writtenWord: UInt64 = 17
    private static let mark: UInt64 = 0x4D49_4E47_4C45_2121

    private let guest: Guest
    private let all: PageSet
    private let clock: TickClock
    private var kind = Kind.cpu
    private var pages: UInt64 = 4096
    private var rate: UInt64 = 500
    private var seconds: UInt64 = 5
    /// Pages a second that are written for the first time, and how many were.
    private var fresh: UInt64 = 0
    private var freshCount: UInt64 = 0
    private var state: UInt64 = 1
    private var start: UInt64 = 0

    init(_ guest: Guest) {
        self.guest = guest
        all = guest.freePages
        clock = TickClock(guest)
        var arguments = Arguments(guest)
        while let argument = arguments.next() {
            switch argument.key {
            case "kind": kind = Work.kind(argument)
            case "pages": pages = argument.decimal(in: 1...all.count)
            case "rate": rate = argument.decimal(in: 1...1_000_000)
            case "seconds": seconds = argument.decimal(in: 1...86_400)
            case "fresh": fresh = argument.decimal(in: 0...1_000_000)
            default: argument.refuseKey()
            }
        }
        if kind == .cpu { pages = 0 }
        if pages > all.count { guest.fail("\(pages) pages are needed, there are \(all.count)") }
    }

    private static func kind(_ argument: Argument) -> Kind {
        switch argument.value {
        case "cpu": return .cpu
        case "memory": return .memory
        case "write": return .write
        default: argument.refuse("cpu, memory or write")
        }
    }

    mutating func run() -> Never {
        for number in 0..<pages {
            let address = all.address(of: number)
            (kind == .memory ? PageContent.unique(guest, at: address) : .common(at: address)).write(
                to: address)
        }
        say("work: ready kind=\(kind.name) pages=\(pages)")
        ringDoorbell(1)
        waitForGo()
        start = TickClock.now
        switch kind {
        case .cpu, .memory: measure()
        case .write: measureWrites()
        }
        guest.sleepForEver()
    }

    private func waitForGo() {
        var reader = LineReader()
        while true {
            if let line = reader.poll(), case "go" = line { return }
            sleep(microseconds: 10_000)
        }
    }
}

// MARK: Throughput

extension Work {
    private var ticks: UInt64 { TickClock.now &- start }

    private mutating func measure() {
        let end = clock.ticks(milliseconds: seconds * 1000)
        var done: UInt64 = 0
        while ticks < end {
            if kind == .cpu { compute() } else { access() }
            done += 1
            refresh()
        }
        report(done)
    }

    private mutating func compute() {
        for _ in 0..<1024 { state = mixed(state) }
    }

    private mutating func access() {
        for step in 0..<UInt64(256) {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let word = (state >> 32) % (pages * PageContent.wordCount)
            let address = all.address(of: word / PageContent.wordCount) + word % PageContent.wordCount * 8
            let value = machine_load64(address)
            if step % 8 == 0 { machine_store64(address, value &+ 1) } else { state ^= value }
        }
    }

    /// Writes one more new page if it is due.
    private mutating func refresh() {
        if fresh == 0 || pages + freshCount >= all.count { return }
        if ticks / (clock.frequency / 1000) * fresh / 1000 <= freshCount { return }
        let address = all.address(of: pages + freshCount)
        PageContent.common(at: address).write(to: address)
        freshCount += 1
    }

    private func report(_ done: UInt64) {
        say("work: kind=\(kind.name) done=\(done) us=\(clock.nanoseconds(ticks) / 1000) fresh=\(freshCount)")
    }
}

// MARK: Single writes

extension Work {
    private mutating func measureWrites() {
        let end = clock.ticks(milliseconds: seconds * 1000)
        let pause = clock.frequency / rate
        let scatter = Scatter(count: pages)
        var latencies = Latencies()
        var due: UInt64 = 0
        while ticks < end {
            refresh()
            if ticks < due { continue }
            due = max(due + pause, ticks)
            let page = all.address(of: scatter.position(of: latencies.count % pages))
            let address = page + Work.writtenWord * 8
            let before = TickClock.now
            machine_store64(address, Work.mark)
            let after = TickClock.now
            latencies.record(after &- before)
            machine_store64(address, PageContent.common(at: page).word(Work.writtenWord))
        }
        report(latencies.count)
        func nanoseconds(_ thousandths: UInt64) -> UInt64 {
            clock.nanoseconds(latencies.quantile(thousandths: thousandths))
        }
        say(
            "work: write p50_ns=\(nanoseconds(500)) p99_ns=\(nanoseconds(990)) p999_ns=\(nanoseconds(999)) max_ns=\(clock.nanoseconds(latencies.maximum))"
        )
        verify()
    }

    private func verify() {
        var bad: UInt64 = 0
        for number in 0..<pages {
            let address = all.address(of: number)
            if !PageContent.common(at: address).matches(address) { bad += 1 }
        }
        if bad > 0 {
            say("work: verify FAILED bad=\(bad)")
            guest.exit(1)
        }
        say("work: verify ok")
    }
}
