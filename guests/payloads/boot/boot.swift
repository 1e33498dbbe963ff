import PayloadSupport

/// Uses memory as an operating system does that boots: touches, frees, uses again, computes, waits; then is ready, and rests.
@c(payload_main)
public func main(information: UInt64, vcpu: UInt64) {
    let guest = Guest("boot", information: information, vcpu: vcpu)
    guard guest.leads else { guest.sleepForEver() }
    var boot = Boot(guest)
    boot.run()
    say("boot: ready pages=\(boot.touched) rewritten=\(boot.rewritten) zeroed=\(boot.zeroed)")
    ringDoorbell(1)
    guest.sleepForEver()
}

struct Boot {
    private let guest: Guest
    private let pages: PageSet
    private var pageCount: UInt64
    private var rounds: UInt64 = 40
    private var wait: UInt64 = 5
    private var work: UInt64 = 2
    private var random: UInt64
    private(set) var touched: UInt64 = 0
    private(set) var rewritten: UInt64 = 0
    private(set) var zeroed: UInt64 = 0

    init(_ guest: Guest) {
        self.guest = guest
        pages = guest.freePages
        pageCount = pages.count / 2
        random = mixed(guest.seed ^ guest.index)
        var arguments = Arguments(guest)
        while let argument = arguments.next() {
            switch argument.key {
            case "pages": pageCount = argument.decimal(in: 64...pages.count)
            case "rounds": rounds = argument.decimal(in: 1...10_000)
            case "wait": wait = argument.decimal(in: 0...10_000)
            case "work": work = argument.decimal(in: 0...10_000)
            default: argument.refuseKey()
            }
        }
    }

    mutating func run() {
        for round in 1...rounds {
            touch(upTo: pageCount * round / rounds)
            reuse(round)
            compute()
            if wait > 0 { sleep(microseconds: UInt32(wait * 1000)) }
        }
    }

    /// Most of what is loaded is the same in all guests; the rest is a guest's own.
    private mutating func touch(upTo end: UInt64) {
        while touched < end {
            let address = pages.address(of: touched)
            let content: PageContent =
                touched % 4 == 3 ? .unique(guest, at: address) : .common(at: address)
            content.write(to: address)
            touched += 1
        }
    }

    /// As many pages as a round touches are freed and used again, half of them for zeros.
    private mutating func reuse(_ round: UInt64) {
        for turn in 0..<pageCount / rounds {
            random = mixed(random)
            let address = pages.address(of: random % touched)
            if turn % 2 == 0 {
                PageContent.zero.write(to: address)
                zeroed += 1
            } else {
                PageContent.unique(guest, at: address, version: round).write(to: address)
                rewritten += 1
            }
        }
    }

    /// Millions of steps without memory.
    private mutating func compute() {
        for _ in 0..<work * 1_000_000 { random = mixed(random) }
    }
}
