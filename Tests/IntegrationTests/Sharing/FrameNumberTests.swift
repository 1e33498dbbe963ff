import Foundation
import MingleSupport
import Testing
import VMMProtocol

/// Pages of two guests, side by side.
struct PagePair {
    let digests: [[PageDigest]]
    let frames: [[UInt64?]]

    /// What guests hold, and in which frames: every page of theirs is read on the way.
    init(_ first: SharingGuest, _ second: SharingGuest) throws {
        digests = [try first.digests(), try second.digests()]
        frames = [try first.frames(), try second.frames()]
    }

    /// Pages for which something holds, in both guests at the same place.
    func pages(where condition: (Int) -> Bool) -> [Int] { frames[0].indices.filter(condition) }

    /// The same frame, which is not that of zeros.
    func isShared(_ page: Int) -> Bool {
        frames[0][page] != nil && frames[0][page] == frames[1][page] && frames[0][page] != FrameNumbers.zero
    }
    func isEqual(_ page: Int) -> Bool { digests[0][page] == digests[1][page] }

    /// Frames with two contents, anywhere in the two guests: never.
    var contradictions: Int {
        var contents: [UInt64: PageDigest] = [:]
        var found = 0
        for (digests, frames) in zip(digests, frames) {
            for (digest, frame) in zip(digests, frames) {
                guard let frame else { continue }
                if contents.updateValue(digest, forKey: frame) ?? digest != digest { found += 1 }
            }
        }
        return found
    }
}

extension HostKVM {
    /// What is in memory once is seen by the frames' own numbers.
    @Suite("frames of shared memory", .needs(.frames))
    struct Frames {
        private static let contents = "zero=0.2 common=0.4 unique=0.2"

        @Test("two guests share frames, memory falls, and a write parts them")
        func shareFrames() throws {
            let tool = try CommandLineTool()
            let meter = MemoryMeter(tool)
            let guests = try ["a", "b"].enumerated().map { index, name in
                try SharingGuest(tool, name, .init(arguments: Self.contents, index: index))
            }
            for guest in guests { try guest.waitUntilFilled() }
            let (a, b) = (guests[0], guests[1])
            let common = try a.number("common", in: "fill: ready")
            let zero = try a.number("zero", in: "fill: ready")
            func waitUntilShared() throws {
                for guest in guests {
                    try guest.wait("all is shared") {
                        try guest.count(\.pagesMapped) >= common && guest.count(\.pagesZero) >= zero
                    }
                }
                try SharingGuest.settle(guests)
            }
            // Once there and back, so that what sharing itself takes is in the first count, too. Then everything is at home,
            // pages of zeros as well: a guest's read of a hole allocates one.
            try waitUntilShared()
            for guest in guests { try guest.goHome() }
            // Frames are freed when all clients have spoken once more.
            try a.wait("the store is empty") {
                try tool.broker().domains.first { $0.name == "lab" }?.allocatedBytes == 0
            }
            try SharingGuest.check(guests)
            try meter.waitUntilBuffersAreFree(guests)
            let before = (counted: try meter.countedBytes(guests), group: meter.groupBytes)

            for guest in guests { try guest.ask("sharing on") }
            try waitUntilShared()
            try meter.waitUntilBuffersAreFree(guests)
            let after = (counted: try meter.countedBytes(guests), group: meter.groupBytes)
            // Of common pages one set is left, of zeros none.
            let expected = (common + 2 * zero) * 4096
            let counted = before.counted - after.counted
            #expect(abs(counted - expected) < expected / 10)
            if let (start, end) = before.group.flatMap({ start in after.group.map { (start, $0) } }) {
                #expect(abs(start - end - expected) < expected / 10)
            }

            let shared = try PagePair(a, b)
            let same = shared.pages { shared.isShared($0) }
            #expect(same.count >= common)
            #expect(same.allSatisfy(shared.isEqual))
            #expect(shared.contradictions == 0)
            let zeros = shared.frames.map { $0.count { $0 == FrameNumbers.zero } }
            #expect(zeros.allSatisfy { $0 >= zero })

            try SharingGuest.say("rewrite 0.25", to: [a], answer: "fill: rewrite ok")
            try SharingGuest.check(guests)
            let parted = try PagePair(a, b)
            let written = same.filter { parted.digests[0][$0] != shared.digests[0][$0] }
            #expect(written.count > common / 5)
            #expect(written.allSatisfy { !parted.isShared($0) })
            // The other guest has what it had, where it had it.
            #expect(written.allSatisfy { parted.digests[1][$0] == shared.digests[1][$0] })
            #expect(parted.contradictions == 0)
            let group = before.group.flatMap { start in after.group.map { "\(start - $0)" } }
            print(
                "frames: common=\(common) same_frame=\(same.count) zero=\(zero) zero_frame=\(zeros)",
                "expected_bytes=\(expected) counted_bytes=\(counted) group_bytes=\(group ?? meter.problem ?? "-")",
                "written=\(written.count) still_shared=\(written.count(where: parted.isShared))")
            try SharingGuest.exit(guests)
            try tool.expectNothingLeft()
        }

