internal import CLinux
internal import GuestMemory
internal import LinuxHost
internal import Glibc

/// The system calls that replace mappings. Tests put others in their place, which fail as kernels do.
package struct MappingCalls: Sendable {
    /// mmap(2) at an address, readable and writable or not at all: 0 or an error number.
    package var map:
        @Sendable (
            _ start: UInt, _ size: Int, _ isAccessible: Bool, _ flags: Int32, _ descriptor: Int32,
            _ offset: UInt64
        ) -> Int32
    /// mremap(2) of a range onto another, replacing what is there; the first stays mapped, without its pages: 0 or an error
    /// number.
    package var move: @Sendable (_ from: UInt, _ size: Int, _ target: UInt) -> Int32
    /// Whether a mapping of this size can be had now, and two more; `isPrivate` ones count as memory to commit.
    package var hasRoom: @Sendable (_ size: Int, _ isPrivate: Bool) -> Bool = { size, isPrivate in
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        // SAFETY: no fixed address, but for one in the middle of what was mapped just before; all is unmapped again.
        let protection = isPrivate ? PROT_READ | PROT_WRITE : PROT_READ
        let whole = unsafe mmap(nil, size, protection, flags, -1, 0)
        guard let whole = unsafe whole, unsafe whole != MAP_FAILED else { return false }
        defer { _ = unsafe munmap(whole, size) }
        let three = unsafe mmap(nil, 3 * 4096, PROT_NONE, flags, -1, 0)
        guard let three = unsafe three, unsafe three != MAP_FAILED else { return false }
        defer { _ = unsafe munmap(three, 3 * 4096) }
        let middle = unsafe mmap(three + 4096, 4096, PROT_READ, flags | MAP_FIXED, -1, 0)
        return unsafe middle != MAP_FAILED
    }
    /// Whether an mmap that fails may have taken away what was mapped there: from Linux 6.12 on it puts that back.
    package var mayLeaveHoles: Bool
    /// Whether the kernel counts what is mapped against a limit, and refuses mappings by that count.
    package var isCommitLimited = false

    package static let kernel = MappingCalls(
        map: { start, size, isAccessible, flags, descriptor, offset in
            // SAFETY: the caller owns the range: it is guest memory, or the scratch.
            let result = unsafe mmap(
                UnsafeMutableRawPointer(bitPattern: start), size,
                /* prot: */ isAccessible ? PROT_READ | PROT_WRITE : PROT_NONE, flags, descriptor, Int(offset))
            return unsafe result == MAP_FAILED ? errno : 0
        },
        move: { from, size, target in
            // SAFETY: as above, of both ranges.
            guard let source = unsafe UnsafeMutableRawPointer(bitPattern: from),
                let place = unsafe UnsafeMutableRawPointer(bitPattern: target)
            else { return EINVAL }
            return unsafe -mingle_mremap_onto(source, size, place)
        },
        mayLeaveHoles: isOlder(than: (6, 12)),
        // Linux's Documentation/mm/overcommit-accounting.rst: 2, and then MAP_NORESERVE counts for nothing.
        isCommitLimited: setting("vm/overcommit_memory").first == "2")

    private static func setting(_ name: String) -> String {
        guard let file = try? OwnedDescriptor.open("/proc/sys/" + name, flags: O_RDONLY),
            let bytes = try? file.read(count: 64, at: 0)
        else { return "" }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Of this kernel; one that does not say counts as old.
    private static func isOlder(than version: (Int, Int)) -> Bool {
        let numbers = setting("kernel/osrelease").split(separator: ".").prefix(2)
            .compactMap { Int($0.prefix { $0.isNumber }) }
        guard numbers.count == 2 else { return true }
        return (numbers[0], numbers[1]) < version
    }
}
