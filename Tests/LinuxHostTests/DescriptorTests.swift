import Foundation
import TestSupport
import Testing

@testable import LinuxHost

private func isOpen(_ number: Int32) -> Bool { fcntl(number, F_GETFD) >= 0 }

@Suite(.serialized) struct DescriptorTests {
    @Test func theOwnerClosesItsDescriptor() throws {
        // A number far from those that other tests get meanwhile.
        let number = fcntl(0, F_DUPFD_CLOEXEC, 900)
        try #require(number >= 900)
        do {
            let owner = OwnedDescriptor(adopting: number)
            #expect(isOpen(owner.number))
        }
        #expect(!isOpen(number))
    }

    @Test func everyDescriptorIsClosedOnExec() throws {
        let directory = try TemporaryDirectory()
        let file = try OwnedDescriptor.open(directory.write("a", [1]), flags: O_RDONLY)
        let memory = try OwnedDescriptor.memoryFile(named: "test")
        let event = try OwnedDescriptor.event()
        for number in [file.number, memory.number, event.number] {
            #expect(fcntl(number, F_GETFD) & FD_CLOEXEC != 0)
        }
    }

    @Test func filesTellTheirSizeAndKind() throws {
        let directory = try TemporaryDirectory()
        let file = try OwnedDescriptor.open(directory.write("a", [1, 2, 3]), flags: O_RDONLY)
        #expect(try file.fileSize() == 3)
        #expect(try file.isRegularFile())
        #expect(try file.read(count: 10, at: 1) == [2, 3])
        #expect(try file.read(count: 10, at: 3) == [])
        #expect(try file.read(count: 0, at: 0) == [])
        #expect(throws: LinuxError(operation: "pread", code: EINVAL)) {
            try file.read(count: 1, at: UInt64.max)
        }
        #expect(throws: LinuxError(operation: "pread", code: EINVAL)) { try file.read(count: -1, at: 0) }
        let folder = try OwnedDescriptor.open(directory.path, flags: O_RDONLY)
        #expect(try !folder.isRegularFile())
        #expect(throws: LinuxError(operation: "pread", code: EISDIR)) { try folder.read(count: 1, at: 0) }
        let missing = directory.path("none")
        do {
            _ = try OwnedDescriptor.open(missing, flags: O_RDONLY)
            Issue.record("a file that is not there was opened")
        } catch { #expect(error == LinuxError(operation: "open", code: ENOENT, subject: missing)) }
    }

    @Test func memoryFilesGrow() throws {
        let file = try OwnedDescriptor.memoryFile(named: "test")
        try file.truncate(to: 5 << 30)
        #expect(try file.fileSize() == 5 << 30)
        #expect(throws: LinuxError(operation: "ftruncate", code: EFBIG)) { try file.truncate(to: UInt64.max) }
        let none = OwnedDescriptor(adopting: -1)
        #expect(throws: LinuxError(operation: "ftruncate", code: EBADF, subject: "1 bytes")) {
            try none.truncate(to: 1)
        }
        #expect(throws: LinuxError(operation: "fstat", code: EBADF)) { try none.fileSize() }
    }

    @Test func eventsWakeAndAreDrained() throws {
        let event = try OwnedDescriptor.event()
        func isReadable() -> Bool {
            var entry = pollfd(fd: event.number, events: Int16(POLLIN), revents: 0)
            return poll(&entry, 1, 0) == 1
        }
        #expect(!isReadable())
        event.drainEvent()
        event.signalEvent()
        event.signalEvent()
        #expect(isReadable())
        event.drainEvent()
        #expect(!isReadable())
    }
}

@Suite struct LinuxErrorTests {
    @Test func textsSayWhatFailedOnWhat() {
        let error = LinuxError(operation: "mmap", code: ENOMEM, subject: "guest RAM")
        #expect(error.description == "mmap (guest RAM): Cannot allocate memory (errno 12)")
        #expect(
            LinuxError(operation: "open", code: ENOENT).description
                == "open: No such file or directory (errno 2)")
        #expect(LinuxError.message(99_999) == "error 99999")
    }

    @Test func negativeResultsAreErrors() throws {
        #expect(try checked(0, "x") == 0)
        #expect(try checked(7, "x") == 7)
        #expect(throws: LinuxError(operation: "x", code: EBADF, subject: "y")) {
            try checked(-EBADF, "x", "y")
        }
    }

    @Test func mappingsThatCannotBeAreErrors() throws {
        func code(_ body: () throws(LinuxError) -> Void) -> Int32 {
            do { try body() } catch { return error.code }
            return 0
        }
        #expect(code { () throws(LinuxError) in _ = try MemoryMapping.anonymous(sizeInBytes: 0) } == EINVAL)
        #expect(
            code { () throws(LinuxError) in _ = try MemoryMapping.anonymous(sizeInBytes: UInt64.max) }
                == EINVAL)
        #expect(
            code { () throws(LinuxError) in _ = try MemoryMapping.anonymous(sizeInBytes: 1 << 62) } == ENOMEM)
        let none = OwnedDescriptor(adopting: -1)
        #expect(throws: LinuxError(operation: "mmap", code: EBADF, subject: "guest RAM")) {
            _ = try MemoryMapping.guestMemory(of: none, sizeInBytes: 4096)
        }
        let mapping = try MemoryMapping.anonymous(sizeInBytes: 4096)
        #expect(mapping.sizeInBytes == 4096)
    }
}

@Suite("Files that several processes use in turns")
struct LeasedFileTests {
    @Test("one speaks at a time; what it said goes when it gives it back")
    func turns() throws {
        let folder = try TemporaryDirectory()
        var first = try LeasedFile(folder.path("file"))
        var second = try LeasedFile(folder.path("file"))
        #expect(try first.write("first, and long"))
        #expect(try !second.write("second"))
        #expect(folder.text("file") == "first, and long")
        #expect(try first.write("again") && folder.text("file") == "again")
        first.giveBack()
        #expect(folder.text("file") == "")
        #expect(try second.write("second") && folder.text("file") == "second")
        #expect(try !first.write("first"))
    }
}
