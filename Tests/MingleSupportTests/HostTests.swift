import LinuxHost
import TestSupport
import Testing

@testable import MingleSupport
import VMMProtocol
import GuestMemory
import ImageFormats

@Suite struct ProcessMemoryTests {
    @Test func readsProportionalShares() {
        let text = """
            55e61b526000-7fff175ed000 ---p 00000000 00:00 0                          [rollup]
            Rss:               91836 kB
            Pss:               90427 kB
            Pss_Anon:            112 kB
            Pss_File:            315 kB
            Pss_Shmem:         90000 kB
            """
        let memory = ProcessMemory(smapsRollup: text)
        #expect(memory == ProcessMemory(anonymousBytes: 112 << 10, sharedMemoryBytes: 90000 << 10))
        #expect(memory?.residentBytes == 90112 << 10)
    }

    @Test func missingLinesAndProcesses() {
        #expect(ProcessMemory(smapsRollup: "") == nil)
        #expect(ProcessMemory(smapsRollup: "Pss_Anon: 1 kB\n") == nil)
        #expect(ProcessMemory(process: Int32.max) == nil)
    }

    @Test func ourOwnIsPlausible() throws {
        let memory = try #require(ProcessMemory(process: Console.process))
        #expect(memory.anonymousBytes > 64 << 10)
    }
}

extension ProcessMemory {
    init(anonymousBytes: UInt64, sharedMemoryBytes: UInt64) {
        self.init(
            smapsRollup: "Pss_Anon: \(anonymousBytes >> 10) kB\nPss_Shmem: \(sharedMemoryBytes >> 10) kB")!
    }
}

@Suite struct RunChecksTests {
    private let checks = RunChecks(processorCount: 2)

    @Test func memoryThatFits() throws {
        try RunChecks.memory(32 << 20, isPayload: false)
        try RunChecks.memory(4 << 20, isPayload: true)
        try RunChecks.memory(140 << 30, isPayload: true)
        try RunChecks.memory(256 << 30, isPayload: false)
    }

    @Test(
        arguments: [
            ((32 << 20) - 4096, false, "--memory 32M or more"),
            ((4 << 20) - 4096, true, "--memory 4M or more"),
            ((32 << 20) + 1, false, "whole pages"),
            ((140 << 30) + 4096, true, "use --memory 140G or less"),
            ((256 << 30) + 4096, false, "use --memory 256G or less"),
            (.max, false, "use --memory 256G or less"),
        ] as [(UInt64, Bool, String)])
    func memoryThatDoesNot(_ bytes: UInt64, _ isPayload: Bool, _ text: String) {
        let error = #expect(throws: SupportError.self) { try RunChecks.memory(bytes, isPayload: isPayload) }
        #expect(error?.description.contains(text) == true)
    }

    @Test func cpus() throws {
        #expect(try checks.cpus(2).isEmpty)
        #expect(try checks.cpus(3).count == 1)
        #expect(try checks.cpus(32).count == 1)
        for count in [0, -1, 33] { #expect(throws: SupportError.self) { try checks.cpus(count) } }
    }

    @Test func images() throws {
        try checks.fits(memory: 32 << 20, kernelBytes: 16 << 20, initrdBytes: (16 << 20) - 1)
        #expect(throws: SupportError.self) {
            try checks.fits(memory: 32 << 20, kernelBytes: 16 << 20, initrdBytes: 16 << 20)
        }
        #expect(throws: SupportError.self) {
            try checks.fits(memory: .max, kernelBytes: .max, initrdBytes: 1)
        }
    }

    @Test func files() throws {
        let temporary = try TemporaryDirectory()
        let file = try temporary.write("initrd", "12345")
        #expect(try RunChecks.readableFile(file, what: "the initrd") == 5)
        #expect(try SystemCall.contents(of: file) == Array("12345".utf8))
        #expect(throws: SupportError.self) { try SystemCall.contents(of: file, limit: 4) }
        try temporary.write("folder/below/more", "123")
        #expect(SystemCall.storedBytes(temporary.path) == 8)
        #expect(SystemCall.storedBytes(temporary.path + "/none") == 0)
        #expect(throws: SupportError.self) { try RunChecks.readableFile(temporary.path, what: "the initrd") }
        #expect(throws: SupportError.self) { try RunChecks.readableFile(file + "x", what: "the initrd") }
        try RunChecks.writableFile(file, option: "--report")
        try RunChecks.writableFile(file + "x", option: "--report")
        #expect(!SystemCall.exists(file + "x"))
        #expect(throws: SupportError.self) {
            try RunChecks.writableFile(temporary.path + "/none/x", option: "--report")
        }
    }
}

@Suite struct VMMInvocationTests {
    @Test func leastArguments() {
        let invocation = VMMInvocation(name: "a", memoryBytes: 4096, cpuCount: 1, kernel: "/k")
        #expect(
            invocation.arguments == [
                "--name", "a", "--memory", "4096", "--cpus", "1", "--kernel", "/k", "--boot", "auto",
                "--serial",
                "stdio", "--log-level", "warning",
            ])
    }

    @Test func allArguments() {
        var invocation = VMMInvocation(name: "a", memoryBytes: 4096, cpuCount: 3, kernel: "/k")
        invocation.boot = .pvh
        invocation.initrds = ["/i", "/proc/self/fd/3"]
        invocation.commandLine = "x y"
        invocation.serial = .file(path: "/s")
        invocation.sendsEndOfFile = true
        invocation.timeoutSeconds = 9
        invocation.graceSeconds = 0
        invocation.logLevel = .debug
        invocation.stateDirectory = "/d"
        invocation.seed = .max
        invocation.guestIndex = 4
        invocation.payloadArguments = "p q"
        invocation.dirtyLog = .manual
        invocation.report = "/r"
        invocation.image = "debian\n6"
        invocation.overcommits = true
        invocation.admission = 7
        #expect(
            invocation.arguments.dropFirst(8).joined(separator: "|")
                == "--boot|pvh|--initrd|/i|--initrd|/proc/self/fd/3|--cmdline|x y|--serial|file:/s|--eof-to-guest"
                + "|--timeout|9|--grace|0|--log-level|debug|--state-dir|/d|--seed|18446744073709551615"
                + "|--guest-index|4|--arguments|p q|--dirty-log|manual|--report|/r|--image|debian?6"
                + "|--overcommit|--admission|7")
    }

    @Test func anonymousFilesHoldTheirBytes() throws {
        let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0) }
        let file = try AnonymousFile.make("test", holding: bytes)
        #expect(try SystemCall.read(file.number, count: 200_000, at: 0).get() == bytes)
        let path = try VMMProgram.inherited(file)
        #expect(try RunChecks.readableFile(path, what: "it") == 100_000)
    }
}
