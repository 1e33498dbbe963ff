import LinuxHost
import Foundation
import Glibc
import TestSupport
import Testing

@testable import MingleSupport
import VMMProtocol
import GuestMemory

@Suite("Options of sharing")
struct SharingOptionTests {
    @Test(
        "name domains",
        arguments: ["lab", "private", "private-1", "a.b_c:d-1", String(repeating: "x", count: 64)])
    func domains(name: String) throws { #expect(try SharingChoice.domain(name) == name) }

    @Test(
        "refuse other names",
        arguments: ["", "a b", "a/b", "é", "private.1", String(repeating: "x", count: 65)])
    func badDomains(name: String) { #expect(throws: SupportError.self) { try SharingChoice.domain(name) } }

    @Test("read percentages", arguments: [("25%", 25.0), ("0.5", 0.5), ("100", 100)])
    func percentages(text: String, value: Double) throws { #expect(try SharingChoice.percent(text) == value) }

    @Test("refuse other shares", arguments: ["", "0", "-1", "101", "nan", "5 %", "%"])
    func badPercentages(text: String) {
        #expect(throws: SupportError.self) { try SharingChoice.percent(text) }
    }

    @Test("keep to the length of a socket's path")
    func paths() throws {
        let longest = "/" + String(repeating: "x", count: 106)
        #expect(try SocketPath.checked(longest) == longest)
        #expect(throws: SupportError.self) { try SocketPath.checked(longest + "x") }
    }

    @Test("become arguments of the VMM")
    func arguments() {
        var invocation = VMMInvocation(name: "g", memoryBytes: 1, cpuCount: 1, kernel: "/k")
        #expect(!invocation.arguments.contains("--sharing"))
        invocation.sharing.mode = .builtin
        invocation.sharing.domain = "lab"
        invocation.sharing.cpuPercent = 5
        invocation.sharing.broker = "/b"
        invocation.control = "/c"
        invocation.diesWithParent = true
        invocation.ram = .anonymousMergeable
        let text = invocation.arguments.joined(separator: " ")
        #expect(
            text.hasSuffix(
                "--control /c --die-with-parent --ram anonymous-mergeable --sharing builtin --window auto --domain lab "
                    + "--share-cpu 5.0 --broker /b"))
        invocation.sharing.waits = true
        #expect(invocation.arguments.contains("waiting") && !invocation.arguments.contains("builtin"))
    }
}

@Suite("KSM's settings")
struct KSMTests {
    /// A directory that looks like the kernel's.
    private func kernel(_ folder: TemporaryDirectory) throws -> KSM {
        for (name, value) in [
            ("run", "0\n"), ("pages_to_scan", "100\n"), ("sleep_millisecs", "20\n"),
            ("advisor_mode", "none [scan-time]\n"), ("full_scans", "12\n"),
        ] { try folder.write("ksm/\(name)", value) }
        return KSM(root: folder.path + "/ksm")
    }

    @Test("are read, words in brackets, too")
    func reading() throws {
        let folder = try TemporaryDirectory()
        let ksm = try kernel(folder)
        #expect(ksm.setting("advisor_mode") == "scan-time" && ksm.setting("run") == "0")
        #expect(ksm.setting("nothing") == nil)
        #expect(ksm.counter("full_scans") == 12 && ksm.counter("nothing") == 0)
    }

    // Written as to /sys: in place. The fake keeps what a shorter value leaves of a longer one, so lengths are equal.
    @Test("are written down before they change, and put back")
    func lease() throws {
        let folder = try TemporaryDirectory()
        let ksm = try kernel(folder)
        let state = try folder.state()
        let lease = try KSMLease(ksm, in: state)
        #expect(lease.wasOff)
        let saved = try #require(SystemCall.text(of: state.path + "/ksm-settings"))
        #expect(saved.contains("pages_to_scan=100\n") && saved.contains("advisor_mode=scan-time\n"))
        try ksm.set("run", "1")
        try ksm.set("pages_to_scan", "999")
        // Somebody else may not have it meanwhile, nor put it back.
        #expect(throws: SupportError.self) { _ = try KSMLease(ksm, in: state) }
        #expect(try !KSMLease.repair(ksm, in: state))
        #expect(ksm.setting("run") == "1")
        try lease.end()
        #expect(ksm.setting("run") == "0" && ksm.setting("pages_to_scan") == "100")
        #expect(!SystemCall.exists(state.path + "/ksm-settings"))
    }

    @Test("are put back by the next one after a crash")
    func crash() throws {
        let folder = try TemporaryDirectory()
        let ksm = try kernel(folder)
        let state = try folder.state()
        // What a killed experiment leaves: its file, unlocked, and its settings.
        try folder.write("mingle/ksm-settings", KeyValueText.text(ksm.settings()))
        try ksm.set("run", "1")
        try ksm.set("sleep_millisecs", "00")
        #expect(try KSMLease.repair(ksm, in: state))
        #expect(ksm.setting("run") == "0" && ksm.setting("sleep_millisecs") == "20")
        #expect(!SystemCall.exists(state.path + "/ksm-settings"))
        #expect(try !KSMLease.repair(ksm, in: state))
    }

    @Test("are missed where there is no KSM")
    func absent() throws {
        let folder = try TemporaryDirectory()
        #expect(throws: SupportError.self) {
            _ = try KSMLease(KSM(root: folder.path + "/none"), in: folder.state())
        }
    }
}

@Suite("The directory of an experiment")
struct WorkspaceTests {
    @Test("goes with all that is in it")
    func removal() throws {
        let folder = try TemporaryDirectory()
        let state = try folder.state()
        let workspace = try Workspace(in: state)
        try SystemCall.replace(workspace.file("output"), with: "x")
        workspace.remove()
        #expect(!SystemCall.exists(workspace.path))
    }

    @Test("is swept when its owner is gone, not before")
    func sweeping() throws {
        let folder = try TemporaryDirectory()
        let state = try folder.state()
        let workspace = try Workspace(in: state)
        try folder.write("mingle/density-1/output", "x")
        try folder.write("mingle/other/output", "x")
        Workspace.sweep(state)
        #expect(SystemCall.exists(workspace.path))
        #expect(!SystemCall.exists(state.path + "/density-1"))
        #expect(SystemCall.exists(state.path + "/other/output"))
        withExtendedLifetime(workspace) {}
    }
}
