import PayloadSupport
import Synchronization

/// Writes stamped pages from every vCPU and checks them again and again: no write may be lost or torn, and
/// nobody else's may appear.
@c(payload_main)
public func main(information: UInt64, vcpu: UInt64) {
    let guest = Guest("churn", information: information, vcpu: vcpu)
    let settings = ChurnSettings(guest)
    var worker = Worker(guest, settings, TickClock(guest))
    worker.firstPass()
    Barrier.wait(guest, meeting: 1)
    if guest.leads {
        say("churn: ready pages=\(settings.pageCount) vcpus=\(guest.vcpuCount)")
        ringDoorbell(1)
    }
    Barrier.wait(guest, meeting: 2)
    worker.run()
    worker.lastPass()
    Totals.add(worker.tally)
    Barrier.wait(guest, meeting: 3)
    if guest.leads { Totals.end(guest, staysUp: settings.staysUp) }
}

struct ChurnSettings {
    private(set) var pageCount: UInt64
    /// Page visits a second and vCPU; 0: as many as possible.
    private(set) var rate: UInt64 = 0
    /// 0: until `exit`.
    private(set) var seconds: UInt64 = 10
    /// The share of time that a page rests in a common content, in millionths.
    private(set) var commonShare: UInt64 = 0
    /// How long it rests.
    private(set) var restMilliseconds: UInt64 = 1000
    private(set) var staysUp = false

    init(_ guest: Guest) {
        // A stamp has 24 bits for the page's number and 6 for the vCPU's.
        let limit = min(guest.freePages.count, Stamp.pageLimit)
        pageCount = min(limit, 4096)
        guard limit >= guest.vcpuCount else { guest.fail("\(limit) pages are free: fewer than vCPUs") }
        guard guest.vcpuCount <= Stamp.vcpuLimit else { guest.fail("more than \(Stamp.vcpuLimit) vCPUs") }
        var arguments = Arguments(guest)
        while let argument = arguments.next() {
            switch argument.key {
            case "pages": pageCount = argument.decimal(in: guest.vcpuCount...limit)
            case "rate": rate = argument.decimal(in: 0...10_000_000)
            case "seconds": seconds = argument.decimal(in: 0...86_400)
            case "common": commonShare = argument.fraction()
            case "rest": restMilliseconds = argument.decimal(in: 10...3_600_000)
            case "after": staysUp = argument.choice("exit", "sleep")
            default: argument.refuseKey()
            }
        }
    }
}

/// What one vCPU has counted.
struct Tally {
    var writes: UInt64 = 0
    var checks: UInt64 = 0
    var lost: UInt64 = 0
    var torn: UInt64 = 0
    var foreign: UInt64 = 0

    var bad: UInt64 { lost + torn + foreign }
}

/// What all vCPUs have counted, and the sign to stop.
enum Totals {
    private static let writes = Atomic<UInt64>(0)
    private static let checks = Atomic<UInt64>(0)
    private static let lost = Atomic<UInt64>(0)
    private static let torn = Atomic<UInt64>(0)
    private static let foreign = Atomic<UInt64>(0)
    static let isStopping = Atomic<Bool>(false)

    static func add(_ tally: Tally) {
        writes.add(tally.writes, ordering: .relaxed)
        checks.add(tally.checks, ordering: .relaxed)
        lost.add(tally.lost, ordering: .relaxed)
        torn.add(tally.torn, ordering: .relaxed)
        foreign.add(tally.foreign, ordering: .relaxed)
    }

    static func end(_ guest: Guest, staysUp: Bool) -> Never {
        let (lost, torn) = (lost.load(ordering: .relaxed), torn.load(ordering: .relaxed))
        let foreign = foreign.load(ordering: .relaxed)
        say(
            "churn: writes=\(writes.load(ordering: .relaxed)) checks=\(checks.load(ordering: .relaxed)) lost=\(lost) torn=\(torn) foreign=\(foreign)"
        )
        if staysUp && lost + torn + foreign == 0 { guest.sleepForEver() }
        guest.exit(lost + torn + foreign == 0 ? 0 : 1)
    }
}
