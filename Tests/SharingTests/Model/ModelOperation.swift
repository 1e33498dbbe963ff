import GuestMemory
import TestSupport

@testable import Sharing

/// A step of the model test.
indirect enum Operation: Equatable, Sendable {
    case write(Int, page: Int, half: Int, value: UInt64)
    /// Both halves of some pages.
    case fill(Int, page: Int, count: Int, first: UInt64, second: UInt64)
    case read(Int, page: Int)
    /// The VMM begins to copy bytes into a page; the rest follows step by step.
    case deviceWrite(Int, page: Int, value: UInt64)
    case deviceStep(Int)
    /// A transfer pins a page, and ends some time later.
    case transfer(Int, page: Int, value: UInt64)
    case transferEnds(Int)
    /// A pass; at some of its primitives, others act.
    case pass(Int, budget: UInt64, meanwhile: [Meanwhile])
    /// Between passes, what others published is merged; meanwhile as above.
    case hear(Int, meanwhile: [Meanwhile])
    case setSharing(Int, Bool)
    /// Memory is short, or no longer.
    case setHold(Int, Bool)
    case setWindow(Int, SharingPolicy.Window)
    case exit(Int)
    case start(Int)
    case loseStore(Int, after: Bool)
    case brokerDies(Int)
    /// The next mapping fails; if it is lost by that, home takes its place.
    case failMap(Int, isLost: Bool)
    case failWrites(Int)
    /// The store gives the frame that a page maps another place, of another page number if that is wanted.
    case relocate(Int, page: Int, aside: Bool)
    case sweep(Int)

    struct Meanwhile: Equatable, Sendable {
        var primitive: Int
        var operation: Operation
    }
}

/// Makes operations. Values come from a small alphabet, so that equal pages are frequent.
struct OperationMaker {
    var generator: SeededGenerator
    let guests: Int
    let pages: Int

    mutating func number(_ below: Int) -> Int { Int.random(in: 0..<below, using: &generator) }
    mutating func value() -> UInt64 { UInt64(number(4)) }

    mutating func writing(_ guest: Int) -> Operation {
        switch number(12) {
        case 0...3: return .write(guest, page: number(pages), half: number(2), value: value())
        case 4...6:
            let page = number(pages)
            return .fill(
                guest, page: page, count: 1 + number(min(6, pages - page)), first: value(), second: value())
        case 7: return .read(guest, page: number(pages))
        case 8: return .deviceWrite(guest, page: number(pages), value: value())
        case 9: return .deviceStep(guest)
        case 10: return .transfer(guest, page: number(pages), value: value())
        default: return .transferEnds(guest)
        }
    }

    mutating func pass(_ depth: Int) -> Operation {
        let guest = number(guests)
        var meanwhile: [Operation.Meanwhile] = []
        for _ in 0..<number(6) {
            let operation: Operation =
                depth == 0 && generator.oneIn(4)
                ? pass(1) : generator.oneIn(8) ? rare() : writing(number(guests))
            meanwhile.append(Operation.Meanwhile(primitive: number(60), operation: operation))
        }
        if generator.oneIn(4) { return .hear(guest, meanwhile: meanwhile) }
        return .pass(guest, budget: generator.oneIn(8) ? 3 : .max / 2, meanwhile: meanwhile)
    }

    mutating func rare() -> Operation {
        let guest = number(guests)
        switch number(18) {
        case 0: return .setSharing(guest, false)
        case 1, 2: return .setSharing(guest, true)
        case 3: return .setWindow(guest, generator.oneIn(2) ? .pause : .userfaultfd)
        case 4: return .exit(guest)
        case 5, 6: return .start(guest)
        case 7: return .loseStore(guest, after: generator.oneIn(2))
        case 8: return generator.oneIn(4) ? .brokerDies(number(2)) : .sweep(number(2))
        case 9, 10: return .failMap(guest, isLost: generator.oneIn(2))
        case 11: return .failWrites(number(2))
        case 13: return .setHold(guest, true)
        case 14, 15: return .setHold(guest, false)
        case 16, 17: return .relocate(guest, page: number(pages), aside: generator.oneIn(4))
        default: return .sweep(number(2))
        }
    }

    mutating func operation() -> Operation {
        switch number(20) {
        case 0...11: writing(number(guests))
        case 12...17: pass(0)
        default: rare()
        }
    }
}
