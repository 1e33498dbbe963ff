import Foundation
import Testing
import TestSupport

extension LinuxGuests {
    @Suite("Ways to end")
    struct EndTests {
        @Test(
            "has its exit code",
            arguments: [("poweroff", 0), ("reboot", 120), ("panic", 121)] as [(String, Int32)])
        func ends(how: String, status: Int32) throws {
            let result = try Mingle.run(["run", "--timeout", Mingle.leash, "--cmdline", "mingle.\(how)"])
            #expect(result.status == status, "\(result.output)\(result.errors)")
            #expect(result.errors.contains("mingle: init after "))
        }

        @Test("The status of a command is that of mingle")
        func commandStatus() throws {
            let result = try Mingle.run([
                "run", "--timeout", Mingle.leash, "--", "sh", "-c", "echo said; exit 42",
            ])
            #expect(result.status == 42)
            #expect(result.output == "said\n")
            #expect(
                try Mingle.run(["run", "--timeout", Mingle.leash, "--", "no-such-program"]).status == 127)
        }

        @Test("SIGTERM presses the power button; the guest powers off by itself")
        func terminate() throws {
            let guest = try Mingle(["run", "--name", "held", "--grace", "600", "--cmdline", "mingle.hold"])
            try guest.waitFor("mingle: init after ")
            let control = try ControlSocket("\(guest.folder.path)/mingle/control/held")
            let isHalted = try eventually(within: Mingle.patience) {
                try control.ask("debug").contains("state: halted, interrupts enabled")
            }
            let text = try control.ask("debug")
            #expect(isHalted && text.contains("mingle: init after ") && text.contains("timer: "), "\(text)")
            guest.child.kill(SIGTERM)
            let result = try guest.wait()
            #expect(result.status == 0, "\(result.errors)")
        }

        @Test("A guest that does not listen is ended after the grace period: 143")
        func force() throws {
            // Without our init nobody waits for the power button.
            let guest = try Mingle(["run", "--grace", "1", "--cmdline", "rdinit=/bin/sleep -- 1000"])
            try guest.waitFor("PCI")
            guest.child.kill(SIGTERM)
            let result = try guest.wait()
            #expect(result.status == 143)
            #expect(result.errors.contains("stopped by force after signal 15"))
        }

        @Test("The time limit ends with 124")
        func timeLimit() throws {
            let result = try Mingle.run(["run", "--timeout", "2", "--cmdline", "mingle.hold"])
            #expect(result.status == 124)
            #expect(result.errors.contains("stopped at the time limit of 2"), "\(result.errors)")
        }
    }

    @Suite("Several guests")
    struct ManyTests {
        @Test("Four at once: all come up, ps lists them, stop powers them off")
        func four() throws {
            let runtime = try TemporaryDirectory()
            let names = (1...4).map { "guest\($0)" }
            let guests = try names.map {
                try Mingle(
                    ["run", "--name", $0, "--grace", "600", "--cmdline", "mingle.hold"], runtime: runtime)
            }
            for guest in guests { try guest.waitFor("mingle: init after ") }
            func states() throws -> [String: String] {
                let listing = try Mingle.run(["ps", "--json"], runtime: runtime)
                let object = try JSONSerialization.jsonObject(with: Data(listing.output.utf8))
                let records = try #require(object as? [[String: Any]], "\(listing.output)")
                var found: [String: String] = [:]
                for record in records { found[record["name"] as? String ?? "?"] = record["state"] as? String }
                return found
            }
            #expect(
                try eventually(within: Mingle.patience) {
                    try states() == Dictionary(uniqueKeysWithValues: names.map { ($0, "running") })
                })
            let taken = try Mingle.run(["run", "--name", "guest1"], runtime: runtime)
            #expect(taken.status == 125)

            let one = try Mingle.run(["stop", "guest1", "--timeout", "600"], runtime: runtime)
            #expect(one.status == 0, "\(one.errors)")
            #expect(try guests[0].wait().status == 0)
            #expect(try states().keys.sorted() == Array(names.dropFirst()))

            let rest = try Mingle.run(["stop", "--all", "--timeout", "600"], runtime: runtime)
            #expect(rest.status == 0, "\(rest.errors)")
            for guest in guests.dropFirst() { #expect(try guest.wait().status == 0, "\(guest.errors)") }
            #expect(try states().isEmpty)
            #expect(try Mingle.run(["stop", "guest1"], runtime: runtime).status == 1)
        }

        @Test("doctor says that Linux guests run here")
        func doctor() throws {
            let result = try Mingle.run(["doctor", "--json"])
            #expect(result.status == 0)
            let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any]
            #expect(object?["verdict"] as? String == "linux")
        }
    }
}
