import Foundation
import Testing
import TestSupport

extension LinuxGuests {
    @Suite("Ways to boot")
    struct BootTests {
        @Test(
            "Debian's kernel reaches user space",
            arguments: [
                ["--boot", "pvh"], ["--boot", "linux64"], ["--format", "bzimage"],
                ["--format", "decompressed"],
            ])
        func protocols(options: [String]) throws {
            let result = try Mingle.shell(
                "uname -sm; cat /proc/cmdline", options + ["--cmdline", "mingle.test=words"])
            #expect(result.lines.first == "Linux x86_64")
            #expect(result.lines.last?.contains("mingle.test=words") == true)
            #expect(result.errors.contains("mingle: init after "))
        }

        @Test("The firmware's tables, clocks, memory and processor are in order")
        func health() throws {
            let before = Date().timeIntervalSince1970
            // Chosen in the guest: all messages would take the serial line longer than the guest takes to boot.
            let result = try Mingle.shell(
                "dmesg > /tmp/m; grep -E 'ACPI|APIC|WARNING:|Oops|BUG:' /tmp/m; echo messages $(wc -l < /tmp/m);"
                    + "echo clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource);"
                    + "echo rtc $(cat /sys/class/rtc/rtc0/since_epoch); echo date $(date +%s);"
                    + "echo rng $(cat /sys/class/misc/hw_random/rng_current);"
                    + "echo random $(head -c 64 /dev/hwrng | wc -c);"
                    + "echo line $(grep virtio0 /proc/interrupts);"
                    + Self.memoryLine + Self.processorLine(count: 1),
                ["--memory", "128M"])
            let after = Date().timeIntervalSince1970
            #expect(try result.value("clock ") == "kvm-clock")
            for clock in ["rtc ", "date "] {
                let seconds = try #require(Double(try result.value(clock)))
                #expect(
                    (before - 2...after + 2).contains(seconds), "\(clock)is \(seconds), here it is \(after)")
            }
            // Found by the DSDT, served by notifications and interrupts.
            #expect(try result.value("rng ") == "virtio_rng.0")
            #expect(try result.value("random ") == "64")
            #expect(try result.value("line ").contains("16-edge"))
            #expect(try #require(Int(try result.value("messages "))) > 100)
            let messages = result.output.split(separator: "\n").map(String.init)
            let firmware = messages.filter { $0.contains("ACPI") || $0.contains("APIC") }
            #expect(firmware.count > 10)
            let complaints = ["rror", "arning", "bug", "BUG", "BIOS bug", "nvalid", "ailed", "annot"]
            for line in firmware where !line.contains("and report a bug") {
                #expect(!complaints.contains { line.contains($0) }, "\(line)")
            }
            try expectOnlyKnownWarnings(messages)
            try expectMemory(result, bytes: 128 << 20)
            try expectProcessors(result, count: 1)
        }

