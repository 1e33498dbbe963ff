import Glibc
import TestSupport
import Testing

@testable import LinuxHost

@Suite struct LockTests {
    @Test func oneHasItOrAllShareIt() throws {
        let folder = try TemporaryDirectory()
        let path = folder.path("lock")
        let first = try OwnedDescriptor.open(path, flags: O_RDWR | O_CREAT)
        let second = try OwnedDescriptor.open(path, flags: O_RDWR)
        #expect(try first.lock(shared: true) && second.lock(shared: true))
        #expect(try !second.lock())
        first.unlock()
        #expect(try second.lock() && !first.lock(shared: true))
        second.unlock()
        #expect(try first.lock(waits: true))
        #expect(throws: LinuxError(operation: "flock", code: EBADF, subject: "x")) {
            try LockedFile.lock(-1, "x")
        }
    }
}
