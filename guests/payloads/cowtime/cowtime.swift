import Machine
import PayloadSupport

/// Measures what the first read and the first write of a page cost after the host has had time to merge.
@c(payload_main)
public func main(information: UInt64, vcpu: UInt64) {
    let guest = Guest("cowtime", information: information, vcpu: vcpu)
    let experiment = Experiment(guest)
    if guest.leads { experiment.run() }
}

struct Experiment {
    enum Class {
        case zero, common, unique

        var name: StaticString {
            switch self {
            case .zero: "zero"
            case .common: "common"
            case .unique: "unique"
            }
        }
    }

    /// What the measurement writes, as the word `writtenWord` of a page.
    private static let mark: UInt64 = 0x4D49_4E47_4C45_2121
    private static let writtenWord: UInt64 = 17

    private let guest: Guest
    private let pages: PageSet
    private var zero: UInt64 = 2048
    private var common: UInt64 = 2048
    private var unique: UInt64 = 2048
    /// Seconds to wait for `go`; nil: for ever.
    private var delay: UInt64?
    private var isScattered = true
    private var staysUp = false

    init(_ guest: Guest) {
        self.guest = guest
        pages = guest.freePages
        let limit: UInt64 = 1 << 24
        var arguments = Arguments(guest)
        while let argument = arguments.next() {
            switch argument.key {
            case "zero": zero = argument.decimal(in: 0...limit)
            case "common": common = argument.decimal(in: 0...limit)
            case "unique": unique = argument.decimal(in: 0...limit)
            case "delay": delay = argument.decimal(in: 0...86_400)
            case "order": isScattered = argument.choice("sequential", "scattered")
            case "after": staysUp = argument.choice("exit", "sleep")
            default: argument.refuseKey()
            }
        }
        let needed = zero + common + unique + samplePageCount
        if needed > pages.count {
            guest.fail("\(needed) pages are needed (with those for the samples), there are \(pages.count)")
        }
    }

    func run() -> Never {
        write(.zero)
        write(.common)
        write(.unique)
        say("cowtime: ready zero=\(zero) common=\(common) unique=\(unique)")
        ringDoorbell(1)
        waitForGo()
        let clock = TickClock(guest)
        say("cowtime: tsc_hz=\(clock.frequency) overhead_ns=\(clock.nanoseconds(overhead()))")
        var samples = Samples(pages, first: zero + common + unique, count: samplePageCount * 512)
        measure(.zero, clock, &samples)
        measure(.common, clock, &samples)
        measure(.unique, clock, &samples)
        let bad = badPages(.zero) + badPages(.common) + badPages(.unique)
        say(bad == 0 ? "cowtime: verify ok" : "cowtime: verify FAILED bad=\(bad)")
        ringDoorbell(2)
        if staysUp && bad == 0 { guest.sleepForEver() }
        guest.exit(bad == 0 ? 0 : 1)
    }

    private func waitForGo() {
        var reader = LineReader()
        var stopwatch = Stopwatch()
        while true {
            if let line = reader.poll(), case "go" = line { return }
            if let delay, stopwatch.hasPassed(seconds: delay) { return }
            sleep(microseconds: 50_000)
        }
    }
}

// MARK: Pages

extension Experiment {
    /// One sample for each page of the largest class, and never less than a page.
    private var samplePageCount: UInt64 { max(zero, max(common, unique)) / 512 + 1 }

    private func range(of kind: Class) -> Range<UInt64> {
        switch kind {
        case .zero: 0..<zero
        case .common: zero..<zero + common
        case .unique: zero + common..<zero + common + unique
        }
    }

    private func content(of kind: Class, _ number: UInt64) -> PageContent {
        switch kind {
        case .zero: .zero
        case .common: .common(at: pages.address(of: number))
        case .unique: .unique(guest, at: pages.address(of: number))
        }
    }

    private func write(_ kind: Class) {
        for number in range(of: kind) { content(of: kind, number).write(to: pages.address(of: number)) }
    }

    /// How many pages have lost something, other than the word that was written?
    private func badPages(_ kind: Class) -> UInt64 {
        var bad: UInt64 = 0
        for number in range(of: kind) {
            let isGood = content(of: kind, number)
                .matches(pages.address(of: number), except: Experiment.writtenWord, instead: Experiment.mark)
            if !isGood { bad += 1 }
        }
        return bad
    }
}

// MARK: Measuring

extension Experiment {
    enum Operation {
        case read, writeAfterRead, writeUnread

        var name: StaticString {
            switch self {
            case .read: "read"
            case .writeAfterRead: "write-after-read"
            case .writeUnread: "write-unread"
            }
        }
    }

    /// The first half of a class is read, then written; the second half is written without having been read.
    private func measure(_ kind: Class, _ clock: TickClock, _ samples: inout Samples) {
        let range = range(of: kind)
        let middle = range.lowerBound + (range.upperBound - range.lowerBound) / 2
        measure(kind, .read, range.lowerBound..<middle, clock, &samples)
        measure(kind, .writeAfterRead, range.lowerBound..<middle, clock, &samples)
        measure(kind, .writeUnread, middle..<range.upperBound, clock, &samples)
    }

    private func measure(
        _ kind: Class, _ operation: Operation, _ range: Range<UInt64>, _ clock: TickClock,
        _ samples: inout Samples
    ) {
        let count = range.upperBound - range.lowerBound
        let scatter = Scatter(count: count)
        samples.prepare(count)
        for step in 0..<count {
            let number = range.lowerBound + (isScattered ? scatter.position(of: step) : step)
            let address = pages.address(of: number) + Experiment.writtenWord * 8
            let before = TickClock.now
            if operation == .read {
                _ = machine_load64(address)
            } else {
                machine_store64(address, Experiment.mark)
            }
            let after = TickClock.now
            samples.append(after &- before)
        }
        samples.sort()
        let (median, high, maximum) = (samples.quantile(50), samples.quantile(99), samples.quantile(100))
        say(
            "cowtime: class=\(kind.name) op=\(operation.name) n=\(count) p50_ns=\(clock.nanoseconds(median)) p99_ns=\(clock.nanoseconds(high)) max_ns=\(clock.nanoseconds(maximum))"
        )
    }

    /// The ticks that measuring nothing takes.
    private func overhead() -> UInt64 {
        var least = UInt64.max
        for _ in 0..<1000 {
            let before = TickClock.now
            least = min(least, TickClock.now &- before)
        }
        return least
    }
}
