import Foundation
import GuestMemory
import Synchronization
import TestSupport
import Testing

@testable import Sharing

/// Placements of up to three actions of writers among the primitives of a few passes of two engines, with two pages each:
/// every placement of one; of two, the second at every fourteenth primitive from the first on (`MINGLE_PAIR_STRIDE=1`: at
/// every one); of three, a coarser grid.
@Suite struct InterleavingTests {
    /// What somebody else does at a primitive.
    enum Action: CaseIterable {
        case firstWrites, secondWrites, firstWritesOther, deviceCopies, transferBegins, secondPasses,
            secondExits
    }
    enum Scenario: CaseIterable {
        /// Equal pages become a frame.
        case merging
        /// A frame's pages are written; the frame goes, its place is used again.
        case unsharing
        /// One guest is turned off, and on again.
        case goingHome
    }
    struct Placement { var primitive: Int, action: Action }

    final class Execution {
        let run: ModelRun
        private var plan: [Placement]
        private var pending: [(at: Int, operation: Operation)] = []
        private(set) var primitives = 0
        private var isInside = false
        private var hasExited = false

        init(_ plan: [Placement], _ sabotage: FakeGuest.Sabotage) throws {
            var setup = ModelRun.Setup()
            setup.guests = 2
            setup.pages = 2
            setup.sabotage = sabotage
            run = try ModelRun(setup)
            self.plan = plan
        }

        private func atPrimitive() throws {
            let now = primitives
            primitives += 1
            if isInside { return }
            isInside = true
            defer { isInside = false }
            while let next = pending.first, next.at <= now {
                pending.removeFirst()
                try run.perform(next.operation)
            }
            while let next = plan.first, next.primitive <= now {
                plan.removeFirst()
                try act(next.action, now)
            }
        }

        private func act(_ action: Action, _ now: Int) throws {
            switch action {
            case .firstWrites: try run.perform(.write(0, page: 0, half: 0, value: 7))
            case .secondWrites: try run.perform(.write(1, page: 0, half: 1, value: 8))
            case .firstWritesOther: try run.perform(.write(0, page: 1, half: 1, value: 9))
            case .deviceCopies:
                try run.perform(.deviceWrite(0, page: 0, value: 6))
                for step in 1...4 { pending.append((now + step, .deviceStep(0))) }
            case .transferBegins:
                try run.perform(.transfer(0, page: 0, value: 5))
                pending.append((now + 6, .transferEnds(0)))
            case .secondPasses: try run.perform(.pass(1, budget: .max / 2, meanwhile: []))
            case .secondExits:
                hasExited = true
                try run.perform(.exit(1))
            }
        }

        private func pass(_ guest: Int) throws {
            var failure: (any Error)?
            guard let member = run.member(guest) else { return }
            member.guest.hook = { [unowned self] _ in do { try atPrimitive() } catch { failure = error } }
            // A process does not end inside its own pass.
            try member.pass(run.world)
            member.guest.hook = { _ in }
            if let failure { throw failure }
        }

        func execute(_ scenario: Scenario) throws -> String? {
            for guest in 0...1 { try run.perform(.fill(guest, page: 0, count: 2, first: 1, second: 2)) }
            for guest in 0...1 { try run.perform(.pass(guest, budget: .max / 2, meanwhile: [])) }
            switch scenario {
            case .merging: for guest in [1, 0, 0] { try pass(guest) }
            case .unsharing:
                for guest in [1, 0, 1, 0] { try run.perform(.pass(guest, budget: .max / 2, meanwhile: [])) }
                for guest in 0...1 { try run.perform(.fill(guest, page: 0, count: 2, first: 3, second: 4)) }
                for guest in [0, 1, 0, 0] { try pass(guest) }
            case .goingHome:
                for guest in [1, 0, 1, 0] { try run.perform(.pass(guest, budget: .max / 2, meanwhile: [])) }
                try run.perform(.setSharing(0, false))
                try pass(0)
                try run.perform(.setSharing(0, true))
                try pass(0)
                try pass(0)
            }
            for item in pending { try run.perform(item.operation) }
            for guest in [0, 1, 0, 1, 0] { try run.perform(.pass(guest, budget: .max / 2, meanwhile: [])) }
            for member in run.world.members {
                member.guest.check("at the end")
                if !member.guest.blocked.isEmpty { run.world.violated("a writer waits for ever") }
            }
            return run.world.violations.first
        }
    }

    /// - Returns: how many executions there were, and the first failure.
    static func enumerate(_ scenario: Scenario, _ sabotage: FakeGuest.Sabotage = .none) throws -> (
        Int, String?
    ) {
        let dry = try Execution([], sabotage)
        if let failure = try dry.execute(scenario) { return (1, "without any action: \(failure)") }
        let primitives = dry.primitives
        let pairStride = Int(environmentNumber("MINGLE_PAIR_STRIDE") ?? 14)
        var executions = 1
        func attempt(_ plan: [Placement]) throws -> String? {
            executions += 1
            guard let failure = try Execution(plan, sabotage).execute(scenario) else { return nil }
            return "\(scenario), \(plan.map { "\($0.action) at \($0.primitive)" }): \(failure)"
        }
        for first in 0..<primitives {
            for action in Action.allCases {
                let one = Placement(primitive: first, action: action)
                if let failure = try attempt([one]) { return (executions, failure) }
                for second in stride(from: first, to: primitives, by: pairStride) {
                    for other in Action.allCases where other != action {
                        let two = Placement(primitive: second, action: other)
                        if let failure = try attempt([one, two]) { return (executions, failure) }
                    }
                    guard second % 4 == 0 else { continue }
                    // The third, further on: a write after a pass of the other guest is the interesting one.
                    for third in stride(from: second, to: primitives, by: 9) {
                        let plan = [
                            one, Placement(primitive: second, action: .secondPasses),
                            Placement(primitive: third, action: .firstWritesOther),
                        ]
                        if let failure = try attempt(plan) { return (executions, failure) }
                    }
                }
            }
        }
        return (executions, nil)
    }

    @Test(arguments: Scenario.allCases) func allPlacements(scenario: Scenario) throws {
        let started = Date()
        let (executions, failure) = try Self.enumerate(scenario)
        print(
            "interleavings, \(scenario): \(executions) executions, in \(Int(Date().timeIntervalSince(started))) s"
        )
        #expect(executions > 1800)
        if let failure { Issue.record("\(failure)") }
    }
}
