import PayloadSupport

/// Fills memory with pages of known classes, then serves commands: check, rewrite, exit.
@c(payload_main)
public func main(information: UInt64, vcpu: UInt64) {
    let guest = Guest("fill", information: information, vcpu: vcpu)
    var fill = Fill(guest)
    fill.fillSlice()
    Barrier.wait(guest, meeting: 1)
    if guest.leads {
        fill.announce()
        fill.serve()
    }
}

struct Fill {
    private static let uniformByte: UInt8 = 0xCC
    private static let maximumRounds = 256

    private let guest: Guest
    private let plan: FillPlan
    private let pages: PageSet
    /// How many pages round `n` of rewriting takes; with the round's number that says which.
    private var rounds = [256 of UInt64](repeating: 0)
    private var roundCount = 0
    private var hasFailed = false

    init(_ guest: Guest) {
        self.guest = guest
        plan = FillPlan(guest)
        pages = guest.freePages
    }

    func fillSlice() {
        for number in guest.slice(of: plan.pageCount) {
            let address = pages.address(of: number)
            originalContent(of: number, at: address)?.write(to: address)
        }
    }

    func announce() {
        say(
            "fill: ready zero=\(plan.zero) uniform=\(plan.uniform) common=\(plan.common) shifted=\(plan.shifted) unique=\(plan.unique) pages=\(plan.pageCount)"
        )
        ringDoorbell(1)
    }

    mutating func serve() -> Never {
        var reader = LineReader()
        while true {
            let (command, operand) = reader.wait().firstWord()
            switch command {
            case "check": check()
            case "rewrite": rewrite(operand)
            case "exit":
                if operand.count == 0 { guest.exit(hasFailed ? 1 : 0) }
                if let code = operand.decimal, code <= 255 { guest.exit(code) }
                say("fill: exit \(operand): expected a number from 0 to 255")
            default: say("fill: unknown command \(command): expected check, rewrite FRACTION or exit N")
            }
        }
    }
}

// MARK: What a page holds

extension Fill {
    /// nil: the page was never touched.
    private func originalContent(of number: UInt64, at address: UInt64) -> PageContent? {
        switch plan.class(of: number) {
        case .zero: return .zero
        case .uniform: return .uniform(Fill.uniformByte)
        case .common: return .common(at: address)
        case .shifted(let rank): return .shared((rank + guest.index) % plan.shifted)
        case .unique: return .unique(guest, at: address)
        case .untouched: return nil
        }
    }

    /// The newest round of rewriting that took the page decides.
    private func content(of number: UInt64, at address: UInt64) -> PageContent? {
        guard let original = originalContent(of: number, at: address) else { return nil }
        for round in (0..<roundCount).reversed() where isTaken(number, in: round) {
            return .unique(guest, at: address, version: UInt64(round) + 1)
        }
        return original
    }

    /// Each round takes its pages by another permutation of the written ones.
    private func isTaken(_ number: UInt64, in round: Int) -> Bool {
        let salt = mixed(guest.seed ^ UInt64(round))
        return plan.amongWritten.position(of: plan.position(of: number), salt: salt) < rounds[round]
    }

    private mutating func check() {
        var bad: UInt64 = 0
        var first: UInt64 = 0
        var checked: UInt64 = 0
        for number in 0..<plan.pageCount {
            let address = pages.address(of: number)
            guard let content = content(of: number, at: address) else { continue }
            checked += 1
            if content.matches(address) { continue }
            if bad == 0 { first = address }
            bad += 1
        }
        if bad == 0 {
            say("fill: check ok pages=\(checked)")
        } else {
            hasFailed = true
            say("fill: check FAILED bad=\(bad) first=\(hex: first)")
        }
    }

    private mutating func rewrite(_ operand: Text) {
        guard let fraction = operand.millionths else {
            return say("fill: rewrite \(operand): expected a number from 0 to 1")
        }
        guard roundCount < Fill.maximumRounds else {
            return say("fill: rewrite refused: \(roundCount) rounds are remembered, no more fit")
        }
        let round = roundCount
        rounds[round] = plan.writtenCount * fraction / 1_000_000
        roundCount += 1
        for number in 0..<plan.pageCount where plan.position(of: number) < plan.writtenCount {
            guard isTaken(number, in: round) else { continue }
            let address = pages.address(of: number)
            PageContent.unique(guest, at: address, version: UInt64(round) + 1).write(to: address)
        }
        say("fill: rewrite ok pages=\(rounds[round]) round=\(roundCount)")
    }
}
