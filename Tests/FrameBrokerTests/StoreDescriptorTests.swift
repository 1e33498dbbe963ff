import CLinux
import Foundation
import GuestMemory
@testable import LinuxHost
import Testing
import TestSupport

@testable import FrameBroker
@testable import Sharing
import BrokerClient

/// What the module of the C library leaves out.
private enum Calls {
    typealias Copy =
        @convention(c) (
            Int32, UnsafeMutablePointer<off_t>?, Int32, UnsafeMutablePointer<off_t>?, Int, UInt32
        ) -> Int
    static var splice: Copy { symbol("splice") }
    static var copyFileRange: Copy { symbol("copy_file_range") }
    static var vmsplice: @convention(c) (Int32, UnsafeMutablePointer<iovec>, Int, UInt32) -> Int {
        symbol("vmsplice")
    }
    static var fallocate: @convention(c) (Int32, Int32, off_t, off_t) -> Int32 { symbol("fallocate") }
    private static func symbol<Function>(_ name: String) -> Function {
        unsafeBitCast(dlsym(nil, name), to: Function.self)
    }
}

/// Invariant 3, from the client's side: all that can be tried against the store with the descriptor that it is given, and what
/// comes of it. docs/security.md tells the same; what succeeds is said there, too.
@Suite(.serialized) struct StoreDescriptorTests {
    /// Who tries. The owner is the broker's own user without root's powers.
    enum Role: CaseIterable { case root, owner, stranger }
    /// 0: succeeds; else the error's number.
    struct Attempt {
        let name: String
        /// For root, the owner, a stranger.
        let expected: [Int32]
        let body: (Victim) -> Int32

        init(_ name: String, _ expected: Int32..., body: @escaping (Victim) -> Int32) {
            self.name = name
            self.expected = expected.count == 1 ? [expected[0], expected[0], expected[0]] : expected
            self.body = body
        }
    }

