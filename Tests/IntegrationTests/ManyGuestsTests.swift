import Foundation
import LinuxHost
import GuestMemory
import Testing

@testable import Hypervisor
import TestSupport

extension HostKVM {
    /// In processes of their own, where nobody else opens files, starts threads or reaps children.
    @Suite("64 guests leave nothing behind")
    struct ManyGuestsTests {
        @Test("64 processes at once, stopped by SIGTERM")
        func processes() async {
            let result = await #expect(processExitsWith: .success, observing: [\.standardErrorContent]) {
                saying {
                    let folder = try TemporaryDirectory()
                    let options = ["--state-dir", try folder.stateDirectory()]
                    let descriptors = try ownDescriptors()
                    var guests: [VMMProcess] = []
                    for index in 0..<64 {
                        guests.append(
                            // Each touches 8 MiB, then sleeps.
                            try VMMProcess(
                                "hello", "do=write pages=2048 stride=1",
                                options: options + ["--serial", "file:\(folder.path("serial\(index)"))"],
                                folder: folder, name: "g\(index)"))
                    }
                    try check(
                        eventually {
                            (0..<64).allSatisfy {
                                folder.text("state/guests/g\($0)").contains("state=running")
                                    && folder.text("serial\($0)").contains("wrote pages=2048")
                            }
                        }, "all run: \(folder.text("errors"))")
                    let before = try sharedMemory()
                    guests.forEach { $0.child.kill(SIGTERM) }
                    for guest in guests {
                        try check(try guest.wait() == 143, "ended by the signal: \(guest.errors)")
                    }
                    let identifiers = guests.map(\.child.identifier)
                    guests = []
                    for identifier in identifiers {
                        try check(kill(identifier, 0) != 0 && errno == ESRCH, "no process")
                    }
                    try check(waitpid(-1, nil, WNOHANG) < 0 && errno == ECHILD, "no zombie")
                    try check(
                        try ownDescriptors() == descriptors,
                        "descriptors: \(try ownDescriptors()) of \(descriptors)")
                    try check(
                        (0..<64).allSatisfy { !isLocked(folder.path("state/guests/g\($0)")) },
                        "no record is held")
                    // 512 MiB were in use; the rest is for others on this host, who may use some meanwhile.
                    try check(
                        eventually { (try? sharedMemory()) ?? 0 < before - 448 << 20 },
                        "shared memory: \(try sharedMemory()) of \(before)")
                }
            }
            recordComplaint(result)
        }

        @Test("64 machines in one process, one after another")
        func machines() async {
            let result = await #expect(processExitsWith: .success, observing: [\.standardErrorContent]) {
                saying {
                    func runOne(_ index: Int) throws {
                        let guest = try TestGuest(
                            "hello", index % 3 == 0 ? "" : "do=sleep", processors: index % 4 + 1)
                        if index % 8 == 7 { return }  // never started
                        try guest.start()
                        try guest.doorbell(1)
                    }
                    // The first one also opens what the libraries keep.
                    try runOne(0)
                    let (descriptors, threads) = (try ownDescriptors(), try ownThreads())
                    for index in 0..<64 { try runOne(index) }
                    try check(
                        try ownDescriptors() == descriptors,
                        "descriptors: \(try ownDescriptors()) of \(descriptors)")
                    try check(eventually { (try? ownThreads()) == threads }, "threads: \(try ownThreads())")
                }
            }
            recordComplaint(result)
        }
    }
}

/// Ends this process, after saying what went wrong: a failing one could not be listened to.
private func saying(_ body: () throws -> Void) -> Never {
    do { try body() } catch { FileHandle.standardError.write(Data("\nnot so: \(error)\n".utf8)) }
    exit(0)
}

/// Repeats here what ``saying(_:)`` said in the other process.
private func recordComplaint(_ result: ExitTest.Result?) {
    let lines = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self).split(separator: "\n")
    for line in lines where line.contains("not so: ") { Issue.record("\(line)") }
}

private func check(_ condition: Bool, _ what: @autoclosure () throws -> String) throws {
    if !condition { throw Failure(try what()) }
}

/// What this process has open, without the descriptor that reads the list, without the timers that the tests' own runtime
/// makes when it feels like it, and without what ``Pace`` looks at.
private func ownDescriptors() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").compactMap {
        try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\($0)")
    }.filter { $0 != "anon_inode:[timerfd]" && !$0.hasSuffix("/fd") && $0 != "/proc/loadavg" }.sorted()
}

private func ownThreads() throws -> Set<String> {
    Set(
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").compactMap { thread in
            (try? String(contentsOfFile: "/proc/self/task/\(thread)/comm", encoding: .utf8)).map {
                "\(thread) \($0)"
            }
        }.filter { $0.contains("vcpu") })
}

/// Shmem of the host in bytes.
private func sharedMemory() throws -> Int {
    let found = SmallFile.table(SystemCall.text(of: "/proc/meminfo") ?? "")
    guard let kilobytes = found["Shmem"] else { throw Failure("no Shmem in /proc/meminfo") }
    return Int(kilobytes) << 10
}
