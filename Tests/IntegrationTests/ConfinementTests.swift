import Foundation
import LinuxHost
import MingleSupport
import TestSupport
import Testing

extension HostKVM {
    /// What a guest that took over its VMM could do: each attempt is made on purpose, on a thread of each kind, and ends the VMM.
    /// As an ordinary user: what root is refused proves nothing, and what root may do less.
    @Suite(
        "A VMM's confinement", .needs(.faults),
        .enabled(if: OrdinaryUser.canBecome, "only root can become another user"))
    struct ConfinementTests {
        /// docs/security.md, "When a guest breaks out of its VMM"; with the number of the call.
        private static let attempts: [(name: String, number: Int)] = [
            ("open", 257), ("create", 257), ("open-old", 2), ("open-handle", 304), ("fchmod", 91),
            ("chmod", 90), ("fchmodat", 268), ("unlink", 263), ("rename", 316), ("link", 265), ("stat", 262),
            ("readlink", 267), ("getdents", 217), ("ptrace", 101), ("others-memory", 310),
            ("others-files", 438), ("pidfd", 434), ("kill", 62), ("kill-other", 234), ("socket", 41),
            ("connect", 42), ("bind", 49), ("exec", 59), ("execat", 322), ("fork", 57), ("clone", 56),
            ("clone3", 435), ("executable", 9), ("mprotect", 10), ("io_uring", 425), ("terminal-input", 16),
            ("limits", 302), ("signal-handler", 13), ("userfaultfd", 323), ("bpf", 321), ("mount", 165),
        ]

        @Test("no thread gets anywhere", arguments: ["main", "vcpu", "sharing", "prices"])
        func attempts(kind: String) throws {
            let user = try OrdinaryUser()
            for (name, number) in Self.attempts {
                let guest = try user.start(["--sharing", "builtin", "--inject", "attempt=\(kind):\(name)"])
                let status = try guest.wait(within: 60)
                let said = user.folder.text("errors")
                #expect(status == 117, "\(kind), \(name): \(status) \(said)")
                #expect(
                    said.contains("a thread of kind \(kind) asked for system call \(number) "),
                    "\(kind), \(name): \(said)")
                #expect(!user.folder.text("output").contains("guest 0"), "the guest never ran")
            }
        }

        @Test("without walls the attempts are not refused: the control")
        func control() throws {
            let user = try OrdinaryUser()
            let guest = try user.start(["--confine", "off", "--inject", "attempt=main:open"])
            #expect(try guest.wait(within: 60) == 99)
            #expect(user.folder.text("errors").contains("the attempt came to "))
        }

