import Foundation
import MingleSupport
import Sharing
import TestSupport
import Testing
import VMMProtocol

extension HostKVM {
    /// Guests and brokers that end at the worst moment, and what it means for the others.
    @Suite("deaths among guests that share")
    struct Deaths {
        private static let contents = "common=0.5 unique=0.2"

        private static func start(
            _ tool: CommandLineTool, _ name: String, _ domain: String, _ index: Int, window: String = "auto",
            megabytes: Int = 8, faults: String? = nil
        ) throws -> SharingGuest {
            try SharingGuest(
                tool, name,
                .init(
                    arguments: contents, domain: domain, window: window, megabytes: megabytes, index: index,
                    faults: faults))
        }

        /// Waits until each has all of its common pages in frames.
        private static func waitUntilShared(_ guests: [SharingGuest]) throws {
            for guest in guests {
                try guest.waitUntilFilled()
                let common = try guest.number("common", in: "fill: ready")
                try guest.wait("its common pages are shared") { try guest.count(\.pagesMapped) >= common }
            }
        }

        /// Waits until the broker knows of each guest's other pages.
        private static func waitUntilSeen(_ guests: [SharingGuest]) throws {
            for guest in guests {
                let unique = try guest.number("unique", in: "fill: ready")
                try guest.wait("its other pages are known") { try guest.count(\.pagesUnshared) >= unique }
            }
        }

        /// The broker counts nothing for a process that ended, and for the others what they say they have.
        private static func expectForgotten(_ process: Int32, in domain: String, of tool: CommandLineTool)
            throws
        {
            let isForgotten = try eventually(within: 30) {
                let broker = try tool.broker()
                let clients = broker.clients.filter { $0.domain == domain }
                let store = broker.domains.first { $0.name == domain }
                return !broker.clients.contains { $0.process == process } && !clients.isEmpty
                    && store.map { Int($0.clients) } == clients.count
                    && store?.references == clients.reduce(0) { $0 + $1.references }
            }
            let broker = try tool.broker()
            try #require(isForgotten, "\(domain), process \(process): \(broker)")
        }

        // MARK: a guest, killed

        @Test(
            "a guest killed at any step of a merge, windows by userfaultfd", .needs(.userfaultfd),
            .needs(.faults))
        func killedUserfaultfd() throws { try killedAtEachStep(window: "userfaultfd") }

        @Test("a guest killed at any step of a merge, windows by pause", .needs(.faults))
        func killedPause() throws { try killedAtEachStep(window: "pause") }

        /// One domain for each step, all at the same time.
        private func killedAtEachStep(window: String) throws {
            var generator = SeededGenerator(for: "a guest killed at each step, \(window)")
            let steps = MergeStep.allCases
            let times = steps.map { _ in Int.random(in: 1...3, using: &generator) }
            let tool = try CommandLineTool()
            let survivors = try steps.map { try Self.start(tool, "s-\($0)", "\($0)", 0, window: window) }
            // They saw everything first; who comes next publishes it.
            for guest in survivors {
                try guest.waitUntilFilled()
                let common = try guest.number("common", in: "fill: ready")
                try guest.wait("it was looked at") { try guest.count(\.pagesUnshared) >= common }
            }
            let victims = try zip(steps, times).map { step, count in
                try Self.start(
                    tool, "v-\(step)", "\(step)", 1, window: window,
                    faults: "stop-at=\(step.rawValue):\(count)")
            }
            for (step, victim) in zip(steps, victims) {
                let isKilled = eventually(within: 60) {
                    if victim.hasEnded { return true }
                    // What is shared is written, so that there is something to give back.
                    if step == .forgetting || step == .forgot, (try? victim.count(\.pagesMapped)) ?? 0 > 0 {
                        _ = try? victim.ask("type rewrite 0.01")
                        usleep(50_000)
                    }
                    return false
                }
                #expect(isKilled, "\(step): \(victim.output)")
                #expect(try victim.end() == -SIGKILL, "\(step): \(victim.output)")
            }
            for (step, victim) in zip(steps, victims) {
                try Self.expectForgotten(victim.process, in: "\(step)", of: tool)
            }
            try SharingGuest.check(survivors)
            let thirds = try steps.map { try Self.start(tool, "t-\($0)", "\($0)", 2, window: window) }
            try Self.waitUntilShared(survivors + thirds)
            try SharingGuest.check(survivors + thirds)
            let list = zip(steps, times).map { "\($0.rawValue):\($1)" }.joined(separator: " ")
            let mapped = try thirds.map { try $0.count(\.pagesMapped) }
            print("killed at a step, \(window): \(list); pages mapped by the next guest: \(mapped)")
            try SharingGuest.exit(survivors + thirds)
            try tool.expectNothingLeft()
        }

