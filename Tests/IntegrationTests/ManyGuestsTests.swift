import Foundation
import GuestMemory
import Testing

@testable import Hypervisor

extension HostKVM {
    /// In processes of their own, where nobody else opens files, starts threads or reaps children.
    @Suite("64 guests leave nothing behind")
    struct ManyGuestsTests {
        @Test("64 processes at once, stopped by SIGTERM")
        func processes() async {
            await #expect(processExitsWith: .success) {
                let folder = try TemporaryFolder()
                let options = ["--state-dir", try folder.stateDirectory(), "--serial", "none"]
                let descriptors = try ownDescriptors()
                let before = try sharedMemory()
                var guests: [VMMProcess] = []
                for index in 0..<64 {
                    guests.append(
                        // Each touches 8 MiB, then sleeps.
                        try VMMProcess(
                            "hello", "do=write pages=2048 stride=1", options: options, folder: folder,
                            name: "g\(index)"))
                }
                try check(
                    eventually {
                        (0..<64).allSatisfy { folder.text("state/guests/g\($0)").contains("state=running") }
                    }, "all run: \(folder.text("errors"))")
                try check(
                    eventually { (try? sharedMemory()) ?? 0 > before + 400 << 20 }, "512 MiB are in use")
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
                try check(try ownDescriptors() == descriptors, "no descriptor")
                try check(try folder.namesOfState("guests").isEmpty, "no record")
                // 8 MiB a guest were in use; others on this host may use some meanwhile.
                try check(eventually { (try? sharedMemory()) ?? 0 < before + 64 << 20 }, "no memory")
                exit(0)
            }
        }

        @Test("64 machines in one process, one after another")
        func machines() async {
            await #expect(processExitsWith: .success) {
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
                exit(0)
            }
        }
    }
}

private func check(_ condition: Bool, _ what: String) throws {
    if !condition {
        FileHandle.standardError.write(Data("not so: \(what)\n".utf8))
        throw Failure(what)
    }
}

/// What this process has open, without the descriptor that reads the list.
private func ownDescriptors() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").compactMap {
        try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\($0)")
    }.filter { !$0.hasSuffix("/fd") }.sorted()
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
    let text = try String(contentsOfFile: "/proc/meminfo", encoding: .utf8)
    guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("Shmem:") }),
        let kilobytes = Int(line.split(separator: " ")[1])
    else { throw Failure("no Shmem in /proc/meminfo") }
    return kilobytes << 10
}
