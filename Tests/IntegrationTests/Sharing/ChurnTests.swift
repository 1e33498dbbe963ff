import Foundation
import Testing
import VMMProtocol

extension HostKVM {
    /// Guests write while their memory is merged and taken apart; the payload knows what each word of it must be.
    @Suite("churn in shared memory")
    struct Churn {
        /// Each page rests about as long as it takes to be merged, so that writers and windows meet all the time.
        static let rests = "pages=1024 common=0.5 rest=900 rate=600 seconds=0"

        /// Pages that come and go like that are hardly worth a fault: debug builds are told to look at them all the same.
        static let eager = Requirement.faults.problem == nil ? "eager" : nil

        struct Pair {
            let guests: [SharingGuest]

            init(_ tool: CommandLineTool, window: String, domain: String, faults: String? = nil) throws {
                guests = try (0..<2).map { index in
                    try SharingGuest(
                        tool, "\(domain)\(index)",
                        .init(
                            payload: "churn", arguments: Churn.rests, domain: domain, window: window,
                            megabytes: 16, processors: 2, index: index, faults: faults))
                }
            }

            /// Waits until each has so many pages merged, and as many taken private again.
            func wait(for pages: Int) throws {
                for guest in guests {
                    try guest.wait("\(pages) pages are merged and unshared", within: 90) {
                        try guest.count(\.pagesMerged) > pages && guest.count(\.pagesUnsharedTotal) > pages
                    }
                }
            }

            /// Ends the guests. One line says what happened.
            func report(_ title: String) throws -> [(lost: Int, torn: Int, foreign: Int, status: Int32)] {
                try guests.map { guest in
                    let sharing = try guest.statistics().sharing
                    let counts = [
                        "pages_merged=\(sharing.pagesMerged) pages_unshared_total=\(sharing.pagesUnsharedTotal)",
                        "mismatches=\(sharing.mismatches) windows=\(sharing.windows)",
                        "full_scans=\(sharing.fullScans) arrangements=\(sharing.arrangements)",
                        "put_off_no_memory=\(sharing.putOffNoMemory) put_off_no_mapping=\(sharing.putOffNoMapping)",
                        "window_max_us=\(Int(sharing.windowMaximum))",
                    ]
                    try guest.ask("type exit")
                    let status = try guest.end()
                    print(
                        "\(title), \(guest.name):", guest.line("churn: writes") ?? "-",
                        counts.joined(separator: " "))
                    func found(_ word: String) throws -> Int { try guest.number(word, in: "churn: writes") }
                    return (try found("lost"), try found("torn"), try found("foreign"), status)
                }
            }
        }

        @Test("loses nothing with write protection", .needs(.userfaultfd))
        func userfaultfd() throws { try losesNothing(window: "userfaultfd", faults: Self.eager) }

        @Test("loses nothing with pauses")
        func pause() throws { try losesNothing(window: "pause", faults: Self.eager) }

        @Test("loses nothing while mappings are arranged", .needs(.userfaultfd), .needs(.faults))
        func arranged() throws { try losesNothing(window: "userfaultfd", faults: "arrange,eager") }

        private func losesNothing(window: String, faults: String? = nil) throws {
            let tool = try CommandLineTool()
            let pair = try Pair(tool, window: window, domain: "churn", faults: faults)
            let start = ContinuousClock.now
            try pair.wait(for: 500)
            // Twenty seconds of it, however soon that was.
            for guest in pair.guests {
                try guest.wait("20 s are over") { ContinuousClock.now - start > .seconds(20) }
            }
            for result in try pair.report("churn, \(window)") {
                #expect(result.lost == 0 && result.torn == 0 && result.foreign == 0)
                #expect(result.status == 0)
            }
            try tool.expectNothingLeft()
        }

        @Test("the same without the protection call loses writes", .needs(.userfaultfd), .needs(.faults))
        func userfaultfdControl() throws { try isNoticed(window: "userfaultfd") }

        @Test("the same without the pause loses writes", .needs(.faults))
        func pauseControl() throws { try isNoticed(window: "pause") }

        /// The control: two pairs that differ in the protection alone. In both, so much time passes between the comparison
        /// and the new mapping that a few seconds are enough to show it.
        private func isNoticed(window: String) throws {
            let tool = try CommandLineTool()
            // A pause holds several stretches of pages, each of which is widened.
            let wide = window == "pause" ? "eager,widen=20000" : "eager,widen=50000"
            let right = try Pair(tool, window: window, domain: "protected", faults: wide)
            var lost = 0
            for attempt in 1...3 where lost == 0 {
                let wrong = try Pair(
                    tool, window: window, domain: "open\(attempt)-", faults: "no-protection,\(wide)")
                let start = ContinuousClock.now
                try wrong.wait(for: 100)
                try wrong.guests[0].wait("some seconds are over") {
                    ContinuousClock.now - start > .seconds(8 * attempt)
                }
                lost = try wrong.report("control without protection, \(window)").reduce(0) { $0 + $1.lost }
            }
            #expect(lost > 0, "unprotected windows must be noticed")
            try right.wait(for: 50)
            for result in try right.report("control with protection, \(window)") {
                #expect(result.lost == 0 && result.torn == 0 && result.foreign == 0 && result.status == 0)
            }
            try tool.expectNothingLeft()
        }
    }
}
