import PayloadSupport

/// Fills all memory, then proves again and again by a checksum that it has stayed what it was.
@c(payload_main)
public func main(information: UInt64, vcpu: UInt64) {
    let guest = Guest("readback", information: information, vcpu: vcpu)
    let readback = Readback(guest)
    readback.fillSlice()
    Barrier.wait(guest, meeting: 1)
    if guest.leads { readback.serve() }
}

struct Readback {
    private let guest: Guest
    private let pages: PageSet
    /// Seconds between comparisons without being asked; nil: only when asked.
    private var interval: UInt64?

    init(_ guest: Guest) {
        self.guest = guest
        pages = guest.freePages
        var arguments = Arguments(guest)
        while let argument = arguments.next() {
            switch argument.key {
            case "every": interval = argument.decimal(in: 1...86_400)
            default: argument.refuseKey()
            }
        }
    }

    /// Zero, common or unique by the seed, about a third of the pages each.
    private func content(of number: UInt64) -> PageContent {
        let address = pages.address(of: number)
        switch mixed(mixed(guest.seed) ^ number) % 3 {
        case 0: return .zero
        case 1: return .common(at: address)
        default: return .unique(guest, at: address)
        }
    }

    func fillSlice() {
        for number in guest.slice(of: pages.count) {
            content(of: number).write(to: pages.address(of: number))
        }
    }

    func serve() -> Never {
        let checksum = checksum()
        if let bad = firstBadPage() { end(at: bad) }
        say("readback: checksum=\(hex: checksum) pages=\(pages.count)")
        ringDoorbell(1)
        var reader = LineReader()
        var stopwatch = Stopwatch()
        while true {
            var isDue = false
            if let line = reader.poll() {
                switch line {
                case "again": isDue = true
                case "exit": guest.exit(0)
                default: say("readback: unknown command \(line): expected again or exit")
                }
            } else {
                sleep(microseconds: 50_000)
            }
            if let interval, stopwatch.hasPassed(seconds: interval) { isDue = true }
            if isDue {
                compare(with: checksum)
                stopwatch = Stopwatch()
            }
        }
    }

    private func compare(with expected: UInt64) {
        let found = checksum()
        if found == expected { return say("readback: again ok checksum=\(hex: found)") }
        say("readback: again DIFFERENT checksum=\(hex: found) expected=\(hex: expected)")
        end(at: firstBadPage())
    }

    private func end(at bad: UInt64?) -> Never {
        if let bad {
            say("readback: FAILED first=\(hex: bad)")
        } else {
            say("readback: FAILED first=unknown: every page is right on a second look")
        }
        guest.exit(1)
    }

    /// Over every page, with its address.
    private func checksum() -> UInt64 {
        var sum: UInt64 = 0
        for number in 0..<pages.count {
            sum = mixed(sum ^ PayloadSupport.checksum(ofPage: pages.address(of: number)))
        }
        return sum
    }

    private func firstBadPage() -> UInt64? {
        for number in 0..<pages.count {
            let address = pages.address(of: number)
            if !content(of: number).matches(address) { return address }
        }
        return nil
    }
}
