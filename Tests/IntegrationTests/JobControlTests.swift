import Foundation
import LinuxHost
import Testing
import TestSupport

/// An interactive shell with job control on a terminal of its own.
private final class JobShell {
    let terminal: PseudoTerminal
    let child: ChildProcess

    /// A shell with a state directory in the folder, and a guest that it started and that runs.
    /// - Parameter suffix: the shell's words behind those of the guest.
    static func withGuest(_ folder: TemporaryDirectory, _ suffix: String = "") throws -> JobShell {
        _ = try folder.stateDirectory()
        let shell = try JobShell(folder)
        try shell.start(folder, suffix)
        try shell.terminal.wait(for: "hello: vcpu 0")
        return shell
    }

    private init(_ folder: TemporaryDirectory) throws {
        terminal = try PseudoTerminal()
        child = try ChildProcess(
            "/bin/bash", ["--norc", "--noprofile", "-i"],
            environment: ["PS1": "ready> ", "TERM": "dumb", "HISTFILE": "", "HOME": folder.path],
            streams: Array(repeating: .file(terminal.path, O_RDWR), count: 3), ownSession: true)
        try terminal.wait(for: "ready> ")
    }

    /// Starts a guest that answers lines.
    private func start(_ folder: TemporaryDirectory, _ suffix: String) throws {
        let words = [
            Locations.vmm, "--kernel", try Locations.payload("hello"), "--name", "guest", "--memory",
            "16777216",
            "--arguments", "do=echo", "--timeout", "120", "--state-dir", folder.path("state"),
        ]
        terminal.type(words.map { "'\($0)'" }.joined(separator: " ") + " \(suffix)\r")
    }

    /// The process of the guest.
    func guest(_ folder: TemporaryDirectory) throws -> pid_t {
        var found: pid_t?
        _ = eventually {
            let lines = folder.text("state/guests/guest").split(separator: "\n")
            found = lines.first { $0.hasPrefix("pid=") }.flatMap { pid_t($0.dropFirst(4)) }
            return found != nil
        }
        return try #require(found)
    }

    func waitUntilRaw(_ raw: Bool) {
        #expect(eventually(within: 60) { terminal.settings.isRaw == raw }, "raw mode: \(raw)")
    }

    /// Keys arrive, once, and Ctrl-A X ends it.
    func expectConsole() throws {
        waitUntilRaw(true)
        terminal.type("key\n")
        try terminal.wait(for: "hello: echo key")
        // Ctrl-C is a key like others.
        terminal.type([3] + Array("more\n".utf8))
        try terminal.wait(for: "more")
        terminal.type([1, UInt8(ascii: "x")])
        try terminal.wait(for: "Ctrl-A X")
        try terminal.wait(for: "ready> ")
        terminal.type("echo status $?\r")
        try terminal.wait(for: "status 130")
    }
}

extension HostKVM {
    @Suite(
        "The terminal under a shell's job control",
        .enabled(if: FileManager.default.isExecutableFile(atPath: "/bin/bash"), "needs /bin/bash"))
    struct JobControlTests {
        @Test("stopped by a signal, then fg: the keys are the guest's again", arguments: [SIGSTOP, SIGTSTP])
        func foregroundAgain(signal: Int32) throws {
            let folder = try TemporaryDirectory()
            let shell = try JobShell.withGuest(folder)
            shell.waitUntilRaw(true)
            let process = try shell.guest(folder)
            for _ in 0..<2 {
                kill(process, signal)
                try shell.terminal.wait(for: "Stopped")
                try shell.terminal.wait(for: "ready> ")
                // It has really stopped, and the shell has a terminal that works.
                #expect(
                    eventually {
                        ProcessStat(process: process)?.fields.first == "T"
                    })
                shell.terminal.type("echo shell $((40 + 2))\r")
                try shell.terminal.wait(for: "shell 42")
                shell.terminal.type("fg\r")
                shell.waitUntilRaw(true)
            }
            try shell.expectConsole()
        }

        @Test("given back when it is stopped, whoever stops it")
        func givenBack() throws {
            let terminal = try PseudoTerminal()
            let before = terminal.settings
            let folder = try TemporaryDirectory()
            // A shell that does nothing about the terminal's settings, but continues what is stopped.
            let line = "set -m; \"$@\" & wait %1; stty -a > settings; fg %1"
            let child = try ChildProcess(
                "/bin/bash",
                [
                    "-c", "cd '\(folder.path)'; " + line, "bash", Locations.vmm, "--kernel",
                    try Locations.payload("hello"), "--memory", "16777216", "--arguments", "do=echo",
                    "--timeout", "120",
                ],
                streams: Array(repeating: .file(terminal.path, O_RDWR), count: 3), ownSession: true)
            try terminal.wait(for: "hello: vcpu 0")
            // In the background it leaves the terminal alone.
            #expect(terminal.settings == before)
            let children = try String(
                contentsOfFile: "/proc/\(child.identifier)/task/\(child.identifier)/children", encoding: .utf8
            )
            let process = try #require(pid_t(children.split(separator: " ").first.map(String.init) ?? ""))
            kill(process, SIGTSTP)
            #expect(eventually { terminal.settings.isRaw })
            #expect(folder.text("settings").contains(" icanon"))
            terminal.type([1, UInt8(ascii: "x")])
            #expect(try child.wait() == 130)
            #expect(terminal.settings == before)
        }

        @Test("started in the background, then fg: keys arrive")
        func background() throws {
            let folder = try TemporaryDirectory()
            let shell = try JobShell.withGuest(folder, "&")
            shell.terminal.type("echo shell $((40 + 2))\r")
            try shell.terminal.wait(for: "shell 42")
            shell.terminal.type("fg\r")
            try shell.expectConsole()
        }

        @Test("bg leaves the terminal to the shell")
        func continuedInBackground() throws {
            let folder = try TemporaryDirectory()
            let shell = try JobShell.withGuest(folder)
            shell.waitUntilRaw(true)
            kill(try shell.guest(folder), SIGTSTP)
            try shell.terminal.wait(for: "ready> ")
            shell.terminal.type("bg\r")
            try shell.terminal.wait(for: "&")
            usleep(600_000)
            shell.terminal.type("echo shell $((40 + 2))\r")
            try shell.terminal.wait(for: "shell 42")
            shell.terminal.type("fg\r")
            try shell.expectConsole()
        }
    }
}
