@testable import SharingTestKit
import Foundation
import GuestMemory
import Synchronization
import TestSupport
import Testing

@testable import Sharing

/// Placements of up to three different actions of writers among the primitives of passes of two engines, with two pages each:
/// all of one and of two; of three every 5000th, from a random one on (`MINGLE_TRIPLE_STRIDE=1`: all). A placement is left
/// out only if the action has nothing to do with the primitive before which it would happen, so that it comes to the same
/// one primitive later.
@Suite struct InterleavingTests {
    /// What somebody else does at a primitive.
    enum Action: CaseIterable {
        case firstWrites, secondWrites, firstWritesOther, deviceCopies, transferBegins, secondPasses,
            secondExits, relocates

        /// Whether it makes a difference that this happens before a primitive, or could as well happen after it.
        /// - Parameter trace: the primitives, each with the guest whose pass it belongs to.
        func matters(at primitive: Int, of trace: [Primitive]) -> Bool {
            let here = trace[primitive]
            // The first of each pass stands for all that comes before it.
            if primitive == 0 || trace[primitive - 1].pass != here.pass { return true }
            switch self {
            // A guest's memory, log and devices are its own: nothing in a pass of the other one looks at them.
            case .firstWrites, .firstWritesOther, .deviceCopies, .transferBegins: return here.guest == 0
            case .secondWrites: return here.guest == 1
            // Passes meet in the store and where its frames are mapped. Nobody passes, or ends, in the middle of a pass.
            case .secondPasses, .secondExits: return here.guest == 0 && Self.meetings.contains(here.name)
            case .relocates: return Self.meetings.contains(here.name)
            }
        }
        private static let meetings: Set<String> = [
            "ask", "answer", "fetch", "stage", "remap", "remap, keeping", "remap to zero", "go home", "punch",
        ]
    }
    struct Primitive { var pass: Int, guest: Int, name: String }
    enum Scenario: CaseIterable {
        /// Equal pages become a frame.
        case merging
        /// A frame's pages are written; the frame goes, its place is used again.
        case unsharing
        /// One guest is turned off, and on again.
        case goingHome
        /// Frames that both map have got other places.
        case relocating
    }
    struct Placement { var primitive: Int, action: Action }

    final class Execution {
        let run: ModelRun
        private var plan: [Placement]
        private var pending: [(at: Int, operation: Operation)] = []
        private(set) var trace: [Primitive] = []
        private var passes = 0
        private var isInside = false
        private var hasExited = false

        init(_ plan: [Placement], _ sabotage: KernelModel.Sabotage) throws {
            var setup = ModelRun.Setup()
            setup.guests = 2
            setup.pages = 2
            setup.domains = 1
            setup.sabotage = sabotage
            run = try ModelRun(setup)
            self.plan = plan
        }

        private func atPrimitive(_ guest: Int, _ name: String) throws {
            let now = trace.count
            trace.append(Primitive(pass: passes, guest: guest, name: name))
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
            case .secondPasses: try run.pass(1)
            case .relocates: try run.perform(.relocate(0, page: 0, aside: false))
            case .secondExits:
                hasExited = true
                try run.perform(.exit(1))
            }
        }

        private func pass(_ guest: Int) throws {
            var failure: (any Error)?
            guard let member = run.member(guest) else { return }
            passes += 1
            member.guest.hook = { [unowned self] name in
                do { try atPrimitive(guest, name) } catch { failure = error }
            }
            // A process does not end inside its own pass.
            try member.pass(run.world)
            member.guest.hook = { _ in }
            if let failure { throw failure }
        }