        @Test("guests of other domains, or of their own, have no frame in common")
        func domainsStayApart() throws {
            let tool = try CommandLineTool()
            let domains: [String?] = ["one", "two", nil, nil]
            let guests = try domains.enumerated().map { index, domain in
                try SharingGuest(
                    tool, "g\(index)",
                    .init(arguments: Self.contents, domain: domain, megabytes: 16, index: index))
            }
            for guest in guests { try guest.waitUntilFilled() }
            let zero = try guests[0].number("zero", in: "fill: ready")
            let filled = try guests[0].number("common", in: "fill: ready") + zero
            for guest in guests {
                // All of it was looked at, and the zeros merged: had there been company, it would have been found.
                try guest.wait("it was looked at") {
                    try guest.count(\.pagesHashed) >= filled && guest.count(\.pagesZero) >= zero
                }
            }
            try SharingGuest.settle(guests)
            var owners: [UInt64: Set<Int>] = [:]
            var equal: [PageDigest: Set<Int>] = [:]
            for (index, guest) in guests.enumerated() {
                for digest in try guest.digests() { equal[digest, default: []].insert(index) }
                for case .some(let frame) in try guest.frames() where frame != FrameNumbers.zero {
                    owners[frame, default: []].insert(index)
                }
            }
            let crossing = owners.values.count { $0.count > 1 }
            let alike = equal.values.count { $0.count == guests.count }
            print(
                "domains: contents in all four guests=\(alike) frames=\(owners.count) in more than one=\(crossing)"
            )
            #expect(alike > zero)
            #expect(owners.count > 4 * filled / 2)
            #expect(crossing == 0)
            try SharingGuest.check(guests)
            try SharingGuest.exit(guests)
            try tool.expectNothingLeft()
        }

        @Test("off, on, off: the same memory, and all of it back")
        func offOnOff() throws {
            let tool = try CommandLineTool()
            var guests: [SharingGuest] = []
            for (index, name) in ["a", "b"].enumerated() {
                // Each is turned off before there is anybody to share with.
                let guest = try SharingGuest(
                    tool, name, .init(arguments: "zero=0.1 uniform=0.2 common=0.4 unique=0.2", index: index))
                try guest.goHome()
                try guest.waitUntilFilled()
                try SharingGuest.check([guest])
                guests.append(guest)
            }
            let common = try guests[0].number("common", in: "fill: ready")
            // From here to the last look nobody writes: pauses nest, and this one lasts.
            for guest in guests { try guest.ask("pause") }
            for guest in guests { #expect(try guest.count(\.pagesMerged) == 0) }
            let before = try guests.map { try $0.digests() }
            let homes = try guests.map { try $0.homeBytes }
            // Pages of zeros need none at home, and get none when they come back.
            let contents = before.map { $0.count { !$0.isZero } * 4096 }

            for round in 1...2 {
                for guest in guests { try guest.ask("sharing on") }
                for guest in guests {
                    try guest.wait("all is shared") { try guest.count(\.pagesMapped) >= common }
                }
                try SharingGuest.settle(guests)
                let isSame = try guests.map { try $0.digests() } == before
                #expect(isSame, "shared, round \(round)")
                let shared = try PagePair(guests[0], guests[1])
                let same = shared.pages { shared.isShared($0) }.count
                let least = try guests.map { try $0.homeBytes }
                #expect(same >= common)
                for (bytes, full) in zip(least, homes) { #expect(bytes < full - common * 4096) }

                for guest in guests { try guest.goHome() }
                let back = try PagePair(guests[0], guests[1])
                let after = try guests.map { try $0.homeBytes }
                let isBack = back.digests == before
                #expect(isBack, "home, round \(round)")
                var uses: [UInt64: Int] = [:]
                for case .some(let frame) in back.frames.joined() where frame != FrameNumbers.zero {
                    uses[frame, default: 0] += 1
                }
                let twice = uses.values.count { $0 > 1 }
                #expect(twice == 0)
                for (bytes, wanted) in zip(after, contents) { #expect(abs(bytes - wanted) < wanted / 100) }
                print(
                    "off, on, off, round \(round): home_bytes=\(homes), without zeros \(contents);",
                    "shared \(least), \(same) frames the same; off again \(after), frames mapped twice=\(twice)"
                )
            }
            for guest in guests { try guest.ask("resume") }
            try SharingGuest.check(guests)
            try SharingGuest.exit(guests)
            try tool.expectNothingLeft()
        }
    }
}