    final class Victim {
        let number: Int32
        let link: String
        let memory: Int32
        let source: Int32
        var writable: Int32 = -1
        init(_ number: Int32) {
            self.number = number
            link = "/proc/self/fd/\(number)"
            // A process that changes its user may not open these any more.
            memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC)
            source = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)
        }
        deinit { for file in [memory, source] { close(file) } }
        func result(_ value: Int) -> Int32 { value < 0 ? errno : 0 }
        /// With a mapping of the first page, or the error of making it.
        func mapped(_ protection: Int32, _ flags: Int32, _ body: (UnsafeMutableRawPointer) -> Int32) -> Int32
        {
            guard let page = mmap(nil, 4096, protection, flags, number, 0), page != MAP_FAILED else {
                return errno
            }
            defer { munmap(page, 4096) }
            return body(page)
        }
        func opened(_ flags: Int32, _ body: (Int32) -> Int32 = { _ in 0 }) -> Int32 {
            let file = open(link, flags | O_CLOEXEC)
            if file < 0 { return errno }
            defer { close(file) }
            return body(file)
        }
    }

    private static let bytes = [UInt8](repeating: 0xAA, count: 4096)

    /// None of these changes a byte, whatever they return.
    private static var harmless: [Attempt] {
        [
            Attempt("write", EBADF) { $0.result(write($0.number, bytes, 4096)) },
            Attempt("pwrite", EBADF) { $0.result(pwrite($0.number, bytes, 4096, 0)) },
            Attempt("ftruncate to nothing", EINVAL) { $0.result(Int(ftruncate($0.number, 0))) },
            Attempt("ftruncate to more", EINVAL) { $0.result(Int(ftruncate($0.number, 1 << 50))) },
            Attempt("truncate by name", EPERM, EACCES, EACCES) { $0.result(Int(truncate($0.link, 0))) },
            Attempt("punch", EBADF) { -mingle_punch_hole($0.number, 0, 4096) },
            Attempt("fallocate", EBADF) { $0.result(Int(Calls.fallocate($0.number, 0, 0, 4096))) },
            Attempt("seal", EPERM) { $0.result(Int(mingle_fcntl($0.number, 1033, 0x10))) },
            Attempt("shared writable mapping", EACCES) {
                $0.mapped(PROT_READ | PROT_WRITE, MAP_SHARED) { _ in 0 }
            },
            Attempt("mprotect of a shared mapping", EACCES) { victim in
                victim.mapped(PROT_READ, MAP_SHARED) {
                    victim.result(Int(mprotect($0, 4096, PROT_READ | PROT_WRITE)))
                }
            },
            Attempt("private mapping, written: a copy", 0) {
                $0.mapped(PROT_READ | PROT_WRITE, MAP_PRIVATE) {
                    memset($0, 0xAA, 4096)
                    return 0
                }
            },
            Attempt("MADV_REMOVE of a shared mapping", EACCES) { victim in
                victim.mapped(PROT_READ, MAP_SHARED) {
                    victim.result(Int(madvise($0, 4096, Int32(MADV_REMOVE))))
                }
            },
            Attempt("MADV_REMOVE of a private mapping", EACCES) { victim in
                victim.mapped(PROT_READ | PROT_WRITE, MAP_PRIVATE) {
                    victim.result(Int(madvise($0, 4096, Int32(MADV_REMOVE))))
                }
            },
            Attempt("/proc/self/mem over a shared mapping", EIO) { memory($0, MAP_SHARED) },
            Attempt("/proc/self/mem over a private mapping: a copy", 0) { memory($0, MAP_PRIVATE) },
            Attempt("UFFDIO_REGISTER of a shared mapping", EPERM) { victim in
                guard let userFault = UserFault.open() else { return EPERM }
                return victim.mapped(PROT_READ, MAP_SHARED) {
                    do throws(LinuxError) {
                        try userFault.register(UInt(bitPattern: $0), 4096, .missing)
                        return 0
                    } catch { return error.code }
                }
            },
            Attempt("splice into it", EBADF) {
                piped($0, fills: true) { victim, reader, _ in
                    Calls.splice(reader, nil, victim.number, nil, 4096, 0)
                }
            },
            Attempt("sendfile into it", EBADF) {
                $0.result(sendfile($0.number, $0.source, nil, 4096))
            },
            Attempt("copy_file_range into it", EBADF) {
                $0.result(Calls.copyFileRange($0.source, nil, $0.number, nil, 4096, 0))
            },
            // Pages of the file in a pipe: what is written to the pipe later must not end in them.
            Attempt("splice out of it, and a write to the pipe", 0) {
                piped($0, fills: false) {
                    var offset: off_t = 0
                    guard Calls.splice($0.number, &offset, $2, nil, 1, 0) == 1 else { return -1 }
                    return write($2, bytes, 4096)
                }
            },
            Attempt("vmsplice out of it, and a write to the pipe", 0) { victim in
                victim.mapped(PROT_READ, MAP_SHARED) { page in
                    piped(victim, fills: false) {
                        var part = iovec(iov_base: page, iov_len: 1)
                        guard Calls.vmsplice($2, &part, 1, 0) == 1 else { return -1 }
                        return write($2, bytes, 4096)
                    }
                }
            },
            Attempt("opening for writing", 0, EACCES, EACCES) { $0.opened(O_RDWR) },
            Attempt("opening and truncating", EPERM, EACCES, EACCES) { $0.opened(O_RDWR | O_TRUNC) },
            Attempt("giving it to another user", 0, EPERM, EPERM) {
                var status = stat()
                fstat($0.number, &status)
                return $0.result(Int(fchown($0.number, status.st_uid == 0 ? 0 : 12345, gid_t.max)))
            },
        ]
    }

    /// The hole to know, in its order.
    private static var hole: [Attempt] {
        [
            Attempt("fchmod", 0, 0, EPERM) { $0.result(Int(fchmod($0.number, 0o600))) },
            Attempt("opening for writing after fchmod", 0, 0, EACCES) {
                $0.writable = open($0.link, O_RDWR | O_CLOEXEC)
                return $0.result(Int($0.writable))
            },
        ]
    }

    /// Even so: the size holds, so that no guest can be made to fault.
    private static var sealed: [Attempt] {
        [
            Attempt("truncating what was opened for writing", EPERM) {
                $0.result(Int(ftruncate($0.writable, 0)))
            },
            Attempt("cutting off the last page", EPERM) {
                var status = stat()
                fstat($0.number, &status)
                return $0.result(Int(ftruncate($0.writable, Int(status.st_size) - 4096)))
            },
            Attempt("making it longer", EPERM) {
                var status = stat()
                fstat($0.number, &status)
                return $0.result(Int(ftruncate($0.writable, Int(status.st_size) + 4096)))
            },
            Attempt("sealing against future writes", EPERM) {
                $0.result(Int(mingle_fcntl($0.writable, 1033, 0x10)))
            },
        ]
    }

    private static func memory(_ victim: Victim, _ flags: Int32) -> Int32 {
        return victim.mapped(PROT_READ, flags) {
            victim.result(pwrite(victim.memory, bytes, 4096, Int(bitPattern: $0)))
        }
    }

    private static func piped(
        _ victim: Victim, fills: Bool, _ body: (Victim, Int32, Int32) -> Int
    ) -> Int32 {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return errno }
        defer { ends.forEach { close($0) } }
        if fills { write(ends[1], bytes, 4096) }
        return victim.result(body(victim, ends[0], ends[1]))
    }

    /// In a process of its own: it changes its user.
    private static func tryAll(as role: Role) throws {
        let stand = try BrokerStand()
        let store = try stand.join("files")
        let victim = Victim(store.storeDescriptor.number)
        // Something that can be seen to change.
        let original = [UInt8](repeating: 0x5A, count: 4096)
        fchmod(victim.number, 0o600)
        #expect(victim.opened(O_RDWR) { pwrite($0, original, 4096, 0) == 4096 ? 0 : errno } == 0)
        if role == .owner, geteuid() == 0 { fchown(victim.number, 65534, gid_t.max) }
        // As the broker makes it.
        fchmod(victim.number, 0o400)
        if role != .root, geteuid() == 0 { #expect(seteuid(65534) == 0) }
        let column = Role.allCases.firstIndex(of: role) ?? 0
        func look() -> [UInt8] {
            var seen = [UInt8](repeating: 0, count: 4096)
            pread(victim.number, &seen, 4096, 0)
            return seen
        }
        func attempt(_ list: [Attempt]) {
            for attempt in list {
                let result = attempt.body(victim)
                let text = "\(role), \(attempt.name): \(String(cString: strerror(result)))"
                #expect(result == attempt.expected[column], "\(text)")
                #expect(look() == original, "\(attempt.name) changed a frame")
            }
        }
        attempt(harmless)
        attempt(hole)
        if victim.writable >= 0 {
            attempt(sealed)
            #expect(pwrite(victim.writable, bytes, 4096, 0) == 4096 && look() == bytes)
            #expect(
                mingle_punch_hole(victim.writable, 0, 4096) == 0
                    && look() == [UInt8](repeating: 0, count: 4096))
            close(victim.writable)
        }
        _ = seteuid(0)
    }

    @Test(.enabled(if: geteuid() == 0, "needs root")) func asRoot() async {
        await #expect(processExitsWith: .success) { try StoreDescriptorTests.tryAll(as: .root) }
    }
    @Test func asTheSameUser() async {
        await #expect(processExitsWith: .success) { try StoreDescriptorTests.tryAll(as: .owner) }
    }
    @Test(.enabled(if: geteuid() == 0, "needs root, to become another user")) func asAnotherUser() async {
        await #expect(processExitsWith: .success) { try StoreDescriptorTests.tryAll(as: .stranger) }
    }
}
