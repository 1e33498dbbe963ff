import Foundation
import Synchronization
import Testing
import TestSupport

extension LinuxGuests {
    /// Four guests of 128 MiB share 70 MB and more of a stock kernel's memory; what is asked for here is far less, so
    /// that a change of the kernel does not matter, and far more than chance.
    @Suite("Sharing memory")
    struct MergedGuestTests {
        private static let manyPages = 6000

        @Test("Idle guests: much is shared, memory comes free, and off brings back every byte")
        func idle() throws {
            let runtime = try TemporaryDirectory()
            let guests = try SharingGuest.start(4, domain: "idle", sharing: false, runtime: runtime)
            for guest in guests { try guest.bringHome() }
            let alone = try hostMemoryInUse()
            for guest in guests { try guest.control.ask("sharing on") }
            for guest in guests { try guest.waitUntilMerged(Self.manyPages) }
            // Frames that four guests map instead of home pages of their own: three of four pages come free. Home pages
            // are given back a little after they are hidden.
            let saving = 3 * Self.manyPages * 4096
            var shared = 0
            let isSaved = try eventually(within: 60) {
                shared = try hostMemoryInUse()
                return shared < alone - saving
            }
            #expect(isSaved, "\(alone) bytes alone, \(shared) shared")

            for guest in guests { try guest.control.ask("pause") }
            // The first, whose pages most of the frames came from, and the last. A digest of a guest is half a minute of an
            // emulated processor.
            let compared = [guests[0], guests[3]]
            let before = try digests(compared)
            for guest in guests { try guest.bringHome() }
            let after = try digests(compared)
            for (index, guest) in compared.enumerated() {
                #expect(before[index].count == 16 << 15)
                #expect(before[index] == after[index], "\(guest.name)'s memory changed")
            }
            for guest in guests { #expect(try guest.count("pages_mapped") == 0) }
            let home = try hostMemoryInUse()
            #expect(home > shared + saving, "\(shared) bytes shared, \(home) when off again")

            for guest in guests { try guest.control.ask("resume") }
            for guest in guests { #expect(try guest.run("echo $((6 * 7))") == "42") }
            try powerOff(guests)
        }

        @Test("Guests at work while their memory is merged: files and page cache stay what they were")
        func load() throws {
            let runtime = try TemporaryDirectory()
            let guests = try SharingGuest.start(4, domain: "load", runtime: runtime)
            var cached: [String] = []
            for guest in guests {
                try guest.run(Self.prepare)
                cached.append(try guest.run("sha256sum /bin/busybox"))
                try guest.run(Self.work)
            }
            #expect(Set(cached).count == 1 && cached[0].hasSuffix("/bin/busybox"), "\(cached)")
            for guest in guests {
                let isShared = try eventually(within: 150) {
                    let now = try guest.sharing()
                    return now["pages_mapped"] as? Int ?? 0 >= Self.manyPages
                        && now["pages_unshared_total"] as? Int ?? 0 > 0
                }
                let now = try guest.sharing()
                #expect(isShared, "\(guest.name): \(now)")
            }
            for (index, guest) in guests.enumerated() {
                // One more whole turn on what is merged now.
                let turns = try #require(Int(try guest.run("cat /tmp/turns")))
                #expect(
                    try eventually(within: 100) { Int(try guest.run("cat /tmp/turns")) ?? 0 > turns + 1 })
                try guest.run(": > /tmp/stop; wait")
                #expect(try guest.run("cat /tmp/bad") == "", "\(guest.name)")
                #expect(try guest.run("sha256sum -c -s /tmp/sums; echo $?") == "0")
                #expect(try guest.run("sha256sum < /tmp/known") == "\(Self.knownSum)  -")
                #expect(try guest.run("sha256sum /bin/busybox") == cached[index])
            }
            try powerOff(guests)
        }

        /// Files whose sums are known: one the same in all guests, one of each guest's own, and two copies of one.
        private static let prepare = """
            seq 1 50000 > /tmp/known; head -c 200000 /dev/urandom > /tmp/own; cp /tmp/known /tmp/a; cp /tmp/known /tmp/b; \
            sha256sum /tmp/known /tmp/own > /tmp/sums; : > /tmp/bad; echo 0 > /tmp/turns
            """
        private static let knownSum = "44969d026ed4164dbe77d48d4d359e98ac4057008cafd61723be72bff83e5fd4"
        /// Round and round with pauses: verify, write the same into both copies here and there, make a file anew.
        private static let work = """
            (n=0; while [ ! -e /tmp/stop ]; do n=$((n + 1)); \
            sha256sum -c -s /tmp/sums || echo sums $n >> /tmp/bad; \
            for copy in a b; do dd if=/tmp/own of=/tmp/$copy bs=4096 count=1 skip=$((n % 40)) seek=$((n % 64)) \
            conv=notrunc 2> /dev/null; done; cmp -s /tmp/a /tmp/b || echo copies $n >> /tmp/bad; \
            seq $n 9999 > /tmp/new; [ $(tail -n 1 /tmp/new) = 9999 ] || echo new $n >> /tmp/bad; \
            echo $n > /tmp/turns; sleep 1; done) &
            """

        @Test(
            "Clocks and timers go on in guests whose kernel is merged", arguments: ["userfaultfd", "pause"])
        func time(window: String) throws {
            let runtime = try TemporaryDirectory()
            let guests = try SharingGuest.start(
                2, domain: window == "pause" ? "rest" : "fault", window: window, sharing: false,
                runtime: runtime)
            var before: [Moment] = []
            for guest in guests {
                #expect(
                    try guest.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
                        == "kvm-clock")
                before.append(try Moment(of: guest))
            }
            for guest in guests { try guest.control.ask("sharing on") }
            for guest in guests { try guest.waitUntilMerged(Self.manyPages) }
            for (guest, start) in zip(guests, before) {
                #expect(try guest.sharing()["window"] as? String == window)
                // A clock that KVM writes while the guest stands still.
                try guest.control.ask("pause")
                try guest.control.ask("resume")
                let ticks = try localTimerTicks(guest)
                // No step back, and no time that is over too soon.
                let slept = try guest.run(Self.clockLoop).split(separator: " ").compactMap { Int($0) }
                #expect(slept.count == 2 && slept[0] == 0 && slept[1] >= 200, "\(slept)")
                #expect(try localTimerTicks(guest) > ticks)
                let end = try Moment(of: guest)
                // The guest looked some time between the host's two looks; `date` has whole seconds.
                let shortest = end.earliest - start.latest - 1.5
                let longest = end.latest - start.earliest + 1.5
                for (clock, passed) in [
                    ("uptime", end.uptime - start.uptime), ("date", end.date - start.date),
                ] {
                    #expect(
                        shortest <= passed && passed <= longest,
                        "\(guest.name): \(clock) went on by \(passed) s in \(shortest) to \(longest) s")
                }
                #expect(try guest.count("pages_mapped") > Self.manyPages / 2)
            }
            try powerOff(guests)
        }

