import Foundation
import GuestMemory
import LinuxHost
import TestSupport
import Testing

@testable import MingleSupport
import VMMProtocol

@Suite("Limits, and records that say nothing") struct SurroundingsTests {
    private static let nice = ProcessConstraint(kind: .priority, allowance: 4, description: "nice value 15")
    private static let group = ProcessConstraint(
        kind: .group(.memory, name: "/g"), allowance: 60 << 20, description: "60M of memory")

    private func report(_ constraints: [ProcessConstraint]) -> BrokerReport {
        var report = BrokerReport()
        report.constraints = constraints
        return report
    }

    @Test func aGuestIsWarnedOfWhatItDoesNotHaveItself() {
        #expect(BrokerService.warning(of: report([]), own: []) == nil)
        #expect(BrokerService.warning(of: report([Self.nice]), own: [Self.nice]) == nil)
        let warning = BrokerService.warning(of: report([Self.nice]), own: [])
        #expect(warning?.contains("nice value 15") == true)
        // Frames of all guests are charged there: that is felt by those, too, who are in it.
        let both = BrokerService.warning(of: report([Self.nice, Self.group]), own: [Self.nice, Self.group])
        #expect(both?.contains("60M of memory") == true && both?.contains("nice") == false)
    }

    @Test func statusAndDoctorNameWhatTheBrokerKeeps() {
        let limited = report([Self.nice])
        #expect(limited.table.contains("kept from whoever started it: nice value 15"))
        #expect(limited.json.text().contains("\"kept_limits\""))
        let check = Doctor.brokerCheck(limited)
        #expect(check.status == .warning && check.summary.contains("nice value 15") && check.remedy != nil)
        #expect(!report([]).table.contains("kept from") && Doctor.brokerCheck(report([])).status == .ok)
    }

    private func refusal(_ memory: UInt64, fileSize: UInt64?, openFiles: UInt64?) -> String? {
        do throws(SupportError) {
            try RunChecks.limits(
                memory: memory, cpus: 1, shares: true, fileSize: fileSize, openFiles: openFiles)
            return nil
        } catch { return error.description }
    }

    @Test func whatTheProcessMayNotIsRefusedWithItsReason() {
        #expect(refusal(8 << 20, fileSize: nil, openFiles: nil) == nil)
        #expect(refusal(8 << 20, fileSize: 8 << 20, openFiles: 50) == nil)
        #expect(refusal(8 << 20, fileSize: 8 << 20 - 1, openFiles: nil)?.contains("ulimit -f") == true)
        #expect(refusal(8 << 20, fileSize: nil, openFiles: 49)?.contains("ulimit -n") == true)
    }

    @Test func doctorJudgesLimits() {
        func check(_ files: UInt64?, _ fileSize: UInt64?) -> HostCheck {
            HostChecks.limits(files: files, locked: nil, space: nil, fileSize: fileSize)
        }
        #expect(check(1024, nil).status == .ok)
        #expect(check(100, nil).status == .warning)
        #expect(check(32, nil).status == .problem)
        #expect(check(1024, 4 << 20).status == .warning)
        #expect(check(1024, 4 << 20 - 1).status == .problem)
        let group = (left: UInt64(2), description: "raise pids.max")
        let crowded = HostChecks.limits(
            files: nil, locked: nil, space: nil, fileSize: nil, processes: group)
        #expect(crowded.status == .problem && crowded.remedy == "raise pids.max")
        #expect(check(1024, 0).remedy == "ulimit -f unlimited")
    }

    /// What a full disk left of records, of old versions.
    @Test(arguments: [[UInt8](repeating: 0, count: 129), [], Array("pid=1\nname=bad\n".utf8)])
    func aDamagedRecordKeepsNobodyFromTheOthers(_ bytes: [UInt8]) throws {
        let temporary = try TemporaryDirectory()
        let registry = GuestRegistry(directory: try temporary.state())
        let good = try HeldLock(try temporary.write("mingle/guests/web", record().text))
        let bad = try HeldLock(try temporary.write("mingle/guests/bad", bytes))
        defer { withExtendedLifetime((good, bad)) {} }
        let found = try registry.guests()
        #expect(found.running == [record()])
        let damaged = try #require(found.unreadable.first)
        #expect(found.unreadable.count == 1 && damaged.name == "bad")
        // The holder of the lock, which the kernel knows.
        #expect(damaged.process == getpid())
        #expect(damaged.description.contains("mingle stop bad"))
        // It is no VMM: nothing is done to it.
        #expect(throws: SupportError.self) { try GuestProcess.open("bad", in: registry) }
    }