        @Test("others of its user cannot look into it", arguments: [true, false])
        func others(isConfined: Bool) throws {
            let user = try OrdinaryUser()
            let guest = try user.start(
                ["--arguments", "do=sleep", "--confine", isConfined ? "on" : "off"])
            #expect(eventually { user.folder.text("output").contains("guest 0") })
            for look in ["ls /proc/PID/fd", "cat /proc/PID/maps", "head -c 0 /proc/PID/mem"] {
                let command = look.replacingOccurrences(of: "PID", with: "\(guest.identifier)")
                let status = try user.run(["/bin/sh", "-c", command]).wait(within: 60)
                #expect((status == 0) == !isConfined, "\(command): \(status)")
            }
            // What anybody may know stays known.
            #expect(
                try user.run(["/bin/sh", "-c", "cat /proc/\(guest.identifier)/status"]).wait(within: 60) == 0)
            guest.kill(SIGTERM)
            #expect(try guest.wait(within: 60) == 143)
        }

        @Test("what its starter had open is closed")
        func inherited() throws {
            let user = try OrdinaryUser()
            let script = "exec 7</etc/passwd 8>>\"$1/kept\"; shift; exec \"$@\""
            let guest = try user.start(
                ["--arguments", "do=sleep", "--serial", "file:/proc/self/fd/8"],
                behind: ["/bin/sh", "-c", script, "sh", user.folder.path])
            #expect(eventually { user.folder.text("kept").contains("guest 0") })
            let descriptors = "/proc/\(guest.identifier)/fd"
            let names = try FileManager.default.contentsOfDirectory(atPath: descriptors)
            let files = names.compactMap {
                try? FileManager.default.destinationOfSymbolicLink(atPath: "\(descriptors)/\($0)")
            }
            #expect(!files.contains("/etc/passwd"), "\(files)")
            // What it was named of it, it has opened once more.
            #expect(files.count { $0.hasSuffix("/kept") } == 1, "\(files)")
            guest.kill(SIGTERM)
            #expect(try guest.wait(within: 60) == 143)
        }

        @Test("one that root started has no capabilities, and does all that it does")
        func capabilities() throws {
            let folder = try TemporaryDirectory()
            let guest = try VMMProcess(
                "hello", "do=sleep",
                options: [
                    "--sharing", "builtin", "--report", folder.path("report"), "--control",
                    folder.path("control"),
                ], folder: folder)
            #expect(eventually { folder.text("output").contains("guest 0") })
            let tasks = "/proc/\(guest.child.identifier)/task"
            for thread in try FileManager.default.contentsOfDirectory(atPath: tasks) {
                let status = try String(contentsOfFile: "\(tasks)/\(thread)/status", encoding: .utf8)
                // The kernel's own thread of a VM is listed as well.
                if status.contains("Seccomp:\t0") { continue }
                for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                    #expect(status.contains("\(set):\t0000000000000000"), "\(status)")
                }
            }
            let control = try ControlClient(guest: "guest", path: folder.path("control"))
            #expect(try control.ask("debug").contains("vCPU 0"))
            #expect(try control.ask("memory").contains("Pss"))
            guest.child.kill(SIGTERM)
            #expect(try guest.wait() == 143)
            #expect(folder.text("report").contains("\"status\": 143"), "\(folder.text("report"))")
        }

        @Test("its threads have no new privileges, a filter each, and no core file")
        func process() throws {
            let user = try OrdinaryUser()
            let guest = try user.start(["--sharing", "builtin", "--cpus", "2", "--arguments", "do=sleep"])
            #expect(eventually { user.folder.text("output").contains("of 2, guest 0") })
            let tasks = "/proc/\(guest.identifier)/task"
            let threads = try FileManager.default.contentsOfDirectory(atPath: tasks)
            #expect(threads.count >= 4)
            for thread in threads {
                let status = try String(contentsOfFile: "\(tasks)/\(thread)/status", encoding: .utf8)
                #expect(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "\(status)")
                #expect(status.contains("Seccomp_filters:\t1"), "\(status)")
            }
            let limits = try String(contentsOfFile: "/proc/\(guest.identifier)/limits", encoding: .utf8)
            let core = limits.split(separator: "\n").first { $0.hasPrefix("Max core file size") } ?? ""
            #expect(core.split(separator: " ").filter { $0 == "0" }.count == 2, "\(core)")
            guest.kill(SIGTERM)
            #expect(try guest.wait(within: 60) == 143)
        }
    }
}

/// A user without any rights of root, who may use KVM.
final class OrdinaryUser {
    static let canBecome =
        geteuid() == 0 && access("/usr/bin/setpriv", X_OK) == 0
    private static let number: uid_t = 1000
    let folder: TemporaryDirectory

    init() throws {
        folder = try TemporaryDirectory()
        // A device node of its own: whoever may use KVM is the host's business, and here it may be root alone.
        var status = stat()
        guard stat("/dev/kvm", &status) == 0, mknod(folder.path("kvm"), S_IFCHR | 0o666, status.st_rdev) == 0,
            chmod(folder.path("kvm"), 0o666) == 0, chown(folder.path, Self.number, Self.number) == 0
        else { throw Failure("no device for an ordinary user: \(String(cString: strerror(errno)))") }
    }

    /// Starts a program as this user.
    func run(_ words: [String], output: String = "said") throws -> ChildProcess {
        try ChildProcess(
            "/usr/bin/setpriv",
            [
                "--reuid", "\(Self.number)", "--regid", "\(Self.number)", "--clear-groups", "--bounding-set",
                "-all", "--inh-caps", "-all",
            ] + words,
            streams: [.nothing, .into(folder.path(output)), .into(folder.path("errors"))])
    }

    /// Starts `mingle-vmm` with the payload `hello`.
    /// - Parameter behind: words in front of it.
    func start(_ options: [String], behind: [String] = []) throws -> ChildProcess {
        try run(
            behind + [
                Locations.vmm, "--kvm", folder.path("kvm"), "--kernel", try Locations.payload("hello"),
                "--memory",
                "\(16 << 20)", "--timeout", "600",
            ] + options, output: "output")
    }
}