        // MARK: a guest, ended by itself

        @Test("a guest that ends by itself gives back what it had")
        func exits() throws {
            let tool = try CommandLineTool()
            let guests = try (0..<2).map { try Self.start(tool, "g\($0)", "lab", $0) }
            try Self.waitUntilShared(guests)
            let before = try tool.broker()
            try SharingGuest.exit([guests[0]])
            try Self.expectForgotten(guests[0].process, in: "lab", of: tool)
            try SharingGuest.check([guests[1]])
            let alone = try tool.broker()
            let third = try Self.start(tool, "g2", "lab", 2)
            try Self.waitUntilShared([guests[1], third])
            let after = try tool.broker()
            try SharingGuest.check([guests[1], third])
            let references = [before, alone, after].map {
                $0.domains.first { $0.name == "lab" }?.references ?? 0
            }
            print(
                "a guest ends: references with both=\(references[0]) alone=\(references[1]) with a third=\(references[2])"
            )
            #expect(references[1] <= references[0] / 2 + 1)
            try SharingGuest.exit([guests[1], third])
            try tool.expectNothingLeft()
        }

        // MARK: the broker, killed

        @Test("the broker killed while guests share, and while they merge")
        func broker() throws {
            var generator = SeededGenerator(for: "the broker killed")
            let tool = try CommandLineTool()
            let meter = MemoryMeter(tool)
            // Where that can be had, windows are long enough for a merge of all to take a second.
            let faults = Requirement.faults.problem == nil ? "widen=20000" : nil
            let guests = try (0..<2).map {
                try Self.start(tool, "g\($0)", "lab", $0, megabytes: 32, faults: faults)
            }
            try Self.waitUntilShared(guests)
            // Once there and back, so that what going home takes for good is there, too.
            for guest in guests { try guest.goHome() }
            for guest in guests { try guest.ask("sharing on") }
            try Self.waitUntilShared(guests)
            try SharingGuest.check(guests)
            try Self.waitUntilSeen(guests)
            try meter.waitUntilBuffersAreFree(guests)
            let before = (counted: try meter.countedBytes(guests), group: meter.groupBytes)
            var moments: [UInt64] = []
            for round in 0..<4 {
                let connections = try guests.map { try $0.count(\.brokerConnections) }
                let worker = try #require(try tool.broker().processes.dropFirst().first)
                if round > 0 {
                    for guest in guests { try guest.goHome() }
                    for guest in guests { try guest.ask("sharing on") }
                    usleep(UInt32.random(in: 0..<1_200_000, using: &generator))
                }
                moments.append(try tool.broker().domains.first { $0.name == "lab" }?.references ?? 0)
                kill(worker, SIGKILL)
                try SharingGuest.check(guests)
                for (guest, count) in zip(guests, connections) {
                    try guest.wait("it found the next broker") {
                        try guest.count(\.brokerConnections) > count && guest.flag(\.hasBroker)
                    }
                }
                #expect(try tool.broker().processes.dropFirst().first != worker)
            }
            try Self.waitUntilShared(guests)
            try Self.waitUntilSeen(guests)
            try meter.waitUntilBuffersAreFree(guests)
            var after = try meter.countedBytes(guests)
            let isBack = try eventually(within: 60) {
                after = try meter.countedBytes(guests)
                return after - before.counted <= before.counted / 20
            }
            #expect(isBack, "\(after) of \(before.counted) bytes")
            try Self.waitUntilShared(guests)
            try SharingGuest.check(guests)
            if let start = before.group, let end = meter.groupBytes {
                #expect(end - start <= start / 20)
            }
            print(
                "broker killed with references: \(moments);",
                "bytes before=\(before.counted) after=\(after)",
                "group before=\(before.group.map(String.init) ?? meter.problem ?? "-")",
                "after=\(meter.groupBytes.map(String.init) ?? "-")")
            let third = try Self.start(tool, "g2", "lab", 2, megabytes: 32)
            try Self.waitUntilShared(guests + [third])
            try SharingGuest.check(guests + [third])
            try SharingGuest.exit(guests + [third])
            try tool.expectNothingLeft(but: "broker.log")
        }
    }
}