    @Test func aRecordThatCannotBeOpenedIsDamagedToo() throws {
        let temporary = try TemporaryDirectory()
        let state = try temporary.state()
        let lock = try HeldLock(try temporary.write("mingle/guests/web", record().text))
        defer { withExtendedLifetime(lock) {} }
        try #require(symlink("/etc/hostname", state.guestsPath + "/link") == 0)
        try #require(mkdir(state.guestsPath + "/folder", 0o700) == 0)
        let held = try HeldLock(state.guestsPath + "/folder")
        defer { withExtendedLifetime(held) {} }
        let found = try GuestRegistry(directory: state).guests()
        #expect(found.running == [record()])
        #expect(found.unreadable.map(\.name) == ["folder"])
    }

    @Test func aGuestThatCannotBeCountedLetsNoneIn() throws {
        let temporary = try TemporaryDirectory()
        let registry = GuestRegistry(directory: try temporary.state())
        let lock = try HeldLock(try temporary.write("mingle/guests/bad", ""))
        defer { withExtendedLifetime(lock) {} }
        let admission = Admission(registry: registry)
        let error = #expect(throws: SupportError.self) {
            try admission.check(guests: 1, memoryBytes: 4 << 20, overcommits: false)
        }
        #expect(error?.description.contains("guest 'bad'") == true)
        #expect(throws: Never.self) {
            try admission.check(guests: 1, memoryBytes: 4 << 20, overcommits: true)
        }
    }

    @Test func whatAKilledWriterLeftGoesWithTheRecord() throws {
        let temporary = try TemporaryDirectory()
        let state = try temporary.state()
        try temporary.write("mingle/guests/web", record().text)
        let beside = try temporary.write("mingle/guests/.web.new", "pid=")
        #expect(try GuestRegistry(directory: state).guests().running.isEmpty)
        #expect(!SystemCall.exists(beside))
    }

    @Test func holdersOfLocks() throws {
        let temporary = try TemporaryDirectory()
        let path = try temporary.write("file", "x")
        let file = try SystemCall.linkStatus(path).get()
        #expect(LockHolder.process(of: file) == nil)
        let lock = try HeldLock(path)
        #expect(LockHolder.process(of: file) == getpid())
        lock.release()
        // Readers, and those who wait, hold nothing.
        let device = "\(hex(file.deviceMajor)):\(hex(file.deviceMinor)):\(file.inode)"
        try temporary.write(
            "proc/locks",
            """
            1: FLOCK  ADVISORY  READ 11 \(device) 0 EOF
            2: POSIX  ADVISORY  WRITE 12 \(device) 0 EOF
            3: FLOCK  ADVISORY  WRITE 13 00:01:1 0 EOF
            3: -> FLOCK  ADVISORY  WRITE 14 \(device) 0 EOF
            4: FLOCK  ADVISORY  WRITE 15 \(device) 0 EOF

            """)
        #expect(LockHolder.process(of: file, root: temporary.path) == 15)
    }

    private func hex(_ number: UInt) -> String {
        let text = String(number, radix: 16)
        return text.count < 2 ? "0" + text : text
    }

    @Test func settingsOfKSMAreWholeOrNotThere() throws {
        let temporary = try TemporaryDirectory()
        let state = try temporary.state()
        for (name, value) in [("run", "0"), ("pages_to_scan", "100"), ("sleep_millisecs", "20")] {
            try temporary.write("ksm/" + name, value + "\n")
        }
        let ksm = KSM(root: temporary.path + "/ksm")
        // What an experiment left that was killed while it wrote: no settings, and in nobody's way.
        try temporary.write("mingle/ksm-settings.new", "pages_to_scan=1")
        #expect(try !KSMLease.repair(ksm, in: state))
        let lease = try KSMLease(ksm, in: state)
        #expect(SystemCall.text(of: ksm.file(in: state)) == "pages_to_scan=100\nsleep_millisecs=20\nrun=0\n")
        #expect(!SystemCall.exists(ksm.file(in: state) + ".new"))
        #expect(throws: SupportError.self) { try KSMLease(ksm, in: state) }
        try lease.end()
        #expect(!SystemCall.exists(ksm.file(in: state)))
    }
}