        func execute(_ scenario: Scenario) throws -> String? {
            for guest in 0...1 { try run.perform(.fill(guest, page: 0, count: 2, first: 1, second: 2)) }
            for guest in 0...1 { try run.pass(guest) }
            switch scenario {
            case .merging: for guest in [1, 0, 0] { try pass(guest) }
            case .unsharing:
                for guest in [1, 0, 1, 0] { try run.pass(guest) }
                for guest in 0...1 { try run.perform(.fill(guest, page: 0, count: 2, first: 3, second: 4)) }
                for guest in [0, 1, 0, 0] { try pass(guest) }
            case .goingHome:
                for guest in [1, 0, 1, 0] { try run.pass(guest) }
                try run.perform(.setSharing(0, false))
                try pass(0)
                try run.perform(.setSharing(0, true))
                try pass(0)
                try pass(0)
            case .relocating:
                for guest in [1, 0, 1, 0] { try run.pass(guest) }
                for page in 0...1 { try run.perform(.relocate(0, page: page, aside: false)) }
                for guest in [0, 1, 0] { try pass(guest) }
            }
            for item in pending { try run.perform(item.operation) }
            for guest in [0, 1, 0, 1, 0] { try run.pass(guest) }
            for member in run.world.members {
                member.guest.check("at the end")
                if !member.guest.blocked.isEmpty { run.world.violated("a writer waits for ever") }
            }
            return run.world.violations.first
        }
    }

    /// All placements of up to as many actions as there are strides.
    struct Enumeration {
        let scenario: Scenario
        /// Every so many-th placement is taken of a first, second, third action.
        let strides: [Int]
        var sabotage = KernelModel.Sabotage.none
        var counters: [Int]
        private(set) var executions = [0, 0, 0, 0]
        private(set) var failure: String?

        init(_ scenario: Scenario, strides: [Int], offsets: [Int]) {
            self.scenario = scenario
            self.strides = strides
            counters = offsets
        }

        mutating func extend(_ plan: [Placement]) throws {
            let execution = try Execution(plan, sabotage)
            executions[plan.count] += 1
            if let found = try execution.execute(scenario) {
                failure = "\(scenario), \(plan.map { "\($0.action) at \($0.primitive)" }): \(found)"
                return
            }
            guard plan.count < strides.count else { return }
            for primitive in (plan.last?.primitive ?? 0)..<execution.trace.count {
                for action in Action.allCases
                where !plan.contains(where: { $0.action == action })
                    && action.matters(at: primitive, of: execution.trace)
                {
                    counters[plan.count] += 1
                    guard counters[plan.count] % strides[plan.count] == 0 else { continue }
                    try extend(plan + [Placement(primitive: primitive, action: action)])
                    if failure != nil { return }
                }
            }
        }
    }

    /// Each in two halves, so that two threads have work.
    @Test(arguments: Scenario.allCases, [0, 1]) func allPlacements(scenario: Scenario, half: Int) throws {
        let started = Date()
        var generator = SeededGenerator(for: "interleavings, \(scenario) \(half)")
        let strides = [
            2, Int(environmentNumber("MINGLE_PAIR_STRIDE") ?? 1),
            Int(environmentNumber("MINGLE_TRIPLE_STRIDE") ?? 5000),
        ]
        var offsets = strides.map { Int.random(in: 0..<$0, using: &generator) }
        offsets[0] = half
        var enumeration = Enumeration(scenario, strides: strides, offsets: offsets)
        try enumeration.extend([])
        print(
            "interleavings, \(scenario) \(half): \(enumeration.executions) executions with 0 to 3 actions, in",
            "\(Int(Date().timeIntervalSince(started))) s")
        #expect(enumeration.executions[1] > 50 && enumeration.executions[2] > 50)
        if let failure = enumeration.failure { Issue.record("\(failure)") }
    }

    /// What is left out on purpose is found among the placements.
    @Test(arguments: [KernelModel.Sabotage.noProtection, .noWake])
    func sabotageIsNoticed(sabotage: KernelModel.Sabotage) throws {
        var found: String?
        for scenario in Scenario.allCases where found == nil {
            var enumeration = Enumeration(scenario, strides: [1], offsets: [0])
            enumeration.sabotage = sabotage
            try enumeration.extend([])
            found = enumeration.failure
        }
        print("interleavings, sabotage \(sabotage): \(found ?? "nothing noticed")")
        #expect(found != nil)
    }
}
