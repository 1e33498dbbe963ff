internal import CLinux
internal import GuestMemory
internal import LinuxHost
internal import Glibc

/// A userfaultfd (userfaultfd(2), Linux's Documentation/admin-guide/mm/userfaultfd.rst): write protection of ranges, and
/// filling of missing pages. Nobody reads its events: a writer that waits is woken by whoever made it wait.
@safe
package final class UserFault {
    /// What a host lets us do with it.
    package enum Ability: Equatable, Sendable {
        /// Write protection that also stops KVM: faults from kernel mode are covered.
        case protect
        /// Only filling of missing pages.
        case fill
    }

    private let descriptor: OwnedDescriptor
    package let ability: Ability

    /// Opens one with the best ability that this host grants, or none.
    package static func open() -> UserFault? {
        for source in UserfaultSource.allCases {
            if let descriptor = try? source.protecting() { return UserFault(descriptor, .protect) }
        }
        guard let descriptor = try? UserfaultSource.filling() else { return nil }
        return UserFault(descriptor, .fill)
    }

    private init(_ descriptor: consuming OwnedDescriptor, _ ability: Ability) {
        self.descriptor = descriptor
        self.ability = ability
    }

    enum Mode { case writeProtect, missing }

    /// Registers whole mappings or parts of them; again is no error.
    func register(_ start: UInt, _ size: Int, _ mode: Mode) throws(LinuxError) {
        var request = uffdio_register()
        request.range = uffdio_range(start: UInt64(start), len: UInt64(size))
        request.mode = mode == .writeProtect ? UInt64(1) << 1 : UInt64(1) << 0
        try checked(
            unsafe mingle_ioctl_pointer(descriptor.number, MINGLE_UFFDIO_REGISTER, &request),
            "UFFDIO_REGISTER")
    }

    func unregister(_ start: UInt, _ size: Int) {
        var range = uffdio_range(start: UInt64(start), len: UInt64(size))
        _ = unsafe mingle_ioctl_pointer(descriptor.number, MINGLE_UFFDIO_UNREGISTER, &range)
    }

    /// From the return on, every writer of the range waits, in this process and in KVM; lifting wakes them.
    func protect(_ start: UInt, _ size: Int, _ on: Bool) throws(LinuxError) {
        var request = uffdio_writeprotect()
        request.range = uffdio_range(start: UInt64(start), len: UInt64(size))
        request.mode = on ? UInt64(1) << 0 : 0
        // A range that changes at the moment asks for another try.
        while true {
            let result = unsafe mingle_ioctl_pointer(descriptor.number, MINGLE_UFFDIO_WRITEPROTECT, &request)
            if result == -EAGAIN { continue }
            try checked(result, "UFFDIO_WRITEPROTECT")
            return
        }
    }

    /// Wakes whoever waits for the range: a new mapping alone does not.
    func wake(_ start: UInt, _ size: Int) {
        var range = uffdio_range(start: UInt64(start), len: UInt64(size))
        _ = unsafe mingle_ioctl_pointer(descriptor.number, MINGLE_UFFDIO_WAKE, &range)
    }

    /// Makes a missing page of a private mapping a private copy of the page at `source`, without touching the file below.
    func fill(_ target: UInt, from source: UInt) throws(LinuxError) {
        var request = uffdio_copy()
        request.dst = UInt64(target)
        request.src = UInt64(source)
        request.len = Page.size
        try checked(
            unsafe mingle_ioctl_pointer(descriptor.number, MINGLE_UFFDIO_COPY, &request), "UFFDIO_COPY")
    }
}
