import Foundation
import Testing
import TestSupport
import VMMProtocol

extension LinuxGuests {
    /// Four guests of 128 MiB share 70 MB and more of a stock kernel's memory; what is asked for here is far less, so
    /// that a change of the kernel does not matter, and far more than chance.
    @Suite("Sharing memory", .serialized, PowersOffGuests())
    struct MergedGuestTests {
        private static let manyPages = 6000

        /// Merged bit by bit, a guest has 700 to 1000 mappings and more; arranged, without giving up a page.
        @Test("Once a guest rests, its memory takes few mappings")
        func mappings() throws {
            try GuestGroup.use { group in
                try group.turnSharing(on: true)
                for guest in group.guests { try guest.waitUntilMerged(Self.manyPages) }
                for guest in group.guests {
                    try guest.wait("its memory takes few mappings") {
                        try guest.count(\.mappings) <= 600 && guest.count(\.arrangements) > 0
                    }
                    print(
                        "\(guest.name): \(try guest.count(\.mappings)) mappings,"
                            + " \(try guest.count(\.arrangements)) arrangements")
                }
            }
        }

        @Test("Idle guests: off brings back every byte, on frees much memory")
        func idle() throws {
            try GuestGroup.use { group in
                try group.turnSharing(on: true)
                for guest in group.guests { try guest.waitUntilMerged(Self.manyPages) }
                let shared = try hostMemoryInUse()
                for guest in group.guests { try guest.control.ask("pause") }
                let before = try group.guests.map { try $0.control.digestsOfAllPages() }
                for guest in group.guests { #expect(try guest.count(\.pagesMapped) >= Self.manyPages) }
                try group.bringHome()
                let after = try group.guests.map { try $0.control.digestsOfAllPages() }
                for (index, guest) in group.guests.enumerated() {
                    #expect(before[index].count == 16 << 15)
                    #expect(before[index] == after[index], "\(guest.name)'s memory changed")
                    #expect(try guest.count(\.pagesMapped) == 0)
                }
                // Frames that four guests map instead of home pages of their own: three of four pages come free.
                let saving = 3 * Self.manyPages * 4096
                let alone = try hostMemoryInUse()
                #expect(alone > shared + saving, "\(shared) bytes shared, \(alone) when off")

                for guest in group.guests { try guest.control.ask("resume") }
                for guest in group.guests { #expect(try guest.run("echo $((6 * 7))") == "42") }
                try group.turnSharing(on: true)
                for guest in group.guests { try guest.waitUntilMerged(Self.manyPages) }
                // Home pages are given back a little after they are hidden.
                try group.guests[0].wait("memory comes free, \(alone) bytes when off") {
                    try hostMemoryInUse() < alone - saving
                }
                for guest in group.guests { #expect(try guest.run("echo $((6 * 7))") == "42") }
            }
        }

        /// Two work, one with either window; the others hold what is like theirs.
        @Test("Guests at work while their memory is merged: files and page cache stay what they were")
        func load() throws {
            try GuestGroup.use { group in
                try group.bringHome()
                let workers = Array(group.guests[0...1])
                var cached: [String] = []
                var unshared: [Int] = []
                for guest in workers {
                    try guest.run(Self.prepare)
                    cached.append(try guest.run("sha256sum /bin/busybox"))
                    try guest.run(Self.work)
                    unshared.append(try guest.count(\.pagesUnsharedTotal))
                }
                #expect(Set(cached).count == 1 && cached[0].hasSuffix("/bin/busybox"), "\(cached)")
                try group.turnSharing(on: true)
                for (guest, copies) in zip(workers, unshared) {
                    try guest.waitUntilMerged(Self.manyPages)
                    try guest.wait("private copies are taken") {
                        try guest.count(\.pagesUnsharedTotal) > copies
                    }
                }
                for (index, guest) in workers.enumerated() {
                    // One more whole turn on what is merged now.
                    let turns = try #require(Int(try guest.run("cat /tmp/turns")))
                    try guest.wait("it takes more turns") {
                        Int(try guest.run("cat /tmp/turns")) ?? 0 > turns + 1
                    }
                    try guest.run(": > /tmp/stop; wait")
                    #expect(try guest.run("cat /tmp/bad") == "", "\(guest.name)")
                    #expect(try guest.run("sha256sum -c -s /tmp/sums; echo $?") == "0")
                    #expect(try guest.run("sha256sum < /tmp/known") == "\(Self.knownSum)  -")
                    #expect(try guest.run("sha256sum /bin/busybox") == cached[index])
                    try guest.run("rm /tmp/*")
                }
            }
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

        @Test("Clocks and timers go on in guests whose kernel is merged, with either window")
        func time() throws {
            try GuestGroup.use { group in
                try group.bringHome()
                var before: [Moment] = []
                for guest in group.guests {
                    #expect(
                        try guest.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
                            == "kvm-clock")
                    before.append(try Moment(of: guest))
                }
                try group.turnSharing(on: true)
                for guest in group.guests { try guest.waitUntilMerged(Self.manyPages) }
                for (guest, start) in zip(group.guests, before) { try check(guest, since: start) }
                let windows = try group.guests.map { try $0.sharing().window }
                #expect(windows == ["userfaultfd", "pause", "userfaultfd", "pause"])
            }
        }

        private func check(_ guest: ShellGuest, since start: Moment) throws {
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
            #expect(try guest.count(\.pagesMapped) > Self.manyPages / 2)
        }

        /// Prints how often the clock went back, and by how many hundredths of a second it went on in two seconds' sleep.
        private static let clockLoop = """
            back=0; last=0; for turn in $(seq 200); do read now rest < /proc/uptime; now=${now%.*}${now#*.}; \
            [ $now -ge $last ] || back=$((back + 1)); last=$now; done; sleep 2; read now rest < /proc/uptime; \
            echo $back $((${now%.*}${now#*.} - last))
            """

        // MARK: helpers

        /// A guest's clocks beside the host's, in seconds.
        private struct Moment {
            let earliest: Double, latest: Double, uptime: Double, date: Double

            init(of guest: ShellGuest) throws {
                earliest = ProcessInfo.processInfo.systemUptime
                let words = try guest.run("cat /proc/uptime; date +%s").split(whereSeparator: \.isWhitespace)
                latest = ProcessInfo.processInfo.systemUptime
                uptime = try #require(words.first.flatMap { Double($0) })
                date = try #require(words.last.flatMap { Double($0) })
            }
        }

        private func localTimerTicks(_ guest: ShellGuest) throws -> Int {
            let line = try guest.run("grep LOC: /proc/interrupts").split(separator: " ")
            return try #require(line.dropFirst().first.flatMap { Int($0) })
        }
    }
}
