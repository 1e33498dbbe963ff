import Foundation
import GuestMemory
import LinuxHost
import TestSupport
import Testing

@testable import MingleSupport
import VMMProtocol

@Suite("Whether guests' worst case fits") struct AdmissionTests {
    private let temporary: TemporaryDirectory
    private let state: StateDirectory
    private var admission: Admission {
        Admission(registry: GuestRegistry(directory: state), root: temporary.path)
    }

    init() throws {
        temporary = try TemporaryDirectory()
        state = try temporary.state()
        // 8 GiB, 4 of them available, 80 MiB (1 %) of those in reserve.
        try temporary.write(
            "proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nSwapFree: 99999999 kB\n")
    }

    /// The largest size of which one guest fits in so many bytes.
    private func fitting(_ bytes: UInt64) -> UInt64 { (bytes - (4 << 20)) / 129 * 128 & ~4095 }

    @Test("one that fits is let in, one page more is not, and swap is not counted")
    func edge() throws {
        let room: UInt64 = (4 << 30) - (8 << 30) / 100
        let largest = fitting(room)
        #expect(try admission.check(guests: 1, memoryBytes: largest, overcommits: false) == nil)
        let error = #expect(throws: SupportError.self) {
            try admission.check(guests: 1, memoryBytes: largest + (2 << 20), overcommits: false)
        }
        let text = try #require(error?.description)
        for part in ["this host has 4G available", "81.9M kept in reserve", "--memory", "--overcommit"] {
            #expect(text.contains(part), "\(text)")
        }
        #expect(!text.contains("promised"))
    }

    @Test("all guests of an experiment are counted at once")
    func several() throws {
        #expect(try admission.check(guests: 3, memoryBytes: 1 << 30, overcommits: false) == nil)
        let error = #expect(throws: SupportError.self) {
            try admission.check(guests: 4, memoryBytes: 1 << 30, overcommits: false)
        }
        #expect(error?.description.contains("4 guests of 1G may come to need 4") == true)
        for (guests, bytes) in [(256, UInt64.max & ~4095), (1, .max & ~4095), (1, 80 << 30)] {
            #expect(throws: SupportError.self) {
                try admission.check(guests: guests, memoryBytes: bytes, overcommits: false)
            }
        }
    }

    @Test("--overcommit turns the refusal into a warning that says how much is missing")
    func overcommit() throws {
        #expect(try admission.check(guests: 1, memoryBytes: 1 << 30, overcommits: true) == nil)
        let warning = try #require(try admission.check(guests: 1, memoryBytes: 80 << 30, overcommits: true))
        #expect(warning.contains("too little") && warning.contains("76."), "\(warning)")
    }

    @Test("what running guests were promised and do not hold is taken off")
    func promises() throws {
        // Two guests of 128 MiB and one of 3 GiB, all of them this process, which holds little of that.
        var held: [HeldLock] = []
        for (name, bytes) in [("a", 128 << 20), ("b", 128 << 20), ("c", 3 << 30)] as [(String, UInt64)] {
            var guest = record(name: name)
            guest.memoryBytes = bytes
            held.append(try HeldLock(temporary.write("mingle/guests/\(name)", guest.text)))
        }
        #expect(try admission.check(guests: 1, memoryBytes: 256 << 20, overcommits: false) == nil)
        let error = #expect(throws: SupportError.self) {
            try admission.check(guests: 1, memoryBytes: 1 << 30, overcommits: false)
        }
        #expect(error?.description.contains("of it promised to 3 running guests") == true)
        held.removeAll()
        #expect(try admission.check(guests: 1, memoryBytes: 1 << 30, overcommits: false) == nil)
    }

    @Test("a control group bounds what is started in it, and only guests of it count there")
    func groups() throws {
        try temporary.write("sys/fs/cgroup/cgroup.controllers", "memory\n")
        try temporary.write("proc/self/cgroup", "0::/user/box\n")
        try temporary.write("sys/fs/cgroup/user/box/memory.max", "max\n")
        try temporary.write("sys/fs/cgroup/user/memory.max", "\(1 << 30)\n")
        try temporary.write("sys/fs/cgroup/user/memory.high", "\(512 << 20)\n")
        try temporary.write("sys/fs/cgroup/user/memory.current", "\(200 << 20)\n")
        try temporary.write(
            "sys/fs/cgroup/user/memory.stat",
            "anon 1\nfile 9\nactive_file \(60 << 20)\ninactive_file \(40 << 20)\n")
        let bounds = MemoryBound.all(root: temporary.path)
        #expect(bounds.map(\.group) == [nil, "/user"])
        #expect(bounds[1].totalBytes == 512 << 20)
        // Pages of files can be read again.
        #expect(bounds[1].availableBytes == (512 - 100) << 20)
        #expect(bounds[1].reserveBytes == 64 << 20)
        #expect(try admission.check(guests: 1, memoryBytes: 256 << 20, overcommits: false) == nil)
        let error = #expect(throws: SupportError.self) {
            try admission.check(guests: 1, memoryBytes: 384 << 20, overcommits: false)
        }
        #expect(error?.description.contains("the control group /user has 412M available") == true)
        #expect(error?.description.contains("raise the control group's limit") == true)

        let elsewhere = Admission.Promise(
            bytes: 1 << 30, membership: ControlGroupMembership(text: "0::/users\n"))
        let inside = Admission.Promise(
            bytes: 300 << 20, membership: ControlGroupMembership(text: "0::/user/other\n"))
        #expect(Admission.shortage(bounds, promises: [elsewhere], wanted: 256 << 20) == nil)
        let shortage = Admission.shortage(bounds, promises: [elsewhere, inside], wanted: 256 << 20)
        #expect(shortage?.bound.group == "/user" && shortage?.promisedGuests == 1)
        #expect(shortage?.bytes == (300 + 256 - (412 - 64)) << 20)
    }

    @Test("frames that are charged to another group may all have to be had again in this one")
    func framesElsewhere() {
        let group = MemoryBound(group: "/g", totalBytes: 512 << 20, availableBytes: 256 << 20)
        let host = MemoryBound(totalBytes: 8 << 30, availableBytes: 4 << 30)
        var promise = Admission.Promise(
            bytes: 20 << 20, membership: ControlGroupMembership(text: "0::/g/guest\n"))
        promise.bytesWithoutFrames = 120 << 20
        // Not known where, and within the group: its usage tells of them.
        #expect(promise.bytes(of: group) == 20 << 20)
        promise.frames = ControlGroupMembership(text: "0::/g/mingle-broker.1\n")
        #expect(promise.bytes(of: group) == 20 << 20)
        promise.frames = ControlGroupMembership(text: "0::/mingle-broker.1\n")
        #expect(promise.bytes(of: group) == 120 << 20)
        // To the host it is all the same.
        #expect(promise.bytes(of: host) == 20 << 20)
        let room = group.availableBytes - group.reserveBytes
        #expect(Admission.shortage([host, group], promises: [promise], wanted: room - (120 << 20)) == nil)
        #expect(
            Admission.shortage([host, group], promises: [promise], wanted: room - (119 << 20))?.bytes == 1
                << 20)
    }

    @Test("groups of version 1, with their own names for all of it")
    func versionOne() throws {
        try temporary.write("proc/self/cgroup", "7:cpu:/elsewhere\n4:memory:/x\n0::/y\n")
        let folder = "sys/fs/cgroup/memory/x"
        try temporary.write("\(folder)/memory.limit_in_bytes", "\(256 << 20)\n")
        try temporary.write("\(folder)/memory.usage_in_bytes", "\(100 << 20)\n")
        try temporary.write("\(folder)/memory.stat", "active_file 1\ntotal_inactive_file \(30 << 20)\n")
        try temporary.write("\(folder)/memory.memsw.limit_in_bytes", "\(300 << 20)\n")
        try temporary.write("\(folder)/memory.memsw.usage_in_bytes", "\(110 << 20)\n")
        let bound = try #require(MemoryBound.all(root: temporary.path).last)
        #expect(bound.group == "/x" && bound.totalBytes == 256 << 20)
        #expect(bound.availableBytes == (256 - 70) << 20)
        // 10 of 44 MiB of swap are used.
        #expect(bound.swapFreeBytes == 34 << 20)
        #expect(bound.reserveBytes == 32 << 20)
    }

    @Test("a host that does not say how much memory it has refuses nobody")
    func unknown() throws {
        try temporary.write("proc/meminfo", "nothing\n")
        #expect(try admission.check(guests: 1, memoryBytes: 1 << 50, overcommits: false) == nil)
    }

    @Test("the lock keeps others waiting until its last holder closes it")
    func lock() throws {
        let first = try AdmissionLock.take(in: state)
        let error = #expect(throws: SupportError.self) { _ = try AdmissionLock.take(in: state, seconds: 0) }
        #expect(error?.description.contains("starting guests") == true)
        let number = try first.passOn()
        #expect(throws: SupportError.self) { _ = try AdmissionLock.take(in: state, seconds: 0) }
        #expect(fcntl(number, F_GETFD) == 0)
        close(number)
        _ = try AdmissionLock.take(in: state, seconds: 0)
    }
}