        /// An emulated processor's XSAVE areas do not add up, which Linux notices; nothing else may warn, and no
        /// hardware may do even that.
        private func expectOnlyKnownWarnings(_ messages: [String]) throws {
            let warnings = messages.filter {
                $0.contains("WARNING:") || $0.contains("Oops") || $0.contains("BUG:")
            }
            let host = try String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)
            let isEmulated = host.contains("QEMU TCG")
            for line in warnings {
                #expect(isEmulated && line.contains("fpu__init_system_xstate"), "\(line)")
            }
            #expect(warnings.count <= 1)
        }

        @Test(
            "Memory around the hole below 4 GiB",
            arguments: [(3 << 30) - 4096, 3 << 30, (3 << 30) + 4096, 4 << 30, 5 << 30])
        func memory(bytes: Int) throws {
            let result = try Mingle.shell(Self.memoryLine, ["--memory", "\(bytes)", "--overcommit"])
            try expectMemory(result, bytes: bytes)
        }

        private static let memoryLine = "grep MemTotal: /proc/meminfo; dmesg | grep BIOS-e820;"

        private func expectMemory(_ result: Mingle.Result, bytes: Int) throws {
            let map = try usable(result.output)
            // [0xA0000, 1 MiB) is RAM, but reserved.
            #expect(map.reduce(0) { $0 + $1.count } == bytes - 0x60000)
            let low = min(bytes, 3 << 30)
            var expected = [0..<0xA0000, 0x10_0000..<low]
            if bytes > 3 << 30 { expected.append(4 << 30..<(4 << 30) + bytes - (3 << 30)) }
            #expect(map == expected)
            let words = try result.value("MemTotal:").split(separator: " ")
            let total = try #require(words.first.flatMap { Int($0) }) << 10
            // What the kernel keeps for itself: its image, a page structure of 64 bytes for each page, some tables;
            // with memory above 4 GiB 64 MiB of bounce buffers below.
            let kept = (56 << 20) + (bytes > 3 << 30 ? 64 << 20 : 0) + bytes / 40
            #expect(total < bytes && total > bytes - kept, "MemTotal is \(total)")
        }

        /// The ranges that the firmware's map calls usable.
        private func usable(_ output: String) throws -> [Range<Int>] {
            try output.split(separator: "\n").filter { $0.contains("BIOS-e820") && $0.contains("usable") }.map
            { line in
                let match = try #require(line.firstMatch(of: /mem 0x([0-9a-f]+)-0x([0-9a-f]+)/))
                return try #require(Int(match.1, radix: 16))..<(#require(Int(match.2, radix: 16)) + 1)
            }
        }

        @Test("vCPUs are cores of one package", arguments: [2, 4])
        func processors(count: Int) throws {
            let result = try Mingle.shell(Self.processorLine(count: count), ["--cpus", "\(count)"])
            try expectProcessors(result, count: count)
        }

        private static func processorLine(count: Int) -> String {
            "echo nproc $(nproc); grep -E '^(processor|core id|siblings|cpu cores|apicid|physical id)' /proc/cpuinfo;"
                + "for i in $(seq \(count)); do taskset -c $((i - 1)) sh -c 'echo ran' & done; wait"
        }

        private func expectProcessors(_ result: Mingle.Result, count: Int) throws {
            #expect(try result.value("nproc ") == "\(count)")
            func values(_ key: String) -> [String] {
                result.lines.filter { $0.hasPrefix(key) }.compactMap { $0.split(separator: ":").last }
                    .map { $0.trimmingCharacters(in: .whitespaces) }
            }
            let all = (0..<count).map(String.init)
            #expect(values("processor") == all)
            #expect(values("apicid") == all)
            #expect(values("core id") == all)
            #expect(values("physical id") == Array(repeating: "0", count: count))
            #expect(values("siblings") == Array(repeating: "\(count)", count: count))
            #expect(values("cpu cores") == Array(repeating: "\(count)", count: count))
            #expect(result.lines.count { $0 == "ran" } == count, "\(result.output)")
        }

        @Test("An initial RAM disk from files, joined in order")
        func initrdFiles() throws {
            let folder = try TemporaryDirectory()
            let extra = try folder.write(
                "extra.cpio", Archive.file("etc/from-the-test", Array("right\n".utf8)))
            let result = try Mingle.run([
                "run", "--timeout", Mingle.leash, "--initrd", try Mingle.image("initramfs"), "--initrd",
                extra, "--",
                "cat",
                "/etc/from-the-test",
            ])
            #expect(result.status == 0)
            #expect(result.lines == ["right"])
        }
    }
}

/// A file in the format that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
enum Archive {
    static func file(_ path: String, _ bytes: [UInt8]) -> [UInt8] {
        let folders = path.split(separator: "/").dropLast().map(String.init)
        return folders.flatMap { entry($0, mode: 0o040755, []) } + entry(path, mode: 0o100644, bytes)
            + entry("TRAILER!!!", mode: 0, [])
    }

    private static func entry(_ name: String, mode: Int, _ bytes: [UInt8]) -> [UInt8] {
        func hexadecimal(_ value: Int) -> String {
            let digits = String(value, radix: 16)
            return String(repeating: "0", count: 8 - digits.count) + digits
        }
        let fields = [0, mode, 0, 0, 1, 0, bytes.count, 0, 0, 0, 0, name.utf8.count + 1, 0]
        var entry = Array(("070701" + fields.map(hexadecimal).joined() + name).utf8) + [0]
        func pad() { while entry.count % 4 != 0 { entry.append(0) } }
        pad()
        entry += bytes
        pad()
        return entry
    }
}