        /// Prints how often the clock went back, and by how many hundredths of a second it went on in two seconds' sleep.
        private static let clockLoop = """
            back=0; last=0; for turn in $(seq 200); do read now rest < /proc/uptime; now=${now%.*}${now#*.}; \
            [ $now -ge $last ] || back=$((back + 1)); last=$now; done; sleep 2; read now rest < /proc/uptime; \
            echo $back $((${now%.*}${now#*.} - last))
            """

        /// Merged bit by bit while it boots, a guest has 1000 mappings and more; arranged, 90 to 97 were seen.
        @Test("Once a guest rests, its memory takes few mappings")
        func mappings() throws {
            let runtime = try TemporaryDirectory()
            let guests = try SharingGuest.start(4, domain: "maps", runtime: runtime)
            for guest in guests { try guest.waitUntilMerged(Self.manyPages) }
            for guest in guests {
                let few = try eventually(within: 240) { try guest.count("mappings") <= 100 }
                let count = try guest.count("mappings")
                print("\(guest.name): \(count) mappings, \(try guest.count("arrangements")) arrangements")
                #expect(few, "\(guest.name): \(count) mappings")
            }
            try powerOff(guests)
        }

        // MARK: helpers

        /// A guest's clocks beside the host's, in seconds.
        private struct Moment {
            let earliest: Double, latest: Double, uptime: Double, date: Double

            init(of guest: SharingGuest) throws {
                earliest = ProcessInfo.processInfo.systemUptime
                let words = try guest.run("cat /proc/uptime; date +%s").split(whereSeparator: \.isWhitespace)
                latest = ProcessInfo.processInfo.systemUptime
                uptime = try #require(words.first.flatMap { Double($0) })
                date = try #require(words.last.flatMap { Double($0) })
            }
        }

        private func localTimerTicks(_ guest: SharingGuest) throws -> Int {
            let line = try guest.run("grep LOC: /proc/interrupts").split(separator: " ")
            return try #require(line.dropFirst().first.flatMap { Int($0) })
        }

        /// Of all these guests at once.
        private func digests(_ guests: [SharingGuest]) throws -> [[UInt8]] {
            let results = Mutex<[Int: Swift.Result<[UInt8], any Error>]>([:])
            let controls = guests.map(\.control)
            DispatchQueue.concurrentPerform(iterations: controls.count) { index in
                let digests = Swift.Result { try controls[index].digestsOfAllPages() }
                results.withLock { $0[index] = digests }
            }
            return try results.withLock { results in
                try controls.indices.map { try #require(results[$0]).get() }
            }
        }

        private func powerOff(_ guests: [SharingGuest]) throws {
            for guest in guests {
                let result = try guest.powerOff()
                #expect(result.status == 0, "\(guest.name): \(result.output)\n\(result.errors)")
            }
        }
    }
}
